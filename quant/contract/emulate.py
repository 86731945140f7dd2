"""The reference: the integer network executed exactly, with every saturation and overflow counted.

Sums are computed by BLAS in floating point, which is exact: every product and every partial sum, in any order, is an
integer within :func:`quant.contract.arithmetic.linear_bounds`, and these are checked to lie below 2**24 (float32) or
2**53 (float64) before they are used.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Codes, Format, checked, linear_bounds, requantize, shift_round
from quant.contract.attention import NonLocal, nonlocal_codes
from quant.contract.layers import Leaky, Linear, Requantize
from quant.contract.network import IntegerNetwork

#: Codes in the widest intermediate array of one chunk; bounds memory at some tens of MiB.
_CHUNK_CODES = 4_000_000


@dataclass(frozen=True)
class LayerStats:
    """What happened in one layer over a run: codes computed, codes clipped, sums beyond the accumulator's format."""

    name: str
    kind: str
    elements: int
    saturations: int
    overflows: int


@dataclass(frozen=True)
class Result:
    """outputs: (N, 2 or 4) codes; layers: one :class:`LayerStats` each; trace: codes after each layer, if asked for."""

    outputs: Codes
    layers: tuple[LayerStats, ...]
    trace: tuple[Codes, ...] = ()


def run(network: IntegerNetwork, codes: NDArray[np.integer], trace: bool = False) -> Result:
    """Execute ``network`` on input codes (N, *network.shape); a code out of range is refused."""
    checked = checked_codes(codes, network.shape, network.input)
    sums = sum_types(network)
    step = max(1, _CHUNK_CODES // _widest(network))
    parts: list[list[Codes]] = [[] for _ in network.layers]
    counts = np.zeros((len(network.layers), 3), dtype=np.int64)
    for start in range(0, max(len(checked), 1), step):
        x, frac = checked[start : start + step], network.input.frac
        for index, layer in enumerate(network.layers):
            saturations = overflows = 0
            if isinstance(layer, Linear):
                x, frac = _linear(layer, x, sums[index]), layer.accumulator.frac
                overflows = int(np.count_nonzero((x < layer.accumulator.low) | (x > layer.accumulator.high)))
            elif isinstance(layer, Requantize):
                x, saturations = activate(layer, x, frac)
                frac = layer.output.frac
            elif isinstance(layer, NonLocal):
                found = nonlocal_codes(layer, x)
                x, frac = found.codes, layer.accumulator.frac
                saturations, overflows = sum(found.saturations.values()), sum(found.overflows.values())
            else:
                x = x.reshape(len(x), int(np.prod(x.shape[1:])))
            counts[index] += (x.size, saturations, overflows)
            if trace or index == len(network.layers) - 1:
                parts[index].append(x)
    stats = tuple(
        LayerStats(layer.name, layer.kind, *map(int, row)) for layer, row in zip(network.layers, counts, strict=True)
    )
    joined = [np.concatenate(part) if part else np.zeros(0, np.int64) for part in parts]
    return Result(joined[-1], stats, tuple(joined) if trace else ())


def checked_codes(codes: NDArray[np.integer], shape: tuple[int, ...], to: Format) -> Codes:
    """Input codes (n, *shape) as a network's first layer takes them: int64, (n, 1, size, size) or flat (n, inputs).

    Another shape, a dtype that is no integer, or a code beyond ``to`` is refused by a UserError.
    """
    found = np.asarray(codes)
    if found.ndim == 4 and found.shape[1] == 1:
        found = found[:, 0]
    codes = checked(found, shape, to.low, to.high, "input codes", "normalize detector counts first")
    return codes.astype(np.int64) if len(shape) == 1 else codes[:, None].astype(np.int64)


def activate(layer: Requantize, x: Codes, frac: int) -> tuple[Codes, int]:
    """Codes at ``frac`` through a requantization of any kind, with the number that saturated."""
    if not isinstance(layer, Leaky):
        return requantize(np.maximum(x, 0) if layer.kind == "relu" else x, frac, layer.output, layer.rounding)
    shift = frac - layer.output.frac
    below = shift_round(x * layer.slope_code, shift + layer.slope_frac, layer.rounding)
    rounded = np.where(x < 0, below, shift_round(x, shift, layer.rounding))
    clipped = np.clip(rounded, layer.output.low, layer.output.high)
    return clipped, int(np.count_nonzero(clipped != rounded))


def _linear(layer: Linear, x: Codes, dtype: DTypeLike) -> Codes:
    """Exact sums of one layer: conv2d (n, c, h, w) to (n, out, h', w'), dense (n, in) to (n, out)."""
    weight = layer.weight.reshape(len(layer.weight), -1).T.astype(dtype)
    bias = layer.bias.astype(dtype)
    if layer.kind == "dense":
        return (x.astype(dtype) @ weight + bias).astype(np.int64)
    kernel = layer.weight.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(dtype), kernel, axis=(2, 3))  # n, c, h', w', kh, kw
    n, _, rows, cols = windows.shape[:4]
    columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * rows * cols, len(weight))
    sums = (columns @ weight + bias).astype(np.int64)
    return np.ascontiguousarray(sums.reshape(n, rows, cols, len(bias)).transpose(0, 3, 1, 2))


def sum_types(network: IntegerNetwork) -> list[DTypeLike]:
    """The floating-point type that is exact for each layer's sums; a network that needs more is refused."""
    found: list[DTypeLike] = []
    low, high = network.input.low, network.input.high
    for layer in network.layers:
        dtype: DTypeLike = np.float32
        if isinstance(layer, Linear):
            flat = layer.weight.reshape(len(layer.weight), -1)
            low, high = linear_bounds(flat, layer.bias, low, high)
            largest = max(-low, high, abs(int(flat.min())), int(flat.max()))
            if largest >= 1 << 53:
                raise UserError(f"layer {layer.name}: sums need more than 53 bits; use narrower weights or activations")
            dtype = np.float32 if largest < 1 << 24 else np.float64
        elif isinstance(layer, Requantize):
            low, high = layer.output.low, layer.output.high
        elif isinstance(layer, NonLocal):
            low, high = layer.accumulator.low, layer.accumulator.high
        found.append(dtype)
    return found


def _widest(network: IntegerNetwork) -> int:
    """Codes per patch of the widest intermediate array, im2col included."""
    rows, widest = network.size, network.size**2
    for layer in network.layers:
        if isinstance(layer, Linear) and layer.kind == "conv2d":
            out, inputs, height, width = layer.weight.shape
            rows -= height - 1
            widest = max(widest, rows * rows * max(out, inputs * height * width))
        elif isinstance(layer, Linear):
            widest = max(widest, *layer.weight.shape)
        elif isinstance(layer, NonLocal):
            widest = max(widest, 4 * layer.positions**2)  # four arrays of scores and weights are held at once
    return widest

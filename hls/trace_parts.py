"""The circuit's parts as da4ml operations: normalizers, network, centroid; integers in, integers out.

Each follows the steps of the module that defines it: :mod:`quant.block_shift`, :mod:`quant.normalize`,
:mod:`quant.emulate`, :mod:`quant.centroid`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from da4ml.trace import FixedVariableArray

from braggnn_edge.errors import UserError
from hls.trace_ops import (
    Variable,
    any_of,
    field,
    floored,
    leading_zeros,
    multiplexer,
    product,
    saturated,
    shifted_left,
)
from quant.arithmetic import Codes
from quant.block_shift import BlockShift
from quant.centroid import Centroid
from quant.layers import Flatten, Leaky, Linear, Requantize
from quant.network import IntegerNetwork
from quant.normalize import Normalizer


def normalized(normalizer: Normalizer | BlockShift, counts: Sequence[Variable]) -> list[Variable]:
    """Counts of a patch, one variable a pixel, to codes."""
    if isinstance(normalizer, BlockShift):
        return _block_shifted(normalizer, list(counts))
    return _min_max(normalizer, list(counts))


def _block_shifted(normalizer: BlockShift, counts: list[Variable]) -> list[Variable]:
    width = normalizer.count_bits
    if normalizer.subtract:
        low = _extreme(counts, largest=False)
        counts = [(count - low).quantize(0, width, 0) for count in counts]
    zeros = leading_zeros(any_of(counts), width)
    return [shifted_left(count, zeros, width, width - normalizer.bits) for count in counts]


def _min_max(normalizer: Normalizer, counts: list[Variable]) -> list[Variable]:
    width, mantissa, index = normalizer.count_bits, normalizer.mantissa_bits, normalizer.table_bits
    low = _extreme(counts, largest=False)
    r = (_extreme(counts, largest=True) - low).quantize(0, width, 0)
    zeros = leading_zeros(r, width)
    aligned = shifted_left(r, zeros, width, width - 1 - index)
    reciprocal = field(aligned, 0, index).lookup(normalizer.table.astype(np.float64))
    codes = []
    for count in counts:
        t = shifted_left((count - low).quantize(0, width, 0), zeros, width, width - mantissa)
        code = product(t, reciprocal, mantissa, normalizer.shift)
        codes.append(code.quantize(0, normalizer.bits, 0))  # below 2**bits by the proof in quant/normalize.py
    return codes


def _extreme(words: list[Variable], largest: bool) -> Variable:
    """The largest or the smallest of the words, by a tree of comparisons."""
    while len(words) > 1:
        pairs = [words[at : at + 2] for at in range(0, len(words), 2)]
        words = [_chosen(pair[0], pair[1], largest) if len(pair) == 2 else pair[0] for pair in pairs]
    return words[0]


def _chosen(a: Variable, b: Variable, largest: bool) -> Variable:
    first_less = (a - b).is_negative()
    result = multiplexer(first_less, *((b, a) if largest else (a, b)))
    sign, integer, _ = a.kif
    return result.quantize(sign, integer, 0)


def network_outputs(network: IntegerNetwork, codes: Sequence[Variable], options: dict[str, Any]) -> list[Variable]:
    """Input codes, one variable a pixel in row order, to output codes. ``options`` are those of da4ml's solver."""
    x: Any = np.array(list(codes), dtype=object).reshape(1, network.size, network.size)
    frac = network.input.frac
    for layer in network.layers:
        if isinstance(layer, Linear):
            x = _linear(layer, x, options)
            frac = layer.accumulator.frac
        elif isinstance(layer, Requantize) and not isinstance(layer, Leaky):
            x, frac = _requantized(layer, x, frac), layer.output.frac
        elif isinstance(layer, Flatten):
            x = x.reshape(-1)
        else:
            raise UserError(refusal(layer.name, layer.kind))
    return list(x.ravel())


def refusal(name: str, kind: str) -> str:
    """The message for a layer that has no unrolled form."""
    return (
        f"layer {name} ({kind}) has no unrolled form; expected convolutions, dense layers, relu, identity and flatten, "
        "rounded towards minus infinity: use the HLS form (`make hls`) or train another network"
    )


def _linear(layer: Linear, x: Any, options: dict[str, Any]) -> Any:
    if layer.kind == "dense":
        return weighted(x.ravel(), layer.weight.T, options) + layer.bias.tolist()
    out, _, height, width = layer.weight.shape
    _, rows, cols = x.shape
    matrix = layer.weight.reshape(out, -1).T
    result = np.empty((out, rows - height + 1, cols - width + 1), dtype=object)
    for row in range(result.shape[1]):
        for col in range(result.shape[2]):
            patch = x[:, row : row + height, col : col + width].ravel()
            result[:, row, col] = weighted(patch, matrix, options) + layer.bias.tolist()
    return result


def weighted(x: Any, matrix: Codes, options: dict[str, Any]) -> Any:
    """Sums (outputs,) of variables (inputs,) times whole weights (inputs, outputs): distributed arithmetic."""
    used = np.flatnonzero(matrix.any(axis=1))
    if not used.size:
        return np.zeros(matrix.shape[1], dtype=object)
    # Constants among the inputs (pixels or neurons that can only be 0) are left to da4ml.
    array = FixedVariableArray(np.asarray(x, dtype=object)[used], solver_options=options)
    return (array @ matrix[used].astype(np.float64))._vars


def _requantized(layer: Requantize, x: Any, frac: int) -> Any:
    if layer.rounding != "floor":
        raise UserError(refusal(layer.name, f"{layer.kind}, {layer.rounding}"))
    shift, to = frac - layer.output.frac, layer.output
    result = np.empty(x.shape, dtype=object)
    for index, value in np.ndenumerate(x):
        known = constant_like(value) if isinstance(value, int | float) else value  # an output without weights
        positive = known.relu() if layer.kind == "relu" else known
        result[index] = saturated(floored(positive >> shift), to.low, to.high, to.bits, to.signed)
    return result


def constant_like(value: float) -> Variable:
    """A variable that is always ``value``."""
    from da4ml.trace import FixedVariable, HWConfig  # noqa: PLC0415

    return FixedVariable.from_const(float(value), hwconf=HWConfig(1, -1, -1))


def centroid_codes(centroid: Centroid, codes: Sequence[Variable], options: dict[str, Any]) -> list[Variable]:
    """Input codes, one variable a pixel in row order, to the centroid's two results."""
    table = np.asarray(centroid.weights, dtype=np.float64)
    w = np.array([code.lookup(table) for code in codes], dtype=object)
    row, col = np.indices((centroid.window, centroid.window)) - centroid.reach
    matrix = np.stack([np.ones(w.size, np.int64), row.ravel(), col.ravel()], axis=1)
    total, *moments = weighted(w, matrix, options)
    width, index = centroid.sum_bits, centroid.index_bits
    total = total.quantize(0, width, 0)
    zeros = leading_zeros(total, width)
    aligned = shifted_left(total, zeros, width, width - 1 - index)
    reciprocal = field(aligned, 0, index).lookup(centroid.table.astype(np.float64))
    results = []
    for moment in moments:
        t = shifted_left(moment, zeros, width + centroid.reach_bits, centroid.numerator_shift, signed=True)
        results.append(product(t, reciprocal, centroid.reciprocal_bits, centroid.result_shift))
    return results

"""The circuit's parts as da4ml operations: normalizers, network, centroid; integers in, integers out.

Each follows the steps of the module that defines it: :mod:`quant.contract.block_shift`,
:mod:`quant.contract.normalize`, :mod:`quant.contract.emulate`, :mod:`quant.contract.centroid`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from da4ml.trace import FixedVariable, HWConfig

from braggnn_edge.core.errors import UserError
from hls.rtl.cmvm import Effort, plus, solution
from hls.rtl.trace_ops import (
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
from quant.contract.arithmetic import Codes
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.layers import Flatten, Leaky, Linear, Requantize
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer


def normalized(
    normalizer: Normalizer | BlockShift, counts: Sequence[Variable], exponent: int, levels: float | None = None
) -> list[Variable]:
    """Counts of a patch, one variable a pixel, to codes; with ``exponent`` above 0 those of the exponent follow.

    levels: of a pipeline stage, None where nothing is cut into stages.
    """
    if isinstance(normalizer, BlockShift):
        return _block_shifted(normalizer, list(counts), exponent, levels)
    return _min_max(normalizer, list(counts), levels)


def _block_shifted(
    normalizer: BlockShift, counts: list[Variable], exponent: int, levels: float | None
) -> list[Variable]:
    width = normalizer.count_bits
    if normalizer.subtract:
        low = _extreme(counts, largest=False)
        counts = [(count - low).quantize(0, width, 0) for count in counts]
    together = any_of(counts)
    zeros = leading_zeros(together, width, levels)
    codes = [shifted_left(count, zeros, width, width - normalizer.bits) for count in counts]
    reached = [field(together, place, width).unary_bit_op("any") for place in range(exponent)]
    return codes + [bit << (normalizer.bits - 1) for bit in reached]


def _min_max(normalizer: Normalizer, counts: list[Variable], levels: float | None) -> list[Variable]:
    width, mantissa, index = normalizer.count_bits, normalizer.mantissa_bits, normalizer.table_bits
    low = _extreme(counts, largest=False)
    r = (_extreme(counts, largest=True) - low).quantize(0, width, 0)
    zeros = leading_zeros(r, width, levels)
    aligned = shifted_left(r, zeros, width, width - 1 - index)
    reciprocal = field(aligned, 0, index).lookup(normalizer.table.astype(np.float64))
    codes = []
    for count in counts:
        t = shifted_left((count - low).quantize(0, width, 0), zeros, width, width - mantissa)
        code = product(t, reciprocal, mantissa, normalizer.shift)
        codes.append(code.quantize(0, normalizer.bits, 0))  # below 2**bits by the proof in quant/contract/normalize.py
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


def network_outputs(network: IntegerNetwork, codes: Sequence[Variable], effort: Effort) -> list[Variable]:
    """Input codes, one variable a pixel in row order, then those of an exponent, to output codes."""
    x: Any = np.array(list(codes), dtype=object).reshape(network.shape if network.exponent else (1, *network.shape))
    frac = network.input.frac
    for layer in network.layers:
        if isinstance(layer, Linear):
            x = _linear(layer, x, effort)
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


def _linear(layer: Linear, x: Any, effort: Effort) -> Any:
    bias = layer.bias.tolist()
    if layer.kind == "dense":
        return np.array(weighted(x.reshape(1, -1), layer.weight.T, bias, effort)[0], dtype=object)
    out, _, height, width = layer.weight.shape
    _, rows, cols = x.shape
    shape = (out, rows - height + 1, cols - width + 1)
    places = [(row, col) for row in range(shape[1]) for col in range(shape[2])]
    patches = np.stack([x[:, row : row + height, col : col + width].ravel() for row, col in places])
    sums = weighted(patches, layer.weight.reshape(out, -1).T, bias, effort)
    result = np.empty(shape, dtype=object)
    for (row, col), values in zip(places, sums, strict=True):
        result[:, row, col] = values
    return result


def weighted(x: Any, matrix: Codes, constants: Sequence[int], effort: Effort) -> list[list[Variable]]:
    """Sums (n, outputs) of variables (n, inputs) times whole weights (inputs, outputs) and of a constant each.

    There is one way to add for all n.
    """
    used = np.flatnonzero(matrix.any(axis=1))
    filled = np.flatnonzero(matrix.any(axis=0))
    # Inputs that can only be 0 (neurons that never fire) are left out of the search where they are the same in all.
    used = np.array([row for row in used if any(v.low != v.high for v in x[:, row])], dtype=np.intp)
    results: list[list[Variable]] = [[constant_like(constant) for constant in constants] for _ in x]
    filled = np.array([column for column in filled if matrix[used, column].any()], dtype=np.intp)
    if used.size:
        filled_constants = [constants[int(column)] for column in filled]
        way = solution(matrix[used][:, filled], [_widest(x[:, row]) for row in used], effort)
        for place, values in enumerate(x):
            for column, value in zip(filled, way.apply([values[row] for row in used], filled_constants), strict=True):
                results[place][column] = value
    known = [[v if v.low == v.high else None for v in values] for values in x]
    for place, values in enumerate(known):
        for row, value in enumerate(values):
            if value is not None and row not in used:
                results[place] = [
                    plus(result, int(value.low) * int(weight))
                    for result, weight in zip(results[place], matrix[row], strict=True)
                ]
    return results


def _widest(column: Sequence[Variable]) -> Variable:
    """Of the variables at one input of several places the one with the most bits."""
    return max(column, key=lambda v: (v.high - v.low, v.latency))


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
    return FixedVariable.from_const(float(value), hwconf=HWConfig(1, -1, -1))


def centroid_codes(centroid: Centroid, codes: Sequence[Variable], effort: Effort) -> list[Variable]:
    """Input codes, one variable a pixel in row order, to the centroid's two results."""
    table = np.asarray(centroid.weights, dtype=np.float64)
    w = np.array([code.lookup(table) for code in codes], dtype=object)
    row, col = np.indices((centroid.window, centroid.window)) - centroid.reach
    matrix = np.stack([np.ones(w.size, np.int64), row.ravel(), col.ravel()], axis=1)
    total, *moments = weighted(w.reshape(1, -1), matrix, [0, 0, 0], effort)[0]
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

"""The types in which the kernel computes a layer, by bounds that are proved for every input.

Every partial sum of a layer, in any order, lies within :func:`quant.contract.arithmetic.linear_bounds`. What follows is
computed in the same type, so the bounds are widened by the rounding's addend, by shifts to the left and by a leaky
slope. Sums have 32 bits where all of that fits, else 64. Inputs and weights of 16 bits are multiplied in pairs, which
adds two products at once, and where the processor can, inputs of 0 to 255 and weights of 8 bits in fours; others one by
one.
"""

import numpy as np

from braggnn_edge.core.errors import UserError
from quant.compiled.records import Sums
from quant.contract.arithmetic import Format, linear_bounds
from quant.contract.attention import NonLocal, block_bounds
from quant.contract.emulate import activate
from quant.contract.layers import Leaky, Linear, Requantize

Bounds = tuple[int, int]
_INT8, INT16, INT32, INT64 = ((-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in (8, 16, 32, 64))
_UINT8 = (0, 255)
#: Largest integer below which float64 holds all.
_FLOAT64 = 1 << 53


def type_of(layer: Linear, after: Requantize | None, inputs: Bounds, quads: bool = False) -> tuple[Sums, Bounds]:
    """The type of a layer's sums for inputs within bounds, and the bounds of the codes behind it.

    quads: whether products are made in fours. Raises UserError, with the layer's name, for numbers that the kernel
    cannot hold.
    """
    flat = layer.weight.reshape(len(layer.weight), -1)
    weights = int(flat.min(initial=0)), int(flat.max(initial=0))
    sums = linear_bounds(flat, layer.bias, *inputs)
    computed, ends = _followed(after, sums, layer.accumulator.frac)
    if not (within(inputs, INT32) and within(weights, INT32) and within(computed, INT64) and within(ends, INT32)):
        raise UserError(f"layer {layer.name}: its numbers are too wide for a compiled form")
    if not within(computed, INT32):
        return Sums.LONG, ends
    if quads and within(inputs, _UINT8) and within(weights, _INT8):
        return Sums.QUADS, ends
    return (Sums.PAIRS if within(inputs, INT16) and within(weights, INT16) else Sums.SINGLE), ends


def block_ends(block: NonLocal, after: Requantize | None, inputs: Bounds) -> Bounds:
    """Bounds of the codes behind a non-local block. Raises UserError for one that does not fit the kernel's types."""
    most = max(-block.weighted.low, block.weighted.high)
    difference = block.score.high - block.score.low
    sixteen = (block.query, block.key, block.value, block.mixed)
    out, _ = type_of(block.out, None, ends_of(block.mixed))
    sums = block_bounds(block, *inputs)
    computed, ends = _followed(after, sums, block.accumulator.frac)
    fits = (
        all(within(ends_of(each), INT16) for each in sixteen)
        and block.exponential.high <= INT16[1]
        and block.reciprocal.high <= INT32[1]
        and all(within(ends_of(each), INT32) for each in (block.score, block.total, block.weighted))
        and difference << max(-block.difference_shift, 0) <= INT32[1]
        and most * block.reciprocal.high < _FLOAT64
        and block.reciprocal_shift + block.total.bits < 63
        and block.index_bits + block.total.bits < 63
        and out == Sums.PAIRS
        and within(computed, INT32)
        and within(inputs, INT32)
    )
    if not fits:
        raise UserError(f"layer {block.name}: its numbers are too wide for a compiled form")
    return ends


def _followed(after: Requantize | None, sums: Bounds, frac: int) -> tuple[Bounds, Bounds]:
    """Bounds of all that is computed of sums within bounds, before the shift to the right, and of the codes."""
    if after is None:
        return sums, sums
    codes = activate(after, np.array(sums), frac)[0] if within(sums, INT64) else np.array(ends_of(after.output))
    down = frac - after.output.frac
    found = [sums, ends_of(after.output), _moved(sums, down, after.rounding)]
    if isinstance(after, Leaky):  # of all sums: the kernel selects afterwards
        below = sorted((after.slope_code * sums[0], after.slope_code * sums[1]))
        found += [(below[0], below[1]), _moved((below[0], below[1]), down + after.slope_frac, after.rounding)]
    computed = min(low for low, _ in found), max(high for _, high in found)
    return computed, (int(codes[0]), int(codes[1]))  # every kind is monotone


def _moved(bounds: Bounds, down: int, rounding: str) -> Bounds:
    up, half, _ = shift_of(down, rounding)
    return (bounds[0] << up), (bounds[1] << up) + half


def shift_of(down: int, rounding: str) -> tuple[int, int, int]:
    """A shift to the right with rounding: to the left first, what is added, to the right."""
    half = 1 << (down - 1) if down > 0 and rounding == "half_up" else 0
    return max(-down, 0), half, max(down, 0)


def ends_of(of: Format) -> Bounds:
    """Smallest and largest code."""
    return of.low, of.high


def within(inner: Bounds, outer: Bounds) -> bool:
    """Whether bounds lie inside others."""
    return outer[0] <= inner[0] and inner[1] <= outer[1]

"""What a patch says of its peak besides the position: local background, integrated intensity, width.

The patch is the square of ``size`` px around the brightest pixel, as far as it lies in the frame.

- *background*: a mean over the patch's border pixels, those of its outermost ring that are valid and in no component.
  Left out are those farther than 3 standard deviations from their median; the deviation is that of the border itself,
  by its median absolute deviation, and at least the square root of the median, or 1 count. (The median itself is a
  whole number where pixels hold few counts, and off by up to half a count.) Where fewer than :data:`LEAST` border
  pixels are left, the whole patch stands for the ring, and where it has as few, the square of twice its side, or of
  four times. The background is not known where that has none either.
- *intensity*: the sum, over the patch's pixels, of counts minus background. Left out are bad pixels, the pixels of
  other components, and of the peak's own component those nearer to another of its maxima. What is left out is not made
  up for: the flags BAD_PIXEL, NEIGHBOUR, DOUBLE and EDGE say where something may be missing. So are tails: what a spot
  has beyond the patch is not in the sum, and what it has on the border counts as background.
- *width*: the standard deviation of the spot along rows and columns. Second moments over the same pixels are weighted
  by the square of counts minus background (below it: 0), which noise and tails hardly touch; a spot that is normally
  distributed has twice the variance of its square. Its full width at half maximum is 2.355 of them (:data:`FWHM`).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.peaks.rules import Found, Valid

#: Border pixels of which the background is taken at least.
LEAST = 8
#: Border pixels farther from their median, in standard deviations, are no background.
_CLIP = 3.0
#: Standard deviation of a normal distribution over its median absolute deviation.
_MAD = 1.4826
#: Full width at half maximum of a normal distribution, in standard deviations.
FWHM = 2.0 * math.sqrt(2.0 * math.log(2.0))
#: Peaks that are measured at a time, and those whose background is looked for farther away: this bounds memory.
_BLOCK, _WIDE_BLOCK = 4096, 512
#: Sides of the squares in which a background is looked for that the patch does not show, over the patch's.
_WIDER = (2, 4)


@dataclass(frozen=True)
class Measured:
    """background (m,), intensity (m,), counts; width (m, 2) along rows and columns, px. NaN: not known."""

    background: NDArray[np.float64]
    intensity: NDArray[np.float64]
    width: NDArray[np.float64]


def measure(frame: NDArray[Any], valid: Valid, found: Found, size: int) -> Measured:
    """Measure the peaks ``found`` in ``frame`` (rows, cols) in patches of ``size`` px."""
    count = len(found.row)
    result = Measured(*(np.full(shape, np.nan) for shape in (count, count, (count, 2))))
    if not count:
        return result
    # Of these zeros the system gives memory to the pages alone that hold a pixel of a component.
    owner = np.zeros(frame.size, np.int32)  # 0: in no component; -1: in one without a peak; else the peak + 1
    owner[found.pixels] = np.where(found.owner < 0, -1, found.owner + 1)
    for start in range(0, count, _BLOCK):
        block = slice(start, min(start + _BLOCK, count))
        _measure(frame, valid, owner, found, block, size, result)
    return result


def _measure(
    frame: NDArray[Any], valid: Valid, owner: NDArray[np.int32], found: Found, block: slice, size: int, result: Measured
) -> None:
    steps = np.arange(size) - size // 2
    counts, owned, good = _squares(frame, valid, owner, found.row[block], found.col[block], size)
    ring = np.zeros((size, size), bool)
    ring[[0, -1]] = ring[:, [0, -1]] = True
    free = good & (owned == 0)
    background = _level(counts, free, ring)
    few = np.flatnonzero(free.sum(axis=(1, 2)) < LEAST)
    for start in range(0, len(few), _WIDE_BLOCK):
        some = few[start : start + _WIDE_BLOCK]
        background[some] = _farther(frame, valid, owner, found, block.start + some, size, background[some])
    mine = np.arange(block.start, block.stop)[:, None, None] + 1
    inside = good & ((owned == 0) | (owned == mine))
    above = np.where(inside, counts - background[:, None, None], 0.0)
    result.background[block] = background
    result.intensity[block] = above.sum(axis=(1, 2))
    weight = np.square(above.clip(0.0))
    total = weight.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):  # a spot without counts above its background has no width
        by_row, by_col = weight.sum(axis=2) / total[:, None], weight.sum(axis=1) / total[:, None]
        for axis, share in enumerate((by_row, by_col)):
            variance = share @ steps**2 - (share @ steps) ** 2
            # Twice: of the square of a normal distribution. Rounding may leave a little less than 0.
            result.width[block, axis] = np.sqrt(2 * variance.clip(0.0))


def _squares(
    frame: NDArray[Any], valid: Valid, owner: NDArray[np.int32], row: NDArray[np.int64], col: NDArray[np.int64],
    side: int,
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.bool_]]:  # fmt: skip
    """Of the squares (m, side, side) around pixels: counts, whose they are, and which are good pixels of the frame."""
    rows, cols = frame.shape
    steps = np.arange(side) - side // 2
    at_row, at_col = row[:, None] + steps, col[:, None] + steps
    in_rows, in_cols = (at_row >= 0) & (at_row < rows), (at_col >= 0) & (at_col < cols)
    flat = at_row.clip(0, rows - 1)[:, :, None] * cols + at_col.clip(0, cols - 1)[:, None, :]
    good = in_rows[:, :, None] & in_cols[:, None, :]
    if valid is not None:
        good &= valid.reshape(-1)[flat]
    return frame.reshape(-1)[flat].astype(np.float64), owner[flat], good


def _farther(
    frame: NDArray[Any], valid: Valid, owner: NDArray[np.int32], found: Found, some: NDArray[np.int64], size: int,
    near: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    """(k,) background of the peaks ``some`` (k,), whose patches show too little of it, from farther away.

    near: what the patch says, which stays where there is nothing better.
    """
    level, left = near.copy(), np.arange(len(some))
    for times in _WIDER:
        peaks = some[left]
        counts, owned, good = _squares(frame, valid, owner, found.row[peaks], found.col[peaks], times * size + 1)
        free = good & (owned == 0)
        values = np.where(free, counts, np.nan).reshape(len(left), (times * size + 1) ** 2)
        enough = free.sum(axis=(1, 2)) >= LEAST
        level[left[enough]] = clipped_mean(values[enough])
        left = left[~enough]
    return level


def _level(counts: NDArray[np.float64], free: NDArray[np.bool_], ring: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(m,) background by the ``free`` pixels (m, s, s) on the ring (s, s), or in the patch where these are few."""
    border = np.where(free & ring, counts, np.nan)[:, ring]
    few = np.isfinite(border).sum(axis=1) < LEAST
    found = np.full(len(counts), np.nan)
    found[~few] = clipped_mean(border[~few])
    found[few] = clipped_mean(np.where(free[few], counts[few], np.nan)[:, np.ones_like(ring)])
    return found


def clipped_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m,) mean of those numbers of every row that are near its median; NaN for a row that has none."""
    middle = _median(values)[:, None]
    deviation = np.abs(values - middle)
    spread = np.maximum(_MAD * _median(deviation)[:, None], np.sqrt(np.maximum(middle, 1.0)))
    near = deviation <= _CLIP * spread  # False for NaN
    with np.errstate(invalid="ignore"):
        return np.where(near, values, 0.0).sum(axis=1) / near.sum(axis=1)


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m,) median of the numbers of every row, NaN for a row that has none (``np.nanmedian`` goes row by row)."""
    if not values.size:
        return np.full(len(values), np.nan)
    ascending = np.sort(values, axis=1)  # NaN is at the end
    count = np.isfinite(values).sum(axis=1)
    each = np.arange(len(values))
    return (ascending[each, (count - 1).clip(0) // 2] + ascending[each, count // 2]) / 2

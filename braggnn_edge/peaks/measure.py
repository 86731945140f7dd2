"""What a patch says of its peak besides the position: local background, integrated intensity, width.

The patch is the square of ``size`` px around the brightest pixel, as far as it lies in the frame.

- *background*: the median of the patch's border pixels, those of its outermost ring that are valid and in no component.
  Where fewer than :data:`LEAST` are left, the ring is the whole patch; where that has none either, it is not known.
- *intensity*: the sum, over the patch's pixels, of counts minus background. Left out are bad pixels, the pixels of
  other components, and of the peak's own component those nearer to another of its maxima. What is left out is not made
  up for: the flags BAD_PIXEL, NEIGHBOUR, DOUBLE and EDGE say where something may be missing.
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

#: Border pixels of which the median is taken at least.
LEAST = 8
#: Full width at half maximum of a normal distribution, in standard deviations.
FWHM = 2.0 * math.sqrt(2.0 * math.log(2.0))
#: Peaks that are measured at a time, which bounds memory.
_BLOCK = 4096


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
    rows, cols = frame.shape
    steps = np.arange(size) - size // 2
    row, col = found.row[block, None] + steps, found.col[block, None] + steps
    in_rows, in_cols = (row >= 0) & (row < rows), (col >= 0) & (col < cols)
    flat = row.clip(0, rows - 1)[:, :, None] * cols + col.clip(0, cols - 1)[:, None, :]
    good = in_rows[:, :, None] & in_cols[:, None, :]
    if valid is not None:
        good &= valid.reshape(-1)[flat]
    counts, owned = frame.reshape(-1)[flat].astype(np.float64), owner[flat]
    ring = np.zeros((size, size), bool)
    ring[[0, -1]] = ring[:, [0, -1]] = True
    background = _median(counts, good & (owned == 0), ring)
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


def _median(counts: NDArray[np.float64], free: NDArray[np.bool_], ring: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(m,) median of the ``free`` pixels (m, s, s) on the ring (s, s), or of the whole patch where these are few."""
    border = np.where(free & ring, counts, np.nan)[:, ring]
    few = np.isfinite(border).sum(axis=1) < LEAST
    found = np.full(len(counts), np.nan)
    found[~few] = _nan_median(border[~few])
    found[few] = _nan_median(np.where(free[few], counts[few], np.nan)[:, np.ones_like(ring)])
    return found


def _nan_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m,) median of the numbers of every row, NaN for a row that has none (``np.nanmedian`` goes row by row)."""
    if not len(values):
        return np.empty(0)
    ascending = np.sort(values, axis=1)  # NaN is at the end
    count = np.isfinite(values).sum(axis=1)
    each = np.arange(len(values))
    return (ascending[each, (count - 1).clip(0) // 2] + ascending[each, count // 2]) / 2

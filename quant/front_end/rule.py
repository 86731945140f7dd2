"""The peaks of one frame as firmware finds them: pixels, counts, flags and windows.

Which pixels are peaks is the window rule of :mod:`braggnn_edge.peaks.window`, on corrected counts. A test of
significance may leave some of them out (:class:`quant.front_end.spec.Significance`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.peaks.find import bad_in_patches, outside_frame, pixels_above
from braggnn_edge.peaks.window import window_peaks
from quant.front_end.correct import Corrected
from quant.front_end.records import RecordFlag
from quant.front_end.spec import FrontEnd, Significance


@dataclass(frozen=True, eq=False)
class Peaks:
    """The peaks of a frame, m of them, in raster order of their pixels.

    row, col: (m,) px; brightest, total: (m,) counts; flags: (m,) of :class:`RecordFlag`, but for NOT_TRUSTED of a large
    sigma; windows: (n, window, window) counts around those that have not EDGE, n of them; above: pixels of the frame
    above the threshold.
    """

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    brightest: NDArray[np.int64]
    total: NDArray[np.int64]
    flags: NDArray[np.int64]
    windows: NDArray[np.integer]
    above: int


def find(front: FrontEnd, frame: Corrected, stored: NDArray[np.int64] | None = None) -> Peaks:
    """The peaks of a corrected frame. stored: flat indices, ascending, of the pixels that may differ from 0 where these
    are known (sparse formats): the result is the same, and is there sooner."""
    counts, valid = frame.counts, frame.valid
    found = window_peaks(
        counts, threshold=frame.threshold, valid=valid, reach=front.reach, min_area=front.min_area, size=1,
        stored=stored,
    )  # fmt: skip
    row, col = found.row, found.col
    if front.significance is not None:
        kept = significant(front.significance, squares(counts, row, col, front.reach))
        row, col = row[kept], col[kept]
    around = squares(counts, row, col, front.reach)
    above = around > _threshold_around(frame.threshold, row, col, front.reach)
    gated = np.where(above, around, 0)
    brightest = around[:, front.reach, front.reach]
    full = squares(frame.raw, row, col, front.reach) >= front.first_saturated
    bad = np.zeros(len(row), np.int64) if valid is None else bad_in_patches(valid, row, col, front.window // 2)
    edge = outside_frame(frame.counts.shape, row, col, front.window)
    flags = np.zeros(len(row), np.int64)
    for flag, holds in (
        (RecordFlag.EDGE | RecordFlag.NOT_TRUSTED, edge),
        (RecordFlag.SECOND_MAXIMUM, second_maximum(gated)),
        (RecordFlag.SATURATED, full.any(axis=(1, 2))),
        (RecordFlag.BAD_PIXEL, bad > 0),
    ):
        flags[holds] |= int(flag)
    windows = squares(counts, row[~edge], col[~edge], front.window // 2)
    number = len(pixels_above(counts, frame.threshold, valid, stored))
    return Peaks(row, col, brightest, gated.sum(axis=(1, 2)), flags, windows, number)


def squares(image: NDArray[np.integer], row: NDArray[np.int64], col: NDArray[np.int64], half: int) -> NDArray[np.int64]:
    """(m, 2 half + 1, 2 half + 1) what an image (rows, cols) holds around pixels (m,); 0 outside of it."""
    steps = np.arange(-half, half + 1)
    down, right = row[:, None] + steps, col[:, None] + steps
    inside = ((down >= 0) & (down < image.shape[0]))[:, :, None] & ((right >= 0) & (right < image.shape[1]))[:, None, :]
    down, right = down.clip(0, image.shape[0] - 1), right.clip(0, image.shape[1] - 1)
    return np.where(inside, image[down[:, :, None], right[:, None, :]], 0).astype(np.int64)


def _threshold_around(
    threshold: int | NDArray[np.integer], row: NDArray[np.int64], col: NDArray[np.int64], reach: int
) -> int | NDArray[np.int64]:
    """The thresholds around pixels. A count of 0, masked or outside of the frame, is above none of them."""
    return threshold if isinstance(threshold, int) else squares(threshold, row, col, reach)


def second_maximum(gated: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(m,) whether another maximum of at least half the peak's counts lies within reach - 1 of a peak.

    gated: (m, 2 reach + 1, 2 reach + 1) counts around the peaks, 0 where not above the threshold. A maximum is brighter
    than its eight neighbours, or as bright as some that come later in raster order.
    """
    side = gated.shape[1]
    inner = gated[:, 1:-1, 1:-1]
    top = inner > 0
    for down in range(3):
        for right in range(3):
            other = gated[:, down : side - 2 + down, right : side - 2 + right]
            if (down, right) < (1, 1):
                top &= other < inner
            elif (down, right) > (1, 1):
                top &= other <= inner
    centre = side // 2 - 1
    top &= 2 * inner >= inner[:, centre, centre][:, None, None]
    top[:, centre, centre] = False
    found: NDArray[np.bool_] = top.any(axis=(1, 2))
    return found


def significant(test: Significance, around: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(m,) whether maxima stand out from their surroundings; around: (m, 7, 7) counts. See :class:`Significance`.

    Nothing overflows: D has at most 23 bits, the ring's sum 21.
    """
    core = around[:, 2:5, 2:5].sum(axis=(1, 2))
    ring = around.sum(axis=(1, 2)) - around[:, 1:6, 1:6].sum(axis=(1, 2))
    excess = 8 * core - 3 * ring
    found: NDArray[np.bool_] = (excess > 0) & (excess**2 > test.slope * ring + test.offset)
    return found

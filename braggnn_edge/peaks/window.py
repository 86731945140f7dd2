"""The window rule: what a stream of pixels, which has no labels of components, can decide about a peak.

A pixel p is a peak when

1. it is valid and above its threshold (strictly);
2. every other valid pixel above its threshold within Chebyshev distance ``reach`` is dimmer, or equal and later in
   raster order;
3. at least ``min_area`` pixels above threshold, p among them, lie within ``min_area - 1`` steps of p through
   8-neighbours above threshold.

Each step adds a pixel until the component ends, so that (3) says exactly that the 8-connected component of p has
``min_area`` pixels or more; it is computed that way here. A component of at least ``min_area`` pixels that lies within
``reach`` of its brightest pixel, the first in raster order among equals, and has no other component's pixel within
``reach`` of that pixel, gives exactly one peak, and at that pixel.

Where the threshold lies near the background, maxima of noise are peaks too. A test of significance may leave them out
(:mod:`braggnn_edge.peaks.significance`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.components import Runs
from braggnn_edge.peaks.find import bad_in_patches, check_frame, inside, outside_frame, pixels_above
from braggnn_edge.peaks.significance import Significance

#: The default reach, px: as in the firmware.
STEPS = 3


@dataclass(frozen=True)
class WindowPeaks:
    """The peaks of a frame, m of them, in raster order.

    row, col: px; maximum: counts; saturated: it is, and with it the brightest one within reach; edge: the patch
    does not fit in the frame. Of the component: component, its number; area, its pixels. Of the patch: neighbours,
    other components of at least min_area pixels; masked, bad pixels. pixels: (p,) flat indices, ascending, of the
    pixels of components of at least min_area pixels, and of, the number of each one's.
    """

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    maximum: NDArray[np.float64]
    saturated: NDArray[np.bool_]
    edge: NDArray[np.bool_]
    component: NDArray[np.int64]
    area: NDArray[np.int32]
    neighbours: NDArray[np.int64]
    masked: NDArray[np.int64]
    pixels: NDArray[np.int64]
    of: NDArray[np.int64]


def window_peaks(
    frame: NDArray[Any],
    *,
    threshold: float | NDArray[Any],
    valid: NDArray[np.bool_] | None = None,
    reach: int = STEPS,
    min_area: int = 4,
    size: int = 11,
    saturation: float = np.inf,
    stored: NDArray[np.int64] | None = None,
    significance: Significance | None = None,
) -> WindowPeaks:
    """Peaks of ``frame`` (rows, cols) by the window rule; comparisons are those of its own type, and exact.

    threshold, valid, stored and the errors are as for :func:`braggnn_edge.peaks.find.detect`; size: side of the patch
    around a peak, px, odd, from which a firmware computes the position. significance: the test that leaves out maxima
    of noise; None: there is none.

        >>> frame = np.array([[0, 0, 0], [9, 9, 0], [0, 9, 7]])
        >>> found = window_peaks(frame, threshold=5, size=1)
        >>> found.row.tolist(), found.col.tolist(), found.area.tolist()
        ([1], [0], [4])
    """
    check_frame(frame, valid, min_area, size)
    if reach < 0:
        raise UserError(f"reach {reach}: expected 0 px or more")
    above = pixels_above(frame, threshold, valid, stored)
    rows, cols = frame.shape
    image = frame.reshape(-1)
    runs = Runs.of_pixels(above, cols).large(min_area)
    pixels, of = runs.pixels()
    peak = _brightest(image, (rows, cols), pixels, inside(above, threshold, valid, image), reach)
    if significance is not None:
        peak = peak[significance.at(frame, valid, *np.divmod(pixels[peak], cols))]
    at, component = pixels[peak], of[peak]
    row, col = at // cols, at % cols
    area = np.bincount(of)[component] if len(of) else component
    neighbours = runs.others(row, col, component, size // 2) if len(at) else component
    return WindowPeaks(
        row, col, image[at].astype(np.float64), image[at] >= saturation,
        outside_frame((rows, cols), row, col, size), component, area.astype(np.int32), neighbours,
        np.zeros(len(at), np.int64) if valid is None else bad_in_patches(valid, row, col, size // 2), pixels, of,
    )  # fmt: skip


def _brightest(
    image: NDArray[Any], shape: tuple[int, int], flat: NDArray[np.int64], above: NDArray[np.bool_] | None, reach: int
) -> NDArray[np.int64]:
    """Positions in ``flat`` of the pixels that hold (2); ``above``: (pixels,) which count as others, None for all."""
    left = np.arange(len(flat))
    steps = [(down, right) for down in range(-reach, reach + 1) for right in range(-reach, reach + 1)]
    # The nearest first: they leave few for the others.
    for down, right in sorted(steps, key=lambda step: (step[0] ** 2 + step[1] ** 2, step))[1:]:
        here = flat[left]
        row, col = here // shape[1] + down, here % shape[1] + right
        there = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
        other = np.where(there, row * shape[1] + col, here)
        if above is not None:
            there &= above[other]
        mine, theirs = image[here], image[other]
        earlier = (down, right) < (0, 0)  # in raster order
        left = left[~there | (theirs < mine if earlier else theirs <= mine)]
    return left

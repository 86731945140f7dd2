"""Peaks in one frame: threshold, 8-connected components, their maxima, lone-peak and edge rules.

The rules are those of section 3.1 of the BraggNN paper (Liu et al., IUCrJ 9 (2022) 104-113): a usable peak is a
component with a single maximum whose crop fits in the frame. :func:`is_lone` adds what makes a label trustworthy: the
peak is not saturated, and neither another component nor a bad pixel is in its patch.
"""

import math
from dataclasses import dataclass

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.components import Runs
from braggnn_edge.peaks.maxima import local_maxima, significant

MAXIMUM_DTYPE = np.dtype(
    [
        *((name, "i4") for name in ("row", "col", "area", "neighbours", "maxima", "component", "masked")),
        *(("maximum", "f8"), ("saturated", "?"), ("edge", "?"), ("brightest", "?")),
    ]
)
"""row, col: pixel of the maximum, the first in row-major order of a plateau; maximum: its value; brightest: it is the
brightest of its component, or the first among equals. Of the component: component, its number in row-major order of
brightest pixels; area, its pixels; maxima, its significant local maxima; saturated, whether one of its pixels reaches
the saturation level. Of the size x size patch around (row, col): neighbours, other components of at least min_area
pixels with a pixel in it; masked, its bad pixels. edge: the crop does not fit in the frame."""


@dataclass(frozen=True)
class Detection:
    """maxima: (m,) of :data:`MAXIMUM_DTYPE`, one a significant maximum, in row-major order.

    pixels: (p,) flat indices, ascending, of the pixels of the components; component: (p,) the component of each.
    """

    maxima: np.ndarray
    pixels: np.ndarray
    component: np.ndarray

    @property
    def components(self) -> np.ndarray:
        """(n,) the brightest maximum of each component: entry i is that of component i."""
        return self.maxima[self.maxima["brightest"]]


def detect(
    frame: np.ndarray,
    *,
    threshold: float | np.ndarray,
    valid: np.ndarray | None = None,
    min_area: int = 4,
    size: int = 11,
    margin: int = 0,
    saturation: float = np.inf,
    prominence: float = 4.0,
    gain: float = 1.0,
    read_noise: float = 0.0,
    stored: np.ndarray | None = None,
) -> Detection:
    """Peaks of ``frame`` (rows, cols).

    A component is a set of 8-connected pixels above ``threshold`` (counts, strictly; one number, or one a pixel); those
    of fewer than ``min_area`` pixels are noise. Pixels where ``valid`` (rows, cols) is False may hold anything and
    belong to no component. ``size`` (odd) is the side of a patch and size + 2 ``margin`` that of a crop, in px.
    ``stored``: flat indices, ascending, of the pixels that may differ from 0, where these are known (sparse formats);
    the result is the same, and is there sooner.

    Maxima: a local maximum is a pixel, or a plateau of equal connected pixels, with no brighter one among its
    neighbours in the component. The brightest counts. Another counts when it rises above the valley to every brighter
    one that counts by more than ``prominence`` standard deviations of its own noise, sqrt(gain * counts + read_noise^2)
    with ``gain`` in counts per photon; with prominence 0 every local maximum counts. The valley is the lowest valid
    pixel on the straight line between the two, at most 64 px away. In crowds it is that to a few of the brightest.

    Raises UserError for a frame that is not 2-D, not of real numbers or holds NaN, for a threshold or valid that
    does not fit, and for a size that is even or larger than the frame.
    """
    check_frame(frame, valid, min_area, size, margin)
    cols = frame.shape[1]
    above = pixels_above(frame, threshold, valid, stored)
    runs = Runs.of_pixels(above, cols).large(min_area)
    flat, component = runs.pixels()
    if not len(flat):
        return Detection(np.empty(0, MAXIMUM_DTYPE), flat, component)
    image = frame.reshape(-1)
    top = local_maxima(image, frame.shape, flat, inside(above, threshold, valid, image))
    tops, of = flat[top], component[top]
    value = image[tops].astype(np.float64)
    # Brightest first in each component; tops ascend, so that equals keep row-major order.
    order = np.lexsort((-value, of))
    tops, of, value = tops[order], of[order], value[order]
    first = np.r_[True, of[1:] != of[:-1]]
    counts = np.ones(len(tops), bool)
    if prominence > 0:
        least = prominence * np.sqrt(gain * np.maximum(value, 0.0) + read_noise**2)
        counts = significant(frame, valid, tops, of, value, least, first)
    number = np.empty(first.sum(), np.int64)
    number[np.argsort(tops[first])] = np.arange(len(number))

    saturated = value[first] >= saturation
    tops, of, value, first = tops[counts], of[counts], value[counts], first[counts]
    maxima = np.empty(len(tops), MAXIMUM_DTYPE)
    maxima["row"], maxima["col"] = tops // cols, tops % cols
    maxima["area"], maxima["maxima"] = np.bincount(component)[of], np.bincount(of)[of]
    maxima["component"], maxima["brightest"] = number[of], first
    maxima["maximum"], maxima["saturated"] = value, saturated[of]
    order = np.argsort(tops)
    maxima, of = maxima[order], of[order]
    maxima["neighbours"] = runs.others(maxima["row"], maxima["col"], of, size // 2)
    maxima["masked"] = 0 if valid is None else bad_in_patches(valid, maxima["row"], maxima["col"], size // 2)
    maxima["edge"] = outside_frame(frame.shape, maxima["row"], maxima["col"], size + 2 * margin)
    return Detection(maxima, flat, number[component])


def company(peaks: np.ndarray) -> dict[str, np.ndarray]:
    """(n,) by reason: what makes a peak no lone one, besides an edge.

    peaks: (n,) of :data:`MAXIMUM_DTYPE`, or rows of the peak table.
    """
    return {
        "saturated": peaks["saturated"],
        "several maxima": peaks["maxima"] != 1,
        "another component in the patch": peaks["neighbours"] != 0,
        "bad pixel in the patch": peaks["masked"] != 0,
    }


def pixels_above(
    frame: np.ndarray, threshold: float | np.ndarray, valid: np.ndarray | None, stored: np.ndarray | None = None
) -> np.ndarray:
    """(p,) flat indices, ascending, of the valid pixels of ``frame`` (rows, cols) above ``threshold``: see
    :func:`detect`, whose errors for a threshold it raises."""
    _check_threshold(frame, threshold, valid)
    if np.ndim(threshold) == 0:
        if frame.dtype.kind in "ui":
            threshold = math.floor(threshold)  # the same pixels, compared without making floats of them
        if stored is not None and threshold >= 0:  # the others are 0: not above
            found = stored[frame.reshape(-1)[stored] > threshold]
            return found if valid is None else found[valid.reshape(-1)[found]]
    above = frame > threshold
    if valid is not None:
        above &= valid
    return np.flatnonzero(above)


def inside(
    above: np.ndarray, threshold: float | np.ndarray, valid: np.ndarray | None, image: np.ndarray
) -> np.ndarray | None:
    """(pixels,) whether a pixel is above its threshold, where that has to be looked up; else None.

    Next to a pixel above a constant threshold, one that is not is darker; with a threshold a pixel, or bad pixels, it
    may be brighter and has to be left out.
    """
    if valid is None and np.ndim(threshold) == 0:
        return None
    found = np.zeros(image.shape, bool)
    found[above] = True
    return found


def is_lone(peaks: np.ndarray) -> np.ndarray:
    """(n,) the rule for labels: one maximum, no other component or bad pixel in the patch, unsaturated, crop fits.

    peaks: (n,) of :data:`MAXIMUM_DTYPE`, or rows of the peak table, all of whose crops fit.
    """
    alone = ~np.logical_or.reduce(list(company(peaks).values()))
    return alone & ~peaks["edge"] if "edge" in (peaks.dtype.names or ()) else alone


def crops(frame: np.ndarray, rows: np.ndarray, cols: np.ndarray, size: int) -> np.ndarray:
    """(n, size, size) crops of ``frame`` (rows, cols) centred on the pixels (rows, cols) (n,), of the frame's dtype.

    Raises UserError when size is even or larger than the frame, or when a crop does not fit.
    """
    _check_size(frame.shape, "patch size", size)
    rows, cols = np.asarray(rows, np.int64), np.asarray(cols, np.int64)
    bad = outside_frame(frame.shape, rows, cols, size)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"crop {first} at ({rows[first]}, {cols[first]}) of {size} x {size} px does not fit a frame of "
            f"{frame.shape[0]} x {frame.shape[1]}; leave out peaks with the edge flag"
        )
    windows = np.lib.stride_tricks.sliding_window_view(frame, (size, size))
    return windows[rows - size // 2, cols - size // 2]


def check_frame(frame: np.ndarray, valid: np.ndarray | None, min_area: int, size: int, margin: int = 0) -> None:
    """Refuse what :func:`detect` refuses, but for the threshold."""
    if frame.ndim != 2 or frame.dtype.kind not in "uif":
        raise UserError(f"frame is {frame.dtype} {frame.shape}; expected real numbers (rows, cols)")
    if valid is not None and (valid.shape != frame.shape or valid.dtype != bool):
        raise UserError(f"valid is {valid.dtype} {valid.shape}; expected bool {frame.shape}, as the frame")
    if frame.dtype.kind == "f":
        nan = np.isnan(frame) if valid is None else np.isnan(frame) & valid
        if nan.any():
            raise UserError(f"frame holds {int(nan.sum())} NaN pixels; mask them (mask = ...)")
    if min_area < 1:
        raise UserError(f"min_area {min_area}: expected at least 1 pixel")
    if margin < 0:
        raise UserError(f"margin {margin}: expected 0 px or more")
    _check_size(frame.shape, "patch size", size)
    _check_size(frame.shape, "crop size (patch size + 2 * margin)", size + 2 * margin)


def _check_threshold(frame: np.ndarray, threshold: float | np.ndarray, valid: np.ndarray | None) -> None:
    if np.ndim(threshold) == 0:
        if not np.isfinite(threshold):
            raise UserError(f"threshold {threshold!r}: expected a finite number of counts")
    elif np.shape(threshold) != frame.shape:
        raise UserError(f"threshold of shape {np.shape(threshold)}: expected one number, or {frame.shape} as the frame")
    elif np.isnan(np.min(threshold)) and (np.isnan(threshold) if valid is None else np.isnan(threshold) & valid).any():
        raise UserError("threshold holds NaN in valid pixels; expected counts")


def _check_size(shape: tuple[int, ...], name: str, size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise UserError(f"{name} {size}: expected an odd number of px, so that a pixel is its centre")
    if size > min(shape):
        raise UserError(f"{name} {size} is larger than the frame of {shape[0]} x {shape[1]}; choose a smaller one")


def outside_frame(shape: tuple[int, ...], rows: np.ndarray, cols: np.ndarray, size: int) -> np.ndarray:
    """(n,) whether the patch of ``size`` px around the pixel (rows, cols) (n,) does not fit in a frame of ``shape``."""
    half = size // 2
    return (rows < half) | (cols < half) | (rows >= shape[0] - half) | (cols >= shape[1] - half)


def bad_in_patches(valid: np.ndarray, rows: np.ndarray, cols: np.ndarray, half: int) -> np.ndarray:
    """(n,) bad pixels in the patches that reach ``half`` px from the pixels (rows, cols); outside the frame: none."""
    steps = np.arange(-half, half + 1)
    row, col = rows[:, None] + steps, cols[:, None] + steps
    outside_row, outside_col = (row < 0) | (row >= valid.shape[0]), (col < 0) | (col >= valid.shape[1])
    row, col = row.clip(0, valid.shape[0] - 1), col.clip(0, valid.shape[1] - 1)
    bad = ~(valid[row[:, :, None], col[:, None, :]] | outside_row[:, :, None] | outside_col[:, None, :])
    return bad.sum(axis=(1, 2))

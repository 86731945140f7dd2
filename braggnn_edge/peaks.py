"""Peaks in one frame: threshold, 8-connected components, brightest pixel, lone-peak and edge rules.

The rules are those of section 3.1 of the BraggNN paper (Liu et al., IUCrJ 9 (2022) 104-113): a usable peak is a
component with a single maximum whose crop fits in the frame. :func:`is_lone` adds what makes a label trustworthy: the
peak is not saturated and no other component reaches into its patch.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from braggnn_edge.errors import UserError

DETECTION_DTYPE = np.dtype(
    [
        *((name, "i4") for name in ("row", "col", "area", "neighbours", "maxima")),
        *(("maximum", "f8"), ("saturated", "?"), ("edge", "?")),
    ]
)
"""row, col: brightest pixel, the first in row-major order among equals; area: pixels of the component; maximum: value
of the brightest pixel; saturated: it reaches the saturation level; neighbours: other components of at least min_area
pixels with a pixel in the size x size patch; maxima: significant local maxima; edge: the crop does not fit."""


def detect(
    frame: np.ndarray,
    *,
    threshold: float,
    min_area: int = 4,
    size: int = 11,
    margin: int = 0,
    saturation: float = np.inf,
    prominence: float = 4.0,
    gain: float = 1.0,
    read_noise: float = 0.0,
) -> np.ndarray:
    """Peaks of ``frame`` (rows, cols), an array of :data:`DETECTION_DTYPE` in row-major order of brightest pixels.

    A component is a set of 8-connected pixels above ``threshold`` (counts, strictly); those of fewer than ``min_area``
    pixels are noise. ``size`` (odd) is the side of a patch and size + 2 ``margin`` that of a crop, in px.

    Maxima: a local maximum is a pixel, or a plateau of equal connected pixels, with no brighter one among its 8
    neighbours. Beside the brightest, one counts when it rises above the lowest pixel on the straight line to the
    brightest by more than ``prominence`` standard deviations of its own noise, sqrt(gain * counts + read_noise^2)
    with ``gain`` in counts per photon; with prominence 0 every local maximum counts.

    Raises UserError for a frame that is not 2-D, not of real numbers or holds NaN, and for a size that is even or
    larger than the frame.
    """
    _check(frame, threshold, min_area, size, margin)
    _, cols = frame.shape
    flat = np.flatnonzero(frame > threshold)
    value = frame.reshape(-1)[flat].astype(np.float64)
    if not len(flat):
        return np.empty(0, DETECTION_DTYPE)
    pairs = _adjacent(flat, cols)
    label = _label(len(flat), pairs)
    area = np.bincount(label)
    large = area[label] >= min_area
    # Components that are too small are dropped here; nine in ten of a real frame's components are single pixels.
    renumber = np.cumsum(area >= min_area) - 1
    position = np.cumsum(large) - 1
    both = large[pairs[0]]  # both ends of a pair are in one component
    pairs = (position[pairs[0][both]], position[pairs[1][both]])
    flat, value, label = flat[large], value[large], renumber[label[large]]
    if not len(flat):
        return np.empty(0, DETECTION_DTYPE)
    # flat ascends, so that among equal values lexsort keeps the first in row-major order.
    order = np.lexsort((flat, -value, label))
    brightest = order[np.r_[True, label[order][1:] != label[order][:-1]]]
    peaks = np.empty(len(brightest), DETECTION_DTYPE)
    peaks["row"], peaks["col"] = flat[brightest] // cols, flat[brightest] % cols
    peaks["area"] = area[area >= min_area]
    peaks["maximum"] = value[brightest]
    peaks["saturated"] = value[brightest] >= saturation
    peaks["maxima"] = _maxima(frame, flat, value, label, pairs, brightest, prominence, gain, read_noise)
    peaks["neighbours"] = _neighbours(flat, label, peaks, cols, size // 2)
    peaks["edge"] = _outside(frame.shape, peaks["row"], peaks["col"], size + 2 * margin)
    return peaks[np.argsort(flat[brightest])]


def is_lone(peaks: np.ndarray) -> np.ndarray:
    """(n,) the rule for labels: one maximum, no other component in the patch, unsaturated, crop in the frame."""
    return (peaks["maxima"] == 1) & (peaks["neighbours"] == 0) & ~peaks["saturated"] & ~peaks["edge"]


def crops(frame: np.ndarray, rows: np.ndarray, cols: np.ndarray, size: int) -> np.ndarray:
    """(n, size, size) crops of ``frame`` (rows, cols) centred on the pixels (rows, cols) (n,), of the frame's dtype.

    Raises UserError when size is even or larger than the frame, or when a crop does not fit.
    """
    _check_size(frame.shape, "patch size", size)
    rows, cols = np.asarray(rows, np.int64), np.asarray(cols, np.int64)
    bad = _outside(frame.shape, rows, cols, size)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"crop {first} at ({rows[first]}, {cols[first]}) of {size} x {size} px does not fit a frame of "
            f"{frame.shape[0]} x {frame.shape[1]}; leave out peaks with the edge flag"
        )
    steps = np.arange(size) - size // 2
    return frame[(rows[:, None] + steps)[:, :, None], (cols[:, None] + steps)[:, None, :]]


def _check(frame: np.ndarray, threshold: float, min_area: int, size: int, margin: int) -> None:
    if frame.ndim != 2 or frame.dtype.kind not in "uif":
        raise UserError(f"frame is {frame.dtype} {frame.shape}; expected real numbers (rows, cols)")
    if frame.dtype.kind == "f" and np.isnan(frame).any():
        raise UserError(f"frame holds {int(np.isnan(frame).sum())} NaN pixels; mask them (mask = ...)")
    if not np.isfinite(threshold):
        raise UserError(f"threshold {threshold!r}: expected a finite number of counts")
    if min_area < 1:
        raise UserError(f"min_area {min_area}: expected at least 1 pixel")
    if margin < 0:
        raise UserError(f"margin {margin}: expected 0 px or more")
    _check_size(frame.shape, "patch size", size)
    _check_size(frame.shape, "crop size (patch size + 2 * margin)", size + 2 * margin)


def _check_size(shape: tuple[int, ...], name: str, size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise UserError(f"{name} {size}: expected an odd number of px, so that a pixel is its centre")
    if size > min(shape):
        raise UserError(f"{name} {size} is larger than the frame of {shape[0]} x {shape[1]}; choose a smaller one")


def _outside(shape: tuple[int, ...], rows: np.ndarray, cols: np.ndarray, size: int) -> np.ndarray:
    half = size // 2
    return (rows < half) | (cols < half) | (rows >= shape[0] - half) | (cols >= shape[1] - half)


def _adjacent(flat: np.ndarray, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (first, second) of positions in ``flat`` (ascending flat pixel indices) that touch, corners included.

    Works on the pixels above threshold alone: on sparse far-field frames many times faster than labelling the image.
    """
    first, second = [], []
    column = flat % cols
    for step, ok in (
        (1, column < cols - 1),
        (cols - 1, column > 0),
        (cols, None),
        (cols + 1, column < cols - 1),
    ):
        source = np.arange(len(flat)) if ok is None else np.flatnonzero(ok)
        wanted = flat[source] + step
        found = np.searchsorted(flat, wanted)
        hit = flat[np.minimum(found, len(flat) - 1)] == wanted
        first.append(source[hit])
        second.append(found[hit])
    return np.concatenate(first), np.concatenate(second)


def _label(n: int, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    graph = coo_array((np.ones(len(pairs[0]), np.int8), pairs), (n, n))
    return connected_components(graph, directed=False)[1]


def _maxima(
    frame: np.ndarray,
    flat: np.ndarray,
    value: np.ndarray,
    label: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    brightest: np.ndarray,
    prominence: float,
    gain: float,
    read_noise: float,
) -> np.ndarray:
    """Significant local maxima of each component (see :func:`detect`)."""
    first, second = pairs
    equal = value[first] == value[second]
    plateau = _label(len(flat), (first[equal], second[equal]))
    lower = np.zeros(len(flat), bool)  # plateaus with a brighter pixel beside one of theirs
    lower[plateau[first[value[first] < value[second]]]] = True
    lower[plateau[second[value[second] < value[first]]]] = True
    # One pixel stands for a plateau: its first in row-major order.
    head = np.full(len(flat), len(flat))
    np.minimum.at(head, plateau, np.arange(len(flat)))
    tops = head[~lower & (head < len(flat))]
    tops = tops[tops != brightest[label[tops]]]
    if prominence > 0:
        low = _lowest_between(frame, flat[tops], flat[brightest[label[tops]]])
        noise = np.sqrt(gain * np.maximum(value[tops], 0.0) + read_noise**2)
        tops = tops[value[tops] - low > prominence * noise]
    return 1 + np.bincount(label[tops], minlength=len(brightest))


def _lowest_between(frame: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Lowest pixel (n,) on the straight line between two pixels, given as flat indices (n,)."""
    if not len(start):
        return np.empty(0)
    cols = frame.shape[1]
    row0, col0, row1, col1 = start // cols, start % cols, stop // cols, stop % cols
    length = np.maximum(np.abs(row1 - row0), np.abs(col1 - col0))
    lowest = np.full(len(start), np.inf)
    for step in range(int(length.max()) + 1):
        t = np.minimum(step / np.maximum(length, 1), 1.0)
        row = np.rint(row0 + t * (row1 - row0)).astype(np.int64)
        col = np.rint(col0 + t * (col1 - col0)).astype(np.int64)
        np.minimum(lowest, frame[row, col], out=lowest)
    return lowest


def _neighbours(flat: np.ndarray, label: np.ndarray, peaks: np.ndarray, cols: int, half: int) -> np.ndarray:
    """Number (n,) of other components with a pixel in the patch of each peak: every pixel of a patch is looked up."""
    count = len(peaks)
    pairs = []
    # A patch's row of pixels is one run of flat indices, so two searches per patch row find its pixels.
    for step in range(-half, half + 1):
        line = (peaks["row"] + step) * np.int64(cols)
        low = np.searchsorted(flat, line + np.maximum(peaks["col"] - half, 0))
        high = np.searchsorted(flat, line + np.minimum(peaks["col"] + half, cols - 1), side="right")
        length = np.maximum(high - low, 0)
        owner = np.repeat(np.arange(count), length)
        inside = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length) + np.repeat(low, length)
        pairs.append(owner * np.int64(count) + label[inside])
    found = np.unique(np.concatenate(pairs))
    owner, other = found // count, found % count
    return np.bincount(owner[owner != other], minlength=count)

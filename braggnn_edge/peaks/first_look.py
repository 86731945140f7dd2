"""A look at a few frames before the long work: what lies above the threshold, and what shape it has.

:mod:`braggnn_edge.peaks.guards` judges what is seen here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggnn_edge.frames.background import Rule, threshold_of
from braggnn_edge.frames.scan import OnBad, Scan
from braggnn_edge.peaks.components import Runs
from braggnn_edge.peaks.find import pixels_above

#: Frames that are looked at, if as many do not hold more pixels than a second of work: with a local background, and
#: without one. When nothing at all is above the threshold, up to MOST frames are looked at.
FRAMES, MOST = 5, 64
_PIXELS, _PIXELS_WITH_BACKGROUND = 60_000_000, 15_000_000
#: Pixels whose median and spread are taken.
_SAMPLE = 200_000
#: Above this share of pixels above the threshold there is nothing but background; components are not looked at.
CROWDED = 0.75
#: Pixels whose components are looked at; of a frame with more above the threshold the middle is taken.
_LOOKED_AT = 2_000_000
#: A component is even where its heights, but for a sixth at both ends, lie within this share of their median.
_EVEN = 0.25
#: A component is an arc when it is so many times as long as a patch is wide, and either so many times as long as wide,
#: or fills so small a share of the ellipse with its own moments.
_LONG, _THIN, _HOLLOW = 3.0, 4.0, 0.5


@dataclass(frozen=True)
class Seen:
    """What one frame shows. Shares are of its good pixels.

    masked: share of bad pixels, of all; above: share above the threshold; together: share of these whose right
    neighbour is above it too; level and spread: median, and its distance from the 16th percentile, in counts, of all
    good pixels; threshold: median over the frame, counts; brightest: counts; components: of at least ``min_area``
    pixels. Of what these are above half of their height, each connected piece weighted by the root of its counts (its
    signal over its noise): width, the median full width in px; arcs: the share that are long and thin; place: pixel
    (row, col) in the widest; area: the width that half of their counts lie below. plateau: side in px of a square as
    large as the largest component, where that is even and holds most of the pixels above the threshold, else 0. Widths
    are 0 where no component is, or none was looked at (above :data:`CROWDED`).
    """

    frame: int
    masked: float
    above: float
    together: float
    level: float
    spread: float
    threshold: float
    brightest: float
    components: int
    width: float
    arcs: float
    place: tuple[int, int]
    area: float
    plateau: float


@dataclass(frozen=True)
class Look:
    """What some frames of a scan show: ``seen``, in order of their number, of ``frames`` frames of ``shape``."""

    seen: tuple[Seen, ...]
    frames: int
    shape: tuple[int, int]

    def middle(self, name: str) -> float:
        """The median over the frames of one figure."""
        return float(np.median([getattr(one, name) for one in self.seen]))

    def shape_figure(self, name: str) -> float:
        """The median of ``width`` or the like over the frames with components; 0 when only one of several has any."""
        having = [getattr(one, name) for one in self.seen if one.width]
        return float(np.median(having)) if len(having) >= min(2, len(self.seen)) else 0.0

    @property
    def nothing(self) -> bool:
        """Whether no pixel of any frame is above the threshold."""
        return all(one.above == 0 for one in self.seen)


def look(
    scan: Scan, rule: Rule, min_area: int, size: int, frames: tuple[int, int] | None = None, skip: bool = True
) -> Look:
    """Look at a few frames of ``scan``, spread over it or over ``frames`` (start, stop).

    rule: thresholds as in a ``[[scan]]``; min_area: pixels of the smallest component; size: of a patch, px; skip:
    leave bad frames out, else the first one that is met raises BadFrame.
    """
    on_bad: OnBad | None = (lambda *_: None) if skip else None
    count, rows, cols = scan.shape
    start, stop = frames or (0, count)
    pixels = _PIXELS_WITH_BACKGROUND if rule.background_box else _PIXELS
    few = min(FRAMES, max(2, pixels // (rows * cols)))
    found: dict[int, Seen] = {}
    for wanted in dict.fromkeys((few, MOST)):
        for index in _spread_out(start, stop, wanted):
            if index in found:
                continue
            for _, frame, valid in scan.frames_with_valid(index, index + 1, on_bad):
                found[index] = _seen(index, frame, valid, rule, min_area, size)
            if wanted == MOST and index in found and found[index].above:
                break
        if any(one.above for one in found.values()):
            break
    return Look(tuple(found[index] for index in sorted(found)), stop - start, (rows, cols))


#: Of a frame in which no component is looked at: from ``components`` on.
_Shapes = tuple[int, float, float, tuple[int, int], float, float]
_NONE: _Shapes = (0, 0.0, 0.0, (0, 0), 0.0, 0.0)


def _spread_out(start: int, stop: int, wanted: int) -> list[int]:
    """The middles of ``wanted`` parts of the frames from start to stop - 1, or all of these."""
    wanted = min(stop - start, wanted)
    return [start + (2 * part + 1) * (stop - start) // (2 * wanted) for part in range(wanted)]


def _seen(
    index: int, frame: NDArray[Any], valid: NDArray[np.bool_] | None, rule: Rule, min_area: int, size: int
) -> Seen:
    good = frame.reshape(-1) if valid is None else frame[valid]
    masked = 1 - len(good) / frame.size
    if not len(good):
        return Seen(index, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, *_NONE)
    threshold = threshold_of(frame, valid, rule)
    found_above = pixels_above(frame, threshold, valid)
    above = np.zeros(frame.shape, bool)
    above.reshape(-1)[found_above] = True
    number = len(found_above)
    share = number / len(good)
    together = int((above[:, 1:] & above[:, :-1]).sum()) / max(number, 1)
    low, level = np.percentile(good[:: max(1, len(good) // _SAMPLE)], (15.87, 50.0))
    found = _NONE
    if number and share <= CROWDED:
        corner, part = _middle(frame.shape, number)
        level_there = threshold if np.ndim(threshold) == 0 else np.asarray(threshold)[part]
        runs = Runs.of(above[part]).large(min_area)
        if len(runs.label):
            found = _shapes(frame[part], level_there, runs, size, corner)
    return Seen(
        index, masked, share, together, float(level), float(level - low), float(np.median(threshold)),
        float(good.max()), *found,
    )  # fmt: skip


def _middle(shape: tuple[int, ...], above: int) -> tuple[tuple[int, int], tuple[slice, slice]]:
    """The middle of a frame that holds some _LOOKED_AT of ``above`` pixels, or all of it: its corner and slices."""
    share = min(1.0, (_LOOKED_AT / above) ** 0.5)
    sides = [max(1, int(share * side)) for side in shape]
    row, col = ((side - part) // 2 for side, part in zip(shape, sides, strict=True))
    return (row, col), (slice(row, row + sides[0]), slice(col, col + sides[1]))


def _shapes(
    frame: NDArray[Any], threshold: float | NDArray[np.float32], runs: Runs, size: int, corner: tuple[int, int]
) -> _Shapes:
    """Number of components, their median width, share of arcs, a pixel of the widest, their area, and the plateau.

    frame: or a part of one that begins at ``corner``; see :class:`Seen`.
    """
    flat, label = runs.pixels()
    level = np.broadcast_to(threshold, frame.shape).reshape(-1)[flat]
    height = frame.reshape(-1)[flat].astype(np.float64) - level
    arcs = 0.0
    if _Pieces.of(flat, label, height, frame.shape[1]).arcs(size) > 0:
        # Spots in a row are one component, and apart above half of their height; a ring of grains is still an arc when
        # the noise of single pixels is taken out.
        image = np.zeros(frame.shape, np.float32)
        image.reshape(-1)[flat] = height
        smooth = ndimage.uniform_filter(image, 3, mode="constant").reshape(-1)[flat].astype(np.float64)
        arcs = _upper(flat, label, smooth, frame.shape).arcs(size)
    pieces = _upper(flat, label, height, frame.shape)
    row, col = pieces.widest()
    place = row + corner[0], col + corner[1]
    count, counts = int(label.max()) + 1, pieces.weight**2
    return count, pieces.median_width(pieces.weight), arcs, place, pieces.median_width(counts), _plateau(label, height)


def _plateau(label: NDArray[Any], height: NDArray[np.float64]) -> float:
    area = np.bincount(label)
    if area.max() < len(label) / 2:
        return 0.0
    low, middle, high = np.percentile(height[label == area.argmax()], (16, 50, 84))
    return float(np.sqrt(area.max())) if high - low < 2 * _EVEN * middle else 0.0


@dataclass(frozen=True)
class _Pieces:
    """Connected pieces, n: weight, width in px, major and minor axis of their moments in px**2, a pixel (row, col)."""

    weight: NDArray[np.float64]
    width: NDArray[np.float64]
    major: NDArray[np.float64]
    minor: NDArray[np.float64]
    pixel: NDArray[np.int64]

    @staticmethod
    def of(flat: NDArray[Any], label: NDArray[Any], height: NDArray[np.float64], cols: int) -> "_Pieces":
        """From pixels with flat indices, the piece of each, and heights in counts."""
        row, col = np.divmod(flat, cols)
        count = int(label.max()) + 1
        area = np.bincount(label, minlength=count)

        def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(label, values, count) / area

        down, right = row - mean(row)[label], col - mean(col)[label]
        # A pixel has the moments of its square.
        rr, cc, rc = mean(down**2) + 1 / 12, mean(right**2) + 1 / 12, mean(down * right)
        apart = np.hypot((rr - cc) / 2, rc)
        pixel = np.empty((count, 2), np.int64)
        pixel[label] = np.stack([row, col], axis=1)
        return _Pieces(
            np.sqrt(np.bincount(label, height, count)), np.sqrt(4 * area / np.pi), (rr + cc) / 2 + apart,
            np.maximum((rr + cc) / 2 - apart, 1 / 12), pixel,
        )  # fmt: skip

    def arcs(self, size: int) -> float:
        """The share of their weight that is in pieces much longer than ``size`` px, and thin or hollow."""
        hollow = self.width**2 < _HOLLOW * 16 * np.sqrt(self.major * self.minor)
        thin = self.major > _THIN**2 * self.minor
        arc = (4 * np.sqrt(self.major) > _LONG * size) & (thin | hollow)
        return float(self.weight[arc].sum() / self.weight.sum())

    def median_width(self, weight: NDArray[np.float64]) -> float:
        order = np.argsort(self.width)
        running = np.cumsum(weight[order])
        return float(self.width[order][np.searchsorted(running, running[-1] / 2)])

    def widest(self) -> tuple[int, int]:
        row, col = self.pixel[np.argmax(self.width * self.weight)].tolist()
        return row, col


def _upper(flat: NDArray[Any], label: NDArray[Any], height: NDArray[np.float64], shape: tuple[int, ...]) -> _Pieces:
    """What components are above half of their height, in connected pieces."""
    top = np.zeros(int(label.max()) + 1)
    np.maximum.at(top, label, height)
    upper = height >= top[label] / 2
    image = np.zeros(shape, bool)
    image.reshape(-1)[flat[upper]] = True
    return _Pieces.of(*Runs.of(image).pixels(), height[upper], shape[1])

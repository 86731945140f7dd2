"""Spots of sampled frames: detection, their fits, and how long a reflection lasts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from braggnn_edge.fit.pseudo_voigt import AMPLITUDE, COL, FWHM_MAJOR, FWHM_MINOR, ROW
from braggnn_edge.fit.single import FitResult, fit
from braggnn_edge.frames.background import threshold_of
from braggnn_edge.inspection.pixels import Values
from braggnn_edge.inspection.sample import Frame
from braggnn_edge.peaks.find import detect
from braggnn_edge.simulation.spec import WINDOWS

Array = NDArray[np.float64]
MIN_AREA = 4
#: Side of the patches that are kept, px; fits take their middle.
SIDE = 31
#: Fits are enough, and more than this many spots of one frame are not fitted.
ENOUGH, _OF_A_FRAME = 1500, 200
#: A reflection is the same spot of two neighbouring frames, px apart at most.
_SAME = 2.0
SPOT = np.dtype(
    [
        *((name, "i4") for name in ("run", "frame", "row", "col", "area", "neighbours", "maxima", "height", "width")),
        *(("maximum", "f8"), ("sum", "f8"), ("saturated", "?"), ("lone", "?"), ("brightest", "?")),
    ]
)


@dataclass(frozen=True)
class Detector:
    """What is known of the detector at this point; saturation and zero_suppression None where there is none."""

    gain: float = 1.0
    read_noise: float = 0.0
    saturation: float | None = None
    zero_suppression: float | None = None


@dataclass(frozen=True)
class Finding:
    """What decides which pixels belong to a spot: keys of a ``[[scan]]``."""

    threshold: float
    sigma: float
    background_box: int
    detector: Detector


@dataclass
class Spots:
    """spots: (n,) of :data:`SPOT`, height and width being those of the component, px; frames: how many were searched,
    by run; patches, valid: (m, SIDE, SIDE) of the lone ones; owner: (m,) their place in spots; above: share of pixels
    above the threshold; values: histogram of theirs."""

    spots: NDArray[np.void]
    frames: dict[int, list[int]]
    patches: NDArray[Any]
    valid: NDArray[np.bool_]
    owner: NDArray[np.int64]
    above: float
    values: Values

    @staticmethod
    def joined(parts: "list[Spots]") -> "Spots":
        """The spots of several searches, of other frames each."""
        values = Values()
        for part in parts:
            values.merge(part.values)
        first = np.cumsum([0, *(len(part.spots) for part in parts)])
        return Spots(
            np.concatenate([part.spots for part in parts]),
            {run: frames for part in parts for run, frames in part.frames.items()},
            np.concatenate([part.patches for part in parts if len(part.patches)] or [parts[0].patches]),
            np.concatenate([part.valid for part in parts]),
            np.concatenate([part.owner + start for part, start in zip(parts, first, strict=False)]),
            float(np.mean([part.above for part in parts])),
            values,
        )

    @property
    def searched(self) -> int:
        """Frames that were searched."""
        return sum(map(len, self.frames.values()))

    @property
    def fitted(self) -> NDArray[np.void]:
        """(m,) the spots that have a patch."""
        return self.spots[self.owner]


def find_spots(frames: Iterable[Frame], rule: Finding, ignored: NDArray[np.bool_] | None = None) -> Spots:
    """The spots of frames, run after run. ignored: (rows, cols) pixels that are taken for bad (hot ones)."""
    tables, patches, valids, owners = [], [], [], []
    values = Values()
    searched: dict[int, list[int]] = {}
    above, pixels, count, kept = 0, 0, 0, 0
    for frame in frames:
        image, valid = frame.counts, frame.valid
        if ignored is not None:
            valid = ~ignored if valid is None else valid & ~ignored
        size = min(11, (min(image.shape) - 1) // 2 * 2 + 1)
        found = detect(
            image, threshold=threshold_of(image, valid, rule), valid=valid, min_area=MIN_AREA, size=size,
            saturation=rule.detector.saturation or np.inf, gain=rule.detector.gain, read_noise=rule.detector.read_noise,
        )  # fmt: skip
        searched.setdefault(frame.run, []).append(frame.index)
        above += len(found.pixels)
        values.add(image.reshape(-1)[found.pixels])
        pixels += image.size
        table = _table(frame, found.maxima, found.pixels, found.component)
        chosen = np.flatnonzero(table["lone"] & _inside(table, image.shape))
        if len(chosen) > _OF_A_FRAME:
            chosen = np.random.default_rng(frame.index).choice(chosen, _OF_A_FRAME, replace=False)
        if len(chosen) and kept < 2 * ENOUGH:
            owner = np.full(image.size, -1, np.int32)
            owner[found.pixels] = found.component
            cut, good = _patches(image, valid, owner.reshape(image.shape), found.maxima["component"], table, chosen)
            patches.append(cut)
            valids.append(good)
            owners.append(count + chosen)
            kept += len(chosen)
        tables.append(table)
        count += len(table)
    side = (0, SIDE, SIDE)
    return Spots(
        np.concatenate(tables) if tables else np.zeros(0, SPOT),
        searched,
        np.concatenate(patches) if patches else np.zeros(side),
        np.concatenate(valids) if valids else np.zeros(side, bool),
        np.concatenate(owners) if owners else np.zeros(0, np.int64),
        above / max(pixels, 1),
        values,
    )


def _table(frame: Frame, maxima: NDArray[np.void], pixels: NDArray, component: NDArray) -> NDArray[np.void]:
    table = np.zeros(len(maxima), SPOT)
    if not len(maxima):
        return table
    for name in ("row", "col", "area", "neighbours", "maxima", "maximum", "saturated", "brightest"):
        table[name] = maxima[name]
    table["run"], table["frame"] = frame.run, frame.index
    row, col = np.divmod(pixels, frame.counts.shape[1])
    count = int(component.max()) + 1
    order = np.argsort(component, kind="stable")
    starts = np.searchsorted(component[order], np.arange(count))
    extents = [
        np.maximum.reduceat(place[order], starts) - np.minimum.reduceat(place[order], starts) + 1
        for place in (row, col)
    ]
    of = maxima["component"]
    table["height"], table["width"] = extents[0][of], extents[1][of]
    counts = frame.counts.reshape(-1)[pixels].astype(np.float64)
    table["sum"] = np.bincount(component, counts, count)[of]
    table["lone"] = (maxima["maxima"] == 1) & (maxima["masked"] == 0)
    return table


def _inside(table: NDArray[np.void], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    half = 7
    row, col = table["row"], table["col"]
    return (row >= half) & (col >= half) & (row < shape[0] - half) & (col < shape[1] - half)


def _patches(
    image: NDArray, valid: NDArray[np.bool_] | None, owner: NDArray, of: NDArray, table: NDArray, chosen: NDArray
) -> tuple[NDArray, NDArray[np.bool_]]:
    """(m, SIDE, SIDE) counts, and the pixels that are good, inside the frame and no other spot's."""
    steps = np.arange(SIDE) - SIDE // 2
    row, col = table["row"][chosen, None] + steps, table["col"][chosen, None] + steps
    inside = ((row >= 0) & (row < image.shape[0]))[:, :, None] & ((col >= 0) & (col < image.shape[1]))[:, None, :]
    place = row.clip(0, image.shape[0] - 1)[:, :, None], col.clip(0, image.shape[1] - 1)[:, None, :]
    mine = of[chosen][:, None, None]
    others = (owner[place] >= 0) & (owner[place] != mine)
    good = inside & ~ndimage.binary_dilation(others, np.ones((1, 5, 5), bool))
    if valid is not None:
        good &= valid[place]
    return image[place], good


def fit_spots(spots: Spots, detector: Detector, size: int) -> tuple[FitResult, NDArray, NDArray[np.bool_]]:
    """Fits of the lone spots in patches of ``size``, with the patches and their usable pixels."""
    edge = (SIDE - size) // 2
    cut = slice(edge, edge + size)
    patches, valid = spots.patches[:, cut, cut], spots.valid[:, cut, cut].copy()
    fitted = fit(
        patches, valid=valid, gain=detector.gain, read_noise=detector.read_noise, saturation=detector.saturation,
        zero_suppression=detector.zero_suppression, threads=1,
    )  # fmt: skip
    used = valid
    if detector.saturation is not None:
        used = used & (patches < detector.saturation)
    if detector.zero_suppression is not None:
        used = used & (patches >= detector.zero_suppression)
    return fitted, patches.astype(np.float64), used


def good_fits(fitted: FitResult, size: int, strict: float = 0.25) -> NDArray[np.bool_]:
    """(m,) fits that converged within their bounds, whose widths are known to a share ``strict``."""
    p, middle = fitted.parameters, size // 2
    near = (np.abs(p[:, [ROW, COL]] - middle) <= 1.5).all(axis=1)
    bounded = fitted.at_bound[:, [ROW, COL, AMPLITUDE, FWHM_MAJOR, FWHM_MINOR]].any(axis=1)
    width = p[:, [FWHM_MAJOR, FWHM_MINOR]]
    known = (fitted.sigma[:, [FWHM_MAJOR, FWHM_MINOR]] < strict * width).all(axis=1)
    return fitted.converged & near & ~bounded & known & (width < size).all(axis=1)


def best_fits(fitted: FitResult, size: int) -> NDArray[np.bool_]:
    """Fits whose widths are known to 4 %; where they are few, to 10 or 25 %.

    Of a round spot that is known badly, the longer of two axes is too long and the shorter one too short.
    """
    for strict in (0.04, 0.1, 0.25):
        chosen = good_fits(fitted, size, strict)
        if chosen.sum() >= 60:
            break
    return chosen


def patch_for(width: float) -> int:
    """Side of the patch in which a spot of this major width (px) is fitted."""
    return int(np.clip(2 * round((2.6 * width + 4) / 2) + 1, 11, SIDE))


@dataclass(frozen=True)
class Rocking:
    """frames: mean number of frames in which a reflection is seen; lasting: (n,) that of reflections seen whole;
    width: (n,) FWHM of their rocking curves in frames, where they are bright; starts: new reflections a frame;
    brightest: (n,) largest maximum of every reflection seen whole."""

    frames: float | None
    lasting: NDArray[np.int64]
    width: Array
    starts: float | None
    brightest: Array


def rocking(spots: Spots) -> Rocking:
    """How long reflections last, from spots of neighbouring frames at the same place.

    Those that begin or end a run were not seen whole. The mean counts them too: it is the number of spots a frame by
    that of reflections that begin in one.
    """
    lasting: list[int] = []
    widths: list[float] = []
    brightest: list[float] = []
    begins, steps, number = 0, 0, 0
    bright = np.percentile(spots.spots["maximum"], 50) if len(spots.spots) else 0.0
    for run, indices in spots.frames.items():
        table = spots.spots[(spots.spots["run"] == run) & spots.spots["brightest"]]
        by_frame = [table[table["frame"] == index] for index in indices]
        tracks: list[list[tuple[int, int]]] = []
        open_tracks: list[int] = []
        for place, (index, now) in enumerate(zip(indices, by_frame, strict=True)):
            linked = np.full(len(now), -1)
            consecutive = place > 0 and index == indices[place - 1] + 1
            if consecutive and len(now) and len(by_frame[place - 1]):
                linked = _linked(by_frame[place - 1], now)
            following = []
            for i in range(len(now)):
                if linked[i] >= 0:
                    track = open_tracks[linked[i]]
                else:
                    track = len(tracks)
                    tracks.append([])
                tracks[track].append((place, i))
                following.append(track)
            if consecutive:
                begins += int((linked < 0).sum())
                number += len(now)
                steps += 1
            open_tracks = following
        for track_spots in tracks:
            first, last = track_spots[0][0], track_spots[-1][0]
            if first == 0 or last == len(indices) - 1:
                continue
            lasting.append(len(track_spots))
            maxima = np.array([by_frame[p]["maximum"][i] for p, i in track_spots])
            brightest.append(float(maxima.max()))
            if maxima.max() > bright:
                sums = np.array([by_frame[p]["sum"][i] for p, i in track_spots])
                places = np.array([p for p, _ in track_spots], float)
                mean = (sums * places).sum() / sums.sum()
                square = (sums * (places - mean) ** 2).sum() / sums.sum() - 1 / 12
                widths.append(2.3548 * float(np.sqrt(max(square, 0.0))))
    mean = number / begins if begins >= 5 else None
    return Rocking(
        mean, np.array(lasting, int), np.array(widths), begins / steps if steps and begins >= 5 else None,
        np.array(brightest),
    )  # fmt: skip


def _linked(before: NDArray[np.void], now: NDArray[np.void]) -> NDArray[np.int64]:
    """(n,) of every spot the one of the frame before at its place, each once; -1: none."""
    tree = cKDTree(np.stack([before["row"], before["col"]], axis=1))
    distance, place = tree.query(np.stack([now["row"], now["col"]], axis=1), distance_upper_bound=_SAME + 0.3)
    linked = np.full(len(now), -1)
    taken: set[int] = set()
    for i in np.argsort(distance, kind="stable"):
        if np.isfinite(distance[i]) and int(place[i]) not in taken:
            linked[i] = place[i]
            taken.add(int(place[i]))
    return linked


def window_for(width: float) -> int:
    """Side of the window in which a simulated spot is rendered."""
    return next((side for side in WINDOWS if side >= 8 * width), WINDOWS[-1])

"""Merge peaks into reflections: what one reflection shows in the frames through which it rocks.

Peaks of successive frames that lie within a radius of each other belong to one reflection. A peak has at most one
partner in the frames before and one in those after, the nearest first, so that two peaks of one frame are never one
reflection (``same_frame`` lifts that). Where the height along a reflection falls into a deep valley and rises again,
two reflections of one place follow each other, and it is cut there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.links import Neighbours, chains, joined, without_loops
from braggnn_edge.peaks.peak_list import PEAKS, REFLECTIONS, PeakFlag
from braggnn_edge.peaks.rotation import TURN, Frames, Rotation, rotation_of
from braggnn_edge.peaks.valleys import valley_parts

Index = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MergeSpec:
    """How peaks are merged.

    radius: largest distance in px between peaks of successive frames. A spot stays in place while it rocks, to a
    fraction of a pixel; the nearest other spot is at least its own width away, 2 px and more. gap: frames in which a
    reflection may be missing between two in which it is seen, bad frames not counted; 1 carries a faint one over a
    frame in which it falls below the threshold. valley: a reflection is cut where the maximum of its peaks falls below
    this share of the smaller of the two that rise beside it; 0: never. Maxima are known of every peak, and less noisy
    than intensities; with their background in them, a valley has to be deep. same_frame: peaks of one frame may be one
    reflection too.
    """

    radius: float = 2.0
    gap: int = 1
    valley: float = 0.3
    same_frame: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.radius < np.inf:
            raise UserError(f"radius {self.radius}: expected a positive number of px")
        if self.gap < 0:
            raise UserError(f"gap {self.gap}: expected 0 frames or more")
        if not 0 <= self.valley < 1:
            raise UserError(f"valley {self.valley}: expected a share from 0 (never cut) to below 1")


@dataclass(frozen=True)
class Merged:
    """reflections: (m,) of REFLECTIONS, by scan, first frame, row and col; of: (n,) the reflection of each peak.

    remarks: sentences about what is not known of the scans' rotation.
    """

    reflections: NDArray[np.void]
    of: Index
    remarks: tuple[str, ...]


def merge(peaks: NDArray[np.void], spec: MergeSpec = MergeSpec(), frames: Mapping[int, Frames] | None = None) -> Merged:
    """Merge ``peaks`` (n,) of PEAKS, in any order; frames: what is known of each scan's, by its number.

    The mean omega of a reflection that is seen at the end and at the start of a full turn is taken across that border.
    Where omega is not known, or jumps, a remark says so: then neighbours are told by their frame numbers alone, and no
    reflection crosses a jump. A scan of more than one turn sees a reflection once a turn, and so does the result.
    Without ``frames`` the peaks tell how the scan turns, and a full turn is seen when it has peaks at both of its ends.
    Example::

        reflections = merge(peaks).reflections

    Memory: some 500 bytes a peak. Raises UserError for peaks without a position or in frames beyond the last, and for a
    frame with two omegas.
    """
    if peaks.dtype != PEAKS or peaks.ndim != 1:
        raise ValueError(f"peaks of type {peaks.dtype} {peaks.shape}: expected (n,) of PEAKS")
    lost = ~(np.isfinite(peaks["row"]) & np.isfinite(peaks["col"]))
    if lost.any():
        raise UserError(f"peak {int(lost.argmax())} of {len(peaks)} has no position; expected finite row and col")
    order = _canonical(peaks)
    ordered = peaks[order]
    parts, remarks, label, count = [], [], np.zeros(len(peaks), np.int64), 0
    borders = np.flatnonzero(np.diff(ordered["scan"])) + 1
    for start, stop in zip([0, *borders], [*borders, len(peaks)], strict=True):
        mine = ordered[start:stop]
        if not len(mine):
            continue
        found, of, said = _merge_scan(mine, spec, (frames or {}).get(int(mine["scan"][0])))
        parts.append(found)
        label[order[start:stop]] = of + count
        count += len(found)
        remarks += said
    return Merged(np.concatenate(parts) if parts else np.zeros(0, REFLECTIONS), label, tuple(remarks))


def _canonical(peaks: NDArray[np.void]) -> Index:
    """Order (n,) by scan, frame and position, and where these agree by all columns: it does not depend on the input."""
    keys = [peaks[name] for name in ("col", "row", "frame", "scan")]
    order = np.lexsort(keys)
    same = np.ones(max(len(peaks) - 1, 0), bool)
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    if same.any():
        order = np.lexsort([peaks[name] for name in reversed(PEAKS.names or ())] + keys)
    return order


def _merge_scan(
    peaks: NDArray[np.void], spec: MergeSpec, frames: Frames | None
) -> tuple[NDArray[np.void], Index, list[str]]:
    """Reflections, the reflection of each peak, and remarks, of the peaks of one scan in their canonical order."""
    if frames is None:
        rotation, bad = rotation_of(peaks["frame"], peaks["omega"]), np.zeros(0, np.int64)
    else:
        rotation, bad = rotation_of(np.arange(len(frames.omega)), frames.omega), np.array(frames.bad, np.int64)
        if peaks["frame"][-1] >= len(frames.omega):
            raise UserError(f"a peak is in frame {peaks['frame'][-1]}; the scan has {len(frames.omega)} frames")
    place = np.searchsorted(rotation.frames, peaks["frame"])
    # Bad frames do not count. Frames on both sides of a jump are moved apart, so that they are no neighbours.
    slot = peaks["frame"] - np.searchsorted(bad, peaks["frame"]) + rotation.piece[place] * (spec.gap + 2)
    turn = max(rotation.turn - len(bad), 0)
    neighbours = Neighbours(slot, peaks["row"], peaks["col"], spec.radius, turn)
    if spec.same_frame:
        links = joined([found for later in range(spec.gap + 2) for found, _ in neighbours.within(later)])
    else:
        links = without_loops(chains(neighbours, len(peaks), spec.gap), slot)
    group = links.groups(len(peaks))
    later = np.isin(group, group[links.source[links.wrapped]]) & (slot - slot[0] < turn // 2)
    slot = slot + turn * later
    group = valley_parts(group, slot, np.nan_to_num(peaks["maximum"]), spec.valley)
    omega = rotation.omega[place] + TURN * np.sign(rotation.step) * later if later.any() else rotation.omega[place]
    reflections, of = _reduced(peaks, group, slot, omega)
    _bring_into_the_turn(reflections, peaks["omega"], rotation.step)
    _mark_cut(reflections, rotation)
    return reflections, of, _remarks(int(peaks["scan"][0]), rotation)


def shares(peaks: NDArray[np.void], number: Index, count: int) -> Floats:
    """(n,) weights of the peaks of each of ``count`` reflections: intensities, not below 0.

    Where the intensity of one of its peaks is not known (the component fills the patch), all weigh by their maxima.
    """
    known = np.isfinite(peaks["intensity"])
    all_known = np.bincount(number, ~known, count)[number] == 0
    weight = np.maximum(np.where(all_known, peaks["intensity"], peaks["maximum"]), 0.0)
    weight[~np.isfinite(weight)] = 0.0
    weight[(np.bincount(number, weight, count) == 0)[number]] = 1.0  # nothing is known of their shares
    return weight


def averaged(
    values: Floats, sigma: Floats, weight: Floats, number: Index, near: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Positions along an axis of reflections (m,) from those of their peaks (n,), px.

    values, sigma: (n,) of the peaks; weight: (n,), 0 or more; number: (n,) the reflection of each; near: (m,) some
    position near by, so that sums of deviations from it keep their digits. Returned are the mean by ``weight``, its
    standard deviation, the mean by 1 / sigma**2, and its standard deviation: NaN where no peak has a weight, or none a
    sigma.
    """
    count = len(near)

    def total(what: Floats) -> Floats:
        return np.bincount(number, what, count).astype(np.float64, copy=False)

    def mean(by: Floats) -> Floats:
        return near + total(by * (values - near[number])) / total(by)

    with np.errstate(invalid="ignore", divide="ignore"):
        plain, its_sigma = mean(weight), np.sqrt(total(np.square(weight * sigma))) / total(weight)
    known = np.isfinite(sigma) & (sigma > 0)
    inverse = np.zeros(len(values))
    inverse[known] = 1 / np.square(sigma[known])
    none = total(inverse) == 0
    inverse[none[number]] = 1.0  # a value is needed, which then becomes NaN
    weighted, weighted_sigma = mean(inverse), np.sqrt(1 / total(inverse))
    return plain, its_sigma, np.where(none, np.nan, weighted), np.where(none, np.nan, weighted_sigma)


def _reduced(peaks: NDArray[np.void], group: Index, slot: Index, omega: Floats) -> tuple[NDArray[np.void], Index]:
    """Reflections (m,) of the groups (n,) of peaks, and the reflection of each peak (n,).

    slot: the peaks' frames, and omega, in degrees, as they go on over the end of a turn.
    """
    order = np.lexsort((slot, group))
    start = np.flatnonzero(np.diff(group[order], prepend=-1))
    size = np.diff(start, append=len(peaks))
    number = np.empty(len(peaks), np.int64)
    number[order] = np.repeat(np.arange(len(start)), size)
    first, last = order[start], order[start + size - 1]

    def total(values: NDArray) -> Floats:
        return np.bincount(number, values, len(start)).astype(np.float64, copy=False)

    def mean(values: Floats, weight: Floats) -> Floats:
        """Of deviations from the first peak, so that they keep their digits."""
        return values[first] + total(weight * (values - values[first][number])) / total(weight)

    weight = shares(peaks, number, len(start))
    found = np.zeros(len(start), REFLECTIONS)
    found["scan"], found["peaks"] = peaks["scan"][0], size
    found["first_frame"], found["last_frame"] = peaks["frame"][first], peaks["frame"][last]
    found["intensity"], found["area"] = total(peaks["intensity"]), total(peaks["area"])
    new = np.diff(slot[order], prepend=slot[order[0]]) != 0
    new[start] = True
    found["frames"] = np.bincount(number[order[new]], minlength=len(start))
    found["maximum"] = np.fmax.reduceat(peaks["maximum"][order], start)
    found["flags"] = np.bitwise_or.reduceat(peaks["flags"][order], start)
    for name, value in (("omega", omega), ("row", peaks["row"]), ("col", peaks["col"])):
        found[name] = mean(value, weight)
        found[f"spread_{name}"] = np.sqrt(total(weight * np.square(value - found[name][number])) / total(weight))
    # In the file's own convention: of 0 to 360 degrees, perhaps, or of -180 to 180.
    found["omega"] += peaks["omega"][first] - omega[first]
    for name in ("background", "width_row", "width_col"):
        found[name] = mean(peaks[name], weight)
    for axis in ("row", "col"):
        values, sigma = peaks[axis], peaks[f"sigma_{axis}"]
        places = averaged(values, sigma, weight, number, values[first])
        _, found[f"sigma_{axis}"], found[f"weighted_{axis}"], found[f"weighted_sigma_{axis}"] = places
    ranked = np.lexsort((found["col"], found["row"], found["first_frame"]))
    back = np.empty(len(ranked), np.int64)
    back[ranked] = np.arange(len(ranked))
    return found[ranked], back[number]


def _bring_into_the_turn(reflections: NDArray[np.void], omega: Floats, step: float) -> None:
    """Means beyond the omegas of the scan's frames are those of reflections that go over the end of a turn."""
    if np.isfinite(step):
        reflections["omega"] -= TURN * (reflections["omega"] >= omega.max() + 0.5 * abs(step))
        reflections["omega"] += TURN * (reflections["omega"] < omega.min() - 0.5 * abs(step))


def _mark_cut(reflections: NDArray[np.void], rotation: Rotation) -> None:
    """Set CUT where a reflection reaches an end of the scan, or of one of its pieces; a full turn has no ends."""
    edge = np.flatnonzero(np.diff(rotation.piece))
    ends = np.concatenate([rotation.frames[edge], rotation.frames[edge + 1]])
    first, last = rotation.frames[[0, -1]]
    if not rotation.turn or last - first + 1 < rotation.turn:
        ends = np.append(ends, [first, last])
    cut = np.isin(reflections["first_frame"], ends) | np.isin(reflections["last_frame"], ends)
    reflections["flags"][cut] |= np.uint32(PeakFlag.CUT)


def _remarks(scan: int, rotation: Rotation) -> list[str]:
    if not rotation.known:
        return [f"scan {scan}: omega is not known of every frame; neighbours are told by their frame numbers"]
    if jumps := int(rotation.piece[-1]):
        return [f"scan {scan}: omega jumps {jumps} times; no reflection is merged across a jump"]
    return []

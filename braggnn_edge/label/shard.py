"""One unit of labelling: a run of frames of one scan to rows and crops of its peaks, in one shard file."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.files import written_aside
from braggnn_edge.fit.joint import MAX_PEAKS
from braggnn_edge.frames.background import threshold_of
from braggnn_edge.label.acquisition import files_of_spec, open_spec
from braggnn_edge.label.fits import Fits
from braggnn_edge.label.spec import PeakSpec, ScanSpec
from braggnn_edge.peaks import find as peaks
from braggnn_edge.peaks.table import PEAK, Flag, mark
from braggnn_edge.simulation import truth


@dataclass(frozen=True)
class Task:
    """One unit of work: frames [start, stop) of one scan, to one shard file."""

    scan: int
    spec: ScanSpec
    start: int
    stop: int
    data: Path
    folder: Path | None  # where the scan's paths start from; None: they are complete
    peaks: PeakSpec
    shard: Path

    @property
    def scan_name(self) -> str:
        """For messages."""
        return self.spec.name

    @property
    def rows(self) -> np.dtype:
        """Of the rows in the shard."""
        return PEAK

    def inputs(self) -> tuple[Path, ...]:
        """The files of the scan."""
        return files_of_spec(self.spec, self.data, self.folder)

    def work(self, path: Path) -> None:
        """:func:`label_shard` to the file ``path``."""
        label_shard(replace(self, shard=path))


def label_shard(task: Task) -> None:
    """Write the shard file of a task: ``peaks`` (n,), ``crops`` (n, side, side), ``bad_frames``, indices left out.

    Rows are in order of frame, row and col, their split is not set yet.
    """
    spec, size, shift = task.spec, task.peaks.size, task.peaks.shift
    side = size + 2 * shift
    rows: list[NDArray[np.void]] = []
    crops: list[NDArray[np.generic]] = []
    bad: list[int] = []
    known = truth.read_truth(task.data / f"{spec.name}_truth.h5") if spec.format == "simulated" else None
    scan = open_spec(spec, task.data, task.folder)
    fits, count = Fits(size), 0
    skip = (lambda index, _: bad.append(index)) if spec.on_bad_frame == "skip" else None
    for index, frame, valid in scan.frames_with_valid(task.start, task.stop, skip):
        found = peaks.detect(
            frame,
            threshold=threshold_of(frame, valid, spec),
            valid=valid,
            min_area=spec.min_area,
            size=size,
            margin=shift,
            saturation=spec.detector.saturation or np.inf,
            gain=spec.detector.gain,
            read_noise=spec.detector.read_noise,
        )
        kept = ~found.maxima["edge"]
        if spec.unsaturated:
            kept &= ~found.maxima["saturated"]
        chosen = np.flatnonzero(kept)
        if len(chosen) == 0:
            continue
        peak = _rows(found, chosen)
        peak["scan"], peak["frame"] = task.scan, index
        too_far = fits.add(frame, valid, found, chosen, count)
        mark(peak, too_far, Flag.TOO_FAR)
        spots = np.empty(0, truth.TRUTH_DTYPE) if known is None else truth.of_frame(known, index)
        truth.assign(
            peak, spots, size=size, gain=spec.detector.gain, read_noise=spec.detector.read_noise,
            saturation=spec.detector.saturation or None, zero_suppression=spec.detector.zero_suppression or None,
        )  # fmt: skip
        rows.append(peak)
        crops.append(peaks.crops(frame, peak["row"], peak["col"], side))
        count += len(peak)
    all_rows = np.concatenate(rows) if rows else np.zeros(0, PEAK)
    all_crops = np.concatenate(crops) if crops else np.zeros((0, side, side), scan.dtype)
    fits.fill(all_rows, spec.detector)
    with written_aside(task.shard) as aside, aside.open("wb") as stream:
        np.savez(stream, peaks=all_rows, crops=all_crops, bad_frames=np.array(bad, np.int64))


def _rows(found: peaks.Detection, chosen: NDArray[np.int64]) -> NDArray[np.void]:
    """Rows of the table for the maxima ``chosen`` (n,), as far as detection knows them."""
    maxima = found.maxima[chosen]
    rows = np.zeros(len(chosen), PEAK)
    for name in ("row", "col", "area", "maximum", "saturated", "neighbours", "maxima", "component", "masked"):
        rows[name] = maxima[name]
    at_edge = np.bincount(found.maxima["component"], found.maxima["edge"])[maxima["component"]] > 0
    for flag, holds in (
        (Flag.SATURATED, maxima["saturated"]),
        (Flag.MASKED, maxima["masked"] > 0),
        (Flag.CROWDED, maxima["neighbours"] > 0),
        (Flag.EDGE, at_edge),
        (Flag.TOO_MANY_MAXIMA, maxima["maxima"] > MAX_PEAKS),
    ):
        mark(rows, holds, flag)
    return rows

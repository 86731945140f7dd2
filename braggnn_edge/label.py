"""Stage "label": frames to the peak table, by detection, crops, pseudo-Voigt fits, truth and splits.

Work is cut into runs of frames, done in parallel processes; each writes its part aside and renames it, so that an
interrupted stage goes on where it was. The result does not depend on the number of workers.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge import cramer_rao, peaks, table
from braggnn_edge.acquisition import ScanSpec, open_spec
from braggnn_edge.errors import UserError
from braggnn_edge.fit import FitResult, fit
from braggnn_edge.formats.braggnn import PEAK_DTYPE, write_peaks
from braggnn_edge.rundir import write_json, written_aside
from braggnn_edge.split import SplitSpec, frame_splits
from braggnn_edge.table import EXCLUDED, PEAK, SPLITS, PeakTable


@dataclass(frozen=True)
class PeakSpec:
    """size: patch size, odd; shift: px kept around a patch for shifts in training.

    lone: leave out peaks with a second maximum in their component or another component in their patch.
    """

    size: int = 11
    shift: int = 1
    lone: bool = True

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise UserError(f"patch size {self.size} is not usable; expected an odd number of at least 3")
        if self.shift < 0:
            raise UserError(f"shift {self.shift} is negative; expected 0 or more")


#: Truth farther than this from the brightest pixel is another spot's, px.
_TRUTH_RADIUS = 2.5
#: Frames in one unit of work.
_RUN = 16


@dataclass(frozen=True)
class _Task:
    """One unit of work: frames [start, stop) of one scan, to one part file."""

    scan: int
    spec: ScanSpec
    start: int
    stop: int
    data: Path
    folder: Path
    peaks: PeakSpec
    part: Path


def run(
    scans: tuple[ScanSpec, ...],
    spec: PeakSpec,
    split: SplitSpec,
    seed: int,
    data: Path,
    folder: Path,
    directory: Path,
    workers: int,
    say: Callable[[str], None],
) -> None:
    """Write ``peaks.h5`` and ``summary.json`` into ``directory``.

    Raises UserError when no peak is found in a scan, or none falls into one of the three parts.
    """
    parts = directory / "parts"
    parts.mkdir(exist_ok=True)
    tasks, splits = [], []
    for index, scan_spec in enumerate(scans):
        frames, rows, cols = open_spec(scan_spec, data, folder).shape
        if spec.size + 2 * spec.shift > min(rows, cols):
            raise UserError(
                f"scan {scan_spec.name!r}: patches of {spec.size} px with a margin of {spec.shift} px do not fit in "
                f"frames of {rows} x {cols}; choose a smaller patch size"
            )
        rng = np.random.default_rng((seed, 3, index))
        splits.append(frame_splits(frames, split, scan_spec.use, rng))
        for start in range(0, frames, _RUN):
            part = parts / f"{index:02d}-{start:06d}.npz"
            tasks.append(_Task(index, scan_spec, start, min(frames, start + _RUN), data, folder, spec, part))
    _run_tasks([task for task in tasks if not task.part.exists()], len(tasks), workers, say)
    result = _collect(tasks, splits, scans, spec)
    counts = {}
    for index, scan_spec in enumerate(scans):
        rows_of = result.peaks[result.peaks["scan"] == index]
        if len(rows_of) == 0:
            raise UserError(
                f"scan {scan_spec.name!r}: no peaks found above {scan_spec.threshold} counts with at least "
                f"{scan_spec.min_area} pixels; lower threshold or min_area"
            )
        counts[scan_spec.name] = {name: int((rows_of["split"] == i).sum()) for i, name in enumerate(SPLITS)}
        say(
            f"  {scan_spec.name}: {len(rows_of)} peaks; "
            + ", ".join(f"{v} {k}" for k, v in counts[scan_spec.name].items())
        )
    for number, name in enumerate(SPLITS[:3]):
        if not (result.peaks["split"] == number).any():
            raise UserError(
                f"no peak is in the {name} part: {counts}; lower a threshold, raise the part's share in [split] or "
                "allow larger residuals"
            )
    table.save(result, directory / "peaks.h5")
    for index, scan_spec in enumerate(scans):
        write_peaks(directory / f"{scan_spec.name}_peaks.h5", _upstream_peaks(result.peaks, index))
    write_json(directory / "summary.json", counts)
    for task in tasks:
        task.part.unlink()
    parts.rmdir()


def _upstream_peaks(rows: NDArray[np.void], scan: int) -> NDArray[np.void]:
    """The converged fits of one scan as upstream's peaks file has them.

    ``deviations``, of which upstream keeps 0 to below 1, is the distance in px of the fit from the brightest pixel.
    """
    mine = rows[(rows["scan"] == scan) & rows["voigt_converged"]]
    peak = np.zeros(len(mine), PEAK_DTYPE)
    peak["frame"], peak["row"], peak["col"] = mine["frame"], mine["voigt_row"], mine["voigt_col"]
    peak["npeaks"] = mine["maxima"]
    peak["deviation"] = np.hypot(mine["voigt_row"] - mine["row"], mine["voigt_col"] - mine["col"])
    return peak


def _run_tasks(tasks: list[_Task], total: int, workers: int, say: Callable[[str], None]) -> None:
    done = total - len(tasks)
    if done:
        say(f"  {done} of {total} parts were done before")
    if workers <= 1 or len(tasks) <= 1:
        for number, task in enumerate(tasks, done + 1):
            _label_part(task)
            _progress(number, total, say)
        return
    # Spawned, since torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(_label_part, task) for task in tasks]
        try:
            for number, future in enumerate(as_completed(futures), done + 1):
                future.result()
                _progress(number, total, say)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _progress(number: int, total: int, say: Callable[[str], None]) -> None:
    if number == total or number % max(1, total // 10) == 0:
        say(f"  labelled {number} of {total} parts")


def _label_part(task: _Task) -> None:
    spec, size = task.spec, task.peaks.size
    rows, crops = [], []
    truths = _Truth(task.data / f"{spec.name}_truth.h5") if spec.format == "simulated" else None
    scan = open_spec(spec, task.data, task.folder)
    for index, frame in scan.frames(task.start, task.stop):
        found = peaks.detect(
            frame,
            threshold=spec.threshold,
            min_area=spec.min_area,
            size=size,
            margin=task.peaks.shift,
            saturation=spec.detector.saturation or np.inf,
            gain=spec.detector.gain,
            read_noise=spec.detector.read_noise,
        )
        kept = (found["maxima"] == 1) & (found["neighbours"] == 0) if task.peaks.lone else np.ones(len(found), bool)
        found = found[kept & ~found["edge"]]
        if spec.unsaturated:
            found = found[~found["saturated"]]
        if len(found) == 0:
            continue
        peak = np.zeros(len(found), PEAK)
        for name in ("row", "col", "area", "maximum", "saturated", "neighbours", "maxima"):
            peak[name] = found[name]
        peak["scan"], peak["frame"] = task.scan, index
        for name in ("truth_row", "truth_col", "bound_var_row", "bound_cov_row_col", "bound_var_col"):
            peak[name] = np.nan
        peak["truth_reflection"] = -1
        if truths is not None:
            truths.assign(peak, index, size, spec)
        rows.append(peak)
        crops.append(peaks.crops(frame, found["row"], found["col"], size + 2 * task.peaks.shift))
    side = size + 2 * task.peaks.shift
    all_rows = np.concatenate(rows) if rows else np.zeros(0, PEAK)
    all_crops = np.concatenate(crops) if crops else np.zeros((0, side, side), scan.dtype)
    m = task.peaks.shift
    _fit_rows(all_rows, all_crops[:, m : m + size, m : m + size], spec)
    with written_aside(task.part) as aside, aside.open("wb") as stream:
        np.savez(stream, peaks=all_rows, crops=all_crops)


def _fit_rows(rows: NDArray[np.void], patches: NDArray[np.generic], spec: ScanSpec) -> None:
    """Fill the voigt_* columns of rows (n,) from patches (n, size, size)."""
    if len(rows) == 0:
        return
    detector = spec.detector
    result: FitResult = fit(
        patches.astype(np.float64),
        gain=detector.gain,
        read_noise=detector.read_noise,
        saturation=detector.saturation or None,
        floor=detector.floor or None,
    )
    half = patches.shape[1] // 2
    for i, name in enumerate(("row", "col", "amplitude", "fwhm_major", "fwhm_minor", "tilt", "eta", "background")):
        rows[f"voigt_{name}"] = result.parameters[:, i]
    rows["voigt_row"] += rows["row"] - half
    rows["voigt_col"] += rows["col"] - half
    rows["voigt_var_row"] = result.covariance[:, 0, 0]
    rows["voigt_cov_row_col"] = result.covariance[:, 0, 1]
    rows["voigt_var_col"] = result.covariance[:, 1, 1]
    rows["voigt_chi2"], rows["voigt_residual"] = result.chi2, result.residual
    rows["voigt_converged"] = result.converged


class _Truth:
    """The truth table of a simulated scan, by frame."""

    _SHAPE = ("row", "col", "amplitude", "fwhm_major", "fwhm_minor", "tilt", "eta", "background")

    def __init__(self, path: Path) -> None:
        with h5py.File(path) as file:
            self.columns = {name: file[name][:] for name in (*self._SHAPE, "frame", "reflection")}
        order = np.argsort(self.columns["frame"], kind="stable")
        self.columns = {name: column[order] for name, column in self.columns.items()}

    def assign(self, peak: NDArray[np.void], frame: int, size: int, spec: ScanSpec) -> None:
        """Fill truth_* and bound_* of one frame's peaks: the spot that gives most counts to the brightest pixel."""
        low, high = np.searchsorted(self.columns["frame"], (frame, frame + 1))
        spots = {name: column[low:high] for name, column in self.columns.items()}
        if high == low:
            return
        distance2 = (peak["row"][:, None] - spots["row"]) ** 2 + (peak["col"][:, None] - spots["col"]) ** 2
        width2 = spots["fwhm_major"] * spots["fwhm_minor"]
        share = spots["amplitude"] * np.exp(-4 * np.log(2) * distance2 / width2)
        share[distance2 > _TRUTH_RADIUS**2] = -1.0
        chosen = share.argmax(axis=1)
        known = share[np.arange(len(peak)), chosen] >= 0
        chosen, target = chosen[known], np.flatnonzero(known)
        for name in ("row", "col", "reflection"):
            peak[f"truth_{name}"][target] = spots[name][chosen]
        if len(target) == 0:
            return
        parameters = np.stack([spots[name][chosen] for name in self._SHAPE], axis=1).astype(np.float64)
        parameters[:, 0] -= peak["row"][target] - size // 2
        parameters[:, 1] -= peak["col"][target] - size // 2
        bound = cramer_rao.position_bound(
            torch.from_numpy(parameters), size, gain=spec.detector.gain, read_noise=spec.detector.read_noise,
            saturation=spec.detector.saturation or None, floor=spec.detector.floor or None,
        )  # fmt: skip
        peak["bound_var_row"][target] = bound[:, 0, 0]
        peak["bound_cov_row_col"][target] = bound[:, 0, 1]
        peak["bound_var_col"][target] = bound[:, 1, 1]


def _collect(
    tasks: list[_Task], splits: list[NDArray[np.uint8]], scans: tuple[ScanSpec, ...], spec: PeakSpec
) -> PeakTable:
    """Join the parts in order of scan and frame, and give every row its split."""
    rows, crops = [], []
    for task in tasks:
        with np.load(task.part) as part:
            rows.append(part["peaks"])
            crops.append(part["crops"])
    joined = np.concatenate(rows)
    for index, scan_spec in enumerate(scans):
        mine = joined["scan"] == index
        joined["split"][mine] = splits[index][joined["frame"][mine]]
        if scan_spec.max_residual:
            poor = ~(joined["voigt_converged"] & (joined["voigt_residual"] < scan_spec.max_residual))
            joined["split"][mine & poor] = EXCLUDED
    kept = np.result_type(*{c.dtype for c in crops if len(c)} or {np.dtype(np.uint16)})
    everything = np.concatenate([c.astype(kept) for c in crops])
    return PeakTable(joined, everything, tuple(s.name for s in scans), spec.size, spec.shift)

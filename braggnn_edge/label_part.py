"""One unit of labelling: a run of frames of one scan to rows and crops of its peaks, in one part file."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge import cramer_rao, peaks
from braggnn_edge.acquisition import ScanSpec, open_spec
from braggnn_edge.errors import UserError
from braggnn_edge.fit import FitResult, fit
from braggnn_edge.rundir import written_aside
from braggnn_edge.table import PEAK


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


@dataclass(frozen=True)
class Task:
    """One unit of work: frames [start, stop) of one scan, to one part file."""

    scan: int
    spec: ScanSpec
    start: int
    stop: int
    data: Path
    folder: Path
    peaks: PeakSpec
    part: Path


def label_part(task: Task) -> None:
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

"""Stage "label": frames to the peak table, by detection, crops, pseudo-Voigt fits, truth and splits.

Work is cut into runs of frames, done in parallel processes; each writes its part aside and renames it, so that an
interrupted stage goes on where it was. The result does not depend on the number of workers.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge import table
from braggnn_edge.acquisition import ScanSpec, open_spec
from braggnn_edge.errors import UserError
from braggnn_edge.formats.braggnn import PEAK_DTYPE, write_peaks
from braggnn_edge.label_part import PeakSpec, Task, label_part
from braggnn_edge.rundir import write_json
from braggnn_edge.split import SplitSpec, frame_splits
from braggnn_edge.table import EXCLUDED, SPLITS, PeakTable

#: Frames in one unit of work.
_RUN = 16


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
            tasks.append(Task(index, scan_spec, start, min(frames, start + _RUN), data, folder, spec, part))
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


def _run_tasks(tasks: list[Task], total: int, workers: int, say: Callable[[str], None]) -> None:
    done = total - len(tasks)
    if done:
        say(f"  {done} of {total} parts were done before")
    if workers <= 1 or len(tasks) <= 1:
        for number, task in enumerate(tasks, done + 1):
            label_part(task)
            _progress(number, total, say)
        return
    # Spawned, since torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(label_part, task) for task in tasks]
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


def _collect(
    tasks: list[Task], splits: list[NDArray[np.uint8]], scans: tuple[ScanSpec, ...], spec: PeakSpec
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

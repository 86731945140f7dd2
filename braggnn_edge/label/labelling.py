"""Stage "label": frames to the peak table, by detection, crops, pseudo-Voigt fits, truth and splits.

Work is cut into runs of frames, done by the workers of a Dask cluster; each leaves a shard file, and the shards are
joined in order of scan and frame. An interrupted stage goes on from the shards that are there, and the result depends
neither on interruptions nor on the workers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.frames.formats.braggnn import PEAK_DTYPE, write_peaks
from braggnn_edge.label import exclusion
from braggnn_edge.label.acquisition import located, open_spec
from braggnn_edge.label.shard import Task
from braggnn_edge.label.spec import PeakSpec, ScanSpec, SplitSpec
from braggnn_edge.label.split import frame_splits
from braggnn_edge.peaks import guards, table
from braggnn_edge.peaks.first_look import look
from braggnn_edge.peaks.splits import SPLITS
from braggnn_edge.shards import files
from braggnn_edge.shards import run as shards

#: Frames in one unit of work.
_RUN = 16


@dataclass(frozen=True)
class _Labelled:
    """One scan: the split of every frame, and its tasks in order."""

    spec: ScanSpec
    splits: NDArray[np.uint8]
    tasks: tuple[Task, ...]


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
    scheduler: str = "",
) -> None:
    """Write ``peaks.h5``, ``<scan>_peaks.h5`` and ``summary.json`` into ``directory``.

    workers: processes on this machine; scheduler: address or scheduler file of a Dask cluster that does the work
    instead (:func:`braggnn_edge.shards.run.do`). Memory holds the shards in work, and 19 bytes a peak of one scan.

    Raises UserError when no peak is found in a scan, and when none falls into a part that a scan is used for.
    """
    if (directory / "summary.json").exists():  # written last: an earlier run was stopped while it tidied up
        files.remove(directory)
        return
    to = files.folder(directory.absolute())
    labelled = [_plan(i, s, spec, split, seed, data.absolute(), folder.absolute(), to) for i, s in enumerate(scans)]
    for scan in labelled:
        _check(scan, spec, data.absolute(), say)
    shards.do([task for scan in labelled for task in scan.tasks], workers, scheduler, say, "labelled")
    summary = _join(labelled, spec, directory, say)
    write_json(directory / "summary.json", summary)
    files.remove(directory)


def _plan(
    index: int, scan: ScanSpec, spec: PeakSpec, split: SplitSpec, seed: int, data: Path, folder: Path, to: Path
) -> _Labelled:
    scan = located(scan, folder)
    frames, rows, cols = open_spec(scan, data, None).shape
    if spec.size + 2 * spec.shift > min(rows, cols):
        raise UserError(
            f"scan {scan.name!r}: patches of {spec.size} px with a margin of {spec.shift} px do not fit in "
            f"frames of {rows} x {cols}; choose a smaller patch size"
        )
    splits = frame_splits(frames, split, scan.use, np.random.default_rng((seed, 3, index)))
    starts = range(0, frames, _RUN)
    return _Labelled(scan, splits, tuple(
        Task(index, scan, start, min(frames, start + _RUN), data, None, spec, to / f"{index:02d}-{start:06d}.npz")
        for start in starts
    ))  # fmt: skip


def _check(scan: _Labelled, spec: PeakSpec, data: Path, say: Callable[[str], None]) -> None:
    """Look at a few frames of a scan before any work on it; a scan that was begun before has been looked at."""
    if scan.spec.check and not any(task.shard.exists() for task in scan.tasks):
        guards.check(
            open_spec(scan.spec, data, None), scan.spec, min_area=scan.spec.min_area, size=spec.size,
            anyway="check = false in the [[scan]]", say=say, skip=scan.spec.on_bad_frame == "skip",
        )  # fmt: skip


def _join(labelled: list[_Labelled], spec: PeakSpec, directory: Path, say: Callable[[str], None]) -> dict[str, dict]:
    """Join the shards, one in memory at a time, and give every row its split; the peaks of every scan and split."""
    heads = [head for scan in labelled for task in scan.tasks if (head := files.head(task))]
    crops: DTypeLike = np.result_type(*{kind for rows, kind in (h["crops"] for h in heads) if rows} or {np.dtype("u2")})
    summary: dict[str, dict] = {}
    why_not = np.zeros((len(exclusion.REASONS), len(SPLITS)), np.int64)
    names = tuple(scan.spec.name for scan in labelled)
    upstream: dict[str, list[NDArray[np.void]]] = {name: [] for name in names}
    with table.writing(directory / "peaks.h5", names, spec.size, spec.shift, crops) as append:
        for scan in labelled:
            counts, unfitted, bad = np.zeros(len(SPLITS), int), [0, 0], []
            reasons = np.zeros_like(why_not)
            for rows, patches, why, skipped in _shards_of(scan, spec):
                append(rows, patches)
                counts += np.bincount(rows["split"], minlength=len(SPLITS))
                reasons += why
                crowded = (rows["flags"] & table.Flag.TOO_MANY_MAXIMA) != 0
                unfitted[0] += int((~rows["voigt_converged"]).sum())
                unfitted[1] += int(crowded.sum())
                upstream[scan.spec.name].append(_upstream_peaks(rows))
                bad += skipped.tolist()
            name = scan.spec.name
            summary[name] = dict(zip(SPLITS, counts.tolist(), strict=True))
            summary[name]["excluded_because"] = exclusion.listed(reasons.sum(1))
            why_not += reasons
            if not counts.any():
                raise UserError(f"scan {name!r}: no peaks found; {_why_none(scan, spec)}")
            say(f"  {name}: {counts.sum()} peaks; " + ", ".join(
                f"{count} {split}" for split, count in zip(SPLITS, counts.tolist(), strict=True)))  # fmt: skip
            exclusion.report(name, reasons.sum(1), say)
            if unfitted[0]:
                advice = _CROWDED if unfitted[1] > counts.sum() / 2 else ""
                say(f"  {name}: {unfitted[0]} peaks have no converged fit, {unfitted[1]} of them because "
                    f"their component has too many maxima{advice}")  # fmt: skip
            if bad:
                summary[name]["bad_frames"] = len(bad)
                say(f"  {name}: {len(bad)} bad frames skipped: {_listed(bad)}")
        _check_splits(labelled, summary, why_not)
    for name, peaks in upstream.items():
        write_peaks(directory / f"{name}_peaks.h5", np.concatenate(peaks))
    return summary


#: What is said when most peaks are in such components.
_CROWDED = "; if this scan is not crowded, raise its threshold"


def _shards_of(
    scan: _Labelled, spec: PeakSpec
) -> Iterator[tuple[NDArray[np.void], NDArray[np.generic], NDArray[np.int64], NDArray[np.int64]]]:
    """Rows with their split, crops, how many rows are excluded for each reason, and the bad frames, of every shard."""
    for task in scan.tasks:
        rows, crops, bad = files.load(task.shard, "peaks", "crops", "bad_frames")
        rows["split"] = scan.splits[rows["frame"]]
        yield rows, crops, exclusion.exclude(rows, scan.spec, spec), bad


def _why_none(scan: _Labelled, spec: PeakSpec) -> str:
    """Why a scan has no row in the table, and what helps, by a look at its frames."""
    one = scan.spec
    seen = look(open_spec(one, scan.tasks[0].data, None), one, one.min_area, spec.size)
    wrong = guards.nonsense(seen, one, spec.size)
    if wrong or not seen.seen:
        return wrong or "every frame that was looked at is bad"
    if not any(found.components for found in seen.seen):
        return (
            f"pixels above the threshold make no component of {one.min_area} pixels in {len(seen.seen)} frames; lower "
            "min_area, or the threshold"
        )
    return (
        f"no patch of {spec.size} px with its margin of {spec.shift} px fits in the frame around them"
        + (", or they are saturated (unsaturated = true)" if one.unsaturated else "")
        + "; take smaller patches"
    )


def _check_splits(labelled: list[_Labelled], summary: dict[str, dict], reasons: NDArray[np.int64]) -> None:
    """Refuse a table that lacks a part which a scan is used for: training would find that out much later."""
    counts = {scan: {name: found[name] for name in SPLITS} for scan, found in summary.items()}
    for index, name in enumerate(SPLITS[:3]):
        if any(name in scan.spec.use for scan in labelled) and not any(found[name] for found in counts.values()):
            raise UserError(f"no peak is in the {name} part: {counts}; {exclusion.remedy(reasons[:, index])}")


def _listed(numbers: list[int], most: int = 12) -> str:
    return ", ".join(map(str, numbers[:most])) + (", ..." if len(numbers) > most else "")


def _upstream_peaks(rows: NDArray[np.void]) -> NDArray[np.void]:
    """The converged fits as upstream's peaks file has them.

    ``deviations``, of which upstream keeps 0 to below 1, is the distance in px of the fit from the brightest pixel.
    """
    mine = rows[rows["voigt_converged"]]
    peak = np.zeros(len(mine), PEAK_DTYPE)
    peak["frame"], peak["row"], peak["col"] = mine["frame"], mine["voigt_row"], mine["voigt_col"]
    peak["npeaks"] = mine["maxima"]
    peak["deviation"] = np.hypot(mine["voigt_row"] - mine["row"], mine["voigt_col"] - mine["col"])
    return peak


def work(context: Context, directory: Path) -> None:
    """The stage: :func:`run` with the scans of the configuration and the frames of the data stage."""
    cfg = context.cfg
    run(
        cfg["scan"], cfg["peaks"], cfg["split"], cfg.seed, context.run / "data", cfg.folder, directory,
        context.workers, context.say, context.scheduler,
    )  # fmt: skip

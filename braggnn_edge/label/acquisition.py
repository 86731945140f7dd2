"""The scans of a configuration, and stage "data": simulated ones are made, measured ones are opened and described."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from braggnn_edge.core.config import resolve_path
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.frames.corrections import files_of as correction_files
from braggnn_edge.frames.formats import files_of
from braggnn_edge.frames.scan import Scan, open_scan
from braggnn_edge.label.spec import DATA_KEYS, ScanSpec
from braggnn_edge.simulation import simulate as simulation


def located(spec: ScanSpec, folder: Path | None) -> ScanSpec:
    """A scan with the paths that the user wrote made complete, relative to ``folder``; None: they are complete.

    It is done once: a ``$`` in the name of the folder itself is no variable, and on another machine ``~`` is another
    folder.
    """
    if folder is None:
        return spec
    path, dark, mask, peaks = (
        str(resolve_path(text, folder)) if text else "" for text in (spec.path, spec.dark, spec.mask, spec.peaks)
    )
    return replace(spec, path=path, dark=dark, mask=mask, peaks=peaks)


def external_files(scans: tuple[ScanSpec, ...], folder: Path | None) -> tuple[Path, ...]:
    """The measured files that a configuration reads: all of a series, and those behind the links of an HDF5 file."""
    found: list[Path] = []
    for scan in (located(spec, folder) for spec in scans):
        if scan.path:
            found += files_of(scan.format, Path(scan.path), scan.dataset or None)
        found += [Path(scan.peaks)] if scan.peaks else []
        found += [file for text in (scan.dark, scan.mask) if text for file in correction_files(text)]
    return tuple(dict.fromkeys(found))


def files_of_spec(spec: ScanSpec, data: Path, folder: Path | None) -> tuple[Path, ...]:
    """The files that the work on one scan reads; of a simulated one those of the data stage."""
    if spec.format == "simulated":
        return data / f"{spec.name}.h5", data / f"{spec.name}_truth.h5"
    return external_files((spec,), folder)


def open_spec(spec: ScanSpec, data: Path, folder: Path | None) -> Scan:
    """The frames of one scan: from the data stage when simulated, else from its file."""
    if spec.format == "simulated":
        step = spec.simulate.omega_step
        return open_scan("braggnn", data / f"{spec.name}.h5", omega_start=0.0, omega_step=step)
    spec = located(spec, folder)
    return open_scan(
        spec.format,
        Path(spec.path),
        name=spec.name,
        dataset=spec.dataset or None,
        dark=spec.dark or None,
        mask=spec.mask or None,
        peaks=spec.peaks or None,
        negative=spec.negative,
        overflow_value=spec.overflow_value,
        omega_start=spec.omega_start,
        omega_step=spec.omega_step,
    )


def _progress(say: Callable[[str], None], frames: int) -> Callable[[int, int], None]:
    """Say something about ten times a scan."""
    step = max(1, frames // 10)

    def report(done: int, total: int) -> None:
        if done % step == 0 or done == total:
            say(f"  simulated {done} of {total} frames")

    return report


def seed_of(seed: int, index: int) -> int:
    """The seed of scan number ``index`` of a configuration."""
    return seed + 1000 * index


def run(
    scans: tuple[ScanSpec, ...],
    folder: Path,
    seed: int,
    directory: Path,
    workers: int,
    say: Callable[[str], None],
) -> None:
    """The stage: simulate what is simulated (finished scans of an interrupted run are kept), describe every scan."""
    described = {}
    for index, spec in enumerate(scans):
        if spec.format == "simulated":
            frames, truth = directory / f"{spec.name}.h5", directory / f"{spec.name}_truth.h5"
            if not (frames.exists() and truth.exists()):
                say(f"  {spec.name}: simulating")
                simulation.simulate(
                    spec.simulate,
                    seed_of(seed, index),
                    frames,
                    truth,
                    workers,
                    _progress(say, spec.simulate.frames),
                )
        scan = open_spec(spec, directory, folder)
        described[spec.name] = {"format": spec.format, "shape": list(scan.shape), "dtype": str(scan.dtype)}
        say(f"  {spec.name}: {scan.shape[0]} frames of {scan.shape[1]} x {scan.shape[2]}, {scan.dtype}")
    write_json(directory / "scans.json", described)


def work(context: Context, directory: Path) -> None:
    """The stage "data": :func:`run` with the scans of the configuration."""
    cfg = context.cfg
    run(cfg["scan"], cfg.folder, cfg.seed, directory, context.workers, context.say)


def files(context: Context) -> tuple[Path, ...]:
    """What the stages "data" and "label" read outside the run directory."""
    return external_files(context.cfg["scan"], context.cfg.folder)


def settings(_: Context, values: dict[str, Any]) -> dict[str, Any]:
    """What frames depend on: no new simulation for another threshold."""
    return values | {"scan": [{key: scan[key] for key in DATA_KEYS} for scan in values["scan"]]}

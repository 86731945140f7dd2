"""Stage "hls": one hardware project for each io type, and beside them the same network for further boards."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from hls.project.circuit import write_circuit_project
from hls.project.layered import check_project, load_project, write_project
from hls.project.reuse import fitted
from hls.project.spec import BACKENDS, HlsSpec, Settings, settings_of
from hls.project.stage import BOARDS_REFUSED
from quant.contract import locator as locators

#: Where projects for further boards lie, and the list of them. The C simulation takes the projects beside it.
BOARDS = "boards"
LIST = "boards.json"

#: What names the part: it may differ between two projects of the same sources.
_NAMES_THE_PART = ("README.txt", "project.json", "project.tcl")


def _planned(spec: HlsSpec) -> Iterator[tuple[str, str, Settings]]:
    """Directory, io type and settings of every project, those that are simulated first."""
    for io_type in spec.io_types:
        yield io_type, io_type, settings_of(spec)
    for board in spec.boards:
        for io_type in board.io_types or spec.io_types:
            name = f"{io_type}-{board.flow.lower()}" if board.flow else io_type
            yield f"{BOARDS}/{board.target}/{name}", io_type, settings_of(spec, board)


def work(context: Context, directory: Path) -> None:
    """The stage: :func:`run` on the locator and the test peaks of the run directory."""
    table, qat = load_table(context.run / "label" / "peaks.h5"), context.run / "qat"
    write = run if locators.load(qat / "locator.json").is_bare else run_whole
    write(context.cfg["hls"], table, qat, directory, context.say)


def run(spec: HlsSpec, table: PeakTable, qat: Path, directory: Path, say: Callable[[str], None]) -> None:
    """Write ``<io type>/`` for each io type; finished projects of an interrupted run are kept.

    The top of an io_stream project begins at counts; that of an io_parallel one, and of the board flow, at codes.
    qat: directory of the qat stage. Golden vectors are spread over the test peaks. Further boards are written to
    ``boards/<target>/<io type>[-<flow>]/``, with ``boards/boards.json`` saying in what they differ from ``<io type>/``.
    """
    locator = locators.load(qat / "locator.json")
    spec, patches = fitted(spec, locator.network), golden_patches(spec, table)
    say(_chosen(spec))
    planned = list(_planned(spec))
    for _, io_type, options in planned:  # what cannot be is refused before a file is written
        check_project(locator.network, io_type=io_type, **asdict(options))
    listed = []
    for name, io_type, options in planned:
        project = directory / name
        if not project.exists():
            project.parent.mkdir(parents=True, exist_ok=True)
            if io_type == "io_stream" and options.backend in BACKENDS:  # AXI4-Stream, from counts on
                write_circuit_project(
                    qat / "model.onnx", locator, project, patches=patches, io_type=io_type, **asdict(options)
                )
            else:
                write_project(
                    qat / "model.onnx", locator.network, locator.normalizer, project,
                    counts=patches, io_type=io_type, **asdict(options),
                )  # fmt: skip
        say(f"  {name}: {len(load_project(project).layers)} layers, every type and weight read back")
        if name != io_type:
            listed.append(_entry(directory, name, io_type, options, settings_of(spec)))
    if listed:
        write_json(directory / BOARDS / LIST, listed)


def run_whole(spec: HlsSpec, table: PeakTable, qat: Path, directory: Path, say: Callable[[str], None]) -> None:
    """The same for a locator with a centroid, an exponent or a window: all of it, from counts on, for each io type.

    Further boards are refused: their flows take a network alone.
    """
    if spec.boards:
        raise UserError(BOARDS_REFUSED)
    locator, patches = locators.load(qat / "locator.json"), golden_patches(spec, table)
    spec = fitted(spec, locator.network)
    say(_chosen(spec))
    for name, io_type, options in _planned(spec):
        if not (directory / name).exists():
            write_circuit_project(
                qat / "model.onnx", locator, directory / name, patches=patches, io_type=io_type, **asdict(options)
            )
        say(f"  {name}: {len(load_project(directory / name).layers)} layers, every type and weight read back")


def _chosen(spec: HlsSpec) -> str:
    """Strategy and reuse factors in words: some are chosen here where the table leaves them open."""
    return f"  strategy {spec.strategy}, reuse factors {spec.reuse}"


def golden_patches(spec: HlsSpec, table: PeakTable) -> NDArray[np.generic]:
    """Patches (n, size, size) of the test peaks for golden vectors, spread over all of them."""
    patches = table.of(TEST).patches()
    return patches[np.unique(np.linspace(0, len(patches) - 1, min(spec.vectors, len(patches))).astype(int))]


def _entry(directory: Path, name: str, io_type: str, settings: Settings, first: Settings) -> dict[str, Any]:
    """What ``boards.json`` says of a project. One that only differs in its part must have the first one's sources."""
    found: dict[str, Any] = {"directory": name.removeprefix(f"{BOARDS}/"), **asdict(settings)}
    if settings.backend != first.backend:  # written for another tool
        return found
    differing = differences(directory / io_type, directory / name)
    only_part = replace(settings, target_name=first.target_name, clock_mhz=first.clock_mhz) == first
    if only_part and not set(differing) <= set(_NAMES_THE_PART):
        raise UserError(
            f"{name} and {io_type} differ in {', '.join(differing)}; expected in {', '.join(_NAMES_THE_PART)} only. "
            "Remove the run's hls folder and make it again"
        )
    same = not any(path.startswith("firmware/") for path in differing)
    return found | {"compared_with": io_type, "same_firmware": same, "differs_in": differing}


def differences(first: Path, second: Path) -> list[str]:
    """Paths of files that are not in both directories with the same bytes, sorted."""
    files = {path.relative_to(root) for root in (first, second) for path in root.rglob("*") if path.is_file()}

    def same(path: Path) -> bool:
        one, other = first / path, second / path
        return one.exists() and other.exists() and one.read_bytes() == other.read_bytes()

    return sorted(path.as_posix() for path in files if not same(path))

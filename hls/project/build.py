"""Stage "hls": one hardware project for each io type, and beside them the same network for further boards."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.peaks.table import TEST, PeakTable
from hls.project.accelerator import ACCELERATOR
from hls.project.circuit import write_circuit_project
from hls.project.layered import BACKENDS, check_options, check_project, load_project, write_project
from hls.project.targets import DEFAULT_TARGET, target
from quant.contract import circuit as circuits
from quant.contract import network

#: Where projects for further boards lie, and the list of them. The C simulation takes the projects beside it.
BOARDS = "boards"
LIST = "boards.json"

#: What names the part: it may differ between two projects of the same sources.
_NAMES_THE_PART = ("README.txt", "project.json", "project.tcl")


@dataclass(frozen=True)
class BoardSpec:
    """The network for a further board.

    target: as in [hls]; flow: "" for projects like the others, or hls4ml's board flow "VivadoAccelerator"; io_types:
    some of those of [hls], empty for all; clock_mhz, strategy, reuse, parallel: its own, 0 or "" for that of [hls].
    With no strategy, reuse and parallel of its own the sources are those of the first projects, byte for byte.
    """

    target: str
    flow: str = ""
    io_types: tuple[str, ...] = ()
    clock_mhz: float = 0.0
    strategy: str = ""
    reuse: int | tuple[int, ...] = 0
    parallel: int = 0

    def __post_init__(self) -> None:
        _as_tuple(self, "reuse")
        target(self.target)
        if self.parallel < 0:
            raise UserError(f"hls.boards: parallel {self.parallel} must be at least 1, or 0 for that of [hls]")
        if self.flow not in ("", ACCELERATOR):
            raise UserError(f"hls.boards: flow {self.flow!r} is not offered; expected {ACCELERATOR} or nothing")


@dataclass(frozen=True)
class HlsSpec:
    """The hardware project.

    io_types: of "io_parallel" and "io_stream"; backend: hls4ml's "Vitis" or "Vivado"; target: a board of
    hls.project.targets; clock_mhz: the clock to aim at; strategy: hls4ml's "Latency" (unrolled) or "Resource"; reuse:
    its reuse factor, one number for all layers or one for each: convolutions, hidden dense layers, last dense layer;
    vectors: test peaks whose counts become golden vectors of the test bench, beside the hostile ones; parallel: keys of
    a non-local block handled in a cycle; boards: further boards.
    """

    io_types: tuple[str, ...] = ("io_parallel", "io_stream")
    backend: str = "Vitis"
    target: str = DEFAULT_TARGET
    clock_mhz: float = 200.0
    strategy: str = "Latency"
    reuse: int | tuple[int, ...] = 1
    vectors: int = 200
    parallel: int = 8
    boards: tuple[BoardSpec, ...] = ()

    def __post_init__(self) -> None:
        _as_tuple(self, "reuse")
        if not self.io_types or len(set(self.io_types)) != len(self.io_types):
            raise UserError(f"hls: io_types {self.io_types} must name each io type once")
        if self.backend not in BACKENDS:
            flow = "; it is a flow of [[hls.boards]]" if self.backend == ACCELERATOR else ""
            raise UserError(f"hls: back end {self.backend!r} is not offered; expected {' or '.join(BACKENDS)}{flow}")
        for board in self.boards:
            if not set(board.io_types) <= set(self.io_types):
                raise UserError(
                    f"hls.boards: io_types {', '.join(board.io_types)} of {board.target}; expected some of those of "
                    f"[hls], {', '.join(self.io_types)}"
                )
        for io_type in self.io_types:
            for found in (_settings(self), *(_settings(self, board) for board in self.boards)):
                check_options(found.backend, io_type, found.clock_mhz, found.strategy, found.reuse)
        target(self.target)
        if self.vectors < 1:
            raise UserError(f"hls: vectors {self.vectors} must be at least 1")
        if self.parallel < 1:
            raise UserError(f"hls: parallel {self.parallel} must be at least 1")
        names = [(board.target, board.flow) for board in self.boards]
        if len(set(names)) != len(names) or (self.target, "") in names:
            raise UserError(
                f"hls.boards: {', '.join(name for name, _ in names)} beside target {self.target}: name each board and "
                "flow once"
            )


@dataclass(frozen=True)
class _Settings:
    """What a project is written with, all defaults filled in."""

    backend: str
    target_name: str
    clock_mhz: float
    strategy: str
    reuse: int | tuple[int, ...]
    parallel: int


def _settings(spec: HlsSpec, board: BoardSpec | None = None) -> _Settings:
    first = _Settings(spec.backend, spec.target, spec.clock_mhz, spec.strategy, spec.reuse, spec.parallel)
    if board is None:
        return first
    return replace(
        first,
        backend=board.flow or first.backend,
        target_name=board.target,
        clock_mhz=board.clock_mhz or first.clock_mhz,
        strategy=board.strategy or first.strategy,
        reuse=board.reuse or first.reuse,
        parallel=board.parallel or first.parallel,
    )


def _as_tuple(spec: Any, name: str) -> None:
    """A TOML array given to a dataclass directly arrives as a list."""
    value = getattr(spec, name)
    if isinstance(value, Sequence):
        if not value:
            raise UserError(f"hls: {name} is empty; give one number for all layers or one for each")
        object.__setattr__(spec, name, tuple(value))


def _planned(spec: HlsSpec) -> Iterator[tuple[str, str, _Settings]]:
    """Directory, io type and settings of every project, those that are simulated first."""
    for io_type in spec.io_types:
        yield io_type, io_type, _settings(spec)
    for board in spec.boards:
        for io_type in board.io_types or spec.io_types:
            name = f"{io_type}-{board.flow.lower()}" if board.flow else io_type
            yield f"{BOARDS}/{board.target}/{name}", io_type, _settings(spec, board)


def run(spec: HlsSpec, table: PeakTable, qat: Path, directory: Path, say: Callable[[str], None]) -> None:
    """The stage: write ``<io type>/`` for each io type; finished projects of an interrupted run are kept.

    qat: directory of the qat stage. Golden vectors are spread over the test peaks. Further boards are written to
    ``boards/<target>/<io type>[-<flow>]/``, with ``boards/boards.json`` saying in what they differ from ``<io type>/``.
    """
    integer, normalizer = network.load(qat / "integer.json"), network.load_normalizer(qat / "integer.json")
    patches = table.of(TEST).patches()
    chosen = np.unique(np.linspace(0, len(patches) - 1, min(spec.vectors, len(patches))).astype(int))
    planned = list(_planned(spec))
    for _, io_type, settings in planned:  # what cannot be is refused before a file is written
        check_project(integer, io_type=io_type, **asdict(settings))
    listed = []
    for name, io_type, settings in planned:
        project = directory / name
        if not project.exists():
            project.parent.mkdir(parents=True, exist_ok=True)
            write_project(
                qat / "model.onnx", integer, normalizer, project,
                counts=patches[chosen], io_type=io_type, **asdict(settings),
            )  # fmt: skip
        say(f"  {name}: {len(load_project(project).layers)} layers, every type and weight read back")
        if name != io_type:
            listed.append(_entry(directory, name, io_type, settings, _settings(spec)))
    if listed:
        write_json(directory / BOARDS / LIST, listed)


def run_circuit(spec: HlsSpec, table: PeakTable, source: Path, directory: Path, say: Callable[[str], None]) -> None:
    """The stage for a circuit: the HLS project of its network, normalizer and centroid around it, for each io type.

    source: directory of the circuit stage. Further boards are refused: their flows take a network alone.
    """
    if spec.boards:
        raise UserError("hls.boards: not offered for circuits; set target in [hls], and use another run for each board")
    circuit = circuits.load(source / "circuit.json")
    patches = table.of(TEST).patches()
    chosen = np.unique(np.linspace(0, len(patches) - 1, min(spec.vectors, len(patches))).astype(int))
    for name, io_type, settings in _planned(spec):
        if not (directory / name).exists():
            options = asdict(settings) | {"io_type": io_type}
            write_circuit_project(source / "model.onnx", circuit, directory / name, patches=patches[chosen], **options)
        say(f"  {name}: {len(load_project(directory / name).layers)} layers, every type and weight read back")


def _entry(directory: Path, name: str, io_type: str, settings: _Settings, first: _Settings) -> dict[str, Any]:
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

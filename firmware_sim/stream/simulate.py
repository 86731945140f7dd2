"""An io_stream project as a network of processes and bounded FIFOs, run with random back-pressure.

docs/explanation/back_pressure.md says what is modelled, and why a network that ends in one schedule ends in all.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.compiler import require_compiler
from braggnn_edge.core.errors import UserError
from firmware_sim.forms.compiled import built, digest_of
from firmware_sim.stream.result import STALLS, Channel, Deadlock, Outcome, Schedule, StreamResult, Wait
from firmware_sim.stream.source import REGIONS, dataflow, ports
from hls.project.layered import CXX_FLAGS, Project, load_project
from quant.contract.arithmetic import checked

#: Few patches are simulated: what compiles faster.
OPTIMIZATION = "-O1"

_HERE = Path(__file__).parent
_HEADERS = {
    "stream_hls.h": "firmware/ap_types/hls_stream.h",
    "stream_network.h": "firmware/ap_types/stream_network.h",
    "stream_run.h": "firmware/stream_run.h",
}


@dataclass(frozen=True)
class Program:
    """A project compiled as a network of processes."""

    path: Path
    project: Project


def simulate(
    project_dir: Path, codes: NDArray[np.integer], *, seeds: Iterable[int], stalls: Sequence[str] = STALLS,
    depths: Mapping[str, int] | None = None, in_flight: int = 0, build_dir: Path, workers: int = 1,
    optimization: str = OPTIMIZATION,
) -> StreamResult:  # fmt: skip
    """Compile a project and run input codes (n, size, size), patch after patch, for each seed and stall style."""
    chosen = [Schedule(seed, stall, "", in_flight, depths or {}) for seed in seeds for stall in stalls]
    return run(build(project_dir, build_dir, optimization=optimization), codes, chosen, workers=workers)


def build(project_dir: Path, build_dir: Path, compiler: str = "g++", optimization: str = OPTIMIZATION) -> Program:
    """Compile a copy of the sources, its dataflow functions transformed, into ``build_dir``, unless it was before.

    Raises UserError for an io_parallel project, which has no streams between its layers.
    """
    project = load_project(project_dir)
    if project.io_type != "io_stream":
        raise UserError(f"{project_dir}: a project of {project.io_type} has no streams; choose one of io_stream")
    require_compiler(compiler)
    flags = (optimization, *CXX_FLAGS)
    files = _sources(project_dir, project.name)

    def make(aside: Path) -> None:
        shutil.copytree(project_dir / "firmware", aside / "firmware")
        for target, text in files.items():
            (aside / target).write_text(text)
        command = [compiler, *flags, f"firmware/{project.name}.cpp", "-o", "stream"]
        found = subprocess.run(command, cwd=aside, capture_output=True, text=True, check=False, errors="replace")
        if found.returncode:
            lines = [line for line in found.stderr.splitlines() if "error" in line] or ["no message"]
            raise UserError(
                f"{project_dir}: {compiler} cannot compile the stream simulation; generate the project again:\n"
                + "\n".join(lines[:3])
            )

    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    firmware = sorted(path for path in (project_dir / "firmware").rglob("*") if path.is_file())
    key = digest_of(firmware, version, str(flags), str(files))
    return Program(built(build_dir, key, ("stream",), make) / "stream", project)


def run(
    program: Program, codes: NDArray[np.integer], schedules: Sequence[Schedule], *, workers: int = 1
) -> StreamResult:
    """Run input codes (n, size, size), patch after patch, once for each schedule, in ``workers`` processes."""
    size, to = program.project.size, program.project.input
    data = checked(codes, (size, size), to.low, to.high, "codes", "normalize detector counts first")
    if not len(data):
        raise UserError("there are no codes to simulate; give one patch or more")
    for schedule in schedules:
        if schedule.stall not in STALLS:
            raise UserError(f"stalls {schedule.stall!r} are unknown; expected one of {', '.join(STALLS)}")
        if min(schedule.depths.values(), default=1) < 1:
            raise UserError(f"depths {dict(schedule.depths)} are impossible; a FIFO holds 1 element at least")
    parts = [list(schedules[start::workers]) for start in range(min(workers, len(schedules)))]
    with tempfile.TemporaryDirectory() as name:
        source = Path(name, "codes")
        np.ascontiguousarray(data, np.int32).tofile(source)
        with ThreadPoolExecutor(max(1, len(parts))) as pool:
            found = list(pool.map(lambda part: _execute(program, source, len(data), part), parts))
    return StreamResult(tuple(found[at % len(parts)][at // len(parts)] for at in range(len(schedules))))


def starving(program: Program, codes: NDArray[np.integer], *, in_flight: int = 0) -> list[Schedule]:
    """One schedule for each process, which runs only when no other can: then the FIFOs it reads fill as far as they
    ever do.
    """
    channels = run(program, codes[:1], [Schedule(0)]).channels.values()
    names = sorted({channel.writer for channel in channels} | {channel.reader for channel in channels})
    return [Schedule(0, held=name, in_flight=in_flight) for name in names]


def least_depths(
    program: Program, codes: NDArray[np.integer], *, seeds: Sequence[int] = (0,), in_flight: int = 0, workers: int = 1
) -> dict[str, int]:
    """The least depth of each FIFO and array with which nothing deadlocks, all others being as declared.

    Found by bisection, since more depth never makes a deadlock. One seed is enough without pipelines; with
    ``in_flight`` each seed draws other stages, and the result is the largest that was needed. A network that
    deadlocks as declared has no such depths: UserError.
    """
    declared = {name: channel.declared for name, channel in run(program, codes[:1], [Schedule(0)]).channels.items()}

    def ends(depths: Mapping[str, int]) -> bool:
        chosen = [Schedule(seed, in_flight=in_flight, depths=depths) for seed in seeds]
        return run(program, codes, chosen, workers=workers).deadlock is None

    if not ends({}):
        raise UserError("the design deadlocks with the depths it declares; make them larger, then ask for the least")
    least = {}
    for name, high in declared.items():
        low, enough = 0, high
        while enough - low > 1:
            middle = (low + enough) // 2
            low, enough = (low, middle) if ends({name: middle}) else (middle, enough)
        least[name] = enough
    return least


def _sources(project_dir: Path, name: str) -> dict[str, str]:
    """Files that replace those of the project: the transformed dataflow functions and our headers."""
    top = (project_dir / "firmware" / f"{name}.cpp").read_text()
    source, sink = ports(top, name)
    macros = {"STREAM_TOP": name, "INPUT_T": source, "OUTPUT_T": sink}
    tail = "".join(f"#define {key} {value}\n" for key, value in macros.items()) + '#include "stream_run.h"\n'
    files = {f"firmware/{name}.cpp": f"{dataflow(top, name)}\n{tail}"}
    for function, header in REGIONS.items():
        path = project_dir / "firmware" / "nnet_utils" / header
        if path.exists():
            files[f"firmware/nnet_utils/{header}"] = dataflow(path.read_text(), function)
    return files | {target: (_HERE / header).read_text() for header, target in _HEADERS.items()}


def _execute(program: Program, source: Path, patches: int, schedules: Sequence[Schedule]) -> list[Outcome]:
    project = program.project
    outputs = int(np.prod(project.layers[-1].shape))
    numbers = (patches, project.size**2, project.input.frac, outputs, project.output.frac)
    lines = [
        " ".join([str(one.seed), one.stall, one.held or "-", str(one.in_flight)]
                 + [f"{name}={depth}" for name, depth in one.depths.items()])
        for one in schedules
    ]  # fmt: skip
    command = [str(program.path), str(source), *map(str, numbers)]
    found = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
    if found.returncode:
        raise UserError(f"{program.path}: {found.stderr.strip() or found.returncode}; generate the project again")
    documents = [json.loads(line) for line in found.stdout.splitlines()]
    return [_outcome(schedule, document, outputs) for schedule, document in zip(schedules, documents, strict=True)]


def _outcome(schedule: Schedule, document: dict[str, Any], outputs: int) -> Outcome:
    if "error" in document:
        raise UserError(f"stream simulation: {document['error']}")
    codes = np.array(document["outputs"], np.int64)
    waits = tuple(Wait(*entry) for entry in document["waits"])
    return Outcome(
        schedule,
        codes[: len(codes) // outputs * outputs].reshape(-1, outputs),
        tuple(Channel(*entry) for entry in document["channels"]),
        None if document["ended"] else Deadlock(schedule, waits),
    )

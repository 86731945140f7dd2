"""RTL simulation: the Verilog of a project, or a netlist of it, compiled by Verilator and run cycle by cycle."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from firmware_sim.forms import verilated
from firmware_sim.forms.compiled import built, digest_of
from hls.rtl.project import RtlProject, load_rtl
from hls.tools import programs as tools
from quant.contract.arithmetic import Codes, checked

_DRIVER = Path(__file__).with_name("rtlsim_driver.cpp")

_OPTIMIZATION = "-O1"
_NETLIST_OPTIMIZATION = "-O0"  # much to compile, few patches to run


@dataclass(frozen=True)
class Simulator:
    """A compiled design: ``path`` is the program, ``project`` says what its ports are."""

    path: Path
    project: RtlProject


@dataclass(frozen=True)
class RtlRun:
    """What a simulation saw.

    outputs: (n, 2 or 4) codes in the order in which they came. latency: clocks from the edge that took the first patch,
    sent alone, to the edge that took its result. interval: initiation interval, clocks a patch, over all patches after
    the first; with random gaps and stalls it includes them. waited, stalled: clocks in which a patch or a
    result had to wait.
    """

    outputs: Codes
    cycles: int
    latency: int
    interval: float
    waited: int
    stalled: int


def build(project_dir: Path, build_dir: Path, netlist: list[Path] | None = None) -> Simulator:
    """Compile the Verilog sources of an RTL project, or ``netlist`` files in their place, in ``build_dir/<key>/``.

    What was compiled before is not compiled again. Raises UserError where Verilator is missing or fails, with the log's
    path.
    """
    project = load_rtl(project_dir)
    if project.language != "verilog":
        raise UserError(f"{project_dir}: Verilator reads no {project.language}; write the project in Verilog")
    files = sorted(project_dir.glob("src/*.v")) if netlist is None else netlist
    optimize = _OPTIMIZATION if netlist is None else _NETLIST_OPTIMIZATION
    options = verilated.command(project.name, "fast", optimize, [f"TAG_BITS={project.tag_bits}"])
    tools.find(tools.VERILATOR)

    def compile_(aside: Path) -> None:
        verilated.compile_design(options, _DRIVER, files, aside, build_dir / "verilator.log")

    key = digest_of([_DRIVER, *files], " ".join(options))
    program = built(build_dir, key, (verilated.PROGRAM,), compile_) / verilated.PROGRAM
    return Simulator(program, project)


def run(simulator: Simulator, counts: NDArray[np.integer], *, seed: int, stalls: bool = True) -> RtlRun:
    """Feed counts (n, window, window), as ``IntegerLocator.counts`` gives them, to the design.

    stalls: gaps between the patches and back-pressure on the results, drawn from ``seed``; without them the patches
    come one a clock and no reset comes before them. The first patch always runs alone. Raises UserError where the
    design gets stuck, gives too many results, changes a result that was not taken yet, gives one the tag of another
    patch, or is ready during reset.
    """
    project = simulator.project
    data = _checked(project, counts)
    with tempfile.TemporaryDirectory() as name:
        source, result = Path(name, "counts"), Path(name, "outputs")
        data.astype(np.int32).tofile(source)
        sizes = [len(data), project.window**2, project.count_bits, seed, int(stalls)]
        command = [str(simulator.path), str(source), str(result), *map(str, sizes)]
        found = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
        if found.returncode:
            log = simulator.path.with_name("simulation.log")
            log.write_text(f"{' '.join(command)}\n{found.stdout}{found.stderr}")
            raise UserError(f"{simulator.path} ended with status {found.returncode}; all it said is in {log}")
        raw = np.fromfile(result, np.uint64)
    seen = json.loads(found.stdout)
    if len(raw) != len(data) or seen["unstable"]:
        raise UserError(
            f"{simulator.path}: {len(data)} patches, {seen['sent']} of them taken, {len(raw)} results after "
            f"{seen['cycles']} clocks, {seen['unstable']} results changed before they were taken; its stream interface "
            "is broken"
        )
    if seen["mistagged"] or seen["ready_in_reset"]:
        raise UserError(
            f"{simulator.path}: {seen['mistagged']} results with the tag of another patch, ready in "
            f"{seen['ready_in_reset']} clocks of reset; its stream interface is broken"
        )
    interval = seen["burst"] / max(1, len(data) - 2)
    return RtlRun(
        unpacked(raw, project.output.bits, project.outputs),
        seen["cycles"],
        seen["latency"],
        interval,
        seen["waited"],
        seen["stalled"],
    )


def unpacked(raw: NDArray[np.uint64], bits: int, outputs: int) -> Codes:
    """Words of signed codes, the first one lowest, to codes (n, outputs); UserError where they do not fit a word."""
    if bits * outputs > 64:
        raise UserError(f"{outputs} codes of {bits} bits are more than the 64 bits that a simulation reads")
    words = raw.astype(np.uint64)[:, None] >> (np.arange(outputs, dtype=np.uint64) * np.uint64(bits))
    codes = words.astype(np.int64) & ((1 << bits) - 1)
    return np.where(codes >> (bits - 1), codes - (1 << bits), codes)


def _checked(project: RtlProject, counts: NDArray[np.integer]) -> NDArray[np.integer]:
    high = 1 << (project.count_bits - project.count_signed)
    low, side = -high if project.count_signed else 0, (project.window, project.window)
    return checked(counts, side, low, high - 1, "counts", "saturate them first")

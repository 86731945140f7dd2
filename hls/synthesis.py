"""Synthesis with Yosys: what a circuit costs on UltraScale+ and ECP5, counted in cells of the device."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from braggnn_edge.errors import UserError
from hls import tools
from hls.cmvm import Effort
from hls.rtl_core import core_files
from hls.trace import LIMIT, PARTS, trace
from quant.circuit import Circuit

#: Cells counted as what, for the reports.
_LUTS = tuple(f"LUT{n}" for n in range(1, 7))
_FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE", "TRELLIS_FF")

#: Look-up tables that a distributed memory or shift register takes.
_MEMORY_LUTS = {
    "RAM32X1D": 2, "RAM64X1D": 2, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM128X1D": 4, "RAM256X1D": 8,
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM32X16DR8": 8, "RAM64X8SW": 8, "SRL16E": 1, "SRLC32E": 1, "TRELLIS_DPR16X4": 4,
}  # fmt: skip

_READ = "read_verilog -sv {sources}; hierarchy -check -top {top}; proc; opt_clean; "

#: Adders become carry chains module by module, before the hierarchy is flattened: merged over modules they would become
#: compressor trees (Yosys' $macc), two tables for each bit and operand instead of one.
_COARSE = (
    "alumacc; flatten; opt_clean; opt; wreduce; opt_clean; alumacc; opt; memory -nomap; opt_clean; "
    "memory_map -rom-only; {memory}memory_map; opt -full; "
)

#: Yosys' own synth_xilinx spends minutes of ABC9 on a circuit of some thousand tables, and needs more of them. Its
#: maps and cells are used here with the plain ABC, all tables at the same price, resubstituted (mfs2) for area.
_XILINX = (
    "read_verilog -lib -specify +/xilinx/cells_sim.v; " + _READ
    + _COARSE.format(
        memory="memory_libmap -lib +/xilinx/lutrams_xcu.txt; "
        "techmap -map +/xilinx/lutrams_xc5v_map.v; "
    )
    + "techmap -D LUT_SIZE=6 -map +/techmap.v -map +/xilinx/arith_map.v; opt -fast; opt_clean; "
    "dfflegalize -cell $_DFFE_?P?P_ 01 -cell $_SDFFE_?P?P_ 01; techmap -map +/xilinx/ff_map.v; opt_expr -mux_undef; "
    "abc -luts 1,1,1,1,1,1 -script +strash;if;mfs2,-a,-W,20,-F,200,-D,200;strash;if;mfs2,-a; clean; "
    "techmap -map +/xilinx/lut_map.v -map +/xilinx/cells_map.v -D LUT_WIDTH=6; "
    "xilinx_dffopt; opt_lut_ins -tech xilinx; clean; "
)  # fmt: skip


@dataclass(frozen=True)
class Mapped:
    """Cells of a mapped circuit.

    luts: look-up tables, one for each LUT1 to LUT6 and INV cell plus those of distributed memory; two small tables that
    a vendor's placer may put into one site are two here. carry: CARRY4 cells, which Yosys writes for UltraScale+ as
    well; a CARRY8 holds two. cells: all cells by type.
    """

    luts: int
    flip_flops: int
    carry: int
    dsps: int
    brams: int
    cells: dict[str, int]


def mapped_luts(
    circuit: Circuit, *, limit: int = LIMIT, effort: Effort | None = None, parts: tuple[str, ...] = PARTS
) -> dict[str, int]:
    """Look-up tables (``"luts"``) and other cells of the circuit's combinational core on UltraScale+.

    Without registers, input and output logic. ``effort`` and ``parts`` are those of :func:`hls.trace.trace`.
    """
    sources = core_files(trace(circuit, limit=limit, effort=effort, parts=parts), "core")
    with tempfile.TemporaryDirectory(prefix="braggnn-yosys-") as name:
        found = synthesize(sources, "core", Path(name))
    return {"luts": found.luts, "carry": found.carry, **found.cells}


def synthesize(
    sources: dict[str, str], top: str, directory: Path, *, script: str = _XILINX, netlist: str = ""
) -> Mapped:
    """Map Verilog sources (text by file name) with Yosys in ``directory``, which exists; ``yosys.log`` is its log.

    netlist: a file name to which the mapped netlist is written as Verilog.
    """
    for file, text in sources.items():
        (directory / file).write_text(text)
    commands = script.format(sources=" ".join(sorted(sources)), top=top)
    commands += f"write_verilog -noattr {netlist}; " if netlist else ""
    commands += "tee -q -o stat.json stat -json"
    tools.call(tools.YOSYS, ["-Q", "-T", "-q", "-p", commands], directory, directory / "yosys.log")
    return counted(directory / "stat.json")


def counted(path: Path) -> Mapped:
    """Read what Yosys' ``stat -json`` wrote of a flat design."""
    try:
        document = json.loads(path.read_text())
        cells = {key: int(value) for key, value in document["design"]["num_cells_by_type"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the statistics of Yosys ({error!r}); synthesize again") from error
    cells = {key: value for key, value in sorted(cells.items()) if not key.startswith("$")}
    memory = sum(cells.get(name, 0) * size for name, size in _MEMORY_LUTS.items())
    return Mapped(
        luts=sum(cells.get(name, 0) for name in (*_LUTS, "INV")) + memory,
        flip_flops=sum(cells.get(name, 0) for name in _FLIP_FLOPS),
        carry=cells.get("CARRY4", 0),
        dsps=sum(value for key, value in cells.items() if key.startswith(("DSP", "MULT18"))),
        brams=sum(value for key, value in cells.items() if key.startswith(("RAMB", "DP16KD", "URAM"))),
        cells=cells,
    )

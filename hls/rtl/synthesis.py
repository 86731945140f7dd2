"""Synthesis with Yosys: what a circuit costs on UltraScale+ and ECP5, counted in cells of the device."""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from braggnn_edge.core.errors import UserError
from hls.rtl import variants
from hls.rtl.cmvm import Effort
from hls.rtl.core import core_files
from hls.rtl.project import load_rtl
from hls.rtl.spec import LIMIT
from hls.rtl.trace import PARTS, trace
from hls.tools import programs as tools
from quant.contract.locator import IntegerLocator

#: Cells counted as what, for the reports.
_LUTS = (*(f"LUT{n}" for n in range(1, 7)), "LUT6_2")
_FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE", "TRELLIS_FF")

#: Look-up tables that a distributed memory or shift register takes.
_MEMORY_LUTS = {
    "RAM32X1D": 2, "RAM64X1D": 2, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM128X1D": 4, "RAM256X1D": 8,
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM32X16DR8": 8, "RAM64X8SW": 8, "SRL16E": 1, "SRLC32E": 1, "TRELLIS_DPR16X4": 6,
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
        memory="memory_libmap -lib +/xilinx/lutrams_xcu.txt {blocks[0]}; "
        "techmap -map +/xilinx/lutrams_xc5v_map.v; {blocks[1]}"
    )
    + "techmap -D LUT_SIZE=6 -map +/techmap.v -map +/xilinx/arith_map.v; opt -fast; opt_clean; "
    "dfflegalize -cell $_DFFE_?P?P_ 01 -cell $_SDFFE_?P?P_ 01; techmap -map +/xilinx/ff_map.v; opt_expr -mux_undef; "
    "abc -luts 1,1,1,1,1,1 -script +strash;if;mfs2,-a,-W,20,-F,200,-D,200;strash;if;mfs2,-a; clean; "
    # ABC gives every register an inverter of its own where a reset is inverted; one is enough.
    "opt_merge t:$lut; clean; "
    "techmap -map +/xilinx/lut_map.v -map +/xilinx/cells_map.v -D LUT_WIDTH=6; "
    "xilinx_dffopt; opt_lut_ins -tech xilinx; clean; "
)  # fmt: skip


#: The same for ECP5, with Yosys' own passes for memories, registers and cells. Functions of five and six inputs are
#: tables joined by the slice's own multiplexers: fewer of them, and 6 % more clock than with four inputs only.
_ECP5 = (
    "read_verilog -lib -specify +/lattice/cells_sim_ecp5.v +/lattice/cells_bb_ecp5.v; " + _READ
    + _COARSE.format(memory="synth_lattice -family ecp5 -top {top} -nodsp {blocks[0]} -run map_ram:map_gates; ")
    + "synth_lattice -family ecp5 -top {top} -nodsp -nobram -run map_gates:map_luts; abc -lut 4:6; clean; "
    "synth_lattice -family ecp5 -top {top} -nodsp -nobram -run map_cells:edif; "
)  # fmt: skip

#: Scripts by device family.
FAMILIES = {"ultrascale+": _XILINX, "ecp5": _ECP5}

#: What the scripts have for block memories, where there may be none and where there may.
_BLOCKS = {
    "ultrascale+": (
        ("", ""),
        (
            "-lib +/xilinx/brams_xc4v.txt -D HAS_SIZE_36 -D HAS_MIXWIDTH_SDP -D HAS_ADDRCE",
            "techmap -map +/xilinx/brams_xcu_map.v; ",
        ),
    ),
    "ecp5": (("-nobram",), ("",)),
}

#: Files of Yosys that hold the cells' simulation models.
_MODELS = {"ultrascale+": "xilinx/cells_sim.v", "ecp5": "lattice/cells_sim_ecp5.v"}


@dataclass(frozen=True)
class Mapped:
    """Cells of a mapped circuit.

    luts: look-up tables, one for each LUT1 to LUT6 and INV cell plus those of distributed memory; two small tables that
    a vendor's placer may put into one site are two here. On ECP5 the two tables of a carry cell are counted with it, as
    nextpnr does; on UltraScale+ they are cells of their own. carry: CARRY4 cells, which Yosys writes for UltraScale+ as
    well (a CARRY8 holds two), or CCU2C. cells: all cells by type.
    """

    luts: int
    flip_flops: int
    carry: int
    dsps: int
    brams: int
    cells: dict[str, int]


def mapped_luts(
    circuit: IntegerLocator, *, limit: int = LIMIT, effort: Effort | None = None, parts: tuple[str, ...] = PARTS
) -> dict[str, int]:
    """Look-up tables (``"luts"``) and other cells of the circuit's combinational core on UltraScale+.

    Without registers, input and output logic. ``effort`` and ``parts`` are those of :func:`hls.rtl.trace.trace`.
    """
    sources = core_files(trace(circuit, limit=limit, effort=effort, parts=parts), "core")
    with tempfile.TemporaryDirectory(prefix="braggnn-yosys-") as name:
        found = synthesize(sources, "core", Path(name))
    return {"luts": found.luts, "carry": found.carry, **found.cells}


def synthesize(
    sources: dict[str, str], top: str, directory: Path, *, family: str = "ultrascale+", blocks: bool = False
) -> Mapped:
    """Map Verilog sources (text by file name) with Yosys in ``directory``, which exists; ``yosys.log`` is its log.

    blocks: whether memories may become block memories, where they are large enough. The mapped netlist is written
    there as ``netlist.v`` and ``netlist.json``.
    """
    if family not in FAMILIES:
        raise UserError(f"device family {family!r} is unknown; expected one of {', '.join(FAMILIES)}")
    for file, text in sources.items():
        module = Path(file).stem
        (directory / file).write_text(text if variants.kind(module) is None else variants.source(module, family))
    commands = FAMILIES[family].format(sources=" ".join(sorted(sources)), top=top, blocks=_BLOCKS[family][blocks])
    commands += "tee -q -o stat.json stat -json; blackbox =A:whitebox; "
    commands += "write_verilog -noattr netlist.v; write_json netlist.json"
    tools.call(tools.YOSYS, ["-Q", "-T", "-q", "-p", commands], directory, directory / "yosys.log")
    return counted(directory / "stat.json")


def synthesize_project(project: Path, directory: Path, family: str = "ultrascale+") -> tuple[Mapped, list[Path]]:
    """Map the whole design of a Verilog RTL project (:func:`hls.rtl.project.write_rtl`) in ``directory``, made if need
    be.

    Returns the cells and the files to simulate what was mapped: the netlist, and Yosys' models of the cells in it.
    """
    described = load_rtl(project)
    if described.language != "verilog":
        raise UserError(f"{project}: Yosys reads no {described.language} here; write the project in Verilog")
    directory.mkdir(parents=True, exist_ok=True)
    sources = {path.name: path.read_text() for path in sorted((project / "src").glob("*.v"))}
    found = synthesize(sources, described.name, directory, family=family)
    models = directory / "cells.v"
    models.write_text(cell_models(found, family))
    return found, [directory / "netlist.v", models]


def cell_models(mapped: Mapped, family: str) -> str:
    """The simulation models of the cells used, and of the cells within these, out of Yosys' own libraries."""
    library = _with_includes(tools.yosys_share() / _MODELS[family])
    modules = {name: text for text, name in re.findall(r"\b(module\s+(\w+).*?\bendmodule)\b", library, re.S)}
    needed, found = list(mapped.cells), dict[str, str]()
    while needed:
        name = needed.pop()
        if name in modules and name not in found:
            found[name] = modules[name]
            needed += [other for other in set(re.findall(r"\w+", modules[name])) if other in modules]
    missing = sorted(set(mapped.cells) - set(found))
    if missing:
        raise UserError(f"Yosys has no simulation model of {', '.join(missing)}; the netlist cannot be simulated")
    functions = re.findall(r"^function.*?^endfunction", library, re.M | re.S)
    return "`timescale 1 ps / 1 ps\n" + "\n".join([*functions, *(found[name] for name in sorted(found))]) + "\n"


def _with_includes(path: Path) -> str:
    """The text of a library with its includes, which lie beside it, in their places."""
    return re.sub(
        r'`include "([^"]+)"',
        lambda match: _with_includes(path.with_name(match[1])) if path.with_name(match[1]).exists() else "",
        re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.S),
    )


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
        luts=sum(cells.get(name, 0) for name in (*_LUTS, "INV")) + 2 * cells.get("CCU2C", 0) + memory,
        flip_flops=sum(cells.get(name, 0) for name in _FLIP_FLOPS),
        carry=cells.get("CARRY4", 0) + cells.get("CCU2C", 0),
        dsps=sum(value for key, value in cells.items() if key.startswith(("DSP", "MULT18"))),
        brams=sum(value for key, value in cells.items() if key.startswith(("RAMB", "DP16KD", "URAM"))),
        cells=cells,
    )

"""Constraints and scripts of a front end's project for the tools that synthesize it."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hls.project.targets import Target
from hls.project.test_bench import render

#: Files of every vector, by what an entry of them is.
KINDS = ("registers", "beats", "records")
#: Those that some have: maps, and the streams to an external locator and from it.
OTHERS = ("maps", "patches", "positions")


class Port(NamedTuple):
    """A port of a module: its name, "in" or "out", and its bits."""

    name: str
    direction: str
    bits: int


def ports(text: str) -> list[Port]:
    """The ports of a module's Verilog, in order, from its head: a declaration a line."""
    head = text[text.index("\nmodule ") : text.index(");")]
    found = re.findall(r"^ +(input|output) (?:reg )?(?:\[(\d+(?:-1)?):0\] )?(\w+),?$", head, re.M)
    return [Port(name, direction.removesuffix("put"), _bits(high)) for direction, high, name in found]


def _bits(high: str) -> int:
    """Bits of a range whose upper end is ``high``: a number, a number less one as text, or nothing for one bit."""
    if not high:
        return 1
    return int(high.removesuffix("-1")) + (0 if high.endswith("-1") else 1)


def test_bench(top: str, template: str, module: Sequence[Port], clock_mhz: float, files: Mapping[str, str]) -> str:
    """The test bench in Verilog. template: with its placeholders; module: ports of the top; files: the vectors."""
    lengths = {name: len(text.splitlines()) for name, text in files.items()}
    names = sorted(name.removesuffix(".records.hex") for name in files if name.endswith(".records.hex"))
    plays = []
    for name in names:
        counts = {kind: lengths.get(f"{name}.{kind}.hex", 0) for kind in (*KINDS, *OTHERS)}
        for kind, count in counts.items():
            if count:
                plays.append(f'            $readmemh("../vectors/{name}.{kind}.hex", {kind}, 0, {count - 1});')
        plays.append(f"            map_count = {counts['maps']};")
        played = ", ".join(str(counts[kind]) for kind in KINDS)
        plays.append(f"            play({played}, {counts['beats'] // 4 if name == names[-1] else 0});")
    bits = {port.name: port.bits for port in module}
    own = ("s_map_", "m_patch_", "s_position_")
    connected = [f", .{port.name}({port.name})" for port in module if port.name.startswith(own)]
    values = {
        "NAME": top, "DATA": bits["s_axis_tdata"], "MORE": "".join(connected), "HALF": f"{500 / clock_mhz:.3f}",
        "PLAYS": "\n".join(plays), "MAP": bits.get("s_map_tdata", 1), "COUNT": bits.get("m_patch_tdata", 1),
        "POSITION": bits.get("s_position_tdata", 1), "PIXELS": _pixels(files, bits.get("m_patch_tdata", 1)),
        **{
            f"MOST_{kind.upper()}": max([1, *(count for name, count in lengths.items() if f".{kind}." in name)])
            for kind in (*KINDS, *OTHERS)
        },
    }  # fmt: skip
    for key, value in values.items():
        template = template.replace(f"@{key}@", str(value))
    return template


def _pixels(files: Mapping[str, str], bits: int) -> int:
    """Pixels of a patch, from the first line that there is of one; 1 where there is none."""
    lines = [line for name, text in files.items() if ".patches." in name for line in text.splitlines()[:1]]
    return len(lines[0]) * 4 // bits if lines else 1


def scripts(top: str, text: str, target: Target, clock_mhz: float) -> dict[str, str]:
    """Constraints and scripts by file name; text: the top module's Verilog."""
    values = {
        "NAME": top, "PERIOD": f"{1000 / clock_mhz:.3f}", "MHZ": f"{clock_mhz:g}", "PART": target.part,
        "READ": "read_verilog [lsort [glob $here/src/*.v]]", "FILE_TYPE": "VERILOG_FILE", "SUFFIX": ".v", "VERSION": "",
        "NO_MEMORY": "", "PORTS": " ".join(port.name for port in ports(text) if port.name != "clk"),
    }  # fmt: skip
    files = {f"constraints/{top}.{kind}": render(f"rtl_constraints.{kind}", values) for kind in ("xdc", "sdc", "lpf")}
    return files | {kind: render(f"rtl_{kind}", values) for kind in ("vivado.tcl", "quartus.tcl")}

"""Constraints and scripts of a front end's project for the tools that synthesize it."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hls.project.targets import Target
from hls.project.test_bench import render

#: Files of a vector, by what an entry of them is.
KINDS = ("registers", "beats", "records")


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
    """The test bench in Verilog. template: with its placeholders; module: ports of the top; files: the vectors.

    A stream of maps is connected, and sends none.
    """
    lengths = {name: len(text.splitlines()) for name, text in files.items()}
    names = sorted({name.split(".")[0] for name in files})
    plays = []
    for name in names:
        counts = [lengths[f"{name}.{kind}.hex"] for kind in KINDS]
        for kind, count in zip(KINDS, counts, strict=True):
            plays.append(f'            $readmemh("../vectors/{name}.{kind}.hex", {kind}, 0, {count - 1});')
        plays.append(f"            play({', '.join(map(str, counts))}, {counts[1] // 4 if name == names[-1] else 0});")
    values = {
        "NAME": top, "DATA": next(port.bits for port in module if port.name == "s_axis_tdata"),
        "MAPS": _unused_maps(module), "HALF": f"{500 / clock_mhz:.3f}", "PLAYS": "\n".join(plays),
        **{
            f"MOST_{kind.upper()}": max(count for name, count in lengths.items() if f".{kind}." in name)
            for kind in KINDS
        },
    }  # fmt: skip
    for key, value in values.items():
        template = template.replace(f"@{key}@", str(value))
    return template


def _unused_maps(module: Sequence[Port]) -> str:
    """Connections of the ports of the maps: nothing comes."""
    there = [port for port in module if port.name.startswith("s_map_")]
    values = ["" if port.direction == "out" else f"{port.bits}'d0" for port in there]
    return "".join(f", .{port.name}({value})" for port, value in zip(there, values, strict=True))


def scripts(top: str, text: str, target: Target, clock_mhz: float) -> dict[str, str]:
    """Constraints and scripts by file name; text: the top module's Verilog."""
    values = {
        "NAME": top, "PERIOD": f"{1000 / clock_mhz:.3f}", "MHZ": f"{clock_mhz:g}", "PART": target.part,
        "READ": "read_verilog [lsort [glob $here/src/*.v]]", "FILE_TYPE": "VERILOG_FILE", "SUFFIX": ".v", "VERSION": "",
        "NO_MEMORY": "", "PORTS": " ".join(port.name for port in ports(text) if port.name != "clk"),
    }  # fmt: skip
    files = {f"constraints/{top}.{kind}": render(f"rtl_constraints.{kind}", values) for kind in ("xdc", "sdc", "lpf")}
    return files | {kind: render(f"rtl_{kind}", values) for kind in ("vivado.tcl", "quartus.tcl")}

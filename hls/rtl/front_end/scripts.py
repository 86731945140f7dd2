"""Constraints and scripts of a front end's project for the tools that synthesize it."""

import re
from typing import NamedTuple

from hls.project.targets import Target
from hls.project.test_bench import render


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


def scripts(top: str, text: str, target: Target, clock_mhz: float) -> dict[str, str]:
    """Constraints and scripts by file name; text: the top module's Verilog."""
    values = {
        "NAME": top, "PERIOD": f"{1000 / clock_mhz:.3f}", "MHZ": f"{clock_mhz:g}", "PART": target.part,
        "READ": "read_verilog [lsort [glob $here/src/*.v]]", "FILE_TYPE": "VERILOG_FILE", "SUFFIX": ".v", "VERSION": "",
        "NO_MEMORY": "", "PORTS": " ".join(port.name for port in ports(text) if port.name != "clk"),
    }  # fmt: skip
    files = {f"constraints/{top}.{kind}": render(f"rtl_constraints.{kind}", values) for kind in ("xdc", "sdc", "lpf")}
    return files | {kind: render(f"rtl_{kind}", values) for kind in ("vivado.tcl", "quartus.tcl")}

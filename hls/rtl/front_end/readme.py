"""The README.txt of a front end's project: how to lint and simulate it, its ports, and the layout of its records."""

from collections.abc import Sequence

from hls.rtl.front_end.geometry import Geometry
from quant.front_end.records import END_FIELDS, END_FLAGS, PEAK_FIELDS, PEAK_FLAGS, Field

_TEXT = """\
Front end: pixels in, records of Bragg peaks out
================================================

src/           Verilog-2005, top module {top}; the locator's core is among them
registers.h    registers, their fields, flags and records, for C; registers.md: the registers' meaning
lint.vlt       what Verilator may say, with reasons
project.json   sizes; locator.json: the locator in integers

Not here: constraints, scripts for a vendor's tool, a test bench, vectors.

Lint, in this folder:

    verilator --lint-only -Wall --top-module {top} lint.vlt src/*.v

Simulate: firmware_sim.front_end in BraggNN Edge compiles src/ with Verilator and drives it from Python. `build` and
`run` of firmware_sim/front_end/simulate.py take a script of frames and registers;
tests/test_firmware_sim_front_end.py compares each record with quant.front_end.

Ports. One clock, clk, rising edge; rst is synchronous, 1 resets.

    s_axis_*   AXI4-Stream in: tdata {data} bits, {pixels} pixels of {bits} bits, the first in the lowest bits;
               tuser with the first beat of a frame, tlast with the last beat of each row
    m_axis_*   AXI4-Stream out: tdata 256 bits, a record a beat, its first byte in the lowest bits;
               tlast with the end record of a frame
    s_axi_*    AXI4-Lite, address 8 bits, data 32 bits, without prot
There are no tkeep, tstrb, tid, tdest. docs/reference/front_end.md has faults, registers and a safe order to start in.

Records: 32 bytes, little-endian. Positions and ln sigma have {frac} fraction bits.

The record of a peak (kind 0):
{peak}
The record at a frame's end (kind 1):
{end}"""


def readme(top: str, geometry: Geometry, frac: int) -> str:
    """The text; frac: fraction bits of the locator's codes."""
    return _TEXT.format(
        top=top, data=geometry.data_bits, pixels=geometry.pixels, bits=geometry.bits, frac=frac,
        peak=_layout(PEAK_FIELDS, [(int(flag), flag.name, text) for flag, text in PEAK_FLAGS.items()]),
        end=_layout(END_FIELDS, [(int(flag), flag.name, text) for flag, text in END_FLAGS.items()]),
    )  # fmt: skip


def _layout(fields: Sequence[Field], flags: Sequence[tuple[int, str | None, str]]) -> str:
    """A line a field, offset and size in bytes, and a line a flag."""
    lines, offset = [], 0
    for field in fields:
        unit = f" ({field.unit})" if field.unit else ""
        lines.append(f"    {offset:2d} {field.kind:3s} {field.name:18s} {field.meaning}{unit}")
        offset += int(field.kind[1:])
    lines += [f"       flag {bit:2d} {name}: {text}" for bit, name, text in flags]
    return "\n".join([*lines, ""])

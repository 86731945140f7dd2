"""The register map of the front end, declared once: its Verilog, its table in the docs and its C header come from here.

Registers are 32 bits. A write of another width, of a value that a register does not take, or to one that is read only,
changes nothing and is answered with SLVERR; so is an address without a register. What a write sets is taken by the next
frame that starts. Registers of what a front end is built without are not there.
"""

from collections.abc import Collection
from dataclasses import dataclass

#: Ports of the module by direction are made from these.
READ, WRITE = "read", "write"


@dataclass(frozen=True)
class Register:
    """offset: bytes; access: "read", "read/write" or "write"; bits: of the value, the lowest ones; text: its meaning.

    Of what is written, reset: the value before; allowed: a Verilog expression of ``value``, what may be written;
    signed: whether the value is read with its sign in all upper bits; needs: inputs of one bit that ``allowed`` names.
    option: of :data:`OPTIONS` or :data:`MAPS`, without which there is no such register; empty: it is always there.
    fields: name, lowest bit and number of bits of what a value is made of.
    """

    name: str
    offset: int
    access: str
    bits: int
    text: str
    reset: str = "0"
    allowed: str = "1'b1"
    signed: bool = False
    needs: tuple[str, ...] = ()
    option: str = ""
    fields: tuple[tuple[str, int, int], ...] = ()


#: "BFE1" in ASCII: a front end, first register map.
IDENTITY = 0x42464531

#: Version of map and records.
VERSION = 1

#: What a front end may be built with, by the name of its size (:class:`hls.rtl.front_end.geometry.Geometry`), and the
#: bit that says so.
OPTIONS = {"significance": 1, "bad_words": 2, "dark": 4, "thresholds": 8, "external": 16}
#: The option that there is with any of the last two.
MAPS = "maps"

#: Nothing is loaded while frames are taken, or one is in hand.
_AT_REST = "~enable && ~status[0]"

#: Bytes of the address space.
SPACE = 256

REGISTERS = (
    Register("identity", 0x00, "read", 32, "0x42464531, which is BFE1 in ASCII"),
    Register("version", 0x04, "read", 32, "1: version of this map and of the records"),
    Register(
        "shape", 0x08, "read", 32, "pixels a clock; bits of a count << 8; window << 16; smallest area << 24",
        fields=(("pixels", 0, 8), ("bits", 8, 8), ("window", 16, 8), ("area", 24, 8)),
    ),
    Register(
        "largest", 0x0C, "read", 32, "largest number of columns; of rows << 16",
        fields=(("cols", 0, 16), ("rows", 16, 16)),
    ),
    Register(
        "output", 0x10, "read", 32, "fraction bits of a position; codes of the locator << 8: 2 or 4",
        fields=(("frac", 0, 8), ("codes", 8, 8)),
    ),
    Register(
        "options", 0x14, "read", 32,
        "1 significance; 2 bad pixels; 4 dark counts; 8 thresholds; 16 external locator; `bad_words` << 16",
        fields=(
            ("significance", 0, 1), ("bad_pixels", 1, 1), ("dark", 2, 1), ("thresholds", 3, 1), ("external", 4, 1),
            ("bad_words", 16, 16),
        ),
    ),
    *(
        Register(f"digest_{k}", 0x20 + 4 * k, "read", 32, f"locator's digest, digits {8 * k} to {8 * k + 7}")
        for k in range(8)
    ),
    Register(
        "enable", 0x40, "read/write", 1, "1: frames are taken; from 0 to 1: counts begin at 0, after a frame in hand",
        allowed="value <= 1",
    ),
    Register("test", 0x44, "write", 1, "1: the stored frame runs before the next frame", allowed="value == 1"),
    Register(
        "status", 0x48, "read", 4, "1 a frame is in hand; 2 the test waits or runs; 4 it is done; 8 it passed",
        fields=(("busy", 0, 1), ("test", 1, 1), ("test_done", 2, 1), ("test_passed", 3, 1)),
    ),
    Register(
        "abort", 0x4C, "write", 1, "1: the frame in hand ends as if the next began; without one, the beat inside goes",
        allowed="value == 1",
    ),
    Register("rows", 0x50, "read/write", 16, "rows of a frame", "@MAX_ROWS@", "value >= 1 && value <= @MAX_ROWS@"),
    Register(
        "cols", 0x54, "read/write", 16, "columns of a frame, a multiple of the pixels a clock", "@MAX_COLS@",
        "value >= 1 && value <= @MAX_COLS@ && value % @N@ == 0 && (bad_empty || value == cols)",
        needs=("bad_empty",),
    ),
    Register("threshold", 0x58, "read/write", 16, "a pixel counts above this one", "0", "value < 1 << @B@"),
    Register("saturation", 0x5C, "read/write", 16, "first saturated count; 0: the largest", "0", "value < 1 << @B@"),
    Register("gain_shift", 0x60, "read/write", 4, "bits that every count is shifted down", "0", "value < 16"),
    Register(
        "sigma_limit", 0x64, "read/write", 16, "code of ln sigma above which no position is trusted, -32768 to 32767",
        "32767", "(~|value[31:15]) | (&value[31:15])", signed=True,
    ),
    Register("frames", 0x70, "read", 32, "frames since enable"),
    Register("peaks", 0x74, "read", 32, "records of peaks since enable"),
    Register("dropped", 0x78, "read", 32, "peaks without a place since enable"),
    Register(
        "significance", 0x80, "read/write", 1, "1: only maxima that pass the test are peaks", allowed="value <= 1",
        option="significance",
    ),
    Register(
        "significance_slope", 0x84, "read/write", 16, "slope of the test", allowed="value < 65536",
        option="significance",
    ),
    Register("significance_offset", 0x88, "read/write", 32, "offset of the test", option="significance"),
    Register(
        "maps", 0x8C, "read/write", 1, "1: dark counts, thresholds come from `s_map`; 0: 0 and `threshold`",
        allowed="value <= 1", option=MAPS,
    ),
    Register(
        "bad_clear", 0x90, "write", 1, "1: no pixel is bad", allowed=f"value == 1 && {_AT_REST}", option="bad_words",
    ),
    Register("bad_row", 0x94, "read/write", 16, "row of the next entry", allowed="value < 65536", option="bad_words"),
    Register(
        "bad_span", 0x98, "read/write", 32, "first word of the next entry in the row; last << 16", option="bad_words",
        fields=(("first", 0, 16), ("last", 16, 16)),
    ),
    Register(
        "bad_pixels", 0x9C, "write", 32, "bad pixels in each of these words, the first lowest: adds the entry",
        allowed=f"value >> @N@ == 0 && bad_fits && {_AT_REST}", needs=("bad_fits",), option="bad_words",
    ),
    Register(
        "bad_columns", 0xA0, "write", 32, "pixels of the next word that are bad in every row",
        allowed=f"value >> @N@ == 0 && bad_columns_fit && {_AT_REST}", needs=("bad_columns_fit",), option="bad_words",
    ),
    Register(
        "bad_loaded", 0xA4, "read", 32, "entries that were added; words of columns << 16", option="bad_words",
        fields=(("entries", 0, 16), ("columns", 16, 16)),
    ),
)  # fmt: skip


def table(options: Collection[str] | None = None) -> str:
    """The map in Markdown: of a front end with these of :data:`OPTIONS`, or None: of all registers there may be."""
    there = REGISTERS if options is None else built(options)
    rows = [
        f"| 0x{one.offset:02X} | `{one.name}` | {one.access} | {one.bits} | {_condition(one, options)}{one.text} |"
        for one in there
    ]
    return "\n".join(["| offset | register | access | bits | meaning |", "|---|---|---|---|---|", *rows]) + "\n"


def _condition(one: Register, options: Collection[str] | None) -> str:
    names = "`dark` or `thresholds`" if one.option == MAPS else f"`{one.option}`"
    return f"with {names}: " if one.option and options is None else ""


def built(options: Collection[str]) -> list[Register]:
    """The registers of a front end with these of :data:`OPTIONS`."""
    there = {*options, MAPS} if {"dark", "thresholds"} & set(options) else set(options)
    return [one for one in REGISTERS if not one.option or one.option in there]


def verilog(constants: dict[str, str], options: Collection[str]) -> dict[str, str]:
    """Pieces of the module of registers, and of what is around it, by placeholder.

    constants: Verilog values of read-only ones by name; options: of :data:`OPTIONS`, with which it is built.
    """
    there = built(options)
    held = [one for one in there if one.access == "read/write"]
    pulses = [one for one in there if one.access == "write"]
    given = [one for one in there if one.access == "read" and one.name not in constants]
    optional = [one for one in REGISTERS if one.option]

    outputs = [f"    output reg {_width(one)}{one.name}," for one in held]
    outputs += [f"    output reg {one.name}," for one in pulses]
    inputs = [f"    input {_width(one)}{one.name}," for one in given]
    inputs += [f"    input {name}," for one in there for name in one.needs]
    decode = []
    for one in [*held, *pulses]:
        action = f"{one.name} <= value[{one.bits - 1}:0]" if one in held else f"{one.name} <= 1'b1"
        decode += [f"8'h{one.offset:02X}: if ({one.allowed}) begin {action}; fault <= 1'b0; end"]
    reads = [
        f"8'h{one.offset:02X}: begin rdata <= {constants.get(one.name) or _value(one)}; rresp <= 2'b00; end"
        for one in there if "read" in one.access
    ]  # fmt: skip
    ports = [name for one in there for name in ((one.name, *one.needs) if one in optional else one.needs)]
    return {
        "OUTPUTS": "\n".join(outputs),
        "INPUTS": "\n".join(inputs),
        "RESET": "\n".join(f"            {one.name} <= {one.reset};" for one in [*held, *pulses]),
        "INITIAL": "\n".join(f"        {one.name} = {one.reset};" for one in [*held, *pulses]),
        "PULSES": "\n".join(f"        {one.name} <= 1'b0;" for one in pulses),
        "WRITES": "\n".join(f"                    {line}" for line in decode),
        "READS": "\n".join(f"                {line}" for line in reads),
        # In the top module: what there is not holds what it would after a reset.
        "OPTION_WIRES": "\n".join(
            f"    wire {_wire(one)}{one.name}{_tied(one) if one not in there and one.access != 'read' else ''};"
            for one in optional
        ),
        "OPTION_PORTS": "\n".join(f"        .{name}({name})," for name in ports),
    }


def _width(one: Register) -> str:
    return f"[{one.bits - 1}:0] " if one.bits > 1 else ""


def _wire(one: Register) -> str:
    return "" if one.access == "write" else _width(one)


def _tied(one: Register) -> str:
    return " = 1'b0" if one.access == "write" else f" = {one.reset}"


def _value(one: Register) -> str:
    """What is read of a register: its bits, and above them its sign or zeros."""
    above = 32 - one.bits
    fill = f"{{{above}{{{one.name}[{one.bits - 1}]}}}}" if one.signed else f"{above}'d0"
    return f"{{{fill}, {one.name}}}" if above else one.name

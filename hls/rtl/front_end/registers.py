"""The register map of the front end, declared once: its Verilog, its table in the docs and its C header come from here.

Registers are 32 bits. A write of another width, of a value that a register does not take, or to one that is read only,
changes nothing and is answered with SLVERR; so is an address without a register. What a write sets is taken by the next
frame that starts.
"""

from dataclasses import dataclass

#: Ports of the module by direction are made from these.
READ, WRITE = "read", "write"


@dataclass(frozen=True)
class Register:
    """offset: bytes; access: "read", "read/write" or "write"; bits: of the value, the lowest ones; text: its meaning.

    Of what is written, reset: the value before; allowed: a Verilog expression of ``value``, what may be written;
    signed: whether the value is read with its sign in all upper bits.
    """

    name: str
    offset: int
    access: str
    bits: int
    text: str
    reset: str = "0"
    allowed: str = "1'b1"
    signed: bool = False


#: "BFE1" in ASCII: a front end, first register map.
IDENTITY = 0x42464531

#: Version of map and records.
VERSION = 1

#: Bytes of the address space.
SPACE = 256

REGISTERS = (
    Register("identity", 0x00, "read", 32, "0x42464531, which is BFE1 in ASCII"),
    Register("version", 0x04, "read", 32, "1: version of this map and of the records"),
    Register("shape", 0x08, "read", 32, "pixels a clock; bits of a count << 8; window << 16; smallest area << 24"),
    Register("largest", 0x0C, "read", 32, "largest number of columns; of rows << 16"),
    Register("output", 0x10, "read", 32, "fraction bits of a position; codes of the locator << 8: 2 or 4"),
    *(
        Register(f"digest_{k}", 0x20 + 4 * k, "read", 32, f"locator's digest, digits {8 * k} to {8 * k + 7}")
        for k in range(8)
    ),
    Register(
        "enable", 0x40, "read/write", 1, "1: frames are taken; from 0 to 1: counts begin at 0, after a frame in hand",
        allowed="value <= 1",
    ),
    Register("test", 0x44, "write", 1, "1: the stored frame runs before the next frame", allowed="value == 1"),
    Register("status", 0x48, "read", 4, "1 a frame is in hand; 2 the test waits or runs; 4 it is done; 8 it passed"),
    Register("rows", 0x50, "read/write", 16, "rows of a frame", "@MAX_ROWS@", "value >= 1 && value <= @MAX_ROWS@"),
    Register(
        "cols", 0x54, "read/write", 16, "columns of a frame, a multiple of the pixels a clock", "@MAX_COLS@",
        "value >= 1 && value <= @MAX_COLS@ && value % @N@ == 0",
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
)  # fmt: skip


def table() -> str:
    """The map in Markdown."""
    rows = [f"| 0x{one.offset:02X} | `{one.name}` | {one.access} | {one.bits} | {one.text} |" for one in REGISTERS]
    return "\n".join(["| offset | register | access | bits | meaning |", "|---|---|---|---|---|", *rows]) + "\n"


def header(values: dict[str, object]) -> str:
    """The map as a C header; values: what the placeholders ``@NAME@`` of the register map stand for."""
    lines = ["/* Registers of the front end: offsets in bytes from its base address. */", "#ifndef BRAGGNN_FRONT_END_H"]
    lines += ["#define BRAGGNN_FRONT_END_H", ""]
    for one in REGISTERS:
        lines += [f"/* {one.text} ({one.access}, {one.bits} bits) */"]
        lines += [f"#define BRAGGNN_FRONT_END_{one.name.upper()} 0x{one.offset:02X}u"]
    lines += ["", f"#define BRAGGNN_FRONT_END_IDENTITY_VALUE 0x{IDENTITY:08X}u"]
    lines += [f"#define BRAGGNN_FRONT_END_{name}_VALUE {values[name]}u" for name in ("N", "B", "MAX_ROWS", "MAX_COLS")]
    return "\n".join([*lines, "", "#endif", ""])


def verilog(constants: dict[str, str]) -> dict[str, str]:
    """Pieces of the module of registers, by placeholder; constants: Verilog values of read-only ones by name."""
    held = [one for one in REGISTERS if one.access == "read/write"]
    given = [one for one in REGISTERS if one.access == "read" and one.name not in constants]

    def width(one: Register) -> str:
        return f"[{one.bits - 1}:0] " if one.bits > 1 else ""

    decode = []
    for one in REGISTERS:
        if "write" in one.access:
            action = f"{one.name} <= value[{one.bits - 1}:0]" if one.access == "read/write" else f"{one.name} <= 1'b1"
            decode += [f"8'h{one.offset:02X}: if ({one.allowed}) begin {action}; fault <= 1'b0; end"]
    reads = []
    for one in REGISTERS:
        if "read" in one.access:
            above = 32 - one.bits
            fill = f"{{{above}{{{one.name}[{one.bits - 1}]}}}}" if one.signed else f"{above}'d0"
            value = constants.get(one.name) or (f"{{{fill}, {one.name}}}" if above else one.name)
            reads += [f"8'h{one.offset:02X}: begin rdata <= {value}; rresp <= 2'b00; end"]
    return {
        "OUTPUTS": "\n".join(f"    output reg {width(one)}{one.name}," for one in held),
        "INPUTS": "\n".join(f"    input {width(one)}{one.name}," for one in given),
        "RESET": "\n".join(f"        {one.name} <= {one.reset};" for one in held),
        "INITIAL": "\n".join(f"        {one.name} = {one.reset};" for one in held),
        "WRITES": "\n".join(f"                {line}" for line in decode),
        "READS": "\n".join(f"                {line}" for line in reads),
    }

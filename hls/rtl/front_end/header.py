"""The C header of a front end: its registers, their fields, and the records that it sends."""

from collections.abc import Collection, Mapping
from typing import Any

from hls.rtl.front_end.registers import IDENTITY, built
from hls.rtl.front_end.registers import VERSION as MAP_VERSION
from quant.front_end.records import END, END_FIELDS, END_FLAGS, PEAK, PEAK_FIELDS, PEAK_FLAGS, VERSION, Field

_PREFIX = "BRAGGNN_FRONT_END"
_TYPES = {"u1": "uint8_t", "u2": "uint16_t", "u4": "uint32_t", "i2": "int16_t", "i4": "int32_t"}
_HEAD = """\
/* The front end: registers, as offsets in bytes from its base address, and records, which are little-endian.
   A field of a register's value is (value & MASK) >> SHIFT. */
#ifndef BRAGGNN_FRONT_END_H
#define BRAGGNN_FRONT_END_H

#include <stdint.h>
"""
_TAIL = """\
typedef union {
    braggnn_front_end_peak peak;
    braggnn_front_end_end end;
    uint8_t bytes[32];
} braggnn_front_end_record;
#pragma pack(pop)

/* A record has 32 bytes; in C and C++ of any year this does not compile otherwise. */
typedef char braggnn_front_end_record_has_32_bytes[sizeof(braggnn_front_end_record) == 32 ? 1 : -1];

#endif
"""


def header(sizes: Mapping[str, int], options: Collection[str], digest: str) -> str:
    """The header's text; sizes: by name, those of the build; options: as for
    :func:`hls.rtl.front_end.registers.verilog`; digest: of the locator, 64 hexadecimal digits."""
    lines = [_HEAD]
    for one in built(options):
        lines += [f"/* {one.text} ({one.access}, {one.bits} bits) */"]
        lines += [f"#define {_PREFIX}_{one.name.upper()} 0x{one.offset:02X}u"]
        for name, shift, bits in one.fields:
            field = f"{_PREFIX}_{one.name.upper()}_{name.upper()}"
            mask = ((1 << bits) - 1) << shift
            lines += [f"#define {field}_SHIFT {shift}", f"#define {field}_MASK 0x{mask:08X}u"]
    lines += ["", "/* What the registers of this build read. */"]
    lines += [f"#define {_PREFIX}_IDENTITY_VALUE 0x{IDENTITY:08X}u", f"#define {_PREFIX}_VERSION_VALUE {MAP_VERSION}u"]
    words = (f"0x{digest[at : at + 8].upper()}u" for at in range(0, 64, 8))
    lines += [f"#define {_PREFIX}_DIGEST_{k}_VALUE {word}" for k, word in enumerate(words)]
    lines += ["", "/* Sizes of this build. */"]
    lines += [f"#define {_PREFIX}_BUILD_{name.upper()} {value}u" for name, value in sizes.items()]
    lines += ["", "/* Records: of what kind, and of which layout. */"]
    for name, value in (("KIND_PEAK", PEAK), ("KIND_END", END), ("RECORD_VERSION", VERSION)):
        lines += [f"#define {_PREFIX}_{name} {value}u"]
    lines += ["", "/* Bits of a peak's flags. */", *_flags("PEAK", PEAK_FLAGS)]
    lines += ["", "/* Bits of an end record's flags. */", *_flags("END", END_FLAGS)]
    lines += ["", "#pragma pack(push, 1)"]
    lines += [*_struct("peak", PEAK_FIELDS), "", *_struct("end", END_FIELDS), ""]
    return "\n".join(lines) + "\n" + _TAIL


def _flags(kind: str, meanings: Mapping[Any, str]) -> list[str]:
    return [f"#define {_PREFIX}_{kind}_{flag.name} 0x{flag.value:02X}u /* {text} */" for flag, text in meanings.items()]


def _struct(name: str, fields: tuple[Field, ...]) -> list[str]:
    lines = [
        f"    {_TYPES[one.kind]} {one.name}; /* {one.meaning}{f', {one.unit}' if one.unit else ''} */" for one in fields
    ]
    return ["typedef struct {", *lines, f"}} braggnn_front_end_{name};"]

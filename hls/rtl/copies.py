"""Copies of registers with too many loads: a select of the shift goes to every pixel, too many for one register.

Each copy drives some of the multiplexers. Registers alone are copied, so a select must come out of one: the tracing
ends a stage behind the number of leading zeros (:func:`hls.rtl.trace_ops.registered`).
"""

import re
from dataclasses import dataclass

#: Multiplexer bits that one register drives; those beyond get a copy.
LOADS = 64

#: A multiplexer in da4ml's Verilog: module and parameters, the fifth of which is its width, and its key.
_MUX = re.compile(
    r"(?P<head>\w*mux #\((?:-?\d+, ){4}(?P<width>\d+), -?\d+, -?\d+\) op_\d+ \()v(?P<key>\d+)\[(?P<bit>\d+)\]"
)
#: A value that is an input of the stage: its number, and its highest and lowest place in ``model_inp``.
_INPUT = re.compile(r"assign v(\d+)\[\d+:0\] = model_inp\[(\d+):(\d+)\];")


@dataclass(frozen=True)
class Copied:
    """A stage whose heavily loaded inputs are copied: its text, and of each copy the bit of ``model_inp``."""

    text: str
    bits: tuple[int, ...]


def copied(text: str, most: int = LOADS) -> Copied:
    """``text`` of a stage (:func:`hls.rtl.core.core_files`), with a port ``copies`` where an input has more loads.

    The multiplexers that one select drives are shared among the select and its copies, in their order.
    """
    lowest = {int(value): int(low) for value, _, low in _INPUT.findall(text)}
    groups: list[int] = []  # of each multiplexer in its order: 0 for the register itself, then copies
    loads, copies = dict[int, int](), dict[int, int]()  # by place: of the group in hand, and how many copies there are
    places = [
        lowest[int(match["key"])] + int(match["bit"]) if int(match["key"]) in lowest else None
        for match in _MUX.finditer(text)
    ]
    for match, place in zip(_MUX.finditer(text), places, strict=True):
        if place is None:
            groups.append(0)
            continue
        loads[place] = loads.get(place, 0) + int(match["width"])
        copies.setdefault(place, 0)
        if loads[place] > most:
            loads[place] = int(match["width"])
            copies[place] += 1
        groups.append(copies[place])
    first, bits = dict[int, int](), list[int]()
    for place in sorted(copies):
        first[place] = len(bits)
        bits += [place] * copies[place]
    if not bits:
        return Copied(text, ())
    order = iter(zip(places, groups, strict=True))

    def key(match: re.Match[str]) -> str:
        place, group = next(order)
        return match[0] if place is None or group == 0 else f"{match['head']}copies[{first[place] + group - 1}]"

    ports = f"    input [{len(bits) - 1}:0] copies,  // of bits of model_inp\n    output ["
    return Copied(_MUX.sub(key, text).replace("    output [", ports, 1), tuple(bits))

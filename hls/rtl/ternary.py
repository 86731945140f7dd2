"""Adders of three operands: where one adder alone reads another in the same stage, both become one.

On UltraScale+ an adder of three operands takes one look-up table a bit, as one of two does: the table's second output
is the majority of the three bits, which the next bit's table adds (LUT6_2 and carry chain). Other tools see
``a + b - c``. On ECP5, which has no such adder, two remain.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

#: The module's name, after the design's.
NAME = "ternary_adder"

#: An instance of da4ml's adder in a stage: widths and signs of both operands, width of the result, shift, difference.
_ADDER = re.compile(
    r" *wire \[\d+:0\] v(?P<out>\d+); \w*shift_adder #\((?P<params>[-\d, ]+)\) op_\d+ "
    r"\((?P<in0>[^,]+), (?P<in1>[^,]+), v\d+\[\d+:0\]\);"
)
#: A value anywhere, and a whole value as an operand.
_VALUE, _OPERAND = re.compile(r"\bv(\d+)\b"), re.compile(r"v(\d+)\[\d+:0\]")
#: A value that is chosen by a bit: the choice fits into the table of an adder of two operands, not into that of three.
_CHOICE = re.compile(r" *wire \[\d+:0\] v(\d+); \w*mux #\(")


@dataclass(frozen=True)
class Term:
    """An operand shifted left, added or subtracted; source: number of the value, -1 for none; text: in Verilog."""

    source: int
    shift: int
    negative: bool = False
    width: int = 0
    signed: int = 0
    text: str = ""


@dataclass(frozen=True)
class Sum:
    """A sum of two or three terms; top: one more than its highest bit; last: of three, the one that may come last."""

    terms: tuple[Term, ...]
    top: int
    last: int = 0

    @property
    def start(self) -> int:
        """The lowest bit that is not one term's alone: there the carry chain starts."""
        return min(sorted(term.shift for term in self.terms)[1], *(t.shift for t in self.terms if t.negative), 1 << 30)

    @property
    def bits(self) -> int:
        """Of the carry chain."""
        return max(0, self.top - self.start)

    def with_inner(self, source: int, inner: "Sum") -> "Sum":
        """``inner`` put in for the term that reads ``source``; terms to be subtracted last."""
        (place,) = (term for term in self.terms if term.source == source)
        (other,) = (term for term in self.terms if term is not place)
        terms = [other]
        for term in inner.terms:
            terms.append(replace(term, shift=term.shift + place.shift, negative=term.negative != place.negative))
        terms.sort(key=lambda term: term.negative)
        return Sum(tuple(terms), self.top, next(index for index, term in enumerate(terms) if term is other))


def pairs(sums: Mapping[int, Sum], read: Mapping[int, int]) -> dict[int, int]:
    """Which adder takes in which, so that most carry bits are saved; each adder is in one pair at most.

    sums: adders of two operands by number, in an order in which they can be computed; read: how often each number is
    read by anything. One that is read once has one reader, so that these are trees, and the best is found from their
    leaves upwards.
    """
    alone: dict[int, int] = {}  # bits saved at most below an adder that is left for its reader
    best: dict[int, int] = {}  # bits saved at most below an adder
    taken: dict[int, int] = {}
    for number, total in sums.items():
        inner = [term.source for term in total.terms if term.source in sums and read[term.source] == 1]
        alone[number] = best[number] = sum(best[child] for child in inner)
        for child in inner:
            saved = total.bits + sums[child].bits - total.with_inner(child, sums[child]).bits
            value = alone[number] - best[child] + alone[child] + saved
            if value > best[number]:
                best[number], taken[number] = value, child
    for number in reversed(list(sums)):  # an adder that goes into its reader takes none in itself
        if number in taken:
            taken.pop(taken[number], None)
    return taken


def fused(text: str, module: str) -> str:
    """A stage of Verilog (:func:`hls.rtl.core.core_files`) with adders of three operands, instances of ``module``.

    Values are as before: da4ml's words hold every sum exactly.
    """
    lines = text.split("\n")
    places = {int(m["out"]): index for index, line in enumerate(lines) if (m := _ADDER.fullmatch(line))}
    chosen = {int(m[1]) for line in lines if (m := _CHOICE.match(line))}
    read = Counter(int(v) for v in _VALUE.findall(text))
    sums = {}
    for number, index in places.items():
        read[number] -= sum(int(v) == number for v in _VALUE.findall(lines[index]))  # where it is made
        found = _sum(lines[index])
        if not any(term.source in chosen for term in found.terms):
            sums[number] = found
    for parent, child in pairs(sums, read).items():
        lines[places[parent]] = _instance(parent, sums[parent].with_inner(child, sums[child]), module)
        lines[places[child]] = ""
    return "\n".join(line for line in lines if line)


def _sum(line: str) -> Sum:
    match = _ADDER.fullmatch(line)
    if match is None:
        raise ValueError(f"{line!r} is no adder")
    width0, width1, signed0, signed1, width, shift, minus = map(int, match["params"].split(","))
    first = Term(_source(match["in0"]), max(0, -shift), False, width0, signed0, match["in0"])
    second = Term(_source(match["in1"]), max(0, shift), bool(minus), width1, signed1, match["in1"])
    return Sum((first, second), width)


def _source(text: str) -> int:
    match = _OPERAND.fullmatch(text)
    return int(match[1]) if match else -1


def _instance(number: int, total: Sum, module: str) -> str:
    shapes = [f"{term.width}, {term.signed}, {term.shift}" for term in total.terms]
    minus = sum(term.negative for term in total.terms)
    start = min(total.start, total.top - 1)  # a chain of one bit at least
    parameters = ", ".join([*shapes, str(total.top), str(minus), str(start), str(total.last)])
    inputs = ", ".join(term.text for term in total.terms)
    value = f"v{number}[{total.top - 1}:0]"
    return f"    wire [{total.top - 1}:0] v{number}; {module} #({parameters}) op_{number} ({inputs}, {value});"

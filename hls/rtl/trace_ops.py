"""Building blocks of the traced circuit, made of da4ml's operations: shifts by data, leading zeros, products, clipping.

A variable (:class:`da4ml.trace.FixedVariable`) is a symbolic fixed-point number that knows its interval; an operation
on it becomes one line of the circuit. All numbers here are integers. What da4ml calls latency, the unit of its
pipelining, is one adder or one level of look-up tables. It counts every two-input gate and multiplexer as a level, so
the operations here set their own: two multiplexers in a row, or an OR of six inputs, are one table.
"""

from collections.abc import Sequence
from decimal import Decimal
from math import ceil
from typing import Any

#: A da4ml FixedVariable; the package carries no type information that could be used here.
Variable = Any

#: Inputs of a look-up table.
_TABLE_INPUTS = 6


def field(x: Variable, low: int, high: int) -> Variable:
    """Bits [low, high) of an unsigned integer, as an unsigned integer."""
    return x.quantize(0, high, -low) >> low


def bits_of(x: Variable, count: int) -> list[Variable]:
    """The ``count`` lowest bits of an unsigned integer, lowest first."""
    return [field(x, bit, bit + 1) for bit in range(count)]


def timed(x: Variable, at: float) -> Variable:
    """``x``, available at ``at``: its constant operands too, which da4ml places by the delay it reckoned itself."""
    x.latency = at
    for operand in x._from:
        if operand.opr == "const":
            operand.latency = min(operand.latency, at)
    return x


def registered(x: Variable | int, levels: float | None) -> Variable | int:
    """``x`` at the end of its pipeline stage of ``levels``, so that whatever reads it stands behind a register.

    An operation whose latency is a whole number of stages is the last of the stage before
    (:func:`hls.rtl.core.pipelined`). Without ``levels`` nothing is cut into stages, and nothing changes.
    """
    if levels is None or isinstance(x, int) or _constant(x) is not None:
        return x
    return timed(x, max(1, ceil(x.latency / levels - 1e-9)) * levels)


def any_of(words: Sequence[Variable]) -> Variable:
    """Bitwise OR of words, six at a time."""
    found = list(words)
    while len(found) > 1:
        groups = [found[at : at + _TABLE_INPUTS] for at in range(0, len(found), _TABLE_INPUTS)]
        found = [_joined(group) for group in groups]
    return found[0]


def _joined(group: Sequence[Variable]) -> Variable:
    at = max(word.latency for word in group) + 1.0
    result = group[0]
    for word in group[1:]:
        result = timed(result | word, at)
    return result


def multiplexer(key: Variable, yes: Variable | int, no: Variable | int, levels: float = 0.5) -> Variable:
    """``yes`` where the bit ``key`` is 1, else ``no``; ``levels`` of delay."""
    if _constant(yes) is not None and _constant(yes) == _constant(no):
        return yes
    if key.opr == "wrap":
        # da4ml would take the word that the bit is the top of as the key, which its interpreter (0.6.0) reads wrongly
        # when the word is unsigned: it compares with half the top bit. Inverted twice, the bit is a word of its own.
        key = ~~key
    result = key.msb_mux(yes, no)
    delays = [word.latency for word in (key, yes, no) if not isinstance(word, int)]
    return timed(result, max(delays) + levels) if result.opr == "msb_mux" else result


def _constant(x: Variable | int) -> int | None:
    if isinstance(x, int):
        return x
    return int(x.low) if x.low == x.high else None


def leading_zeros(x: Variable, width: int, levels: float | None = None) -> list[tuple[int, Variable]]:
    """The number of zeros above the highest one of an unsigned integer of ``width`` bits, as (weight, bit) pairs.

    Highest weight first. For x == 0 the number is any: no shift of zeros matters. Groups of four bits each tell whether
    they hold a one and where; the highest group with a one is chosen. They are selects with a load in every pixel: with
    ``levels`` of a pipeline stage a register stands behind them.
    """
    bits = bits_of(x, width)[::-1]
    bits += [None] * (-width % 4)
    groups = [bits[at : at + 4] for at in range(0, len(bits), 4)]
    start = max(bit.latency for bit in bits if bit is not None)
    filled = [any_of([bit for bit in group if bit is not None]) for group in groups]
    low = [_first(group, start + 1.0) for group in groups]
    at = start + 1.0 + (1.0 if len(groups) <= 4 else 2.0)
    found = []
    weight = 4 << max(0, (len(groups) - 1).bit_length() - 1)
    while weight >= 4:
        found.append((weight, _priority(filled, [(index * 4) // weight % 2 for index in range(len(groups))], at)))
        weight //= 2
    for order, weight in ((0, 2), (1, 1)):
        found.append((weight, _priority(filled, [pair[order] for pair in low], at)))
    return [(weight, registered(bit, levels)) for weight, bit in found if _constant(bit) != 0]


def _first(group: Sequence[Variable | None], at: float) -> tuple[Variable | int, Variable | int]:
    """The two bits of the place of the first one among four bits, the highest first; any if there is none."""
    a, b, c = (0 if bit is None else bit for bit in group[:3])
    high: Variable | int = 1 if b == 0 and isinstance(b, int) else ~(a | b)
    inner: Variable | int = 1 if isinstance(b, int) else (b if isinstance(c, int) else b | ~c)
    low = inner if isinstance(inner, int) else ~a & inner
    if isinstance(b, int):
        high, low = ~a, 0  # a single bit: the place is 0 whenever there is a one
    for bit in (high, low):
        if not isinstance(bit, int):
            timed(bit, at)
    return high, low


def _priority(filled: Sequence[Variable], values: Sequence[Variable | int], at: float) -> Variable | int:
    """The value beside the first group that is filled, the last one if none is."""
    result = values[-1]
    for key, value in zip(filled[-2::-1], values[-2::-1], strict=True):
        result = multiplexer(key, value, result)
        if not isinstance(result, int) and result.opr == "msb_mux":
            timed(result, at)
    return result


def shifted_left(
    x: Variable, amount: Sequence[tuple[int, Variable]], width: int, drop: int, signed: bool = False
) -> Variable:
    """``(x << amount) >> drop`` for ``width`` bits (and a sign) that are known to hold ``x << amount``.

    ``amount`` is (weight, bit) pairs, highest weight first. After each step the bits that no later shift can bring
    above ``drop`` are left out. A negative ``drop`` multiplies.
    """
    result = x
    remaining = sum(weight for weight, _ in amount)
    for weight, bit in amount:
        remaining -= weight
        lowest = -max(0, drop - remaining)
        moved = (result << weight).quantize(int(signed), width, lowest)
        result = multiplexer(bit, moved, result.quantize(int(signed), width, lowest))
    return result.quantize(int(signed), width, -max(0, drop)) >> drop


def product(x: Variable, factor: Variable, bits: int, drop: int) -> Variable:
    """``floor(x * factor / 2**drop)`` for an unsigned ``factor`` of ``bits`` bits; a negative ``drop`` multiplies.

    Two bits of the factor at a time choose among 0, x, 2 x and 3 x, and the choice is added: six inputs, one table for
    each bit of a row with its carry chain. What lies below the next row's lowest bit is dropped as early as it is
    known: floor((a + 4 b) / 4) = floor(a / 4) + b.
    """
    digits = bits_of(factor, bits)
    triple = x + (x << 1) if bits > 1 else x
    result: Variable | None = None
    dropped = 0
    for at in range(0, bits, 2):
        row = _multiple(x, triple, digits[at : at + 2])
        if result is None:
            result = row
            continue
        lose = min(2, max(0, drop - dropped))
        low = at - dropped - lose  # place of this row above the result's lowest bit
        kept = _without(result, lose)
        result, dropped = kept + (row << low), dropped + lose
    if result is None:
        return x * 0
    return _without(result, drop - dropped)


def _multiple(x: Variable, triple: Variable, digits: Sequence[Variable]) -> Variable:
    if len(digits) == 1:
        return multiplexer(digits[0], x, 0)
    even = multiplexer(digits[0], x, 0, 0.0)
    return multiplexer(digits[1], multiplexer(digits[0], triple, x << 1, 0.0), even)


def _without(x: Variable, count: int) -> Variable:
    """``floor(x / 2**count)``; a negative count multiplies."""
    if count <= 0:
        return x << -count
    return floored(x >> count)


def floored(x: Variable) -> Variable:
    """The integer part of a fixed-point number, towards minus infinity."""
    sign, integer, _ = x.kif
    return x.quantize(sign, integer, 0)


def saturated(x: Variable, low: int, high: int, bits: int, signed: bool) -> Variable:
    """An integer clipped to a format's [low, high], on the sides where its interval allows more; no comparison.

    It is above ``high`` where it is positive with a bit beyond, below ``low`` where its complement is.
    """
    magnitude = bits - 1 if signed else bits
    if x._factor < 0:
        # Kept as the negative of a word; da4ml (0.6.0) would forget the sign when it takes the complement.
        x = x.quantize(*x.kif, _force_factor_clear=True)
    result = x if x.low >= low and x.high <= high else x.quantize(int(signed), magnitude, 0)
    if x.low < low:
        below = ~_non_negative(x) if not signed else _beyond(~x, magnitude)
        result = multiplexer(below, low, result)
    if x.high > high:
        result = multiplexer(_beyond(x, magnitude), high, result)
    if result is not x:
        result.low, result.high = max(Decimal(low), result.low), min(Decimal(high), result.high)
    return result


def _non_negative(x: Variable) -> Variable:
    return ~x.is_negative()


def _beyond(x: Variable, magnitude: int) -> Variable:
    """1 where a positive part of x has a bit at ``magnitude`` or above."""
    positive = x.relu()
    return field(positive, magnitude, positive.kif[1]).unary_bit_op("any")

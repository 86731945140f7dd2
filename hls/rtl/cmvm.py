"""Sums of variables times constant matrices: da4ml's solver, the order searched, subtractions turned the cheap way.

da4ml's solver finds common terms greedily, and what it finds depends on the order of rows and columns: of some tens
of random orders the best saves 1 to 6 % of the adders' bits (measured on sparse layers of 49 x 16 and 14 x 8 and on the
sums of a centroid). And ``(a << k) - b`` costs k tables more than ``b - (a << k)``, whose low bits are those of b: a
carry chain starts where both operands do. So the solver's differences are computed in that direction, and the sign is
carried to where they are used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import log2
from typing import Any

import numpy as np
from da4ml.cmvm import solve
from da4ml.trace import FixedVariable
from da4ml.types import CombLogic, QInterval, minimal_kif
from numpy.typing import NDArray

from hls.rtl.trace_ops import Variable, timed
from quant.contract.arithmetic import Codes
from quant.contract.lut_model import digits

#: The solver's methods that are worth trying: name, and levels of adders beyond the fewest possible (-1: any number).
_METHODS = (("wmc-pdc", 0), ("wmc-pdc", -1), ("wmc", -1))
_SHALLOW = (("wmc-pdc", 0), ("wmc", 0), ("mc-pdc", 0))

#: Solutions are searched until this many digits were handled: seconds for a layer, whatever its size.
_BUDGET = 20_000


@dataclass(frozen=True)
class Effort:
    """How long to search, and for what.

    trials: orders of a matrix that are tried, at most, drawn with ``seed``; shallow: only sums of the fewest levels of
    adders, some per cent larger.
    """

    trials: int = 48
    seed: int = 0
    shallow: bool = False


@dataclass(frozen=True)
class Solution:
    """How to compute one matrix: da4ml's operations in one or more passes, and the orders of inputs and outputs.

    ``bits`` is the sum of the adders' widths, about the look-up tables.
    """

    passes: tuple[CombLogic, ...]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    bits: int

    def apply(self, x: Sequence[Variable], constants: Sequence[int]) -> list[Variable]:
        """The outputs plus ``constants``, in their own order, of inputs in theirs."""
        buffer = [x[row] for row in self.rows]
        for index, step in enumerate(self.passes):
            last = index == len(self.passes) - 1
            buffer = _execute(step, buffer, [constants[column] for column in self.columns] if last else None)
        found: list[Variable] = [None] * len(buffer)
        for place, value in zip(self.columns, buffer, strict=True):
            found[place] = value
        return found


def solution(matrix: Codes, x: Sequence[Variable], effort: Effort) -> Solution:
    """The cheapest way found to compute ``x @ matrix``; ``x`` tells intervals and delays only."""
    intervals = [QInterval(float(v.low), float(v.high), float(v.step)) for v in x]
    delays = [float(v.latency) for v in x]
    random = np.random.default_rng(effort.seed)
    inputs, outputs = matrix.shape
    trials = max(1, min(effort.trials, _BUDGET // max(1, int(digits(matrix).sum()))))
    methods = _SHALLOW if effort.shallow else _METHODS
    best: tuple[float, Solution] | None = None
    for trial in range(trials):
        method, beyond = methods[trial % len(methods)]
        rows, columns = (random.permutation(n) if trial >= len(methods) else np.arange(n) for n in (inputs, outputs))
        passes = solve(
            np.ascontiguousarray(matrix[rows][:, columns], np.float32), method0=method, hard_dc=beyond,
            qintervals=[intervals[row] for row in rows], latencies=[delays[row] for row in rows],
            adder_size=1, carry_size=-1,
        ).solutions  # fmt: skip
        bits = sum(_bits(step) for step in passes)
        # One level more of adders is worth a few bits of the registers in every stage.
        score = bits + (1e6 if effort.shallow else 2.0) * max(passes[-1].out_latency)
        if best is None or score < best[0]:
            best = score, Solution(tuple(passes), rows, columns, bits)
    if best is None:
        raise ValueError("no trial was made")
    return best[1]


def _bits(step: CombLogic) -> int:
    """Carry bits of all adders, from the lowest bit that both operands have to the result's top."""
    total = 0
    for op in step.ops:
        if op.opcode in (0, 1):
            sign, integer, _ = minimal_kif(op.qint)
            coarser = max(step.ops[op.id0].qint.step, step.ops[op.id1].qint.step * 2.0**op.data)
            total += max(0, sign + integer - int(log2(coarser)))
    return total


def _execute(step: CombLogic, x: Sequence[Variable], constants: Sequence[int] | None) -> list[Variable]:
    """One pass; the last has constants to add: where an output's last addition waits for one operand, to the other."""
    ends = set(step.out_idxs) if constants is not None else set()
    buffer: list[Variable] = []
    operands: dict[int, tuple[Variable, Variable]] = {}
    for index, op in enumerate(step.ops):
        if op.opcode == -1:
            buffer.append(x[op.id0] * 2.0 ** step.inp_shifts[op.id0])
            continue
        a, b = buffer[op.id0], buffer[op.id1] * (2.0**op.data * (1 if op.opcode == 0 else -1))
        operands[index] = (a, b)
        buffer.append(_sum(a, b, keep=index in ends))
    outputs = []
    for place, index in enumerate(step.out_idxs):
        constant = 0 if constants is None else constants[place]
        scale = 2.0 ** step.out_shifts[place] * (-1 if step.out_negs[place] else 1)
        if index < 0:
            outputs.append(FixedVariable.from_const(float(constant), hwconf=x[0].hwconf))
            continue
        early, late = sorted(operands.get(index, (buffer[index],) * 2), key=lambda v: float(v.latency))
        if constant and early.latency + 1.0 <= late.latency:
            outputs.append(_sum(plus(early, constant / scale), late, keep=True) * scale)
        else:
            outputs.append(plus(buffer[index] * scale, constant))
    return outputs


def _sum(a: Variable, b: Variable, keep: bool) -> Variable:
    """a + b; a difference may become the negative of a word, unless the word itself is asked for by ``keep``."""
    if (a._factor < 0) == (b._factor < 0) or keep:
        return a + b
    positive, negative = (a, b) if a._factor > 0 else (b, a)
    if positive.step <= negative.step:
        return positive + negative
    return -((-negative) + (-positive))


def plus(x: Variable, constant: float) -> Variable:
    """x + constant in one adder, also where x is kept as the negative of a word.

    da4ml counts no delay for it, and would leave one adder more in every stage that ends a layer.
    """
    if constant == 0 or x.low == x.high:
        return x + constant
    at = x.latency + 1.0
    if x._factor > 0:
        return timed(x + constant, at)
    exact = Decimal(constant)
    known: Any = FixedVariable.from_const(float(constant), hwconf=x.hwconf, _factor=1.0)
    result = FixedVariable(
        x.low + exact, x.high + exact, min(x.step, known.step), _from=(known, x), _factor=1.0, opr="vadd",
        hwconf=x.hwconf,
    )  # fmt: skip
    return timed(result, at)

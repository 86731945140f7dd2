"""IntegerLocator to combinational logic: every addition and look-up of one patch unrolled, traced with da4ml.

What is traced is the circuit's whole arithmetic, from counts to output codes, in integers. :func:`estimate` says what
it will cost before anything is traced.
"""

from math import log2

import numpy as np
from da4ml.trace import FixedVariableArrayInput, HWConfig, comb_trace
from da4ml.types import CombLogic, minimal_kif
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from hls.rtl.cmvm import Effort
from hls.rtl.spec import LIMIT
from hls.rtl.ternary import Sum, Term, pairs
from hls.rtl.trace_ops import Variable, saturated
from hls.rtl.trace_parts import centroid_codes, network_outputs, normalized, refusal
from quant.contract.arithmetic import Codes
from quant.contract.block_shift import BlockShift
from quant.contract.layers import Flatten, Leaky, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.lut_model import digits

#: da4ml's code of an operation that chooses by a bit.
_CHOICE = 6

#: Parts that :func:`trace` can leave out, to see what each costs.
PARTS = ("normalizer", "network", "centroid")


def trace(
    circuit: IntegerLocator, *, limit: int = LIMIT, effort: Effort | None = None, parts: tuple[str, ...] = PARTS,
    levels: float | None = None,
) -> CombLogic:  # fmt: skip
    """The circuit as da4ml's operations: window**2 counts in, row order, to output codes (row, col) and any ln sigma.

    ``effort`` says how long to search cheap sums; ``levels``, where the operations will be cut into stages of so many
    (:func:`hls.rtl.core.pipelined`), lets a stage end behind the normalizer's leading zeros.
    ``parts`` other than all of :data:`PARTS` are for looking at a part by itself: without the normalizer the inputs are
    codes, without the other two nothing is left but the codes. Raises UserError for a layer that has no unrolled
    form and for a circuit whose :func:`estimate` is above ``limit`` look-up tables; nothing is traced then.
    """
    expected = estimate(circuit)
    if expected > limit:
        raise UserError(
            f"circuit: about {expected:,} look-up tables unrolled, the limit is {limit:,}; prune it, use fewer bits, "
            "or use the HLS form (`make hls`), whose multipliers are shared"
        )
    search = effort or Effort()
    inputs = FixedVariableArrayInput(circuit.window**2, hwconf=HWConfig(1, -1, -1))
    bits, signed = circuit.normalizer.count_bits, not isinstance(circuit.normalizer, BlockShift)
    codes: list[Variable]
    if "normalizer" in parts:
        counts = inputs.quantize(int(signed), bits - signed, 0)
        codes = normalized(circuit.normalizer, list(counts._vars), circuit.network.exponent, levels)
    elif circuit.network.exponent and "network" in parts:
        raise UserError("circuit: its network takes the exponent, which the normalizer makes; trace both")
    else:
        codes = list(inputs.quantize(0, circuit.normalizer.bits, 0)._vars)
    pixels = codes[: circuit.window**2]
    outputs: list[Variable] = []
    if "network" in parts:
        outputs = network_outputs(circuit.network, codes, search)
    if "centroid" in parts and circuit.centroid is not None:
        base = centroid_codes(circuit.centroid, pixels, search)
        outputs = [a + b for a, b in zip(outputs, base, strict=False)] + outputs[2:] if outputs else base
    if not outputs:
        return comb_trace(inputs, codes, keep_dead_inputs=True)
    to = circuit.output
    clipped = [saturated(x, to.low, to.high, to.bits, to.signed) for x in outputs]
    return comb_trace(inputs, clipped, keep_dead_inputs=True)


def counted_luts(comb: CombLogic) -> float:
    """Look-up tables of traced operations, counted: da4ml's own count, with adders of three operands as one of two.

    As if nothing were cut into stages (:mod:`hls.rtl.ternary`).
    """
    sums: dict[int, Sum] = {}
    chosen = {index for index, op in enumerate(comb.ops) if abs(op.opcode) == _CHOICE}
    for index, op in enumerate(comb.ops):
        if op.opcode in (0, 1) and not {op.id0, op.id1} & chosen:
            shifts = [int(log2(comb.ops[place].qint.step)) for place in (op.id0, op.id1)]
            shifts[1] += int(op.data)
            lowest = min(shifts)
            sign, integer, _ = minimal_kif(op.qint)
            first, second = Term(op.id0, shifts[0] - lowest), Term(op.id1, shifts[1] - lowest, op.opcode == 1)
            sums[index] = Sum((first, second), sign + integer - lowest)
    saved = sum(
        sums[parent].bits + sums[child].bits - sums[parent].with_inner(child, sums[child]).bits
        for parent, child in pairs(sums, comb.ref_count).items()
    )
    return float(comb.cost - saved)


def predict(comb: CombLogic, counts: NDArray[np.integer]) -> Codes:
    """Outputs (n, outputs) of the traced operations, by da4ml's interpreter, for inputs (n, ...)."""
    found = comb.predict(np.asarray(counts, np.float64).reshape(len(counts), -1), n_threads=1)
    return np.rint(found).astype(np.int64)


def estimate(circuit: IntegerLocator) -> int:
    """Look-up tables of the unrolled circuit, roughly, from counts of digits alone; layers are checked as well.

    A sum costs its nonzero digits (canonical signed) times the width of what is added. Common digits are found and
    shared by the tracing, so that the true figure is mostly lower.
    """
    pixels, bits = circuit.window**2, circuit.normalizer.bits
    total = _normalizer_estimate(circuit)
    rows, width = circuit.window, bits
    for layer in circuit.network.layers:
        if isinstance(layer, Linear):
            places = 1
            if layer.kind == "conv2d":
                rows -= layer.weight.shape[2] - 1
                places = rows * rows
            total += places * int(digits(layer.weight).sum()) * (width + 2)
        elif isinstance(layer, Requantize) and not isinstance(layer, Leaky) and layer.rounding == "floor":
            width = layer.output.bits
        elif not isinstance(layer, Flatten):
            raise UserError(refusal(layer.name, layer.kind))
    if circuit.centroid is not None:
        base = circuit.centroid
        weight = max(base.weights).bit_length()
        total += pixels * weight * max(1, 1 << max(0, bits - 6)) + 2 * pixels * (weight + 3)
        total += 2 * base.reciprocal_bits * base.numerator_bits
    return total


def _normalizer_estimate(circuit: IntegerLocator) -> int:
    pixels, normalizer = circuit.window**2, circuit.normalizer
    width = normalizer.count_bits
    if isinstance(normalizer, BlockShift):
        return pixels * (3 * width * normalizer.subtract + width // 3 + 3 * normalizer.bits)
    return pixels * (5 * width + 3 * normalizer.mantissa_bits + normalizer.mantissa_bits**2)

"""What the compiled kernel is told of a locator: its steps with their types, packed weights, tables."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from quant.compiled.bounds import INT32, INT64, Bounds, block_ends, ends_of, shift_of, type_of, within
from quant.compiled.packing import Packed, taps_of
from quant.compiled.records import Attention, Layer, Model, Op, Sums, table
from quant.contract.attention import NonLocal
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.layers import Flatten, Leaky, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.normalize import Normalizer

_KINDS = {"identity": 0, "relu": 1, "leaky": 2}
#: Buffers: the chain goes back and forth between the first two, a non-local block has the others.
_CHAIN, _QUERY, _KEY, _VALUE, _MIXED, _OUT = 2, 2, 3, 4, 5, 6
_BUFFERS = 7


@dataclass(frozen=True)
class Plan:
    """model: the kernel's Model; tables: what its Tables point to, in order; sums: of each linear layer."""

    model: NDArray[np.int64]
    tables: tuple[NDArray[Any], ...]
    sums: tuple[Sums, ...]


@dataclass
class _Step:
    """A linear layer or a non-local block with the requantization behind it; bounds: of its input codes."""

    layer: Linear | NonLocal
    after: Requantize | None
    bounds: Bounds


def plan(locator: IntegerLocator, groups: int, block: int, quads: bool = False) -> Plan:
    """The plan of a locator for a kernel that computes ``groups`` vectors and ``block`` outputs together.

    quads: whether codes of 8 bits are multiplied in fours.

    Raises UserError, with the layer's name, for what the kernel does not compute: a requantization in front of which
    there is nothing to requantize, a non-local block on the pixels, and numbers beyond 64 bits.
    """
    steps = _steps(locator)
    if not within(ends_of(locator.output), INT32):
        raise UserError(f"outputs of {locator.output.bits} bits have no compiled form; at most 32 bits have")
    made = _Maker(locator.network.size, math.prod(locator.network.shape), Packed(groups, block), quads)
    made.vectors[0] = locator.network.size**2 + locator.network.exponent
    for index, step in enumerate(steps):
        following = steps[index + 1] if index + 1 < len(steps) else None
        each = 1 if following is None else _taken(following, quads)
        # A residual adds channel by channel: whatever is padded there is padded before it too.
        multiple = 4 if each == 4 or (following and isinstance(following.layer, NonLocal)) else 2
        if isinstance(step.layer, NonLocal):
            made.block(step.layer, step.after, step.bounds, each)
        else:
            made.chain(step.layer, step.after, step.bounds, each, multiple)
    normalizer, base = locator.normalizer, locator.centroid
    none = np.zeros(1, np.int64)
    tables = (
        table(made.layers),
        *made.packed.tables(),
        normalizer.table if isinstance(normalizer, Normalizer) else none,
        none if base is None else np.asarray(base.weights, np.int64),
        none if base is None else base.table,
        table(made.attentions),
        np.concatenate([np.zeros(1, np.int64), *made.softmax]).astype(np.int32),
        np.array(made.vectors, np.int64),
    )
    return Plan(
        table([_model(locator, steps[0].layer.kind, _taken(steps[0], quads), len(made.layers))]),
        tables,
        tuple(made.sums),
    )


def _steps(locator: IntegerLocator) -> list[_Step]:
    """The layers with their requantizations. A flattening moves nothing."""
    layers = [layer for layer in locator.network.layers if not isinstance(layer, Flatten)]
    found: list[_Step] = []
    bounds, index = ends_of(locator.network.input), 0
    while index < len(layers):
        layer = layers[index]
        if isinstance(layer, Requantize) or (isinstance(layer, NonLocal) and not found):
            raise UserError(f"layer {layer.name} ({layer.kind}) has no compiled form where it stands")
        following = layers[index + 1] if index + 1 < len(layers) else None
        after = following if isinstance(following, Requantize) else None
        found.append(_Step(layer, after, bounds))
        bounds = block_ends(layer, after, bounds) if isinstance(layer, NonLocal) else type_of(layer, after, bounds)[1]
        index += 1 if after is None else 2
    return found


def _taken(step: _Step, quads: bool) -> int:
    """How many codes a step takes in a lane."""
    if isinstance(step.layer, NonLocal):
        return _projections(step.layer, step.bounds, quads)[0].each
    return type_of(step.layer, step.after, step.bounds, quads)[0].each


def _projections(block: NonLocal, bounds: Bounds, quads: bool) -> list[Sums]:
    """Types of the sums of theta, phi and g, which take the same input and so the same number of codes in a lane."""
    parts = ((block.theta, block.query), (block.phi, block.key), (block.g, block.value))
    found = [type_of(part, Requantize(part.name, "identity", to), bounds, quads)[0] for part, to in parts]
    each = min(sums.each for sums in found)
    return [sums if sums.each == each else Sums.PAIRS if each == 2 else Sums.SINGLE for sums in found]


@dataclass
class _Maker:
    """Steps put down one after the other; side: rows and columns of the last one's codes; inputs: how many they are."""

    side: int
    inputs: int
    packed: Packed
    quads: bool
    layers: list[Layer] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)
    softmax: list[NDArray[np.int64]] = field(default_factory=list)
    vectors: list[int] = field(default_factory=lambda: [1] * _BUFFERS)
    sums: list[Sums] = field(default_factory=list)
    at: int = 0  # the buffer that has the last codes
    each: int = 1  # of them in a lane

    def chain(self, layer: Linear, after: Requantize | None, bounds: Bounds, each: int, multiple: int) -> None:
        """A layer of the chain, whose codes are stored ``each`` in a lane, their number a multiple of ``multiple``."""
        sums, _ = type_of(layer, after, bounds, self.quads)
        target = (self.at + 1) % _CHAIN
        self.linear(layer, after, sums, (self.at, target), each, multiple, first=not self.layers)
        self.side = self.layers[-1].rows
        self.inputs = len(layer.weight) * self.side**2
        self.at, self.each = target, each

    def linear(
        self,
        layer: Linear,
        after: Requantize | None,
        sums: Sums,
        buffers: tuple[int, int],
        each: int = 1,
        multiple: int = 2,
        first: bool = False,
        inputs: int | None = None,
    ) -> None:
        """A linear layer from one buffer to another. Raises UserError where it does not fit what it is given."""
        taken = layer.weight.shape[1] * (self.side**2 if layer.kind == "conv2d" else 1)
        kernel = layer.weight.shape[2:]
        if taken != (self.inputs if inputs is None else inputs) or any(k != kernel[0] or k > self.side for k in kernel):
            raise UserError(
                f"layer {layer.name}: its weights of shape {layer.weight.shape} do not fit what is before it"
            )
        side = self.side - layer.weight.shape[2] + 1 if layer.kind == "conv2d" else 1
        begins = self.packed.begins()
        outputs = self.packed.put(layer, *taps_of(layer, self.side, sums.each, first), multiple)
        made = Layer(
            Op.LINEAR, buffers[0], 0, buffers[1], sums, side, side, self.side, outputs, each, **begins
        )  # fmt: skip
        self.layers.append(_requantized(made, after, layer.accumulator.frac, 64 if sums == Sums.LONG else 32))
        self.sums.append(sums)
        self._room(buffers[1], side * side * outputs)

    def block(self, block: NonLocal, after: Requantize | None, bounds: Bounds, each: int) -> None:
        """A non-local block: three projections, what lies between, the last convolution, the residual."""
        widths = {len(part.weight) for part in (block.theta, block.phi, block.g)}
        if block.side != self.side or len(widths) > 1 or len(block.out.weight) * self.side**2 != self.inputs:
            raise UserError(
                f"layer {block.name}: its parts, of {block.positions} positions, do not fit what is before it"
            )
        targets = (_QUERY, _KEY, _VALUE)
        parts = (block.theta, block.query), (block.phi, block.key), (block.g, block.value)
        for (part, to), sums, target in zip(parts, _projections(block, bounds, self.quads), targets, strict=True):
            self.linear(part, Requantize(part.name, "identity", to), sums, (self.at, target))
        inner = self.layers[-1].outputs
        start = 1 + sum(map(len, self.softmax))
        self.softmax += [block.exp_table, block.reciprocal_table]
        up, _, down = shift_of(block.difference_shift, "floor")
        self.layers.append(Layer(Op.ATTENTION, _QUERY, len(self.attentions), _MIXED))
        inside = Attention(
            self.side, block.pool, inner, _KEY, _VALUE, up, min(down, 31), block.difference.high, block.index_bits,
            block.reciprocal_shift, *ends_of(block.mixed), start, start + len(block.exp_table),
        )  # fmt: skip
        self.attentions.append(inside)
        self._room(_MIXED, inner * self.side**2)
        self.linear(block.out, None, Sums.PAIRS, (_MIXED, _OUT), multiple=4, inputs=len(block.g.weight) * self.side**2)
        target = (self.at + 1) % _CHAIN
        last = replace(
            self.layers[-1], op=Op.RESIDUAL, source=_OUT, other=self.at, target=target, each=each,
            own_up=block.out_shift, other_up=block.residual_shift, other_each=self.each,
        )  # fmt: skip
        self.layers.append(_requantized(last, after, block.accumulator.frac, 32))
        self._room(target, last.rows * last.cols * last.outputs)
        self.at, self.each = target, each

    def _room(self, buffer: int, vectors: int) -> None:
        self.vectors[buffer] = max(self.vectors[buffer], vectors)


def _requantized(record: Layer, after: Requantize | None, frac: int, bits: int) -> Layer:
    """The record with the requantization of sums at ``frac`` that are computed in ``bits`` bits; None: as they are."""
    if after is None:
        low, high = INT64 if bits == 64 else INT32
        return replace(record, low=low, high=high, kind=0)
    down = frac - after.output.frac
    found = dict(zip(("up", "half", "down"), shift_of(down, after.rounding), strict=True))
    if isinstance(after, Leaky):
        below = shift_of(down + after.slope_frac, after.rounding)
        found |= dict(zip(("below_up", "below_half", "below_down"), below, strict=True)) | {"slope": after.slope_code}
    for name in ("down", "below_down"):  # nothing is left of a number that is shifted further but its sign
        found[name] = min(found.get(name, 0), bits - 1)
    low, high = ends_of(after.output)
    return replace(record, kind=_KINDS[after.kind], low=low, high=high, **found)


def _model(locator: IntegerLocator, kind: str, each: int, layers: int) -> Model:
    """kind: of the first layer, which takes ``each`` codes in a lane."""
    normalizer, base = locator.normalizer, locator.centroid
    min_max = isinstance(normalizer, Normalizer)
    found = Model(
        locator.size, locator.window, min_max, normalizer.bits, normalizer.count_bits,
        isinstance(normalizer, BlockShift) and normalizer.subtract,
        normalizer.table_bits if isinstance(normalizer, Normalizer) else 0,
        normalizer.mantissa_bits if isinstance(normalizer, Normalizer) else 0,
        each, kind == "conv2d", locator.network.exponent, layers, _BUFFERS, locator.outputs, *ends_of(locator.output),
    )  # fmt: skip
    if base is not None:
        found.centroid = 1
        found.power, found.discarded = _power(base)
        power = (len(base.weights) - 1) ** found.power  # before bits are discarded
        found.narrow = max(power, base.window**2 * max(base.weights) * base.reach) <= INT32[1]
        found.index_bits, found.sum_bits = base.index_bits, base.sum_bits
        found.numerator_shift, found.result_shift = base.numerator_shift, base.result_shift
    return found


def _power(base: Centroid) -> tuple[int, int]:
    """(power, discarded bits) of weights that are a code's power without some bits; (0, 0) for any others."""
    codes = np.arange(len(base.weights), dtype=np.int64)
    for power in (2, 1):
        for discarded in range(power * base.bits):
            if np.array_equal(codes**power >> discarded, base.weights):
                return power, discarded
    return 0, 0

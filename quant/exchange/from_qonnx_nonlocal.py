"""Two patterns of several nodes in a QONNX graph: the non-local block and a LeakyReLU in float64.

The block is walked backward from its residual Add; each node must be the operator, and read the tensor, that
:mod:`quant.exchange.to_qonnx` writes there. Anything else is refused by a message that names the node and what was
expected.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Codes, Format
from quant.contract.attention import NonLocal, size_block
from quant.contract.layers import Linear
from quant.contract.tables import sum_tables
from quant.exchange.qonnx_nodes import Constant, attribute, check_attributes, linear_layer, quant_parameters

_SLOPE_FRAC = 14


class Graph:
    """The nodes of a graph by the tensors they write and read, and those that a pattern has taken."""

    def __init__(self, graph: onnx.GraphProto, constants: dict[str, Constant]) -> None:
        self.constants = constants
        self._names = {n.output[0]: n.name for n in graph.node}
        self._writers = {tensor: n for n in graph.node for tensor in n.output}
        self._nodes = list(graph.node)
        self._taken: set[str] = set()

    def name(self, node: onnx.NodeProto) -> str:
        """The node's name."""
        return self._names[node.output[0]]

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor, in order."""
        return [n for n in self._nodes if tensor in n.input]

    def writer(self, tensor: str, reader: onnx.NodeProto) -> onnx.NodeProto:
        """The node that computes what ``reader`` reads."""
        if tensor not in self._writers or tensor in self.constants:
            raise UserError(f"node {self.name(reader)}: reads {tensor!r}, which no node computes from the patches")
        return self._writers[tensor]

    def take(self, nodes: list[onnx.NodeProto]) -> None:
        """Mark nodes as part of a pattern; each but the last must be read inside it alone."""
        self._taken |= {n.output[0] for n in nodes}
        for n in nodes[:-1]:
            for reader in self.readers(n.output[0]):
                if reader.output[0] not in self._taken:
                    raise UserError(
                        f"node {self.name(reader)}: reads {n.output[0]!r} inside the pattern that ends at node "
                        f"{self.name(nodes[-1])}, expected its output {nodes[-1].output[0]!r}"
                    )

    def taken(self, node: onnx.NodeProto) -> bool:
        """Whether a pattern has taken the node."""
        return node.output[0] in self._taken


@dataclass(frozen=True)
class Block:
    """A matched block and the tensor it writes."""

    layer: NonLocal
    output: str


@dataclass(frozen=True)
class _Like:
    """What the three projections of a block share: their input, its format and shape (C, R, R), inner channels."""

    x: str
    source: Format
    shape: tuple[int, ...]
    inner: int


@dataclass(frozen=True)
class _Projected:
    """Queries, keys or values: their convolution, format, side of the windows whose maxima they are."""

    part: Linear
    to: Format
    pool: int


@dataclass
class _Walk:
    """Backward through a pattern: the nodes met so far."""

    graph: Graph
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def step(self, reader: onnx.NodeProto, place: int, op: str, role: str, **attributes: Any) -> onnx.NodeProto:
        """The writer of the reader's input; ``op`` with these attributes or a refusal."""
        node = self.graph.writer(self.input(reader, place), reader)
        if node.op_type != op:
            raise self.refused(node, f"operator {node.op_type}, expected {op} ({role}) before node {self.name(reader)}")
        check_attributes(self.name(node), node)
        for key, expected in attributes.items():
            found = attribute(node, key, None)
            found = list(found) if isinstance(expected, list) and found is not None else found
            if found != expected:
                raise self.refused(node, f"{key} is {found}, expected {expected} ({role})")
        self.nodes.append(node)
        return node

    def name(self, node: onnx.NodeProto) -> str:
        return self.graph.name(node)

    def refused(self, node: onnx.NodeProto, problem: str) -> UserError:
        return UserError(f"node {self.name(node)}: {problem}")

    def input(self, node: onnx.NodeProto, place: int) -> str:
        """What the node reads there."""
        if place >= len(node.input):
            raise self.refused(node, f"has {len(node.input)} inputs, expected {place + 1} or more")
        return node.input[place]

    def same(self, node: onnx.NodeProto, place: int, expected: str, role: str) -> None:
        """The node must read this very tensor."""
        if self.input(node, place) != expected:
            raise self.refused(node, f"reads {node.input[place]!r}, expected {expected!r} ({role})")

    def last_axis(self, node: onnx.NodeProto) -> None:
        """The node must reduce the last of three axes; newer ONNX names them by an input, older by an attribute."""
        given = attribute(node, "axes", None)
        axes = self.constant(node, 1, "axes").values.reshape(-1).tolist() if given is None else list(given)
        if axes not in ([-1], [2]):
            raise self.refused(node, f"its axes is {axes}, expected [-1]")

    def constant(self, node: onnx.NodeProto, place: int, role: str) -> Constant:
        found = self.graph.constants.get(self.input(node, place))
        if found is None:
            raise self.refused(node, f"its {role} {node.input[place]!r} is computed, expected a constant")
        return found

    def values(self, node: onnx.NodeProto, place: int, role: str, expected: list[float]) -> None:
        found = self.constant(node, place, role).values.reshape(-1).tolist()
        if found != expected:
            raise self.refused(node, f"its {role} is {found}, expected {expected}")

    def quant(self, node: onnx.NodeProto, signed: bool) -> Format:
        to, low, rounding = quant_parameters(self.name(node), node, self.graph.constants)
        if rounding != "FLOOR" or low != to.low or to.signed != signed:
            kind = "signed" if signed else "unsigned"
            raise self.refused(node, f"rounding mode {rounding}, {to}, expected FLOOR, {kind}, the full range")
        return to

    def table(self, node: onnx.NodeProto, role: str) -> tuple[Codes, Format]:
        """The codes that a Gather reads: a constant behind an unsigned Quant of scale 1."""
        found = self.constant(node, 0, role)
        if found.codes is None or found.format is None or found.format.signed or found.format.frac:
            raise self.refused(node, f"its {role} is not quantized, expected an unsigned Quant of scale 1 before it")
        return found.codes, Format(found.format.bits, found.format.bits, signed=False)


def match_block(graph: Graph, x: str, shape: tuple[int, ...], source: Format | None) -> Block:
    """The non-local block that reads ``x``, of shape (C, R, R) and format ``source``; see :class:`Graph`."""
    readers = graph.readers(x)
    adds = [n for n in readers if n.op_type == "Add"]
    if len(adds) != 1 or len(readers) != 4:
        names = ", ".join(graph.name(n) for n in readers)
        raise UserError(
            f"node {graph.name(readers[-1])}: one of {len(readers)} nodes ({names}) that read {x!r}; expected one, or "
            "the three Conv and the Add of a non-local block"
        )
    add, walk = adds[0], _Walk(graph)
    if source is None or not source.signed or len(shape) != 3:
        raise walk.refused(add, "its block reads a tensor that is not quantized, expected a signed Quant before it")
    out = walk.step(add, 1 if add.input[0] == x else 0, "Conv", "the projection back")
    weight = walk.constant(out, 1, "weight").values
    if weight.ndim != 4:
        raise walk.refused(out, f"weight of shape {weight.shape}, expected {(shape[0], 'inner channels', 1, 1)}")
    inner = weight.shape[1]
    like = _Like(x, source, shape, inner)
    square = walk.step(out, 0, "Reshape", "to rows and columns")
    walk.values(square, 1, "shape", [1, inner, *shape[1:]])
    turned = walk.step(square, 0, "Transpose", "channels before positions", perm=[0, 2, 1])
    mixed = walk.step(turned, 0, "Quant", "weighted means")
    quotient = walk.step(mixed, 0, "Mul", "the quotient's power of two")
    product = walk.step(quotient, 0, "Mul", "times the reciprocal")
    wide = walk.step(product, 0, "Cast", "weighted sums in float64", to=onnx.TensorProto.DOUBLE)
    weighted = walk.step(wide, 0, "MatMul", "weighted sums of values, without a scale")
    exponentials = walk.step(weighted, 0, "Gather", "exponentials", axis=0)
    value = _projection(walk, weighted, 1, True, like, pooling=True)

    place, power, reciprocal = _reciprocals(walk, quotient, product, exponentials)
    difference, scores = _differences(walk, exponentials)
    query = _projection(walk, scores, 0, True, like)
    key = _projection(walk, scores, 1, False, like, pooling=True)
    if key.pool != value.pool:
        raise walk.refused(scores, f"its keys are pooled by {key.pool}, the values by {value.pool}, expected the same")
    positions = shape[1] * shape[2]
    exp_codes, exponential = walk.table(exponentials, "table of exponentials")
    reciprocal_codes, inverse = walk.table(reciprocal, "table of reciprocals")
    expected = sum_tables(
        positions // key.pool**2 * exponential.high, len(reciprocal_codes).bit_length() - 1, inverse.bits
    )
    for node, role, entries in zip((place, power), ("bits below", "power of"), expected, strict=True):
        if not np.array_equal(walk.constant(node, 0, "table").values, entries):
            raise walk.refused(
                node, f"its table differs from the {role} a sum's leading one, expected {len(entries)} entries"
            )
    to = walk.quant(mixed, signed=True)
    parts = {"theta": query.part, "phi": key.part, "g": value.part}
    parts["out"] = _part(walk, out, to.frac, (inner, *shape[1:]), shape[0])
    formats = {
        "query": query.to, "key": key.to, "value": value.to, "mixed": to,
        "difference": difference, "exponential": exponential, "reciprocal": inverse,
    }  # fmt: skip
    graph.take([*walk.nodes, add])
    bounds = source, source.low, source.high
    tables = exp_codes, reciprocal_codes
    layer = size_block(graph.name(add), positions, bounds, parts, formats, tables, key.pool)
    return Block(layer, add.output[0])


def _reciprocals(
    walk: _Walk, quotient: onnx.NodeProto, product: onnx.NodeProto, exponentials: onnx.NodeProto
) -> tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]:
    """From the quotient back to the sum of exponentials: the look-ups of its bits, its power of two, its reciprocal."""
    power = walk.step(quotient, 1, "Gather", "power of two of the sum", axis=0)
    wide = walk.step(product, 1, "Cast", "reciprocals in float64", to=onnx.TensorProto.DOUBLE)
    reciprocal = walk.step(wide, 0, "Gather", "reciprocals", axis=0)
    place = walk.step(reciprocal, 1, "Gather", "bits below the sum's leading one", axis=0)
    whole = walk.step(power, 1, "Cast", "sums", to=onnx.TensorProto.INT64)
    walk.same(place, 1, whole.output[0], "the sums")
    total = walk.step(whole, 0, "ReduceSum", "sums of exponentials", keepdims=1)
    walk.last_axis(total)
    walk.same(total, 0, exponentials.output[0], "the exponentials")
    return place, power, reciprocal


def _differences(walk: _Walk, exponentials: onnx.NodeProto) -> tuple[Format, onnx.NodeProto]:
    """From the exponentials back to the scores: the differences' format and the product of queries and keys."""
    index = walk.step(exponentials, 1, "Cast", "index of the exponential", to=onnx.TensorProto.INT64)
    steps = walk.step(index, 0, "Mul", "steps of the index")
    clipped = walk.step(steps, 0, "Quant", "differences")
    difference = walk.quant(clipped, signed=False)
    walk.values(steps, 1, "scale", [2.0**difference.frac])
    below = walk.step(clipped, 0, "Sub", "the row's maximum less the score, without a scale")
    highest = walk.step(below, 0, "ReduceMax", "maximum over keys", keepdims=1)
    walk.last_axis(highest)
    scores = walk.step(below, 1, "MatMul", "scores, without a scale")
    walk.same(highest, 0, scores.output[0], "the scores")
    return difference, scores


def _projection(
    walk: _Walk, reader: onnx.NodeProto, place: int, turned: bool, like: _Like, pooling: bool = False
) -> _Projected:
    """Queries, keys or values: Conv, Quant, MaxPool if pooled, Reshape to (D, K) and, for rows, Transpose."""
    node = reader
    if turned:
        node = walk.step(node, place, "Transpose", "positions before channels", perm=[0, 2, 1])
        place = 0
    flat = node = walk.step(node, place, "Reshape", "positions in one row")
    pool = 1
    if pooling and walk.graph.writer(flat.input[0], flat).op_type == "MaxPool":
        node = walk.step(flat, 0, "MaxPool", "windows of keys and values")
        pool = _window(walk, node, like.shape[1:])
    clipped = walk.step(node, 0, "Quant", "codes of queries, keys and values")
    walk.values(flat, 1, "shape", [1, like.inner, like.shape[1] * like.shape[2] // pool**2])
    conv = walk.step(clipped, 0, "Conv", "projection")
    walk.same(conv, 0, like.x, "the one input of the block")
    part = _part(walk, conv, like.source.frac, like.shape, like.inner)
    return _Projected(part, walk.quant(clipped, signed=True), pool)


def _window(walk: _Walk, node: onnx.NodeProto, sides: tuple[int, ...]) -> int:
    """The side of a pooling's windows, which must be square, side by side, and tile the positions."""
    kernel, strides = (list(attribute(node, key, [1, 1])) for key in ("kernel_shape", "strides"))
    fitting = [pool for pool in range(2, sides[0] + 1) if all(side % pool == 0 for side in sides)]
    if kernel not in [[pool, pool] for pool in fitting]:
        raise walk.refused(node, f"kernel_shape is {kernel}, expected a square whose side is one of {fitting}")
    if strides != kernel:
        raise walk.refused(node, f"strides is {strides}, expected {kernel}: windows side by side")
    return int(kernel[0])


def _part(walk: _Walk, node: onnx.NodeProto, frac: int, data: tuple[int, ...], outputs: int) -> Linear:
    layer = linear_layer(walk.name(node), node, walk.graph.constants, frac, data)
    if layer.weight.shape != (outputs, data[0], 1, 1):
        raise walk.refused(node, f"weight of shape {layer.weight.shape}, expected {(outputs, data[0], 1, 1)}")
    return layer


def match_leaky(graph: Graph, x: str) -> tuple[str, tuple[int, int], str]:
    """A LeakyReLU in float64, Cast, Mul by the slope, Max: its name, slope (code, frac) and output."""
    walk = _Walk(graph)
    (cast,) = graph.readers(x)
    ends = [n for n in graph.readers(cast.output[0]) if n.op_type == "Max"]
    if attribute(cast, "to", None) != onnx.TensorProto.DOUBLE or len(ends) != 1:
        raise walk.refused(cast, "operator Cast, expected one to float64 that is read by a LeakyReLU's Mul and Max")
    below = walk.step(ends[0], 1, "Mul", "slope times the sum")
    walk.same(ends[0], 0, cast.output[0], "the sum")
    walk.same(below, 0, cast.output[0], "the sum")
    slopes = walk.constant(below, 1, "slope").values.reshape(-1)
    if len(slopes) != 1:
        raise walk.refused(below, f"its slope has {len(slopes)} values, expected one")
    slope = float(slopes[0])
    code = slope * 2**_SLOPE_FRAC
    if not 0 < slope < 1 or not code.is_integer():
        raise walk.refused(below, f"its slope is {slope}, expected a multiple of 2**-{_SLOPE_FRAC} between 0 and 1")
    graph.take([cast, below, ends[0]])
    return graph.name(ends[0]), (int(code), _SLOPE_FRAC), ends[0].output[0]

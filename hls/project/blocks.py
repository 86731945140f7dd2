"""Forks of a QONNX graph on their way through the front end: non-local blocks and activations of any slope."""

import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from braggnn_edge.core.errors import UserError
from hls.project.attention import constants, types
from hls.project.extension import NON_LOCAL
from hls.project.precision import precision
from quant.contract.attention import NonLocal

#: What carries a block through qonnx's change of layout, which moves transpositions across elementwise operators
#: only. A block knows positions by rows and columns alone, so its layout may change with the tensors around it. No
#: network of ours has a Tanh.
_STAND_IN = "Tanh"


@dataclass(frozen=True)
class _Span:
    """Nodes that fork from one tensor and join again in another."""

    first: str
    last: str
    nodes: tuple[onnx.NodeProto, ...]

    @property
    def is_leaky(self) -> bool:
        """Whether it is an activation of any slope: the larger of x and slope * x, x in a wide type."""
        return {node.op_type for node in self.nodes} == {"Mul", "Max"}


def _slope(span: _Span, graph: onnx.GraphProto) -> float:
    """The constant of a leaky activation's product."""
    product = next(node for node in span.nodes if node.op_type == "Mul")
    found = [initializer for initializer in graph.initializer if initializer.name in product.input]
    if len(found) != 1:
        raise UserError(f"node {product.name}: {len(found)} constants, expected one, the slope of an activation")
    return float(numpy_helper.to_array(found[0]))


def has_forks(graph: onnx.GraphProto) -> bool:
    """Whether the graph is more than one chain: whether some computed tensor is read twice."""
    return max(_readers(graph).values(), default=0) > 1


def stand_in(model: onnx.ModelProto, blocks: tuple[NonLocal, ...]) -> onnx.ModelProto:
    """A copy of ``model`` that is one chain: one elementwise node for each block, one LeakyRelu for each activation.

    What they compute was established when ``blocks`` were read from the same file (:mod:`quant.exchange.from_qonnx`).
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    spans = _spans(graph)
    count = sum(not span.is_leaky for span in spans)
    if count != len(blocks):
        raise UserError(f"the QONNX file forks and joins {count} times, but has {len(blocks)} non-local blocks")
    for span in spans:
        place = next(i for i, node in enumerate(graph.node) if node == span.nodes[0])
        for node in span.nodes:
            graph.node.remove(node)
        source = span.first
        cast = next((node for node in graph.node if node.op_type == "Cast" and source in node.output), None)
        if cast is not None:  # to the wide type, which the hardware's exact types make needless
            source, place = cast.input[0], place - 1
            graph.node.remove(cast)
        new = helper.make_node("LeakyRelu" if span.is_leaky else _STAND_IN, [source], [span.last], f"from_{source}")
        if span.is_leaky:
            new.attribute.append(helper.make_attribute("alpha", _slope(span, graph)))
        graph.node.insert(place, new)
    _remove_unread(graph)
    return copy


def put_back(graph: onnx.GraphProto, blocks: tuple[NonLocal, ...]) -> None:
    """Replace the stand-ins of :func:`stand_in`, in order, by nodes that hold their blocks' constants and types."""
    places = [i for i, node in enumerate(graph.node) if node.op_type == _STAND_IN]
    for index, (place, block) in enumerate(zip(places, blocks, strict=True)):
        old = graph.node[place]
        values = {
            name: numpy_helper.from_array(np.ascontiguousarray(constant.format.values(constant.codes)))
            for name, constant in constants(block).items()
        }
        new = helper.make_node(
            NON_LOCAL,
            list(old.input),
            list(old.output),
            name=f"{NON_LOCAL}_{index}",
            domain="braggnn_edge",
            types=json.dumps(_types(block)),
            pool=block.pool,
            **values,
        )
        graph.node.remove(old)
        graph.node.insert(place, new)


def prescribed_types(node: onnx.NodeProto) -> dict[str, str]:
    """hls4ml's types of a node made by :func:`put_back`, by name."""
    found: dict[str, str] = json.loads(next(attribute.s for attribute in node.attribute if attribute.name == "types"))
    return found


def _types(block: NonLocal) -> dict[str, str]:
    """Those of the QONNX file; :func:`hls.project.check.check` holds them against the integer network."""
    found = {name: precision(to, saturate=rounds) for name, (to, rounds) in types(block).items()}
    found |= {name: precision(constant.format) for name, constant in constants(block).items()}
    return found | {"result": precision(block.accumulator)}


def _remove_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes whose results nobody reads: quantizers of the weights that went with a block."""
    while True:
        read = {tensor for node in graph.node for tensor in node.input} | {output.name for output in graph.output}
        unread = [node for node in graph.node if not read.intersection(node.output)]
        if not unread:
            return
        for node in unread:
            graph.node.remove(node)


def _computed(graph: onnx.GraphProto) -> set[str]:
    """The tensors that depend on the graph's input."""
    constant = {initializer.name for initializer in graph.initializer}
    found = {entry.name for entry in graph.input if entry.name not in constant}
    for node in graph.node:
        if found.intersection(node.input):
            found.update(node.output)
    return found


def _readers(graph: onnx.GraphProto) -> Counter[str]:
    computed = _computed(graph)
    return Counter(tensor for node in graph.node for tensor in node.input if tensor in computed)


def _spans(graph: onnx.GraphProto) -> list[_Span]:
    """From each fork of the chain to where all its branches have joined."""
    readers = _readers(graph)
    spans, live, first, nodes = [], Counter[str](), "", list[onnx.NodeProto]()
    for node in graph.node:
        data = [tensor for tensor in node.input if tensor in readers]
        if not data:
            continue
        if not live:
            if readers[data[0]] == 1:
                continue
            first, nodes = data[0], []
            live[first] = readers[first]
        nodes.append(node)
        live.subtract(data)
        live.update({tensor: readers[tensor] for tensor in node.output})
        live = +live
        if list(live) == [node.output[0]]:
            spans.append(_Span(first, node.output[0], tuple(nodes)))
            live.clear()
    if live:
        raise UserError(f"the QONNX file forks at {first!r} and does not join again; expected one chain with blocks")
    return spans

"""The integer network, derived from a QONNX file alone.

The graph is one chain: Quant (the input's format), then Conv, Gemm or MatMul (+ Add), Relu or LeakyRelu, Quant, Flatten
or Reshape. Where it branches stands a non-local block (:mod:`quant.exchange.from_qonnx_nonlocal`). Weights and biases
are constants behind a Quant node. Whatever else is found is refused by a message that names the node and what was
expected; nothing is approximated. Source of the semantics: the ONNX operator specifications, and QONNX's Quant:
clip(round(x / scale)) * scale.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Format
from quant.contract.layers import Leaky
from quant.contract.network import Flatten, IntegerNetwork, Layer, Linear, Requantize
from quant.contract.sizing import size_accumulators
from quant.exchange.from_qonnx_nonlocal import Graph, match_block, match_leaky
from quant.exchange.qonnx_nodes import (
    Constant,
    attribute,
    bias_codes,
    check_attributes,
    constant_quant,
    linear_layer,
    quant_parameters,
)
from quant.exchange.spelling import load
from quant.exchange.to_qonnx import SIZE

_TWO_INPUTS = ("Conv", "Gemm", "MatMul", "Add", "Reshape")


@dataclass
class _Chain:
    """The tensor at the end of the chain walked so far."""

    tensor: str
    shape: tuple[int, ...]  # without the batch
    frac: int | None = None  # None until the input's Quant
    relu: str | None = None  # name of a Relu or LeakyRelu that still waits for its Quant
    slope: tuple[int, int] | None = None  # of that LeakyRelu: code, frac
    input: Format | None = None
    layers: list[Layer] = field(default_factory=list)


def integer_network(path: Path) -> IntegerNetwork:
    """Read a QONNX file as an integer network; a graph with another meaning is refused, naming the node."""
    model = load(path)
    graph = model.graph
    constants = {i.name: Constant(np.asarray(onnx.numpy_helper.to_array(i), np.float64)) for i in graph.initializer}
    chain, size = _start(path, model, constants)
    nodes = Graph(graph, constants)
    for node in graph.node:
        if node.op_type == "Quant" and node.input[0] in constants:
            constants[node.output[0]] = constant_quant(nodes.name(node), node, constants)
    for node in graph.node:
        if node.output[0] in constants or nodes.taken(node):
            continue
        if chain.frac is not None and len(nodes.readers(chain.tensor)) > 1:
            _block(nodes, chain)
        elif chain.frac is not None and node.op_type == "Cast":
            _wide_leaky(nodes, chain)
        else:
            _step(nodes.name(node), node, chain, constants)
    outputs = [output.name for output in graph.output]
    if outputs != [chain.tensor]:
        raise UserError(f"{path}: outputs are {outputs}, expected one, {chain.tensor!r}, at the end of the chain")
    if chain.input is None or chain.relu or not chain.layers or isinstance(chain.layers[-1], Flatten):
        raise UserError(f"{path}: the graph ends early; expected its end at a linear layer or a Quant")
    if chain.shape not in ((2,), (4,)):
        raise UserError(
            f"{path}: output shape is {chain.shape}, expected (2,): the offset (row, col), or (4,): with ln sigma"
        )
    shape = _input_shape(graph.input[0])
    exponent = 0 if len(shape) == 4 else shape[1] - size**2
    return size_accumulators(IntegerNetwork(size, chain.input, tuple(chain.layers), exponent))


def _size(path: Path, model: onnx.ModelProto, shape: tuple[int, ...]) -> int:
    """The side of the patches of a model with flat inputs, from its metadata."""
    found = {entry.key: entry.value for entry in model.metadata_props}.get(SIZE, "")
    if not found.isdecimal() or not 0 < int(found) ** 2 < shape[1]:
        raise UserError(
            f"{path}: its input is flat, {shape}, and its metadata has no size of the patches that fits ({SIZE} "
            f"{found!r}); make it with `make qat`"
        )
    return int(found)


def _start(path: Path, model: onnx.ModelProto, constants: dict[str, Constant]) -> tuple[_Chain, int]:
    """The chain before its first node, and the side of the patches."""
    inputs = [i for i in model.graph.input if i.name not in constants]
    if len(inputs) != 1:
        raise UserError(f"{path}: {len(inputs)} inputs {[i.name for i in inputs]}, expected one: the patches")
    shape = _input_shape(inputs[0])
    patches = len(shape) == 4 and shape[1] == 1 and shape[2] == shape[3] and shape[2] >= 1
    if not patches and len(shape) != 2:
        raise UserError(
            f"{path}: input {inputs[0].name} has shape {shape}, expected (n, 1, size, size), or (n, size**2 + exponent)"
        )
    return _Chain(inputs[0].name, shape[1:]), shape[-1] if patches else _size(path, model, shape)


def _input_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(int(d.dim_value) for d in value.type.tensor_type.shape.dim)


def _step(name: str, node: onnx.NodeProto, chain: _Chain, constants: dict[str, Constant]) -> None:
    """Follow one node of the chain; ``node`` must read the tensor at its end."""
    known = {
        "Conv": _linear,
        "Gemm": _linear,
        "MatMul": _linear,
        "Add": _add,
        "Relu": _relu,
        "LeakyRelu": _leaky,
        "Flatten": _flatten,
    }
    known |= {"Reshape": _flatten, "Quant": _requantize}
    if node.op_type not in known:
        raise UserError(f"node {name}: operator {node.op_type} is not supported; expected one of {', '.join(known)}")
    data = [tensor for tensor in node.input if tensor and tensor not in constants]
    if data != [chain.tensor]:
        raise UserError(f"node {name}: reads {data}, expected {chain.tensor!r} alone; the graph must be one chain")
    if chain.frac is None and node.op_type != "Quant":
        raise UserError(f"node {name}: comes before the input's Quant; put a Quant node with power-of-two scale first")
    if chain.relu and node.op_type != "Quant":
        raise UserError(f"node {name}: follows Relu {chain.relu}, expected a Quant there")
    if node.op_type in _TWO_INPUTS and len(node.input) < 2:
        raise UserError(f"node {name}: has {len(node.input)} inputs, expected 2 or more")
    check_attributes(name, node)
    known[node.op_type](name, node, chain, constants)
    chain.tensor = node.output[0]


def _requantize(name: str, node: onnx.NodeProto, chain: _Chain, constants: dict[str, Constant]) -> None:
    to, low, rounding = quant_parameters(name, node, constants)
    if low != to.low:
        raise UserError(f"node {name}: narrow range of an activation, expected the full range")
    if chain.frac is None:
        # Input values are codes already: every rounding mode is the identity on them.
        chain.input, chain.frac = to, to.frac
        return
    if rounding != "FLOOR":
        raise UserError(f"node {name}: rounding mode {rounding}, expected FLOOR; set it in the activation's quantizer")
    if chain.slope and chain.relu:
        chain.layers.append(Leaky(chain.relu, "leaky", to, slope_code=chain.slope[0], slope_frac=chain.slope[1]))
    else:
        chain.layers.append(Requantize(chain.relu or name, "relu" if chain.relu else "identity", to))
    chain.frac, chain.relu, chain.slope = to.frac, None, None


def _block(nodes: Graph, chain: _Chain) -> None:
    last = chain.layers[-1] if chain.layers else None
    source = last.output if isinstance(last, Requantize) else None
    found = match_block(nodes, chain.tensor, chain.shape, source)
    chain.layers.append(found.layer)
    chain.tensor, chain.frac = found.output, found.layer.accumulator.frac


def _wide_leaky(nodes: Graph, chain: _Chain) -> None:
    chain.relu, chain.slope, chain.tensor = match_leaky(nodes, chain.tensor)


def _relu(name: str, _: onnx.NodeProto, chain: _Chain, __: dict[str, Constant]) -> None:
    chain.relu = name


def _leaky(name: str, node: onnx.NodeProto, chain: _Chain, _: dict[str, Constant]) -> None:
    slope = float(attribute(node, "alpha", 0.01))
    mantissa, exponent = np.frexp(slope)
    if mantissa != 0.5 or not 0 < slope < 1:
        raise UserError(f"node {name}: alpha is {slope}, expected a power of two below 1: in float32 no other is exact")
    chain.relu, chain.slope = name, (1, 1 - int(exponent))


def _flatten(name: str, node: onnx.NodeProto, chain: _Chain, constants: dict[str, Constant]) -> None:
    length = int(np.prod(chain.shape))
    if node.op_type == "Reshape":
        if node.input[1] not in constants:
            raise UserError(f"node {name}: its shape is computed, expected a constant")
        target = [int(v) for v in constants[node.input[1]].values]
        if len(target) != 2 or target[1] not in (-1, length) or target[0] not in (-1, 0, 1):
            raise UserError(f"node {name}: reshapes to {target}, expected (n, {length}): a flattening")
    chain.layers.append(Flatten(name))
    chain.shape = (length,)


def _linear(name: str, node: onnx.NodeProto, chain: _Chain, constants: dict[str, Constant]) -> None:
    if node.input[0] != chain.tensor:
        raise UserError(f"node {name}: its first input is a constant, expected the data")
    layer = linear_layer(name, node, constants, int(chain.frac or 0), chain.shape)
    shape = layer.weight.shape
    if layer.kind == "conv2d":
        kernel = tuple(attribute(node, "kernel_shape", shape[2:]))
        sides = tuple(d - k + 1 for d, k in zip(chain.shape[1:], shape[2:], strict=True))
        if kernel != shape[2:] or min(sides) < 1:
            raise UserError(f"node {name}: kernel {kernel} does not fit weight {shape} and data {chain.shape}")
        chain.shape = (shape[0], *sides)
    else:
        chain.shape = (shape[0],)
    chain.layers.append(layer)
    chain.frac = layer.accumulator.frac


def _add(name: str, node: onnx.NodeProto, chain: _Chain, constants: dict[str, Constant]) -> None:
    """The bias of the MatMul before it."""
    last = chain.layers[-1] if chain.layers else None
    if not isinstance(last, Linear) or last.kind != "dense" or last.bias.any():
        raise UserError(f"node {name}: Add is supported as the bias after a MatMul alone")
    constant = next(constants[tensor] for tensor in node.input if tensor in constants)
    bias = bias_codes(name, constant, last.accumulator.frac, len(last.weight), one_for_all=True)
    chain.layers[-1] = replace(last, bias=bias)

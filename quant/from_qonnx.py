"""The integer network, derived from a QONNX file alone.

The graph is one chain: Quant (the input's format), then Conv, Gemm or MatMul (+ Add), Relu, Quant, Flatten or
Reshape. Weights and biases are constants behind a Quant node. Whatever else is found is refused by a message
that names the node and what was expected; nothing is approximated. Source of the semantics: the ONNX operator
specifications, and QONNX's Quant: clip(round(x / scale)) * scale.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from braggnn_edge.errors import UserError
from quant.arithmetic import Codes, Format, exact_codes, linear_bounds, power_of_two_exponent, shift_round
from quant.network import Flatten, IntegerNetwork, Layer, Linear, Requantize

_QUANT_OPS = ("Quant", "IntQuant")
_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Conv": {"dilations": [1, 1], "group": 1, "pads": [0, 0, 0, 0], "strides": [1, 1], "auto_pad": b"NOTSET"},
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0},
    "Flatten": {"axis": 1},
    "Reshape": {"allowzero": 0},
}


@dataclass(frozen=True)
class _Constant:
    """A constant tensor: codes and format when it came through a Quant node, else its values alone."""

    values: NDArray[np.float64]
    codes: Codes | None = None
    format: Format | None = None


@dataclass
class _Chain:
    """The tensor at the end of the chain walked so far."""

    tensor: str
    shape: tuple[int, ...]  # without the batch
    frac: int | None = None  # None until the input's Quant
    low: int = 0
    high: int = 0
    before: tuple[int, int] = (0, 0)  # range of the input of the last linear layer
    relu: str | None = None  # name of a Relu that still waits for its Quant
    input: Format | None = None
    layers: list[Layer] = field(default_factory=list)


def integer_network(path: Path) -> IntegerNetwork:
    """Read a QONNX file as an integer network; a graph with another meaning is refused, naming the node."""
    graph = _load(path).graph
    constants = {i.name: _Constant(np.asarray(onnx.numpy_helper.to_array(i), np.float64)) for i in graph.initializer}
    chain = _start(path, graph, constants)
    for position, node in enumerate(graph.node):
        name = node.name or f"{node.op_type} (node {position})"
        if node.op_type == "Constant":
            constants[node.output[0]] = _Constant(np.asarray(_attribute(node, "value", None), np.float64))
        elif node.op_type in _QUANT_OPS and node.input[0] in constants:
            constants[node.output[0]] = _constant_quant(name, node, constants)
        else:
            _step(name, node, chain, constants)
    outputs = [output.name for output in graph.output]
    if outputs != [chain.tensor]:
        raise UserError(f"{path}: outputs are {outputs}, expected one, {chain.tensor!r}, at the end of the chain")
    if chain.input is None or chain.relu or not chain.layers or isinstance(chain.layers[-1], Flatten):
        raise UserError(f"{path}: the graph ends early; expected its end at a linear layer or a Quant")
    if chain.shape != (2,):
        raise UserError(f"{path}: output shape is {chain.shape}, expected (2,): the offset (row, col)")
    return IntegerNetwork(int(_input_shape(graph.input[0])[-1]), chain.input, tuple(chain.layers))


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf, onnx and the file system raise many types; each means the same here
        raise UserError(f"{path}: not a readable QONNX file ({error}); make it with `make qat`") from error


def _start(path: Path, graph: onnx.GraphProto, constants: dict[str, _Constant]) -> _Chain:
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1:
        raise UserError(f"{path}: {len(inputs)} inputs {[i.name for i in inputs]}, expected one: the patches")
    shape = _input_shape(inputs[0])
    if len(shape) != 4 or shape[1] != 1 or shape[2] != shape[3] or shape[2] < 1:
        raise UserError(f"{path}: input {inputs[0].name} has shape {shape}, expected (n, 1, size, size)")
    return _Chain(inputs[0].name, shape[1:])


def _input_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(int(d.dim_value) for d in value.type.tensor_type.shape.dim)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            value = onnx.helper.get_attribute_value(attribute)
            return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
    return default


def _check_attributes(name: str, node: onnx.NodeProto) -> None:
    for key, expected in _ATTRIBUTES.get(node.op_type, {}).items():
        found = _attribute(node, key, expected)
        found = list(found) if isinstance(expected, list) else found
        if found != expected:
            raise UserError(f"node {name}: {key} is {found}, expected {expected}; this contract has no other")


def _quant(name: str, node: onnx.NodeProto, constants: dict[str, _Constant]) -> tuple[Format, int, str]:
    """Format, smallest code and rounding mode of a Quant node."""
    if len(node.input) != 4:
        raise UserError(f"node {name}: {len(node.input)} inputs, expected 4: the tensor, scale, zero point, bit width")
    values = []
    for role, tensor in zip(("scale", "zero point", "bit width"), node.input[1:], strict=True):
        if tensor not in constants:
            raise UserError(f"node {name}: its {role} {tensor!r} is computed, expected a constant")
        found = constants[tensor].values
        if found.size != 1:
            raise UserError(f"node {name}: its {role} has shape {found.shape}, expected one value for the whole tensor")
        values.append(float(found.reshape(())))
    scale, zero, bits = values
    if zero != 0.0:
        raise UserError(f"node {name}: zero point is {zero}, expected 0; quantize symmetrically")
    if not bits.is_integer() or bits < 2:
        raise UserError(f"node {name}: bit width is {bits}, expected a whole number of at least 2")
    signed, narrow = bool(_attribute(node, "signed", 1)), bool(_attribute(node, "narrow", 0))
    to = Format(int(bits), -power_of_two_exponent(scale, f"node {name}"), signed)
    if narrow and not signed:
        raise UserError(f"node {name}: narrow range of an unsigned tensor, expected the full range")
    rounding = _attribute(node, "rounding_mode", b"ROUND").decode().upper()
    return to, to.low + narrow, "ROUND" if rounding == "HALF_EVEN" else rounding


def _constant_quant(name: str, node: onnx.NodeProto, constants: dict[str, _Constant]) -> _Constant:
    to, low, rounding = _quant(name, node, constants)
    if rounding != "ROUND":
        raise UserError(f"node {name}: rounding mode {rounding} of a constant, expected ROUND")
    scaled = np.ldexp(constants[node.input[0]].values, to.frac)
    if not np.isfinite(scaled).all():
        raise UserError(f"node {name}: its constant holds NaN or infinity; train the network again")
    codes = np.clip(np.rint(scaled), low, to.high).astype(np.int64)
    return _Constant(to.values(codes), codes, to)


def _step(name: str, node: onnx.NodeProto, chain: _Chain, constants: dict[str, _Constant]) -> None:
    """Follow one node of the chain; ``node`` must read the tensor at its end."""
    known = {
        "Conv": _linear,
        "Gemm": _linear,
        "MatMul": _linear,
        "Add": _add,
        "Relu": _relu,
        "Flatten": _flatten,
    }
    known |= {"Reshape": _flatten} | dict.fromkeys(_QUANT_OPS, _requantize)
    if node.op_type not in known:
        raise UserError(f"node {name}: operator {node.op_type} is not supported; expected one of {', '.join(known)}")
    data = [tensor for tensor in node.input if tensor and tensor not in constants]
    if data != [chain.tensor]:
        raise UserError(f"node {name}: reads {data}, expected {chain.tensor!r} alone; the graph must be one chain")
    if chain.frac is None and node.op_type not in _QUANT_OPS:
        raise UserError(f"node {name}: comes before the input's Quant; put a Quant node with power-of-two scale first")
    if chain.relu and node.op_type not in _QUANT_OPS:
        raise UserError(f"node {name}: follows Relu {chain.relu}, expected a Quant there")
    _check_attributes(name, node)
    known[node.op_type](name, node, chain, constants)
    chain.tensor = node.output[0]


def _requantize(name: str, node: onnx.NodeProto, chain: _Chain, constants: dict[str, _Constant]) -> None:
    to, low, rounding = _quant(name, node, constants)
    if low != to.low:
        raise UserError(f"node {name}: narrow range of an activation, expected the full range")
    if chain.frac is None:
        # Input values are codes already: every rounding mode is the identity on them.
        chain.input, chain.frac, chain.low, chain.high = to, to.frac, to.low, to.high
        return
    if rounding != "FLOOR":
        raise UserError(f"node {name}: rounding mode {rounding}, expected FLOOR; set it in the activation's quantizer")
    bounds = np.array([chain.low, chain.high])
    if chain.relu:
        bounds = np.maximum(bounds, 0)
    bounds = np.clip(shift_round(bounds, chain.frac - to.frac), to.low, to.high)
    chain.layers.append(Requantize(chain.relu or name, "relu" if chain.relu else "identity", to))
    chain.frac, chain.low, chain.high, chain.relu = to.frac, int(bounds[0]), int(bounds[1]), None


def _relu(name: str, _: onnx.NodeProto, chain: _Chain, __: dict[str, _Constant]) -> None:
    chain.relu = name


def _flatten(name: str, node: onnx.NodeProto, chain: _Chain, constants: dict[str, _Constant]) -> None:
    length = int(np.prod(chain.shape))
    if node.op_type == "Reshape":
        if node.input[1] not in constants:
            raise UserError(f"node {name}: its shape is computed, expected a constant")
        target = [int(v) for v in constants[node.input[1]].values]
        if len(target) != 2 or target[1] not in (-1, length) or target[0] not in (-1, 0, 1):
            raise UserError(f"node {name}: reshapes to {target}, expected (n, {length}): a flattening")
    chain.layers.append(Flatten(name))
    chain.shape = (length,)


def _linear(name: str, node: onnx.NodeProto, chain: _Chain, constants: dict[str, _Constant]) -> None:
    if node.input[0] != chain.tensor:
        raise UserError(f"node {name}: its first input is a constant, expected the data")
    weight = constants[node.input[1]]
    if weight.codes is None or weight.format is None:
        raise UserError(f"node {name}: its weight {node.input[1]!r} is not quantized, expected a Quant node before it")
    codes, kind = weight.codes, "conv2d" if node.op_type == "Conv" else "dense"
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not _attribute(node, "transB", 0)):
        codes = codes.T
    ranks = (4, 3) if kind == "conv2d" else (2, 1)
    if (codes.ndim, len(chain.shape)) != ranks or codes.shape[1] != chain.shape[0]:
        raise UserError(f"node {name}: weight of shape {codes.shape} does not fit data of shape {chain.shape}")
    if kind == "conv2d":
        kernel = tuple(_attribute(node, "kernel_shape", codes.shape[2:]))
        sides = tuple(d - k + 1 for d, k in zip(chain.shape[1:], codes.shape[2:], strict=True))
        if kernel != codes.shape[2:] or min(sides) < 1:
            raise UserError(f"node {name}: kernel {kernel} does not fit weight {codes.shape} and data {chain.shape}")
        chain.shape = (len(codes), *sides)
    else:
        chain.shape = (len(codes),)
    codes = np.ascontiguousarray(codes)
    frac = int(chain.frac or 0) + weight.format.frac
    bias = np.zeros(len(codes), np.int64)
    if len(node.input) > 2 and node.input[2]:
        bias = _bias(name, constants[node.input[2]], frac, len(codes))
    _append(Linear(name, kind, codes, weight.format, bias, Format(1, frac, True)), chain)


def _append(layer: Linear, chain: _Chain) -> None:
    """Append a linear layer with its accumulator sized from the range of its input; the chain goes on behind it."""
    flat = layer.weight.reshape(len(layer.weight), -1)
    low, high = linear_bounds(flat, layer.bias, chain.low, chain.high)
    frac = layer.accumulator.frac
    chain.layers.append(replace(layer, accumulator=Format.holding(low, high, frac)))
    chain.frac, chain.before, chain.low, chain.high = frac, (chain.low, chain.high), low, high


def _bias(name: str, constant: _Constant, frac: int, outputs: int) -> Codes:
    if constant.values.size != outputs:
        raise UserError(f"node {name}: bias of shape {constant.values.shape}, expected {outputs} values")
    return exact_codes(constant.values.reshape(-1), frac, f"node {name}, bias")


def _add(name: str, node: onnx.NodeProto, chain: _Chain, constants: dict[str, _Constant]) -> None:
    """The bias of the MatMul before it."""
    last = chain.layers[-1] if chain.layers else None
    if not isinstance(last, Linear) or last.kind != "dense" or last.bias.any():
        raise UserError(f"node {name}: Add is supported as the bias after a MatMul alone")
    constant = next(constants[tensor] for tensor in node.input if tensor in constants)
    bias = _bias(name, constant, last.accumulator.frac, len(last.weight))
    chain.layers.pop()
    chain.low, chain.high = chain.before
    _append(replace(last, bias=bias), chain)

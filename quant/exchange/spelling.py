"""A QONNX file in one spelling: what ONNX lets a writer say in several ways, said as qonnx and hls4ml understand it.

Constants are initializers, attributes that have a default are written out, numbers that stand for a whole tensor are
scalars, every node has a name, and the batch is 1. The network is the same. Whatever has another meaning is left as it
is, for :mod:`quant.exchange.from_qonnx` to refuse.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from braggnn_edge.core.errors import UserError

_QUANT = ("Quant", "IntQuant")
_DOMAIN = "qonnx.custom_op.general"
#: Defaults of the operators that a network may have (ONNX and QONNX operator specifications).
_DEFAULTS: dict[str, dict[str, Any]] = {
    "Conv": {"auto_pad": "NOTSET", "dilations": [1, 1], "group": 1, "pads": [0, 0, 0, 0], "strides": [1, 1]},
    "MaxPool": {"auto_pad": "NOTSET", "pads": [0, 0, 0, 0], "strides": [1, 1]},
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
    "Flatten": {"axis": 1},
    "LeakyRelu": {"alpha": 0.01},
    "Gather": {"axis": 0},
    "ReduceMax": {"keepdims": 1},
    "ReduceSum": {"keepdims": 1},
    "Quant": {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"},
}
#: How a Constant node may hold its value; texts and sparse tensors have no place in a network.
_CONSTANTS: dict[str, Callable[[AttributeProto], NDArray[Any]]] = {
    "value": lambda found: numpy_helper.to_array(found.t),
    "value_float": lambda found: np.array(found.f, np.float32),
    "value_floats": lambda found: np.array(found.floats, np.float32),
    "value_int": lambda found: np.array(found.i, np.int64),
    "value_ints": lambda found: np.array(found.ints, np.int64),
}


def load(path: Path) -> onnx.ModelProto:
    """The model of a file in the one spelling; UserError for a file that cannot be read and for odd constants."""
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf, onnx and the file system raise many types; each means the same here
        raise UserError(f"{path}: not a readable QONNX file ({error}); make it with `make qat`") from error
    respelt(model)
    return model


def respelt(model: onnx.ModelProto) -> None:
    """Bring a model to the one spelling, in place."""
    graph = model.graph
    _name_nodes(graph)
    _initialize_constants(graph)
    _drop_identities(graph)
    values = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {name: list(tensor.dims) for name, tensor in values.items()}
    for node in graph.node:
        if node.op_type in _QUANT:
            node.op_type, node.domain = "Quant", _DOMAIN
        for key, value in _DEFAULTS.get(node.op_type, {}).items():
            if not any(found.name == key for found in node.attribute):
                node.attribute.append(helper.make_attribute(key, value))
        _respell(node, values, shapes)
    if not any(opset.domain == _DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    del graph.initializer[:]
    graph.initializer.extend(values.values())
    given = [value for value in graph.input if value.name not in values]
    del graph.input[:]
    graph.input.extend(given)
    for value in (*graph.input, *graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions:
            dimensions[0].dim_value = 1
    del graph.value_info[:]  # shapes of what has been respelt; qonnx infers them


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Nodes without a name of their own get their operator and position: hls4ml finds layers by their names."""
    used: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in used:
            node.name = f"{node.op_type}_node_{index}"
        used.add(node.name)


def _initialize_constants(graph: onnx.GraphProto) -> None:
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        found = next((one for one in node.attribute if one.name in _CONSTANTS), None)
        if found is None:
            given = ", ".join(one.name for one in node.attribute) or "nothing"
            raise UserError(f"node {node.name}: a constant as {given}; expected {', '.join(_CONSTANTS)}")
        graph.initializer.append(numpy_helper.from_array(np.asarray(_CONSTANTS[found.name](found)), node.output[0]))
        graph.node.remove(node)


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Let the readers of an Identity read what it reads; one at the end gives its name to the tensor before it."""
    outputs = {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Identity"]:
        old, new = node.output[0], node.input[0]
        if old in outputs:
            old, new = new, old
            if not any(old in other.output for other in graph.node):  # it gives out the network's input or a constant
                continue
        graph.node.remove(node)
        for other in graph.node:
            for names in (other.input, other.output):
                for place, name in enumerate(names):
                    if name == old:
                        names[place] = new


def _respell(node: NodeProto, values: dict[str, TensorProto], shapes: dict[str, list[int]]) -> None:
    """One node; shapes: of the constants so far, to which it adds its own output if that is one behind a Quant."""
    attributes = {found.name: found for found in node.attribute}
    if node.op_type == "Quant":
        rounding = attributes["rounding_mode"].s.upper()
        attributes["rounding_mode"].s = b"ROUND" if rounding == b"HALF_EVEN" else rounding
        for name in node.input[1:]:
            _change(values, name, lambda found: found.reshape(()).astype(np.float32) if found.size == 1 else found)
        if node.input and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    elif node.op_type in ("Conv", "MaxPool") and attributes["auto_pad"].s == b"VALID":
        # No padding, in other words.
        attributes["auto_pad"].s = b"NOTSET"
        attributes["pads"].ints[:] = [0] * 4
    elif node.op_type == "Flatten" and attributes["axis"].i == -3:
        attributes["axis"].i = 1  # of (n, channels, rows, cols)
    elif node.op_type in ("Gemm", "Add"):
        # (1, outputs) is (outputs,), which is spread over the batch.
        for name in node.input[2:] if node.op_type == "Gemm" else node.input:
            _change(values, name, lambda found: found.reshape(-1) if found.ndim == 2 and len(found) == 1 else found)
    elif node.op_type == "Reshape" and len(node.input) == 2 and node.input[1] in values:
        shape = numpy_helper.to_array(values[node.input[1]]).reshape(-1).tolist()
        allowed = attributes["allowzero"].i if "allowzero" in attributes else 0
        if len(shape) == 2 and shape[1] == -1 and shape[0] in ((1,) if allowed else (0, 1)):
            del node.input[1:], node.attribute[:]
            node.op_type = "Flatten"
            node.attribute.append(helper.make_attribute("axis", 1))
    weight = shapes.get(node.input[1], []) if len(node.input) > 1 else []
    if node.op_type == "Conv" and "kernel_shape" not in attributes and len(weight) == 4:
        node.attribute.append(helper.make_attribute("kernel_shape", weight[2:]))


def _change(values: dict[str, TensorProto], name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Put another array in place of a constant, if there is one of this name."""
    if name in values:
        values[name] = numpy_helper.from_array(np.asarray(change(numpy_helper.to_array(values[name])), order="C"), name)

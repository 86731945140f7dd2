"""The float network as ONNX, normalization included, and onnxruntime sessions on a named provider."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from braggnn_edge.core.errors import UserError
from braggnn_edge.locate.fused import multiplied_out
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.upstream import fold_offset

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_NARROW = {"float32": np.float32, "float16": np.float16}


def session(model: onnx.ModelProto, device: str, threads: int = 1, fused: bool = True) -> Any:
    """An onnxruntime session that computes on ``device`` ("cpu", "cuda" or "tensorrt") and nowhere else.

    fused False: quantize and dequantize nodes are executed as they are written, not replaced by integer kernels.
    Raises UserError when this onnxruntime has no such provider, naming those it has.
    """
    if device not in PROVIDERS:
        raise UserError(f"device {device!r} is unknown to onnxruntime here; expected one of {', '.join(PROVIDERS)}")
    wanted = PROVIDERS[device]
    available = onnxruntime.get_available_providers()
    if wanted not in available:
        raise UserError(
            f"onnxruntime has no {wanted}; it has {', '.join(available)}. Use one of these, or install onnxruntime-gpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Without it onnxruntime adds pairs of 8-bit products in 16 bits, with saturation, on processors without VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    # What TensorRT cannot do, CUDA does; without either onnxruntime would silently use the CPU.
    providers = [wanted, PROVIDERS["cuda"]] if device == "tensorrt" else [wanted]
    opened = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    if opened.get_providers()[0] != wanted:
        raise UserError(f"onnxruntime could not start {wanted}; check the versions of CUDA, cuDNN and TensorRT")
    return opened


def onnx_network(
    net: BraggNN, precision: str, device: str, threads: int
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Patches (n, size, size) float32 in counts to offsets (n, 2) float32 px."""
    opened = session(float_model(net, precision), device, threads)
    return lambda patches: opened.run(None, {"patches": patches})[0]


def float_model(net: BraggNN, precision: str = "float32") -> onnx.ModelProto:
    """``net`` with everything linear multiplied out (:mod:`braggnn_edge.locate.fused`): "patches" to "offsets" in px.

    precision "float16": the convolutions after the first activation; all else stays float32.
    """
    if precision not in _NARROW:
        raise UserError(f"precision {precision!r} has no ONNX form here; expected one of {', '.join(_NARROW)}")
    graph = _Graph()
    x = graph.min_max("patches")
    convolutions = [m for m in net.cnn_layers if isinstance(m, nn.Conv2d)]
    slope = net.spec.slope
    if net.spec.attention:
        x = graph.activation(graph.non_local(x, net), slope)
        convolutions = convolutions[1:]
    narrow = _NARROW[precision]
    if narrow is np.float16:
        x = graph.node("Cast", x, to=TensorProto.FLOAT16)
    for layer in convolutions:
        x = graph.node(
            "Conv", x, graph.constant(_array(layer.weight), narrow), graph.constant(_array(layer.bias), narrow)
        )
        x = graph.activation(x, slope)
    x = graph.node("Flatten", x)
    if narrow is np.float16:
        x = graph.node("Cast", x, to=TensorProto.FLOAT)
    dense = [m for m in net.dense_layers if isinstance(m, nn.Linear)]
    for fully in dense[:-1]:
        x = graph.node("Gemm", x, graph.constant(_array(fully.weight)), graph.constant(_array(fully.bias)), transB=1)
        x = graph.activation(x, slope)
    weight, bias = (graph.constant(value.numpy()) for value in fold_offset(dense[-1], net.size))
    graph.node("Gemm", x, weight, bias, transB=1)
    return graph.model(net.size)


def _array(parameter: Any) -> NDArray[np.float64]:
    return parameter.detach().double().cpu().numpy()


class _Graph:
    """The nodes and constants of one model under construction; names are numbers."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, kind), name))
        return name

    def activation(self, x: str, slope: float) -> str:
        return self.node("LeakyRelu", x, alpha=slope) if slope else self.node("Relu", x)

    def min_max(self, patches: str) -> str:
        """(n, size, size) to (n, 1, size, size) in [0, 1], a flat patch to zeros."""
        axes = self.constant([1, 2], np.int64)
        low = self.node("ReduceMin", patches, axes)
        span = self.node("Sub", self.node("ReduceMax", patches, axes), low)
        some = self.node("Greater", span, self.constant([0]))
        span = self.node("Where", some, span, self.constant([1]))
        x = self.node("Div", self.node("Sub", patches, low), span)
        return self.node("Unsqueeze", x, self.constant([1], np.int64))

    def non_local(self, x: str, net: BraggNN) -> str:
        """First convolution and non-local block, on the 9 pixels under each window; see ``locate.fused``."""
        query, shift, mixed, bias = (tensor.numpy() for tensor in multiplied_out(net))
        side, channels = net.size - 2, len(bias)
        picture = self.constant([0, 9, side, side], np.int64)
        flat = self.constant([0, 9, side * side], np.int64)
        windows = self.node("Conv", x, self.constant(np.eye(9).reshape(9, 1, 3, 3)))
        keys = self.node("Reshape", windows, flat)
        queries = self.node("Conv", x, self.constant(query.reshape(9, 1, 3, 3)), self.constant(shift))
        queries = self.node("Transpose", self.node("Reshape", queries, flat), perm=[0, 2, 1])
        weights = self.node("Softmax", self.node("MatMul", queries, keys), axis=-1)
        sums = self.node("MatMul", weights, self.node("Transpose", keys, perm=[0, 2, 1]))
        sums = self.node("Reshape", self.node("Transpose", sums, perm=[0, 2, 1]), picture)
        both = self.node("Concat", windows, sums, axis=1)
        return self.node("Conv", both, self.constant(mixed.reshape(channels, 18, 1, 1)), self.constant(bias))

    def model(self, size: int) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "offsets"
        described = helper.make_graph(
            self.nodes,
            "braggnn_edge_float",
            [helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["n", size, size])],
            [helper.make_tensor_value_info("offsets", TensorProto.FLOAT, ["n", 2])],
            self.initializers,
        )
        made = helper.make_model(described, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        return made

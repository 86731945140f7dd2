"""The integer network as a standard int8 QDQ ONNX file, for onnxruntime and for TensorRT (Jetson).

QuantizeLinear rounds to nearest with ties to even, the integer contract floors. For accumulators A at shift t the two
agree when the rounding is moved by almost half a step, so that no tie is left:

    floor(A / 2**t) = round(A / 2**t - 1/2 + 2**-(t + 1))

"tensorrt" writes that into float biases. Activations are signed (TensorRT takes no unsigned ones): code - 128, the 128
moved into the next bias, which is exact because no convolution pads. Every scale is a power of two, every zero point 0.

"cpu" is for kernels with integer biases, where half an accumulator step cannot be written: A - 2**(t - 1) + 1 leaves
one tie, at the top of each step, and a QuantizeLinear scale one unit in the last place above the power of two breaks
it downwards. Activations are unsigned. The range of t in which this is exact is checked (``_CPU_SHIFT``).

In both the saturation of QuantizeLinear is the ReLU; a Clip is added for activations below 8 bits.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from quant.contract.arithmetic import Format
from quant.contract.network import Flatten, IntegerNetwork, Linear, Requantize

Target = Literal["cpu", "tensorrt"]
TARGETS: tuple[Target, ...] = ("cpu", "tensorrt")

#: The tie-breaking factor 1 - 2**-23 moves a code below 256 by less than 2**-15, the least distance to another tie is
#: 2**-t: exact for t up to 14.
_CPU_SHIFT = 14
_OPSET, _IR = 17, 8  # old enough for the TensorRT of JetPack 5; nothing newer is needed


def export_qdq(network: IntegerNetwork, path: Path, target: Target = "cpu") -> None:
    """Write ``network`` as ONNX: input "codes" uint8, output "offsets" (n, 2 or 4) float32 in px.

    The input is (n, 1, size, size), or flat with an exponent; the output is the network's alone, without a centroid.

    Raises UserError for a network that int8 cannot hold: activations, weights or inputs of more than 8 bits.
    """
    model = qdq_model(network, target)
    with written_aside(path) as aside:
        onnx.save(model, str(aside))


def qdq_model(network: IntegerNetwork, target: Target = "cpu") -> onnx.ModelProto:
    """The model that :func:`export_qdq` writes."""
    if target not in TARGETS:
        raise UserError(f"QDQ target {target!r} is unknown; expected one of {', '.join(TARGETS)}")
    _require_int8("input", network.input)
    graph = _Graph(target)
    x = graph.input(network.input)
    here = network.input
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Flatten):
            x = graph.node("Flatten", [x], f"{layer.name}_out")
        elif isinstance(layer, Linear):
            after = network.layers[index + 1] if index + 1 < len(network.layers) else None
            hidden = after if isinstance(after, Requantize) and after is not network.layers[-1] else None
            x = graph.linear(layer, x, here, hidden)
        elif isinstance(layer, Requantize) and index and isinstance(network.layers[index - 1], Linear):
            x = graph.result(layer, x) if layer is network.layers[-1] else graph.requantize(layer, x)
            here = layer.output
        else:
            raise UserError(
                f"layer {layer.name} ({layer.kind}) has no int8 QDQ form; expected convolutions and dense layers, each "
                "followed by its requantization"
            )
    graph.nodes[-1].output[0] = "offsets"
    described = helper.make_graph(
        graph.nodes,
        f"braggnn_edge_{target}",
        [
            helper.make_tensor_value_info(
                "codes", TensorProto.UINT8, ["n", *(() if network.exponent else (1,)), *network.shape]
            )
        ],
        [helper.make_tensor_value_info("offsets", TensorProto.FLOAT, ["n", network.outputs])],
        graph.initializers,
    )
    model = helper.make_model(described, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model, full_check=True)
    return model


def _require_int8(name: str, found: Format) -> None:
    if found.bits > 8:
        raise UserError(f"{name} has {found.bits} bits; int8 QDQ holds 8: train with at most 8 bits in [quant]")


class _Graph:
    """The nodes and constants of one model under construction."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    @property
    def _offset(self) -> int:
        """What is subtracted from activation codes."""
        return 128 if self.target == "tensorrt" else 0

    @property
    def _kind(self) -> type[np.generic]:
        return np.int8 if self.target == "tensorrt" else np.uint8

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def input(self, to: Format) -> str:
        scale = self.constant("codes_scale", _scale(to.frac))
        if self.target == "cpu":
            zero = self.constant("codes_zero", np.uint8(0))
            return self.node("DequantizeLinear", ["codes", scale, zero], "codes_value")
        x = self.node("Cast", ["codes"], "codes_float", to=TensorProto.FLOAT)
        x = self.node("Sub", [x, self.constant("codes_offset", np.float32(self._offset))], "codes_centred")
        x = self.node("Mul", [x, scale], "codes_scaled")
        return self._quantized(x, "codes", scale, scale)

    def linear(self, layer: Linear, x: str, here: Format, after: Requantize | None) -> str:
        _require_int8(f"layer {layer.name}: weight", layer.weight_format)
        frac = here.frac + layer.weight_format.frac
        flat = layer.weight.reshape(len(layer.weight), -1)
        bias = layer.bias.astype(np.float64) + self._offset * flat.sum(axis=1)
        if after is not None:
            bias = bias + self._rounding(after, frac - after.output.frac, layer.name)
        weight = layer.weight.astype(np.int8)
        scale = self.constant(f"{layer.name}_weight_scale", _scale(layer.weight_format.frac))
        zero = self.constant(f"{layer.name}_weight_zero", np.int8(0))
        codes = self.constant(f"{layer.name}_weight", weight)
        value = self.node("DequantizeLinear", [codes, scale, zero], f"{layer.name}_weight_value")
        name = f"{layer.name}_bias"
        if self.target == "cpu":
            codes = self.constant(name, bias.astype(np.int32))
            zero = self.constant(f"{name}_zero", np.int32(0))
            scale = self.constant(f"{name}_scale", _scale(frac))
            added = self.node("DequantizeLinear", [codes, scale, zero], f"{name}_value")
        else:
            added = self.constant(name, np.ldexp(bias, -frac).astype(np.float32))
        if layer.kind == "dense":
            return self.node("Gemm", [x, value, added], f"{layer.name}_out", transB=1)
        return self.node("Conv", [x, value, added], f"{layer.name}_out", kernel_shape=list(layer.weight.shape[2:]))

    def _rounding(self, layer: Requantize, shift: int, where: str) -> float:
        """What is added to the accumulator, in its steps, so that rounding to nearest is the layer's rounding."""
        if layer.kind != "relu" or layer.output.signed:
            raise UserError(f"layer {layer.name}: only unsigned activations after a ReLU have an int8 QDQ form")
        _require_int8(f"layer {layer.name}", layer.output)
        if shift <= 0:
            moved = 0.0
        elif self.target == "tensorrt":
            moved = 0.5 - 2.0 ** (shift - 1)
        elif shift <= _CPU_SHIFT:
            moved = 1.0 - 2.0 ** (shift - 1)
        else:
            raise UserError(f"layer {where}: shift {shift} exceeds {_CPU_SHIFT}; export for the target tensorrt")
        if layer.rounding == "half_up" and shift > 0:
            moved += 2.0 ** (shift - 1)
        return moved - self._offset * 2.0**shift

    def requantize(self, layer: Requantize, x: str) -> str:
        to = layer.output
        scale = self.constant(f"{layer.name}_scale", _scale(to.frac))
        if to.bits < 8:
            low, high = (np.ldexp(np.float32(v - self._offset), -to.frac) for v in (to.low, to.high))
            limits = [self.constant(f"{layer.name}_{name}", v) for name, v in (("low", low), ("high", high))]
            x = self.node("Clip", [x, *limits], f"{layer.name}_clip")
        down = scale
        if self.target == "cpu":
            above = np.nextafter(_scale(to.frac), np.float32(np.inf), dtype=np.float32)
            down = self.constant(f"{layer.name}_scale_up", above)
        return self._quantized(x, layer.name, down, scale)

    def _quantized(self, x: str, name: str, down: str, up: str) -> str:
        zero = self.constant(f"{name}_zero", self._kind(0))
        codes = self.node("QuantizeLinear", [x, down, zero], f"{name}_codes")
        return self.node("DequantizeLinear", [codes, up, zero], f"{name}_value")

    def result(self, layer: Requantize, x: str) -> str:
        """The last requantization, in float32: exact below 24 bits."""
        to = layer.output
        if layer.kind == "relu":
            x = self.node("Relu", [x], f"{layer.name}_relu")
        x = self.node("Mul", [x, self.constant("result_up", _scale(-to.frac))], "result_scaled")
        if layer.rounding == "half_up":
            x = self.node("Add", [x, self.constant("result_half", np.float32(0.5))], "result_half_up")
        x = self.node("Floor", [x], "result_floor")
        limits = [self.constant(f"result_{name}", np.float32(v)) for name, v in (("low", to.low), ("high", to.high))]
        x = self.node("Clip", [x, *limits], "result_codes")
        return self.node("Mul", [x, self.constant("result_scale", _scale(to.frac))], "result")


def _scale(frac: int) -> np.float32:
    return np.ldexp(np.float32(1), -frac)

"""An integer network written as a QONNX graph: the form of networks with a non-local block or a LeakyReLU.

Standard ONNX operators and Quant alone. Executed in float32 the graph computes the network's integers, exactly as long
as sums stay below 2**24; the two products that do not (weighted sum times reciprocal, sum times slope) are in float64.
:mod:`quant.exchange.from_qonnx` reads the same network back.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from quant.contract.arithmetic import Format
from quant.contract.attention import NonLocal
from quant.contract.layers import Leaky, Linear, Requantize
from quant.contract.network import IntegerNetwork
from quant.contract.tables import sum_tables

OPSET, IR_VERSION = 13, 8
QUANT_DOMAIN = "qonnx.custom_op.general"
#: Metadata of a model with flat inputs: the side of its patches, px.
SIZE = "braggnn_edge.size"


def qonnx_model(network: IntegerNetwork) -> onnx.ModelProto:
    """The graph for a batch of 1, input "input" and output "output", nodes named as layers.

    The input is (1, 1, size, size), or (1, size**2 + exponent), and then the metadata ``size`` says where pixels end.
    """
    graph = _Graph()
    x = graph.quant("input_quant", "input", network.input, "ROUND")
    given = [1, *network.shape] if network.exponent else [1, 1, *network.shape]
    shape: tuple[int, ...] = tuple(given[1:])
    frac = network.input.frac
    for layer in network.layers:
        if isinstance(layer, Linear):
            x = graph.linear(layer, x, frac)
            frac = layer.accumulator.frac
            sides = tuple(side - k + 1 for side, k in zip(shape[1:], layer.weight.shape[2:], strict=False))
            shape = (len(layer.weight), *sides)
        elif isinstance(layer, NonLocal):
            x = graph.block(layer, x, shape)
            frac = layer.accumulator.frac
        elif isinstance(layer, Requantize):
            x = graph.requantize(layer, x)
            frac = layer.output.frac
        else:
            x = graph.node("Flatten", layer.name, [x], axis=1)
            shape = (int(np.prod(shape)),)
    graph.nodes[-1].output[0] = "output"
    proto = helper.make_graph(
        graph.nodes,
        "braggnn",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, *shape])],
        [onnx.numpy_helper.from_array(graph.constants[name], name) for name in sorted(graph.constants)],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(QUANT_DOMAIN, 1)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION)
    if network.exponent:
        helper.set_model_props(model, {SIZE: str(network.size)})
    return model


class _Graph:
    """Nodes and constants in order; each method appends what it is named after and returns its output tensor."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}

    def node(self, op: str, name: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        output = f"{name}_out"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, domain=domain or None, **attributes))
        return output

    def constant(self, name: str, values: object, dtype: type = np.float32) -> str:
        self.constants[name] = np.asarray(values, dtype=dtype)
        return name

    def quant(self, name: str, x: str, to: Format, rounding: str = "FLOOR") -> str:
        inputs = [
            x,
            self.constant(f"{name}_scale", 2.0**-to.frac),
            self.constant(f"{name}_zero", 0.0),
            self.constant(f"{name}_bits", float(to.bits)),
        ]
        return self.node("Quant", name, inputs, QUANT_DOMAIN, signed=int(to.signed), narrow=0, rounding_mode=rounding)

    def linear(self, layer: Linear, x: str, frac: int) -> str:
        weight = self.constant(f"{layer.name}_weight", layer.weight_format.values(layer.weight))
        quantized = self.quant(f"{layer.name}_weight_quant", weight, layer.weight_format, "ROUND")
        bias = self.constant(f"{layer.name}_bias", np.ldexp(layer.bias.astype(float), -frac - layer.weight_format.frac))
        if layer.kind == "dense":
            return self.node("Gemm", layer.name, [x, quantized, bias], transB=1)
        kernel = list(layer.weight.shape[2:])
        return self.node(
            "Conv", layer.name, [x, quantized, bias],
            kernel_shape=kernel, pads=[0, 0, 0, 0], strides=[1, 1], dilations=[1, 1], group=1,
        )  # fmt: skip

    def requantize(self, layer: Requantize, x: str) -> str:
        name = layer.name
        if layer.kind == "relu":
            return self.quant(f"{name}_quant", self.node("Relu", name, [x]), layer.output)
        if not isinstance(layer, Leaky):
            return self.quant(name, x, layer.output)
        slope = float(np.ldexp(layer.slope_code, -layer.slope_frac))
        if layer.slope_code == 1:
            return self.quant(f"{name}_quant", self.node("LeakyRelu", name, [x], alpha=slope), layer.output)
        wide = self.node("Cast", f"{name}_wide", [x], to=TensorProto.DOUBLE)
        below = self.node("Mul", f"{name}_slope", [wide, self.constant(f"{name}_slope_value", slope, np.float64)])
        return self.quant(f"{name}_quant", self.node("Max", name, [wide, below]), layer.output)

    def block(self, layer: NonLocal, x: str, shape: tuple[int, ...]) -> str:
        """Queries (n, N, D), keys (n, D, K), values (n, K, D); scores (n, N, K), one row a query."""
        name, inner = layer.name, len(layer.theta.weight)

        def projected(part: Linear, to: Format, role: str, turned: bool) -> str:
            codes = self.quant(f"{name}_{role}", self.linear(part, x, layer.input.frac), to)
            if layer.pool > 1 and part is not layer.theta:
                window = [layer.pool, layer.pool]
                codes = self.node("MaxPool", f"{name}_{role}_pool", [codes], kernel_shape=window, strides=window)
            count = layer.positions if part is layer.theta else layer.keys
            flat = self.constant(f"{name}_{role}_shape", [1, inner, count], np.int64)
            rows = self.node("Reshape", f"{name}_{role}_flat", [codes, flat])
            return self.node("Transpose", f"{name}_{role}_rows", [rows], perm=[0, 2, 1]) if turned else rows

        def table(role: str, codes: NDArray[np.int64], entry: Format) -> str:
            values = self.constant(f"{name}_{role}", codes)
            return self.quant(f"{name}_{role}_quant", values, Format(entry.bits, 0, signed=False), "ROUND")

        query = projected(layer.theta, layer.query, "query", True)
        key = projected(layer.phi, layer.key, "key", False)
        value = projected(layer.g, layer.value, "value", True)
        scores = self.node("MatMul", f"{name}_scores", [query, key])
        highest = self.node("ReduceMax", f"{name}_maximum", [scores], axes=[-1], keepdims=1)
        difference = self.node("Sub", f"{name}_difference", [highest, scores])
        steps = self.quant(f"{name}_index_quant", difference, layer.difference)
        per_unit = self.constant(f"{name}_index_scale", 2.0**layer.difference.frac)
        index = self.node("Mul", f"{name}_index", [steps, per_unit])
        index = self.node("Cast", f"{name}_index_whole", [index], to=TensorProto.INT64)
        entries = table("exp_table", layer.exp_table, layer.exponential)
        exponentials = self.node("Gather", f"{name}_exponentials", [entries, index], axis=0)
        axes = self.constant(f"{name}_sum_axes", [-1], np.int64)
        total = self.node("ReduceSum", f"{name}_sum", [exponentials, axes], keepdims=1)
        total = self.node("Cast", f"{name}_sum_whole", [total], to=TensorProto.INT64)
        indices, powers = sum_tables(layer.keys * layer.exponential.high, layer.index_bits, layer.reciprocal.bits)
        places = self.constant(f"{name}_sum_index_table", indices, np.int64)
        which = self.node("Gather", f"{name}_sum_index", [places, total], axis=0)
        entries = table("reciprocal_table", layer.reciprocal_table, layer.reciprocal)
        reciprocal = self.node("Gather", f"{name}_reciprocal", [entries, which], axis=0)
        scales = self.constant(f"{name}_sum_power_table", powers, np.float64)
        power = self.node("Gather", f"{name}_sum_power", [scales, total], axis=0)
        wide = self.node("MatMul", f"{name}_weighted", [exponentials, value])
        wide = self.node("Cast", f"{name}_weighted_wide", [wide], to=TensorProto.DOUBLE)
        reciprocal = self.node("Cast", f"{name}_reciprocal_wide", [reciprocal], to=TensorProto.DOUBLE)
        product = self.node("Mul", f"{name}_product", [wide, reciprocal])
        mixed = self.quant(f"{name}_mixed", self.node("Mul", f"{name}_quotient", [product, power]), layer.mixed)
        mixed = self.node("Transpose", f"{name}_mixed_rows", [mixed], perm=[0, 2, 1])
        square = self.constant(f"{name}_mixed_shape", [1, inner, *shape[1:]], np.int64)
        mixed = self.node("Reshape", f"{name}_mixed_square", [mixed, square])
        return self.node("Add", name, [self.linear(layer.out, mixed, layer.mixed.frac), x])

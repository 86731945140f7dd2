"""Read an hls4ml model back and hold every layer's types and weights against the integer network."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from braggnn_edge.core.errors import UserError
from hls.project.attention import constants, steps, types
from hls.project.precision import bias_format, precision, slope_format
from quant.contract.arithmetic import Codes, exact_codes
from quant.contract.attention import NonLocal
from quant.contract.network import Flatten, IntegerNetwork, Leaky, Linear, Requantize

#: hls4ml layers that move values and compute nothing.
_MOVES = ("Reshape", "Repack")


@dataclass(frozen=True)
class Traced:
    """A layer of the integer network, or a step inside a non-local block, as the C simulation shows it.

    name and kind are the integer network's, ``hls`` is hls4ml's name. ``shape`` is hls4ml's: (rows, cols, channels)
    or (features,). ``frac`` is the fraction of its codes. The steps of a block (:func:`hls.project.attention.steps`)
    come before it; their names are ``<block>.<step>`` in both, their shapes those of
    :class:`quant.contract.attention.NonLocalResult`.
    """

    name: str
    kind: str
    hls: str
    shape: tuple[int, ...]
    frac: int


def check(graph: Any, network: IntegerNetwork, strategy: str, reuse: tuple[int, ...]) -> tuple[Traced, ...]:
    """Compare; raise a UserError that names the first layer that differs, else return the layers in order.

    strategy, reuse: as asked for, one factor for each convolution and dense layer; hls4ml changes what it cannot build.
    """
    found = [node for node in graph.get_layers() if node.class_name not in _MOVES]
    expected = [layer for layer in network.layers if not isinstance(layer, Flatten)]
    if len(found) != len(expected) + 1 or found[0].class_name not in ("Input", "InputLayer"):
        names = ", ".join(f"{node.name} ({node.class_name})" for node in found)
        raise UserError(
            f"hls4ml made layers {names}; expected an input and {', '.join(layer.name for layer in expected)}. "
            "The QONNX file and the integer network must come from the same `make qat`"
        )
    _same(found[0].name, "result", _type(found[0], "result_t"), precision(network.input, saturate=True))
    traced: list[Traced] = []
    # channels first, as in the integer network
    shape: tuple[int, ...] = network.shape if network.exponent else (1, *network.shape)
    layers, factors = iter(found[1:]), iter(reuse)
    for layer in network.layers:
        if isinstance(layer, Flatten):
            continue
        node = next(layers)
        if isinstance(layer, Linear):
            _check_linear(node, layer, shape)
            _check_reuse(node, layer, strategy, next(factors))
            frac = layer.accumulator.frac
        elif isinstance(layer, NonLocal):
            _check_block(node, layer)
            frac = layer.accumulator.frac
            traced += [
                Traced(f"{layer.name}.{step.name}", layer.kind, f"{node.name}.{step.name}", step.shape, step.frac)
                for step in steps(layer)
            ]
        else:
            _check_requantize(node, layer)
            frac = layer.output.frac
        variable = node.get_output_variable()
        shape = tuple(int(n) for n in variable.shape)
        traced.append(Traced(layer.name, layer.kind, node.name, shape, frac))
        shape = (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape
    return tuple(traced)


def _type(node: Any, name: str) -> str:
    return str(node.types[name].precision)


def _same(name: str, what: str, found: str, expected: str) -> None:
    if found != expected:
        raise UserError(
            f"layer {name}: hls4ml gave the {what} type {found}, the integer network needs {expected}; "
            "the project would not be exact, so it was not written"
        )


def _check_linear(node: Any, layer: Linear, inputs: tuple[int, ...]) -> None:
    kind = {"Conv2D": "conv2d", "PointwiseConv2D": "conv2d", "Dense": "dense"}.get(node.class_name)
    if kind != layer.kind:
        raise UserError(f"layer {layer.name}: hls4ml made it a {node.class_name}, expected {layer.kind}")
    _same(layer.name, "weight", _type(node, "weight_t"), precision(layer.weight_format))
    _same(layer.name, "bias", _type(node, "bias_t"), precision(bias_format(layer)))
    _same(layer.name, "accumulator", _type(node, "accum_t"), precision(layer.accumulator))
    _same(layer.name, "result", _type(node, "result_t"), precision(layer.accumulator))
    weight = exact_codes(np.asarray(node.weights["weight"].data, np.float64), layer.weight_format.frac, layer.name)
    if not any(np.array_equal(weight, form) for form in _weight_forms(layer, inputs)):
        raise UserError(f"layer {layer.name}: hls4ml's weights are not those of the integer network")
    bias = exact_codes(np.asarray(node.weights["bias"].data, np.float64), layer.accumulator.frac, layer.name)
    if not np.array_equal(bias.ravel(), layer.bias):
        raise UserError(f"layer {layer.name}: hls4ml's bias is not that of the integer network")


def _check_reuse(node: Any, layer: Linear, strategy: str, factor: int) -> None:
    found = str(node.get_attr("strategy")), int(node.get_attr("reuse_factor"))
    if found != (strategy.lower(), factor):
        raise UserError(
            f"layer {layer.name}: hls4ml made it strategy {found[0]} with reuse factor {found[1]}, "
            f"asked for were {strategy} and {factor}"
        )


def _weight_forms(layer: Linear, inputs: tuple[int, ...]) -> tuple[Codes, Codes]:
    """The weights in hls4ml's two orders: its own (inputs first, channels last) and the Resource strategy's."""
    if layer.kind == "conv2d":
        return layer.weight.transpose(2, 3, 1, 0), layer.weight.transpose(0, 2, 3, 1)
    weight = layer.weight
    if len(inputs) == 3:  # hls4ml flattens channels last
        weight = weight.reshape(-1, *inputs).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return weight.T, weight


def _check_block(node: Any, block: NonLocal) -> None:
    """Every type and every constant; rows and channels follow from the input's shape and the constants'."""
    if node.class_name != "NonLocal":
        raise UserError(f"layer {block.name}: hls4ml made it a {node.class_name}, expected a NonLocal")
    if node.get_attr("pool") != block.pool:
        raise UserError(
            f"layer {block.name}: hls4ml pools its keys by {node.get_attr('pool')}, the integer network by "
            f"{block.pool}; the project would not be exact, so it was not written"
        )
    for name, (to, rounds) in types(block).items():
        _same(block.name, name, _type(node, f"{name}_t"), precision(to, saturate=rounds))
    _same(block.name, "result", _type(node, "result_t"), precision(block.accumulator))
    for name, constant in constants(block).items():
        _same(block.name, name, _type(node, f"{name}_t"), precision(constant.format))
        values = np.asarray(node.weights[name].data, np.float64)
        if not np.array_equal(exact_codes(values, constant.format.frac, block.name), constant.codes):
            raise UserError(f"layer {block.name}: hls4ml's {name} is not that of the integer network")


def _check_requantize(node: Any, layer: Requantize) -> None:
    expected = {"relu": "relu", "identity": "linear", "leaky": "leakyrelu"}[layer.kind]
    activation = str(node.get_attr("activation", node.class_name)).lower()
    if activation != expected:
        raise UserError(f"layer {layer.name}: hls4ml made it {activation}, expected {expected}")
    _same(layer.name, "result", _type(node, "result_t"), precision(layer.output, layer.rounding, saturate=True))
    if isinstance(layer, Leaky):
        slope = slope_format(layer.slope_code, layer.slope_frac)
        _same(layer.name, "slope", _type(node, "param_t"), precision(slope))
        if float(node.get_attr("activ_param")) != float(np.ldexp(layer.slope_code, -layer.slope_frac)):
            raise UserError(f"layer {layer.name}: hls4ml's slope is not that of the integer network")

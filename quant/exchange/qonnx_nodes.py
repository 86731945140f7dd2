"""Single nodes of a QONNX graph: their attributes, their Quant parameters, the constants they read."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Codes, Format, exact_codes, power_of_two_exponent
from quant.contract.layers import Linear

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Conv": {"dilations": [1, 1], "group": 1, "pads": [0, 0, 0, 0], "strides": [1, 1], "auto_pad": b"NOTSET"},
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0},
    "MaxPool": {
        "dilations": [1, 1], "pads": [0, 0, 0, 0], "ceil_mode": 0, "storage_order": 0, "auto_pad": b"NOTSET",
    },
    "Flatten": {"axis": 1},
    "Reshape": {"allowzero": 0},
}  # fmt: skip


@dataclass(frozen=True)
class Constant:
    """A constant tensor: codes and format when it came through a Quant node, else its values alone."""

    values: NDArray[np.float64]
    codes: Codes | None = None
    format: Format | None = None


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    for found in node.attribute:
        if found.name == name:
            return onnx.helper.get_attribute_value(found)
    return default


def check_attributes(name: str, node: onnx.NodeProto) -> None:
    """Refuse a convolution, dense layer, pooling or reshape with attributes outside the contract."""
    for key, expected in ATTRIBUTES.get(node.op_type, {}).items():
        found = attribute(node, key, expected)
        found = list(found) if isinstance(expected, list) else found
        if found != expected:
            raise UserError(f"node {name}: {key} is {found}, expected {expected}; this contract has no other")


def quant_parameters(name: str, node: onnx.NodeProto, constants: dict[str, Constant]) -> tuple[Format, int, str]:
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
    signed, narrow = bool(attribute(node, "signed", 1)), bool(attribute(node, "narrow", 0))
    to = Format(int(bits), -power_of_two_exponent(scale, f"node {name}"), signed)
    if narrow and not signed:
        raise UserError(f"node {name}: narrow range of an unsigned tensor, expected the full range")
    rounding = attribute(node, "rounding_mode", b"ROUND").decode().upper()
    return to, to.low + narrow, "ROUND" if rounding == "HALF_EVEN" else rounding


def constant_quant(name: str, node: onnx.NodeProto, constants: dict[str, Constant]) -> Constant:
    """A constant behind a Quant node: its codes, rounded half-even."""
    to, low, rounding = quant_parameters(name, node, constants)
    if rounding != "ROUND":
        raise UserError(f"node {name}: rounding mode {rounding} of a constant, expected ROUND")
    scaled = np.ldexp(constants[node.input[0]].values, to.frac)
    if not np.isfinite(scaled).all():
        raise UserError(f"node {name}: its constant holds NaN or infinity; train the network again")
    codes = np.clip(np.rint(scaled), low, to.high).astype(np.int64)
    return Constant(to.values(codes), codes, to)


def bias_codes(name: str, constant: Constant, frac: int, outputs: int, one_for_all: bool) -> Codes:
    """A bias on its accumulator's grid; another value is refused. one_for_all: whether a single number is spread."""
    values = constant.values
    if values.ndim > 1 or values.size not in ((1, outputs) if one_for_all else (outputs,)):
        raise UserError(f"node {name}: bias of shape {values.shape}, expected {outputs} values")
    return exact_codes(np.broadcast_to(values, (outputs,)), frac, f"node {name}, bias")


def linear_layer(
    name: str, node: onnx.NodeProto, constants: dict[str, Constant], frac: int, data: tuple[int, ...]
) -> Linear:
    """A Conv, Gemm or MatMul node whose input has fraction ``frac`` and shape ``data`` without the batch.

    The bits of its accumulator are left open.
    """
    weight = constants.get(node.input[1])
    if weight is None or weight.codes is None or weight.format is None:
        raise UserError(f"node {name}: its weight {node.input[1]!r} is not quantized, expected a Quant node before it")
    codes, kind = weight.codes, "conv2d" if node.op_type == "Conv" else "dense"
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0)):
        codes = codes.T
    ranks = (4, 3) if kind == "conv2d" else (2, 1)
    if (codes.ndim, len(data)) != ranks or codes.shape[1] != data[0]:
        raise UserError(f"node {name}: weight of shape {codes.shape} does not fit data of shape {data}")
    codes = np.ascontiguousarray(codes)
    frac += weight.format.frac
    bias = np.zeros(len(codes), np.int64)
    if len(node.input) > 2 and node.input[2]:
        bias = bias_codes(name, constants[node.input[2]], frac, len(codes), kind == "dense")
    return Linear(name, kind, codes, weight.format, bias, Format(1, frac, signed=True))

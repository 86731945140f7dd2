"""The integer network: an ordered list of layers in codes and shifts; its file is a locator's."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import ROUNDINGS, Format
from quant.contract.attention import NonLocal
from quant.contract.layers import Flatten, Leaky, Linear, Requantize

__all__ = [
    "Flatten",
    "IntegerNetwork",
    "Layer",
    "Leaky",
    "Linear",
    "NonLocal",
    "Requantize",
]


Layer = Linear | Requantize | NonLocal | Flatten


@dataclass(frozen=True)
class IntegerNetwork:
    """Input codes (N, size, size) to output codes (N, 2): the offset (row, col) from the patch's centre pixel.

    With ``exponent`` above 0 the inputs are flat, (N, size**2 + exponent): the pixels row after row, then the codes of
    the patch's exponent (:mod:`quant.contract.block_shift`). A network that knows its uncertainty has four outputs:
    behind the offset the natural logarithm of its standard deviation, px, of each axis, before calibration.
    ``input`` and ``output`` are the formats at the two ends; offsets in pixels are ``output.values(codes)``.
    """

    size: int
    input: Format
    layers: tuple[Layer, ...]
    exponent: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input codes of one patch."""
        return (self.size**2 + self.exponent,) if self.exponent else (self.size, self.size)

    @property
    def outputs(self) -> int:
        """How many codes come out: 2, or 4 with sigma."""
        for layer in reversed(self.layers):
            if isinstance(layer, Linear):
                return len(layer.weight)
        raise UserError("an integer network must have a linear layer")

    @property
    def output(self) -> Format:
        """Format of the result: of the last requantization, or of the last accumulator when there is none."""
        last = self.layers[-1]
        if isinstance(last, Requantize):
            return last.output
        if isinstance(last, Linear):
            return last.accumulator
        raise UserError("an integer network must end in a linear layer or a requantization")


_KINDS: dict[str, type] = {
    "conv2d": Linear, "dense": Linear, "relu": Requantize, "identity": Requantize, "leaky": Leaky,
    "nonlocal": NonLocal, "flatten": Flatten,
}  # fmt: skip


def _plain(value: Any) -> Any:
    """asdict's nested dictionaries with their arrays as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def as_document(network: IntegerNetwork) -> dict[str, Any]:
    """The network as plain data: ``size``, ``input``, ``layers``, and ``exponent`` where it is an input."""
    layers = [_plain(asdict(layer)) for layer in network.layers]
    found = {"size": network.size, "input": asdict(network.input), "layers": layers}
    return found | ({"exponent": network.exponent} if network.exponent else {})


def from_document(document: dict[str, Any]) -> IntegerNetwork:
    """Read :func:`as_document`; KeyError, TypeError or ValueError for anything else."""
    layers = tuple(_layer(entry) for entry in document["layers"])
    exponent = whole(document.get("exponent", 0))
    found = IntegerNetwork(whole(document["size"]), Format(**document["input"]), layers, exponent)
    _check_linear_layers(found)
    return found


def _check_linear_layers(network: IntegerNetwork) -> None:
    """Refuse weights beyond their format, biases of another number, and dense layers that do not fit each other."""
    width = 0  # of a dense layer's result, 0 where it is not known
    for layer in network.layers:
        if isinstance(layer, Requantize) and layer.rounding not in ROUNDINGS:
            raise UserError(f"layer {layer.name}: rounding {layer.rounding!r}; expected one of {', '.join(ROUNDINGS)}")
        if not isinstance(layer, Linear):
            width = width if isinstance(layer, Requantize) else 0
            continue
        low, high = int(layer.weight.min(initial=0)), int(layer.weight.max(initial=0))
        if low < layer.weight_format.low or high > layer.weight_format.high:
            raise UserError(
                f"layer {layer.name}: weights span {low} to {high}, its format holds {layer.weight_format.low} to "
                f"{layer.weight_format.high}"
            )
        if layer.bias.shape != (len(layer.weight),):
            raise UserError(f"layer {layer.name}: {layer.bias.size} biases for {len(layer.weight)} outputs")
        if layer.kind == "dense" and width and layer.weight.shape[1:] != (width,):
            raise UserError(
                f"layer {layer.name}: weights of shape {layer.weight.shape}, but {width} inputs come from the layer "
                "before"
            )
        width = len(layer.weight) if layer.kind == "dense" else 0


def _layer(entry: dict[str, Any]) -> Layer:
    """A layer from its dictionary: a field is a format, a layer inside (of a non-local block), an array or plain."""
    fields = dict(entry)
    for key, value in entry.items():
        if isinstance(value, dict):
            fields[key] = _layer(value) if "kind" in value else Format(**value)
        elif isinstance(value, list):
            fields[key] = _integers(value)
    layer: Layer = _KINDS[fields["kind"]](**fields)
    return layer


def whole(value: Any) -> int:
    """An integer as it is read from a file; TypeError for a fraction, which would be cut."""
    if type(value) is not int:
        raise TypeError(f"expected an integer, got {value!r}")
    return value


def _integers(value: list[Any]) -> NDArray[np.int64]:
    found = np.asarray(value)
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"expected integers, got {found.dtype}")
    return found.astype(np.int64)

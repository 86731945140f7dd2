"""The integer network: an ordered list of layers in codes and shifts, and its file, ``integer.json``."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.errors import UserError
from quant.arithmetic import Codes, Format
from quant.normalize import Normalizer


@dataclass(frozen=True)
class Linear:
    """A convolution or a dense layer: ``accumulator = sum(weight * input) + bias``, exact and never rounded.

    kind is "conv2d" (weight (out, in, kh, kw), stride 1, no padding) or "dense" (weight (out, in)). Bias codes are
    at the accumulator's fraction, ``input.frac + weight.frac``. The accumulator format is sized from the actual
    weights by interval arithmetic (:func:`quant.arithmetic.linear_bounds`).
    """

    name: str
    kind: str
    weight: Codes
    weight_format: Format
    bias: Codes
    accumulator: Format


@dataclass(frozen=True)
class Requantize:
    """kind "relu" or "identity": max(0, x) if relu, then shift with rounding, then saturation to ``output``."""

    name: str
    kind: str
    output: Format
    rounding: str = "floor"


@dataclass(frozen=True)
class Flatten:
    """(channels, rows, cols) to a vector, in that order (channel slowest)."""

    name: str
    kind: str = "flatten"


Layer = Linear | Requantize | Flatten


@dataclass(frozen=True)
class IntegerNetwork:
    """Input codes (N, 1, size, size) to output codes (N, 2): the offset (row, col) from the patch's centre pixel.

    ``input`` and ``output`` are the formats at the two ends; offsets in pixels are ``output.values(codes)``.
    """

    size: int
    input: Format
    layers: tuple[Layer, ...]

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
    "conv2d": Linear, "dense": Linear, "relu": Requantize, "identity": Requantize, "flatten": Flatten,
}  # fmt: skip
_FORMATS = ("weight_format", "accumulator", "output")
_ARRAYS = ("weight", "bias")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def save(network: IntegerNetwork, path: Path, normalizer: Normalizer | None = None) -> None:
    """Write ``integer.json``: the same bytes for the same network, and the normalizer with its table if given."""
    layers = [{k: _plain(v) for k, v in asdict(layer).items()} for layer in network.layers]
    document: dict[str, Any] = {"version": 1, "size": network.size, "input": asdict(network.input)}
    document["layers"] = layers
    if normalizer is not None:
        document["normalizer"] = normalizer.document()
    path.write_text(json.dumps(document, indent=None, separators=(",", ":")) + "\n")


def load(path: Path) -> IntegerNetwork:
    """Read ``integer.json``; a file of another kind or version, or an incomplete one, is refused."""
    document = _document(path)
    try:
        layers = tuple(_layer(entry) for entry in document["layers"])
        return IntegerNetwork(int(document["size"]), Format(**document["input"]), layers)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged integer network ({error!r}); make it again with `make qat`") from error


def load_normalizer(path: Path) -> Normalizer:
    """Read the normalizer of ``integer.json``; a file without one is refused."""
    document = _document(path)
    if "normalizer" not in document:
        raise UserError(f"{path}: holds no normalizer; make it again with `make qat`")
    return Normalizer.from_document(document["normalizer"])


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
        version = document["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an integer network ({error}); make it with `make qat`") from error
    if version != 1:
        raise UserError(f"{path}: integer network version {version}, expected 1; make it again with `make qat`")
    return document


def _layer(entry: dict[str, Any]) -> Layer:
    fields = dict(entry)
    for key in _FORMATS:
        if key in fields:
            fields[key] = Format(**fields[key])
    for key in _ARRAYS:
        if key in fields:
            fields[key] = np.asarray(fields[key], dtype=np.int64)
    layer: Layer = _KINDS[fields["kind"]](**fields)
    return layer

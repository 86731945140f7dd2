"""The locators in integers that come with the project."""

from pathlib import Path

import braggnn_edge
from quant.contract.layers import Linear
from quant.contract.locator import load

#: By the name that stands for them in ``[qat] network``.
_FILES = {"shipped": "universal_layers.json", "shipped_circuit": "universal_circuit.json"}


def path_of(name: str) -> Path:
    """The locator file of what ships: "shipped" in layers, "shipped_circuit" unrolled."""
    return Path(braggnn_edge.__file__).parent / "weights" / _FILES[name]


def shapes_of(name: str) -> list[tuple[str, str, int, int]]:
    """Of each convolution and dense layer of what ships: name, kind, outputs, and inputs of each output."""
    layers = [layer for layer in load(path_of(name)).network.layers if isinstance(layer, Linear)]
    return [(layer.name, layer.kind, len(layer.weight), layer.weight[0].size) for layer in layers]

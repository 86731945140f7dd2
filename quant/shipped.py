"""The locators in integers that come with the project."""

from pathlib import Path

import braggnn_edge
from quant.contract.locator import load

#: By the name that stands for them in ``[qat] network``.
_FILES = {"shipped": "universal_layers.json", "shipped_circuit": "universal_circuit.json"}


def path_of(name: str) -> Path:
    """The locator file of what ships: "shipped" in layers, "shipped_circuit" unrolled."""
    return Path(braggnn_edge.__file__).parent / "weights" / _FILES[name]


def layers_of(name: str) -> tuple[int, int]:
    """Convolutions and hidden dense layers of what ships."""
    kinds = [layer.kind for layer in load(path_of(name)).network.layers]
    return kinds.count("conv2d"), kinds.count("dense") - 1

"""The kinds of float networks that family_networks.py compares: all correct the squared centroid and predict ln b.

Convolutional ones are BraggNN's layers (braggnn_edge.training.model), with pixels as the universal network takes them.
The exponent joins the flattened features in front of the dense layers, and four outputs take the place of two.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from braggnn_edge.core import config, stages
from braggnn_edge.locate.fused import multiplications
from braggnn_edge.training.initialize import begin_dense
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from braggnn_edge.universal.network import CentroidCorrection, UniversalNetwork, scaled

ROOT = Path(__file__).resolve().parent.parent
#: Side of a patch, px.
SIZE = 11
#: Outputs: offset (row, col) and ln b of each.
_OUTPUTS = 4


class ConvolutionalCorrection(CentroidCorrection):
    """BraggNN's layers that correct the squared centroid. Raises UserError for a size that does not fit the layers."""

    def __init__(self, size: int, spec: NetworkSpec) -> None:
        super().__init__(size)
        self.spec = spec
        self.braggnn = BraggNN(spec, size)
        layers = self.braggnn.dense_layers
        first, last = (layer for layer in (layers[0], layers[-1]) if isinstance(layer, nn.Linear))
        layers[0] = nn.Linear(first.in_features + 1, first.out_features)
        layers[-1] = nn.Linear(last.in_features, _OUTPUTS)
        nn.init.xavier_uniform_(layers[0].weight)  # the last one's are set by begin()

    def missing(self, pixels: Tensor, exponent: Tensor) -> Tensor:
        return self.braggnn.dense_layers(self._joined(pixels, exponent))

    def begin(self, patches: Tensor) -> None:
        """Begin at the squared centroid with no dead unit (decision 18), from patches (n, size, size) in counts."""
        pixels, exponent = scaled(patches)
        layers = [layer for layer in self.braggnn.dense_layers if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            begin_dense(layers, self._joined(pixels, (exponent[:, None] - 8) / 4), self.spec.slope)

    def _joined(self, pixels: Tensor, exponent: Tensor) -> Tensor:
        return torch.cat([self.braggnn.features(pixels[:, None]), exponent], 1)


@dataclass(frozen=True)
class Kind:
    """A kind of network: how it is built for patches of a size, px, and how it is called."""

    label: str
    build: Callable[[int], CentroidCorrection]


def _compact() -> NetworkSpec:
    """The compact network of the full-length run."""
    return config.load(ROOT / "configs" / "simulated.toml", stages.tables())["compact"].network


def _published(attention: bool = True, wide: bool = False) -> NetworkSpec:
    """The published layers. The dense ones are twice as wide, since four outputs would be functions of 2 units else.

    wide: dense layers of 64 and 32 units in their place.
    """
    spec = NetworkSpec()
    return replace(spec, dense=(64, 32) if wide else tuple(2 * width for width in spec.dense), attention=attention)


def _convolutional(label: str, spec: Callable[[], NetworkSpec]) -> Kind:
    return Kind(label, lambda size: ConvolutionalCorrection(size, spec()))


def _dense(*widths: int) -> Kind:
    return Kind("dense " + "-".join(map(str, widths)), lambda size: UniversalNetwork(size, widths))


#: By name, as in family_networks.json.
KINDS: dict[str, Kind] = {
    "published": _convolutional("published", _published),
    "without_attention": _convolutional("published, no attention", lambda: _published(attention=False)),
    "wide_head": _convolutional("published, head 64-32", lambda: _published(wide=True)),
    "wide_head_without_attention": _convolutional(
        "published, head 64-32, no attention", lambda: _published(attention=False, wide=True)
    ),
    "compact": _convolutional("compact", _compact),
    "dense_64_32": _dense(64, 32),
    "dense_256_128": _dense(256, 128),
    "dense_512_256": _dense(512, 256),
}


def begun(name: str, seed: int, patches: Tensor) -> CentroidCorrection:
    """A network of a kind as its training begins, from a first batch (n, size, size) in counts."""
    torch.manual_seed(seed)
    network = KINDS[name].build(patches.shape[-1])
    if isinstance(network, ConvolutionalCorrection):
        network.begin(patches)
    return network


def cost(network: CentroidCorrection) -> dict[str, Any]:
    """Layers, weights, and multiplications a patch: layer by layer, and with all that is linear multiplied out.

    Scaling is a shift. The squared centroid, the same in front of all, and the softmax are not counted.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    if isinstance(network, ConvolutionalCorrection):
        spec = network.spec
        layers = {"conv": spec.conv, "dense": spec.dense, "attention": spec.attention, "slope": spec.slope}
        more = spec.dense[0] + (_OUTPUTS - 2) * spec.dense[-1]
        plain, fused = (multiplications(spec, network.size, fused) + more for fused in (False, True))
    else:
        layers = {"dense": network.dense}
        widths = (network.size**2 + 1, *network.dense, _OUTPUTS)
        plain = fused = sum(inputs * outputs for inputs, outputs in pairwise(widths))
    return {"layers": layers, "weights": weights, "multiplications": plain, "multiplications_multiplied_out": fused}

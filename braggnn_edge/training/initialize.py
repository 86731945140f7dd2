"""Initial weights that lose no direction: the dense layers begin linear, and every answer begins at the centre pixel.

As published, biases begin at 0, which costs short trainings one of their two coordinates (decision 18):

- The network's answer is measured from the patch's corner, so it begins half a patch away from every label. The first
  steps move all answers there together, and push hidden units to where they pass all patches or none.
- Hidden values of different patches are alike, so a unit passes all patches or none from the beginning. Where a layer
  has two units, one that passes none takes a coordinate with it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from braggnn_edge.training.dataset import min_max
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.upstream import from_offset

#: Where a hidden unit's values begin: their mean lies so many of their standard deviations above 0.
_ABOVE = 3.0


@torch.no_grad()
def begin_linear(net: BraggNN, patches: Tensor) -> None:
    """Set biases of the dense layers, and the last one's weights, from patches (n, size, size) in counts.

    As :func:`begin_dense` does, but the answer is the centre pixel.
    """
    layers = [layer for layer in net.dense_layers if isinstance(layer, nn.Linear)]
    begin_dense(layers, net.features(min_max(patches)[:, None]), net.spec.slope)
    last = layers[-1]
    last.bias.copy_(from_offset(torch.zeros_like(last.bias)[None], net.size)[0])


@torch.no_grad()
def begin_dense(layers: Sequence[nn.Linear], x: Tensor, slope: float) -> None:
    """Set biases of dense layers, and the last one's weights, from what the first receives, ``x`` (n, inputs).

    slope: of the activation between them. Hidden units pass nearly every patch, by way of the bias alone; the last
    layer answers 0, with all its weights 0. A unit that has the same value for all patches begins at 0.
    """
    *hidden, last = layers
    for layer in hidden:
        values = layer(x)
        spread, mean = torch.std_mean(values, dim=0, correction=0)
        shift = _ABOVE * spread - mean
        layer.bias.add_(shift)
        x = nn.functional.leaky_relu(values + shift, slope)
    last.weight.zero_()
    last.bias.zero_()

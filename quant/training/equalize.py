"""A float network rewritten for quantization: the same function, its channels of equal range.

One power-of-two scale serves a whole tensor, so a channel of a small range among large ones has few codes left. An
activation with a slope passes positive factors through, act(s * x) = s * act(x), so each channel can be divided by its
range and the weights that read it multiplied by it (cross-layer equalization, Nagel et al., arXiv:1906.04721; here by
the ranges of the activations, measured). Queries times keys, and values before ``out``, have the same freedom.

What activations gain the weights may lose, whose tensors have one scale too: how far to go is :data:`POWERS`.
"""

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from braggnn_edge.training.model import BraggNN, NonLocalBlock

#: Powers of a channel's range, over the largest of its tensor, that it is divided by: from half the way to all of it.
POWERS = (0.5, 0.75, 1.0)

#: What the largest value of each channel becomes: just below a power of two, the end of a format's range.
_TARGET = 0.99

#: A channel counts as of one sign when what it has of the other is, squared, at most this fraction of its variance.
_NEGLIGIBLE = 1e-3

#: How far above 0 a channel of one sign begins, over its range: room for patches unlike those of the calibration.
_MARGIN = 0.03

#: Patches whose float attention is evaluated at a time.
_BATCH = 256


@torch.no_grad()
def equalized(net: BraggNN, values: Tensor, power: float = 1.0) -> BraggNN:
    """A copy of ``net`` in float64 that computes the same, with channels of equal range on ``values`` (n, 1, s, s).

    power: of the ratio of a channel's range to its tensor's largest; at less than 1 the ranges are less unequal only.
    A channel that is never positive on ``values`` lives in the slope, at a hundredth of its range; one that is never
    negative may be far from 0. Both are moved to begin just above 0, which is the same function as long as their sign
    stays. Only there does the copy differ.
    """
    net = copy.deepcopy(net).double().eval()
    slope, block = net.spec.slope, net.nlb if net.spec.attention else None
    convolutions = [m for m in net.cnn_layers if isinstance(m, nn.Conv2d)]
    layers = [*convolutions, *(m for m in net.dense_layers if isinstance(m, nn.Linear))]
    x = values.double()
    for index, (layer, reader) in enumerate(itertools.pairwise(layers)):
        if isinstance(layer, nn.Linear):
            x = x.flatten(1)
        a = layer(x)
        if index == 0 and block is not None:
            both = torch.maximum(_ranges(a), _ranges(functional.leaky_relu(_attended(block, a), slope)))
            readers = (block.theta_layer, block.phi_layer, block.g_layer, reader)
            _divide((layer, block.out_cnn), readers, _factors(both, power))
            _equalize_block(block, layer(x), power)
        else:
            _lift(layer, reader, a, slope)
            a = layer(x)
            _divide((layer,), (reader,), _factors(_ranges(functional.leaky_relu(a, slope)), power))
        a = layer(x)
        x = functional.leaky_relu(a if index or block is None else _attended(block, a), slope)
    return net


def _ranges(values: Tensor) -> Tensor:
    """The largest magnitude of each channel of (n, channels, ..)."""
    return values.abs().transpose(0, 1).flatten(1).amax(1)


def _factors(ranges: Tensor, power: float) -> Tensor:
    """What channels of these ranges are divided by, the largest to end at the target; one that is always 0 by 1."""
    largest = ranges.max()
    return torch.where(ranges > 0, (ranges / largest) ** power * (largest / _TARGET), torch.ones_like(ranges))


def _divide(writers: Sequence[nn.Module], readers: Sequence[nn.Module], factors: Tensor) -> None:
    """Divide the channels that ``writers`` make and ``readers`` read by ``factors`` (channels,)."""
    for layer in writers:
        weight, bias = _parameters(layer)
        weight /= factors.reshape(-1, *(1,) * (weight.ndim - 1))
        bias /= factors
    for layer in readers:
        columns = _columns(layer, len(factors))
        columns *= factors[None, :, None]


def _lift(layer: nn.Module, reader: nn.Module, a: Tensor, slope: float) -> None:
    """Let channels of one sign in ``a`` begin just above 0: the slope goes into the weights, a shift into the biases.

    As long as their sign stays, they are linear, and a shift is taken back where they are read.
    """
    flat = a.transpose(0, 1).flatten(1)
    wrong = torch.stack([flat.clamp(min=0).square().mean(1), flat.clamp(max=0).square().mean(1)])
    never_positive = wrong[0] <= _NEGLIGIBLE * slope**2 * flat.var(1)
    scale = torch.ones_like(wrong[0]).masked_fill(never_positive, slope)
    one_sign = never_positive | (wrong[1] <= _NEGLIGIBLE * flat.var(1))
    low, high = flat.amin(1) * scale, flat.amax(1) * scale
    shift = torch.where(one_sign, _MARGIN * (high - low) - low, torch.zeros_like(low))
    weight, bias = _parameters(layer)
    weight *= scale.reshape(-1, *(1,) * (weight.ndim - 1))
    bias.copy_(bias * scale + shift)
    columns = _columns(reader, len(shift))
    _parameters(reader)[1].sub_((columns * shift[None, :, None]).sum((1, 2)))


def _equalize_block(block: NonLocalBlock, x: Tensor, power: float) -> None:
    """Equal ranges of the values' channels, and of each query channel and its key's, whose products stay."""
    query, key = _ranges(block.theta_layer(x)), _ranges(block.phi_layer(x))
    used = (query > 0) & (key > 0)
    common = torch.where(used, query / torch.where(used, key, 1), torch.ones_like(query)).sqrt()
    _divide((block.theta_layer,), (), common)
    _divide((block.phi_layer,), (), 1 / common)
    _divide((block.g_layer,), (block.out_cnn,), _factors(_ranges(block.g_layer(x)), power))


def _attended(block: NonLocalBlock, x: Tensor) -> Tensor:
    return torch.cat([block(part) for part in x.split(_BATCH)])


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    assert layer.bias is not None
    return layer.weight, layer.bias


def _columns(layer: nn.Module, channels: int) -> Tensor:
    """The weights as (outputs, channels, weights of one channel): a view, kernels or flattened maps alike."""
    weight, _ = _parameters(layer)
    return weight.view(len(weight), channels, -1)

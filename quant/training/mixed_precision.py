"""A small network whose bit widths are learned with its weights: one fraction a channel, and what it costs in bits.

Every output channel has a fraction of its own for its weights and one for its activation, both trained through their
rounding: a larger step makes the rounding error larger in proportion, which is the derivative used (as in HGQ, Sun et
al., arXiv:2405.00645). Floor and saturation are those of the contract. A channel's own fraction is no new arithmetic:
powers of two move into the weights that read the channel, and what is exported has one fraction a layer
(:func:`quant.training.mixed_precision_integers.integers`).
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from quant.contract.arithmetic import Format
from quant.training.circuit_spec import CircuitNetworkSpec

#: Bits that a bias may have below the last bit of its channel's activation.
GUARD = 2

#: Largest difference between the fractions of a layer's channels, bits.
_SPREAD = 3.0

#: Adam moves every parameter by about the learning rate; fractions have to move by whole bits.
_PACE = 8.0

_LN2 = math.log(2)

#: A learned fraction beyond any that can be held.
_WIDE = 8.0


class _Rounded(torch.autograd.Function):
    """Values on the grid of 2**-fraction, saturated, with a gradient for the values and for the fractions.

    Inside the range the rounding error is proportional to the step, beyond it what is left is proportional to the
    range: both derivatives by the fraction are -ln 2 times the thing itself.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, fraction: Tensor, low: float, high: float, floor: bool, keep: bool) -> Tensor:
        """keep: whether the gradient of saturated values passes, so that weights can return into the range."""
        scale = torch.exp2(fraction)
        code = x * scale
        code = torch.floor(code) if floor else torch.round(code)
        clipped = torch.clamp(code, low, high)
        value = clipped / scale
        inside = code == clipped
        ctx.save_for_backward(torch.where(inside, value - x, value), inside if not keep else torch.ones(()))
        ctx.shape = fraction.shape
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        proportional, passes = ctx.saved_tensors
        return grads[0] * passes, (-_LN2 * grads[0] * proportional).sum_to_size(ctx.shape), None, None, None, None


class MixedPrecisionLayer(nn.Module):
    """A convolution or dense layer, the rounding of its weights, and the activation after it.

    weight (outputs, inputs, ..); ``fraction`` and ``activation_fraction`` (outputs,), or (1,) for one width a layer, as
    learned, in units of :data:`_PACE` bits. The last layer has no ReLU and a fixed activation format, ``output``.
    """

    mask: Tensor
    peak: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear, spec: CircuitNetworkSpec, output: Format | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().clone())
        self.bias = nn.Parameter(torch.zeros(len(self.weight)))
        own, self.learns = len(self.weight) if spec.widths == "channel" else 1, spec.widths != "fixed"
        self.fraction = nn.Parameter(torch.zeros(own), requires_grad=self.learns)
        self.activation_fraction = nn.Parameter(torch.zeros(own), requires_grad=self.learns and output is None)
        self.register_buffer("mask", torch.ones_like(self.weight))
        self.register_buffer("peak", torch.ones(len(self.weight)))  # largest activation seen, in training
        self.convolution = isinstance(layer, nn.Conv2d)
        self.weight_bits, self.activation_bits, self.output = spec.weight_bits, spec.activation_bits, output

    def fractions(self) -> tuple[Tensor, Tensor]:
        """Fraction bits (outputs,) of weights and of activations: whole, with the gradient of the learned ones."""
        count = len(self.weight)
        weight, activation = ((_PACE * raw).expand(count) for raw in (self.fraction, self.activation_fraction))
        if self.output is not None:
            activation = torch.full_like(activation, self.output.frac)
        return _whole(weight), _whole(activation)

    @torch.no_grad()
    def hold(self) -> None:
        """Bring the learned fractions back to where the largest weight and the largest activation seen still fit.

        Otherwise training may raise them until everything saturates. Those of a layer stay at most :data:`_SPREAD`
        apart, which bounds the widths of the fused network.
        """
        top = self.weight.flatten(1).abs().amax(1).clamp(min=2.0**-12)
        for raw, bits, largest in (
            (self.fraction, self.weight_bits - 1, top),
            (self.activation_fraction, self.activation_bits, self.peak.clamp(min=2.0**-8)),
        ):
            most = bits - torch.ceil(torch.log2(largest))
            most = torch.minimum(most, most.min() + _SPREAD) if len(raw) > 1 else most.min()
            held = torch.minimum(_PACE * raw, most)
            raw.copy_(torch.maximum(held, held.max() - _SPREAD) / _PACE)

    def rounded(self) -> "Rounding":
        """Weights, biases and fractions as they are used."""
        weight_fraction, activation_fraction = self.fractions()
        fraction = weight_fraction.reshape(-1, *(1,) * (self.weight.ndim - 1))
        limit = 2.0 ** (self.weight_bits - 1) - 1
        weight = _Rounded.apply(self.weight * self.mask, fraction, -limit, limit, False, True)
        scale = torch.exp2(activation_fraction.detach() + GUARD)
        bias = self.bias + (torch.round(self.bias.detach() * scale) / scale - self.bias.detach())
        return Rounding(weight, bias, fraction, activation_fraction)

    def forward(self, x: Tensor, use: "Rounding | None") -> Tensor:
        """The layer's result for activations x; ``use``: its rounding, None for the float layer."""
        weight, bias = (self.weight * self.mask, self.bias) if use is None else (use.weight, use.bias)
        a = functional.conv2d(x, weight, bias) if self.convolution else functional.linear(x, weight, bias)
        if self.output is None:
            a = torch.relu(a)
            if self.training:
                with torch.no_grad():
                    self.peak.copy_(torch.maximum(a.transpose(0, 1).flatten(1).amax(1), 0.99 * self.peak))
        if use is None:
            return a
        low, high = (0, 2**self.activation_bits - 1) if self.output is None else (self.output.low, self.output.high)
        fraction = use.activation_fraction.reshape(-1, *(1,) * (a.ndim - 2))
        return _Rounded.apply(a, fraction, low, high, True, False)

    def cost(self, use: "Rounding", input_bits: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        """Effective bit operations (a number), and the bits of each output channel, with gradients.

        input_bits (inputs,): of each input. A weight's bits are log2(1 + |code|): 0 for a weight of 0.
        """
        bits = torch.log2(1 + (use.weight * torch.exp2(use.fraction)).abs())
        spent = (bits.transpose(0, 1).flatten(1).sum(1) * input_bits).sum() * positions
        top = self.peak * torch.exp2(use.activation_fraction)
        return spent, torch.log2(1 + top).clamp(max=self.activation_bits)


@dataclass(frozen=True)
class Rounding:
    """What a layer computes with: weight (outputs, inputs, ..), bias (outputs,), and the fractions of both ends.

    fraction (outputs, 1, ..) of the weights; activation_fraction (outputs,).
    """

    weight: Tensor
    bias: Tensor
    fraction: Tensor
    activation_fraction: Tensor


def _whole(fraction: Tensor) -> Tensor:
    """Whole fractions, with the gradient of the learned ones."""
    return fraction + (fraction.round() - fraction).detach()


class MixedPrecisionNetwork(nn.Module):
    """Input values (n, 1, window, window), codes * 2**-input bits, to (n, 2): (row, col) in px, a correction or all.

    With ``exponent`` inputs more they are flat, (n, window**2 + exponent); of four outputs two are ln sigma (row, col).

    ``quantized`` (False at first) chooses between the float network and its rounded form; both share the weights.
    """

    def __init__(
        self,
        spec: CircuitNetworkSpec,
        window: int,
        input: Format,
        output: Format,
        *,
        exponent: int = 0,
        outputs: int = 2,
    ) -> None:
        super().__init__()
        self.spec, self.window, self.input, self.output = spec, window, input, output
        self.exponent, self.outputs = exponent, outputs
        self.quantized = False
        side = spec.side(window)
        made: list[nn.Conv2d | nn.Linear] = []
        for i, o in zip((1, *spec.conv), spec.conv, strict=False):
            made.append(nn.Conv2d(i, o, spec.kernel))
        widths = (side * side * (spec.conv[-1] if spec.conv else 1) + exponent, *spec.dense, outputs)
        made += [nn.Linear(i, o) for i, o in itertools.pairwise(widths)]
        last = len(made) - 1
        self.layers = nn.ModuleList(
            MixedPrecisionLayer(layer, spec, output if index == last else None) for index, layer in enumerate(made)
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input codes of one patch."""
        return (self.window**2 + self.exponent,) if self.exponent else (self.window, self.window)

    @property
    def stack(self) -> list[MixedPrecisionLayer]:
        """The layers, in order."""
        return cast(list[MixedPrecisionLayer], list(self.layers))

    def learn_widths(self, on: bool) -> None:
        """Whether training moves the fractions."""
        for layer in self.stack:
            layer.fraction.requires_grad_(on and layer.learns)
            layer.activation_fraction.requires_grad_(on and layer.learns and layer.output is None)

    @torch.no_grad()
    def mask_zeros(self) -> None:
        """Mask the weights that are rounded to 0, so that they stay 0."""
        for layer in self.stack:
            layer.mask.copy_((layer.rounded().weight != 0).to(layer.mask.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.priced(x)[0]

    def priced(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Answers (n, 2), and each layer's effective bit operations, with gradients; none for the float network."""
        bits = torch.full((1,), float(self.input.bits), dtype=x.dtype)
        if self.exponent:  # of one bit each
            bits = torch.cat([bits.expand(self.window**2), bits.new_ones(self.exponent)])
        side, costs = self.window, []
        for layer in self.stack:
            use = layer.rounded() if self.quantized else None
            x = layer(x if layer.convolution else x.flatten(1), use)
            if use is not None:
                if layer.convolution:
                    side -= self.spec.kernel - 1
                bits = bits.repeat_interleave(layer.weight.shape[1] // len(bits))  # flattened: channel slowest
                spent, bits = layer.cost(use, bits, side * side if layer.convolution else 1)
                costs.append(spent)
        return x, costs

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Turn rounding on, all fractions set from the float weights and the activations of input values x."""
        for layer in self.stack:
            x = layer(x if layer.convolution else x.flatten(1), None)
            layer.peak.copy_(x.abs().transpose(0, 1).flatten(1).amax(1))
            layer.fraction.fill_(_WIDE)
            layer.activation_fraction.fill_(_WIDE)
            layer.hold()
        self.quantized = True


@torch.no_grad()
def prune(net: MixedPrecisionNetwork, weights: float, channels: float) -> None:
    """Mask a share of the weights of each layer (the smallest), and of the hidden dense channels (the weakest).

    A channel's strength is the norm of the weights that make it times that of those that read it. The last layer's
    weights are left. Masked weights may come back when the mask is drawn again.
    """
    layers = net.stack
    for layer in layers[:-1]:
        count = int(weights * layer.weight.numel())
        mask = torch.ones_like(layer.weight)
        if count:
            mask.view(-1)[layer.weight.abs().flatten().argsort()[:count]] = 0
        layer.mask.copy_(mask)
    for layer, reader in itertools.pairwise(layers):
        if layer.convolution or reader.convolution:
            continue
        count = int(channels * len(layer.weight))
        made, read = (layer.weight * layer.mask).norm(dim=1), (reader.weight * reader.mask).norm(dim=0)
        weakest = (made * read).argsort()[:count]
        layer.mask[weakest] = 0
        reader.mask[:, weakest] = 0

"""The quantized network in Brevitas: a trainable twin of the compact float network, exact when run in float64."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas.quant import Int32Bias
from numpy.typing import NDArray
from torch import Tensor, nn

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from braggnn_edge.training.upstream import fold_offset
from quant.contract.arithmetic import Codes, exact_codes
from quant.contract.emulate import checked_codes
from quant.training.plan import BitPlan
from quant.training.qnonlocal import QuantNonLocal, calibrate_block
from quant.training.quantizers import (
    KeptQuantizers,
    PowerOfTwoScale,
    QuantLeakyReLU,
    Signed,
    Unsigned,
    Weight,
    convolution,
    corrected,
    fit_scale,
    fit_signed,
    scale_of,
)

__all__ = [
    "PowerOfTwoScale",
    "QuantBraggNN",
    "apply_masks",
    "calibrate",
    "eval_exact",
    "exact_copy",
    "fit_weight_scales",
    "load_float",
    "prune",
    "scale_of",
    "sparsity",
    "train_scales",
]

#: Patches evaluated at a time in float64; bounds memory at about 1 MiB times the number of channels, and, where there
#: is attention, at 13 MiB for each array of scores.
_BATCH, _ATTENTION_BATCH = 2048, 256


class QuantBraggNN(KeptQuantizers):
    """Input values (n, 1, size, size), codes * 2**-input_bits, to offsets (n, 2) (row, col) px from the centre pixel.

    conv and dense hold the layers in order, conv_act and dense_act the quantized ReLUs or LeakyReLUs between them, nlb
    the non-local block after the first convolution (or None), input and output the formats at the ends. Every scale is
    a power of two and every zero point 0. ``mask`` of each layer is 1 where a weight lives and 0 where it is pruned; it
    is applied in each forward pass and saved with the state.
    """

    def __init__(self, spec: NetworkSpec, size: int, plan: BitPlan) -> None:
        super().__init__()
        spec.check_patch_size(size)
        plan.check(spec, size)
        self.spec, self.size, self.plan = spec, size, plan
        bits, hidden = plan.weights(spec), len(spec.conv) + len(spec.dense)
        self.input = qnn.QuantIdentity(Unsigned, bit_width=plan.input_bits, return_quant_tensor=True)
        self.conv = nn.ModuleList(
            convolution(i, o, 3, bit)
            for i, o, bit in zip((1, *spec.conv), spec.conv, (bits[0], *bits[-hidden:]), strict=False)
        )
        block = (spec.conv[0], spec.inner, spec.attention_pool, plan.attention)
        self.nlb = QuantNonLocal(*block) if spec.attention else None
        side = size - 2 * len(spec.conv)
        widths = (side * side * spec.conv[-1], *spec.dense, 2)
        self.dense = nn.ModuleList(
            qnn.QuantLinear(i, o, bias=True, weight_quant=Weight, weight_bit_width=bit, bias_quant=Int32Bias)
            for (i, o), bit in zip(itertools.pairwise(widths), bits[-len(spec.dense) - 1 :], strict=True)
        )
        slope = plan.slope(spec)
        activations: list[nn.Module] = [
            QuantLeakyReLU(slope, b) if slope else qnn.QuantReLU(Unsigned, bit_width=b, return_quant_tensor=True)
            for b in plan.activations(spec)
        ]
        self.conv_act = nn.ModuleList(activations[: len(spec.conv)])
        self.dense_act = nn.ModuleList(activations[len(spec.conv) :])
        self.output = qnn.QuantIdentity(Signed, bit_width=plan.output_bits, return_quant_tensor=False)
        for layer in self.layers():
            layer.register_buffer("mask", torch.ones_like(layer.weight))
        scale_of(self.input).exponent.fill_(-plan.input.frac)
        scale_of(self.output).exponent.fill_(-plan.output.frac)

    def forward(self, x: Tensor) -> Tensor:
        apply_masks(self)
        x = self.input(x)
        for index, (conv, act) in enumerate(zip(self.conv, self.conv_act, strict=True)):
            x = conv(x)
            x = act(self.nlb(x) if self.nlb is not None and index == 0 else x)
        x = x.flatten(1)
        for dense, act in zip(self.dense, self.dense_act, strict=False):
            x = act(dense(x))
        return self.output(self.dense[-1](x))

    def layers(self) -> Iterator[Any]:
        """The convolutions and dense layers, in order; the block's four follow the first."""
        yield self.conv[0]
        if self.nlb is not None:
            yield from self.nlb.convolutions()
        yield from self.conv[1:]
        yield from self.dense

    def activations(self) -> Iterator[Any]:
        """The quantized ReLUs or LeakyReLUs, in order: one after each hidden layer."""
        yield from self.conv_act
        yield from self.dense_act


def train_scales(qnet: QuantBraggNN, enabled: bool = True) -> None:
    """Let the exponents of weights and activations be trained (off at first); input and output stay fixed."""
    inner = () if qnet.nlb is None else qnet.nlb.quantizers()
    for module in (*qnet.layers(), *inner, *qnet.activations()):
        scale_of(module).exponent.requires_grad_(enabled)


def load_float(qnet: QuantBraggNN, float_net: BraggNN) -> None:
    """Copy a float network's weights, its output turned into offsets, and choose each weight scale by least error.

    The activation scales are left as they are: follow with :func:`calibrate`.
    """
    spec = float_net.spec
    same_slope = qnet.plan.slope(spec) == qnet.plan.slope(qnet.spec)
    if not same_slope or (replace(spec, slope=qnet.spec.slope), float_net.size) != (qnet.spec, qnet.size):
        raise UserError(
            f"float network {spec} for {float_net.size} px does not match the quantized "
            f"{qnet.spec} for {qnet.size} px; train the float network from the same [network] table"
        )
    sources: list[nn.Module] = [m for m in float_net.cnn_layers if isinstance(m, nn.Conv2d)]
    if spec.attention:
        block = float_net.nlb
        sources[1:1] = [block.theta_layer, block.phi_layer, block.g_layer, block.out_cnn]
    sources += [m for m in float_net.dense_layers if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for target, source in zip(qnet.layers(), sources, strict=True):
            weight, bias = source.weight, source.bias
            if source is sources[-1] and isinstance(source, nn.Linear):
                weight, bias = fold_offset(source, qnet.size)
            target.weight.copy_(weight)
            target.bias.copy_(bias)
            target.mask.fill_(1.0)
    fit_weight_scales(qnet)


def fit_weight_scales(qnet: QuantBraggNN) -> None:
    """Set each weight's exponent to the one with the least squared rounding error of the (masked) weights."""
    apply_masks(qnet)
    for layer, bits in zip(qnet.layers(), qnet.plan.weights(qnet.spec), strict=True):
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        fit_scale(scale_of(layer), layer.weight.detach().double(), low, high, torch.round)


@torch.no_grad()
def calibrate(qnet: QuantBraggNN, values: Tensor | NDArray[np.floating]) -> None:
    """Set each activation's exponent to the one with the least squared error on a batch of input values.

    ``values`` is (n, 1, size, size), codes * 2**-input_bits; a few hundred to a few thousand patches. Layers are
    treated in order, each fed by its quantized predecessors. Each layer's bias is moved by the difference of its mean
    results, channel by channel, between the float network and the quantized one (bias correction, Nagel et al.,
    arXiv:1906.04721): floor alone shifts every activation by half a step.
    """
    x = torch.as_tensor(values)
    if x.ndim != 4 or x.shape[1:] != (1, qnet.size, qnet.size) or not len(x) or not bool(torch.isfinite(x).all()):
        raise UserError(
            f"calibration batch of shape {tuple(x.shape)} is not usable; "
            f"expected finite values (n, 1, {qnet.size}, {qnet.size}) with n of at least 1"
        )
    apply_masks(qnet)
    exact = exact_copy(qnet)
    wanted = x.double()
    x = exact.input(wanted)
    layers = (*exact.conv, *exact.dense)
    originals = (*qnet.conv, *qnet.dense)
    bits = qnet.plan.activations(qnet.spec)
    for index, (layer, original) in enumerate(zip(layers, originals, strict=True)):
        if layer is exact.dense[0]:
            x, wanted = x.flatten(1), wanted.flatten(1)
        accumulator, wanted = corrected(layer, original, x, wanted)
        if index == 0 and exact.nlb is not None and qnet.nlb is not None:
            accumulator, wanted = calibrate_block(exact.nlb, qnet.nlb, accumulator, wanted)
        if layer is layers[-1]:
            return
        act, twin = (tuple(net.activations())[index] for net in (exact, qnet))
        if isinstance(act, QuantLeakyReLU):
            wanted = act.activate(wanted)
            fit_signed((twin, act), act.activate(accumulator), bits[index])
        else:
            wanted = wanted.clamp(min=0)
            fit_scale(scale_of(twin), accumulator.clamp(min=0), 0, (1 << bits[index]) - 1, torch.floor)
            scale_of(act).exponent.copy_(scale_of(twin).exponent)
        x = act(accumulator)


@torch.no_grad()
def apply_masks(qnet: QuantBraggNN) -> None:
    """Set pruned weights to zero (an optimizer may have moved them)."""
    for layer in qnet.layers():
        layer.weight.mul_(layer.mask)


@torch.no_grad()
def prune(qnet: QuantBraggNN, fraction: float) -> None:
    """Mask the smallest ``fraction`` of each layer's weights; what is pruned stays pruned."""
    if not 0.0 <= fraction < 1.0:
        raise UserError(f"pruning fraction {fraction} is out of range; expected at least 0 and below 1")
    apply_masks(qnet)
    for layer in qnet.layers():
        count = int(fraction * layer.weight.numel())
        order = layer.weight.abs().flatten().argsort(stable=True)
        layer.mask.view(-1)[order[:count]] = 0.0
    apply_masks(qnet)


def sparsity(qnet: QuantBraggNN) -> tuple[float, ...]:
    """The fraction of zero weight codes in each layer, pruned and rounded to zero alike."""
    apply_masks(qnet)
    with torch.no_grad():
        return tuple(float((layer.quant_weight().value == 0).double().mean()) for layer in qnet.layers())


def exact_copy(qnet: QuantBraggNN) -> QuantBraggNN:
    """A copy in float64 and evaluation mode on the CPU, where every sum is exact (``plan.MAX_BITS``)."""
    return copy.deepcopy(qnet).cpu().double().eval()


@torch.no_grad()
def eval_exact(qnet: QuantBraggNN, codes: NDArray[np.integer]) -> Codes:
    """Input codes (n, size, size) or (n, 1, size, size) to output codes (n, 2), evaluated in float64."""
    codes = checked_codes(codes, (qnet.size, qnet.size), qnet.plan.input)
    exact = exact_copy(qnet)
    found = [np.zeros((0, 2))]
    step = _BATCH if qnet.nlb is None else _ATTENTION_BATCH
    for start in range(0, len(codes), step):
        values = qnet.plan.input.values(codes[start : start + step])
        found.append(exact(torch.from_numpy(values)).numpy())
    return exact_codes(np.concatenate(found), qnet.plan.output.frac, "output of the quantized network")

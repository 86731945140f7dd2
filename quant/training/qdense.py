"""The trainable quantized network of dense layers alone, in Brevitas: with exponents, with sigma."""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas.quant import Int32Bias
from numpy.typing import NDArray
from torch import Tensor, nn

from quant.contract.arithmetic import Codes, Format, exact_codes
from quant.contract.emulate import checked_codes
from quant.contract.layers import Flatten, Requantize
from quant.contract.network import IntegerNetwork, Layer
from quant.contract.sizing import size_accumulators
from quant.training.integers import activation_of, linear_of
from quant.training.quantizers import KeptQuantizers, Signed, Unsigned, Weight, corrected, fit_scale, scale_of

#: Patches evaluated at a time in float64.
_BATCH = 2048


@dataclass(frozen=True)
class DensePlan:
    """window: side of the patches, px; exponent: inputs of the exponent, 0 for none; dense: widths of hidden layers.

    outputs: 2, or 4 with sigma; weight_bits and activation_bits of all layers; input and output: the formats there.
    """

    window: int
    exponent: int
    dense: tuple[int, ...]
    outputs: int
    weight_bits: int
    activation_bits: int
    input: Format
    output: Format

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input codes of one patch."""
        return (self.window**2 + self.exponent,) if self.exponent else (self.window, self.window)

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, hidden units, outputs."""
        return (self.window**2 + self.exponent, *self.dense, self.outputs)


class QuantDense(KeptQuantizers):
    """Input values (n, ...), codes * 2**-frac, to (n, outputs). Every scale is a power of two, every zero point 0."""

    def __init__(self, plan: DensePlan) -> None:
        super().__init__()
        self.plan = plan
        self.input = qnn.QuantIdentity(Unsigned, bit_width=plan.input.bits, return_quant_tensor=True)
        self.dense = nn.ModuleList(
            qnn.QuantLinear(
                i, o, bias=True, weight_quant=Weight, weight_bit_width=plan.weight_bits, bias_quant=Int32Bias
            )
            for i, o in itertools.pairwise(plan.widths)
        )
        self.dense_act = nn.ModuleList(
            qnn.QuantReLU(Unsigned, bit_width=plan.activation_bits, return_quant_tensor=True) for _ in plan.dense
        )
        self.output = qnn.QuantIdentity(Signed, bit_width=plan.output.bits, return_quant_tensor=False)
        scale_of(self.input).exponent.fill_(-plan.input.frac)
        scale_of(self.output).exponent.fill_(-plan.output.frac)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x.flatten(1))
        for dense, act in zip(self.dense, self.dense_act, strict=False):
            x = act(dense(x))
        return self.output(self.dense[-1](x))

    @torch.no_grad()
    def initialize(self, sources: Sequence[nn.Linear], values: Tensor) -> None:
        """Load a float network's layers, and choose every scale by least error on input values.

        Biases are corrected for what floor takes away, as in :func:`quant.training.qnet.calibrate`.
        """
        low, high = -(1 << (self.plan.weight_bits - 1)), (1 << (self.plan.weight_bits - 1)) - 1
        for target, source in zip(self.dense, sources, strict=True):
            target.load_state_dict(source.state_dict(), strict=False)
            fit_scale(scale_of(target), source.weight.detach().double(), low, high, torch.round)
        exact = exact_copy(self)
        wanted = values.double().flatten(1)
        x = exact.input(wanted)
        for index, (layer, original) in enumerate(zip(exact.dense, self.dense, strict=True)):
            sums, wanted = corrected(layer, original, x, wanted)
            if index == len(self.dense_act):
                return
            wanted = wanted.clamp(min=0)
            top = (1 << self.plan.activation_bits) - 1
            fit_scale(scale_of(self.dense_act[index]), sums.clamp(min=0), 0, top, torch.floor)
            scale_of(exact.dense_act[index]).exponent.copy_(scale_of(self.dense_act[index]).exponent)
            x = exact.dense_act[index](sums)


def exact_copy(net: QuantDense) -> QuantDense:
    """A copy in float64 and evaluation mode, where every sum is exact."""
    return copy.deepcopy(net).double().eval()


@torch.no_grad()
def exact_outputs(net: QuantDense, codes: NDArray[np.integer]) -> Codes:
    """Input codes (n, *plan.shape) to output codes (n, outputs), evaluated in float64."""
    plan = net.plan
    values = torch.from_numpy(plan.input.values(checked_codes(codes, plan.shape, plan.input)))
    exact = exact_copy(net)
    found = [np.zeros((0, plan.outputs)), *(exact(part).numpy() for part in values.split(_BATCH))]
    return exact_codes(np.concatenate(found), plan.output.frac, "output of the quantized network")


def integers(net: QuantDense) -> IntegerNetwork:
    """Weights, biases and formats of ``net`` in codes, accumulators sized."""
    exact, plan = exact_copy(net), net.plan
    frac = plan.input.frac
    layers: list[Layer] = [] if plan.exponent else [Flatten("flatten")]
    for index, (layer, act) in enumerate(zip(exact.dense, (*exact.dense_act, None), strict=True)):
        layers.append(linear_of(f"dense.{index}", layer, frac))
        name = f"dense.{index}.act"
        after = Requantize(name, "identity", plan.output)
        if act is not None:
            after = activation_of(name, act, plan.activation_bits)
        layers.append(after)
        frac = after.output.frac
    return size_accumulators(IntegerNetwork(plan.window, plan.input, tuple(layers), plan.exponent))

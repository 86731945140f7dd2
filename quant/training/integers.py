"""The quantized PyTorch network's weights and scales as an integer network."""

from typing import Any

import numpy as np
import torch
from brevitas.nn import QuantReLU
from torch import nn

from quant.contract.arithmetic import Format, exact_codes, power_of_two_exponent
from quant.contract.attention import NonLocal, size_block
from quant.contract.layers import Flatten, Leaky, Linear, Requantize
from quant.contract.network import IntegerNetwork, Layer
from quant.contract.sizing import size_accumulators
from quant.training.qnet import QuantBraggNN, apply_masks, exact_copy
from quant.training.qnonlocal import QuantNonLocal
from quant.training.quantizers import QuantLeakyReLU, scale_of

#: The bounds of Brevitas' Int32Bias.
_BIAS = (-(1 << 31), (1 << 31) - 1)


def integers(qnet: QuantBraggNN) -> IntegerNetwork:
    """Weights, biases, formats and tables of ``qnet`` in codes, its accumulators sized; names follow its modules."""
    apply_masks(qnet)
    exact = exact_copy(qnet)
    plan, frac = exact.plan, exact.plan.input.frac
    names = [f"conv.{i}" for i in range(len(exact.conv))] + [f"dense.{i}" for i in range(len(exact.dense))]
    bits = [*plan.activations(exact.spec), plan.output_bits]
    acts = [*exact.activations(), exact.output]
    layers: list[Layer] = []
    for name, module, act, width in zip(names, (*exact.conv, *exact.dense), acts, bits, strict=True):
        if module is exact.dense[0]:
            layers.append(Flatten("flatten"))
        layers.append(linear_of(name, module, frac))
        if module is exact.conv[0] and exact.nlb is not None:
            block = _block(exact.nlb, (exact.size - 2) ** 2)
            layers += [Requantize("nlb.input", "identity", block.input), block]
        after = activation_of(f"{name}.act", act, width)
        layers.append(after)
        frac = after.output.frac
    return size_accumulators(IntegerNetwork(exact.size, plan.input, tuple(layers)))


def _frac(module: Any, name: str) -> int:
    scale = float(scale_of(module)(torch.empty(0)).detach())
    return -power_of_two_exponent(scale, name)


def linear_of(name: str, module: Any, input_frac: int) -> Linear:
    """One layer; the bias is rounded half-even to the accumulator's grid, as Brevitas does."""
    frac = _frac(module, name)
    weight = exact_codes(module.quant_weight().value.detach().numpy(), frac, f"{name}, weight")
    total = input_frac + frac
    bias = np.rint(np.ldexp(module.bias.detach().numpy(), total)).clip(*_BIAS).astype(np.int64)
    kind = "dense" if isinstance(module, nn.Linear) else "conv2d"
    bits = int(module.quant_weight().bit_width)
    return Linear(name, kind, weight, Format(bits, frac, signed=True), bias, Format(1, total, signed=True))


def activation_of(name: str, module: Any, bits: int) -> Requantize:
    frac = _frac(module, name)
    if isinstance(module, QuantLeakyReLU):
        to = Format(bits, frac, signed=True)
        return Leaky(name, "leaky", to, slope_code=module.slope_code, slope_frac=module.slope_frac)
    relu = isinstance(module, QuantReLU)
    return Requantize(name, "relu" if relu else "identity", Format(bits, frac, signed=not relu))


def _block(module: QuantNonLocal, positions: int) -> NonLocal:
    plan = module.plan

    def signed(name: str) -> Format:
        return Format(getattr(plan, f"{name}_bits"), _frac(getattr(module, name), f"nlb.{name}"), signed=True)

    x, mixed = signed("input"), signed("mixed")
    parts = {role: linear_of(f"nlb.{role}", getattr(module, role), x.frac) for role in ("theta", "phi", "g")}
    return size_block(
        "nlb",
        positions,
        (x, x.low, x.high),
        parts | {"out": linear_of("nlb.out", module.out, mixed.frac)},
        {"query": signed("query"), "key": signed("key"), "value": signed("value"), "mixed": mixed}
        | {"difference": plan.difference, "exponential": plan.exponential, "reciprocal": plan.reciprocal},
        plan.tables(),
        module.pool,
    )

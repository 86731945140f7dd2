"""The quantizers of the trainable network: power-of-two scales, floor, and the choice of a scale by least error."""

from typing import Any

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas import config as brevitas_config
from brevitas.core.function_wrapper import TensorClampSte
from brevitas.inject.enum import FloatToIntImplType
from brevitas.quant import Int32Bias
from brevitas.quant.base import IntQuant
from brevitas.quant.solver.act import ActQuantSolver
from brevitas.quant.solver.weight import WeightQuantSolver
from torch import Tensor, nn
from torch.nn import functional


class PowerOfTwoScale(nn.Module):
    """A scale ``2 ** round(exponent)``; the exponent is a parameter, fixed unless ``train_scales`` frees it.

    Written for Brevitas' ``scaling_impl``, which passes the tensor and the integer threshold; both are unused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    def forward(self, _: Tensor, __: Tensor | None = None) -> Tensor:
        whole = self.exponent + (self.exponent.round() - self.exponent).detach()  # straight-through gradient
        return torch.exp2(whole)


class KeptQuantizers(nn.Module):
    """A network whose quantizers outlive the loading of a state."""

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As for any module. Quantizers are kept, not built anew: optimizers and devices stay valid."""
        before = brevitas_config.REINIT_ON_STATE_DICT_LOAD
        brevitas_config.REINIT_ON_STATE_DICT_LOAD = False
        try:
            return super().load_state_dict(*args, **kwargs)
        finally:
            brevitas_config.REINIT_ON_STATE_DICT_LOAD = before


class Weight(IntQuant, WeightQuantSolver):
    """Signed weights, rounded half-even."""

    scaling_impl = PowerOfTwoScale
    scaling_per_output_type = "tensor"
    restrict_scaling_type = "power_of_two"
    scaling_impl_type = "parameter"
    # A clamp with gradient: with a fixed scale, a weight beyond the range could otherwise never return.
    tensor_clamp_impl = TensorClampSte


class Signed(IntQuant, ActQuantSolver):
    """Signed activations, rounded by floor."""

    scaling_impl = PowerOfTwoScale
    scaling_per_output_type = "tensor"
    restrict_scaling_type = "power_of_two"
    scaling_impl_type = "parameter"
    float_to_int_impl_type = FloatToIntImplType.FLOOR


class Unsigned(Signed):
    """Unsigned activations, rounded by floor."""

    signed = False


class QuantLeakyReLU(qnn.QuantIdentity):
    """LeakyReLU of a slope ``code * 2**-frac``, then one floor into signed codes."""

    def __init__(self, slope: tuple[int, int], bits: int) -> None:
        super().__init__(Signed, bit_width=bits, return_quant_tensor=True)
        self.slope_code, self.slope_frac = slope

    def activate(self, x: Tensor) -> Tensor:
        """Before the quantization; exact in float64."""
        return functional.leaky_relu(x, self.slope_code * 2.0**-self.slope_frac)

    def forward(self, x: Tensor) -> Any:
        return super().forward(self.activate(x))


def convolution(inputs: int, outputs: int, kernel: int, bits: int) -> Any:
    """A convolution with quantized weights and a bias on its accumulator's grid; its result is not quantized."""
    return qnn.QuantConv2d(inputs, outputs, kernel, weight_quant=Weight, weight_bit_width=bits, bias_quant=Int32Bias)


def scale_of(module: Any) -> PowerOfTwoScale:
    """The scale of a layer's weight or of an activation."""
    proxy: Any = module.weight_quant if hasattr(module, "weight_quant") else module.act_quant
    return next(m for m in proxy.modules() if isinstance(m, PowerOfTwoScale))


@torch.no_grad()
def fit_scale(scale: PowerOfTwoScale, values: Tensor, low: int, high: int, rounding: Any) -> None:
    """Least-squares power-of-two scale; of equal ones the coarsest. All-zero values get a range of about 1."""
    top = float(values.abs().max())
    if top == 0.0:
        scale.exponent.fill_(-float(high.bit_length()))
        return
    start = int(np.ceil(np.log2(top / max(high, 1)))) + 1
    best, chosen = np.inf, start
    for exponent in range(start, start - 8, -1):
        codes = rounding(torch.ldexp(values, torch.tensor(-exponent))).clamp(low, high)
        error = float((torch.ldexp(codes, torch.tensor(exponent)) - values).square().mean())
        if error < best:
            best, chosen = error, exponent
    scale.exponent.fill_(float(chosen))


def fit_signed(scales: tuple[Any, ...], values: Tensor, bits: int) -> None:
    """The least-squares scale of signed activations, set in each of the given quantizers."""
    for module in scales:
        fit_scale(scale_of(module), values, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, torch.floor)


@torch.no_grad()
def corrected(layer: Any, original: Any, x: Any, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's results on quantized inputs ``x`` and, in float, on ``wanted``, after its bias was corrected.

    The bias of both copies of the layer, of which ``layer`` is in float64, is moved so that the two have equal means
    in each channel, to the rounding of the bias.
    """
    operation = functional.conv2d if isinstance(layer, nn.Conv2d) else functional.linear
    aim = operation(wanted, layer.weight, layer.bias)
    error = (aim - layer(x)).transpose(0, 1).flatten(1).mean(1)
    layer.bias += error
    original.bias += error.to(original.bias.dtype)
    return layer(x), aim

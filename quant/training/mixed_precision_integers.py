"""A network of mixed precision as an integer network: the channels' own fractions become one a layer, exactly."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Codes, Format, exact_codes
from quant.contract.emulate import checked_codes
from quant.contract.layers import Flatten, Linear, Requantize
from quant.contract.network import IntegerNetwork, Layer
from quant.contract.sizing import size_accumulators
from quant.training.mixed_precision import GUARD, MixedPrecisionLayer, MixedPrecisionNetwork

#: Widest weight code that the folding may make; the emulator's sums stay exact far beyond.
_MAX_WEIGHT_BITS = 24


def integers(net: MixedPrecisionNetwork) -> IntegerNetwork:
    """Weights, biases and formats of ``net`` in codes, accumulators sized, channels that nothing reads left out.

    A channel c whose activation has its own fraction f[c] is carried at the layer's largest fraction F: its weights and
    bias are multiplied by 2**(f[c] - F), the weights that read it by 2**(F - f[c]). Its codes are the same integers.
    Raises UserError where the spread of fractions makes weight codes of more than 24 bits.
    """
    incoming = np.full(1, net.input.frac, dtype=np.int64)  # own fraction of each channel
    common = net.input.frac
    layers: list[Layer] = []
    for index, layer in enumerate(net.stack):
        name = f"{'conv' if layer.convolution else 'dense'}.{index}"
        if not layer.convolution and not net.exponent and (index == 0 or net.stack[index - 1].convolution):
            layers.append(Flatten("flatten"))
        made, outgoing = _linear(name, layer, incoming, common)
        layers.append(made)
        incoming, common = outgoing, int(outgoing.max())
        to = layer.output or Format(layer.activation_bits, common, signed=False)
        layers.append(Requantize(f"{name}.act", "identity" if layer.output else "relu", to))
    return size_accumulators(trimmed(IntegerNetwork(net.window, net.input, tuple(layers), net.exponent)))


@torch.no_grad()
def _linear(name: str, layer: MixedPrecisionLayer, incoming: Codes, common: int) -> tuple[Linear, Codes]:
    use = copy.deepcopy(layer).double().rounded()
    weight, bias, fraction = (tensor.numpy() for tensor in (use.weight, use.bias, use.fraction))
    own = use.activation_fraction.numpy().astype(np.int64)
    inputs = np.repeat(incoming, weight.shape[1] // len(incoming)).reshape(1, -1, *(1,) * (weight.ndim - 2))
    spread = own - own.max()
    # The fraction at which each weight is a whole number after both foldings.
    places = fraction.astype(np.int64) - (common - inputs) - spread.reshape(-1, *(1,) * (weight.ndim - 1))
    used = np.broadcast_to(places, weight.shape)[weight != 0]
    frac = max(int(used.max()) if used.size else 0, int(own.max()) + GUARD - common)
    fused = np.ldexp(weight, common - inputs + spread.reshape(-1, *(1,) * (weight.ndim - 1)))
    codes = exact_codes(fused, frac, f"{name}, weight")
    form = Format.holding(min(int(codes.min()), -1), int(codes.max()), frac)
    if form.bits > _MAX_WEIGHT_BITS:
        raise UserError(
            f"{name}: its channels' fractions differ so much that weights need {form.bits} bits, more than "
            f'{_MAX_WEIGHT_BITS}; train with widths = "layer", or with another seed'
        )
    total = common + frac
    sums = exact_codes(np.ldexp(bias, spread), total, f"{name}, bias")
    kind = "conv2d" if layer.convolution else "dense"
    return Linear(name, kind, codes, form, sums, Format(1, total, signed=True)), own


def trimmed(network: IntegerNetwork) -> IntegerNetwork:
    """The network without the hidden dense channels that nothing reads; at least one stays in each layer."""
    layers = list(network.layers)
    dense = [i for i, layer in enumerate(layers) if isinstance(layer, Linear) and layer.kind == "dense"]
    for at, after in reversed(list(itertools.pairwise(dense))):
        maker, reader = layers[at], layers[after]
        assert isinstance(maker, Linear)
        assert isinstance(reader, Linear)
        read = np.asarray(reader.weight.any(axis=0))
        read[0] |= not read.any()
        layers[at] = replace(maker, weight=maker.weight[read], bias=maker.bias[read])
        layers[after] = replace(reader, weight=reader.weight[:, read])
    return replace(network, layers=tuple(layers))


@torch.inference_mode()
def exact_outputs(net: MixedPrecisionNetwork, codes: NDArray[np.integer]) -> Codes:
    """Output codes (n, outputs) of ``net`` itself in float64, for input codes (n, *net.shape): exact sums."""
    checked = checked_codes(codes, net.shape, net.input)
    exact = MixedPrecisionNetwork(
        net.spec, net.window, net.input, net.output, exponent=net.exponent, outputs=net.outputs
    ).double()
    exact.load_state_dict(net.state_dict())
    exact.eval().quantized = True
    values = torch.from_numpy(net.input.values(checked))
    found = [exact(part).numpy() for part in values.split(4096)]
    return (
        exact_codes(np.concatenate(found), net.output.frac, "output") if found else np.zeros((0, net.outputs), np.int64)
    )

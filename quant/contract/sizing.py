"""Accumulators of an integer network, sized by interval arithmetic from its weights and formats alone."""

from dataclasses import replace

import numpy as np

from quant.contract.arithmetic import Format, linear_bounds
from quant.contract.attention import NonLocal, block_bounds, resized_block
from quant.contract.emulate import activate
from quant.contract.layers import Linear, Requantize
from quant.contract.network import IntegerNetwork, Layer


def size_accumulators(network: IntegerNetwork) -> IntegerNetwork:
    """The network with each accumulator the narrowest that holds every sum of every possible input.

    Accumulators' fracs are kept, their bits replaced. The range of each layer's input follows from the one before it.
    """
    low, high, frac = network.input.low, network.input.high, network.input.frac
    layers: list[Layer] = []
    for layer in network.layers:
        found: Layer = layer
        if isinstance(layer, Linear):
            frac = layer.accumulator.frac
            low, high = linear_bounds(layer.weight.reshape(len(layer.weight), -1), layer.bias, low, high)
            found = replace(layer, accumulator=Format.holding(low, high, frac))
        elif isinstance(layer, NonLocal):
            found = resized_block(layer, low, high)
            frac = found.accumulator.frac
            low, high = block_bounds(found, low, high)
        elif isinstance(layer, Requantize):
            ends, _ = activate(layer, np.array([low, high]), frac)  # every kind is monotone
            low, high, frac = int(ends[0]), int(ends[1]), layer.output.frac
        layers.append(found)
    return replace(network, layers=tuple(layers))

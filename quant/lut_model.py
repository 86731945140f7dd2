"""What a circuit costs in look-up tables, from its bits alone: a model fitted to mapped circuits, not a measurement.

Effective bit operations (EBOPs, Sun et al., arXiv:2405.00645) are, over all weights, the bits of the weight times the
bits of the input it multiplies. Unrolled by distributed arithmetic a weight is as many additions as it has digits that
are not 0, each as wide as its input, so that look-up tables follow them; the more weights of a matrix are not 0, the
more sums its outputs share. The rest of a circuit is counted from its widths. benchmarks/lut_model.py fits the
coefficients; benchmarks/lut_model.json has them, the circuits and the residuals.
"""

import math

import numpy as np

from quant.arithmetic import Codes, requantize
from quant.circuit import Circuit
from quant.layers import Linear, Requantize
from quant.network import IntegerNetwork

#: Of the network: log LUTs = sum of these times (1, log EBOPs, log density).
NETWORK = (-0.84242, 1.0562, -0.16269)
#: Of normalizer and centroid: LUTs = sum of these times :func:`front_features`.
FRONT = (0.70912, 0.14062, 0.91023, 1.0857, 6.4397)
#: Look-up tables an effective bit operation, for training, where both change from step to step.
LUTS_PER_EBOP = 0.5


def predicted_luts(circuit: Circuit) -> float:
    """Look-up tables of a circuit with a block-floating normalizer, by the model."""
    network = math.exp(sum(c * f for c, f in zip(NETWORK, network_features(circuit.network), strict=True)))
    return network + sum(c * f for c, f in zip(FRONT, front_features(circuit), strict=True))


def front_features(circuit: Circuit) -> tuple[float, ...]:
    """What look-up tables of normalizer and centroid are taken to be linear in.

    Bits that the shifter chooses, bits that are searched for the leading one; entries of the centroid's weights beyond
    what one table holds, bits that its sums add, products of its division.
    """
    pixels, bits = circuit.window**2, circuit.normalizer.bits
    shifter = pixels * bits * math.log2(circuit.normalizer.count_bits), float(pixels * circuit.normalizer.count_bits)
    base = circuit.centroid
    if base is None:
        return (*shifter, 0.0, 0.0, 0.0)
    weight = max(base.weights).bit_length()
    plain = base.weights == tuple(range(len(base.weights)))  # the code itself: wires
    tables = 0.0 if plain else pixels * weight * 2.0 ** max(0, bits - 6)
    return (*shifter, tables, pixels * (weight + 3.0), float(base.reciprocal_bits * base.numerator_bits))


def network_features(network: IntegerNetwork) -> tuple[float, float, float]:
    """1, the log of the effective bit operations of a network, and of the share of its weights that are not 0.

    The bits of an activation are those of the largest code that it can have, found channel by channel.
    """
    ebops = 0.0
    used = total = 0
    side = network.size
    low, high = np.zeros(1, dtype=np.int64), np.full(1, network.input.high, dtype=np.int64)
    frac = network.input.frac
    for layer in network.layers:
        if isinstance(layer, Linear):
            weight = layer.weight.reshape(len(layer.weight), layer.weight.shape[1], -1)
            side -= layer.weight.shape[2] - 1 if layer.kind == "conv2d" else side - 1
            repeated = weight.shape[1] // len(high)  # flattened: channel slowest
            low, high = np.repeat(low, repeated), np.repeat(high, repeated)
            wide = np.ceil(np.log2(1.0 + np.maximum(np.maximum(high, -low), 0)))
            ebops += side * side * float((weight_bits(weight).sum(axis=(0, 2)) * wide).sum())
            used, total = used + int(np.count_nonzero(weight)), total + weight.size
            positive, negative = (np.where(sign * weight > 0, weight, 0).sum(axis=2) for sign in (1, -1))
            low, high = positive @ low + negative @ high + layer.bias, positive @ high + negative @ low + layer.bias
            frac = layer.accumulator.frac
        elif isinstance(layer, Requantize):
            ends = np.stack([low, high]) if layer.kind != "relu" else np.maximum(np.stack([low, high]), 0)
            low, high = requantize(ends, frac, layer.output, layer.rounding)[0]
            frac = layer.output.frac
    return 1.0, math.log(max(ebops, 1.0)), math.log(max(used, 1) / total)


def weight_bits(codes: Codes) -> Codes:
    """log2(1 + |code|) of weights without their trailing zeros, which are wires: their share of the bit operations."""
    magnitude = np.abs(codes)
    lowest = np.where(magnitude > 0, magnitude & -magnitude, 1)
    return np.log2(1 + magnitude // lowest)

"""What a circuit costs in look-up tables, from its bits alone: a model fitted to mapped circuits, not a measurement.

Effective bit operations (EBOPs, Sun et al., arXiv:2405.00645) are, over all weights, the bits of the weight times the
bits of the input it multiplies. Unrolled by distributed arithmetic a weight is as many additions as it has signed
digits that are not 0, each about as wide as its input; so digits are counted here, of which some are shared by several
sums. The sums themselves end as wide as their largest value. The rest of a circuit is counted from its widths.
benchmarks/lut_model.py fits the coefficients; benchmarks/lut_model.json has them, the circuits and the residuals.
"""

import math

import numpy as np
from numpy.typing import NDArray

from quant.contract.arithmetic import Codes, requantize
from quant.contract.layers import Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork

#: Of the network: log LUTs = sum of these times (1, log EBOPs, log bits of the sums).
NETWORK = (-0.22241, 0.84103, 0.18434)
#: Of normalizer and centroid: LUTs = sum of these times :func:`front_end_features`.
FRONT_END = (0.68834, 0.44950, 0.99892, 0.86369, 3.7573)
#: Look-up tables an effective bit operation, for training, where both change from step to step.
LUTS_PER_EBOP = 0.5


def predicted_luts(circuit: IntegerLocator) -> float:
    """Look-up tables of a circuit with a block-floating normalizer, by the model."""
    network = math.exp(sum(c * f for c, f in zip(NETWORK, network_features(circuit.network), strict=True)))
    return network + sum(c * f for c, f in zip(FRONT_END, front_end_features(circuit), strict=True))


def front_end_features(circuit: IntegerLocator) -> tuple[float, ...]:
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
    """1, the log of a network's effective bit operations, and that of the bits of all sums that are not empty.

    The bits of an activation, and of a sum, are those of the largest code that it can have, found channel by channel.
    A code of the exponent is 0 or one half, which is one bit.
    """
    operations = sums = 0.0
    side = network.size
    high = np.full(side * side if network.exponent else 1, network.input.high, dtype=np.int64)
    high = np.concatenate([high, np.full(network.exponent, 1 << (network.input.bits - 1), dtype=np.int64)])
    low, bits = np.zeros_like(high), np.full(len(high), float(network.input.bits))
    bits[len(bits) - network.exponent :] = 1.0
    frac = network.input.frac
    for layer in network.layers:
        if isinstance(layer, Linear):
            weight = layer.weight.reshape(len(layer.weight), layer.weight.shape[1], -1)
            side -= layer.weight.shape[2] - 1 if layer.kind == "conv2d" else side - 1
            repeated = weight.shape[1] // len(high)  # flattened: channel slowest
            low, high, bits = (np.repeat(each, repeated) for each in (low, high, bits))
            operations += side * side * float((digits(weight).sum(axis=(0, 2)) * bits).sum())
            positive, negative = (np.where(sign * weight > 0, weight, 0).sum(axis=2) for sign in (1, -1))
            low, high = positive @ low + negative @ high + layer.bias, positive @ high + negative @ low + layer.bias
            sums += side * side * float(_bits(low, high)[weight.any(axis=(1, 2))].sum())
            frac = layer.accumulator.frac
        elif isinstance(layer, Requantize):
            ends = np.stack([low, high]) if layer.kind != "relu" else np.maximum(np.stack([low, high]), 0)
            low, high = requantize(ends, frac, layer.output, layer.rounding)[0]
            bits = _bits(low, high)
            frac = layer.output.frac
    return 1.0, math.log(max(operations, 1.0)), math.log(max(sums, 1.0))


def _bits(low: Codes, high: Codes) -> NDArray[np.float64]:
    """Of the largest magnitude in [low, high]."""
    return np.ceil(np.log2(1.0 + np.maximum(np.maximum(high, -low), 0)))


def digits(weight: Codes) -> Codes:
    """The number of nonzero digits of each weight in canonical signed form: popcount((3 w) xor w), w >= 0."""
    magnitude = np.abs(weight)
    return np.bitwise_count((3 * magnitude) ^ magnitude).astype(np.int64)

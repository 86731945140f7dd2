"""The model of look-up tables: its features counted by hand, its predictions beside mapped circuits."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quant.contract import lut_model
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.layers import Flatten, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork
from quant.contract.sizing import size_accumulators

FITTED = Path(__file__).parents[1] / "benchmarks" / "lut_model.json"


def by_hand() -> IntegerLocator:
    """Two hidden units on a 3 x 3 window of 4-bit codes: weights 1, 3 and 4 in the first layer; 2 and -5 in the second.

    Largest first hidden code: (1 + 3) * 15 = 60 >> 1 = 30, 5 bits; second: 4 * 15 = 60 >> 1, 5 bits.
    """
    first, last = np.zeros((2, 9), np.int64), np.array([[2, 0], [0, -5]])
    first[0, :2], first[1, 4] = (1, 3), 4
    layers = (
        Flatten("flatten"),
        Linear("dense.0", "dense", first, Format(4, 2, True), np.zeros(2, np.int64), Format(1, 6, True)),
        Requantize("dense.0.act", "relu", Format(6, 5, False)),
        Linear("dense.1", "dense", last, Format(4, 2, True), np.zeros(2, np.int64), Format(1, 7, True)),
        Requantize("dense.1.act", "identity", Format(9, 6, True)),
    )
    network = size_accumulators(IntegerNetwork(3, Format(4, 4, False), layers))
    base = Centroid.of_power(3, 4, 2, 1, frac=6, index_bits=4, reciprocal_bits=8, numerator_bits=9)
    return IntegerLocator(5, 3, BlockShift(4, 8), network, base, Format(9, 6, True))


def test_network_features_counted_by_hand() -> None:
    """Digits of 1, 3 and 4 times 4, of 2 and 5 times 5; sums up to 60, 60, 60 and 150."""
    one, operations, sums = lut_model.network_features(by_hand().network)
    assert one == 1.0
    assert operations == pytest.approx(math.log((1 + 2 + 1) * 4 + (1 + 2) * 5))
    assert sums == pytest.approx(math.log(6 + 6 + 6 + 8))


def test_an_input_of_the_exponent_is_one_bit() -> None:
    """Two inputs more, of code 8 where set: weights 3, 1 and 1, four digits of one bit each."""
    plain = by_hand().network
    first = plain.layers[1]
    assert isinstance(first, Linear)
    weight = np.concatenate([first.weight, np.array([[3, 0], [1, 1]])], axis=1)
    layers = (replace(first, weight=weight), *plain.layers[2:])
    network = size_accumulators(IntegerNetwork(3, plain.input, layers, exponent=2))
    _, operations, sums = lut_model.network_features(network)
    # 60 + 3 * 8 = 84 >> 1 = 42, 6 bits; 60 + 2 * 8 = 76 >> 1 = 38, 6 bits
    assert operations == pytest.approx(math.log((1 + 2 + 1) * 4 + (2 + 1 + 1) * 1 + (1 + 2) * 6))
    assert sums == pytest.approx(math.log(7 + 7 + 7 + 8))


def test_front_features_counted_by_hand() -> None:
    """9 pixels of 4 bits among 8; weights up to 15**2 >> 1 = 112, 7 bits, one table; division 8 x 9."""
    assert lut_model.front_end_features(by_hand()) == pytest.approx((9 * 4 * 3, 9 * 8, 9 * 7, 9 * 10, 72))
    assert lut_model.front_end_features(replace(by_hand(), centroid=None))[2:] == (0, 0, 0)


def test_prediction_from_the_features_counted_by_hand() -> None:
    """31 operations on digits and 26 bits of sums in the network, and the front end's features."""
    scale, operations, sums = lut_model.NETWORK
    network = math.exp(scale) * 31**operations * 26**sums
    front_end = np.dot(lut_model.FRONT_END, (9 * 4 * 3, 9 * 8, 9 * 7, 9 * 10, 72))
    assert lut_model.predicted_luts(by_hand()) == pytest.approx(network + front_end, rel=1e-12)  # a few roundings


def test_coefficients_are_those_of_the_committed_fit() -> None:
    document = json.loads(FITTED.read_text())
    assert pytest.approx(document["coefficients"]["network"], rel=1e-3) == list(lut_model.NETWORK)
    assert pytest.approx(document["coefficients"]["front_end"], rel=1e-3, abs=1e-3) == list(lut_model.FRONT_END)
    assert document["errors"]["unseen, all"]["worst"] < 0.15

"""Tracing: the unrolled operations equal the integer circuit; what cannot be unrolled is refused before it is tried."""

import math
from dataclasses import replace

import numpy as np
import pytest
from da4ml.trace import FixedVariableArrayInput, HWConfig, comb_trace

from braggnn_edge.core.errors import UserError
from hls.rtl import trace as tracing
from hls.rtl.cmvm import Effort, plus, solution
from hls.rtl.core import core_files
from hls.rtl.trace import estimate, predict, trace
from hls.rtl.trace_ops import any_of, bits_of, leading_zeros, product, saturated, shifted_left
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.layers import Leaky, Requantize
from quant.contract.lut_model import digits
from quant.contract.normalize import Normalizer
from quant.contract.vectors import corner_case_codes

QUICK = Effort(trials=4)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"window": 5, "normalizer": BlockShift(6, 16), "hidden": (8, 4), "density": 0.3},
        {"normalizer": BlockShift(4, 21)},
        {"normalizer": BlockShift(7, 7)},
        {"normalizer": BlockShift(4, 10, subtract=True)},
        {"normalizer": Normalizer(4, 10, 3)},
        {"window": 5, "channels": 2},
        {"window": 5, "channels": 2, "centroid": False, "normalizer": BlockShift(5, 12)},
        {"centroid": False, "hidden": (6, 5)},
        {"activation": 3, "output": 5, "density": 1.0},
        {"activation": 8, "output": 14, "hidden": ()},
        {"density": 0.1, "hidden": (6, 4, 3)},
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_code_of_every_patch(arguments, seed, random_circuit, detector_patches):
    circuit = random_circuit(**arguments, seed=seed)
    patches = detector_patches(circuit, 600, seed)
    found = predict(trace(circuit, effort=QUICK), circuit.counts(patches))
    assert np.array_equal(found, circuit.run(circuit.codes(patches)))


def every_brightness(circuit):
    """Counts (n, window, window): corner cases, and for each size of an exponent random ones and lone pixels."""
    rng = np.random.default_rng(0)
    side, bits = circuit.window, circuit.normalizer.count_bits
    counts = [corner_case_codes(side, Format(bits, 0, False))]
    for length in range(1, bits + 1):
        uniform = rng.integers(0, 1 << length, (20, side, side))
        lone = np.eye(side * side, dtype=np.int64).reshape(-1, side, side)[rng.integers(0, side * side, 3)]
        counts += [uniform, lone << (length - 1), lone * ((1 << length) - 1)]
    return np.concatenate(counts)


@pytest.mark.parametrize("sigma", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        {"normalizer": BlockShift(4, 16)},
        {"normalizer": BlockShift(6, 16), "window": 5, "hidden": (6, 5), "density": 0.3},
        {"normalizer": BlockShift(4, 12, subtract=True)},
        {"normalizer": BlockShift(4, 21), "centroid": False},
        {"normalizer": BlockShift(7, 7)},
        {"normalizer": BlockShift(3, 9), "hidden": ()},
        {"normalizer": BlockShift(4, 11), "activation": 3, "output": 5, "density": 1.0},
    ],
)
def test_exponents_of_every_size(arguments, sigma, random_circuit):
    circuit = random_circuit(**arguments, exponent=True, sigma=sigma)
    counts = every_brightness(circuit)
    lengths = (circuit.normalizer.exponents(counts) > 0).sum(axis=1)
    assert set(lengths.tolist()) == set(range(circuit.normalizer.count_bits + 1))
    found = predict(trace(circuit, effort=QUICK), counts)
    assert found.shape == (len(counts), 4 if sigma else 2)
    assert np.array_equal(found, circuit.run(circuit.inputs(counts)))
    # The exponent is looked at: networks that are told another brightness answer otherwise.
    told = circuit.inputs(counts)
    told[:, circuit.window**2 :] = 0
    assert not np.array_equal(found, circuit.run(told))


def test_sigma_without_the_exponent(random_circuit, detector_patches):
    circuit = random_circuit(5, channels=2, sigma=True)
    patches = detector_patches(circuit, 300)
    found = predict(trace(circuit, effort=QUICK), circuit.counts(patches))
    assert np.array_equal(found, circuit.run(circuit.codes(patches)))
    assert found.shape == (len(patches), 4)


def test_the_normalizer_alone_makes_the_exponent(random_circuit):
    circuit = random_circuit(3, BlockShift(4, 13), exponent=True)
    counts = every_brightness(circuit)
    assert np.array_equal(predict(trace(circuit, parts=("normalizer",)), counts), circuit.inputs(counts))
    with pytest.raises(UserError, match="takes the exponent, which the normalizer makes; trace both"):
        trace(circuit, parts=("network",))


def test_parts_by_themselves(random_circuit, detector_patches):
    circuit = random_circuit(5, BlockShift(5, 12))
    patches = detector_patches(circuit, 300)
    codes = circuit.codes(patches)
    normalizer = predict(trace(circuit, parts=("normalizer",)), circuit.counts(patches))
    assert np.array_equal(normalizer.reshape(codes.shape), codes)
    assert circuit.centroid is not None
    centroid = predict(trace(circuit, parts=("centroid",), effort=QUICK), codes)
    expected = np.clip(circuit.centroid.codes(codes), circuit.output.low, circuit.output.high)
    assert np.array_equal(centroid, expected)


def test_a_network_without_weights_leaves_the_centroid(random_circuit, detector_patches):
    circuit = random_circuit(density=0.0)
    patches = detector_patches(circuit, 200)
    found = predict(trace(circuit), circuit.counts(patches))
    assert np.array_equal(found, circuit.run(circuit.codes(patches)))


def _run(count, bits, signed, function, values):
    """Outputs of a traced function of ``count`` integers on rows of values."""
    inputs = FixedVariableArrayInput(count, hwconf=HWConfig(1, -1, -1))
    words = list(inputs.quantize(int(signed), bits - signed, 0)._vars)
    return predict(comb_trace(inputs, function(*words), keep_dead_inputs=True), values)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 8, 9, 13, 17, 21])
def test_leading_zeros_and_shift(width):
    high = (1 << width) - 1
    values = np.unique(np.concatenate([np.arange(min(high, 600)), 1 << np.arange(width), [high]]))[:, None]
    values = values[values[:, 0] > 0]
    expected = np.array([value << (width - int(value).bit_length()) for value in values[:, 0]])

    def shifted(x):
        return [shifted_left(x, leading_zeros(x, width), width, drop) for drop in (0, width // 2, width - 1, -2)]

    found = _run(1, width, False, shifted, values)
    for column, drop in enumerate((0, width // 2, width - 1)):
        assert np.array_equal(found[:, column], expected >> drop)
    assert np.array_equal(found[:, 3], expected << 2)


@pytest.mark.parametrize(("bits", "drop"), [(1, 0), (2, 1), (3, 4), (5, 0), (5, 3), (6, 9), (4, -2)])
def test_product_is_floored(bits, drop):
    x, factor = (grid.ravel() for grid in np.meshgrid(np.arange(-64, 64), np.arange(64)))

    def multiplied(a, b):
        return [product(a, b.quantize(0, bits, 0), bits, drop)]

    found = _run(2, 7, True, multiplied, np.stack([x, factor], axis=1))[:, 0]
    wide = x * (factor & ((1 << bits) - 1))
    assert np.array_equal(found, wide >> drop if drop >= 0 else wide << -drop)


@pytest.mark.parametrize("to", [Format(4, 0, False), Format(4, 0, True), Format(7, 0, True), Format(1, 0, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_saturation_on_both_sides(to, sign):
    values = np.arange(-64, 64)[:, None]
    found = _run(1, 7, True, lambda x: [saturated(x * sign, to.low, to.high, to.bits, to.signed)], values)
    assert np.array_equal(found, np.clip(values * sign, to.low, to.high))


def test_or_of_many_words():
    values = np.random.default_rng(0).integers(0, 16, (200, 13))
    assert np.array_equal(
        _run(13, 4, False, lambda *x: [any_of(x)], values)[:, 0], np.bitwise_or.reduce(values, axis=1)
    )


def test_bits():
    values = np.arange(32)[:, None]
    assert np.array_equal(_run(1, 5, False, lambda x: bits_of(x, 5), values), values >> np.arange(5) & 1)


@pytest.mark.parametrize("seed", range(6))
def test_sums_are_exact_in_any_order(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-31, 32, (9, 5)) * (rng.random((9, 5)) < 0.5)
    matrix[0], matrix[:, 0] = 1, 1
    constants = rng.integers(-40, 40, 5)
    values = rng.integers(-8, 8, (300, 9))

    def sums(*x):
        return solution(matrix, x, Effort(trials=6, seed=seed)).apply(x, constants.tolist())

    assert np.array_equal(_run(9, 4, True, sums, values), values @ matrix + constants)


@pytest.mark.parametrize("constant", [0, 3, -70])
@pytest.mark.parametrize("factor", [1, -1, -4])
def test_a_constant_on_a_word_of_either_sign(constant, factor):
    values = np.arange(-16, 16)[:, None]
    found = _run(1, 5, True, lambda x: [plus(x * factor, constant), plus(x * 8 * factor, constant)], values)
    assert np.array_equal(found, np.hstack([values * factor, values * 8 * factor]) + constant)


def test_a_longer_search_costs_no_more():
    rng = np.random.default_rng(3)
    matrix = rng.integers(-7, 8, (20, 8)) * (rng.random((20, 8)) < 0.5)
    x = list(FixedVariableArrayInput(20, hwconf=HWConfig(1, -1, -1)).quantize(0, 5, 0)._vars)
    short, long = (solution(matrix, x, Effort(trials)).bits for trials in (1, 24))
    assert long <= short


def test_a_shallow_search_takes_the_fewest_levels():
    rng = np.random.default_rng(2)
    matrix = rng.integers(-7, 8, (24, 12)) * (rng.random((24, 12)) < 0.5)
    x = list(FixedVariableArrayInput(24, hwconf=HWConfig(1, -1, -1)).quantize(0, 5, 0)._vars)
    free, shallow = (solution(matrix, x, Effort(6, shallow=shallow)) for shallow in (False, True))
    most = int(digits(matrix).sum(axis=0).max())
    assert _levels(free) > _levels(shallow) == math.ceil(math.log2(most))
    assert shallow.bits > free.bits


def _levels(found):
    return max(found.passes[-1].out_latency)


def test_digits_of_weights():
    assert digits(np.array([0, 1, -1, 3, 5, 7, -7, 11, 15])).tolist() == [0, 1, 1, 2, 2, 2, 2, 3, 2]


def test_the_same_circuit_gives_the_same_text(random_circuit):
    circuit = random_circuit(5)
    texts = [core_files(trace(circuit, effort=QUICK), "core") for _ in range(2)]
    assert texts[0] == texts[1]


def _with_layer(circuit, index, layer):
    layers = list(circuit.network.layers)
    layers[index] = layer
    return replace(circuit, network=replace(circuit.network, layers=tuple(layers)))


def test_other_layers_are_refused_by_name(random_circuit):
    circuit = random_circuit()
    before = circuit.network.layers[2]
    leaky = _with_layer(circuit, 2, Leaky(before.name, "leaky", Format(6, 4, True)))
    with pytest.raises(UserError, match=r"dense\.0\.act \(leaky\) has no unrolled form"):
        trace(leaky)
    rounded = _with_layer(circuit, 2, Requantize(before.name, "relu", before.output, "half_up"))
    with pytest.raises(UserError, match=r"dense\.0\.act .* rounded towards minus infinity"):
        trace(rounded)


def test_too_large_is_refused_before_anything_is_traced(random_circuit, monkeypatch):
    circuit = random_circuit(5, hidden=(16,))
    expected = estimate(circuit)
    monkeypatch.setattr(tracing, "normalized", lambda *_: pytest.fail("it was traced"))
    with pytest.raises(UserError, match=f"about {expected:,} look-up tables unrolled, the limit is 100"):
        trace(circuit, limit=100)


def test_the_estimate_grows_with_the_weights(random_circuit):
    sparse, full = (estimate(random_circuit(5, hidden=(16,), density=density)) for density in (0.1, 1.0))
    assert sparse < full
    min_max, shift = (estimate(random_circuit(normalizer=n)) for n in (Normalizer(4, 10, 3), BlockShift(4, 10)))
    assert shift < min_max

"""The comparison itself, on traces changed by hand; the corner-case vectors."""

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from firmware_sim.forms.compare import compare, merge
from firmware_sim.verification.vectors import corner_case_codes, corner_case_counts
from quant.contract import emulate
from quant.contract.arithmetic import Format
from quant.contract.network import Flatten, IntegerNetwork, Linear, Requantize
from quant.contract.normalize import Normalizer

INPUT = Format(4, 4, False)


def _network() -> IntegerNetwork:
    rng = np.random.default_rng(3)
    conv = Linear(
        "conv", "conv2d", rng.integers(-3, 4, (2, 1, 3, 3)), Format(3, 2, True), np.array([3, -2]), Format(10, 6, True)
    )
    relu = Requantize("relu", "relu", Format(3, 4, False))
    dense = Linear(
        "dense", "dense", rng.integers(-3, 4, (2, 18)), Format(3, 2, True), np.array([0, 1]), Format(12, 6, True)
    )
    return IntegerNetwork(
        5, INPUT, (conv, relu, Flatten("flatten"), dense, Requantize("out", "identity", Format(3, 4, True)))
    )


@pytest.fixture
def traces():
    network = _network()
    codes = corner_case_codes(5, INPUT, np.random.default_rng(0), count=20)
    result = emulate.run(network, codes, trace=True)
    kept = [t for t, layer in zip(result.trace, network.layers, strict=True) if layer.kind != "flatten"]
    return network, kept, result


def test_equal_traces(traces):
    network, kept, result = traces
    found = compare(network, kept, [t.copy() for t in kept])
    assert found.exact
    saturations = {s.name: s.saturations for s in result.layers}
    assert {layer.name: layer.saturations for layer in found.layers} == {
        layer.name: saturations[layer.name] for layer in found.layers
    }
    assert saturations["relu"] > 0
    assert saturations["out"] > 0


def test_first_layer_then_first_patch(traces):
    network, kept, _ = traces
    other = [t.copy() for t in kept]
    other[1][7, 1, 0, 2] += 1  # the relu, patch 7
    other[2][5, 1] -= 1  # a later layer in an earlier patch does not come first
    other[3][9, 0] += 1
    found = compare(network, kept, other, start=100)
    assert (found.first.layer, found.first.patch, found.first.index) == ("relu", 107, (1, 0, 2))
    assert found.first.found == found.first.expected + 1
    assert [layer.wrong for layer in found.layers] == [0, 1, 1, 1]
    assert found.wrong == 1
    assert not found.exact


def test_overflow_is_a_multiple_of_the_accumulators_range(traces):
    network, kept, _ = traces
    other = [t.copy() for t in kept]
    other[0][2, 0, 1, 1] -= 1 << 10
    other[0][3, 0, 1, 1] += 5
    found = compare(network, kept, other)
    assert (found.layers[0].wrong, found.layers[0].overflows) == (2, 1)


def test_merge(traces):
    network, kept, _ = traces
    other = [t.copy() for t in kept]
    other[2][3, 0] += 1
    other[0][40, 0, 0, 0] += 1
    whole = compare(network, kept, other)
    parts = [
        compare(network, [t[s] for t in kept], [t[s] for t in other], s.start) for s in (slice(0, 30), slice(30, 200))
    ]
    assert merge(parts) == whole
    assert whole.first.layer == "conv"
    with pytest.raises(UserError, match="no patches"):
        merge([])


def test_traces_of_another_network_are_refused(traces):
    network, kept, _ = traces
    with pytest.raises(UserError, match="trace the same network"):
        compare(network, kept, kept[:-1])
    with pytest.raises(UserError, match="layer conv"):
        compare(network, kept, [kept[0][:, :1], *kept[1:]])


def test_corner_cases_hold_what_they_promise():
    rng = np.random.default_rng(0)
    counts = corner_case_counts(5, rng)
    assert counts.dtype == np.float64
    assert np.isfinite(counts).all()
    assert (counts == 0).all(axis=(1, 2)).any()
    assert (counts < 0).any()
    assert (counts != np.floor(counts)).any()
    flat = counts.reshape(len(counts), -1)
    lone = (flat != np.median(flat, axis=1)[:, None]).sum(axis=1) == 1
    assert set(np.abs(flat - np.median(flat, axis=1)[:, None]).argmax(axis=1)[lone]) == set(range(25))
    normalizer = Normalizer()
    assert normalizer.counts(counts)[1] > 0  # some saturate
    codes = normalizer.codes(counts)
    assert codes.min() == 0
    assert codes.max() >= 254
    np.testing.assert_array_equal(counts, corner_case_counts(5, np.random.default_rng(0)))
    codes = corner_case_codes(5, INPUT, rng, count=10)
    assert (codes.min(), codes.max()) == (0, 15)
    assert (codes == 15).all(axis=(1, 2)).any()

"""The circuit's contract: block shift, integer centroid, their sum with a network's answer, and the file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from builders import block_shift_by_steps

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.estimators import centre_of_mass_squared
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.layers import Flatten, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer
from quant.contract.sizing import sized
from quant.contract.vectors import hostile_codes, random_codes

FRAC = 9


def small_network(window: int, bits: int, seed: int = 0) -> IntegerNetwork:
    """Dense, 5 hidden units, small random weights."""
    rng = np.random.default_rng(seed)
    first, bias = rng.integers(-7, 8, (5, window**2)), rng.integers(-50, 50, 5)
    last = rng.integers(-7, 8, (2, 5))
    return sized(
        IntegerNetwork(
            window,
            Format(bits, bits, False),
            (
                Flatten("flatten"),
                Linear("dense.0", "dense", first, Format(4, 4, True), bias, Format(1, bits + 4, True)),
                Requantize("dense.0.act", "relu", Format(6, 5, False)),
                Linear("dense.1", "dense", last, Format(4, 6, True), rng.integers(-50, 50, 2), Format(1, 11, True)),
                Requantize("dense.1.act", "identity", Format(12, FRAC, True)),
            ),
        )
    )  # fmt: skip


def small_circuit(centroid: bool = True, subtract: bool = False) -> IntegerLocator:
    base = Centroid.of_power(7, 6, 2, 4, frac=FRAC) if centroid else None
    return IntegerLocator(11, 7, BlockShift(6, 16, subtract), small_network(7, 6), base, Format(13, FRAC, True))


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize("bits", [4, 6, 12])
def test_block_shift_equals_its_steps_in_plain_integers(bits, subtract):
    shift = BlockShift(bits, 12, subtract)
    rng = np.random.default_rng(bits)
    scale = 2.0 ** rng.uniform(-1, 13, (200, 1, 1))
    patches = rng.normal(0.5, 0.5, (200, 5, 5)) * scale
    expected = np.reshape([block_shift_by_steps(shift, patch) for patch in patches], patches.shape)
    assert np.array_equal(shift.codes(patches), expected)


def test_block_shift_bounds_and_scale():
    shift = BlockShift(6, 16)
    counts = np.random.default_rng(0).integers(0, 300, (500, 7, 7))
    codes = shift.codes(counts)
    top = codes.max(axis=(1, 2))
    assert top.min() >= 32
    assert top.max() <= 63
    assert np.array_equal(shift.codes(counts * 8), codes)
    assert not shift.codes(np.zeros((1, 7, 7), int)).any()


def test_block_shift_refuses_what_it_cannot_hold():
    with pytest.raises(UserError, match="bits 1 is out of range"):
        BlockShift(1)
    with pytest.raises(UserError, match="count_bits 5 is out of range; expected 6 to 32"):
        BlockShift(6, 5)
    with pytest.raises(UserError, match="patch 1 holds NaN"):
        BlockShift().codes(np.stack([np.zeros((3, 3)), np.full((3, 3), np.nan)]))


@pytest.mark.parametrize("widths", [{}, {"index_bits": 5, "reciprocal_bits": 8, "numerator_bits": 11, "frac": 8}])
@pytest.mark.parametrize("drop", [0, 4])
def test_centroid_is_within_its_bound_of_the_exact_quotient(drop, widths):
    base = Centroid.of_power(7, 6, 2, drop, **widths)
    codes = np.concatenate(
        [hostile_codes(7, Format(6, 6, False)), random_codes(7, Format(6, 6, False), 500, np.random.default_rng(1))]
    )
    w = np.asarray(base.weights)[codes].astype(float)
    total = w.sum(axis=(1, 2))
    position = np.arange(7) - 3
    exact = np.stack([w.sum(axis=2) @ position, w.sum(axis=1) @ position], axis=1) / np.where(total, total, 1)[:, None]
    exact *= 2.0**base.frac
    relative = 2.0 ** -(base.index_bits + 1) + 2.0**-base.reciprocal_bits
    lowered = 1 + 2.0 ** (base.frac + base.reach_bits + 1 - base.numerator_bits) * (1 + 2.0**-base.reciprocal_bits)
    error = base.codes(codes) - exact
    assert (error <= relative * np.abs(exact) + 1e-9).all()
    assert (error >= -lowered - relative * np.abs(exact) - 1e-9).all()
    assert not base.codes(np.zeros((1, 7, 7), int)).any()


def test_centroid_of_squares_is_the_estimator_of_the_tables():
    rng = np.random.default_rng(2)
    codes = random_codes(7, Format(8, 8, False), 300, rng)
    codes[:, 0, 0] = 0  # the estimator subtracts the minimum
    base = Centroid.of_power(7, 8, 2, index_bits=12, reciprocal_bits=16, numerator_bits=24, frac=16)
    assert np.abs(base.codes(codes) / 2.0**16 - centre_of_mass_squared(codes)).max() < 3 * (2**-13 + 2**-16) + 2**-15


def test_centroid_refuses_widths_and_powers():
    with pytest.raises(UserError, match="power 3 is not offered"):
        Centroid.of_power(7, 6, 3)
    with pytest.raises(UserError, match="window 4 must be odd"):
        Centroid.of_power(4, 6, 2)
    with pytest.raises(UserError, match="frac 21 is out of range"):
        Centroid.of_power(7, 6, 2, frac=21)
    with pytest.raises(UserError, match="3 weights"):
        Centroid(7, (0, 1, 2))


def test_circuit_adds_the_correction_and_saturates():
    circuit = small_circuit()
    patches = np.random.default_rng(3).integers(0, 5000, (50, 11, 11))
    codes = circuit.codes(patches)
    assert np.array_equal(codes, BlockShift(6, 16).codes(patches[:, 2:9, 2:9]))
    alone = replace(circuit, centroid=None).run(codes)
    assert np.array_equal(circuit.run(codes), np.clip(alone + circuit.centroid.codes(codes), -(2**12), 2**12 - 1))
    narrow = replace(circuit, output=Format(8, FRAC, True))
    assert np.array_equal(narrow.run(codes), np.clip(alone + circuit.centroid.codes(codes), -128, 127))
    assert np.array_equal(circuit.locate(patches), circuit.run(codes) / 2.0**FRAC)


@pytest.mark.parametrize("circuit", [small_circuit(), small_circuit(False, True)], ids=["centroid", "alone"])
def test_circuit_file_round_trip(circuit, tmp_path):
    path = tmp_path / "locator.json"
    locators.save(circuit, path)
    found = locators.load(path)
    assert found.digest == circuit.digest
    codes = random_codes(7, circuit.network.input, 100, np.random.default_rng(0))
    assert np.array_equal(found.run(codes), circuit.run(codes))
    locators.save(found, tmp_path / "again.json")
    assert path.read_bytes() == (tmp_path / "again.json").read_bytes()


def test_circuit_with_the_min_max_normalizer_round_trip(tmp_path):
    circuit = IntegerLocator(11, 7, Normalizer(6, 16), small_network(7, 6), None, Format(13, FRAC, True))
    locators.save(circuit, tmp_path / "locator.json")
    assert locators.load(tmp_path / "locator.json").normalizer == circuit.normalizer


def test_circuit_file_that_is_damaged_is_refused(tmp_path):
    path = tmp_path / "locator.json"
    locators.save(small_circuit(), path)
    document = json.loads(path.read_text())
    for change, message in (
        ({"version": 9}, "version 9, expected 1"),
        (
            {"normalizer": {"kind": "block_shift", "bits": 7, "count_bits": 16, "subtract": False}},
            "unsigned codes of 7",
        ),
        ({"network": {}}, "not a circuit"),
    ):
        path.write_text(json.dumps(document | change))
        with pytest.raises(UserError, match=message):
            locators.load(path)
    stale = json.loads(json.dumps(document))
    stale["centroid"]["table"][3] += 1
    path.write_text(json.dumps(stale))
    with pytest.raises(UserError, match="reciprocals is not the one of its widths"):
        locators.load(path)
    path.write_text("{")
    with pytest.raises(UserError, match="not a circuit"):
        locators.load(path)


def test_circuit_refuses_parts_that_do_not_fit():
    circuit = small_circuit()
    with pytest.raises(UserError, match="expected odd, not larger"):
        replace(circuit, window=13)
    with pytest.raises(UserError, match="the centroid is for 7 px, codes of 5 bits"):
        replace(circuit, centroid=Centroid.of_power(7, 5, 2, frac=FRAC))
    with pytest.raises(UserError, match="fraction bits, the circuit's 8"):
        replace(circuit, output=Format(12, 8, True))
    with pytest.raises(UserError, match="expected \\(n, 11, 11\\)"):
        circuit.locate(np.zeros((2, 9, 9)))

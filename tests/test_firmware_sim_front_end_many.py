"""Many small frames as one tall one: the contract's records of each alone."""

import dataclasses

import numpy as np
import pytest

from braggnn_edge.peaks.significance import Significance
from firmware_sim.front_end import cases, many
from hls.rtl.front_end.geometry import Geometry
from quant.contract.block_shift import BlockShift
from quant.front_end.stream import arrived


@pytest.fixture(params=[(7, 4), (11, 1)])
def circuit(request, random_circuit):
    """A circuit, and the geometry of its front end."""
    window, area = request.param
    geometry = Geometry(4, 10, 32, 4096, window=window, min_area=area)
    return random_circuit(window=window, sigma=True, normalizer=BlockShift(4, 10)), geometry


def _equal(case, locator, first=0):
    found = many.records_of(case.front, locator, list(arrived(case.front, case.rows)), first)
    expected = case.expected(locator)
    for one in expected:
        one["frame"] += first
        if first:  # the sum has the number in it
            end = one.view(many.END_RECORD)[-1]
            end["checksum"] += first * (len(one) - 1)
    assert [len(one) for one in many.frames_of(found)] == [len(one) for one in expected]
    np.testing.assert_array_equal(found, np.concatenate(expected))
    return found


def test_frames_above_each_other_do_not_see_each_other(circuit):
    locator, geometry = circuit
    peaks = edges = 0
    for seed in range(3):
        for case, _ in cases.random_cases(seed, geometry, 4, 5):
            found = _equal(case, locator, first=7 * seed)
            own = found[found["kind"] == 0]
            peaks += len(own)
            edges += int((own["flags"] & 1).sum())
    assert peaks > edges > 0


def test_memories_of_one_value_a_pixel_and_the_significance_are_those_of_every_frame(circuit):
    locator, geometry = circuit
    rng = np.random.default_rng(1)
    for seed in range(2):
        for case, _ in cases.random_cases(seed, geometry, 2, 3):
            shape = case.front.shape
            front = dataclasses.replace(
                case.front, threshold=rng.integers(0, 9, shape), dark=rng.integers(0, 5, shape),
                mask=rng.random(shape) < 0.1, significance=Significance(40, 900),
            )  # fmt: skip
            _equal(dataclasses.replace(case, front=front), locator)


def test_a_tall_frame_has_an_end(circuit, monkeypatch):
    locator, geometry = circuit
    monkeypatch.setattr(many, "_TALL", 50)
    for case, _ in cases.random_cases(4, geometry, 2, 6):
        _equal(case, locator)


def test_no_frames_have_no_records(circuit):
    locator, geometry = circuit
    ((case, _),) = cases.random_cases(4, geometry, 1)
    assert len(many.records_of(case.front, locator, [])) == 0

"""Paired differences: what is no difference, what is one, and evidence that is not independent."""

import numpy as np
import pytest
from builders import spots

from braggnn_edge.evaluation.metrics import PERCENTILES
from braggnn_edge.evaluation.paired import differences, reflections


def test_a_difference_of_means_and_percentiles_has_its_interval() -> None:
    rng = np.random.default_rng(1)
    before = rng.exponential(0.1, 400)
    found = differences(before, before + rng.normal(-0.01, 0.02, 400), np.arange(400), 3)
    assert list(found) == ["mean", *PERCENTILES]
    assert found["mean"]["px"] == pytest.approx(-0.01, abs=0.003)
    width = found["mean"]["high"] - found["mean"]["low"]
    assert width == pytest.approx(2 * 1.96 * 0.02 / 20, rel=0.15)  # of a mean of 400 paired differences
    assert found["mean"]["low"] < found["mean"]["px"] < found["mean"]["high"] < 0
    assert all(one["low"] <= one["high"] for one in found.values())


def test_no_difference_is_none() -> None:
    errors = np.linspace(0.01, 0.5, 100)
    found = differences(errors, errors, np.arange(100), 3)
    assert all(set(one.values()) == {0.0} for one in found.values())


def test_peaks_of_one_reflection_are_no_independent_evidence() -> None:
    rng = np.random.default_rng(2)
    before, change = rng.exponential(0.1, 100), rng.normal(-0.01, 0.02, 100)
    widths = []
    for groups in (np.arange(400), np.repeat(np.arange(100), 4)):
        found = differences(np.repeat(before, 4), np.repeat(before + change, 4), groups, 3)["mean"]
        widths.append(found["high"] - found["low"])
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.15)


def test_peaks_at_one_place_of_successive_frames_are_one_reflection() -> None:
    table = spots(7, 5)
    places = [
        (10, 10, 0, 0),
        (11, 12, 1, 0),
        (12, 13, 2, 0),
        (10, 10, 4, 0),
        (10, 15, 0, 0),
        (10, 10, 1, 1),
        (90, 9, 0, 0),
    ]
    for name, values in zip(("row", "col", "frame", "scan"), zip(*places, strict=True), strict=True):
        table.peaks[name] = values
    found = reflections(table)
    assert found[0] == found[1] == found[2]
    assert len(set(found.tolist())) == 5

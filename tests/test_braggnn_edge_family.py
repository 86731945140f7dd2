"""The family of simulated patches: the same whatever the processes, true positions, what each share does."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.estimators import centre_of_mass
from braggnn_edge.simulation.family import SHARD, _drawn, draw
from braggnn_edge.simulation.family_crops import local_maxima
from braggnn_edge.simulation.family_spec import FamilySpec

#: Bright, lone, smooth spots on an ideal detector: what is left is the estimator's own error.
IDEAL = FamilySpec(
    heights=(1e5, 1e5), fwhm=(1.5, 2.0), fwhm_median=1.8, aspect_spread=0.0, streaks=0.0, eta=(0.0, 0.0), rough=0.0,
    skewed=0.0, flat=0.0, neighbours=0.0, dark=1.0, counting=1.0, zero_suppressed=0.0, saturated=0.0, bad_pixels=0.0,
    gain=(1.0, 1.0),
)  # fmt: skip


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))


@pytest.mark.slow
def test_patches_are_the_same_however_they_are_drawn() -> None:
    spec = FamilySpec()
    two = draw(spec, 5, SHARD + 100, workers=2)
    assert two.counts.shape == (SHARD + 100, 11, 11)
    assert same(draw(spec, 5, SHARD + 100), two)
    assert same(draw(spec, 5, 100, first=1), two[SHARD:])
    assert same(draw(spec, 5, SHARD // 4), two[: SHARD // 4])  # more than one batch, since some are drawn again
    assert not same(draw(spec, 6, 100), two[:100])


def test_counts_are_whole_and_offsets_near_the_centre() -> None:
    drawn = draw(FamilySpec(size=7), 1, 4000)
    assert drawn.counts.shape == (4000, 7, 7)
    assert np.array_equal(drawn.counts, np.rint(drawn.counts))
    assert drawn.counts.min() >= 0
    brightest = drawn.counts.reshape(4000, -1).max(1)
    assert (drawn.counts[:, 3, 3] == brightest).mean() > 0.97  # a neighbour may be brighter
    assert np.median(np.abs(drawn.offsets)) < 0.5
    assert (drawn.fwhm >= 0.7).all()
    assert (drawn.fwhm <= 9).all()


def test_the_truth_is_where_the_light_is() -> None:
    """A centroid of a spot that is whole in its patch has no error but noise."""
    drawn = draw(IDEAL, 2, 2000)
    error = centre_of_mass(drawn.counts) - drawn.offsets
    assert np.abs(error).max() < 0.02
    assert np.abs(error.mean(0)).max() < 1e-3


@pytest.mark.parametrize("kind", ["rough", "skewed", "flat"])
def test_the_truth_of_sub_spots_is_their_centre_of_mass(kind: str) -> None:
    drawn = draw(dataclasses.replace(IDEAL, **{kind: 1.0}), 3, 2000)
    error = centre_of_mass(drawn.counts) - drawn.offsets
    assert np.percentile(np.abs(error), 90) < 0.02  # some reach out of their patch
    assert np.abs(error.mean(0)).max() < 5e-3


def test_the_truth_is_that_of_the_spot_under_the_brightest_pixel() -> None:
    crowded = dataclasses.replace(IDEAL, neighbours=1.0, neighbour_distance=(4.0, 4.0), neighbour_ratio=(1.0, 1.0))
    drawn = draw(crowded, 4, 2000)
    assert np.abs(drawn.offsets).max() < 1.0


def test_defaults_draw_what_the_network_that_ships_was_trained_on() -> None:
    """Neither a random number more nor another order of them: few patches, so that no rounding of a processor shows."""
    rng = np.random.default_rng(7)
    two = [_drawn(FamilySpec(), rng, 64).counts for _ in range(2)]  # the second shows what the first consumed last
    assert [len(counts) for counts in two] == [58, 63]
    digest = hashlib.sha256(np.concatenate(two).astype("<i8").tobytes()).hexdigest()
    assert digest == "584b112cc26e6a5963869ae546ca487507fbfa952696fb46bca0c5f131dbb6c6"


def is_found(counts: np.ndarray, row: int, col: int) -> bool:
    """The window rule in plain words, of one pixel."""
    for r in range(row - 3, row + 4):
        for c in range(col - 3, col + 4):
            later = (r, c) > (row, col)
            if (r, c) != (row, col) and not (
                counts[r, c] < counts[row, col] or (counts[r, c] == counts[row, col] and later)
            ):
                return False
    return True


def test_local_maxima_are_those_of_the_window_rule() -> None:
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 12, (40, 19, 19)).astype(float)  # many equal pixels
    counts[20:] = np.round(counts[20:] ** 3 / 200)
    found = local_maxima(counts)
    assert 0 < found.sum() < found.size / 20
    for one, expected in zip(counts, found, strict=True):
        assert np.array_equal([[is_found(one, r, c) for c in range(5, 14)] for r in range(5, 14)], expected)


TWO = dataclasses.replace(IDEAL, neighbours=1.0, neighbour_distance=(4.5, 5.0), neighbour_ratio=(0.3, 0.3))


def test_window_rule_takes_the_dimmer_spot_too() -> None:
    drawn = draw(dataclasses.replace(TWO, window_rule=1.0), 4, 2000)
    centre = drawn.counts[:, 5, 5]
    dimmer = centre < drawn.counts.max((1, 2))
    assert 0.2 < dimmer.mean() < 0.35  # of half of them, those that lie far enough off along a row or column
    assert np.array_equal(centre, drawn.counts[:, 2:9, 2:9].max((1, 2)))
    assert np.abs(drawn.offsets).max() < 1.0
    error = np.abs(centre_of_mass(drawn.counts[:, 3:8, 3:8]) - drawn.offsets).max(1)
    assert np.median(error[dimmer]) < 0.1  # from the other spot it would be 4 px
    assert np.median(drawn.height[dimmer]) == pytest.approx(0.3 * np.median(drawn.height[~dimmer]), rel=0.05)
    half = draw(dataclasses.replace(TWO, window_rule=0.5), 4, 2000)
    assert 0.1 < (half.counts[:, 5, 5] < half.counts.max((1, 2))).mean() < 0.18


def test_component_rule_takes_the_brightest_spot() -> None:
    drawn = draw(TWO, 4, 1000)
    assert np.array_equal(drawn.counts[:, 5, 5], drawn.counts[:, 1:10, 1:10].max((1, 2)))
    assert np.median(drawn.height) == pytest.approx(1e5)


def test_lone_spots_are_cut_alike_by_both_rules() -> None:
    drawn = draw(dataclasses.replace(IDEAL, window_rule=1.0), 2, 1000)
    assert np.array_equal(drawn.counts[:, 5, 5], drawn.counts.max((1, 2)))
    assert np.abs(drawn.offsets).max() < 0.6


def test_bad_lines_are_whole_and_never_the_centre_s() -> None:
    drawn = draw(dataclasses.replace(LIT, bad_lines=0.6), 2, 2000)
    rows, cols = (drawn.counts == 0).all(2), (drawn.counts == 0).all(1)
    assert (rows.sum(1) + cols.sum(1) <= 1).all()
    assert (rows.any(1) | cols.any(1)).mean() == pytest.approx(0.6, abs=0.04)
    assert rows.any(1).mean() == pytest.approx(cols.any(1).mean(), abs=0.04)
    assert not rows[:, 5].any()
    assert not cols[:, 5].any()
    assert all(rows[:, i].any() and cols[:, i].any() for i in range(11) if i != 5)


#: The same with a background, so that no pixel is zero by itself.
LIT = dataclasses.replace(IDEAL, dark=0.0, background=(50.0, 50.0))


def tops(counts: np.ndarray) -> np.ndarray:
    """How many pixels of each patch have its largest count."""
    return (counts == counts.max((1, 2), keepdims=True)).sum((1, 2))


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"zero_suppressed": 1.0, "suppression": (0.1, 0.1)}, lambda counts: (counts == 0).mean() > 0.5),
        ({"saturated": 1.0}, lambda counts: (tops(counts) > 1).mean() > 0.5),
        ({"dark": 1.0}, lambda counts: np.median(counts) < 40),
        ({"bad_pixels": 1.0}, lambda counts: (counts == 0).any((1, 2)).mean() > 0.8),
        ({"gain": (4.0, 4.0)}, lambda counts: counts.max() > 3e5),
    ],
)
def test_every_share_does_what_it_says(change: dict[str, Any], seen: Any) -> None:
    assert not seen(draw(LIT, 1, 500).counts)
    assert seen(draw(dataclasses.replace(LIT, **change), 1, 500).counts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fwhm": (3.0, 2.0)}, r"fwhm = \(3.0, 2.0\); expected \(low, high\), ascending"),
        ({"heights": (0.0, 10.0)}, "heights"),
        ({"heights": ()}, r"heights = \(\); expected \(low, high\)"),
        ({"eta": (0.1, 0.2, 0.3)}, r"eta = \(0.1, 0.2, 0.3\); expected \(low, high\)"),
        ({"gain": (np.nan, 1.0)}, "gain"),
        ({"rough": 0.9, "skewed": 0.2}, "expected shares of at most 1 in all"),
        ({"size": 10}, "size = 10; expected odd"),
        ({"size": 13}, "size = 13; expected odd, from 3 to 11"),
        ({"eta": (0.0, 2.0)}, "eta"),
        ({"fwhm_median": 20.0}, "within fwhm"),
        ({"gain": (1.0, np.inf)}, "gain"),
        ({"suppression": (0.1, 1.0)}, "below 1"),
        ({"dark": 1.5}, "from 0 to 1"),
        ({"window_rule": 1.1}, r"window_rule = 1.1; expected from 0 to 1"),
        ({"bad_lines": -0.1}, r"bad_lines = -0.1; expected from 0 to 1"),
    ],
)
def test_ranges_that_hold_nothing_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(FamilySpec(), **change)


def test_no_patches_are_refused() -> None:
    with pytest.raises(UserError, match="0 patches by 1 processes"):
        draw(FamilySpec(), 1, 0)

"""Integrated intensity, background and width of peaks: against simulated truth, and what is left out of the sums."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from braggnn_edge.peaks.measure import Measured, measure
from braggnn_edge.peaks.peak_list import PeakFlag
from braggnn_edge.peaks.rules import Found, component_rule, window_rule
from braggnn_edge.simulation import simulate
from braggnn_edge.simulation.spec import SimulationSpec

SIZE = 11


def gaussian(shape: tuple[int, int], row: float, col: float, volume: float, sd: float = 1.0) -> np.ndarray:
    rows, cols = np.indices(shape)
    return volume / (2 * np.pi * sd**2) * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (2 * sd**2))


def measured(
    frame: np.ndarray, valid: np.ndarray | None = None, rule=component_rule, **options
) -> tuple[Found, Measured]:
    found = rule(40.0, **options)(frame, valid, size=SIZE)
    return found, measure(frame, valid, found, SIZE)


def test_intensity_of_lone_spots_is_the_truth_within_its_noise() -> None:
    spec = SimulationSpec(
        rows=512, cols=512, frames=1, reflections=400, heights=(250.0, 5000.0), rocking=(0.2, 0.4), eta=(0.0, 0.0),
        neighbours=0.0, streaks=0.0, fwhm_limits=(1.2, 3.0), background=20.0, gain=2.0, read_noise=3.0, dead=0.0,
        hot=0.0, window=27, rings=tuple(np.linspace(60.0, 340.0, 15)), ring_strain=0.02,
    )  # fmt: skip
    reflections, panel = simulate.draw_reflections(spec, 5), simulate.make_panel(spec, 5)
    expected, truth = simulate.expected_frame(spec, reflections, panel, 5, 0)
    frame = simulate.measure(spec, expected, panel, 5, 0)
    rule = component_rule(20.0, sigma=5.0, background_box=32, gain=2.0, read_noise=3.0)
    found = rule(frame, size=SIZE)
    given = measure(frame, None, found, SIZE)
    distance, spot = cKDTree(np.stack([truth["row"], truth["col"]], 1)).query(np.stack([found.row, found.col], 1))
    lone = (found.flags == 0) & (distance < 1.5) & (truth["neighbour"][spot] > 12)
    assert lone.sum() > 50
    background = truth["background"][spot]
    pixel = 2.0 * background + 3.0**2
    ring, patch = 4 * (SIZE - 1), SIZE**2
    deviation = np.sqrt(2.0 * truth["total"][spot] + patch * pixel * (1 + patch / ring))
    pull = ((given.intensity - truth["total"][spot]) / deviation)[lone]
    assert abs(pull.mean()) < 0.3
    assert 0.6 < pull.std() < 1.2
    assert abs(np.median(given.background[lone] - background[lone])) < 0.5
    minor, major = truth["fwhm_minor"][spot], truth["fwhm_major"][spot]
    ratio = 2.355 * np.fmin(*given.width.T) / minor
    assert 1.0 < np.median(ratio[lone & (major < 1.2 * minor)]) < 1.15  # what a pixel's own width adds


def test_few_counts_leave_no_bias() -> None:
    """The median of 0.3 photons a pixel is 0: 121 pixels would be 36 counts too many."""
    rng = np.random.default_rng(2)
    spots = np.zeros((400, 400))
    for row in range(20, 400, 40):
        for col in range(20, 400, 40):
            spots += gaussian((400, 400), row, col, 2000.0)
    found, given = measured(rng.poisson(spots + 0.3))
    assert len(found.row) == 100
    assert abs(given.intensity.mean() - 2000) < 3 * np.sqrt((2000 + 121 * 0.3 * 4) / 100)
    assert abs(given.background.mean() - 0.3) < 0.03


def test_what_is_not_of_the_peak_is_left_out_of_its_sum() -> None:
    shape = (40, 40)
    lone = gaussian(shape, 20, 20, 5000.0)
    neighbour = gaussian(shape, 20, 26, 900.0, 0.7)
    _, alone = measured(lone)
    assert alone.intensity[0] == pytest.approx(5000, rel=1e-4)
    found, both = measured(lone + neighbour)
    assert (found.flags == PeakFlag.NEIGHBOUR).all()
    outside = neighbour[neighbour <= 40].sum()
    assert 4900 < both.intensity[0] < 5000 + outside
    valid = np.ones(shape, bool)
    valid[20, 22] = False
    bright = np.where(valid, lone, 1e6)
    found, holed = measured(bright, valid)
    assert found.flags.tolist() == [PeakFlag.BAD_PIXEL]
    assert holed.intensity[0] == pytest.approx(5000 - lone[20, 22], rel=1e-4)


def test_maxima_of_one_component_share_its_pixels() -> None:
    shape = (40, 40)
    frame = gaussian(shape, 20, 17, 6000.0) + gaussian(shape, 20, 22, 6000.0)
    for rule, options in ((component_rule, {}), (window_rule, {})):
        found, given = measured(frame, rule=rule, **options)
        assert found.flags.tolist() == [PeakFlag.DOUBLE] * 2
        assert given.intensity == pytest.approx([6000, 6000], rel=0.02)


def test_peaks_at_the_edge_are_measured_in_what_there_is_of_the_patch() -> None:
    frame = gaussian((40, 40), 1, 20, 5000.0) + 3.0
    found, given = measured(frame)
    assert found.flags.tolist() == [PeakFlag.EDGE]
    assert given.background[0] == pytest.approx(3.0, abs=0.1)
    assert given.intensity[0] == pytest.approx((frame - 3.0).sum(), rel=0.01)


def test_without_a_free_border_the_patch_is_the_background_and_without_both_it_is_not_known() -> None:
    frame = np.full((11, 11), 100.0)
    frame[5, 5] = 900.0
    frame[3:8, 3:8] += 1.0
    valid = np.ones((11, 11), bool)
    valid[[0, -1]] = valid[:, [0, -1]] = False
    found = component_rule(101.5, min_area=1)(frame, valid, size=SIZE)
    given = measure(frame, valid, found, SIZE)
    assert given.background[0] == pytest.approx(100.0, abs=0.5)
    _, full = measured(frame)
    assert np.isnan([full.background[0], full.intensity[0], *full.width[0]]).all()


def test_a_spot_that_fills_its_patch_has_the_background_around_it() -> None:
    """Of a bright spot above a low threshold the component covers the patch: its surroundings are looked at."""
    frame = gaussian((60, 60), 30, 30, 400_000.0, 2.5) + 12.0
    found, given = measured(frame)
    assert found.area[0] > SIZE**2
    assert given.background[0] == pytest.approx(12.0, abs=2.0)  # its tail reaches farther
    patch = frame[25:36, 25:36] - given.background[0]
    assert given.intensity[0] == pytest.approx(patch.sum(), rel=1e-9)
    assert given.width[0] == pytest.approx([2.5, 2.5], rel=0.1)


def test_no_peaks_are_measured_as_none() -> None:
    _, given = measured(np.zeros((20, 20)))
    assert given.intensity.shape == (0,)
    assert given.width.shape == (0, 2)

"""The local background against known ones, and the thresholds that follow from it."""

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames import background
from braggnn_edge.label.spec import DetectorSpec, ScanSpec

RNG = np.random.default_rng(5)


def with_spots(level: np.ndarray, spots: int = 60) -> np.ndarray:
    """A frame of photon counts: background and peaks of up to 80 photons."""
    frame = RNG.poisson(level).astype(np.int32)
    steps = np.mgrid[-5:6, -5:6]
    profile = 80 * np.exp(-(steps**2).sum(axis=0) / 4)
    for row, col in RNG.integers(6, min(level.shape) - 6, (spots, 2)):
        frame[row - 5 : row + 6, col - 5 : col + 6] += RNG.poisson(profile)
    return frame


@pytest.mark.parametrize("photons", [0.7, 1.5, 2.5, 10.0, 100.0])
def test_flat_background_of_few_photons_is_unbiased(photons: float) -> None:
    # A median would be off by up to half a photon: it is 2 at 2.5 photons. Clipping at 3 standard deviations takes
    # some of the Poisson distribution's longer tail, and leaves some of the peaks' feet: 3 % of a deviation or so.
    found = background.estimate(with_spots(np.full((256, 256), photons)), box=32)
    assert found.dtype == np.float32
    assert abs(found.mean() - photons) < 0.06 * np.sqrt(photons)
    assert found.std() < 0.1 * np.sqrt(photons)  # 1 / 32 in one box, before the median of nine


def test_ring_is_followed_through_gaps_and_spots() -> None:
    row, col = np.mgrid[:300, :290]
    radius = np.hypot(row - 150, col - 140)
    level = 2.0 + 6.0 * np.exp(-(((radius - 90) / 40) ** 2))
    valid = np.ones(level.shape, bool)
    valid[:, 100:107] = valid[140:157] = False
    valid[:64, :64] = False  # whole boxes
    frame = np.where(valid, with_spots(level), 0)
    found = background.estimate(frame, valid, box=16)
    assert found.shape == level.shape
    error = (found - level)[valid]
    assert np.sqrt((error**2).mean()) < 0.35  # shot noise of a box 0.15, and what 16 px boxes flatten
    assert abs(error.mean()) < 0.1
    assert found[:64, :64].min() > 1.5  # from the nearest boxes, not 0
    zeros_counted = background.estimate(frame, None, box=16)
    assert np.abs(zeros_counted - level)[140:157].mean() > 1.0  # what the mask prevents


def test_almost_no_photons() -> None:
    # Most pixels are 0, and so are the quartiles: the model's noise keeps those that are 1. The clip takes 2 and more.
    found = background.estimate(RNG.poisson(np.full((256, 256), 0.3)).astype(np.uint16), box=32)
    assert abs(found.mean() - 0.3) < 0.08


def test_a_spot_that_fills_a_box_does_not_stand_out() -> None:
    frame = RNG.poisson(np.full((160, 160), 4.0)).astype(np.int32)
    frame[64:80, 64:80] += 500
    assert background.estimate(frame, box=16).max() < 5.0


def test_bad_pixels_and_hot_ones_have_no_weight() -> None:
    frame = with_spots(np.full((128, 128), 3.0), 0)
    valid = RNG.random(frame.shape) < 0.5
    expected = background.estimate(np.where(valid, frame, 0), valid, box=32)
    assert np.array_equal(background.estimate(np.where(valid, frame, 10**6), valid, box=32), expected)
    frame[::16, ::16] = 10**5
    assert np.abs(background.estimate(frame, box=32) - 3.0).max() < 0.5


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (33, 64), (70, 31)])
def test_frames_that_are_no_multiple_of_a_box(shape: tuple[int, int]) -> None:
    found = background.estimate(np.full(shape, 7, np.uint16), box=32)
    assert found.shape == shape
    assert np.allclose(found, 7.0)


def test_a_slope_is_interpolated() -> None:
    level = np.add.outer(np.arange(128) * 0.5, np.arange(96) * 0.25).astype(np.float32)
    found = background.estimate(level, box=16, read_noise=1.0)
    # Between the outer centres a plane comes back; there the median of nine boxes has moved nothing but the rim.
    assert np.allclose(found[24:-24, 24:-24], level[24:-24, 24:-24], atol=1e-3)


def test_thresholds_are_per_pixel() -> None:
    detector = DetectorSpec(gain=4.0, read_noise=3.0)
    frame = np.where(np.arange(256) < 128, 100, 400) * np.ones((128, 1), np.int32)
    assert background.threshold_of(frame, None, ScanSpec("a", threshold=9.0, detector=detector)) == 9.0
    counts = background.threshold_of(frame, None, ScanSpec("a", background_box=32, threshold=9.0, detector=detector))
    assert np.allclose(counts[:, [20, 230]], [109.0, 409.0])
    sigma = background.threshold_of(frame, None, ScanSpec("a", background_box=32, sigma=5.0, detector=detector))
    expected = [100 + 5 * np.sqrt(4 * 100 + 9), 400 + 5 * np.sqrt(4 * 400 + 9)]
    assert np.allclose(sigma[:, [20, 230]], expected)


def test_noise_of_no_background_is_that_of_one_photon() -> None:
    assert background.noise(np.array([-3.0, 0.0, 2.0, 8.0], np.float32), 2.0, 0.0).tolist() == [2.0, 2.0, 2.0, 4.0]


def test_senseless_requests_are_refused() -> None:
    frame = np.zeros((40, 40))
    with pytest.raises(UserError, match="no good pixel"):
        background.estimate(frame, np.zeros(frame.shape, bool), box=16)
    with pytest.raises(UserError, match="expected 2-D"):
        background.estimate(frame[0], box=16)
    with pytest.raises(UserError, match="background_box 4"):
        ScanSpec("a", background_box=4)
    with pytest.raises(UserError, match="needs a background_box"):
        ScanSpec("a", sigma=5.0)

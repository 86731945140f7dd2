"""Joint fits of overlapping peaks: at the bound, in the order asked for, and equal to the single fit for one peak."""

import numpy as np
import pytest
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit.joint import fit_joint
from braggnn_edge.fit.pseudo_voigt import render
from braggnn_edge.fit.single import fit

SIZE = 17


def overlapping(count: int, peaks: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth (n, K, 8), its centres 3 px or more apart, and Poisson data (n, SIZE, SIZE)."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((count, peaks, 8))
    for i in range(count):
        while True:
            place = rng.uniform(4.5, 11.5, (peaks, 2))
            apart = np.linalg.norm(place[:, None] - place[None], axis=2) + 10 * np.eye(peaks)
            if apart.min() > 3.0:
                break
        truth[i, :, :2] = place
    widths = np.sort(rng.uniform(1.3, 2.6, (count, peaks, 2)), axis=2)
    truth[..., 2] = np.exp(rng.uniform(np.log(300), np.log(5000), (count, peaks)))
    truth[..., 3], truth[..., 4] = widths[..., 1], widths[..., 0]
    truth[..., 5], truth[..., 6] = rng.uniform(-1.5, 1.5, (count, peaks)), rng.uniform(0.1, 0.9, (count, peaks))
    mean = sum(render(torch.from_numpy(truth[:, k]), SIZE).numpy() for k in range(peaks)) + 10.0
    return truth, rng.poisson(mean).astype(np.float64)


@pytest.mark.parametrize("peaks", [2, 3, 6])
def test_positions_are_as_good_as_their_covariance_says(peaks: int) -> None:
    count = 600 // peaks
    truth, data = overlapping(count, peaks, seed=peaks)
    result = fit_joint(data, np.rint(truth[..., :2]))
    assert result.converged.mean() > 0.99
    free = result.converged[:, None] & ~result.at_bound[..., :7].any(axis=2)
    assert free.mean() > 0.9
    pull = ((result.parameters - truth)[..., :2] / result.sigma[..., :2])[free]
    # 1,000 or so standard normals: their rms is known to 2.2 %; four of those, and 5 % for second-order terms.
    assert abs(np.sqrt((pull**2).mean()) - 1) < 0.14
    assert (np.ptp(result.parameters[..., 7], axis=1) == 0).all()


def test_a_single_fit_of_two_peaks_is_worse() -> None:
    truth, data = overlapping(100, 2, seed=9)
    joint = fit_joint(data, np.rint(truth[..., :2]))
    assert np.median(joint.chi2 / joint.dof) < 1.2
    alone = fit(data)
    assert np.median(alone.chi2 / alone.dof) > 2.0


def test_one_peak_is_the_single_fit() -> None:
    truth, data = overlapping(100, 1, seed=10)
    joint, single = fit_joint(data, np.rint(truth[..., :2])), fit(data)
    # Another start, the same minimum: each stops within about 1e-4 sigma of it.
    apart = np.abs(joint.parameters[:, 0, :2] - single.parameters[:, :2]) / single.sigma[:, :2]
    assert np.percentile(apart, 98) < 1e-3
    close = apart.max(axis=1) < 1e-3
    np.testing.assert_allclose(joint.sigma[close, 0, :2], single.sigma[close, :2], rtol=1e-3)
    np.testing.assert_array_equal(joint.dof, single.dof)


def test_order_of_the_maxima_is_kept_and_bits_do_not_depend_on_threads() -> None:
    truth, data = overlapping(60, 3, seed=11)
    places = np.rint(truth[..., :2])
    first = fit_joint(data, places, threads=1)
    again = fit_joint(data, places, threads=3)
    assert np.array_equal(first.parameters, again.parameters)
    turned = fit_joint(data, places[:, ::-1])
    apart = np.abs(turned.parameters[:, ::-1, :2] - first.parameters[..., :2]) / np.maximum(first.sigma[..., :2], 1e-9)
    assert np.percentile(apart, 98) < 1e-2


def test_masked_pixels_and_bad_input() -> None:
    truth, data = overlapping(3, 2, seed=12)
    places = np.rint(truth[..., :2])
    valid = np.ones(data.shape, bool)
    valid[:, 0, 0] = False
    data[:, 0, 0] = np.nan
    assert (fit_joint(data, places, valid=valid).dof <= SIZE**2 - 1 - 14).all()
    with pytest.raises(UserError, match="patch 0 of 3 holds NaN"):
        fit_joint(data, places)
    with pytest.raises(UserError, match=r"maxima of shape \(3, 7, 2\)"):
        fit_joint(np.ones((3, 11, 11)), np.ones((3, 7, 2)))
    with pytest.raises(UserError, match="maxima reach outside"):
        fit_joint(np.ones((3, 11, 11)), np.full((3, 1, 2), 11))
    assert len(fit_joint(np.zeros((0, 11, 11)), np.zeros((0, 2, 2)))) == 0

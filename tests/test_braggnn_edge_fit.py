import math

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit.cramer_rao import inverse, parameter_bound, position_bound
from braggnn_edge.fit.pseudo_voigt import PARAMETERS, TILT, render, render_with_jacobian
from braggnn_edge.fit.single import FitResult, fit

SIZE = 11


def draw(count, amplitude, background, seed, spread=0.5):
    """Peaks (n, 8) of FWHM 1.3 to 3.5 px near the centre."""
    rng = np.random.default_rng(seed)
    widths = np.sort(rng.uniform(1.3, 3.5, (count, 2)), axis=1)
    columns = (
        SIZE // 2 + rng.uniform(-spread, spread, count),
        SIZE // 2 + rng.uniform(-spread, spread, count),
        np.full(count, float(amplitude)),
        widths[:, 1],
        widths[:, 0],
        rng.uniform(-math.pi / 2, math.pi / 2, count),
        rng.uniform(0.1, 0.9, count),
        np.full(count, float(background)),
    )
    return np.stack(columns, axis=1)


def expected(peaks, order=3):
    return render(torch.from_numpy(peaks), SIZE, order).numpy()


def measured(peaks, seed, gain=1.0, read_noise=0.0):
    rng = np.random.default_rng(seed)
    mean = expected(peaks)
    return gain * rng.poisson(mean / gain) + read_noise * rng.standard_normal(mean.shape)


def scores(result, peaks, **noise):
    """Position errors in units of the Cramer-Rao bound, (n, 2)."""
    bound = position_bound(torch.from_numpy(peaks), SIZE, **noise)
    return (result.parameters[:, :2] - peaks[:, :2]) / np.sqrt(np.diagonal(bound, axis1=1, axis2=2))


def same(first: FitResult, second: FitResult) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in vars(first))


def test_noise_free_peaks_are_recovered():
    peaks = draw(100, 1000, 5, seed=0, spread=2.5)
    result = fit(expected(peaks))
    assert result.converged.all()
    # The step that ends a fit is below 1e-4 standard deviations (levenberg_marquardt.PRECISION); those are < 0.1 px.
    np.testing.assert_allclose(result.parameters[:, :2], peaks[:, :2], atol=1e-5)
    turn = np.angle(np.exp(2j * (result.parameters[:, TILT] - peaks[:, TILT]))) / 2
    assert np.all(np.abs(turn) <= 1e-3 * result.sigma[:, TILT])
    rest = [k for k in range(8) if k != TILT]
    assert np.all(np.abs(result.parameters - peaks)[:, rest] <= 1e-3 * result.sigma[:, rest])
    np.testing.assert_allclose(result.offset, result.parameters[:, :2] - 5, atol=0)
    assert result.residual.max() < 1e-5


@pytest.mark.parametrize(("amplitude", "gain", "read_noise"), [(100, 1.0, 1.0), (2000, 2.5, 6.0)])
def test_scipy_finds_the_same_minimum(amplitude, gain, read_noise):
    count = 100
    peaks = draw(count, amplitude, 10, seed=1)
    data = measured(peaks, 2, gain, read_noise)
    result = fit(data, gain=gain, read_noise=read_noise)
    offset = read_noise**2 / gain
    compared = far = 0
    for patch, peak, ours in zip(data, peaks, result.parameters, strict=True):
        shifted = patch.ravel() + offset
        if shifted.min() <= 0:
            continue  # such a pixel has no deviance residual for scipy to square

        def residuals(x, shifted=shifted):
            model = render(torch.from_numpy(x)[None], SIZE)[0].numpy().ravel() + offset
            deviance = 2.0 / gain * (model - shifted - shifted * np.log1p((model - shifted) / shifted))
            return np.sign(model - shifted) * np.sqrt(np.maximum(deviance, 0.0))

        def jacobian(x, shifted=shifted):
            model, slope = render_with_jacobian(torch.from_numpy(x)[None], SIZE)
            model = model.numpy().ravel() + offset
            root = residuals(x)
            small = np.abs(root) < 1e-4  # the quotient's limit
            factor = (1 - shifted / model) / gain / np.where(small, 1.0, root)
            return np.where(small, 1 / np.sqrt(gain * model), factor)[:, None] * slope[0].numpy()

        low = [-0.5, -0.5, 1e-3 * gain, 0.5, 0.5, -10, 0, 1e-3 * gain - 0.9 * offset]
        high = [10.5, 10.5, 100 * patch.max(), 22, 22, 10, 1, 2 * patch.max()]
        scale = [1, 1, amplitude, 1, 1, 1, 1, 10]
        # From the truth, which lies in the right basin.
        other = least_squares(residuals, peak, jacobian, (low, high), x_scale=scale, xtol=1e-9, ftol=1e-11)
        compared += 1
        if np.abs(other.x[:2] - ours[:2]).max() > 1e-4:
            far += 1
            # Two minima, or a search that stopped short on one side: ours must be the lower one.
            assert (residuals(ours) ** 2).sum() < 2 * other.cost + 1e-6
    assert result.converged.all()
    assert compared > 0.9 * count
    # A peak whose best eta is at a bound has a flat valley there, where scipy stops up to 1e-3 px short.
    assert far <= 0.05 * count


@pytest.mark.parametrize(
    ("amplitude", "background", "gain", "read_noise"), [(1000, 5, 1.0, 0.0), (1000, 20, 1.0, 3.0), (5000, 0, 2.0, 5.0)]
)
def test_error_is_at_the_cramer_rao_bound(amplitude, background, gain, read_noise):
    count = 1500
    peaks = draw(count, amplitude, background, seed=3)
    result = fit(measured(peaks, 4, gain, read_noise), order=3, gain=gain, read_noise=read_noise)
    assert result.converged.all()
    score = scores(result, peaks, gain=gain, read_noise=read_noise)
    # 2 * 1500 standard normals: the relative error of their rms is 1 / sqrt(2 * 3000) = 1.3 %; 4 of those, and
    # 1 % for the terms beyond the bound's first order.
    assert abs(math.sqrt((score**2).mean()) - 1) < 0.062
    # No bias: the mean of each of row and col is below 4 standard errors ...
    assert np.abs(score.mean(axis=0)).max() < 4 / math.sqrt(count)
    # ... in every sixth of the sub-pixel phase, too (12 cells: 4.5 standard errors have probability 1e-4).
    for axis in (0, 1):
        cell = np.floor((peaks[:, axis] - 4.5) * 6).astype(int)
        for k in range(6):
            part = score[cell == k, axis]
            assert abs(part.mean()) < 4.5 / math.sqrt(len(part))
    # The reported sigma says the same; chi2 has its mean, standard error sqrt(2 * 113 / 1500) = 0.39.
    own = (result.parameters[:, :2] - peaks[:, :2]) / result.sigma[:, :2]
    assert abs(math.sqrt((own**2).mean()) - 1) < 0.062
    assert abs((result.chi2 - result.dof).mean()) < 4 * 0.39 + 0.5


def test_no_bias_at_low_counts():
    # Weights from the data would pull the background (2 counts) down by about one count and the amplitude with it.
    count = 1000
    peaks = draw(count, 40, 2, seed=5)
    result = fit(measured(peaks, 6), order=2)
    error = result.parameters[:, 7] - peaks[:, 7]
    # Per-peak sigma of the background is about 0.4 counts: 4 standard errors, and second-order terms below 0.1.
    assert abs(np.median(error)) < 4 * 1.25 * 0.4 / math.sqrt(count) + 0.1
    score = scores(result, peaks, gain=1.0, read_noise=0.0)
    assert np.abs(score.mean(axis=0)).max() < 4 * 1.2 / math.sqrt(count)


def test_zeros_below_zero_suppression_are_no_data():
    count, zero_suppression = 800, 60.0
    peaks = draw(count, 1000, 20, seed=7)
    data = measured(peaks, 8, read_noise=2.0)
    data[data < zero_suppression] = 0.0
    result = fit(data, read_noise=2.0, zero_suppression=zero_suppression)
    score = scores(result, peaks, gain=1.0, read_noise=2.0, zero_suppression=zero_suppression)
    censored = math.sqrt((score**2).mean())
    # 1600 normals: 1.8 %, four of those; 4 % for the second order with this little data.
    assert abs(censored - 1) < 0.11
    naive = fit(data, read_noise=2.0)
    assert (
        math.sqrt((scores(naive, peaks, gain=1.0, read_noise=2.0, zero_suppression=zero_suppression) ** 2).mean())
        > 1.1 * censored
    )


def test_saturated_and_invalid_pixels_are_left_out():
    peaks = draw(200, 1000, 5, seed=9)
    data = measured(peaks, 10)
    limit = 700.0
    result = fit(np.minimum(data, limit), saturation=limit)
    score = scores(result, peaks, gain=1.0, read_noise=0.0, saturation=limit)
    # 400 normals: 3.5 %, four of those, and 10 % because which pixels saturate depends on the noise.
    assert abs(math.sqrt((score**2).mean()) - 1) < 0.24
    valid = np.ones((SIZE, SIZE), dtype=bool)
    valid[2, 7] = False
    spoiled = data.copy()
    spoiled[:, 2, 7] = np.nan
    dull = data.copy()
    dull[:, 2, 7] = 3.0
    assert same(fit(spoiled, valid=valid), fit(dull, valid=valid))
    partial = fit(spoiled, valid=valid)
    assert (partial.dof - partial.at_bound.sum(axis=1) == SIZE * SIZE - 1 - 8).all()


def test_results_do_not_depend_on_the_batch():
    peaks = draw(150, 300, 5, seed=11)
    data = measured(peaks, 12, read_noise=1.0)
    for zero_suppression in (None, 20.0):
        stored = data if zero_suppression is None else np.where(data < zero_suppression, 0.0, data)
        whole = fit(stored, read_noise=1.0, zero_suppression=zero_suppression, chunk=64)
        assert same(whole, fit(stored, read_noise=1.0, zero_suppression=zero_suppression, chunk=150))
        for k in (0, 77):
            assert same(
                whole.select(np.array([k])), fit(stored[k : k + 1], read_noise=1.0, zero_suppression=zero_suppression)
            )
        order = np.random.default_rng(0).permutation(len(stored))
        assert same(whole.select(order), fit(stored[order], read_noise=1.0, zero_suppression=zero_suppression))


def test_output_is_canonical_and_progress_counts():
    calls = []
    peaks = draw(100, 500, 5, seed=13)
    result = fit(measured(peaks, 14), order=2, progress=lambda done, total: calls.append((done, total)))
    names = dict(zip(PARAMETERS, result.parameters.T, strict=True))
    assert (names["fwhm_major"] >= names["fwhm_minor"]).all()
    assert ((names["tilt"] > -math.pi / 2) & (names["tilt"] <= math.pi / 2)).all()
    assert ((names["eta"] >= 0) & (names["eta"] <= 1)).all()
    assert calls[-1] == (100, 100)
    assert calls == sorted(calls)


def test_corner_cases_end_and_are_flagged():
    hot = np.zeros((SIZE, SIZE))
    hot[5, 5] = 1000.0
    ramp = np.add.outer(np.arange(SIZE), np.arange(SIZE)) * 100.0
    data = np.stack([np.zeros((SIZE, SIZE)), np.full((SIZE, SIZE), 65535.0), hot, -hot, ramp])
    for zero_suppression in (None, 150.0):
        result = fit(data, zero_suppression=zero_suppression, read_noise=1.0, max_iterations=40)
        for name in ("parameters", "covariance", "sigma", "chi2", "residual"):
            assert np.isfinite(getattr(result, name)).all(), name
        assert (result.iterations <= 40).all()
        assert result.at_bound[2].any() or not result.converged[2]
    nothing = fit(np.zeros((1, SIZE, SIZE)), valid=np.zeros((SIZE, SIZE), dtype=bool))
    assert not nothing.converged[0]
    assert len(fit(np.zeros((0, SIZE, SIZE)))) == 0


def test_fixed_parameters_stay():
    peaks = draw(50, 500, 5, seed=15)
    peaks[:, 6] = 0.5
    result = fit(measured(peaks, 16), order=2, fixed={"eta": 0.5, "background": 5.0})
    assert (result.parameters[:, 6] == 0.5).all()
    assert (result.parameters[:, 7] == 5.0).all()
    assert (result.sigma[:, 6:] == 0).all()
    assert (result.dof == SIZE * SIZE - 6).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"gain": 0.0}, "gain 0.0"),
        ({"read_noise": -1.0}, "read_noise -1.0"),
        ({"zero_suppression": 0.0}, "zero_suppression 0.0"),
        ({"zero_suppression": 100.0, "saturation": 50.0}, "saturation 50.0"),
        ({"fixed": {"tilt": 0.0}}, "fixed parameter 'tilt'"),
        ({"fixed": {"eta": -1.0}}, "fixed eta = -1.0"),
        ({"valid": np.ones((3, 3), bool)}, "valid of shape"),
        ({"order": 0}, "order 0"),
    ],
)
def test_bad_options_are_refused(options, match):
    with pytest.raises(UserError, match=match):
        fit(np.ones((1, SIZE, SIZE)), **options)


def test_bad_patches_are_refused():
    data = np.ones((4, SIZE, SIZE))
    data[2, 0, 0] = np.nan
    with pytest.raises(UserError, match="patch 2 of 4 holds NaN"):
        fit(data)
    with pytest.raises(UserError, match=r"patches of shape \(11, 11\)"):
        fit(data[0])


def test_bound_equals_the_direct_inverse_of_the_information():
    peaks = torch.from_numpy(draw(20, 800, 10, seed=17))
    peaks[:, 3] = 1.5 * peaks[:, 4]  # so long that the cap on the tilt's sigma is out of reach
    mean, jacobian = render_with_jacobian(peaks, SIZE)
    variance = 2.0 * mean.flatten(1) + 9.0
    information = torch.einsum("npi,np,npj->nij", jacobian, 1 / variance, jacobian).numpy()
    bound = parameter_bound(peaks, SIZE, gain=2.0, read_noise=3.0)
    # Condition numbers after scaling are below 1e4: 1e-16 * 1e4 and room.
    reference = np.linalg.inv(information)
    scale = np.sqrt(np.einsum("ni,nj->nij", *2 * [np.diagonal(reference, axis1=1, axis2=2)]))
    assert np.abs((bound - reference) / scale).max() < 1e-9
    assert np.allclose(inverse(information) / scale, reference / scale, atol=1e-9, rtol=0)


def test_bound_of_a_round_peak_is_the_limit_of_nearly_round_ones():
    peaks = draw(1, 800, 10, seed=18).repeat(2, axis=0)
    peaks[:, 4] = 2.0
    peaks[:, 3] = (2.0, 2.0 * (1 + 1e-7))
    bound = position_bound(torch.from_numpy(peaks), SIZE, gain=1.0, read_noise=0.0)
    # Linear in the axis ratio's 1e-7, the off-diagonal included.
    np.testing.assert_allclose(bound[0], bound[1], rtol=0, atol=1e-6 * bound[0].max())


def test_zero_suppression_or_saturation_raises_the_bound():
    peaks = torch.from_numpy(draw(10, 800, 10, seed=19))
    free = position_bound(peaks, SIZE, gain=1.0, read_noise=1.0)
    for options in ({"zero_suppression": 50.0}, {"saturation": 500.0}):
        less = position_bound(peaks, SIZE, gain=1.0, read_noise=1.0, **options)
        assert (np.diagonal(less, axis1=1, axis2=2) > np.diagonal(free, axis1=1, axis2=2)).all()
    # A zero-suppression level far below the background censors nothing.
    none = position_bound(peaks, SIZE, gain=1.0, read_noise=1.0, zero_suppression=-1e3)
    np.testing.assert_allclose(none, free, rtol=1e-12)
    with pytest.raises(UserError, match="not positive everywhere"):
        position_bound(peaks - 20 * torch.eye(8)[7], SIZE, gain=1.0, read_noise=1.0)

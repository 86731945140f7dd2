import math

import numpy as np
import pytest
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit.pseudo_voigt import FWHM_MAJOR, FWHM_MINOR, PARAMETERS, quadrature, render, render_with_jacobian

SIZE = 11
# The table of the module's docstring: order -> largest error in units of the amplitude for FWHM >= 1, 1.5, 2 px.
TABLE = {
    1: (3.7e-1, 2.2e-1, 1.4e-1),
    2: (4.0e-2, 1.6e-2, 6.9e-3),
    3: (7.0e-3, 1.5e-3, 3.8e-4),
    4: (1.1e-3, 1.3e-4, 2.0e-5),
    5: (1.7e-4, 1.1e-5, 1.1e-6),
    6: (2.8e-5, 9.1e-7, 5.8e-8),
}


def draw(count: int, least: float, most: float, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    widths = np.sort(rng.uniform(least, most, (count, 2)), axis=1)
    # The extremes, where the error is largest: narrow peaks, pure Gaussians and Lorentzians.
    widths[::2, 0] = least
    widths[::4, 1] = least
    position = SIZE // 2 + rng.uniform(-0.5, 0.5, (count, 2))
    position[::5], position[1::5] = SIZE // 2, SIZE // 2 + 0.5
    eta = rng.uniform(0, 1, count)
    eta[: count // 4], eta[count // 4 : count // 2] = 0.0, 1.0
    columns = (
        position[:, 0],
        position[:, 1],
        np.ones(count),
        widths[:, 1],
        widths[:, 0],
        rng.uniform(-math.pi / 2, math.pi / 2, count),
        eta,
        np.zeros(count),
    )
    return torch.from_numpy(np.stack(columns, axis=1))


def test_order_one_samples_the_formula_at_the_pixel_centres():
    row, col, amplitude, major, minor, tilt, eta, background = 3.2, 4.9, 70.0, 3.0, 1.5, 0.4, 0.3, 2.0
    parameters = torch.tensor([[row, col, amplitude, major, minor, tilt, eta, background]], dtype=torch.float64)
    image = render(parameters, (7, 9), order=1)
    assert image.shape == (1, 7, 9)
    for i, j in ((0, 0), (3, 5), (6, 2)):
        drow, dcol = i - row, j - col
        u = math.cos(tilt) * dcol + math.sin(tilt) * drow
        v = -math.sin(tilt) * dcol + math.cos(tilt) * drow
        r2 = (u / major) ** 2 + (v / minor) ** 2
        profile = eta / (1 + 4 * r2) + (1 - eta) * math.exp(-4 * math.log(2) * r2)
        # A few roundings of values below 100.
        assert float(image[0, i, j]) == pytest.approx(amplitude * profile + background, rel=1e-13)


def test_half_maximum_lies_half_a_width_along_each_axis():
    # Sampled at its own half-width points, a peak of height 1 is 0.5 whatever its eta.
    for tilt, point in ((0.0, (0.0, 2.0)), (math.pi / 2, (2.0, 0.0))):
        for eta in (0.0, 0.3, 1.0):
            parameters = torch.tensor([[2.0, 2.0, 1.0, 4.0, 2.0, tilt, eta, 0.0]], dtype=torch.float64)
            value = render(parameters, 5, order=1)[0, int(2 + point[0]), int(2 + point[1])]
            assert float(value) == pytest.approx(0.5, rel=1e-13)


def test_quadrature_error_is_as_stated():
    for column, least in enumerate((1.0, 1.5, 2.0)):
        peaks = draw(512, least, 4.5, seed=column)
        exact = render(peaks, SIZE, order=10)
        # Order 10 is exact to 2e-8 and better, far below every figure of the table but the last column's last.
        for order, stated in TABLE.items():
            error = float((render(peaks, SIZE, order) - exact).abs().max())
            # The table is rounded up to two figures from more peaks: nearly reached here, never passed.
            assert 0.85 * stated[column] < error < 1.001 * stated[column], (order, least)


def test_gaussian_integral_matches_the_error_function():
    # An independent reference: an untilted Gaussian integrates to a product of error functions.
    peak = torch.tensor([[5.2, 4.9, 1.0, 2.5, 1.5, 0.0, 0.0, 0.0]], dtype=torch.float64)

    def edges(centre: float, width: float) -> np.ndarray:
        scale = width / (2 * math.sqrt(math.log(2)))
        at = [math.erf((k - 0.5 - centre) / scale) for k in range(SIZE + 1)]
        return np.diff(at) * scale * math.sqrt(math.pi) / 2

    expected = np.outer(edges(5.2, 1.5), edges(4.9, 2.5))
    np.testing.assert_allclose(render(peak, SIZE, order=12)[0].numpy(), expected, atol=1e-11)


def test_jacobian_equals_autograd_and_finite_differences():
    peaks = draw(30, 1.0, 4.5)
    peaks[:, 2] *= torch.linspace(1, 50, len(peaks))
    peaks[3, FWHM_MAJOR] = peaks[3, FWHM_MINOR]  # round
    peaks[4, FWHM_MAJOR] = peaks[4, FWHM_MINOR] * (1 + 1e-5)
    mean, jacobian = render_with_jacobian(peaks, (9, SIZE), 3)
    assert torch.equal(mean, render(peaks, (9, SIZE), 3))
    assert jacobian.shape == (30, 99, 8)
    auto = torch.stack([torch.autograd.functional.jacobian(render_one, peak) for peak in peaks])
    # Both are exact derivatives: they differ by roundings of terms below 100.
    assert float((jacobian - auto).abs().max()) < 1e-11
    for k in range(len(PARAMETERS)):
        step = torch.zeros(8, dtype=torch.float64)
        step[k] = 1e-5
        numeric = (render(peaks + step, (9, SIZE), 3) - render(peaks - step, (9, SIZE), 3)).flatten(1) / 2e-5
        # Central differences: third derivatives of at most about 1e3 amplitudes / px^3 times step^2 / 6, and
        # rounding 1e-14 * 50 / 1e-5.
        assert float((jacobian[:, :, k] - numeric).abs().max()) < 1e-6


def render_one(parameters: torch.Tensor) -> torch.Tensor:
    # The formula once more, in the other order of operations.
    nodes, weights = quadrature(3)
    row, col, amplitude, major, minor, tilt, eta, background = parameters.unbind()
    y = (torch.arange(9)[:, None] + torch.tensor(nodes)).reshape(-1, 1) - row
    x = (torch.arange(SIZE)[:, None] + torch.tensor(nodes)).reshape(1, -1) - col
    u, v = torch.cos(tilt) * x + torch.sin(tilt) * y, torch.cos(tilt) * y - torch.sin(tilt) * x
    r2 = (u / major) ** 2 + (v / minor) ** 2
    profile = amplitude * (eta / (1 + 4 * r2) + (1 - eta) * torch.exp(-4 * math.log(2) * r2)) + background
    weight = torch.tensor(weights)
    return torch.einsum("aibj,i,j->ab", profile.reshape(9, 3, SIZE, 3), weight, weight).reshape(-1)


def test_float32_follows_float64():
    peaks = draw(20, 1.0, 4.5)
    single = render(peaks.float(), SIZE)
    assert single.dtype == torch.float32
    # Positions of order 10 in float32 are off by 1e-6; slopes are below 2 amplitudes a pixel.
    assert float((single.double() - render(peaks, SIZE)).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: p[:, :7], "expected .n, 8. floats"),
        (lambda p: p.long(), "expected .n, 8. floats"),
        (lambda p: torch.where(torch.arange(8) == FWHM_MINOR, 0.0, p), "peak 0: .*widths above 0"),
        (lambda p: torch.where(torch.arange(len(p))[:, None] == 2, math.nan, p), "peak 2: .*finite"),
    ],
)
def test_bad_parameters_are_refused(change, match):
    with pytest.raises(UserError, match=match):
        render(change(draw(4, 1.0, 2.0)), SIZE)


def test_bad_order_and_size_are_refused():
    with pytest.raises(UserError, match="order 0"):
        render(draw(1, 1.0, 2.0), SIZE, order=0)
    with pytest.raises(UserError, match="patch size"):
        render(draw(1, 1.0, 2.0), (0, 3))

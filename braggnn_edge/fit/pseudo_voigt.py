"""The two-dimensional tilted pseudo-Voigt profile, integrated over pixels, and its analytic derivatives.

    profile(r) = amplitude * (eta / (1 + 4 r^2) + (1 - eta) * exp(-4 ln2 r^2)) + background
    r^2 = (u / fwhm_major)^2 + (v / fwhm_minor)^2
    u =  cos(tilt) * dcol + sin(tilt) * drow,    v = -sin(tilt) * dcol + cos(tilt) * drow

(the usual height-normalized sum of a Lorentzian and a Gaussian of equal FWHM; the tilt is the angle of the
major axis from +col towards +row, radians). ``amplitude`` is the height of the profile above the background
before integration. A pixel holds the mean of the profile over its unit square, by tensor-product
Gauss-Legendre quadrature.

Largest quadrature error in units of the amplitude, over position in the pixel, tilt, eta and axis ratio
(measured in tests/test_braggnn_edge_pseudo_voigt.py):

    order   FWHM >= 1 px   >= 1.5 px   >= 2 px
    1         3.7e-1          2.2e-1      1.4e-1
    2         4.0e-2          1.6e-2      6.9e-3
    3         7.0e-3          1.5e-3      3.8e-4
    4         1.1e-3          1.3e-4      2.0e-5
    5         1.7e-4          1.1e-5      1.1e-6
    6         2.8e-5          9.1e-7      5.8e-8
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from braggnn_edge.core.errors import UserError

PARAMETERS = ("row", "col", "amplitude", "fwhm_major", "fwhm_minor", "tilt", "eta", "background")
ROW, COL, AMPLITUDE, FWHM_MAJOR, FWHM_MINOR, TILT, ETA, BACKGROUND = range(8)
LN16 = 4.0 * math.log(2.0)
MAX_ORDER = 64
# Peaks rendered at a time: their arrays stay in a processor's cache, which is several times faster.
BLOCK = 128


def quadrature(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes in (-0.5, 0.5) and weights that sum to one, both (order,) float64."""
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or not 1 <= order <= MAX_ORDER:
        raise UserError(f"quadrature order {order!r}: expected 1 to {MAX_ORDER}; 3 suits FWHM >= 1.5 px")
    nodes, weights = _quadrature(int(order))
    return nodes.copy(), weights.copy()  # no caller can change those of others


@functools.cache
def _quadrature(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Computed once: as roots of a polynomial they take as long as a block of peaks takes to render."""
    nodes, weights = (values / 2.0 for values in np.polynomial.legendre.leggauss(order))
    return nodes, weights


def shape_of(size: int | tuple[int, int]) -> tuple[int, int]:
    """``size`` as (height, width); UserError unless both are at least one."""
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    if height < 1 or width < 1:
        raise UserError(f"patch size {size!r}: expected at least one pixel each way")
    return int(height), int(width)


def pixel_means(parameters: Tensor, size: int | tuple[int, int], order: int, jacobian: bool) -> tuple[Tensor, Tensor]:
    """The model with the peaks in the last dimension: (8, n) to (h*w, n), and its derivatives (8, h*w, n).

    The layout keeps every operation elementwise over peaks, so that a peak's result does not depend on its
    neighbours in the batch. The derivatives (left empty without ``jacobian``) are with respect to *local*
    coordinates, which stay regular for a round peak where the tilt does not exist: (row, col, amplitude,
    a, b, s, eta, background), where a = 2 ln fwhm_major, b = 2 ln fwhm_minor and s is the off-diagonal
    element of the logarithm of the squared-width matrix in the frame of the peak's own axes; d/dtilt = (a - b) d/ds.
    No validation: callers have checked.
    """
    height, width = shape_of(size)
    nodes, weights = quadrature(order)
    row, col, amplitude, major, minor, tilt, eta, background = parameters.unbind(0)
    cos, sin = torch.cos(tilt), torch.sin(tilt)
    u_col, u_row, v_col, v_row = cos / major, sin / major, -sin / minor, cos / minor
    drow = torch.arange(height, dtype=parameters.dtype, device=parameters.device)[:, None] - row
    dcol = torch.arange(width, dtype=parameters.dtype, device=parameters.device)[:, None] - col
    gauss_share = 1.0 - eta
    gauss_slope, lorentz_slope = -LN16 * gauss_share, -4.0 * eta
    zero = torch.zeros_like(drow)[:, None] + torch.zeros_like(dcol)
    lorentz_sum = gauss_sum = fu = fv = fuu = fuv = fvv = zero
    # One quadrature point at a time: the working set is then one patch, not order^2 patches.
    for i in range(len(nodes)):
        y = drow + float(nodes[i])
        uy, vy = (u_row * y)[:, None], (v_row * y)[:, None]
        for j in range(len(nodes)):
            weight = float(weights[i] * weights[j])
            x = dcol + float(nodes[j])
            u, v = uy + u_col * x, vy + v_col * x
            uu, vv = u * u, v * v
            r2 = uu + vv
            gauss = torch.exp(r2 * -LN16)
            lorentz = torch.reciprocal(r2 * 4.0 + 1.0)
            gauss_sum = gauss * weight + gauss_sum
            lorentz_sum = lorentz * weight + lorentz_sum
            if jacobian:
                slope = (gauss * gauss_slope + lorentz * lorentz * lorentz_slope) * weight
                su, sv = slope * u, slope * v
                fu, fv = su + fu, sv + fv
                fuu, fvv, fuv = slope * uu + fuu, slope * vv + fvv, su * v + fuv
    unit = eta * lorentz_sum + gauss_share * gauss_sum
    mean = amplitude * unit + background
    if not jacobian:
        return mean.flatten(0, 1), mean.new_zeros(0)
    twice = -2.0 * amplitude
    # Divided difference of exp between the logarithmic axes: sinh(d) / d with d = ln(major / minor).
    half = torch.log(major / minor)
    small = half.abs() < 1e-4
    shear = torch.where(small, 1.0 + half * half / 6.0, torch.sinh(half) / torch.where(small, 1.0, half))
    out = torch.stack(
        (
            twice * (u_row * fu + v_row * fv),
            twice * (u_col * fu + v_col * fv),
            unit,
            -amplitude * fuu,
            -amplitude * fvv,
            twice * shear * fuv,
            amplitude * (lorentz_sum - gauss_sum),
            torch.ones_like(unit),
        )
    )
    return mean.flatten(0, 1), out.flatten(1, 2)


def to_lanes(parameters: Tensor) -> Tensor:
    """Check ``parameters`` (n, 8) and turn them to (8, n); UserError names the first bad peak."""
    if parameters.ndim != 2 or parameters.shape[1] != len(PARAMETERS) or not parameters.is_floating_point():
        raise UserError(
            f"parameters of shape {tuple(parameters.shape)}, {parameters.dtype}: expected "
            f"(n, 8) floats in the order {', '.join(PARAMETERS)}"
        )
    widths = parameters.detach()[:, [FWHM_MAJOR, FWHM_MINOR]]
    bad = ~((widths > 0).all(1) & torch.isfinite(parameters.detach()).all(1))
    if bool(bad.any()):
        index = int(bad.nonzero()[0, 0])
        raise UserError(f"peak {index}: parameters {parameters[index].tolist()} must be finite, both widths above 0 px")
    return parameters.T.contiguous()


def render(parameters: Tensor, size: int | tuple[int, int], order: int = 3) -> Tensor:
    """Pixel means of ``parameters`` (n, 8) on patches of ``size``: (n, h, w), same dtype and device.

    Rows and columns are in pixels from the centre of the patch's pixel (0, 0); ``order`` is the number of
    quadrature points each way in a pixel (1 samples the centre). Differentiable by autograd.
    Raises UserError for a wrong shape, non-finite parameters or widths that are not positive.
    """
    height, width = shape_of(size)
    blocks = to_lanes(parameters).split(BLOCK, dim=1)
    means = [pixel_means(block, (height, width), order, jacobian=False)[0] for block in blocks]
    return torch.cat(means, dim=1).T.reshape(-1, height, width).contiguous()


def render_with_jacobian(parameters: Tensor, size: int | tuple[int, int], order: int = 3) -> tuple[Tensor, Tensor]:
    """:func:`render` and the analytic derivatives (n, h*w, 8) with respect to PARAMETERS."""
    height, width = shape_of(size)
    lanes = to_lanes(parameters)
    mean, local = pixel_means(lanes, (height, width), order, jacobian=True)
    factors = torch.ones_like(lanes)
    factors[FWHM_MAJOR] = 2.0 / lanes[FWHM_MAJOR]
    factors[FWHM_MINOR] = 2.0 / lanes[FWHM_MINOR]
    factors[TILT] = 2.0 * torch.log(lanes[FWHM_MAJOR] / lanes[FWHM_MINOR])
    jacobian = (local * factors[:, None]).permute(2, 1, 0)
    return mean.T.reshape(-1, height, width).contiguous(), jacobian.contiguous()

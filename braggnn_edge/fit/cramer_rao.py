"""The Cramer-Rao bound on a peak's position: the smallest variance an unbiased estimator can have.

Model of a pixel: a Gaussian of mean m (the pixel-integrated pseudo-Voigt) and variance gain * m +
read_noise^2, all in ADU, gain in ADU per photon. The dependence of the variance on the parameters is left
out of the information, which is exact for Poisson noise alone (information 1 / m per photon) and low by a
relative 1 / (2 m) photons for a Gaussian one; hence "Gaussian approximation of variance". All eight
parameters are unknown to the estimator.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit.pseudo_voigt import FWHM_MAJOR, FWHM_MINOR, TILT, pixel_means, to_lanes

Array = NDArray[np.float64]
# The tilt of a round peak is unknown: its variance is at most that of a uniform angle over half a turn.
TILT_SIGMA = math.pi / math.sqrt(12.0)
#: The variance of what is not known: finite, and so are sums of a few and what an ellipse of some px makes of it.
_HUGE = 1e300


def check_noise(gain: float, read_noise: float) -> None:
    """UserError unless the gain is positive and the read noise not negative, both finite."""
    if not (math.isfinite(gain) and gain > 0):
        raise UserError(f"gain {gain}: expected ADU per photon above 0; use 1.0 for a photon-counting detector")
    if not (math.isfinite(read_noise) and read_noise >= 0):
        raise UserError(f"read_noise {read_noise}: expected ADU rms, 0 or more; use 0.0 for a photon counter")


def inverse(information: Array, frozen: NDArray[np.bool_] | None = None) -> Array:
    """Inverse of symmetric positive matrices (n, k, k); ``frozen`` (n, k) is held fixed: zeros.

    By Gauss-Jordan elimination on matrices scaled to a unit diagonal, in elementwise operations, so that a
    result does not depend on the batch. Directions without information get a huge but finite variance.
    """
    count, size = information.shape[:2]
    free = np.ones((count, size), bool) if frozen is None else ~frozen
    diagonal = np.where(free, np.diagonal(information, axis1=1, axis2=2), 1.0)
    scale = 1.0 / np.sqrt(np.where(diagonal > 1 / _HUGE, diagonal, 1.0))
    both = free[:, :, None] & free[:, None, :]
    identity = np.broadcast_to(np.eye(size), information.shape)
    work = np.where(both, information * (scale[:, :, None] * scale[:, None, :]), identity)
    work = np.concatenate((work, identity), axis=2)
    # What is hardly known at all, or not, has entries beyond float64; they are clipped or infinite below.
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(size):
            pivot = work[:, k, :] / np.maximum(work[:, k, k], 1e-15)[:, None]
            work = work - work[:, :, k, None] * pivot[:, None, :]
            work[:, k, :] = pivot
        result = work[:, :, size:] * (scale[:, :, None] * scale[:, None, :])
    result = np.clip(result, -_HUGE, _HUGE)
    return np.where(both, 0.5 * (result + result.transpose(0, 2, 1)), 0.0)


def deviations(covariance: Array) -> Array:
    """Standard deviations (..., k) of covariances (..., k, k); NaN where rounding has left a negative variance.

    That happens where the data hardly tell two parameters apart, such as in a fit of noise.
    """
    variances = np.diagonal(covariance, axis1=-2, axis2=-1)
    return np.sqrt(np.where(variances < 0, np.nan, variances))


def public_covariance(local: Array, parameters: Array) -> Array:
    """Covariance (n, 8, 8) in local coordinates (pseudo_voigt.pixel_means) to PARAMETERS.

    The standard deviation of the tilt is capped at that of a uniform angle, pi / sqrt(12).
    """
    factor = np.ones_like(parameters)
    factor[:, FWHM_MAJOR] = parameters[:, FWHM_MAJOR] / 2.0
    factor[:, FWHM_MINOR] = parameters[:, FWHM_MINOR] / 2.0
    spread = 2.0 * np.log(parameters[:, FWHM_MAJOR] / parameters[:, FWHM_MINOR])
    deviation = deviations(local)[:, TILT]
    factor[:, TILT] = 1.0 / np.maximum(spread, np.maximum(deviation / TILT_SIGMA, 1e-150))
    return local * (factor[:, :, None] * factor[:, None, :])


def parameter_bound(
    parameters: Tensor,
    size: int | tuple[int, int],
    *,
    gain: float,
    read_noise: float,
    order: int = 3,
    saturation: float | None = None,
    zero_suppression: float | None = None,
) -> Array:
    """Covariance bound (n, 8, 8) of PARAMETERS; arguments and errors as :func:`position_bound`."""
    check_noise(gain, read_noise)
    lanes = to_lanes(parameters.double())
    mean, jacobian = pixel_means(lanes, size, order, jacobian=True)
    variance = gain * mean + read_noise**2
    if not bool((variance > 0).all()):
        raise UserError(
            "the variance gain * mean + read_noise^2 is not positive everywhere; raise the background or the read noise"
        )
    weight = 1.0 / variance
    if zero_suppression is not None:
        # Information of a Gaussian censored from below (Amemiya 1973): a pixel below the level still says so.
        z = (zero_suppression - mean) / variance.sqrt()
        density = torch.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        below = 0.5 * torch.special.erfc(z * -math.sqrt(0.5))
        weight = weight * (1.0 - below + z * density + density * density / below.clamp_min(1e-300))
    if saturation is not None:
        weight = torch.where(mean >= saturation, 0.0, weight)
    information = torch.einsum("ipn,pn,jpn->nij", jacobian, weight, jacobian)
    return public_covariance(inverse(information.numpy()), lanes.T.numpy())


def position_bound(
    parameters: Tensor,
    size: int | tuple[int, int],
    *,
    gain: float,
    read_noise: float,
    order: int = 3,
    saturation: float | None = None,
    zero_suppression: float | None = None,
) -> Array:
    """Covariance bound (n, 2, 2) of (row, col), px^2, with all eight parameters free.

    Args:
        parameters: (n, 8) true peaks, in the order of pseudo_voigt.PARAMETERS, pixel coordinates of the patch.
        size: patch size, or (height, width).
        gain: ADU per photon.
        read_noise: ADU rms.
        order: quadrature order of the pixel integration.
        saturation: pixels whose mean reaches it carry no information, as in the fit, which leaves them out.
        zero_suppression: pixels below it are stored as zero; the detector says of them only that they are below.

    A round peak has no tilt, which costs its position nothing: the information is inverted in coordinates that stay
    regular there. Raises UserError for a bad gain, read noise or parameter.
    """
    bound = parameter_bound(
        parameters,
        size,
        gain=gain,
        read_noise=read_noise,
        order=order,
        saturation=saturation,
        zero_suppression=zero_suppression,
    )
    return bound[:, :2, :2]

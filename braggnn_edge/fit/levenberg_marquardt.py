"""One Levenberg-Marquardt iteration for many peaks at once (braggnn_edge.fit.single has the statistics).

Every array has the peaks in its last dimension, its *lanes*, and every operation acts on a lane alone.
Steps are taken in the local coordinates of pseudo_voigt.pixel_means, which are regular for round peaks.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braggnn_edge.fit.pseudo_voigt import FWHM_MAJOR, FWHM_MINOR, TILT, pixel_means


@dataclass(frozen=True)
class Precision:
    """What depends on the type of the numbers.

    tolerance: stop when the next step would lower the deviance by less (1e-9: about 3e-5 of a standard deviation);
    refuse: relative rise of the cost that is rounding; pivot: smallest one of Cholesky's; tiny: smallest divisor.
    """

    tolerance: float
    refuse: float
    pivot: float
    tiny: float


# kernel.cpp has the same.
PRECISION = {
    torch.float32: Precision(tolerance=1e-6, refuse=1e-6, pivot=1e-7, tiny=1e-30),
    torch.float64: Precision(tolerance=1e-9, refuse=1e-12, pivot=1e-14, tiny=1e-300),
}


@dataclass
class Lanes:
    """Peaks being fitted, one a column; ``cost`` is half the deviance, inf before the first evaluation."""

    index: NDArray[np.int64]  # which patch; -1 for a vacant lane
    data: Tensor  # (p, lanes)
    used: Tensor  # (p, lanes) 1.0 where the pixel's value is data
    below: Tensor  # (p, lanes) 1.0 where the pixel is known to be below the zero-suppression level
    low: Tensor  # (8, lanes)
    high: Tensor
    state: Tensor
    trial: Tensor
    predicted: Tensor  # fall of the cost that the step to the trial promises
    cost: Tensor
    slope: Tensor  # (8, lanes)
    curvature: Tensor  # (8, 8, lanes)
    sums: Tensor  # (2, lanes): chi2, sum of squares
    damping: Tensor
    count: Tensor  # evaluations

    def columns(self, keep: NDArray[np.int64]) -> "Lanes":
        """The lanes ``keep``, in that order."""
        where = torch.from_numpy(keep).to(self.state.device)
        tensors = {
            field.name: getattr(self, field.name)[..., where].contiguous()
            for field in fields(self)
            if field.name != "index"
        }
        return Lanes(index=self.index[keep], **tensors)


@dataclass(frozen=True)
class Noise:
    """What scatters a pixel, in counts: gain a photon, read noise, and the level below which zero was stored."""

    gain: float
    variance: float  # of the read noise
    zero_suppression: float | None

    def cost_and_weights(self, lanes: Lanes, mean: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Half deviance (lanes,), score and weight (p, lanes), and the sums of FitResult (2, lanes)."""
        difference = lanes.data - mean
        variance = mean * self.gain + self.variance
        shifted = lanes.data * self.gain + self.variance
        # d' ln(m' / d'), by log1p since the two agree near the solution. A negative d' has no logarithm of
        # its own; any positive constant in its place gives the same gradient.
        positive = shifted > 0
        safe = torch.where(positive, shifted, self.gain * self.gain)
        ratio = torch.where(positive, difference * -self.gain, variance - safe) / safe
        terms = (difference * -self.gain - shifted * torch.log1p(ratio)) / (self.gain * self.gain)
        weight = lanes.used / variance
        score = weight * difference
        chi2 = score * difference
        squares = lanes.used * difference * difference
        terms = terms * lanes.used
        if self.zero_suppression is not None:
            sigma = math.sqrt(self.gain * self.zero_suppression + self.variance)
            # Phi(8) is 1 in double precision; the scaled function would overflow further out.
            z = ((self.zero_suppression - mean) / sigma).clamp_max(8.0)
            scaled = torch.special.erfcx(z * -math.sqrt(0.5))
            hazard = math.sqrt(2.0 / math.pi) / scaled
            terms = terms + lanes.below * (0.5 * z * z - torch.log(0.5 * scaled))
            score = score - lanes.below * hazard / sigma
            weight = weight + lanes.below * hazard * (hazard + z) / (sigma * sigma)
            excess = lanes.below * (mean - self.zero_suppression).clamp_min(0.0)
            chi2 = chi2 + excess * excess / variance
        return terms.sum(0), score, weight, torch.stack((chi2.sum(0), squares.sum(0)))


def _solve(matrix: Tensor, vector: Tensor) -> Tensor:
    """Solve (8, 8, lanes) positive systems of about unit diagonal, by Cholesky, elementwise over lanes."""
    work, size = matrix.clone(), len(vector)
    solution = vector.clone()
    for k in range(size):
        root = work[k, k].clamp_min(PRECISION[work.dtype].pivot).sqrt()
        work[k:, k] = work[k:, k] / root
        solution[k] = solution[k] / root
        if k + 1 < size:
            column = work[k + 1 :, k]
            work[k + 1 :, k + 1 :] -= column[:, None] * column[None]
            solution[k + 1 :] -= column * solution[k]
    for k in reversed(range(size)):
        solution[k] = solution[k] / work[k, k]
        if k:
            solution[:k] -= work[k, :k] * solution[k]
    return solution


def _moved(state: Tensor, step: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``state`` after a step in local coordinates, with the major axis the longer one, inside the bounds."""
    out = state + step
    first = 2.0 * torch.log(state[FWHM_MAJOR]) + step[FWHM_MAJOR]
    second = 2.0 * torch.log(state[FWHM_MINOR]) + step[FWHM_MINOR]
    middle, half, shear = 0.5 * (first + second), 0.5 * (first - second), step[TILT]
    spread = torch.sqrt(half * half + shear * shear)
    out[FWHM_MAJOR] = torch.exp(0.5 * (middle + spread))
    out[FWHM_MINOR] = torch.exp(0.5 * (middle - spread))
    tilt = state[TILT] + 0.5 * torch.atan2(shear, half)
    tilt = torch.where(tilt > math.pi / 2, tilt - math.pi, tilt)
    out[TILT] = torch.where(tilt <= -math.pi / 2, tilt + math.pi, tilt)
    return torch.maximum(torch.minimum(out, high), low)


def evaluate(lanes: Lanes, noise: Noise, shape: tuple[int, int], order: int) -> None:
    """Evaluate the trials; where the cost does not rise they become the states."""
    mean, jacobian = pixel_means(lanes.trial, shape, order, jacobian=True)
    cost, score, weight, sums = noise.cost_and_weights(lanes, mean)
    slope = -(jacobian * score).sum(1)
    curvature = torch.empty_like(lanes.curvature)
    for i in range(len(jacobian)):
        row = (jacobian[i:] * (jacobian[i] * weight)).sum(1)
        curvature[i, i:] = row
        curvature[i:, i] = row
    fall = lanes.cost - cost
    # Two costs that differ by rounding are equal: otherwise the last step is refused at random.
    precision = PRECISION[cost.dtype]
    good = fall >= -precision.refuse * (1.0 + cost.abs())
    ratio = torch.where(torch.isinf(fall), 0.5, fall / lanes.predicted.clamp_min(precision.tiny))
    damping = torch.where(ratio > 0.75, lanes.damping * 0.2, lanes.damping)
    damping = torch.where(ratio < 0.25, lanes.damping * 2.0, damping)
    lanes.damping = torch.where(good, damping, lanes.damping * 8.0).clamp_min(1e-10)
    lanes.state = torch.where(good, lanes.trial, lanes.state)
    lanes.cost = torch.where(good, cost, lanes.cost)
    lanes.slope = torch.where(good, slope, lanes.slope)
    lanes.curvature = torch.where(good, curvature, lanes.curvature)
    lanes.sums = torch.where(good, sums, lanes.sums)
    lanes.count = lanes.count + 1


def propose(lanes: Lanes) -> tuple[Tensor, Tensor]:
    """Set the next trials. Returns the frozen parameters (8, lanes) and which lanes have converged."""
    frozen = (lanes.state <= lanes.low) & (lanes.slope > 0) | (lanes.state >= lanes.high) & (lanes.slope < 0)
    frozen = frozen | (lanes.low == lanes.high)
    diagonal = torch.diagonal(lanes.curvature, dim1=0, dim2=1).T
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
    scale = torch.where(frozen, 0.0, scale)
    matrix = lanes.curvature * (scale[:, None] * scale[None])
    identity = torch.eye(len(scale), dtype=matrix.dtype, device=matrix.device)[:, :, None]
    # Marquardt's scaling: after the division by the diagonal the damping is a multiple of the identity.
    matrix = matrix + identity * torch.where(frozen, 1.0, lanes.damping + 1e-13)
    unit = _solve(matrix, -lanes.slope * scale)
    step = unit * scale
    lanes.predicted = 0.5 * ((unit * unit).sum(0) * lanes.damping - (lanes.slope * step).sum(0))
    lanes.trial = _moved(lanes.state, step, lanes.low, lanes.high)
    done = (lanes.predicted < 0.5 * PRECISION[lanes.state.dtype].tolerance) & (
        (lanes.damping <= 1e-2) | (lanes.damping > 1e8)
    )
    return frozen, done

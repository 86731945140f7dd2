"""Joint fits of several peaks in one patch: components with more than one maximum.

Statistics, model, bounds and stopping are those of :mod:`braggnn_edge.fit.single`; each of the K peaks has its own
seven parameters, and all share one constant background.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit import kernel as fit_kernel
from braggnn_edge.fit.cramer_rao import check_noise, deviations, inverse, public_covariance
from braggnn_edge.fit.initial import bounds, starts
from braggnn_edge.fit.levenberg_marquardt import Noise
from braggnn_edge.fit.pseudo_voigt import AMPLITUDE, BACKGROUND, COL, ETA, FWHM_MAJOR, FWHM_MINOR, ROW, TILT, quadrature
from braggnn_edge.fit.single import check_shapes, classified

#: Most peaks that are fitted together.
MAX_PEAKS = fit_kernel.MAX_PEAKS
#: A peak's centre stays this close to the maximum that it was found by, px each way; so peaks keep their identities.
REACH = 2.0


@dataclass(frozen=True)
class JointFit:
    """Fits of n patches with K peaks each; every array has n in its first dimension.

    parameters: (n, K, 8) in the order of pseudo_voigt.PARAMETERS, pixels of the patch, peaks as the maxima were given;
        the background is the same for all K. covariance: (n, K, 8, 8), each peak's own block of the joint covariance:
        what is not known of the neighbours is in it. sigma: (n, K, 8).
    chi2, dof, iterations, converged: (n,) as in FitResult. residual: (n,) rms residual over the largest amplitude.
    at_bound: (n, K, 8), parameters that ended on a bound.
    """

    parameters: NDArray[np.float64]
    covariance: NDArray[np.float64]
    sigma: NDArray[np.float64]
    chi2: NDArray[np.float64]
    dof: NDArray[np.int64]
    residual: NDArray[np.float64]
    iterations: NDArray[np.int64]
    converged: NDArray[np.bool_]
    at_bound: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.parameters)


def fit_joint(
    patches: NDArray,
    maxima: NDArray,
    *,
    order: int = 3,
    gain: float = 1.0,
    read_noise: float = 0.0,
    saturation: float | None = None,
    zero_suppression: float | None = None,
    valid: NDArray[np.bool_] | None = None,
    max_iterations: int = 200,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> JointFit:
    """Fit K peaks and one background to every patch, K from 1 to MAX_PEAKS, on a CPU.

    Args:
        patches: (n, h, w) counts in ADU.
        maxima: (n, K, 2) (row, col) of each peak's brightest pixel in the patch, in px.
        The others as for :func:`braggnn_edge.fit.single.fit`.

    Raises UserError as that function does, and for maxima of another shape or outside their patch.
    """
    check_noise(gain, read_noise)
    quadrature(order)
    patches, maxima = np.asarray(patches), np.asarray(maxima, dtype=np.float64)
    check_shapes(patches, valid, saturation, zero_suppression)
    count, height, width = patches.shape
    if maxima.ndim != 3 or maxima.shape[0] != count or maxima.shape[2] != 2 or not 1 <= maxima.shape[1] <= MAX_PEAKS:
        raise UserError(f"maxima of shape {maxima.shape}: expected ({count}, K, 2) with K from 1 to {MAX_PEAKS}")
    if not ((maxima >= 0) & (maxima <= (height - 1, width - 1))).all():
        raise UserError(f"maxima reach outside the patches of {height} x {width} px; give them in pixels of the patch")
    data, used, below = classified(patches, valid, saturation, zero_suppression, (0, count))
    low, high = bounds(data, used, gain, read_noise, {})
    single = starts(data, used, below, zero_suppression=zero_suppression, low=low, high=high)
    start, low, high = _spread(data, maxima, single, low, high)
    records = fit_kernel.solve(
        data, used, below, noise=Noise(gain, read_noise**2, zero_suppression), order=order, low=low, high=high,
        start=start,
        max_iterations=max_iterations, threads=threads or torch.get_num_threads(),
    )  # fmt: skip
    if progress is not None:
        progress(count, count)
    columns = _columns(maxima.shape[1])
    joint = inverse(records.information, records.frozen)
    parameters = records.parameters[:, columns]
    blocks = joint[:, columns[:, :, None], columns[:, None, :]]
    covariance = public_covariance(blocks.reshape(-1, 8, 8), parameters.reshape(-1, 8)).reshape(blocks.shape)
    dof = used.sum(axis=(1, 2)) + below.sum(axis=(1, 2)) - (~records.frozen).sum(axis=1)
    bounded = (records.parameters <= low) | (records.parameters >= high)
    bounded[:, TILT::7] = False
    return JointFit(
        parameters=parameters,
        covariance=covariance,
        sigma=deviations(covariance),
        chi2=records.sums[:, 0],
        dof=dof,
        residual=np.sqrt(records.sums[:, 1] / np.maximum(used.sum(axis=(1, 2)), 1))
        / parameters[:, :, AMPLITUDE].max(axis=1, initial=1e-300),
        iterations=records.iterations,
        converged=records.converged & (dof >= 0),
        at_bound=bounded[:, columns],
    )


def _columns(peaks: int) -> NDArray[np.int64]:
    """(K, 8): where each peak's PARAMETERS stand among the kernel's 7 K + 1."""
    own = 7 * np.arange(peaks)[:, None] + np.arange(7)
    return np.concatenate((own, np.full((peaks, 1), 7 * peaks)), axis=1)


def _spread(
    data: NDArray[np.float64],
    maxima: NDArray[np.float64],
    single: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> tuple[NDArray[np.float64], ...]:
    """Start, low and high (n, 7 K + 1) from those (n, 8) of one peak a patch: round peaks at the maxima.

    Their width is half the distance to the nearest other maximum, within 1.5 to 3 px.
    """
    count, peaks = maxima.shape[:2]
    columns = _columns(peaks)
    start, lower, upper = (np.empty((count, 7 * peaks + 1)) for _ in range(3))
    apart = np.linalg.norm(maxima[:, :, None] - maxima[:, None], axis=3)
    apart[:, np.arange(peaks), np.arange(peaks)] = np.inf
    fwhm = np.clip(0.5 * apart.min(axis=2), 1.5, 3.0)
    where = maxima.astype(np.int64)
    top = data[np.arange(count)[:, None], where[:, :, 0], where[:, :, 1]]
    for k in range(peaks):
        mine = single.copy()
        mine[:, [ROW, COL]] = maxima[:, k]
        mine[:, AMPLITUDE] = np.maximum(1.1 * (top[:, k] - single[:, BACKGROUND]), low[:, AMPLITUDE])
        mine[:, [FWHM_MAJOR, FWHM_MINOR]] = fwhm[:, [k]]
        mine[:, TILT], mine[:, ETA] = 0.0, 0.4
        floor, ceiling = low.copy(), high.copy()
        floor[:, [ROW, COL]] = np.maximum(low[:, [ROW, COL]], maxima[:, k] - REACH)
        ceiling[:, [ROW, COL]] = np.minimum(high[:, [ROW, COL]], maxima[:, k] + REACH)
        start[:, columns[k]] = np.clip(mine, floor, ceiling)
        lower[:, columns[k]], upper[:, columns[k]] = floor, ceiling
    return start, lower, upper

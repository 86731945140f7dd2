"""Gain, read noise and background of frames with so few counts that the detector's zero cuts their distribution."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import gammaln, ndtr

Array = NDArray[np.float64]
#: A background of more photons is not cut at zero.
_MOST_PHOTONS = 400.0


@dataclass(frozen=True)
class Dark:
    """gain: counts a photon; read_noise: counts; background: photons a pixel; errors: of the natural logarithms of the
    three; misfit: share of the pixels that the model puts elsewhere."""

    gain: float
    read_noise: float
    background: float
    errors: tuple[float, float, float]
    misfit: float


def probability(values: Array, gain: float, read_noise: float, background: float) -> Array:
    """(n,) probability of whole counts ``values`` (n,) where counts below zero are stored as zero."""
    most = int(background + 8.0 * np.sqrt(background) + 12)
    k = np.arange(most + 1)
    weight = np.exp(k * np.log(max(background, 1e-12)) - background - gammaln(k + 1))
    sigma = max(read_noise, 1e-3)
    centre = gain * k
    high = ndtr((values[:, None] + 0.5 - centre) / sigma)
    low = ndtr((values[:, None] - 0.5 - centre) / sigma)
    low[values == 0] = 0.0
    return np.maximum((high - low) @ weight, 0.0)


def fit_histogram(
    values: Array, number: NDArray[np.int64], gain: float | None, gain_error: float | None
) -> Dark | None:
    """The most likely detector for background pixels: counts ``values`` (n,), each seen ``number`` (n,) times.

    gain, gain_error: what fits of peaks say of the gain, if they do. The brightest 0.1 % of the pixels are left out,
    and may hold faint peaks. None where no pixels are zero, or all are.
    """
    if not len(values) or values[0] != 0 or number[0] < 1e-3 * number.sum():
        return None
    total = np.cumsum(number)
    last = int(np.searchsorted(total, 0.999 * total[-1]))
    values, number = np.arange(values[last] + 1), _dense(values[: last + 1], number[: last + 1])
    if len(values) < 2 or len(values) > 4000:
        return None
    count = float(number.sum())
    mean = float((values * number).sum() / count)
    known = gain if gain else 1.0

    def cost(free: Array) -> float:
        g, sigma, background = np.exp(np.clip(free, -12, 12))
        if background > _MOST_PHOTONS or g * background > 2.0 * len(values) + 10.0 or sigma > 4.0 * len(values):
            return 1e30  # beyond all counts
        p = probability(values, g, sigma, background)
        inside = p.sum()
        prior = 0.5 * (np.log(g / known) / max((gain_error or 0.0) / known, 0.03)) ** 2 if gain else 0.0
        model = 0.995 * p / max(inside, 1e-300) + 0.005 / len(values)  # a few pixels may be anything
        return -float((number * np.log(model)).sum()) + prior

    spread = np.sqrt(max(float((values**2 * number).sum() / count), 0.1))
    best = None
    for g in (known,) if gain else (1.0, 0.3, 3.0, 10.0):
        for sigma in (0.2, 0.7 * spread):
            for level in (mean / g, 0.1 * mean / g):
                start = np.log([g, max(sigma, 0.05), max(level, 1e-3)])
                found = minimize(
                    cost, start, method="Nelder-Mead", options={"maxiter": 250, "xatol": 1e-3, "fatol": 0.1}
                )
                if best is None or found.fun < best.fun:
                    best = found
    if best is None:
        return None
    g, sigma, background = np.exp(best.x)
    p = probability(values, g, sigma, background)
    misfit = 0.5 * float(np.abs(number / count - p / max(p.sum(), 1e-300)).sum())
    return Dark(float(g), float(sigma), float(background), _errors(cost, best.x), misfit)


def _errors(cost: Callable[[Array], float], at: Array) -> tuple[float, float, float]:
    """Standard deviations from the curvature of a log-likelihood at its minimum; infinite along a flat direction."""
    step = 0.02
    second = np.zeros((3, 3))
    unit = np.eye(3) * step
    for i in range(3):
        for j in range(i, 3):
            corners = [cost(at + s * unit[i] + t * unit[j]) * s * t for s in (-1, 1) for t in (-1, 1)]
            second[i, j] = second[j, i] = sum(corners) / (4 * step**2)
    values, vectors = np.linalg.eigh(second)
    variance = (vectors**2 / np.maximum(values, 1e-6)).sum(axis=1)
    return tuple(np.sqrt(variance).tolist())


def _dense(values: Array, number: NDArray[np.int64]) -> NDArray[np.int64]:
    dense = np.zeros(int(values[-1]) + 1, np.int64)
    dense[values.astype(int)] = number
    return dense

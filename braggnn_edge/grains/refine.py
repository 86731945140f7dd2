"""Refine one grain: position, orientation and strain, 12 parameters, from the pixels and omegas of its spots.

The residuals are those of row, col and omega, each over its standard deviation (:mod:`braggnn_edge.grains.scales`).
Outliers count little (soft L1 loss), and spots that stay far off are left out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.grains.geometry import Floats, Index, Instrument, nearest
from braggnn_edge.grains.scales import Scales, families, omega_sigma
from braggnn_edge.grains.spots import Spots

#: Numbers that are fitted.
PARAMETERS = 12
_STEPS = 12
#: Spots beyond this many standard deviations, as the spread of the grain's own residuals has them, are left out.
_CLIP = 5.0
#: Numbers of a grain that omega says about as much of as positions do: how it is turned.
_OF_OMEGA = 3


@dataclass(frozen=True)
class Grain:
    """A refined grain.

    ub: (3, 3) 1/angstrom; position: (3,) mm; covariance: (12, 12), of the position in mm and of UB, row by row; spots:
    (k,) numbers of the spots it was refined from; reflection: (k,) theirs; residual: (k, 3) computed minus measured
    row and col in px and omega in radians; weighted: (k, 3) the same over the standard deviations; lorentz: (k,).
    """

    ub: Floats
    position: Floats
    covariance: Floats
    spots: Index
    reflection: Index
    residual: Floats
    weighted: Floats
    lorentz: Floats

    @property
    def chi2(self) -> float:
        """Reduced: the sum of squared weighted residuals over the degrees of freedom."""
        return float(np.square(self.weighted).sum() / max(self.weighted.size - PARAMETERS, 1))


def refine(
    instrument: Instrument,
    spots: Spots,
    hkl: NDArray,
    reflection: Index,
    start: tuple[Floats, Floats],
    scales: Scales | None = None,
    clip: bool = True,
) -> Grain | None:
    """Refine a grain from its spots (k,).

    hkl: reflections (m, 3); reflection: (k,) the number of that of each spot; start: UB and position; clip: leave far
    outliers out, once the fit has settled. None where fewer than 8 spots are left, which do not fix 12 parameters.
    Numbers of spots in the result are those within ``spots``.
    """
    if len(reflection) != len(spots):
        raise UserError(f"{len(reflection)} reflections for {len(spots)} spots; expected one each")
    scales = scales or Scales()
    ub, position = (np.array(part, float) for part in start)
    keep = np.arange(len(spots))
    for _ in range(3):
        if len(keep) < 8:
            return None
        problem = _Problem(instrument, spots.take(keep), hkl[reflection[keep]], scales, ub, position)
        ub, position = problem.solved()
        if not clip:
            break
        every = _Problem(instrument, spots, hkl[reflection], scales, ub, position)
        off = np.abs(every.residuals(np.zeros(PARAMETERS)) / every.sigma)
        spread = max(1.0, 1.4826 * float(np.median(off[keep])))
        new = np.flatnonzero((off < _CLIP * spread).all(1))
        if np.array_equal(new, keep):
            break
        keep = new
    if len(keep) < 8:
        return None
    last = _Problem(instrument, spots.take(keep), hkl[reflection[keep]], scales, ub, position)
    residual = last.residuals(np.zeros(PARAMETERS))
    if not np.isfinite(residual).all():
        return None
    return Grain(
        ub,
        position,
        last.covariance(),
        keep,
        reflection[keep],
        residual,
        residual / last.sigma,
        last.lorentz,
    )


class _Problem:
    """Least squares around a start; x = 0 is the start. x: position in mm, and UB in units of its own size."""

    def __init__(
        self, instrument: Instrument, spots: Spots, hkl: NDArray, scales: Scales, ub: Floats, position: Floats
    ) -> None:
        self.instrument, self.spots, self.hkl = instrument, spots, hkl.astype(float)
        self.ub, self.position = ub, position
        self.size = float(np.linalg.norm(ub)) / np.sqrt(3)
        self.lorentz = np.maximum(instrument.lorentz(self.hkl @ ub.T, spots.omega), 0.02)
        row, col = (np.hypot(scales.pixel * sigma, scales.extra) for sigma in (spots.sigma_row, spots.sigma_col))
        self.sigma = np.stack([row, col, omega_sigma(spots, scales, self.lorentz)], 1)

    def grain(self, x: Floats) -> tuple[Floats, Floats]:
        return self.ub + self.size * x[3:].reshape(3, 3), self.position + x[:3]

    def residuals(self, x: Floats) -> Floats:
        """(k, 3): computed minus measured row, col (px) and omega (radians); NaN where a spot cannot appear."""
        return np.asarray(self._residuals(x[None])[0], np.float64)

    def _residuals(self, many: Floats) -> Floats:
        """(p, k, 3): those of every x of (p, 12), in one go: a call for each would take several times as long."""
        ub = self.ub + self.size * many[:, 3:].reshape(-1, 3, 3)
        vectors = (self.hkl @ ub.swapaxes(1, 2)).reshape(-1, 3)
        position = np.repeat(self.position + many[:, :3], len(self.spots), axis=0)
        seen, panel = np.tile(self.spots.omega, len(many)), np.tile(self.spots.panel, len(many))
        omega = nearest(self.instrument.omegas(vectors), seen)
        row, col = self.instrument.project(vectors, omega, position, panel)
        computed = np.stack([row, col, omega], 1).reshape(len(many), -1, 3)
        return computed - np.stack([self.spots.row, self.spots.col, self.spots.omega], 1)

    def solved(self) -> tuple[Floats, Floats]:
        """UB and position at the minimum (Levenberg and Marquardt)."""
        x, damping = np.zeros(PARAMETERS), 1e-6
        values = self._weighted(x)
        loss = _loss(values)
        for _ in range(_STEPS):
            slopes = self._slopes(x, values)
            weight = 1 / np.sqrt(1 + np.square(values))  # of the soft L1 loss
            normal = slopes.T @ (weight[:, None] * slopes)
            gradient = slopes.T @ (weight * values)
            while damping < 1e6:
                scale = np.diag(np.diag(normal)) * damping
                step = np.linalg.lstsq(normal + scale, -gradient, rcond=None)[0]
                trial = self._weighted(x + step)
                if (better := _loss(trial)) <= loss:
                    break
                damping *= 10
            else:
                break
            x, values, settled, loss = x + step, trial, loss - better < 1e-6 * (loss + 1), better
            damping = max(damping / 10, 1e-9)
            if settled:
                break
        return self.grain(x)

    def covariance(self) -> Floats:
        """(12, 12), in mm and 1/angstrom, where x = 0 is the minimum.

        By Huber's formula, inv(A) @ B @ inv(A), where A sums the outer products of the slopes times E[psi'], and B
        sums them times E[psi**2]; psi is the slope of the soft L1 loss. The means are those of the grain's row, col and
        omega, each for itself: their errors have different distributions, and omega alone says how the grain is turned
        about the axis of rotation. Errors of omega are shared within families of spots (:mod:`.scales`), so that for
        omega B sums the outer products of the families' sums.
        """
        x = np.zeros(PARAMETERS)
        values = self._weighted(x)
        slopes = self._slopes(x, values).reshape(-1, 3, PARAMETERS)
        values = values.reshape(-1, 3)
        bend = 1 / (1 + np.square(values))  # psi**2 = r**2 bend, psi' = bend**1.5
        freedom = values.size / max(values.size - PARAMETERS, 1)
        power, flat = np.mean(np.square(values) * bend, axis=0) * freedom, np.mean(bend**1.5, axis=0)
        # Residuals of a few spots may be small by luck: not below half of what the weights say.
        power = np.maximum(power, 0.25 * flat**2)
        products = np.einsum("kap,kaq->apq", slopes, slopes)
        bread = np.linalg.pinv((flat[:, None, None] * products).sum(0), hermitian=True)
        filling = power[:, None, None] * products
        sums = _family_sums(slopes[:, 2], values[:, 2] * np.sqrt(bend[:, 2]), flat[2] * bread, families(self.hkl))
        # Few families say little, and then errors count as if each stood alone.
        filling[2] = (len(sums) * sums.T @ sums + _OF_OMEGA * filling[2]) / (len(sums) + _OF_OMEGA)
        units = np.concatenate([np.ones(3), np.full(9, self.size)])
        return np.asarray(bread @ filling.sum(0) @ bread * np.outer(units, units), np.float64)

    def _weighted(self, x: Floats) -> Floats:
        return np.asarray(self._all_weighted(x[None])[0], np.float64)

    def _all_weighted(self, many: Floats) -> Floats:
        """(p, 3 k) of every x of (p, 12)."""
        # What cannot appear counts as a far outlier, and does not pull.
        return np.nan_to_num(self._residuals(many) / self.sigma, nan=0.0).reshape(len(many), -1)

    def _slopes(self, x: Floats, values: Floats) -> Floats:
        """(3 k, 12): by differences; position by a micrometre, UB by 1e-6 of itself."""
        steps = np.concatenate([np.full(3, 1e-3), np.full(9, 1e-6)])
        return ((self._all_weighted(x + np.diag(steps)) - values) / steps[:, None]).T


def _family_sums(slopes: Floats, psi: Floats, bread: Floats, family: Index) -> Floats:
    """(m, 12): sums over families of slopes (k, 12) times psi (k,), as residuals would be if the family were left out.

    The fit follows a spot that few others contradict, whose residual is then smaller than its error.
    """
    order = np.argsort(family, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(family[order])) + 1)
    sums = np.empty((len(parts), PARAMETERS))
    for number, own in enumerate(parts):
        left = np.eye(len(own)) - slopes[own] @ bread @ slopes[own].T
        sums[number] = np.linalg.lstsq(left, psi[own], rcond=1e-3)[0] @ slopes[own]
    return sums


def _loss(values: Floats) -> float:
    return float((2 * (np.sqrt(1 + np.square(values)) - 1)).sum())

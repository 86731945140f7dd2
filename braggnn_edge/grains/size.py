"""Sizes of grains from the integrated intensities of their spots.

A spot's intensity is proportional to the grain's volume, to a factor of its ring, and to the Lorentz factor of a
rotation, 1 / (sin 2 theta |sin eta|). The *relative volume* of a grain is the median of intensity / Lorentz factor /
ring's factor over its spots; the factor of a ring is the median over the spots of all grains in turn. Medians are
blind to overlaps and cut spots. The median grain has the relative volume 1. Absorption, extinction, polarization and
the fading of the beam are not corrected.

The spots are those nearest to where the grain's reflections are predicted, within 2 px and 1.5 frames, but for those
that two predictions share. How well a spot's position fits says nothing of its intensity, and is not asked: grains from
other positions of the same spots have the same size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from braggnn_edge.grains.geometry import Floats, Index
from braggnn_edge.grains.match import Scene

_TURNS = 20
#: A spot is at most so far from its prediction, px and frames; and in standard deviations of positions, if more.
_PIXELS, _FRAMES, _SIGMAS = 2.0, 1.5, 5.0
#: px between panels, which are looked at as one.
_FAR = 1e6

Places = Sequence[tuple[Floats, Floats]]


@dataclass(frozen=True)
class Strengths:
    """Spots (n,) of grains. owner: number of the grain; ring; log: of intensity / Lorentz factor; grains: how many."""

    owner: Index
    ring: Index
    log: Floats
    grains: int
    rings: int

    def volumes(self, of_ring: Floats) -> Floats:
        """(grains,): logarithms of volumes, NaN where a grain has no spot; of_ring: (rings,) of the rings' factors."""
        return _medians(self.log - of_ring[self.ring], self.owner, self.grains)

    def factors(self) -> Floats:
        """(rings,): logarithms of the rings' factors with which the median grain has the volume 1."""
        of_ring = np.zeros(self.rings)
        if not len(self.log):
            return of_ring
        for _ in range(_TURNS):
            volume = self.volumes(of_ring)
            of_ring = np.nan_to_num(_medians(self.log - volume[self.owner], self.ring, self.rings))
        seen = np.bincount(self.ring, minlength=self.rings) > 0
        return np.asarray(np.where(seen, of_ring + np.nanmedian(self.volumes(of_ring)), 0.0), np.float64)


def strengths(scene: Scene, places: Places, extra: float = 0.0) -> Strengths:
    """The spots of grains with UB and position (mm) in ``places``; extra: px, what positions are off beside sigma."""
    predicted, owner, reflection, lorentz = _predicted(scene, places)
    lengths, rings = scene.rings
    pixels = max(_PIXELS, _SIGMAS * extra)
    unit = np.array([pixels, pixels, _FRAMES * scene.spots.step])
    spots, at = cKDTree(_folded(scene, unit)), predicted / unit
    away, spot = spots.query(at, distance_upper_bound=1.0, p=np.inf)
    alone = np.array(cKDTree(at).query_ball_point(at, 2.0, p=np.inf, return_length=True), np.int64) == 1
    ok = np.isfinite(away) & alone
    intensity = np.full(len(at), np.nan)
    intensity[ok] = scene.spots.intensity[spot[ok]]
    ring = rings[reflection]
    theta = np.arcsin(np.clip(scene.instrument.wavelength * lengths / 2, 0, 1))[ring]
    strength = intensity * np.sin(2 * theta) * lorentz
    ok &= np.isfinite(strength) & (strength > 0)
    return Strengths(owner[ok], ring[ok], np.log(strength[ok]), len(places), len(lengths))


def _predicted(scene: Scene, places: Places) -> tuple[Floats, Index, Index, Floats]:
    """Row, col and omega (n, 3) of all expected spots, their grains, their reflections, and |sin eta|."""
    at, owner, reflection, lorentz = [np.zeros((0, 3))], [], [], []
    for number, (ub, position) in enumerate(places):
        seen = scene.expected(ub, position, scene.hkl)
        # Panels are set apart along the rows, so that a spot of one is never near a prediction of another.
        at.append(np.stack([_FAR * seen.panel + seen.row, seen.col, seen.omega % (2 * np.pi)], 1))
        owner.append(np.full(len(seen.row), number))
        reflection.append(seen.reflection)
        lorentz.append(scene.instrument.lorentz(scene.hkl[seen.reflection] @ ub.T, seen.omega))
    none = np.zeros(0, np.int64)
    parts = (np.concatenate([none, *owner]), np.concatenate([none, *reflection]))
    return np.concatenate(at), *parts, np.concatenate([np.zeros(0), *lorentz])


def _folded(scene: Scene, unit: Floats) -> Floats:
    """(n, 3): row, col and omega of the spots in these units."""
    spots = scene.spots
    return np.stack([_FAR * spots.panel + spots.row, spots.col, spots.omega % (2 * np.pi)], 1) / unit


def relative_volumes(scene: Scene, places: Places, extra: float = 0.0) -> Floats:
    """(n,): volumes of grains, that of the median grain being 1; NaN where no spot has an intensity."""
    found = strengths(scene, places, extra)
    return np.asarray(np.exp(found.volumes(found.factors())), np.float64)


def micrometres(relative: Floats, total_volume: float | None, median_size: float | None) -> float:
    """The diameter in um of a grain with the relative volume 1; NaN where neither key is given.

    total_volume: mm³ of grains with these relative volumes together; median_size: um, the diameter of the median grain.
    """
    if median_size is not None:
        return median_size
    if total_volume is not None and np.nansum(relative) > 0:
        return float(1e3 * np.cbrt(6 / np.pi * total_volume / np.nansum(relative)))
    return float("nan")


def _medians(values: Floats, group: np.ndarray, groups: int) -> Floats:
    """(groups,): the median of the values of each group, NaN for an empty one."""
    order = np.lexsort((values, group))
    count = np.bincount(group, minlength=groups)
    start = np.cumsum(count) - count
    found = np.full(groups, np.nan)
    some = count > 0
    ordered = values[order]
    low = ordered[start[some] + (count[some] - 1) // 2]
    found[some] = (low + ordered[start[some] + count[some] // 2]) / 2
    return found

"""Sizes of grains from the integrated intensities of their spots.

A spot's intensity is proportional to the grain's volume, to a factor of its ring, and to the Lorentz factor of a
rotation, 1 / (sin 2 theta |sin eta|). The *relative volume* of a grain is the median of intensity / Lorentz factor /
ring's factor over its spots; the factor of a ring is the median over the spots of all grains in turn. Medians are
blind to overlaps and cut spots. The median grain has the relative volume 1. Absorption, extinction, polarization and
the fading of the beam are not corrected.
"""

import numpy as np

from braggnn_edge.grains.geometry import Floats
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.refine import Grain

_TURNS = 20


def relative_volumes(scene: Scene, grains: list[Grain]) -> Floats:
    """(n,): volumes, that of the median grain being 1; NaN where no spot has an intensity."""
    if not grains:
        return np.zeros(0)
    owner = np.repeat(np.arange(len(grains)), [len(grain.spots) for grain in grains])
    reflection = np.concatenate([grain.reflection for grain in grains])
    intensity = scene.spots.intensity[np.concatenate([grain.spots for grain in grains])]
    lengths, rings = scene.rings
    theta = np.arcsin(np.clip(scene.instrument.wavelength * lengths / 2, 0, 1))[rings[reflection]]
    strength = intensity * np.sin(2 * theta) * np.concatenate([grain.lorentz for grain in grains])
    ok = np.isfinite(strength) & (strength > 0)
    volume = np.full(len(grains), np.nan)
    if not ok.any():
        return volume
    owner, ring, log = owner[ok], rings[reflection[ok]], np.log(strength[ok])
    of_ring = np.zeros(len(lengths))
    for _ in range(_TURNS):
        volume = _medians(log - of_ring[ring], owner, len(grains))
        of_ring = np.nan_to_num(_medians(log - volume[owner], ring, len(lengths)))
    return np.exp(volume - np.nanmedian(volume))


def sizes(relative: Floats, total_volume: float | None, median_size: float | None) -> Floats:
    """(n,) um: diameters of balls with the grains' volumes; NaN where neither key is given.

    total_volume: mm³ of all grains together; median_size: um, the diameter of the median grain.
    """
    if median_size is not None:
        return median_size * np.cbrt(relative)
    if total_volume is not None:
        return 1e3 * np.cbrt(6 / np.pi * total_volume * relative / np.nansum(relative))
    return np.full(len(relative), np.nan)


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

"""How wrong the standard deviations of spots are, and which of them have errors in common, as residuals of grains say.

The error of omega depends on how many frames show a spot. In one frame alone it may lie anywhere between the frame's
ends. In two it is told by how they share the intensity, which says little where the rocking curve is narrower than a
frame. So spots have a scale by the number of their frames.

Frames cut a turn into equal steps, so errors of omega come in families. Spots of a Friedel pair, hkl and -hkl half a
turn apart, lie at the same place between the ends of a frame and have the same error. The two spots of one hkl, and its
higher orders, lie at places that follow from each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.grains.geometry import Floats, Index
from braggnn_edge.grains.spots import Spots

if TYPE_CHECKING:
    from braggnn_edge.grains.refine import Grain

#: Spots in 1, 2, 3 and in 4 or more frames have scales of omega of their own, where there are this many of them.
CLASSES, _ENOUGH = 4, 30


@dataclass(frozen=True)
class Scales:
    """How wrong the standard deviations of the spots are.

    pixel: factor on those of positions; extra: px, added to them in squares; omega: factors on those of omega, of spots
    in 1, 2, 3, and 4 or more frames.
    """

    pixel: float = 1.0
    extra: float = 0.0
    omega: tuple[float, ...] = (1.0,) * CLASSES


def class_of(spots: Spots) -> Index:
    """(n,): 0 to 3, for spots in 1, 2, 3, and 4 or more frames."""
    return np.clip(spots.frames, 1, CLASSES) - 1


def omega_sigma(spots: Spots, scales: Scales, lorentz: Floats) -> Floats:
    """(n,) radians. A spot in several frames is the less sure the slower it passes its condition; in one it is not."""
    kind = class_of(spots)
    return np.asarray(np.array(scales.omega)[kind] * spots.sigma_omega / np.where(kind > 0, lorentz, 1.0), np.float64)


def families(hkl: NDArray) -> Index:
    """(k,): the number of the family of each reflection (k, 3): those with parallel vectors are one."""
    step = np.gcd.reduce(hkl.astype(np.int64), axis=1)
    primitive = hkl.astype(np.int64) // np.maximum(step, 1)[:, None]
    first = primitive[np.arange(len(hkl)), (primitive != 0).argmax(1)]
    return np.unique(primitive * np.sign(first)[:, None], axis=0, return_inverse=True)[1].reshape(-1)


def rescaled(spots: Spots, found: Sequence["Grain"], scales: Scales) -> Scales:
    """Scales with which the residuals of all grains have the spread of a normal distribution.

    spots: of the scene. Positions that are worse than their sigmas have an error in common, which is added to the
    variance of each: that of the geometry, or of a spot that wanders. Where they are better, the sigmas are too wide by
    a factor.
    """
    if not found:
        return scales
    own = np.concatenate([grain.spots for grain in found])
    residual = np.concatenate([grain.residual for grain in found])
    # The fit takes twelve of three numbers a spot: that makes residuals smaller than errors.
    freedom = float(np.sqrt(1 - 12 * len(found) / max(residual.size, 12 * len(found) + 1)))
    omega = _of_omega(class_of(spots)[own], found, scales, freedom)
    sigma = np.stack([spots.sigma_row[own], spots.sigma_col[own]], 1)
    off = np.abs(residual[:, :2])

    def spread(extra: float) -> float:
        return 1.4826 * float(np.median(off / np.hypot(sigma, extra))) / freedom

    if (factor := spread(0.0)) <= 1:
        return Scales(max(factor, 1e-3), 0.0, omega)
    low, high = 0.0, 2 * 1.4826 * float(np.median(off)) / freedom
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if spread(middle) > 1 else (low, middle)
    return Scales(1.0, high, omega)


def _of_omega(kind: Index, found: Sequence["Grain"], scales: Scales, freedom: float) -> tuple[float, ...]:
    """Factors by the number of frames; kind: (n,) of the grains' spots."""
    off = np.concatenate([grain.weighted[:, 2] for grain in found])
    parts = [off[kind == number] for number in range(CLASSES)]
    factors = [_spread(part if len(part) >= _ENOUGH else off) / freedom for part in parts]
    return tuple(max(before * factor, 1e-3) for before, factor in zip(scales.omega, factors, strict=True))


def _spread(values: Floats) -> float:
    """Standard deviation of what is normal but for some outliers."""
    return 1.4826 * float(np.median(np.abs(values)))

"""Geometry of a rotation experiment: pixels to the laboratory and back, spots to reciprocal space and back.

Axes are ImageD11's: x along the beam, z the axis of rotation, y to complete a right-handed system, which is to the left
when one looks along the beam. Lengths are in mm, wavelengths in angstrom, reciprocal vectors in 1/angstrom (without
2 pi), angles in radians. A pixel is (row, col), the centre of pixel (0, 0) being (0.0, 0.0).

The sample turns by omega about z, and the stage may be tilted: laboratory = ``stage`` @ Rz(``omega_sign`` * omega) @
sample. A grain's position is in the sample's axes.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Panel:
    """A flat detector, or one of its tiles.

    origin: (3,) mm, the centre of its pixel (0, 0) in the laboratory; fast, slow: (3,) mm, from a pixel to the next
    column and to the next row; rows, cols: 0 where they are not known; group: the detector whose frames show it (by
    default its own name), whose pixel (first_row, first_col) is pixel (0, 0) of this panel; translation: that of
    HEXRD's file, for messages, empty where keys of ImageD11 describe the panel.
    """

    name: str
    origin: Floats
    fast: Floats
    slow: Floats
    rows: int = 0
    cols: int = 0
    group: str = ""
    first_row: int = 0
    first_col: int = 0
    translation: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.name)

    @property
    def pixel(self) -> float:
        """Side of a pixel in mm, the mean of both."""
        return float(np.linalg.norm(self.fast) + np.linalg.norm(self.slow)) / 2


@dataclass(frozen=True)
class Instrument:
    """Panels, beam and stage. beam: unit vector along it; stage: (3, 3) rotation, see above."""

    wavelength: float
    panels: tuple[Panel, ...]
    stage: Floats = field(default_factory=lambda: np.eye(3))
    beam: Floats = field(default_factory=lambda: np.array([1.0, 0.0, 0.0]))
    omega_sign: float = 1.0

    @property
    def distance(self) -> float:
        """From the sample to the nearest of the planes of the panels, in mm."""
        normals = [np.cross(panel.fast, panel.slow) for panel in self.panels]
        return min(
            abs(float(normal @ panel.origin)) / float(np.linalg.norm(normal))
            for normal, panel in zip(normals, self.panels, strict=True)
        )

    def _vectors(self, panel: Index) -> tuple[Floats, Floats, Floats]:
        parts = ("origin", "fast", "slow")
        origin, fast, slow = (np.array([getattr(p, name) for p in self.panels], float)[panel] for name in parts)
        return origin, fast, slow

    def laboratory(self, panel: Index, row: Floats, col: Floats) -> Floats:
        """(n, 3) mm of pixels (n,) on panels (n,)."""
        origin, fast, slow = self._vectors(panel)
        return origin + np.asarray(col)[:, None] * fast + np.asarray(row)[:, None] * slow

    def pixels(self, panel: Index, start: Floats, direction: Floats) -> tuple[Floats, Floats]:
        """(row, col), (n,) each, at which rays meet the planes of panels (n,).

        start, direction: (n, 3). NaN where a ray leads away from the panel.
        """
        origin, fast, slow = self._vectors(panel)
        normal = np.cross(fast, slow)
        with np.errstate(divide="ignore", invalid="ignore"):
            far = ((origin - start) * normal).sum(1) / (direction * normal).sum(1)
            far = np.where(far > 0, far, np.nan)
            on = start + far[:, None] * direction - origin
            ff, ss, fs = (fast * fast).sum(1), (slow * slow).sum(1), (fast * slow).sum(1)
            of, os = (on * fast).sum(1), (on * slow).sum(1)
            area = ff * ss - fs**2
            return (os * ff - of * fs) / area, (of * ss - os * fs) / area

    def turned(self, vectors: Floats, omega: Floats, back: bool = False) -> Floats:
        """(n, 3): vectors (n, 3) or (3,) turned about z by the omegas (n,) of the scan; ``back`` the other way."""
        angle = self.omega_sign * omega * (-1.0 if back else 1.0)
        x, y, z = np.broadcast_to(vectors, (len(omega), 3)).T
        cos, sin = np.cos(angle), np.sin(angle)
        return np.stack([cos * x - sin * y, sin * x + cos * y, z], 1)

    def reciprocal(self, xyz: Floats, omega: Floats, position: Floats) -> Floats:
        """(n, 3) vectors of reciprocal space, in the sample's axes, of spots at ``xyz`` (n, 3) and omega (n,).

        position: (3,) mm, of the grain in the sample.
        """
        ray = xyz - self.turned(position, omega) @ self.stage.T
        ray = ray / np.linalg.norm(ray, axis=1, keepdims=True)
        return self.turned((ray - self.beam) @ self.stage / self.wavelength, omega, back=True)

    def shift(self, xyz: Floats, omega: Floats) -> Floats:
        """(n, 3, 3): how :meth:`reciprocal` changes with the position of a grain near the origin, 1/angstrom a mm."""
        length = np.linalg.norm(xyz, axis=1)
        ray = (xyz / length[:, None]) @ self.stage
        ray = self.turned(ray, omega, back=True)  # in the sample's axes
        across = np.eye(3) - ray[:, :, None] * ray[:, None, :]
        return -across / (length * self.wavelength)[:, None, None]

    def omegas(self, vectors: Floats) -> Floats:
        """(n, 2): the two omegas at which reciprocal vectors (n, 3) diffract; NaN where they never do."""
        x, y, z = self.stage.T @ self.beam  # the beam in the axes of the stage
        along = x * vectors[:, 0] + y * vectors[:, 1]
        across = y * vectors[:, 0] - x * vectors[:, 1]
        needed = -self.wavelength * np.square(vectors).sum(1) / 2 - z * vectors[:, 2]
        with np.errstate(invalid="ignore", divide="ignore"):
            half = np.arccos(needed / np.hypot(along, across))
        middle = np.arctan2(across, along)
        return self.omega_sign * np.stack([middle + half, middle - half], 1)

    def project(self, vectors: Floats, omega: Floats, position: Floats, panel: Index) -> tuple[Floats, Floats]:
        """(row, col) on panels (n,) of reciprocal vectors (n, 3) that diffract at omega (n,).

        position: mm, (3,) of a grain, or (n, 3).
        """
        direction = self.beam + self.wavelength * (self.turned(vectors, omega) @ self.stage.T)
        start = self.turned(position, omega) @ self.stage.T
        return self.pixels(panel, start, direction)

    def lorentz(self, vectors: Floats, omega: Floats) -> Floats:
        """(n,): |sin eta|, 0 for a reflection near the axis of rotation, which turns slowly through its condition.

        Exactly: the speed with which reciprocal vectors (n, 3) pass their condition at omega (n,), over that of one
        whose scattered ray is perpendicular to the axis. An error in omega grows by its inverse.
        """
        turned = self.turned(vectors, omega)
        across = turned[:, 0] * (self.stage.T @ self.beam)[1] - turned[:, 1] * (self.stage.T @ self.beam)[0]
        length = np.linalg.norm(vectors, axis=1)
        cosine = np.sqrt(np.maximum(1 - np.square(self.wavelength * length / 2), 0))
        return np.abs(across) / np.maximum(length * cosine, 1e-12)


def nearest(two: Floats, omega: Floats) -> Floats:
    """(n,): that of two omegas (n, 2) which is nearest to omega (n,), in its turn; NaN where there is none."""
    away = two - omega[:, None]
    away -= 2 * np.pi * np.round(away / (2 * np.pi))
    first = np.abs(away[:, 0]) <= np.abs(away[:, 1])
    return omega + np.where(first, away[:, 0], away[:, 1])

"""The grains of a simulated scan: the table ``[scan.simulate.grains]`` of a configuration."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError

#: The reflections that a centring allows: the sum h * a + k * b + l * c is a multiple of m for each (a, b, c, m).
CENTRINGS: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "P": (),
    "A": ((0, 1, 1, 2),),
    "B": ((1, 0, 1, 2),),
    "C": ((1, 1, 0, 2),),
    "I": ((1, 1, 1, 2),),
    "F": ((0, 1, 1, 2), (1, 0, 1, 2)),
    "R": ((-1, 1, 1, 3),),
}


@dataclass(frozen=True)
class GrainsSpec:
    """Grains of one lattice, whose reflections take the place of those that are drawn on rings.

    The beam, the detector and its distance are those of `[scan.simulate]`: `wavelength`, `distance`, `pixel` and
    `centre`. The axes are ImageD11's: x along the beam, z the axis of rotation, y to complete a right-handed system.
    """

    number: int = 20  # of grains
    box: tuple[float, float, float] = (0.6, 0.6, 0.2)  # sides along x, y and z that grains lie in, mm; about the origin
    size: float = 60.0  # median diameter of the balls that have the grains' volumes, um
    size_spread: float = 0.35  # of the sizes, log-normal width
    strain: float = 2e-4  # standard deviation of the elements of the strain
    mosaic: float = 0.3  # FWHM of the directions of a grain's lattice, degrees; it makes the rocking width
    # counts of the integrated intensity of a reflection of the first ring, of a grain of median size, a quarter turn
    # away from the axis of rotation
    intensity: float = 100_000.0
    lattice: tuple[float, ...] = (4.0782,)  # a (cubic), a, b, c (right angles), or all six; angstrom and degrees
    centring: str = "F"  # `"P"`, `"A"`, `"B"`, `"C"`, `"I"`, `"F"`, or `"R"` in hexagonal axes, obverse
    tilts: tuple[float, float, float] = (0.0, 0.0, 0.0)  # tilt_x, tilt_y, tilt_z of ImageD11, radians
    # o11, o12, o21, o22 of ImageD11: how rows and columns lie; the default has rows down and columns to the right, as
    # seen along the beam
    axes: tuple[int, int, int, int] = (-1, 0, 0, -1)
    wedge: float = 0.0  # of ImageD11, degrees
    chi: float = 0.0  # of ImageD11, degrees
    omega_sign: int = 1  # 1, or -1 where the sample turns against omega

    def __post_init__(self) -> None:
        self._require("number", self.number >= 1, "at least 1")
        self._require("box", all(0 <= side < np.inf for side in self.box), "three sides in mm, 0 or more")
        for name in ("size", "mosaic", "intensity"):
            self._require(name, 0 < getattr(self, name) < np.inf, "a positive number")
        for name, most in (("size_spread", 2.0), ("strain", 0.05)):
            self._require(name, 0 <= getattr(self, name) <= most, f"from 0 to {most:g}")
        self._require("mosaic", self.mosaic <= 5, "at most 5 degrees")
        self._require("centring", self.centring in CENTRINGS, f"one of {', '.join(CENTRINGS)}")
        self._require("tilts", max(map(abs, self.tilts)) < np.pi / 4, "three angles in radians below pi / 4")
        turns = (
            sorted(map(abs, self.axes)) == [0, 0, 1, 1] and self.axes[0] * self.axes[3] != self.axes[1] * self.axes[2]
        )
        self._require("axes", turns, "o11, o12, o21, o22 of ImageD11: (+-1, 0, 0, +-1) or (0, +-1, +-1, 0)")
        for name in ("wedge", "chi"):
            self._require(name, abs(getattr(self, name)) < 45, "degrees between -45 and 45")
        self._require("omega_sign", self.omega_sign in (1, -1), "1 or -1")
        lengths, angles = self.cell[:3], np.cos(np.radians(self.cell[3:]))
        made = len(self.lattice) in (1, 3, 6) and all(0 < length < np.inf for length in lengths)
        made = made and all(0 < angle < 180 for angle in self.cell[3:])
        made = made and bool(1 - np.square(angles).sum() + 2 * angles.prod() > 1e-9)
        self._require("lattice", made, "a, or a b c, or a b c alpha beta gamma of a cell, in angstrom and degrees")
        volume = self.number * np.pi / 6 * (1e-3 * self.size) ** 3 * np.exp(4.5 * self.size_spread**2)
        self._require("box", 0.0 in self.box or volume < np.prod(self.box), f"room for grains of {volume:.3g} mm³")

    def _require(self, name: str, ok: bool, expected: str) -> None:
        if not ok:
            raise UserError(f"simulation of grains: {name} = {getattr(self, name)!r}; expected {expected}")

    @property
    def cell(self) -> tuple[float, ...]:
        """a, b, c in angstrom, alpha, beta, gamma in degrees."""
        edges = self.lattice * 3 if len(self.lattice) == 1 else self.lattice
        return (*edges, 90.0, 90.0, 90.0) if len(edges) == 3 else edges

    @property
    def reach(self) -> float:
        """The largest distance of a grain from the origin, mm."""
        return float(np.linalg.norm(self.box)) / 2

    def allowed(self, hkl: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,): whether the centring allows reflections (n, 3); 000 is none."""
        ok = (hkl != 0).any(1)
        for *factors, multiple in CENTRINGS[self.centring]:
            ok &= hkl @ np.array(factors) % multiple == 0
        return ok

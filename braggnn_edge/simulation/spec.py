"""What a simulated far-field scan is made of: the table ``[scan.simulate]`` of a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from braggnn_edge.core.config import refuse_unused
from braggnn_edge.core.errors import UserError
from braggnn_edge.simulation.grains_spec import GrainsSpec

#: Keys of reflections that are drawn, which grains do without.
_DRAWN = (
    "reflections", "rings", "lattice", "centring", "ring_strain", "heights", "rocking", "neighbours",
    "neighbour_distance", "neighbour_ratio",
)  # fmt: skip
#: Sides of the windows that spots are rendered in, px.
WINDOWS = (9, 15, 27, 63, 127)


@dataclass(frozen=True)
class SimulationSpec:
    """What to simulate. Lengths are in px and angles in degrees unless a key says otherwise."""

    RENAMED: ClassVar[Mapping[str, str]] = {"floor": "least_height"}

    rows: int = 1024  # of the panel
    cols: int = 1024  # of the panel
    frames: int = 120  # of the scan
    omega_step: float = 0.25  # rotation of a frame, degrees
    reflections: int = 9500  # number drawn, companions not counted
    centre: tuple[float, ...] = ()  # beam centre (row, col), px; empty: the middle
    rings: tuple[float, ...] = ()  # ring radii, px; empty: from the lattice
    lattice: tuple[float, ...] = (3.905,)  # one cell edge (cubic) or three (orthorhombic), angstrom
    centring: str = "P"  # `"P"`, `"I"` or `"F"`
    wavelength: float = 0.1729  # angstrom
    distance: float = 560.0  # mm
    pixel: float = 0.2  # mm
    ring_strain: float = 0.005  # relative scatter of the radii
    heights: tuple[float, float] = (30.0, 50000.0)  # height in a centred frame, counts, log-uniform
    least_height: float = 10.0  # a spot below this height has no truth in that frame
    rocking: tuple[float, float] = (0.15, 0.8)  # FWHM of the rocking curve, degrees, uniform
    jitter: float = 0.05  # scatter of a spot from frame to frame, px
    fwhm_median: float = 2.0  # of the minor axis, px
    fwhm_spread: float = 0.35  # log-normal width
    fwhm_limits: tuple[float, float] = (1.0, 4.5)  # px
    aspect_spread: float = 0.25  # axis ratio is exp of the absolute normal of this width
    streaks: float = 0.05  # share of streaks
    streak_aspect: tuple[float, float] = (2.0, 3.5)  # their axis ratio
    along_ring: float = 0.5  # share of spots along their ring
    eta: tuple[float, float] = (0.0, 1.0)  # Lorentzian share, uniform
    neighbours: float = 0.1  # share of reflections with a companion
    neighbour_distance: tuple[float, float] = (2.0, 8.0)  # px
    neighbour_ratio: tuple[float, float] = (0.1, 1.0)  # its relative height, log-uniform
    background: float = 20.0  # counts
    background_slope: float = 0.4  # relative rise to the beam centre and fall to the far corner
    gain: float = 1.0  # counts a photon
    read_noise: float = 2.0  # counts
    saturation: int = 65535  # largest count
    threshold: float = 0.0  # counts up to this one become zero; 0: none
    dead: float = 1e-5  # share of pixels
    hot: float = 1e-5  # share of pixels
    hot_level: float = 2000.0  # counts that a hot pixel adds
    window: int = 63  # largest side of a rendered spot, px: 9, 15, 27, 63 or 127
    # bright spots' tails go smoothly to zero, from 0.7 of the largest window's half side on; if false, they end at its
    # edge in a step, which no measured frame has: for the figures that were measured on such scans
    taper: bool = True
    # table below: grains whose reflections take the place of those drawn on rings
    grains: GrainsSpec | None = None

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "frames", "reflections"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("omega_step", "wavelength", "distance", "pixel", "fwhm_median", "gain"):
            self._require(name, 0 < getattr(self, name) < np.inf, "a positive number")
        for name in ("least_height", "jitter", "fwhm_spread", "aspect_spread", "background", "read_noise"):
            self._require(name, 0 <= getattr(self, name) < np.inf, "a finite number of 0 or more")
        for name in ("streaks", "along_ring", "neighbours", "background_slope", "dead", "hot", "ring_strain"):
            self._require(name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        for name in ("heights", "rocking", "fwhm_limits", "neighbour_ratio"):
            self._require_range(name, 1e-6, np.inf)
        self._require_range("streak_aspect", 1, 100)
        self._require_range("neighbour_distance", 0, 1000)
        self._require_range("eta", 0, 1)
        # Below that, the pixel integration of the renderer is not accurate.
        self._require("fwhm_limits", self.fwhm_limits[0] >= 0.5, "0.5 px or more")
        inside = self.fwhm_limits[0] <= self.fwhm_median <= self.fwhm_limits[1]
        self._require("fwhm_median", inside, f"a value within fwhm_limits {self.fwhm_limits}")
        self._require("centre", len(self.centre) in (0, 2), "(row, col), or empty for the middle")
        self._require("centre", all(map(np.isfinite, self.centre)), "finite numbers")
        self._require("rings", all(0 < radius < np.inf for radius in self.rings), "positive radii in px")
        edges_ok = len(self.lattice) in (1, 3) and all(0 < edge < np.inf for edge in self.lattice)
        self._require("lattice", edges_ok, "one or three positive edges in angstrom")
        self._require("centring", self.centring in ("P", "I", "F"), '"P", "I" or "F"')
        self._require("saturation", 1 <= self.saturation <= 65535, "from 1 to 65535, frames being 16-bit")
        self._require("threshold", 0 <= self.threshold < self.saturation, "from 0 to below saturation")
        self._require("hot_level", 0 <= self.hot_level <= 65535, "from 0 to 65535")
        self._require("window", self.window in WINDOWS, f"one of {', '.join(map(str, WINDOWS))}")
        if self.grains is not None:
            refuse_unused(self, _DRAWN, "beside a table of grains")
            if self.grains.reach > self.distance / 10:
                raise UserError(
                    f"simulation of grains: box reaches {self.grains.reach:.1f} mm from the origin; expected at most "
                    f"{self.distance / 10:g}, a tenth of the distance to the panel"
                )
            turn = self.frames * self.omega_step
            if turn > 360 * (1 + 1e-9):
                raise UserError(
                    f"simulation: {self.frames} frames of {self.omega_step:g} degrees turn grains by {turn:g} degrees; "
                    "expected at most 360"
                )

    def _require_range(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        ok = len(value) == 2 and least <= value[0] <= value[1] <= most and np.isfinite(value[1])
        self._require(name, bool(ok), f"(low, high), ascending, from {least:g} to {most:g}")

    def _require(self, name: str, ok: bool, expected: str) -> None:
        if not ok:
            raise UserError(f"simulation: {name} = {getattr(self, name)!r}; expected {expected}")

    def beam(self) -> tuple[float, float]:
        """Beam centre (row, col) in px."""
        return (self.centre[0], self.centre[1]) if self.centre else ((self.rows - 1) / 2, (self.cols - 1) / 2)

    def ring_table(self) -> tuple[np.ndarray, np.ndarray]:
        """(radii in px, shares) of the rings that reach into the panel; a share is that of the reflections.

        Derived rings follow Bragg's law, 2 d sin(theta) = wavelength with 1 / d^2 = (h/a)^2 + (k/b)^2 + (l/c)^2, up to
        2 theta = 45 degrees, each with a share by its number of hkl; given rings have equal shares.
        Raises UserError when no ring reaches the panel.
        """
        row, col = self.beam()
        near = np.hypot(max(0.0, -row, row - self.rows + 1), max(0.0, -col, col - self.cols + 1))
        far = np.hypot(max(row, self.rows - 1 - row), max(col, self.cols - 1 - col))
        if self.rings:
            radii, counts = np.array(self.rings), np.ones(len(self.rings))
        else:
            radii, counts = self._bragg_rings(float(far))
        kept = (radii >= near) & (radii <= far)
        if not kept.any():
            raise UserError(
                f"simulation: no ring reaches a panel of {self.rows} x {self.cols} px, which spans {near:.0f} to "
                f"{far:.0f} px from the beam centre; change rings, or distance, wavelength and lattice"
            )
        return radii[kept], counts[kept] / counts[kept].sum()

    def _bragg_rings(self, far: float) -> tuple[np.ndarray, np.ndarray]:
        """(radii in px, number of hkl) of the rings up to ``far`` px from the beam centre and 45 degrees."""
        cell = np.array(self.lattice if len(self.lattice) == 3 else self.lattice * 3)
        two_theta = min(np.pi / 4, float(np.arctan(far * self.pixel / self.distance)))
        top = np.floor(2 * np.sin(two_theta / 2) / self.wavelength * cell).astype(int)
        if top.max() > 100:
            raise UserError(
                f"simulation: lattice {self.lattice} gives rings up to index {top.max()}, too close to tell apart; "
                "increase wavelength or distance, or give rings"
            )
        axes = [np.arange(-last, last + 1) for last in top]
        hkl = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        hkl = hkl[(hkl != 0).any(1)]
        if self.centring == "I":
            hkl = hkl[hkl.sum(1) % 2 == 0]
        elif self.centring == "F":
            hkl = hkl[(hkl % 2 == hkl[:, :1] % 2).all(1)]
        sine = self.wavelength / 2 * np.sqrt(((hkl / cell) ** 2).sum(1))
        sine = sine[sine <= np.sin(two_theta / 2)]
        radii = self.distance / self.pixel * np.tan(2 * np.arcsin(sine))
        return np.unique(np.round(radii, 6), return_counts=True)

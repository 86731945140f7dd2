"""What a simulated far-field scan is made of: the table ``[scan.simulate]`` of a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from braggnn_edge.core.errors import UserError

#: Sides of the windows that spots are rendered in, px.
WINDOWS = (9, 15, 27, 63, 127)


@dataclass(frozen=True)
class SimulationSpec:
    """What to simulate. Lengths in px and angles in degrees unless said; ranges are (low, high).

    rows, cols, frames: size of the scan. omega_step: rotation of a frame.
    reflections: number drawn, companions not counted; about three frames of each are visible.

    centre: beam centre (row, col); empty for the middle of the panel.
    rings: ring radii. Empty: they follow from lattice (cell edges in angstrom: one for a cubic, three for an
        orthorhombic cell), centring ("P", "I" or "F"), wavelength (angstrom), distance and pixel (mm).
    ring_strain: relative scatter of the radii.

    heights: height above the background, in counts, of a reflection in a frame centred on it; log-uniform.
    least_height: a spot below this height in a frame has no row in the truth table (it is in the frame).
    rocking: FWHM of the rocking curve, uniform.
    jitter: standard deviation of a spot's position from frame to frame.
    fwhm_median, fwhm_spread, fwhm_limits: log-normal FWHM of the minor axis, redrawn outside the limits.
    aspect_spread: the axis ratio is exp |N(0, aspect_spread)|.
    streaks, streak_aspect: share of spots whose axis ratio is uniform in streak_aspect instead.
    along_ring: share of spots whose major axis lies along the ring within 10 degrees; others point anywhere.
    eta: Lorentzian share, uniform.
    neighbours, neighbour_distance, neighbour_ratio: share of reflections with a companion, its distance, and its
        height relative to the reflection's (log-uniform).

    background, background_slope: smooth background in counts, falling from (1 + slope) times it at the beam centre
        to (1 - slope) times it at the far corner.
    gain: counts per photon. read_noise: its standard deviation in counts.
    saturation: largest count. threshold: counts up to this one become zero (0: none).
    dead, hot: shares of such pixels; a hot one adds hot_level counts.
    window: largest side in which a spot is rendered; a bright spot's Lorentzian tail ends there.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"floor": "least_height"}

    rows: int = 1024
    cols: int = 1024
    frames: int = 120
    omega_step: float = 0.25
    reflections: int = 9500
    centre: tuple[float, ...] = ()
    rings: tuple[float, ...] = ()
    lattice: tuple[float, ...] = (3.905,)
    centring: str = "P"
    wavelength: float = 0.1729
    distance: float = 560.0
    pixel: float = 0.2
    ring_strain: float = 0.005
    heights: tuple[float, float] = (30.0, 50000.0)
    least_height: float = 10.0
    rocking: tuple[float, float] = (0.15, 0.8)
    jitter: float = 0.05
    fwhm_median: float = 2.0
    fwhm_spread: float = 0.35
    fwhm_limits: tuple[float, float] = (1.0, 4.5)
    aspect_spread: float = 0.25
    streaks: float = 0.05
    streak_aspect: tuple[float, float] = (2.0, 3.5)
    along_ring: float = 0.5
    eta: tuple[float, float] = (0.0, 1.0)
    neighbours: float = 0.1
    neighbour_distance: tuple[float, float] = (2.0, 8.0)
    neighbour_ratio: tuple[float, float] = (0.1, 1.0)
    background: float = 20.0
    background_slope: float = 0.4
    gain: float = 1.0
    read_noise: float = 2.0
    saturation: int = 65535
    threshold: float = 0.0
    dead: float = 1e-5
    hot: float = 1e-5
    hot_level: float = 2000.0
    window: int = 63

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

"""What a wide family of simulated patches is made of: the table ``[family]`` of a configuration."""

from dataclasses import dataclass

import numpy as np

from braggnn_edge.core.errors import UserError


@dataclass(frozen=True)
class FamilySpec:
    """Ranges that every patch draws its own spot and detector from.

    A spot's height, its background and its photon noise are in photons, and a gain turns photons into counts.
    """

    size: int = 11  # side of a patch, px
    fwhm: tuple[float, float] = (0.7, 9.0)  # narrowest and widest minor axis, px
    fwhm_median: float = 2.2  # of the minor axis, px
    fwhm_spread: float = 0.55  # log-normal width
    aspect_spread: float = 0.35  # axis ratio is exp of the absolute normal of this width
    streaks: float = 0.03  # share of streaks
    streak_aspect: tuple[float, float] = (2.0, 4.0)  # their axis ratio
    eta: tuple[float, float] = (0.0, 1.0)  # Lorentzian share, uniform
    heights: tuple[float, float] = (10.0, 1e5)  # height of a spot, photons, log-uniform
    rough: float = 0.2  # share of spots of two to six sub-spots that are scattered
    skewed: float = 0.03  # share of spots with a tail to one side
    flat: float = 0.02  # share of spots with a flat top
    roughness: tuple[float, float] = (0.3, 1.0)  # scatter of sub-spots in the spot's own width
    neighbours: float = 0.25  # share of spots with a neighbour
    neighbour_distance: tuple[float, float] = (2.0, 10.0)  # px
    neighbour_ratio: tuple[float, float] = (0.05, 1.0)  # its height by that of the spot, log-uniform
    dark: float = 0.4  # share of patches without a background
    background: tuple[float, float] = (0.3, 150.0)  # of the others, photons a pixel, log-uniform
    gain: tuple[float, float] = (0.5, 4.0)  # counts a photon, log-uniform
    counting: float = 0.4  # share of detectors without read noise
    read_noise: tuple[float, float] = (0.0, 8.0)  # of the others, counts
    zero_suppressed: float = 0.5  # share of patches whose low counts are stored as zero
    suppression: tuple[float, float] = (0.003, 0.3)  # that level by the brightest pixel, log-uniform
    saturated: float = 0.03  # share of patches that are cut at a largest count
    bad_pixels: float = 0.03  # share of patches with pixels that read zero
    bad_lines: float = 0.0  # share of patches with a whole row or column that reads zero, not that of the centre
    # share of patches that are centred as the window rule does: on a local maximum that is the brightest pixel within
    # 3 px each way, although a brighter spot may lie elsewhere in the patch (here half of the neighbours are the
    # brighter ones); the others are centred on the brightest pixel
    window_rule: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fwhm", "heights", "neighbour_ratio", "background", "gain", "suppression", "streak_aspect"):
            self._require_range(name, 1e-6)
        for name in ("eta", "roughness", "neighbour_distance", "read_noise"):
            self._require_range(name, 0)
        for name in ("streaks", "rough", "skewed", "flat", "neighbours", "dark", "counting", "zero_suppressed"):
            self._require(name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        for name in ("saturated", "bad_pixels", "bad_lines", "window_rule"):
            self._require(name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        for name in ("fwhm_spread", "aspect_spread"):
            self._require(name, 0 <= getattr(self, name) < np.inf, "a finite number of 0 or more")
        self._require("size", self.size % 2 == 1 and 3 <= self.size <= 11, "odd, from 3 to 11")
        self._require("fwhm", self.fwhm[0] >= 0.5, "0.5 px or more")  # narrower ones are not rendered accurately
        self._require("fwhm_median", self.fwhm[0] <= self.fwhm_median <= self.fwhm[1], f"within fwhm {self.fwhm}")
        self._require("eta", self.eta[1] <= 1, "(low, high) within 0 to 1")
        self._require("streak_aspect", self.streak_aspect[0] >= 1, "(low, high) of 1 or more")
        self._require("suppression", self.suppression[1] < 1, "(low, high) below 1")
        total = self.rough + self.skewed + self.flat
        if total > 1:
            raise UserError(
                f"family: rough, skewed and flat are {total:g} together; expected shares of at most 1 in all"
            )

    def _require_range(self, name: str, least: float) -> None:
        bounds = getattr(self, name)
        ok = len(bounds) == 2 and least <= bounds[0] <= bounds[1] < np.inf
        self._require(name, ok, f"(low, high), ascending, from {least:g}")

    def _require(self, name: str, ok: bool, expected: str) -> None:
        if not ok:
            raise UserError(f"family: {name} = {getattr(self, name)!r}; expected {expected}")

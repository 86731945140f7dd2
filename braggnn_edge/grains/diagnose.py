"""Why nothing indexes, and what the residuals of grains say of the geometry."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.geometry import Instrument
from braggnn_edge.grains.grains import Grains
from braggnn_edge.grains.index import IndexSpec, index
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.spots import load

#: Ways to look at the frames that make a difference, and options that ask for them. Mirroring left and right makes the
#: same list as turning the other way; mirroring up and down alone makes mirrored grains, which fit as well.
_WAYS = (
    (
        "",
        -1.0,
        "--omega-sign -1, or --flip h with the beam centre mirrored (positions cannot tell which of the two is right)",
    ),
    ("t", 1.0, "--flip t, or one that also mirrors up and down (positions cannot tell)"),
    ("t", -1.0, "--flip t --omega-sign -1, or --flip th"),
)
#: Rings that are compared with the spots, and scales of the lattice that are tried.
_RINGS = 8
_SCALES = np.linspace(0.85, 1.15, 601)
#: A scale is believed if more than this share of the spots lies on rings then, and of the rings has spots.
_MOST = 0.6
#: Standard errors by which a mean must differ from nothing before it is said, and the least that is, in px.
_SURE, _LEAST_BIAS = 5.0, 0.02
#: Strain that all grains have in common and that a lattice, a wavelength or a distance may explain.
_COMMON_STRAIN = 2e-3


def why_nothing(scene: Scene, files: Mapping[str, Path], instrument: Instrument, flip: str, spec: IndexSpec) -> str:
    """One sentence or two for the user whose spots make no grain: what was seen, likely causes, and what would help.

    instrument: as it was read, with the omega sign that was asked for.
    """
    count = len(scene.spots)
    if count < spec.least:
        return f"{count} spots can be used; expected at least {spec.least} of a grain (--least)"
    rings, chance, scale = ring_fit(scene)
    said = f"no grain found among {count:,} spots"
    share = f"{rings:.0%} of the spots of the first rings lie on rings of the lattice, {chance:.0%} would by chance"
    if abs(scale - 1) > 0.004:
        cell = ", ".join(f"{length / scale:.4g}" for length in scene.lattice.cell[:3])
        return (
            f"{said}: {share}; the rings fit best with lengths of the cell divided by {scale:.3f} ({cell} angstrom); "
            "check --lattice, the wavelength and the distance"
        )
    for other, sign, option in _WAYS:
        try:
            tried, spots = load(files, replace(instrument, omega_sign=instrument.omega_sign * sign), flip + other)
        except UserError:  # a frame that is not square has no room for its transpose
            continue
        seeds = index(Scene(tried, spots, scene.lattice, scene.sample), replace(spec, most=1, patience=100))
        if seeds:
            return f"{said} as they are, but there are some with {option}; check how the frames lie and turn"
    if rings - chance < 0.15:
        return f"{said}: {share}; check --lattice, --centring, the wavelength, the distance and the beam centre"
    return (
        f"{said}, though the rings fit ({share}); the likely causes are too few spots a grain (--least, "
        "--completeness), a sample larger than --sample, a wrong omega step, or panels that are turned"
    )


def ring_fit(scene: Scene) -> tuple[float, float, float]:
    """Share of the spots of the first rings that lie on a ring, the share by chance, and the scale that fits best.

    The scale multiplies the lengths of the rings. It is 1 unless with another one most spots lie on rings, and most
    rings have spots.
    """
    lengths = scene.rings[0][:_RINGS]
    own = np.sort(np.linalg.norm(scene.reciprocal, axis=1))
    if len(lengths) < 3 or len(own) < 10:
        return 0.0, 0.0, 1.0
    width = min(scene.tolerance / 2, 0.02 * lengths[0])

    def fit(scale: float) -> tuple[float, float]:
        """Shares of the spots up to the last ring that are on rings, and of the rings that have spots."""
        low, high = np.searchsorted(own, scale * lengths - width), np.searchsorted(own, scale * lengths + width)
        on = np.zeros(len(own) + 1)
        np.add.at(on, low, 1)
        np.add.at(on, high, -1)
        within = np.cumsum(on)[: high[-1]] > 0
        return float(within.mean()) if len(within) else 0.0, float((high > low).mean())

    fits = np.array([fit(scale) for scale in _SCALES])
    here, chance = fit(1.0)[0], float(np.median(fits[:, 0]))
    both = fits.min(1)
    scale = float(_SCALES[both >= both.max() - 1e-9].mean())
    clearly = both.max() > max(_MOST, here + 0.15, chance + 0.2)
    return here, chance, scale if clearly else 1.0


def remarks(scene: Scene, found: Grains, lattice: Lattice) -> Iterator[str]:
    """What the user should know of the grains: offsets that all have in common, and a scan that is too narrow."""
    yield from offsets(scene, found)
    strains = [np.trace(lattice.orientation_and_strain(grain.ub)[1]) / 3 for grain in found.grains]
    if strains and abs(common := float(np.median(strains))) > _COMMON_STRAIN:
        yield (
            f"the median grain is strained by {common:+.4f} in all directions: the cell of --lattice is off by that "
            "share, or the wavelength, or the distance; strains are relative to that cell"
        )
    if scene.spots.covered < 90:
        yield (
            f"NARROW: the scan covers {scene.spots.covered:.0f} degrees; positions and strains along some directions "
            "are hardly known, as the sigma columns say"
        )


def offsets(scene: Scene, found: Grains) -> Iterator[str]:
    """Sentences on panels whose spots are off by the same in all grains.

    An offset along the axis of rotation moves all grains, and leaves nothing in the residuals of a single panel. An
    offset across it cannot be a grain's place, which turns with the sample, so it stays.
    """
    if not found.grains:
        return
    spots = np.concatenate([grain.spots for grain in found.grains])
    residual = np.concatenate([grain.residual for grain in found.grains])[:, :2]
    for number, panel in enumerate(scene.instrument.panels):
        own = residual[scene.spots.panel[spots] == number]
        if len(own) < 20:
            continue
        mean = np.median(own, axis=0)
        error = 1.2533 * 1.4826 * np.median(np.abs(own - mean), axis=0) / np.sqrt(len(own))
        sure = np.abs(mean) > np.maximum(_SURE * error, _LEAST_BIAS)
        if not sure.any():
            continue
        half = (np.abs(np.abs(mean) - 0.5) < 0.1) & sure
        yield (
            f"panel {panel.name}: computed minus measured positions are ({mean[0]:+.3f}, {mean[1]:+.3f}) px (row, col) "
            "in the median, in all grains together; "
            + ("half a pixel: does its maker count pixels from their corners? The centre of the first pixel is 0.0 here"
               if half.any() else "the beam centre is off, or the network is biased")
            + "; what lies along the axis of rotation does not show, and moves all grains"
        )  # fmt: skip

"""The reflections of a simulated scan: drawn on rings, or those of grains, and how each one rocks through the frames.

A reflection has an *integrated intensity*: its counts over all pixels and its whole rocking curve. Its *height* is that
of its profile in a frame centred on it. Intensity = height * :func:`area` / (share of the rocking curve that such a
frame holds).
"""

import numpy as np
from scipy.special import ndtr

from braggnn_edge.core.errors import UserError
from braggnn_edge.simulation.grains import draw_grains, reflections_of
from braggnn_edge.simulation.spec import SimulationSpec
from braggnn_edge.simulation.streams import REFLECTIONS, stream

#: One row a reflection. row, col: px; height: counts in a frame centred on it; omega: degrees, of the centre of its
#: rocking curve; rocking: FWHM of that, degrees; tilt: radians; intensity: integrated, counts; grain: number of its
#: grain (-1: none); h, k, l: its indices (0 without a grain).
REFLECTION_DTYPE = np.dtype(
    [
        *((name, "f8") for name in ("row", "col", "height", "omega", "rocking", "fwhm_major", "fwhm_minor", "tilt")),
        *((name, "f8") for name in ("eta", "intensity")),
        *((name, "i4") for name in ("grain", "h", "k", "l")),
    ]
)

#: Of a Lorentzian that goes smoothly to zero in the largest window: the radius within which the whole one has its
#: integral, relative to the window's half side; exp of the integral of (factor - 1) / r over r from 0.7 to 1.
TAPERED_RADIUS = 0.8475
_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


def draw_reflections(spec: SimulationSpec, seed: int) -> np.ndarray:
    """All reflections of a scan (:data:`REFLECTION_DTYPE`): of its grains, or drawn on rings, companions at the end."""
    rng = stream(seed, REFLECTIONS)
    if spec.grains is None:
        table = _drawn(spec, rng)
    else:
        seen = reflections_of(spec, draw_grains(spec.grains, seed))
        table = np.zeros(len(seen), REFLECTION_DTYPE)
        for name in ("grain", "h", "k", "l", "row", "col", "omega", "rocking", "intensity"):
            table[name] = seen[name]
    _draw_shapes(spec, rng, table)
    counts = area(spec, table) / _share_at_best(spec, table)  # of a reflection of height 1
    if spec.grains is None:
        table["intensity"] = table["height"] * counts
    else:
        table["height"] = table["intensity"] / counts
    return table


def area(spec: SimulationSpec, reflections: np.ndarray) -> np.ndarray:
    """(n,) px²: the sum over pixels of profiles of height 1.

    The integral of a Lorentzian in two dimensions has no end; that within an ellipse of the profile's shape is taken.
    It has the area of the largest window, or, where the profile goes smoothly to zero there, the integral of that.
    """
    both = reflections["fwhm_major"] * reflections["fwhm_minor"]
    gauss = np.pi / (4 * np.log(2)) * both
    radius = TAPERED_RADIUS * (spec.window // 2) if spec.taper else spec.window / np.sqrt(np.pi)
    lorentz = np.pi / 4 * both * np.log1p(4 * radius**2 / both)
    return reflections["eta"] * lorentz + (1 - reflections["eta"]) * gauss


def _drawn(spec: SimulationSpec, rng: np.random.Generator) -> np.ndarray:
    """Reflections drawn on rings, with their companions, as far as their shapes are not concerned."""
    place = _places(spec, rng)
    n = len(place)
    height = _log_uniform(rng, spec.heights, n)
    rocking = rng.uniform(*spec.rocking, n)
    # Reflections centred outside the scan reach into its first and last frames.
    omega = rng.uniform(-spec.rocking[1], spec.frames * spec.omega_step + spec.rocking[1], n)
    mother = np.flatnonzero(rng.random(n) < spec.neighbours)
    m = len(mother)
    angle = rng.uniform(0, 2 * np.pi, m)
    step = rng.uniform(*spec.neighbour_distance, m)[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    near_omega = omega[mother] + 0.25 * rocking[mother] * rng.standard_normal(m)
    lower = height[mother] * _log_uniform(rng, spec.neighbour_ratio, m)

    table = np.zeros(n + m, REFLECTION_DTYPE)
    table["grain"] = -1
    table["row"], table["col"] = np.concatenate([place, place[mother] + step]).T
    table["height"] = np.concatenate([height, lower])
    table["omega"] = np.concatenate([omega, near_omega])
    table["rocking"] = np.concatenate([rocking, rng.uniform(*spec.rocking, m)])
    return table


def _places(spec: SimulationSpec, rng: np.random.Generator) -> np.ndarray:
    """(reflections, 2) positions (row, col) on the rings, inside the panel."""
    radii, shares = spec.ring_table()
    beam = np.array(spec.beam())
    found: list[np.ndarray] = []
    missing = spec.reflections
    for _ in range(1000):
        tries = 2 * missing + 100
        radius = rng.choice(radii, tries, p=shares) * (1 + spec.ring_strain * rng.standard_normal(tries))
        azimuth = rng.uniform(0, 2 * np.pi, tries)
        place = beam + radius[:, None] * np.stack([np.sin(azimuth), np.cos(azimuth)], 1)
        found.append(place[inside(spec, place)][:missing])
        missing -= len(found[-1])
        if missing == 0:
            return np.concatenate(found)
    raise UserError("simulation: the rings hardly touch the panel; change centre, rings or distance")


def _draw_shapes(spec: SimulationSpec, rng: np.random.Generator, table: np.ndarray) -> None:
    """Fill fwhm_major, fwhm_minor, tilt and eta."""
    n = len(table)
    minor = np.zeros(n)
    low, high = spec.fwhm_limits
    while (bad := (minor < low) | (minor > high)).any():
        minor[bad] = spec.fwhm_median * np.exp(spec.fwhm_spread * rng.standard_normal(int(bad.sum())))
    aspect = np.exp(np.abs(spec.aspect_spread * rng.standard_normal(n)))
    streak = rng.random(n) < spec.streaks
    aspect[streak] = rng.uniform(*spec.streak_aspect, int(streak.sum()))
    row, col = spec.beam()
    # The tangent of the ring is perpendicular to the radius, whose angle from +col towards +row is the azimuth.
    azimuth = np.arctan2(table["row"] - row, table["col"] - col)
    along = azimuth + np.pi / 2 + np.radians(10) * rng.standard_normal(n)
    table["fwhm_minor"], table["fwhm_major"] = minor, minor * aspect
    table["tilt"] = np.where(rng.random(n) < spec.along_ring, along, rng.uniform(0, np.pi, n)) % np.pi
    table["eta"] = rng.uniform(*spec.eta, n)


def share_of_frame(spec: SimulationSpec, reflections: np.ndarray, frame: int) -> np.ndarray:
    """(n,) intensity in ``frame`` relative to that in a frame centred on the reflection, in [0, 1].

    The omega of a grain's reflection means that of any turn: one at 359.9 degrees rocks on through frames at 0.
    """
    width = reflections["rocking"] / _FWHM_PER_SIGMA
    start = frame * spec.omega_step - reflections["omega"]
    if spec.grains is not None:
        start -= 360.0 * np.round((start + spec.omega_step / 2) / 360.0)
    share = ndtr((start + spec.omega_step) / width) - ndtr(start / width)
    return share / _share_at_best(spec, reflections)


def _share_at_best(spec: SimulationSpec, reflections: np.ndarray) -> np.ndarray:
    """(n,): of the rocking curve, what a frame centred on the reflection holds."""
    return 2 * ndtr(spec.omega_step / 2 / (reflections["rocking"] / _FWHM_PER_SIGMA)) - 1


def inside(spec: SimulationSpec, place: np.ndarray) -> np.ndarray:
    """(n,) whether positions (n, 2) lie on the panel."""
    row, col = place.T
    return (row > -0.5) & (row < spec.rows - 0.5) & (col > -0.5) & (col < spec.cols - 0.5)


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], n: int) -> np.ndarray:
    return np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]), n))

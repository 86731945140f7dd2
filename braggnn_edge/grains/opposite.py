"""What opposite reflections say of omega: hkl and -h -k -l are seen half a turn apart, whatever the lattice is."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import median_filter
from scipy.spatial import cKDTree

from braggnn_edge.grains.index import IndexSpec, index
from braggnn_edge.grains.match import Scene

#: Spots whose opposites are looked for, and how many candidates of each; this bounds time and memory.
_MOST, _CANDIDATES = 5000, 16
#: Frames at least between two opposite reflections, and frames over which the usual number of pairs by chance is taken.
_APART, _AROUND = 10, 101
#: Pairs at one distance count if they are so many more than by chance, and by so many standard deviations.
_FEWEST, _SURE = 10, 8.0
#: Pairs whose first spots lie in one cell of so many px count once: bright spots have maxima of the noise around them,
#: and two of them that are opposite by chance would count as many pairs.
_CELL = 40.0
#: Half a turn of the lists is right to within so many frames, and to this share.
_FRAMES, _SHARE = 2.0, 2e-3
#: Degrees above which a scan must show opposite reflections.
_ENOUGH = 200.0


@dataclass(frozen=True)
class HalfTurn:
    """Pairs of opposite reflections, and the degrees between them by the omega of the lists: 180 if it is right."""

    pairs: int
    degrees: float


def half_turn(scene: Scene) -> HalfTurn | None:
    """How far opposite reflections are apart; None where no distance stands out, as in a scan of less than half a turn.

    In the axes of the stage, without the turn by omega, a vector (x, y, z) has its opposite at (x, y, -z), half a turn
    later: the turn takes (-x, -y, -z) there. Omega is used for nothing but their distance.
    """
    omega = scene.spots.omega
    if len(omega) < 2 * _FEWEST or scene.spots.step <= 0:
        return None
    cos, sin = np.cos(scene.instrument.omega_sign * omega), np.sin(scene.instrument.omega_sign * omega)
    x, y, z = scene.reciprocal.T
    seen = np.stack([cos * x - sin * y, sin * x + cos * y, z], 1)
    chosen = np.flatnonzero(z >= 0)  # each pair once
    if len(chosen) > _MOST:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, _MOST, replace=False))
    near = cKDTree(seen).query(
        seen[chosen] * [1, 1, -1], k=min(_CANDIDATES, len(seen)), distance_upper_bound=scene.tolerance
    )[1]
    mine, which = np.nonzero(near < len(seen))
    degrees = np.degrees(np.abs(omega[chosen[mine]] - omega[near[mine, which]]))
    frames = degrees / np.degrees(scene.spots.step)
    pixel = max(panel.pixel for panel in scene.instrument.panels)
    cell = np.floor(seen[chosen[mine]] * scene.instrument.wavelength * scene.instrument.distance / (_CELL * pixel))
    alone = np.unique(np.column_stack([cell, np.round(frames)]), axis=0)
    counts = np.bincount(alone[:, -1].astype(np.int64), minlength=_APART + 4)
    together = np.convolve(counts, np.ones(3), "same")
    usual = median_filter(together, _AROUND, mode="nearest")
    more = together - usual
    more[:_APART] = 0
    peak = int(np.argmax(more / np.sqrt(usual + 1)))
    cells = len(np.unique(alone[np.abs(alone[:, -1] - peak) <= 1, :-1], axis=0)) - usual[peak]
    if min(more[peak], cells) < max(_FEWEST, _SURE * np.sqrt(usual[peak] + 1)):
        return None
    return HalfTurn(int(more[peak]), float(np.median(degrees[np.abs(frames - peak) < 1.5])))


def is_right(scene: Scene, found: HalfTurn) -> bool:
    """Whether the omega of the lists turns by half a turn where the sample does."""
    return abs(found.degrees - 180) < max(_FRAMES * float(np.degrees(scene.spots.step)), 180 * _SHARE)


def wrong_step(scene: Scene, spec: IndexSpec) -> str | None:
    """A sentence where there are grains with another step of omega, the one that opposite reflections ask for."""
    found = half_turn(scene)
    if found is None or is_right(scene, found):
        return None
    if not index(turned(scene, 180 / found.degrees), replace(spec, most=1, patience=100)):
        return None
    return f"{_contradicted(scene, found)}, with which there are grains"


def _contradicted(scene: Scene, found: HalfTurn) -> str:
    """What opposite reflections say of a wrong step, and the one to try."""
    step = float(np.degrees(scene.spots.step))
    return (
        f"the step of omega, {step:.4g} degrees a frame, is wrong: {found.pairs:,} pairs of opposite reflections (hkl "
        f"and -h-k-l) are {found.degrees:.1f} degrees apart by it, and must be 180; merge again with --omega-start DEG "
        f"--omega-step {step * 180 / found.degrees:.4g} (its sign as before)"
    )


def turned(scene: Scene, factor: float) -> Scene:
    """The scene with all omegas times ``factor``."""
    spots = scene.spots
    changed = {name: getattr(spots, name) * factor for name in ("omega", "sigma_omega", "ranges", "step")}
    return replace(scene, spots=replace(spots, **changed))


def said_of_omega(scene: Scene) -> str:
    """Whether omega is a suspect where nothing indexes: words that begin a list of suspects."""
    found = half_turn(scene)
    if found is not None and is_right(scene, found):
        return (
            f"the step of omega is right, as {found.pairs:,} pairs of opposite reflections are {found.degrees:.1f} "
            "degrees apart"
        )
    if found is not None:
        return f"it may be that {_contradicted(scene, found)}"
    if scene.spots.covered > _ENOUGH:
        return (
            f"a wrong step of omega is the first suspect: by it the scan covers {scene.spots.covered:.0f} degrees, but "
            "no opposite reflections (hkl and -h-k-l) are half a turn apart; check that --omega-step is the degrees of "
            "the whole scan over its number of frames"
        )
    return (
        "first check that the step of omega is the degrees of the whole scan over its number of frames; less than half "
        "a turn cannot tell"
    )

"""All grains of a scan: spots are shared out among grains, and each grain is refined, in turns until both settle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from braggnn_edge.grains.forward import NEAR_AXIS
from braggnn_edge.grains.geometry import Floats, Index
from braggnn_edge.grains.index import Seed
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.refine import Grain, refine
from braggnn_edge.grains.scales import Scales, rescaled

#: Shares of the scene's tolerance within which spots are given to grains, one a turn.
_SHARES = (0.5, 0.35, 0.35)
#: Where the first refinement takes less than this share of the spots that are offered, it is tried with wide scales.
#: An offset that all spots share may be many standard deviations. Grains then settle on the half of their spots that
#: their place can make up for, and leave the others out.
_LEAST_TAKEN, _WIDE = 0.7, Scales(extra=1.0)
#: Two grains closer than this, in degrees and in mm, are one.
_SAME_ANGLE = 0.25
#: A ring counts in the completeness where at least this share of its expected spots is found.
_SEEN = 0.3


@dataclass(frozen=True)
class Grains:
    """Grains, their numbers and completeness (n,), and the scales of the standard deviations of the refinement.

    Numbers of spots in the grains are those of the scene.
    """

    grains: list[Grain]
    numbers: tuple[int, ...]
    completeness: Floats
    scales: Scales


def refined(scene: Scene, seeds: Sequence[Seed], least: int) -> Grains:
    """Refine what the indexer found, with a free assignment: each spot belongs to the grain that it fits best.

    least: spots of a grain; those with fewer are dropped, and so are grains that became the same.
    """
    places = [(seed.ub, seed.position) for seed in seeds]
    found: list[Grain] = []
    scales = Scales()
    for turn, share in enumerate(_SHARES):
        offered = _offered(scene, places, share * scene.tolerance, least)
        found = _from_offered(scene, offered, places, scales, least)
        if turn == 0 and _taken(found) < _LEAST_TAKEN * sum(len(spots) for spots, _ in offered.values()):
            found = max(found, _from_offered(scene, offered, places, _WIDE, least), key=_taken)
        found = _distinct(scene, found)
        places = [(grain.ub, grain.position) for grain in found]
        scales = rescaled(scene.spots, found, scales)
    # Once more with the last scales, so that the errors are those of the weights that are reported.
    found = [_again(scene, grain, scales) for grain in found]
    return Grains(found, tuple(range(len(found))), _completeness(scene, found), scales)


def _offered(
    scene: Scene, places: Sequence[tuple[Floats, Floats]], tolerance: float, least: int
) -> dict[int, tuple[Index, Index]]:
    """Spots and their reflections by the number of the grain, of those that have enough."""
    owner, reflection = _shared_out(scene, places, tolerance)
    offered = {}
    for number, (ub, _) in enumerate(places):
        spots = np.flatnonzero(owner == number)
        vectors = scene.hkl[reflection[spots]] @ ub.T
        spots = spots[scene.instrument.lorentz(vectors, scene.spots.omega[spots]) >= NEAR_AXIS]
        if len(spots) >= least:
            offered[number] = (spots, reflection[spots])
    return offered


def _from_offered(
    scene: Scene,
    offered: Mapping[int, tuple[Index, Index]],
    places: Sequence[tuple[Floats, Floats]],
    scales: Scales,
    least: int,
) -> list[Grain]:
    """Grains from the spots that are offered to them, those that keep enough."""
    grains = [_one(scene, *spots, places[number], scales) for number, spots in offered.items()]
    return [grain for grain in grains if grain is not None and len(grain.spots) >= least]


def _taken(found: Sequence[Grain]) -> int:
    return sum(len(grain.spots) for grain in found)


def refined_as_assigned(
    scene: Scene, places: Mapping[int, tuple[Floats, Floats]], owner: Index, reflection: Index
) -> Grains:
    """Refine grains from spots that are given to them; none of these is left out.

    places: UB and position by the grain's number; owner, reflection: (n,) of each spot, -1 for none. A grain with less
    than 8 spots is not in the result.
    """
    scales = Scales()
    found: dict[int, Grain] = {}
    for _ in range(3):
        found = {}
        for number, place in places.items():
            spots = np.flatnonzero((owner == number) & (reflection >= 0))
            grain = _one(scene, spots, reflection[spots], place, scales, clip=False)
            if grain is not None:
                found[number] = grain
        scales = rescaled(scene.spots, list(found.values()), scales)
    grains = [_again(scene, grain, scales) for grain in found.values()]
    return Grains(grains, tuple(found), _completeness(scene, grains), scales)


def _one(
    scene: Scene, spots: Index, reflection: Index, place: tuple[Floats, Floats], scales: Scales, clip: bool = True
) -> Grain | None:
    grain = refine(scene.instrument, scene.spots.take(spots), scene.hkl, reflection, place, scales, clip)
    return grain and replace(grain, spots=spots[grain.spots])


def _again(scene: Scene, grain: Grain, scales: Scales) -> Grain:
    place = (grain.ub, grain.position)
    return _one(scene, grain.spots, grain.reflection, place, scales, clip=False) or grain


def _shared_out(scene: Scene, places: Sequence[tuple[Floats, Floats]], tolerance: float) -> tuple[Index, Index]:
    """Owner and reflection of each spot, (n,), -1 for none: the grain from whose reflection it is least far off."""
    owner, reflection = np.full(len(scene.spots), -1), np.full(len(scene.spots), -1)
    best = np.full(len(scene.spots), tolerance)
    for number, (ub, position) in enumerate(places):
        found, off = scene.assigned(ub, position)
        ok = (found >= 0) & (off < best)
        owner[ok], reflection[ok], best[ok] = number, found[ok], off[ok]
    return owner, reflection


def _distinct(scene: Scene, found: Sequence[Grain]) -> list[Grain]:
    """Grains without those that are another one once more; of two, that with more spots stays."""
    order = sorted(range(len(found)), key=lambda number: (-len(found[number].spots), number))
    kept: list[int] = []
    turns = [scene.lattice.orientation_and_strain(grain.ub)[0] for grain in found]
    for number in order:
        if kept:
            angle = scene.lattice.misorientation(np.array([turns[other] for other in kept]), turns[number])
            away = np.array([np.linalg.norm(found[other].position - found[number].position) for other in kept])
            if ((angle < _SAME_ANGLE) & (away < scene.sample)).any():
                continue
        kept.append(number)
    return [found[number] for number in sorted(kept)]


def _completeness(scene: Scene, found: Sequence[Grain]) -> Floats:
    """(n,): share of the expected spots that are found, on the rings that are seen in this scan.

    A ring is seen where at least 30 % of what all grains together should show of it is found.
    """
    rings = scene.rings[1]
    wanted = np.zeros(int(rings.max(initial=-1)) + 1)
    have = wanted.copy()
    parts = []
    for grain in found:
        expected = scene.expected(grain.ub, grain.position, scene.hkl)
        branch, _ = scene.branch(grain.ub, grain.reflection, scene.spots.omega[grain.spots])
        ok = np.isin(expected.reflection * 2 + expected.branch, grain.reflection * 2 + branch)
        ring = rings[expected.reflection]
        wanted += np.bincount(ring, minlength=len(wanted))
        have += np.bincount(ring[ok], minlength=len(wanted))
        parts.append((ring, ok))
    seen = have >= _SEEN * np.maximum(wanted, 1)
    return np.array([float(ok[seen[ring]].mean()) if seen[ring].any() else 0.0 for ring, ok in parts])

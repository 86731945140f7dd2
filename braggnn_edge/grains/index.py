"""Find grains among spots: pairs of spots on low rings make orientations, which are judged by the spots they explain.

A spot of one ring and a spot of another at an angle that two reflections of the lattice have fix an orientation. Of the
orientations that share the first spot, the one that explains the most reflections of the low rings is refined, with its
position, by linear least squares. It becomes a grain if it is complete enough, and its spots are taken away. The most
complete grains are taken first.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from braggnn_edge.core.errors import UserError
from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.geometry import Floats, Index
from braggnn_edge.grains.match import Scene


@dataclass(frozen=True)
class IndexSpec:
    """When a set of spots is a grain.

    completeness: least share of the expected spots on the low rings that are found; least: spots of a grain;
    most: grains that are looked for, 0: all; patience: spots of a ring in a row that lead to no grain, after which the
    ring is left.
    """

    completeness: float = 0.5
    least: int = 12
    most: int = 0
    patience: int = 400

    def __post_init__(self) -> None:
        if not 0 < self.completeness <= 1:
            raise UserError(f"completeness {self.completeness}: expected a share above 0, at most 1")
        if self.least < 8:
            raise UserError(f"{self.least} spots of a grain: expected 8 or more; its fit has 12 parameters")


@dataclass(frozen=True)
class Seed:
    """A grain as the indexer knows it. ub: (3, 3) 1/angstrom; position: (3,) mm; completeness: on the low rings."""

    ub: Floats
    position: Floats
    completeness: float


#: Orientations with one spot in common that are compared.
_CANDIDATES = 100
#: Rings of which pairs are made, and pairs of rings that are tried at least.
_RINGS, _PAIRS = 6, 6
#: Further pairs of rings are tried until of so many orientations, drawn at random, all but this share show this many
#: pairs of spots: in a part of a turn a grain may show none of a ring of few reflections.
_DRAWN, _BLIND, _SHOWN = 64, 0.02, 16
#: A ring is too small to fix an orientation below this share of the farthest low ring. A vector that is off by a length
#: turns the grain by that length over its own, and the far reflections by as much more as they are longer.
_SMALL = 0.35
#: Cosine of five degrees: vectors that are closer to a line fix no orientation.
_PARALLEL = 0.996
#: The first time only grains as complete as this are taken.
_COMPLETE = 0.8


def index(scene: Scene, spec: IndexSpec) -> list[Seed]:
    """Grains (unrefined) in the order in which they are found."""
    found: list[Seed] = []
    usable = np.ones(len(scene.spots), bool)
    if len(scene.spots) < spec.least or not len(scene.low):
        return found
    known: dict[tuple[int, int], float] = {}  # how complete the grain of a spot was when it was last tried
    for level in sorted({max(_COMPLETE, spec.completeness), spec.completeness}, reverse=True):
        for number, pair in enumerate(_pairs_of_rings(scene)):
            search = _Search(scene, spec, pair)
            tree, failed = _tree(scene, usable), 0
            for spot in search.first_spots():
                before = known.get((number, spot))
                if not usable[spot] or (before is not None and before < level):
                    continue
                if failed >= spec.patience:
                    break
                seed, own = search.grain_with(spot, tree, usable)
                known[number, spot] = seed.completeness if seed else 0.0
                if seed is None or seed.completeness < level or len(own) < spec.least:
                    failed += 1
                    continue
                found.append(seed)
                if len(found) == spec.most:
                    return found
                usable[own] = False
                tree, failed = _tree(scene, usable), 0
    return found


def _tree(scene: Scene, usable: NDArray[np.bool_]) -> tuple[cKDTree, Index]:
    which = np.flatnonzero(usable)
    return cKDTree(scene.reciprocal[which]), which


def _pairs_of_rings(scene: Scene) -> list[tuple[int, int]]:
    """Pairs of low rings, those of few reflections first: few candidates, and bright spots.

    Left out are pairs whose reflections are all parallel, as 001 and 002 of a hexagonal lattice are, for they fix no
    orientation, and rings that are too small to fix a good one, unless there are no others.
    """
    lengths, ring = scene.rings
    low = np.unique(ring[scene.low])
    large = low[lengths[low] >= _SMALL * lengths[low].max()]
    size = np.bincount(ring)
    pairs: list[tuple[int, int]] = []
    for rings in (large[:_RINGS], low[:_RINGS]):
        pairs = [(int(a), int(b)) for a in rings for b in rings if _fixes(scene, int(a), int(b))]
        if pairs:
            break
    pairs.sort(key=lambda pair: (size[pair[0]] * size[pair[1]], pair))
    return pairs[: max(_PAIRS, _needed(scene, pairs))]


def _needed(scene: Scene, pairs: list[tuple[int, int]]) -> int:
    """How many of these pairs of rings, from the first, show enough pairs of spots of almost any grain."""
    number = scene.rings[1]
    which = np.flatnonzero(np.isin(number, [one for pair in pairs for one in pair]))
    parts = []
    for turn in Rotation.random(_DRAWN, random_state=0).as_matrix():
        seen = scene.expected(turn @ scene.lattice.b_matrix, np.zeros(3), scene.hkl[which])
        parts.append(np.bincount(number[which[seen.reflection]], minlength=int(number.max(initial=0)) + 1))
    shown = np.array(parts)
    count = np.zeros(_DRAWN)
    for place, (a, b) in enumerate(pairs, 1):
        count += shown[:, a] * (shown[:, b] - (a == b))
        if np.quantile(count, _BLIND) >= _SHOWN:
            return place
    return len(pairs)


def _fixes(scene: Scene, first: int, second: int) -> bool:
    """Whether two reflections of these rings fix an orientation."""
    one, two = (scene.hkl[scene.rings[1] == ring] @ scene.lattice.b_matrix.T for ring in (first, second))
    cosine = (one @ two.T) / (scene.rings[0][first] * scene.rings[0][second])
    return bool((np.abs(cosine) < _PARALLEL).any())


class _Search:
    """Grains with a spot on the first of two rings and another on the second."""

    def __init__(self, scene: Scene, spec: IndexSpec, pair: tuple[int, int]) -> None:
        self.scene, self.spec = scene, spec
        self.spots = [np.flatnonzero(scene.ring_of_spot == ring) for ring in pair]
        hkl = [scene.hkl[scene.rings[1] == ring] for ring in pair]
        self.frames, self.angles = _distinct(scene.lattice, hkl[0], hkl[1])
        lengths = scene.rings[0][list(pair)]
        # Two vectors that are off by the tolerance, one of them at random, change the angle by this much.
        self.width = 0.7 * scene.tolerance * float((1 / lengths).sum())

    def first_spots(self) -> Iterator[int]:
        """Spots of the first ring, the bright ones first."""
        brightness = np.nan_to_num(self.scene.spots.intensity[self.spots[0]], nan=-np.inf)
        yield from self.spots[0][np.argsort(-brightness, kind="stable")].tolist()

    def grain_with(
        self, spot: int, tree: tuple[cKDTree, Index], usable: NDArray[np.bool_]
    ) -> tuple[Seed | None, Index]:
        """The most complete grain that has this spot, and the spots that are its own."""
        scene = self.scene
        none = np.zeros(0, np.int64)
        partners = self.spots[1][usable[self.spots[1]]]
        first, second = scene.reciprocal[spot], scene.reciprocal[partners]
        cosine = second @ first / (np.linalg.norm(second, axis=1) * np.linalg.norm(first))
        angle = np.arccos(np.clip(cosine, -1, 1))
        off = np.abs(angle[:, None] - self.angles)
        which, kind = np.nonzero(off < self.width)
        if not len(which):
            return None, none
        best = np.argsort(off[which, kind], kind="stable")[:_CANDIDATES]
        turned = _frame(np.broadcast_to(first, (len(best), 3)), second[which[best]])
        rotations = turned @ np.swapaxes(self.frames[kind[best]], 1, 2)
        ubs = rotations @ scene.lattice.b_matrix
        low = scene.hkl[scene.low]
        predicted = np.einsum("cij,nj->cni", ubs, low)
        away, at = tree[0].query(predicted.reshape(-1, 3), distance_upper_bound=scene.tolerance)
        seen = np.isfinite(away).reshape(len(best), len(low))
        chosen = int(seen.sum(1).argmax())
        seen = seen[chosen]
        if seen.sum() < 8:
            return None, none
        spots = tree[1][at.reshape(len(best), len(low))[chosen][seen]]
        return improved(scene, spots, scene.low[seen], usable)


def improved(scene: Scene, spots: Index, reflection: Index, usable: NDArray[np.bool_]) -> tuple[Seed | None, Index]:
    """The grain that begins with these spots (k,) and their reflections, and the spots that are its own.

    By linear fits, first of the low rings, then of all spots that are usable (n,), with a tolerance that shrinks. None
    where fewer than 8 spots are left, or where their reflections lie in one plane, which fixes no cell.
    """
    position = np.zeros(3)
    low = np.zeros(len(scene.hkl), bool)
    low[scene.low] = True
    for share, all_rings in ((1.0, False), (0.7, True), (0.5, True), (0.35, True)):
        if np.linalg.matrix_rank(scene.hkl[reflection]) < 3:
            return None, spots
        ub, position = fitted(scene, spots, reflection)
        found, off = scene.assigned(ub, position, linear=True)
        ok = (found >= 0) & usable & (off < share * scene.tolerance)
        if not all_rings:
            ok &= low[found]
        spots, reflection = np.flatnonzero(ok), found[ok]
        if len(spots) < 8:
            return None, spots
    inner = low[reflection]
    completeness = scene.completeness(ub, position, spots[inner], reflection[inner], scene.low)
    return Seed(ub, position, completeness), spots


def fitted(scene: Scene, spots: Index, reflection: Index) -> tuple[Floats, Floats]:
    """UB and position by linear least squares from spots (k,) and their reflections.

    The position is held near the origin as the sample's size says, so that a few spots do not send it away.
    """
    hkl = scene.hkl[reflection].astype(float)
    count = len(spots)
    # UB hkl - shift @ position = the vector for a grain at the origin, three equations a spot.
    matrix = np.zeros((3 * count + 3, 12))
    for axis in range(3):
        matrix[axis : 3 * count : 3, 3 * axis : 3 * axis + 3] = hkl
    matrix[: 3 * count, 9:] = -scene.shift[spots].reshape(-1, 3)
    matrix[3 * count :, 9:] = np.eye(3) * scene.tolerance / scene.sample
    right = np.concatenate([scene.reciprocal[spots].ravel(), np.zeros(3)])
    solution = np.linalg.lstsq(matrix, right, rcond=None)[0]
    return solution[:9].reshape(3, 3), solution[9:]


def _frame(first: Floats, second: Floats) -> Floats:
    """(n, 3, 3): right-handed axes, in columns, with x along the first vectors and the second ones in the x-y plane."""
    x = first / np.linalg.norm(first, axis=-1, keepdims=True)
    z = np.cross(first, second)
    z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], -1)


def _distinct(lattice: Lattice, first: NDArray, second: NDArray) -> tuple[Floats, Floats]:
    """Frames (k, 3, 3) and angles (k,) of pairs of reflections of two rings that no symmetry makes the same."""
    frames: list[Floats] = []
    angles: list[float] = []
    for one in first @ lattice.b_matrix.T:
        others = second @ lattice.b_matrix.T
        cosine = others @ one / (np.linalg.norm(others, axis=1) * np.linalg.norm(one))
        apart = np.abs(cosine) < _PARALLEL
        for angle, frame in zip(
            np.arccos(cosine[apart]), _frame(np.broadcast_to(one, (int(apart.sum()), 3)), others[apart]), strict=True
        ):
            same = np.abs(np.array(angles) - angle) < 1e-6
            if same.any():
                turn = frame @ np.swapaxes(np.array(frames)[same], 1, 2)
                if (np.abs(turn[:, None] - lattice.symmetry).max((2, 3)).min(1) < 1e-6).any():
                    continue
            frames.append(frame)
            angles.append(float(angle))
    return np.array(frames).reshape(-1, 3, 3), np.array(angles)

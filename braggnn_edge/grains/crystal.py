"""Crystal lattices: cells, allowed reflections, rings, symmetry, and what a grain's matrix UB says.

The cell vectors are the columns of ``A``: a along x, b in the plane of x and y. Reciprocal vectors are the columns of
``B`` = inv(A).T, so that a grain with orientation U has its reflection hkl at U @ B @ hkl, in the sample's axes.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError

Floats = NDArray[np.float64]

#: Points of the cell beside its corners, by centring; R in hexagonal axes, obverse.
_CENTRES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "P": (),
    "A": ((0, 1 / 2, 1 / 2),),
    "B": ((1 / 2, 0, 1 / 2),),
    "C": ((1 / 2, 1 / 2, 0),),
    "I": ((1 / 2, 1 / 2, 1 / 2),),
    "F": ((0, 1 / 2, 1 / 2), (1 / 2, 0, 1 / 2), (1 / 2, 1 / 2, 0)),
    "R": ((2 / 3, 1 / 3, 1 / 3), (1 / 3, 2 / 3, 2 / 3)),
}
CENTRINGS = tuple(_CENTRES)
#: Relative differences of the metric below this are taken for none when the symmetry is found.
_SAME = 1e-3


@dataclass(frozen=True)
class Lattice:
    """A cell: a, b, c in angstrom, alpha, beta, gamma in degrees, and its centring."""

    cell: tuple[float, float, float, float, float, float]
    centring: str = "P"

    def __post_init__(self) -> None:
        if self.centring not in _CENTRES:
            raise UserError(f"centring {self.centring!r}: expected one of {', '.join(_CENTRES)}")
        angles = np.radians(self.cell[3:])
        if not all(0 < length < np.inf for length in self.cell[:3]) or not all(0 < a < np.pi for a in angles):
            raise UserError(f"lattice {self.cell}: expected three lengths in angstrom and three angles in degrees")
        if not _squared_volume(angles) > 1e-9:
            raise UserError(f"lattice {self.cell}: these angles make no cell; expected alpha, beta, gamma in degrees")

    @property
    def centres(self) -> tuple[tuple[float, float, float], ...]:
        """Points of the cell beside its corners, as shares of its edges."""
        return _CENTRES[self.centring]

    @cached_property
    def a_matrix(self) -> Floats:
        """(3, 3) angstrom: columns a, b, c."""
        a, b, c = self.cell[:3]
        alpha, beta, gamma = np.cos(np.radians(self.cell[3:]))
        sin = np.sqrt(1 - gamma**2)
        y = (alpha - beta * gamma) / sin
        z = np.sqrt(1 - beta**2 - y**2)
        return np.array([[a, b * gamma, c * beta], [0, b * sin, c * y], [0, 0, c * z]])

    @cached_property
    def b_matrix(self) -> Floats:
        """(3, 3) 1/angstrom: columns a*, b*, c*."""
        return np.asarray(np.linalg.inv(self.a_matrix).T, np.float64)

    @cached_property
    def symmetry(self) -> Floats:
        """(n, 3, 3) rotations that bring the lattice upon itself, in the axes of the cell; the identity is among them.

        It is found from the cell and its centring, so it is the highest that fits. Positions of spots know no lower
        one: they are the same for all Laue groups of a lattice.
        """
        metric = self.a_matrix.T @ self.a_matrix
        lengths = np.sqrt(np.diag(metric))
        rows = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
        pick = np.stack(np.meshgrid(*(np.arange(len(rows)),) * 3, indexing="ij"), -1).reshape(-1, 3)
        w = rows[pick]
        w = w[np.round(np.linalg.det(w)) == 1]
        change = np.abs(np.swapaxes(w, 1, 2) @ metric @ w - metric) / np.outer(lengths, lengths)
        w = w[change.max((1, 2)) <= _SAME]
        centres = np.array([(0.0, 0.0, 0.0), *_CENTRES[self.centring]])
        away = np.einsum("nij,cj->nci", w, centres)[:, :, None] - centres
        w = w[(np.abs(away - np.round(away)).max(3).min(2) < 1e-6).all(1)]
        u, _, v = np.linalg.svd(self.a_matrix @ w @ np.linalg.inv(self.a_matrix))
        return (u @ v).astype(np.float64)

    def allowed(self, hkl: NDArray) -> NDArray[np.bool_]:
        """(n,): whether the centring allows reflections (n, 3); 000 is none."""
        ok = (hkl != 0).any(-1)
        for centre in _CENTRES[self.centring]:
            phase = hkl @ np.array(centre)
            ok &= np.abs(phase - np.round(phase)) < 1e-3
        return ok

    def reflections(self, longest: float) -> NDArray[np.int64]:
        """(n, 3): all allowed hkl with reciprocal vectors up to ``longest``, 1/angstrom, the shortest first."""
        top = np.floor(longest * np.linalg.norm(self.a_matrix, axis=0)).astype(int)
        axes = np.meshgrid(*(np.arange(-n, n + 1) for n in top), indexing="ij")
        hkl = np.stack(axes, -1).reshape(-1, 3)
        length = np.linalg.norm(hkl @ self.b_matrix.T, axis=1)
        keep = self.allowed(hkl) & (length <= longest)
        return hkl[keep][np.argsort(length[keep], kind="stable")]

    def rings(self, hkl: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
        """Lengths of the rings, ascending, and the ring (n,) of each of reflections (n, 3)."""
        length = np.linalg.norm(hkl @ self.b_matrix.T, axis=1)
        order = np.argsort(length, kind="stable")
        new = np.diff(length[order], prepend=-1.0) > 1e-5 * length[order]
        ring = np.empty(len(hkl), np.int64)
        ring[order] = np.cumsum(new) - 1
        return length[order][new], ring

    def misorientation(self, first: Floats, second: Floats) -> Floats:
        """Angles in degrees, (...), between orientations (..., 3, 3) and (3, 3), the smallest over the symmetry."""
        between = np.swapaxes(first, -1, -2) @ second
        trace = np.einsum("...ij,nji->...n", between, self.symmetry).max(-1)
        # Half the angle by its sine: the cosine of a small angle has lost its digits.
        return np.degrees(2 * np.arcsin(np.sqrt(np.clip((3 - trace) / 4, 0, 1))))

    def orientation_and_strain(self, ub: Floats) -> tuple[Floats, Floats]:
        """The rotation U (3, 3) and the strain (3, 3), in the sample's axes, of a grain with the matrix UB.

        The grain's cell vectors are V U A with a symmetric V (polar decomposition); the strain is V - 1.
        """
        stretch = np.linalg.inv(ub).T @ self.b_matrix.T
        w, s, v = np.linalg.svd(stretch)
        return w @ v, w @ np.diag(s) @ w.T - np.eye(3)


def _squared_volume(angles: Floats) -> float:
    """Of a cell with edges of length 1."""
    cosine = np.cos(angles)
    return float(1 - np.square(cosine).sum() + 2 * cosine.prod())


def lattice_of(values: Sequence[float], centring: str) -> Lattice:
    """The lattice of an option: a of a cubic cell; a, b, c with right angles; or all six numbers."""
    if len(values) == 1:
        return Lattice((values[0],) * 3 + (90.0,) * 3, centring)
    if len(values) == 3:
        return Lattice((*values, 90.0, 90.0, 90.0), centring)  # type: ignore[arg-type]
    if len(values) == 6:
        return Lattice(tuple(values), centring)  # type: ignore[arg-type]
    raise UserError(
        f"--lattice {' '.join(map(str, values))}: expected a (cubic), a b c (right angles), or a b c alpha beta gamma"
    )

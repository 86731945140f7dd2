"""Which reflection of which grain a spot may be, and how complete a grain is."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.forward import NEAR_AXIS, Expected, covered, spots_of
from braggnn_edge.grains.geometry import Floats, Index, Instrument
from braggnn_edge.grains.spots import Spots

#: Reflections in the lowest rings that are seen: enough to tell a grain from chance, and bright.
_LOW = 60
#: A ring is well seen where its spots for each reflection are this share of those of a good ring, of the first ones.
_WELL, _FIRST = 0.5, 40
#: The omega of a spot in so few frames may be off by half a frame, that of one in more by the share after it.
_FEW_FRAMES, _SURE_FRAMES = 2, 0.1
#: Pixels by which a spot may be off, beside what the sample's size does.
_OFF = 1.5


@dataclass(frozen=True)
class Scene:
    """Spots with what is known of all of them. sample: mm, farthest a grain may be from the origin."""

    instrument: Instrument
    spots: Spots
    lattice: Lattice
    sample: float

    @cached_property
    def xyz(self) -> Floats:
        """(n, 3) mm of the spots in the laboratory."""
        return self.instrument.laboratory(self.spots.panel, self.spots.row, self.spots.col)

    @cached_property
    def reciprocal(self) -> Floats:
        """(n, 3) of the spots, for a grain at the origin."""
        return self.instrument.reciprocal(self.xyz, self.spots.omega, np.zeros(3))

    @cached_property
    def tolerance(self) -> float:
        """1/angstrom by which a reciprocal vector may be off, for a grain at the origin.

        A place on the sample, or on the detector, turns the scattered ray by its share of the distance; a frame of the
        scan turns a reflection of an ordinary ring, taken as 1/2 per angstrom.
        """
        pixel = max(panel.pixel for panel in self.instrument.panels)
        ray = (self.sample + _OFF * pixel) / (self.instrument.wavelength * self.instrument.distance)
        return ray + 0.5 * self.spots.step * 0.5

    @cached_property
    def hkl(self) -> NDArray[np.int64]:
        """(m, 3) reflections up to the farthest spot."""
        longest = float(np.linalg.norm(self.reciprocal, axis=1).max(initial=0.0))
        return self.lattice.reflections(longest + self.tolerance)

    @cached_property
    def rings(self) -> tuple[Floats, Index]:
        """Lengths of the rings, and the ring of each reflection."""
        return self.lattice.rings(self.hkl)

    @cached_property
    def ring_of_spot(self) -> Index:
        """(n,): the nearest ring, -1 where a spot is off all of them."""
        lengths = self.rings[0]
        own = np.linalg.norm(self.reciprocal, axis=1)
        if not len(lengths):
            return np.full(len(own), -1)
        after = np.clip(np.searchsorted(lengths, own), 1, max(len(lengths) - 1, 1))
        after = np.minimum(after, len(lengths) - 1)
        near = np.where(own - lengths[after - 1] < lengths[after] - own, after - 1, after)
        return np.where(np.abs(own - lengths[near]) <= self.tolerance, near, -1)

    @cached_property
    def low(self) -> Index:
        """Numbers of the reflections in the lowest rings that are well seen.

        Rings that the structure forbids, or whose spots are saturated and were left out, have few spots for the number
        of their reflections; they would make every grain look incomplete.
        """
        sizes = np.bincount(self.rings[1], minlength=len(self.rings[0]))[:_FIRST]
        spots = np.bincount(self.ring_of_spot[self.ring_of_spot >= 0], minlength=len(sizes))[: len(sizes)]
        if not spots.any():
            return np.zeros(0, np.int64)
        each = spots / sizes
        seen = np.flatnonzero(each >= _WELL * np.quantile(each[each > 0], 0.75))
        wanted = seen[: int(np.searchsorted(np.cumsum(sizes[seen]), _LOW)) + 1]
        return np.flatnonzero(np.isin(self.rings[1], wanted))

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Number of a reflection by its hkl, -1 for none, in a box with an empty border."""
        half = np.abs(self.hkl).max(0, initial=0) + 1
        table = np.full(2 * half + 1, -1)
        table[tuple((self.hkl + half).T)] = np.arange(len(self.hkl))
        return half, table

    def assigned(self, ub: Floats, position: Floats, linear: bool = False) -> tuple[Index, Floats]:
        """Of each spot (n,) its reflection, if it is of this grain (-1: none), and how far it is off, 1/angstrom.

        A turn about the axis of rotation by what omega is not known to does not count as off: with wide frames it is
        more than all else, and spots that were left out for it would hold the grain where it stands. linear: by the
        change of :meth:`Instrument.shift`, which is quicker, and exact to second order.
        """
        if linear:
            vectors = self.reciprocal + self.shift @ position
        else:
            vectors = self.instrument.reciprocal(self.xyz, self.spots.omega, position)
        index: Index = np.nan_to_num(np.round(vectors @ np.linalg.inv(ub).T)).astype(np.int64)
        off = vectors - index @ ub.T
        across_x, across_y, free = self._turning
        along = off[:, 0] * across_x + off[:, 1] * across_y
        rest = np.maximum(np.abs(along) - free, 0)
        squared = np.einsum("ij,ij->i", off, off) - np.square(along) + np.square(rest)
        return self.number_of(index), np.sqrt(np.maximum(squared, 0))

    @cached_property
    def _turning(self) -> tuple[Floats, Floats, Floats]:
        """Unit vectors, x and y (n,), along which a turn of the sample moves the vectors, and by how much omega may."""
        x, y, _ = self.reciprocal.T
        length = np.maximum(np.hypot(x, y), 1e-12)
        frames = np.where(self.spots.frames <= _FEW_FRAMES, 0.5, _SURE_FRAMES)
        return -y / length, x / length, length * frames * self.spots.step

    def number_of(self, hkl: NDArray[np.int64]) -> Index:
        """(n,): numbers of reflections (n, 3), -1 for those that are not among them."""
        half, table = self._table
        return table[tuple((np.clip(hkl, -half, half) + half).T)]

    @cached_property
    def shift(self) -> Floats:
        """(n, 3, 3): see :meth:`Instrument.shift`."""
        return self.instrument.shift(self.xyz, self.spots.omega)

    def expected(self, ub: Floats, position: Floats, hkl: NDArray) -> Expected:
        """The spots of a grain that the scan covers."""
        found = spots_of(self.instrument, ub, position, hkl)
        inside = covered(found.omega, self.spots.ranges)
        return Expected(*(getattr(found, name)[inside] for name in found.__dataclass_fields__))

    def branch(self, ub: Floats, reflection: Index, omega: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Which of the two omegas of their reflections (k,) is that of spots at omega (k,); and whether they are far
        enough from the axis of rotation."""
        vectors = self.hkl[reflection] @ ub.T
        two = self.instrument.omegas(vectors)
        away = np.abs((two - omega[:, None] + np.pi) % (2 * np.pi) - np.pi)
        with np.errstate(invalid="ignore"):
            second = (away[:, 1] < away[:, 0]).astype(np.int64)
        return second, self.instrument.lorentz(vectors, omega) >= NEAR_AXIS

    def completeness(self, ub: Floats, position: Floats, spots: Index, reflection: Index, of: Index) -> float:
        """Share of the expected spots of the reflections ``of`` that are among spots (k,) with these reflections."""
        expected = self.expected(ub, position, self.hkl[of])
        if not len(expected.row):
            return 0.0
        branch, _ = self.branch(ub, reflection, self.spots.omega[spots])
        wanted = of[expected.reflection] * 2 + expected.branch
        return float(np.isin(wanted, reflection * 2 + branch).mean())

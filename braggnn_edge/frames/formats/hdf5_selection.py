"""Selections of HDF5 data spaces as index arrays, and how much of a data set several of them cover together."""

from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError

#: A box of elements: along each axis the indices (n,) in ascending order; the box is their product.
Box = tuple[NDArray[np.intp], ...]

_UNLIMITED = h5py.h5s.UNLIMITED


def unlimited_axis(space: h5py.h5s.SpaceID) -> int | None:
    """The axis along which a selection has no end; None where it has one."""
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return None
    _, _, count, block = space.get_regular_hyperslab()
    return next((i for i, pair in enumerate(zip(count, block, strict=True)) if _UNLIMITED in pair), None)


def selected(space: h5py.h5s.SpaceID, shape: tuple[int, ...], along: int | None = None) -> list[Box]:
    """The boxes that a selection consists of, in order.

    shape: of the data set, for a selection of all of it, and the end along an axis without one. along: instead of that
    end, so many indices along the axis without one. Raises UserError for a selection of points.
    """
    kind = space.get_select_type()
    if kind == h5py.h5s.SEL_ALL:
        return [tuple(np.arange(size) for size in shape)]
    if kind == h5py.h5s.SEL_NONE:
        return []
    if kind != h5py.h5s.SEL_HYPERSLABS:
        raise UserError("a selection of single points is not supported; expected hyperslabs")
    if space.is_regular_hyperslab():
        start, stride, count, block = space.get_regular_hyperslab()
        axes = zip(start, stride, count, block, shape, strict=True)
        return [tuple(_indices(a, step, n, size, end, along) for a, step, n, size, end in axes)]
    corners = space.get_select_hyper_blocklist()
    return [tuple(np.arange(a, b + 1) for a, b in zip(first, last, strict=True)) for first, last in corners]


def _indices(start: int, stride: int, count: int, block: int, end: int, along: int | None) -> NDArray[np.intp]:
    if _UNLIMITED not in (count, block):
        return (start + stride * np.arange(count)[:, None] + np.arange(block)).reshape(-1)
    if block == _UNLIMITED:
        return start + np.arange(max(0, end - start) if along is None else along)
    wanted = max(0, end - start) if along is None else along
    found = (start + stride * np.arange(-(-wanted // block))[:, None] + np.arange(block)).reshape(-1)
    return found[found < end] if along is None else found[:along]


def volume(boxes: list[Box]) -> int:
    """The number of elements in boxes."""
    return sum(int(np.prod([len(index) for index in box], dtype=np.int64)) for box in boxes)


@dataclass(frozen=True)
class Missing:
    """What a :class:`Cover` lacks.

    first: the first index along its axis that is not covered whole; elements: how many lack there; number: of such
    indices; everywhere: where elements lack, over the other axes, if that is the same at every index.
    """

    first: int
    elements: int
    number: int
    everywhere: NDArray[np.bool_] | None


class Cover:
    """Which elements of a data set of ``shape`` are in one of the boxes that were added."""

    def __init__(self, shape: tuple[int, ...], axis: int) -> None:
        self.shape, self.axis = shape, axis
        # By what a box has along all axes but ``axis`` (bytes of the indices): these, and where along ``axis`` it is.
        self._parts: dict[bytes, tuple[Box, NDArray[np.bool_]]] = {}

    def add(self, box: Box) -> None:
        """One more box; what lies outside the shape does not count."""
        inside = tuple(index[index < size] for index, size in zip(box, self.shape, strict=True))
        others = tuple(index for i, index in enumerate(inside) if i != self.axis)
        key = b"|".join(index.tobytes() for index in others)
        _, along = self._parts.setdefault(key, (others, np.zeros(self.shape[self.axis], bool)))
        along[inside[self.axis]] = True

    def missing(self) -> "Missing | None":
        """What is not covered; None where everything is."""
        rest = tuple(size for i, size in enumerate(self.shape) if i != self.axis)
        whole = np.zeros(self.shape[self.axis], bool)
        for box, along in self._parts.values():
            if all(len(index) == size for index, size in zip(box, rest, strict=True)):
                whole |= along
        open_ones = np.flatnonzero(~whole)
        if not open_ones.size:
            return None
        parts = [part for part in self._parts.values() if part[1].any()]
        patterns = np.array([along[open_ones] for _, along in parts], bool).reshape(len(parts), -1)
        unique, inverse = np.unique(patterns, axis=1, return_inverse=True)
        lacking = np.zeros(unique.shape[1], np.int64)
        seen = np.zeros(rest, bool)
        for column in range(unique.shape[1]):
            seen = np.zeros(rest, bool)
            for (box, _), used in zip(parts, unique[:, column], strict=True):
                if used:
                    seen[np.ix_(*box) if box else ()] = True
            lacking[column] = seen.size - np.count_nonzero(seen)
        bad = lacking[inverse.reshape(-1)] > 0
        if not bad.any():
            return None
        index = int(bad.argmax())
        alike = unique.shape[1] == 1 and len(open_ones) == len(whole)
        return Missing(
            int(open_ones[index]), int(lacking[inverse.reshape(-1)[index]]), int(bad.sum()), ~seen if alike else None
        )


def corresponding(target: list[Box], source: list[Box], axis: int, along: int) -> tuple[NDArray[np.intp], ...] | None:
    """Indices along ``axis`` of a mapping's place and those along ``along`` of its source that go there, pairwise.

    None where a mapping is not made of whole slices in the same order.
    """
    if len(target) != 1 or len(source) != 1:
        return None
    if not source[0]:
        return None
    to, of = target[0][axis], source[0][along]
    if len(to) == len(of):
        return to, of
    return None


def all_indices(boxes: list[Box], axis: int) -> NDArray[np.intp]:
    """Every index along ``axis`` that occurs in the boxes."""
    return np.unique(np.concatenate([box[axis] for box in boxes])) if boxes else np.zeros(0, np.intp)

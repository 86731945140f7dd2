"""Frames that are stored as lists of pixels: one list as an image, and such lists one after another in HDF5."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import BadFrame
from braggnn_edge.frames.formats.hdf5_complete import unwritten
from braggnn_edge.frames.formats.hdf5_tree import find_dataset, open_hdf5


def dense(
    where: str, row: np.ndarray, col: np.ndarray, values: np.ndarray, size: tuple[int, int], dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """The image (rows, cols) of ``dtype`` with these pixels, each (n,), and zeros elsewhere; and their flat indices,
    ascending, each once.

    A pixel that is listed several times holds the sum. Raises BadFrame, which ``where`` begins, for lists of different
    lengths, indices that are no integers or lie outside, and values that the type cannot hold.
    """
    if not row.shape == col.shape == values.shape or row.ndim != 1:
        raise BadFrame(
            f"{where}: row, col, data have shapes {row.shape}, {col.shape}, {values.shape}; expected equal 1-D"
        )
    # Of these zeros the system gives memory to the pages alone that hold a pixel of the list.
    image = np.zeros(size, dtype)
    if not row.size:
        return image, np.empty(0, np.int64)
    held = values.astype(dtype) if values.dtype.kind in "buif" else values
    fits = np.can_cast(values.dtype, dtype) or (values.dtype.kind in "buif" and np.array_equal(held, values))
    if row.dtype.kind not in "ui" or col.dtype.kind not in "ui" or not fits:
        raise BadFrame(
            f"{where}: row, col, data are {row.dtype}, {col.dtype}, {values.dtype}; expected integer indices and "
            f"data that fit {dtype}"
        )
    if row.min() < 0 or row.max() >= size[0] or col.min() < 0 or col.max() >= size[1]:
        raise BadFrame(f"{where}: holds pixels outside the panel of {size[0]} x {size[1]}; the file is damaged")
    place = row.astype(np.int64) * size[1] + col.astype(np.int64)
    stored = place if (np.diff(place) > 0).all() else np.unique(place)
    if len(stored) == len(place):
        image.reshape(-1)[place] = held
    else:
        np.add.at(image.reshape(-1), place, held)
    return image, stored


@dataclass(frozen=True)
class Column:
    """A list in an HDF5 file: a data set (n,), or a column of one (n, columns)."""

    dataset: str
    index: int | None = None

    def read(self, path: Path, file: h5py.File, start: int, stop: int) -> np.ndarray:
        """Entries start .. stop - 1."""
        data = find_dataset(path, file, self.dataset)
        return data[start:stop] if self.index is None else data[start:stop, self.index]


@dataclass(frozen=True)
class SparseFrames:
    """Frames (frames, rows, cols) of lists of pixels in HDF5; a frame is dense only while it is being yielded.

    columns: row, col and value of every pixel; first, last: (frames,) where the pixels of each begin and end in them.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    columns: tuple[Column, Column, Column]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    omega: np.ndarray | None = None
    bad: frozenset[int] = frozenset()

    def file_of(self, index: int) -> Path:
        """The file, whatever links it follows."""
        return self.path

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start .. stop - 1; one dense frame in memory. Raises BadFrame for one that cannot be decoded."""
        return (frame for frame, _ in self.read_stored(start, stop))

    def read_stored(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """:meth:`read`, each frame with the flat indices of its stored pixels, ascending; the others are 0."""
        with open_hdf5(self.path) as file:
            for index in range(start, stop):
                where = f"{self.path}: frame {index}"
                if index in self.bad:
                    raise BadFrame(f"{where}: some of its pixels were declared but never written")
                low, high = int(self.first[index]), int(self.last[index])
                try:
                    row, col, values = (column.read(self.path, file, low, high) for column in self.columns)
                except OSError as error:
                    raise BadFrame(f"{where}: its pixels cannot be read ({error}); the file is damaged") from error
                yield dense(where, row, col, values, (self.shape[1], self.shape[2]), self.dtype)


def checked(path: Path, file: h5py.File, frames: SparseFrames) -> SparseFrames:
    """The frames with those named that have pixels that were never written.

    Raises UserError where lists are shorter than the frames need, or something behind a virtual list is missing.
    """
    bad: set[int] = set()
    for column in frames.columns:
        data = find_dataset(path, file, column.dataset)
        where = f"{path}: {column.dataset!r}"
        if data.ndim != (1 if column.index is None else 2):
            raise UserError(f"{where} has shape {data.shape}; expected one entry for each pixel")
        if (frames.first > frames.last).any() or frames.first.min() < 0 or frames.last.max() > data.shape[0]:
            raise UserError(
                f"{where} has {data.shape[0]} entries, but the frames need {frames.last.max()}; the file is incomplete"
            )
        missing = unwritten(where, data)
        if missing.any():
            holes = np.concatenate([[0], np.cumsum(missing)])
            bad |= set(np.flatnonzero(holes[frames.last] > holes[frames.first]).tolist())
    return SparseFrames(
        path, frames.shape, frames.dtype, frames.columns, frames.first, frames.last, frames.omega, frozenset(bad)
    )

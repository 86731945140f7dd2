"""HEXRD's sparse frame cache: an npz with ``{i}_row``, ``{i}_col``, ``{i}_data`` for frame i, or an HDF5 file.

Beside them the npz has ``shape`` (rows, cols), ``nframes``, ``dtype`` and usually ``omega`` (frames, 2) in degrees.
Pixels that are not stored are zero (the cache keeps those above a threshold). Members are read one frame at a time. The
HDF5 file is read by :mod:`braggnn_edge.frames.formats.hexrd_h5`.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.turns import READING
from braggnn_edge.frames.formats import BadFrame, FrameSource, check_file, check_layout
from braggnn_edge.frames.formats.hdf5_tree import native
from braggnn_edge.frames.formats.hexrd_h5 import open_h5
from braggnn_edge.frames.formats.sparse import dense

#: What numpy and zipfile raise for a damaged member; NotImplementedError: of a compression they do not know.
_DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


@dataclass(frozen=True)
class HexrdFrames:
    """Frames (frames, rows, cols) of one cache; a frame is dense only while it is being yielded."""

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    omega: np.ndarray | None

    def file_of(self, index: int) -> Path:
        """The cache."""
        return self.path

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start .. stop - 1; one dense frame in memory. Raises BadFrame for one that cannot be decoded."""
        return (frame for frame, _ in self.read_stored(start, stop))

    def read_stored(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """:meth:`read`, each frame with the flat indices of its stored pixels, ascending; the others are 0."""
        with _open(self.path) as cache:
            for index in range(start, stop):
                yield self._frame(cache, index)

    def _frame(self, cache: np.lib.npyio.NpzFile, index: int) -> tuple[np.ndarray, np.ndarray]:
        where = f"{self.path}: frame {index}"
        try:
            row, col, data = (_member(self.path, cache, f"{index}_{part}") for part in ("row", "col", "data"))
        except UserError as error:
            raise BadFrame(str(error)) from error
        return dense(where, row, col, data, (self.shape[1], self.shape[2]), self.dtype)


def open_frames(path: Path, dataset: str | None) -> FrameSource:
    """The frame cache at ``path``; it has no data sets, so ``dataset`` must be None."""
    if dataset is not None:
        raise UserError(f"{path}: the hexrd format has no data sets; leave out dataset = {dataset!r}")
    check_file(path)
    if h5py.is_hdf5(path):
        return open_h5(path)
    with _open(path) as cache:
        missing = [key for key in ("shape", "nframes", "dtype") if key not in cache]
        if missing:
            raise UserError(f"{path}: has no {', '.join(missing)}; expected a HEXRD frame cache (npz)")
        try:
            size = tuple(int(n) for n in np.atleast_1d(_member(path, cache, "shape")))
            count = int(_member(path, cache, "nframes"))
            name = _member(path, cache, "dtype").item()
            dtype = np.dtype(name.decode() if isinstance(name, bytes) else name)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: shape, nframes or dtype of the frame cache is malformed ({error})") from error
        shape = check_layout(f"{path}: frame cache", (count, *size), dtype)
        for index in (0, count - 1):
            if f"{index}_data" not in cache:
                raise UserError(f"{path}: says {count} frames but has no entry {index}_data; the cache is incomplete")
        return HexrdFrames(path, shape, native(dtype), _omega(path, cache))


def _omega(path: Path, cache: np.lib.npyio.NpzFile) -> np.ndarray | None:
    """The rotation as the cache has it; None where it is missing, or objects such as None stand in its place."""
    if "omega" not in cache:
        return None
    try:
        with READING:
            omega = cache["omega"]
    except ValueError:  # objects, which are not read
        return None
    except _DAMAGED as error:
        raise UserError(f"{path}: entry 'omega' cannot be read ({error}); the cache is damaged") from error
    if omega.dtype.kind not in "uif" or (omega.dtype.kind == "f" and np.isnan(omega).all()):
        return None
    return omega.astype(np.float64)


@contextmanager
def _open(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    check_file(path)
    # The stream is ours, since np.load leaves its own open when the file is damaged.
    with path.open("rb") as stream:
        try:
            with READING:
                cache = np.load(stream, allow_pickle=False)
        except _DAMAGED as error:
            raise UserError(
                f"{path}: is not a readable npz file, or is truncated ({error}); copy it again, or correct its path"
            ) from error
        if not isinstance(cache, np.lib.npyio.NpzFile):
            raise UserError(f"{path}: holds one array; expected a HEXRD frame cache (npz)")
        with cache:
            yield cache


def _member(path: Path, cache: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        with READING:
            return cache[name]
    except _DAMAGED as error:
        raise UserError(f"{path}: entry {name!r} is missing or cannot be read ({error})") from error

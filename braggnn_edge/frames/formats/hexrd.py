"""HEXRD's sparse frame cache: an npz with ``{i}_row``, ``{i}_col``, ``{i}_data`` for frame i.

Beside them ``shape`` (rows, cols), ``nframes``, ``dtype`` and usually ``omega`` (frames, 2) in degrees. Pixels that
are not stored are zero (the cache keeps those above a threshold). Members are read one frame at a time.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import BadFrame, check_file, check_layout

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
        with _open(self.path) as cache:
            for index in range(start, stop):
                yield self._frame(cache, index)

    def _frame(self, cache: np.lib.npyio.NpzFile, index: int) -> np.ndarray:
        where = f"{self.path}: frame {index}"
        try:
            row, col, data = (_member(self.path, cache, f"{index}_{part}") for part in ("row", "col", "data"))
        except UserError as error:
            raise BadFrame(str(error)) from error
        if not row.shape == col.shape == data.shape or row.ndim != 1:
            raise BadFrame(
                f"{where}: row, col, data have shapes {row.shape}, {col.shape}, {data.shape}; expected equal 1-D"
            )
        if row.dtype.kind not in "ui" or col.dtype.kind not in "ui" or not np.can_cast(data.dtype, self.dtype):
            raise BadFrame(
                f"{where}: row, col, data are {row.dtype}, {col.dtype}, {data.dtype}; expected integer indices and "
                f"data that fit {self.dtype}"
            )
        _, rows, cols = self.shape
        if row.size and (row.min() < 0 or row.max() >= rows or col.min() < 0 or col.max() >= cols):
            raise BadFrame(f"{where}: holds pixels outside the panel of {rows} x {cols}; the cache is damaged")
        frame = np.zeros((rows, cols), self.dtype)
        frame[row, col] = data
        return frame


def open_frames(path: Path, dataset: str | None) -> HexrdFrames:
    """The frame cache at ``path``; it has no data sets, so ``dataset`` must be None."""
    if dataset is not None:
        raise UserError(f"{path}: the hexrd format has no data sets; leave out dataset = {dataset!r}")
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
        omega = _member(path, cache, "omega") if "omega" in cache else None
        if omega is not None and (omega.shape != (count, 2) or omega.dtype.kind != "f"):
            raise UserError(f"{path}: omega has shape {omega.shape}; expected ({count}, 2) in degrees")
        return HexrdFrames(path, shape, dtype, omega)


@contextmanager
def _open(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    check_file(path)
    # The stream is ours, since np.load leaves its own open when the file is damaged.
    with path.open("rb") as stream:
        try:
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
        return cache[name]
    except _DAMAGED as error:
        raise UserError(f"{path}: entry {name!r} is missing or cannot be read ({error})") from error

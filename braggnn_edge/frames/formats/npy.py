"""An image or a stack of images in a npy file, for darks and masks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.turns import READING
from braggnn_edge.frames.formats.hdf5_tree import native


@dataclass(frozen=True)
class NpyFrames:
    """Images (frames, rows, cols) of an array in a file; one is in memory."""

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    omega: np.ndarray | None = None

    @classmethod
    def open(cls, role: str, path: Path) -> "NpyFrames":
        """The array (rows, cols), or (frames, rows, cols); UserError for a file that is damaged or holds others."""
        data = _mapped(role, path)
        if data.ndim not in (2, 3):
            raise UserError(f"{role} {path}: has shape {data.shape}; expected an image or a stack of images")
        frames, rows, cols = data.shape if data.ndim == 3 else (1, *data.shape)
        return cls(path, (frames, rows, cols), native(data.dtype))

    def file_of(self, index: int) -> Path:
        """The file."""
        return self.path

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Images start .. stop - 1."""
        data = _mapped("array", self.path).reshape(self.shape)
        for index in range(start, stop):
            yield np.array(data[index], self.dtype)


def _mapped(role: str, path: Path) -> np.ndarray:
    try:
        with READING:
            return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{role} {path}: is not a readable npy file ({error})") from error

"""Detector file formats. A new format is one new module here and one line in :data:`FORMATS`.

A format module offers ``open_frames(path, dataset) -> FrameSource``: it checks that the file is there and is of its
format, reads no more of it than that takes, and raises UserError with one message for a file that it cannot read. It
may offer ``files_of(path, dataset)``, the files behind ``path``, where that is not the one file.
"""

import glob
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from braggnn_edge.core.errors import UserError


class BadFrame(UserError):
    """One frame cannot be decoded or used; the frames after it may well be good."""


class FrameSource(Protocol):
    """Raw frames of one scan: what a format module returns. It holds no open file, so a process can be sent it.

    Sparse formats offer ``read_stored(start, stop)`` besides: as ``read``, each frame with the flat indices (n,) of its
    stored pixels, ascending; all others are 0. What looks for bright pixels need not look at these.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, rows, cols)."""

    @property
    def dtype(self) -> np.dtype:
        """Real number type of the frames: unsigned, signed or floating."""

    @property
    def omega(self) -> np.ndarray | None:
        """Rotation (frames, 2): start and end of each frame in degrees, unchecked; None where the file has none."""

    def file_of(self, index: int) -> Path:
        """The file that holds frame ``index``, for messages."""

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start .. stop - 1 in order, each (rows, cols), with at most one chunk in memory.

        Raises BadFrame at the first frame that cannot be decoded; reading may begin again behind it.
        """


FORMATS = {
    "braggnn": "braggnn_edge.frames.formats.braggnn",
    "hdf5": "braggnn_edge.frames.formats.hdf5",
    "hexrd": "braggnn_edge.frames.formats.hexrd",
    "imaged11": "braggnn_edge.frames.formats.imaged11",
    "images": "braggnn_edge.frames.formats.images",
}


def open_source(name: str, path: Path, dataset: str | None) -> FrameSource:
    """The frames of ``path`` read as format ``name``; UserError for an unknown name or an unreadable file."""
    if name not in FORMATS:
        raise UserError(f"scan format {name!r} is unknown; expected one of {', '.join(sorted(FORMATS))}")
    return import_module(FORMATS[name]).open_frames(path, dataset)


def files_of(name: str, path: Path, dataset: str | None) -> tuple[Path, ...]:
    """Every file that a scan is read from: those of a series, those behind links. ``path`` itself comes first."""
    module = import_module(FORMATS[name])
    return module.files_of(path, dataset) if hasattr(module, "files_of") else (path,)


def check_file(path: Path) -> None:
    """Refuse a path that is missing, not a file, or empty, and a link to a file that is missing."""
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path}: is a link to {path.readlink()}, which is not there; bring that file back")
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path{_of_pattern(path)}")
    if not path.is_file():
        raise UserError(f"{path}: is not a file; name the data file itself")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes); fetch or write it again")


def _of_pattern(path: Path) -> str:
    if not glob.has_magic(str(path)):
        return ""
    return (
        '. Patterns are for format = "images"; to read several HDF5 files as one scan, name the master file, or a file '
        "with a virtual data set, that joins them"
    )


def check_layout(where: str, shape: tuple[int, ...], dtype: np.dtype, kinds: str = "uif") -> tuple[int, int, int]:
    """Refuse frames that are not (frames, rows, cols) of real numbers; ``where`` names them.

    kinds: the kinds of numbers that are taken, as numpy's dtype.kind.
    """
    if dtype.kind not in kinds:
        raise UserError(f"{where}: frames of type {dtype} are not supported; expected integers or floats")
    if len(shape) != 3:
        raise UserError(f"{where}: has shape {shape}; expected three dimensions (frames, rows, cols)")
    if min(shape) < 1:
        raise UserError(f"{where}: has shape {shape}; expected at least one frame, one row and one column")
    return shape[0], shape[1], shape[2]

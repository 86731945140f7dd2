"""One image file, open: by its first bytes read as TIFF, as a stack of a GE detector, or with fabio.

What a library only logs, and any exception of it, becomes a :class:`BadFrame`.
"""

import contextlib
import copy
import io
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import fabio
import numpy as np
from fabio.edfimage import EdfImage

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import BadFrame
from braggnn_edge.frames.formats.packing import packed_as, unpacked
from braggnn_edge.frames.formats.raw_stack import GE_MAGIC, open_edf_stack, open_ge
from braggnn_edge.frames.formats.tiff import MAGIC as TIFF_MAGIC
from braggnn_edge.frames.formats.tiff import Tiff

_HDF5 = b"\x89HDF\r\n\x1a\n"
_CBF = b"###CBF"
_DTREK = b"{\nHEA"
_START = 64
_LOGS = ("fabio", "tifffile")


class ImageFile(Protocol):
    """An open file. ``frame`` may raise anything for one that cannot be decoded."""

    @property
    def nframes(self) -> int:
        """The number of frames that it says it has."""

    def frame(self, number: int) -> np.ndarray:
        """Frame ``number`` as the library returns it."""

    def headers(self) -> Iterator[dict[str, str]]:
        """The header of every frame, as far as there are any."""

    def close(self) -> None:
        """Close the file."""


class _Fabio:
    """A file as fabio reads it."""

    def __init__(self, image: fabio.fabioimage.FabioImage) -> None:
        self._image = image
        self.nframes = image.nframes

    def frame(self, number: int) -> np.ndarray:
        # A frame keeps its pixels once they are read, and a multi-frame EDF keeps its frames: the copy is let go.
        frame = copy.copy(self._image.get_frame(number))
        data = frame.data
        if data is None or getattr(frame, "incomplete_data", False):
            raise EOFError(f"frame {number} is incomplete; the file is cut off")
        return data

    def headers(self) -> Iterator[dict[str, str]]:
        for number in range(self.nframes):
            found = self._image.header if self.nframes == 1 else self._image.get_frame(number).header
            yield {str(key): str(value) for key, value in found.items()}

    def close(self) -> None:
        self._image.close()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[ImageFile]:
    """The file; BadFrame when no library can open it, UserError for an HDF5 file."""
    start = first_bytes(path, _START)
    if start.startswith(_HDF5):
        raise UserError(f'{path}: is an HDF5 file; read it with format = "hdf5"')
    with _strict(path):
        file = _open(path, start)
    try:
        yield file
    finally:
        file.close()


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a file's content, unpacked; BadFrame where it cannot be read."""
    try:
        with unpacked(path) as stream:
            return stream.read(count)
    except (OSError, EOFError) as error:
        raise BadFrame(f"{path}: is not a readable image, or is truncated ({error})") from error


def _open(path: Path, start: bytes) -> ImageFile:
    names = [suffix.lower() for suffix in path.suffixes]
    if start.startswith(TIFF_MAGIC):
        return Tiff(path)
    if start.startswith(GE_MAGIC):
        return open_ge(path)
    edf = start.lstrip().startswith(b"{") and not start.startswith(_DTREK)
    stack = open_edf_stack(path) if edf else None
    if stack is not None:
        return stack
    if start.startswith(_CBF) or ".cbf" in names:  # whole: fabio would read one that is cut off for ever
        return _Fabio(fabio.open(_content(path)))
    # fabio goes by names: an EDF that is called .ge is one of GE's to it, and it unpacks what is called .gz or .bz2.
    same = packed_as(path) == (path.suffix if path.suffix in (".gz", ".bz2") else "")
    source = str(path) if same else _content(path)
    return _Fabio(EdfImage().read(source) if edf else fabio.open(source))


def _content(path: Path) -> "_Finite":
    with unpacked(path) as stream:
        return _Finite(stream.read(), path)


def read_frame(path: Path, image: ImageFile, number: int) -> np.ndarray:
    """Frame ``number`` of an open file (rows, cols) in the machine's byte order.

    Raises BadFrame where it cannot be decoded, UserError where it has colours.
    """
    if number >= image.nframes:
        raise BadFrame(f"{path}: holds {image.nframes} frames, number {number} is missing; the file is cut off")
    with _strict(path):
        data = image.frame(number)
    if data.ndim != 2:
        raise UserError(
            f"{path}: holds pixels of {data.ndim} dimensions; expected two dimensions (rows, cols), no colours"
        )
    return np.asarray(data, data.dtype.newbyteorder("="))


class _Finite(io.BytesIO):
    """Says when there is no more: fabio reads a CBF that is cut off in its header for ever."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(content)
        self.name = str(path)
        self.lock = threading.Lock()  # fabio holds it while it reads a frame

    def __repr__(self) -> str:
        return self.name

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data and size is not None and size > 0 and ".cbf" in self.name.lower():
            raise EOFError("the file ends too early")
        return data


@contextlib.contextmanager
def _strict(path: Path) -> Iterator[None]:
    """Turn into BadFrame what a library raises (any exception) and the errors that it only logs.

    Pixels of a CBF whose checksum is wrong, or of an EDF that is cut off, are returned by fabio with no more than a
    log entry.
    """
    errors = _Errors(threading.get_ident())
    logs = [logging.getLogger(name) for name in _LOGS]
    propagate = [log.propagate for log in logs]
    for log in logs:
        log.addHandler(errors)
        log.propagate = False
    try:
        yield
    except Exception as error:
        reason = errors.messages[0] if errors.messages else f"{type(error).__name__}: {error}"
        raise BadFrame(f"{path}: is not a readable image, or is truncated ({reason})") from error
    finally:
        for log, before in zip(logs, propagate, strict=True):
            log.removeHandler(errors)
            log.propagate = before
    if errors.messages:
        raise BadFrame(f"{path}: is not a readable image, or is truncated ({errors.messages[0]})")


class _Errors(logging.Handler):
    """Keeps the errors that one thread logs."""

    def __init__(self, thread: int) -> None:
        super().__init__(logging.ERROR)
        self.thread, self.messages = thread, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.messages.append(record.getMessage())

"""Image files, read by fabio: CBF, EDF, TIFF, GE, MarCCD and what else it knows, by their content.

A scan is one file with all its frames, or a series of files (:mod:`braggnn_edge.frames.formats.series`). Files that end
in .gz or .bz2 are unpacked while they are read. One frame is in memory; a TIFF or GE file that is compressed as a whole
is unpacked in memory as a whole, since fabio must seek in it.
"""

import bz2
import contextlib
import copy
import gzip
import io
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import fabio
import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import BadFrame, check_layout
from braggnn_edge.frames.formats.series import COMPRESSED, series

_HDF5 = b"\x89HDF\r\n\x1a\n"
_CBF = b"###CBF"


@dataclass(frozen=True)
class ImageFrames:
    """Frames (frames, rows, cols) of image files that hold ``per_file`` frames each, the last one ``last``."""

    files: tuple[Path, ...]
    per_file: int
    last: int
    size: tuple[int, int]
    dtype: np.dtype
    omega: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, rows, cols)."""
        return ((len(self.files) - 1) * self.per_file + self.last, *self.size)

    def file_of(self, index: int) -> Path:
        """The file that holds frame ``index``."""
        return self.files[index // self.per_file]

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start .. stop - 1; one in memory.

        Raises BadFrame for one that cannot be decoded, UserError for a file that does not fit the first.
        """
        index = start
        while index < stop:
            number = index // self.per_file
            end = min(stop, (number + 1) * self.per_file)
            with _opened(self.files[number]) as image:
                self._check_count(number, image.nframes)
                while index < end:
                    frame = _frame(self.files[number], image, index - number * self.per_file)
                    self._check_frame(self.files[number], frame)
                    yield frame
                    index += 1

    def _check_count(self, number: int, count: int) -> None:
        expected = self.last if number == len(self.files) - 1 else self.per_file
        if count > expected:
            raise UserError(
                f"{self.files[number]}: holds {count} frames, {self.files[0].name} holds {self.per_file}; only the "
                "last file of a series may differ, by holding fewer"
            )

    def _check_frame(self, file: Path, frame: np.ndarray) -> None:
        if frame.shape != self.size or frame.dtype != self.dtype:
            raise UserError(
                f"{file}: its frame is {frame.dtype} {frame.shape}, but the scan began with {self.dtype} {self.size} "
                f"in {self.files[0].name}; give frames of one kind as one scan"
            )


def open_frames(path: Path, dataset: str | None, kinds: str = "uif") -> ImageFrames:
    """The frames of one file or of a series; image files have no data sets, so ``dataset`` must be None.

    Reads the first frame, and the last file's number of frames where files have several. A first file that is
    damaged does not hide the scan: the first frame that can be decoded tells the shape.
    """
    if dataset is not None:
        raise UserError(f"{path}: image files have no data sets; leave out dataset = {dataset!r}")
    files = series(path)
    first: BadFrame | None = None
    for file in files:
        try:
            with _opened(file) as image:
                count, frame = image.nframes, _frame(file, image, 0)
        except BadFrame as error:
            first = first or error
            continue
        _, rows, cols = check_layout(str(file), (count, *frame.shape), frame.dtype, kinds)
        last = count
        if count > 1 and files[-1] != file:
            with contextlib.suppress(BadFrame), _opened(files[-1]) as image:
                last = min(count, image.nframes)  # more is refused when it is read
        return ImageFrames(files, count, last, (rows, cols), frame.dtype)
    raise UserError(str(first))


def files_of(path: Path, dataset: str | None) -> tuple[Path, ...]:
    """The files of the scan; ``dataset`` is not used."""
    return series(path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[fabio.fabioimage.FabioImage]:
    """The file as fabio opens it; BadFrame when it cannot."""
    content = _cbf(path)
    with _strict(path):
        image = fabio.open(str(path) if content is None else content)
    try:
        yield image
    finally:
        image.close()


def _frame(path: Path, image: fabio.fabioimage.FabioImage, number: int) -> np.ndarray:
    """Frame ``number`` of an open file in the machine's byte order."""
    if number >= image.nframes:
        raise BadFrame(f"{path}: holds {image.nframes} frames, number {number} is missing; the file is cut off")
    with _strict(path):
        # A frame keeps its pixels once they are read, and a multi-frame EDF keeps its frames: the copy is let go.
        frame = copy.copy(image.get_frame(number))
        data = frame.data
    if data is None or getattr(frame, "incomplete_data", False):
        raise BadFrame(f"{path}: frame {number} of the file is incomplete; the file is cut off")
    if data.ndim != 2:
        raise UserError(f"{path}: holds pixels of shape {data.shape}; expected two dimensions (rows, cols), no colours")
    return np.asarray(data, data.dtype.newbyteorder("="))


def _unpacked(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return cast(BinaryIO, bz2.open(path, "rb")) if path.suffix == ".bz2" else path.open("rb")


def _cbf(path: Path) -> "_Finite | None":
    """The whole file when it is or is called a CBF, else None. Raises UserError for an HDF5 file."""
    try:
        with _unpacked(path) as stream:
            start = stream.read(len(_HDF5))
            cbf = start.startswith(_CBF) or ".cbf" in path.suffixes
            content = _Finite(start + stream.read(), path) if cbf else None
    except (OSError, EOFError) as error:
        raise BadFrame(f"{path}: is not a readable image, or is truncated ({error})") from error
    if start == _HDF5:
        raise UserError(f'{path}: is an HDF5 file; read it with format = "hdf5"')
    return content


class _Finite(io.BytesIO):
    """Says when there is no more: fabio reads a CBF that is cut off in its header for ever."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(content)
        self.name = str(path)

    def __repr__(self) -> str:
        return self.name

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data and size is not None and size > 0:
            raise EOFError("the file ends too early")
        return data


@contextlib.contextmanager
def _strict(path: Path) -> Iterator[None]:
    """Turn into BadFrame what fabio raises (any exception) and the errors that it only logs.

    Pixels of a CBF whose checksum is wrong, or of an EDF that is cut off, are returned by fabio with no more than a
    log entry. Its print of compressed TIFF files is kept from standard output.
    """
    log = logging.getLogger("fabio")
    errors = _Errors(threading.get_ident())
    propagate = log.propagate
    log.addHandler(errors)
    log.propagate = False
    quiet = contextlib.redirect_stdout(io.StringIO()) if path.suffix in COMPRESSED else contextlib.nullcontext()
    try:
        with quiet:
            yield
    except Exception as error:
        reason = errors.messages[0] if errors.messages else f"{type(error).__name__}: {error}"
        raise BadFrame(f"{path}: is not a readable image, or is truncated ({reason})") from error
    finally:
        log.removeHandler(errors)
        log.propagate = propagate
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

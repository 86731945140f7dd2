"""Image files: CBF, EDF, TIFF, GE, MarCCD and what else fabio knows, by their content.

A scan is one file with all its frames, or a series of files (:mod:`braggnn_edge.frames.formats.series`). Files that
are packed by gzip or bzip2 are unpacked while they are read. One frame is in memory; a TIFF file that is packed as a
whole is unpacked in memory as a whole, since its pages lie anywhere.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import BadFrame, check_layout
from braggnn_edge.frames.formats.angles import omega_of
from braggnn_edge.frames.formats.image_file import opened, read_frame
from braggnn_edge.frames.formats.series import series


@dataclass(frozen=True)
class ImageFrames:
    """Frames (frames, rows, cols) of image files that hold ``per_file`` frames each, the last one ``last``."""

    files: tuple[Path, ...]
    per_file: int
    last: int
    size: tuple[int, int]
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, rows, cols)."""
        return ((len(self.files) - 1) * self.per_file + self.last, *self.size)

    @property
    def omega(self) -> np.ndarray | None:
        """Rotation (frames, 2) as far as the headers say it; reads the headers of all files."""
        return omega_of(self.files, self.per_file, self.shape[0])

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
            with opened(self.files[number]) as image:
                self._check_count(number, image.nframes)
                while index < end:
                    frame = read_frame(self.files[number], image, index - number * self.per_file)
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
            with opened(file) as image:
                count, frame = image.nframes, read_frame(file, image, 0)
        except BadFrame as error:
            first = first or error
            continue
        _, rows, cols = check_layout(str(file), (count, *frame.shape), frame.dtype, kinds)
        last = count
        if count > 1 and files[-1] != file:
            with contextlib.suppress(BadFrame), opened(files[-1]) as image:
                last = min(count, image.nframes)  # more is refused when it is read
        return ImageFrames(files, count, last, (rows, cols), frame.dtype)
    raise UserError(str(first))


def files_of(path: Path, dataset: str | None) -> tuple[Path, ...]:
    """The files of the scan; ``dataset`` is not used."""
    return series(path)

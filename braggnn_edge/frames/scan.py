"""``Scan``: the frames of a measurement, one at a time, with dark and mask applied and bad pixels told apart."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.corrections import read_dark, read_mask
from braggnn_edge.frames.formats import BadFrame, FrameSource, open_source
from braggnn_edge.frames.formats.braggnn import read_peaks
from braggnn_edge.frames.omega import frame_omega
from braggnn_edge.frames.spec import Meaning

#: Called with the index of a frame that is left out, and the reason.
OnBad = Callable[[int, str], None]


@dataclass(frozen=True)
class Scan:
    """Frames of one file or series, read lazily. It holds no open file, so that it can be sent to another process.

    dark: (rows, cols) subtracted from every frame; mask: (rows, cols), True where a pixel is bad in every frame;
    negative_is_bad: raw pixels below zero are bad; maximum_is_bad: raw pixels at the largest value of an unsigned
    type are; peaks: labels that came with the scan (:func:`formats.braggnn.read_peaks`). Bad pixels are 0 in every
    frame, after the dark. omega: rotation (frames, 2), start and end of each frame in degrees, None where neither the
    file nor the caller says it; omega_remark: what is odd about it, one sentence, "" for nothing.
    """

    name: str
    source: FrameSource
    dark: np.ndarray | None = None
    mask: np.ndarray | None = None
    peaks: np.ndarray | None = None
    negative_is_bad: bool = False
    maximum_is_bad: bool = False
    omega: np.ndarray | None = None
    omega_remark: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, rows, cols)."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the frames that :meth:`frames` yields: the file's own, or with a dark int32 or float32."""
        if self.dark is None:
            return self.source.dtype
        floating = "f" in (self.source.dtype.kind, self.dark.dtype.kind)
        return np.dtype(np.float32 if floating else np.int32)

    def frames(
        self, start: int = 0, stop: int | None = None, on_bad: OnBad | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(index, frame (rows, cols)) for start <= index < stop: :meth:`frames_with_valid` without the third."""
        return ((index, frame) for index, frame, *_ in self.frames_with_stored(start, stop, on_bad))

    def frames_with_valid(
        self, start: int = 0, stop: int | None = None, on_bad: OnBad | None = None
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        """(index, frame (rows, cols), valid (rows, cols)): :meth:`frames_with_stored` without the fourth."""
        return ((index, frame, valid) for index, frame, valid, _ in self.frames_with_stored(start, stop, on_bad))

    def frames_with_stored(
        self, start: int = 0, stop: int | None = None, on_bad: OnBad | None = None
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray | None, np.ndarray | None]]:
        """(index, frame (rows, cols), valid (rows, cols), stored (n,)) for start <= index < stop, one chunk in memory
        at a time.

        valid: False where a pixel is bad, and then 0 in the frame; None when all are good. With a dark the difference
        is signed: int32 (clipped to its range where the file has wider integers), or float32 if either is floating.
        stored: flat indices, ascending, of the pixels that may differ from 0; None where the format does not say, and
        with a dark.

        A frame is bad when it cannot be decoded or holds NaN or infinity in a good pixel: BadFrame names scan, file
        and frame. With ``on_bad`` it is called with the index and that message, and the frame is left out. Raises
        UserError for a range outside the scan (at once) and for files that change shape or type, whatever ``on_bad``.
        """
        count = self.shape[0]
        stop = count if stop is None else stop
        if not 0 <= start <= stop <= count:
            raise UserError(f"frames {start} to {stop} of {self.name!r}: expected 0 <= start <= stop <= {count}")
        return self._frames(start, stop, on_bad)

    def frame(self, index: int) -> np.ndarray:
        """Frame ``index`` (rows, cols); reads whole chunks, so use :meth:`frames` for many."""
        if not 0 <= index < self.shape[0]:
            raise UserError(f"frame {index} of {self.name!r}: expected 0 to {self.shape[0] - 1}")
        return next(self._frames(index, index + 1, None))[1]

    def _read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        sparse = getattr(self.source, "read_stored", None)
        if sparse is not None and self.dark is None:
            return sparse(start, stop)
        return ((raw, None) for raw in self.source.read(start, stop))

    def _frames(
        self, start: int, stop: int, on_bad: OnBad | None
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray | None, np.ndarray | None]]:
        good = None if self.mask is None or not self.mask.any() else ~self.mask
        index, raw_frames = start, self._read(start, stop)
        while index < stop:
            try:
                raw, stored = next(raw_frames)
                valid = self._valid(raw, good, stored)
                frame = self._correct(index, raw, valid, stored)
            except BadFrame as error:
                message = f"scan {self.name!r}, frame {index}: {error}"
                if on_bad is None:
                    raise BadFrame(
                        f'{message}; repair it, or leave such frames out with on_bad_frame = "skip"'
                    ) from error
                on_bad(index, message)
                raw_frames = self._read(index + 1, stop)  # a generator that has raised is at its end
            else:
                yield index, frame, valid, stored
            index += 1

    def _valid(self, raw: np.ndarray, good: np.ndarray | None, stored: np.ndarray | None) -> np.ndarray | None:
        """The one place that decides which pixels of a frame are good; None for all."""
        values = raw if stored is None else raw.reshape(-1)[stored]  # a pixel that is not stored is 0, and not marked
        marked = None
        if self.negative_is_bad and raw.dtype.kind in "if":
            marked = values < 0
        elif self.maximum_is_bad and raw.dtype.kind == "u":
            marked = values == np.iinfo(raw.dtype).max
        if marked is None or not marked.any():
            return good
        if stored is None:
            return ~marked if good is None else good & ~marked
        valid = np.ones(raw.shape, bool) if good is None else good.copy()
        valid.reshape(-1)[stored[marked]] = False
        return valid

    def _correct(self, index: int, raw: np.ndarray, valid: np.ndarray | None, stored: np.ndarray | None) -> np.ndarray:
        frame = raw
        if self.dark is not None:
            if self.dtype.kind == "f":
                frame = raw.astype(np.float64) - self.dark
            else:
                limits = np.iinfo(np.int32)
                frame = np.clip(_signed(raw) - _signed(self.dark), limits.min, limits.max)
            frame = frame.astype(self.dtype)
        if stored is not None:  # a frame of our own, of which nothing but the stored pixels is looked at
            flat = frame.reshape(-1)
            if valid is not None:
                flat[stored[~valid.reshape(-1)[stored]]] = 0
            checked = flat[stored]
        else:
            if valid is not None:
                frame = np.where(valid, frame, frame.dtype.type(0))
            checked = frame
        if frame.dtype.kind == "f":
            bad = checked.size - int(np.isfinite(checked).sum())
            if bad:
                raise BadFrame(
                    f"{self.source.file_of(index)}: frame {index} holds {bad} pixels that are NaN or infinite; mask "
                    "them or repair it"
                )
        return frame


def _signed(image: np.ndarray) -> np.ndarray:
    """Integers as int64, clipped so that a difference of two fits as well."""
    if image.dtype.itemsize < 8:
        return image.astype(np.int64)
    return np.clip(image, None if image.dtype.kind == "u" else -(2**62), 2**62).astype(np.int64)


def open_scan(
    format: str,
    path: str | Path,
    *,
    name: str | None = None,
    dataset: str | None = None,
    dark: str | Path | None = None,
    mask: str | Path | None = None,
    peaks: str | Path | None = None,
    negative: Meaning = "auto",
    overflow_value: Meaning = "auto",
    omega_start: float | None = None,
    omega_step: float | None = None,
) -> Scan:
    """Open the scan ``path`` of a registered format (:data:`braggnn_edge.frames.formats.FORMATS`) without reading its
    frames.

    name: of the scan in messages, by default the file's; dataset: path of the 3-D data set inside an HDF5 file; dark
    and mask: 2-D images, ``file.npy``, an image file, ``file.h5`` with one data set that fits, or ``file.h5:data/set``;
    of a stack of darks the median is taken; a mask is bool or 0 / 1, true where a pixel is bad, or a NeXus
    ``pixel_mask``, where every bit says why it is bad (:mod:`braggnn_edge.frames.corrections`); peaks: a peaks file of
    the BraggNN layout. negative, overflow_value: see :func:`marks`. omega_start, omega_step: the rotation at the start
    of the first frame and of every frame, in degrees, in place of what the file says
    (:func:`braggnn_edge.frames.omega.frame_omega`). Raises UserError for any file that does not fit.
    """
    path = Path(path)
    source = open_source(format, path, dataset)
    size = source.shape[1:]
    negative_is_bad, maximum_is_bad = marks(format, source.dtype, negative, overflow_value)
    name = path.stem if name is None else name
    try:
        told = source.omega if omega_start is None and omega_step is None else None
        omega, remark = frame_omega(told, omega_start, omega_step, source.shape[0])
    except UserError as error:
        raise UserError(f"scan {name!r}: {error}") from error
    bad = None if mask is None else read_mask(str(mask), size)
    _check_gaps(name, source, bad, negative_is_bad, maximum_is_bad)
    return Scan(
        name,
        source,
        None if dark is None else read_dark(str(dark), size),
        bad,
        None if peaks is None else _peaks(Path(peaks), source.shape),
        negative_is_bad,
        maximum_is_bad,
        omega,
        remark,
    )


def _check_gaps(
    name: str, source: FrameSource, mask: np.ndarray | None, negative_is_bad: bool, maximum_is_bad: bool
) -> None:
    """Refuse a virtual data set with pixels that have no source, unless they are bad by the mask or their fill value.

    The fill value stands in gaps between modules, say; as a count it would be an invention.
    """
    gaps = getattr(source, "gaps", None)
    if gaps is None:
        return
    fill = getattr(source, "fill", 0.0)
    marked = (negative_is_bad and fill < 0) or (
        maximum_is_bad and source.dtype.kind == "u" and fill == float(np.iinfo(source.dtype).max)
    )
    open_ones = gaps if mask is None else gaps & ~mask
    if open_ones.any() and not marked:
        row, col = np.argwhere(open_ones)[0]
        raise UserError(
            f"scan {name!r}: is a virtual data set in which {open_ones.sum()} pixels of every frame have no source, "
            f"the first at row {row}, column {col}; HDF5 reads the fill value {fill:g} there: mark them bad in the "
            "mask, or map them"
        )


def marks(format: str, dtype: np.dtype, negative: Meaning, overflow_value: Meaning) -> tuple[bool, bool]:
    """Whether negative pixels, and those at the largest value of an unsigned type, are bad.

    "auto": negative pixels are bad in signed integers of image files (Pilatus: -1 in a gap, -2 dead); in floats and
    in other formats they are data, left behind by a subtracted dark. The largest value is bad in 32 and 64 bits
    (Eiger), where no pixel counts so far; in 8 and 16 bits it is a saturated pixel.
    """
    usual = format == "images" and dtype.kind == "i", dtype.kind == "u" and dtype.itemsize >= 4
    asked = (negative, overflow_value)
    first, second = (u if a == "auto" else a == "bad" for a, u in zip(asked, usual, strict=True))
    return first, second


def _peaks(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    peaks = read_peaks(path)
    if len(peaks) and peaks["frame"].max() >= shape[0]:
        raise UserError(f"{path}: names frame {peaks['frame'].max()}; the scan has {shape[0]} frames")
    outside = (peaks["row"] < -0.5) | (peaks["row"] > shape[1] - 0.5) | (peaks["col"] < -0.5)
    outside |= peaks["col"] > shape[2] - 0.5
    if outside.any():
        raise UserError(
            f"{path}: {outside.sum()} peaks lie outside frames of {shape[1]} x {shape[2]}; wrong pair of files?"
        )
    return peaks

"""``Scan``: the frames of a measurement, one at a time, with dark and mask applied."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braggnn_edge.errors import UserError
from braggnn_edge.formats import FrameSource, check_file, open_source
from braggnn_edge.formats.braggnn import read_peaks
from braggnn_edge.formats.hdf5 import read_image


@dataclass(frozen=True)
class Scan:
    """Frames of one file, read lazily. It holds no open file, so that it can be sent to another process.

    name: stem of the file; dark: (rows, cols) subtracted from every frame; mask: (rows, cols), True where a pixel is
    bad, set to 0 after the dark; peaks: labels that came with the scan (:func:`formats.braggnn.read_peaks`).
    """

    name: str
    source: FrameSource
    dark: np.ndarray | None = None
    mask: np.ndarray | None = None
    peaks: np.ndarray | None = None

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

    @property
    def omega(self) -> np.ndarray | None:
        """Rotation (frames, 2), start and end of each frame in degrees, where the file has it."""
        return self.source.omega

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(index, frame (rows, cols)) for start <= index < stop, one chunk in memory at a time.

        With a dark the difference is signed: int32 (clipped to its range where the file has wider integers), or
        float32 if either is floating. Raises UserError for a range outside the scan (at once), for a frame that
        cannot be read, and for NaN or infinity in a pixel that is not masked.
        """
        count = self.shape[0]
        stop = count if stop is None else stop
        if not 0 <= start <= stop <= count:
            raise UserError(f"frames {start} to {stop} of {self.name!r}: expected 0 <= start <= stop <= {count}")
        return self._frames(start, stop)

    def frame(self, index: int) -> np.ndarray:
        """Frame ``index`` (rows, cols); reads whole chunks, so use :meth:`frames` for many."""
        if not 0 <= index < self.shape[0]:
            raise UserError(f"frame {index} of {self.name!r}: expected 0 to {self.shape[0] - 1}")
        return next(self._frames(index, index + 1))[1]

    def _frames(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        for index, raw in enumerate(self.source.read(start, stop), start):
            yield index, self._correct(index, raw)

    def _correct(self, index: int, raw: np.ndarray) -> np.ndarray:
        frame = raw
        if self.dark is not None:
            if self.dtype.kind == "f":
                frame = raw.astype(np.float64) - self.dark
            else:
                wide = raw.astype(np.int64) if raw.dtype != np.uint64 else np.minimum(raw, 2**63 - 1).astype(np.int64)
                limits = np.iinfo(np.int32)
                frame = np.clip(wide - self.dark.astype(np.int64), limits.min, limits.max)
            frame = frame.astype(self.dtype)
        if self.mask is not None:
            frame = np.where(self.mask, frame.dtype.type(0), frame)
        if frame.dtype.kind == "f":
            bad = frame.size - int(np.isfinite(frame).sum())
            if bad:
                raise UserError(
                    f"{self.name}: frame {index} holds {bad} pixels that are NaN or infinite; mask them or repair it"
                )
        return frame


def open_scan(
    format: str,
    path: str | Path,
    *,
    dataset: str | None = None,
    dark: str | Path | None = None,
    mask: str | Path | None = None,
    peaks: str | Path | None = None,
) -> Scan:
    """Open the scan ``path`` of a registered format (:data:`braggnn_edge.formats.FORMATS`) without reading its frames.

    dataset: path of the 3-D data set inside an HDF5 file; dark and mask: 2-D images, ``file.npy``, ``file.h5`` with
    one 2-D data set, or ``file.h5:data/set``; a mask is bool or 0 / 1, true where a pixel is bad; peaks: a peaks
    file of the BraggNN layout. Raises UserError for any file that does not fit.
    """
    path = Path(path)
    source = open_source(format, path, dataset)
    size = source.shape[1:]
    return Scan(
        path.stem,
        source,
        None if dark is None else _image("dark", str(dark), size),
        None if mask is None else _mask(str(mask), size),
        None if peaks is None else _peaks(Path(peaks), source.shape),
    )


def split_name(name: str) -> tuple[Path, str | None]:
    """``path`` or ``path:data set`` as the two; a file whose own name holds a colon is taken as a path."""
    path = Path(name)
    if path.exists() or ":" not in name:
        return path, None
    head, _, dataset = name.rpartition(":")
    return Path(head), dataset


def _image(role: str, name: str, size: tuple[int, ...]) -> np.ndarray:
    """A 2-D image of shape ``size`` from ``name``: a path, or path:data set."""
    path, dataset = split_name(name)
    check_file(path)
    if path.suffix == ".npy":
        try:
            image = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{role} {path}: is not a readable npy file ({error})") from error
    else:
        image = read_image(path, dataset)
    image = np.asarray(image)
    if image.shape != size:
        raise UserError(f"{role} {name}: has shape {image.shape}; expected {size}, that of a frame")
    if image.dtype.kind not in "buif":
        raise UserError(f"{role} {name}: is of type {image.dtype}; expected integers or floats")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{role} {name}: holds NaN or infinity; repair it")
    return image


def _mask(name: str, size: tuple[int, ...]) -> np.ndarray:
    image = _image("mask", name, size)
    if not np.isin(image, (0, 1)).all():
        raise UserError(f"mask {name}: holds other values than 0 (good) and 1 (bad)")
    return image.astype(bool)


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

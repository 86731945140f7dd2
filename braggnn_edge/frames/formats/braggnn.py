"""The upstream BraggNN project's pair of HDF5 files, read and written.

Frames file: data set ``frames`` (frames, rows, cols). Peaks file: ``peak_fidx``, ``peak_row``, ``peak_col``,
``npeaks``, ``deviations``, one entry a peak. A peak is valid when it is alone and its fit is good
(:func:`is_valid`), which leaves 69,347 of the 77,267 peaks that the project publishes, the number in its paper.
"""

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.hdf5 import writing_hdf5
from braggnn_edge.frames.formats import check_layout
from braggnn_edge.frames.formats.hdf5 import Hdf5Frames
from braggnn_edge.frames.formats.hdf5 import files_of as files_of_dataset
from braggnn_edge.frames.formats.hdf5 import open_frames as open_dataset
from braggnn_edge.frames.formats.hdf5_tree import find_dataset, open_hdf5

PEAK_DTYPE = np.dtype(
    [("frame", "u4"), ("row", "f4"), ("col", "f4"), ("npeaks", "u2"), ("deviation", "f4"), ("valid", "?")]
)
_COLUMNS = {
    "frame": "peak_fidx",
    "row": "peak_row",
    "col": "peak_col",
    "npeaks": "npeaks",
    "deviation": "deviations",
}


def open_frames(path: Path, dataset: str | None) -> Hdf5Frames:
    """The frames file at ``path``; its data set is ``frames`` unless another is named."""
    return open_dataset(path, dataset or "frames")


def files_of(path: Path, dataset: str | None) -> tuple[Path, ...]:
    """``path`` and the files behind its links."""
    return files_of_dataset(path, dataset or "frames")


def is_valid(npeaks: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """The upstream rule for usable labels: one peak in the window and a fit deviation in [0, 1)."""
    return (npeaks == 1) & (deviation >= 0) & (deviation < 1)


def read_peaks(path: Path) -> np.ndarray:
    """Every peak of a peaks file as a structured array of :data:`PEAK_DTYPE` (positions (row, col) in px).

    All peaks are returned; the field ``valid`` tells the usable ones. Raises UserError for a missing column,
    columns of different length, and values that are negative or not finite where they must not be.
    """
    with open_hdf5(path) as file:
        columns = {}
        for field, name in _COLUMNS.items():
            data = find_dataset(path, file, name)
            if data.ndim != 1 or data.dtype.kind not in "uif":
                raise UserError(f"{path}: {name!r} is {data.dtype} {data.shape}; expected one real number a peak")
            try:
                columns[field] = data[:]
            except OSError as error:
                raise UserError(f"{path}: {name!r} cannot be read ({error}); the file is damaged") from error
    lengths = {_COLUMNS[field]: len(column) for field, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise UserError(f"{path}: columns differ in length {lengths}; expected one entry a peak in each")
    peaks = np.empty(len(columns["frame"]), PEAK_DTYPE)
    for field, column in columns.items():
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            raise UserError(f"{path}: {_COLUMNS[field]!r} holds NaN or infinity; remove those peaks")
        if PEAK_DTYPE[field].kind == "u" and len(column) and column.min() < 0:
            raise UserError(f"{path}: {_COLUMNS[field]!r} holds negative values; expected counts and frame numbers")
        peaks[field] = column
    peaks["valid"] = is_valid(peaks["npeaks"], peaks["deviation"])
    return peaks


def write_peaks(path: Path, peaks: np.ndarray) -> None:
    """Write peaks (structured: frame, row, col, npeaks, deviation; others are ignored) as a peaks file."""
    with writing_hdf5(path) as (file, _):
        for field, name in _COLUMNS.items():
            file.create_dataset(name, data=peaks[field].astype(PEAK_DTYPE[field], casting="same_kind"))


def write_frames(path: Path, frames: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype) -> None:
    """Write frames, each (rows, cols), as a frames file with chunks of one frame, shuffled and deflated.

    Raises UserError, and leaves no file, when the number or the shape of the frames is not ``shape``.
    """
    count, rows, cols = check_layout(str(path), shape, np.dtype(dtype))
    with writing_hdf5(path) as (file, check):
        data = create_frames(file, (count, rows, cols), np.dtype(dtype))
        index = 0
        for frame in frames:
            if index >= count or frame.shape != (rows, cols) or not np.can_cast(frame.dtype, dtype):
                raise UserError(
                    f"{path}: frame {index} is {frame.dtype} {frame.shape}; expected {count} frames of "
                    f"{np.dtype(dtype)} ({rows}, {cols})"
                )
            data[index] = frame
            check()
            index += 1
        if index != count:
            raise UserError(f"{path}: {index} frames were given; expected {count}")


def create_frames(file: h5py.File, shape: tuple[int, int, int], dtype: np.dtype) -> h5py.Dataset:
    """The empty data set ``frames``: one frame a chunk, shuffled and deflated, which plain h5py reads."""
    return file.create_dataset(
        "frames", shape, dtype, chunks=(1, *shape[1:]), shuffle=True, compression="gzip", compression_opts=1
    )

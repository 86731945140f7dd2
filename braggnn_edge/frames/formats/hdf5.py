"""Any HDF5 or NeXus file: a data set named by its path inside the file, or an Eiger's row of them.

The filters of hdf5plugin (bitshuffle, LZ4, Zstandard, ...) are available; external links and virtual data sets
are followed, and what is missing behind one is an error instead of frames of fill values. Frames that were declared
but never written are bad frames.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import BadFrame, check_layout
from braggnn_edge.frames.formats.hdf5_complete import source_files, unwritten, unwritten_and_gaps
from braggnn_edge.frames.formats.hdf5_omega import read_omega
from braggnn_edge.frames.formats.hdf5_tree import (
    EIGER_PART,
    Entry,
    choose,
    find_dataset,
    list_datasets,
    native,
    open_hdf5,
)

# Frames are read in blocks of whole chunks, so that no chunk is decompressed twice, up to this many bytes: a
# file chunked along time ((1440, 8, 8), say) would otherwise need the whole scan in memory.
BLOCK_BYTES = 64 * 2**20
_EIGER_GROUP = "entry/data"


class Part(NamedTuple):
    """A data set of a scan: its name and number of frames; the axis that counts them, None for a single frame."""

    name: str
    frames: int
    axis: int | None


@dataclass(frozen=True)
class Hdf5Frames:
    """Frames (frames, rows, cols) of one HDF5 data set, or of several one after another.

    unwritten: indices of frames that were never written, ascending; gaps: (rows, cols) True where a virtual data set
    has no source in any frame, and ``fill`` is read. The file is open only while :meth:`read` is iterated.
    """

    path: Path
    datasets: tuple[Part, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype
    block: int
    omega: np.ndarray | None = None
    unwritten: NDArray[np.intp] | None = None
    gaps: NDArray[np.bool_] | None = None
    fill: float = 0.0

    def file_of(self, index: int) -> Path:
        """The file, whatever links it follows."""
        return self.path

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start .. stop - 1 in order; ``self.block`` frames (one chunk, at most 64 MiB) are in memory.

        Raises BadFrame at a frame that was never written, and at the first frame of a block that cannot be read:
        frames of one damaged chunk fail together.
        """
        with open_hdf5(self.path) as file:
            first = 0
            for part in self.datasets:
                low, high = max(start, first) - first, min(stop, first + part.frames) - first
                if low < high:
                    yield from self._read(find_dataset(self.path, file, part.name), part, first, low, high)
                first += part.frames

    def _read(self, data: h5py.Dataset, part: Part, first: int, index: int, stop: int) -> Iterator[np.ndarray]:
        while index < stop:
            last = min(stop, (index // self.block + 1) * self.block)
            hole = self._hole(first + index) - first
            if hole == index:
                raise BadFrame(
                    f"{self.path}: frame {index} of {part.name!r} was declared but never written, as after a scan "
                    "that was stopped"
                )
            last = min(last, hole)
            try:
                block = _slices(data, part.axis, index, last)
            except OSError as error:
                raise BadFrame(
                    f"{self.path}: frames {index} to {last - 1} of {part.name!r} cannot be read ({error}); "
                    "the file is damaged or compressed with a filter that hdf5plugin does not have"
                ) from error
            yield from block.astype(self.dtype, copy=False)
            index = last

    def _hole(self, index: int) -> int:
        """The first frame from ``index`` on that was never written; the number of frames where there is none."""
        if self.unwritten is None:
            return self.shape[0]
        place = int(np.searchsorted(self.unwritten, index))
        return int(self.unwritten[place]) if place < len(self.unwritten) else self.shape[0]


def _slices(data: h5py.Dataset, axis: int | None, start: int, stop: int) -> np.ndarray:
    """Frames (stop - start, rows, cols) of a data set whose frames are counted by ``axis``."""
    if axis is None:
        block = data[()]
    else:
        block = data[tuple(slice(start, stop) if i == axis else slice(None) for i in range(data.ndim))]
    return block.reshape(stop - start, *data.shape[-2:])


def open_frames(path: Path, dataset: str | None) -> Hdf5Frames:
    """The 3-D data set ``dataset`` of ``path``; without a name, the file's only one.

    A 2-D data set is one frame, and one of more than three dimensions is a scan when all before the last two but one
    have length 1. A group that holds ``data_000001``, ``data_000002``, ..., each usually a link to a file of its own,
    is what an Eiger writes: its data sets in this order are one scan.
    """
    with open_hdf5(path) as file:
        names = names_of(path, file, dataset)
        found = frames_in(path, file, names)
        return replace(found, omega=read_omega(file, names[0], found.shape[0]))


def frames_in(path: Path, file: h5py.File, names: list[str], kinds: str = "uif") -> Hdf5Frames:
    """The frames of data sets one after another; ``kinds``: the types that are taken, as numpy's dtype.kind.

    Raises UserError where they do not fit each other, where something is missing behind a virtual data set, and where
    no frame was ever written.
    """
    data = find_dataset(path, file, names[0])
    dtype = data.dtype
    size: tuple[int, ...] = (data.shape or ())[-2:]
    parts, holes, count = list[Part](), list[NDArray[np.intp]](), 0
    gaps: NDArray[np.bool_] | None = None
    for name in names:
        one = find_dataset(path, file, name)
        where = f"{path}: data set {name!r}"
        shape, axis = frames_of(where, one, kinds)
        if shape[1:] != size or one.dtype != dtype:
            raise UserError(
                f"{path}: {name!r} is {one.dtype} {shape[1:]}, but the scan began with {dtype} {size} in "
                f"{names[0]!r}; name one data set"
            )
        if axis is None:
            missing = np.array([unwritten(where, one).any()])
        else:
            missing, gap = unwritten_and_gaps(where, one, axis)
            gaps = gaps if gap is None else gap.reshape(size) | (False if gaps is None else gaps)
        holes.append(np.flatnonzero(missing) + count)
        parts.append(Part(name, shape[0], axis))
        count += shape[0]
    never = np.concatenate(holes)
    if len(never) == count:
        raise UserError(f"{path}: none of the {count} frames of {names[0]!r} was ever written; the file holds no data")
    axis = parts[0].axis
    chunk = data.chunks[axis] if data.chunks and axis is not None else 1
    block = max(1, min(chunk, BLOCK_BYTES // max(1, int(np.prod(size)) * dtype.itemsize)))
    return Hdf5Frames(
        path, tuple(parts), (count, size[0], size[1]), native(dtype), block,
        unwritten=never if len(never) else None, gaps=gaps, fill=0.0 if gaps is None else float(data.fillvalue),
    )  # fmt: skip


def frames_of(where: str, data: h5py.Dataset, kinds: str = "uif") -> tuple[tuple[int, int, int], int | None]:
    """(frames, rows, cols) of a data set, and the axis that counts its frames: None where it is one frame."""
    shape: tuple[int, ...] = data.shape or ()
    counts = [i for i, size in enumerate(shape[:-2]) if size != 1]
    axis = counts[0] if counts else max(0, len(shape) - 3)
    if len(shape) < 2 or len(counts) > 1:
        check_layout(where, shape, data.dtype, kinds)  # which says what is wrong with it
    frames = 1 if len(shape) == 2 else shape[axis]
    return check_layout(where, (frames, *shape[-2:]), data.dtype, kinds), None if len(shape) == 2 else axis


def files_of(path: Path, dataset: str | None) -> tuple[Path, ...]:
    """``path`` and the files behind the external links and virtual data sets that the scan goes through.

    A file that cannot be read is left to :func:`open_frames`, which says what is wrong with it.
    """
    found = [path]
    with suppress(UserError), open_hdf5(path) as file:
        for name in names_of(path, file, dataset):
            found += behind(find_dataset(path, file, name))
    return tuple(dict.fromkeys(found))


def behind(data: h5py.Dataset) -> list[Path]:
    """The file that a data set lies in, and those behind it."""
    return [Path(data.file.filename), *source_files(data)]


def names_of(path: Path, file: h5py.File, dataset: str | None) -> list[str]:
    """The data sets of a scan in order (see :func:`open_frames`)."""
    group = dataset
    if group is None:
        entries = list_datasets(file)
        entries = [entry for entry in entries if entry.kind in "uif"] or entries
        found = [entry for entry in entries if len(entry.shape) == 3]
        parts = [entry for entry in found if EIGER_PART.fullmatch(entry.name.rpartition("/")[2])]
        homes = {entry.name.rpartition("/")[0] for entry in parts}
        if parts and len(parts) == len(found) and len(homes) == 1:
            group = homes.pop()
        elif not found and _is_eiger(file):  # every link of a master file is broken: name the first that is
            group = _EIGER_GROUP
        else:
            return [_only(path, file, entries)]
    try:
        item = file[group]
    except (KeyError, OSError, ValueError, RuntimeError):
        item = None
    keys = [key for key in item if EIGER_PART.fullmatch(key)] if isinstance(item, h5py.Group) else []
    if keys:
        return [f"{group}/{key}" for key in sorted(keys, key=lambda key: (len(key), key))]
    return [group]


def _is_eiger(file: h5py.File) -> bool:
    group = file.get(_EIGER_GROUP)
    return isinstance(group, h5py.Group) and any(EIGER_PART.fullmatch(key) for key in group)


def _only(path: Path, file: h5py.File, entries: list[Entry]) -> str:
    """The one data set of a scan: of three dimensions; else of more, as long as they count one thing; else an image."""
    three = [entry for entry in entries if len(entry.shape) == 3]
    more = [entry for entry in entries if len(entry.shape) > 3 and sum(size != 1 for size in entry.shape[:-2]) <= 1]
    two = [entry for entry in entries if len(entry.shape) == 2]
    return choose(path, file, "name the 3-D data set to read", (three, more, two))

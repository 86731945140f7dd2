"""Any HDF5 or NeXus file: a 3-D data set named by its path inside the file, or an Eiger's row of them.

The filters of hdf5plugin (bitshuffle, LZ4, Zstandard, ...) are available; external links and virtual data sets
are followed, and a missing file behind one is an error instead of frames of fill values.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  importing it registers the filters
import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import BadFrame, check_file, check_layout

# Frames are read in blocks of whole chunks, so that no chunk is decompressed twice, up to this many bytes: a
# file chunked along time ((1440, 8, 8), say) would otherwise need the whole scan in memory.
BLOCK_BYTES = 64 * 2**20
_LISTED = 12
_EIGER_GROUP = "entry/data"
_EIGER_PART = re.compile(r"data_([0-9]+)")


@dataclass(frozen=True)
class Hdf5Frames:
    """Frames (frames, rows, cols) of one HDF5 data set, or of several one after another.

    datasets: their names and numbers of frames; the file is open only while :meth:`read` is iterated.
    """

    path: Path
    datasets: tuple[tuple[str, int], ...]
    shape: tuple[int, int, int]
    dtype: np.dtype
    block: int
    omega: np.ndarray | None = None

    def file_of(self, index: int) -> Path:
        """The file, whatever links it follows."""
        return self.path

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start .. stop - 1 in order; ``self.block`` frames (one chunk, at most 64 MiB) are in memory.

        Raises BadFrame at the first frame of a block that cannot be read: frames of one damaged chunk fail together.
        """
        with open_hdf5(self.path) as file:
            first = 0
            for name, count in self.datasets:
                low, high = max(start, first) - first, min(stop, first + count) - first
                if low < high:
                    yield from self._read(find_dataset(self.path, file, name), name, low, high)
                first += count

    def _read(self, data: h5py.Dataset, name: str, index: int, stop: int) -> Iterator[np.ndarray]:
        while index < stop:
            last = min(stop, (index // self.block + 1) * self.block)
            try:
                block = data[index:last]
            except OSError as error:
                raise BadFrame(
                    f"{self.path}: frames {index} to {last - 1} of {name!r} cannot be read ({error}); "
                    "the file is damaged or compressed with a filter that hdf5plugin does not have"
                ) from error
            yield from block
            index = last


def open_frames(path: Path, dataset: str | None) -> Hdf5Frames:
    """The 3-D data set ``dataset`` of ``path``; without a name, the file's only one.

    A group that holds ``data_000001``, ``data_000002``, ..., each usually a link to a file of its own, is what an
    Eiger writes: its data sets in this order are one scan.
    """
    with open_hdf5(path) as file:
        names = _names(path, file, dataset)
        shapes = [_layout(path, find_dataset(path, file, name), name) for name in names]
        data = find_dataset(path, file, names[0])
        for name, shape in zip(names, shapes, strict=True):
            dtype = find_dataset(path, file, name).dtype
            if shape[1:] != shapes[0][1:] or dtype != data.dtype:
                raise UserError(
                    f"{path}: {name!r} is {dtype} {shape[1:]}, but the scan began with {data.dtype} {shapes[0][1:]} in "
                    f"{names[0]!r}; name one data set"
                )
        counts = [shape[0] for shape in shapes]
        frame_bytes = max(1, shapes[0][1] * shapes[0][2] * data.dtype.itemsize)
        chunk = data.chunks[0] if data.chunks else 1
        block = max(1, min(chunk, BLOCK_BYTES // frame_bytes))
        parts = tuple(zip(names, counts, strict=True))
        return Hdf5Frames(path, parts, (sum(counts), *shapes[0][1:]), data.dtype, block)


def files_of(path: Path, dataset: str | None) -> tuple[Path, ...]:
    """``path`` and the files behind the external links and virtual data sets that the scan goes through.

    A file that cannot be read is left to :func:`open_frames`, which says what is wrong with it.
    """
    found = [path]
    with suppress(UserError), open_hdf5(path) as file:
        for name in _names(path, file, dataset):
            data = find_dataset(path, file, name)
            home = Path(data.file.filename)
            found.append(home)
            if data.is_virtual:
                found += [
                    home.parent / source.file_name for source in data.virtual_sources() if source.file_name != "."
                ]
    return tuple(dict.fromkeys(found))


def read_image(path: Path, dataset: str | None) -> np.ndarray:
    """One 2-D data set, read whole (a dark or a mask); without a name, the file's only 2-D data set."""
    with open_hdf5(path) as file:
        name = dataset or _only(path, file, 2)
        try:
            return find_dataset(path, file, name)[()]
        except OSError as error:
            raise UserError(f"{path}: data set {name!r} cannot be read ({error})") from error


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading; UserError when it is missing, empty, truncated or no HDF5 file."""
    check_file(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path}: is not a readable HDF5 file, or is truncated ({error}); copy it again, or correct its path"
        ) from error
    with file:
        yield file


def find_dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """The data set ``name``; a UserError lists those there are when it is missing or its link is broken."""
    try:
        found = file[name]
    except (KeyError, OSError, ValueError) as error:
        link = _link(file, name)
        if isinstance(link, h5py.ExternalLink):
            raise UserError(
                f"{path}: {name!r} links to {link.path!r} in the file {link.filename!r}, which cannot be opened; keep "
                "the linked files beside it"
            ) from error
        there = ", ".join(f"{key} {shape}" for key, shape in list_datasets(file)[:_LISTED]) or "none"
        raise UserError(f"{path}: has no data set {name!r}; the data sets there are: {there}") from error
    if not isinstance(found, h5py.Dataset):
        there = ", ".join(f"{key} {shape}" for key, shape in list_datasets(file)[:_LISTED]) or "none"
        raise UserError(f"{path}: {name!r} is a group; name a data set: {there}")
    return found


def list_datasets(group: h5py.Group, prefix: str = "", depth: int = 8) -> list[tuple[str, tuple[int, ...]]]:
    """(path, shape) of every data set below ``group``, through soft and external links that resolve."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for key in group:
        item = _resolve(group, key)
        name = f"{prefix}/{key}"
        if isinstance(item, h5py.Dataset):
            found.append((name, item.shape or ()))
        elif isinstance(item, h5py.Group) and depth > 0:  # the depth ends circular links
            found += list_datasets(item, name, depth - 1)
    return found


def _resolve(group: h5py.Group, key: str) -> h5py.Dataset | h5py.Group | None:
    try:
        return group[key]
    except (KeyError, OSError, ValueError):
        return None


def _link(file: h5py.File, name: str) -> object:
    try:
        return file.get(name, getlink=True)
    except (KeyError, OSError, ValueError):
        return None


def _only(path: Path, file: h5py.File, dimensions: int) -> str:
    names = [name for name, shape in list_datasets(file) if len(shape) == dimensions]
    if len(names) != 1:
        listed = ", ".join(names[:_LISTED]) or "none"
        raise UserError(f"{path}: name the {dimensions}-D data set to read; those in the file: {listed}")
    return names[0]


def _names(path: Path, file: h5py.File, dataset: str | None) -> list[str]:
    """The data sets of a scan in order (see :func:`open_frames`)."""
    group = dataset
    if group is None:
        found = [name for name, shape in list_datasets(file) if len(shape) == 3]
        homes = {name.rpartition("/")[0] for name in found if _EIGER_PART.fullmatch(name.rpartition("/")[2])}
        everything = all(_EIGER_PART.fullmatch(name.rpartition("/")[2]) for name in found)
        if not found:  # a master file whose every link is broken has none: name the first that is
            group = _EIGER_GROUP
        elif everything and len(homes) == 1:
            group = homes.pop()
        else:
            return [_only(path, file, 3)]
    item = _resolve(file, group)
    keys = [key for key in item if _EIGER_PART.fullmatch(key)] if isinstance(item, h5py.Group) else []
    if keys:
        return [f"{group}/{key}" for key in sorted(keys, key=lambda key: (len(key), key))]
    return [dataset or _only(path, file, 3)]


def _layout(path: Path, data: h5py.Dataset, name: str) -> tuple[int, int, int]:
    where = f"{path}: data set {name!r}"
    shape = check_layout(where, data.shape or (), data.dtype)
    _check_virtual(where, path, data)
    return shape


def _check_virtual(where: str, path: Path, data: h5py.Dataset) -> None:
    """HDF5 reads fill values in place of the missing sources of a virtual data set: refuse them instead."""
    if not data.is_virtual:
        return
    folder = Path(data.file.filename).parent
    for source in data.virtual_sources():
        if source.file_name != "." and not (folder / source.file_name).exists():
            raise UserError(f"{where}: its source file {source.file_name!r} is missing; keep it beside {path.name}")

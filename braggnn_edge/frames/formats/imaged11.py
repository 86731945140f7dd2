"""ImageD11's sparse files: in HDF5 a group for each scan, with the pixels above a threshold.

``nnz`` (frames,) is the number of pixels of each frame, ``row``, ``col`` and ``intensity`` hold them one after another;
attributes ``nframes``, ``shape0`` and ``shape1``. Positions of motors lie in ``measurement``.
"""

from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import check_layout
from braggnn_edge.frames.formats.hdf5 import behind
from braggnn_edge.frames.formats.hdf5_complete import unwritten
from braggnn_edge.frames.formats.hdf5_omega import degrees
from braggnn_edge.frames.formats.hdf5_tree import choose, find_dataset, list_datasets, native, open_hdf5
from braggnn_edge.frames.formats.hexrd_h5 import VERSION
from braggnn_edge.frames.formats.sparse import Column, SparseFrames, checked
from braggnn_edge.frames.omega import around

_LISTS = ("row", "col", "intensity")
#: The rotation in the order in which ImageD11 looks for it, each the centre of a frame.
_ROTATIONS = ("rot_center", "rot", "diffrz_center", "diffrz")


def open_frames(path: Path, dataset: str | None) -> SparseFrames:
    """The scan in the group ``dataset`` of ``path``; without a name, the file's only one."""
    with open_hdf5(path) as file:
        name = _name(path, file, dataset)
        group = file[name]
        lists = {key: find_dataset(path, file, f"{name}/{key}") for key in ("nnz", *_LISTS)}
        where = f"{path}: group {name!r}"
        try:
            count, rows, cols = (int(group.attrs[key]) for key in ("nframes", "shape0", "shape1"))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{where}: has no attributes nframes, shape0 and shape1 that are numbers ({error}); expected one of "
                "ImageD11's sparse files"
            ) from error
        shape = check_layout(where, (count, rows, cols), lists["intensity"].dtype)
        nnz = lists["nnz"]
        if nnz.shape != (count,) or nnz.dtype.kind not in "ui" or unwritten(f"{where}: 'nnz'", nnz).any():
            raise UserError(
                f"{where}: its nnz is {nnz.dtype} {nnz.shape}; expected {count} numbers of pixels, all written"
            )
        last = np.cumsum(nnz[()].astype(np.int64))
        first = last - nnz[()]
        row, col, values = (Column(f"{name}/{key}") for key in _LISTS)
        omega = _omega(group)
        dtype = native(lists["intensity"].dtype)
        return checked(path, file, SparseFrames(path, shape, dtype, (row, col, values), first, last, omega))


def files_of(path: Path, dataset: str | None) -> tuple[Path, ...]:
    """``path`` and the files behind links and virtual lists."""
    found = [path]
    with suppress(UserError), open_hdf5(path) as file:
        name = _name(path, file, dataset)
        for key in ("nnz", *_LISTS):
            found += behind(find_dataset(path, file, f"{name}/{key}"))
    return tuple(dict.fromkeys(found))


def hdf5_kind(path: Path) -> str:
    """The name of the format that an HDF5 file is in by its content: "hexrd", "imaged11" or "hdf5"."""
    with suppress(UserError), open_hdf5(path) as file:
        if VERSION in file.attrs:
            return "hexrd"
        lists = [entry for entry in list_datasets(file) if entry.name.endswith("/nnz")]
        groups = [file[entry.name].parent for entry in lists]
        if any("nframes" in group.attrs and "intensity" in group for group in groups):
            return "imaged11"
    return "hdf5"


def _name(path: Path, file: h5py.File, dataset: str | None) -> str:
    if dataset is None:
        lists = [entry for entry in list_datasets(file) if entry.name.endswith("/nnz")]
        return choose(path, file, "name the group of the scan to read (it has nnz, row, col, intensity)", (lists,))[:-4]
    try:
        group = file[dataset]
    except (KeyError, OSError, ValueError, RuntimeError):
        group = None
    if not isinstance(group, h5py.Group):
        there = ", ".join(entry.name[:-4] for entry in list_datasets(file) if entry.name.endswith("/nnz")) or "none"
        raise UserError(f"{path}: has no group {dataset!r} of a scan; those there are: {there}")
    return dataset.rstrip("/")


def _omega(group: h5py.Group) -> np.ndarray | None:
    for name in _ROTATIONS:
        for place in (f"measurement/{name}", name):
            data = group.get(place)
            if isinstance(data, h5py.Dataset) and data.ndim == 1 and data.dtype.kind in "uif":
                return around(degrees(data))
    return None

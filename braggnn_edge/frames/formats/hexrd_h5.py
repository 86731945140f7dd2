"""HEXRD's frame cache in HDF5 (``.fch5``), the younger brother of the npz.

``data`` (pixels, 1) and ``indices`` (pixels, 2) hold value, row and column; ``frame_ids`` (2 * frames,) where each
frame begins and ends in them; ``shape``, ``nframes``, ``dtype``, and a group ``metadata`` that usually has ``omega``.
"""

from pathlib import Path

import h5py
import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import check_layout
from braggnn_edge.frames.formats.hdf5_tree import find_dataset, native, open_hdf5
from braggnn_edge.frames.formats.sparse import Column, SparseFrames, checked

#: Attribute of such a file; its value is 1.
VERSION = "HEXRD_FRAMECACHE_VERSION"


def open_h5(path: Path) -> SparseFrames:
    """The frame cache at ``path``; UserError for an HDF5 file of another kind."""
    with open_hdf5(path) as file:
        if int(file.attrs.get(VERSION, 0)) != 1:
            raise UserError(
                f'{path}: is an HDF5 file without {VERSION} = 1; expected a HEXRD frame cache, or format = "hdf5"'
            )
        size, count, name, places = (
            find_dataset(path, file, key)[()] for key in ("shape", "nframes", "dtype", "frame_ids")
        )
        try:
            name = np.asarray(name).reshape(-1)[0]
            dtype = np.dtype(name.decode() if isinstance(name, bytes) else str(name))
            rows, cols = (int(n) for n in size)
            first, last = np.asarray(places, np.int64).reshape(int(count), 2).T
        except (TypeError, ValueError, IndexError) as error:
            raise UserError(f"{path}: shape, nframes, dtype or frame_ids is malformed ({error})") from error
        shape = check_layout(f"{path}: frame cache", (int(count), rows, cols), dtype)
        columns = Column("indices", 0), Column("indices", 1), Column("data", 0)
        omega = file.get("metadata/omega")
        told = omega[()] if isinstance(omega, h5py.Dataset) and omega.dtype.kind in "uif" else None
        return checked(path, file, SparseFrames(path, shape, native(dtype), columns, first, last, told))

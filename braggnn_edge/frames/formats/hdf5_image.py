"""A dark or a mask in an HDF5 file: one image, or a stack of them."""

from contextlib import suppress
from pathlib import Path

import h5py

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats.hdf5 import Hdf5Frames, behind, frames_in, names_of
from braggnn_edge.frames.formats.hdf5_tree import choose, list_datasets, open_hdf5, own_names

#: What NeXus calls a mask in which every bit says why a pixel is bad.
NEXUS_MASK = "pixel_mask"


def open_image(path: Path, dataset: str | None, size: tuple[int, ...], mask: bool) -> tuple[Hdf5Frames, bool]:
    """The images of a data set of any real type or bool, and whether it is a NeXus mask by its name.

    The name may be that of an Eiger's group of data sets. Without a name it is the data set whose images have the shape
    ``size``, or the only one that has images; for a mask the one that is called pixel_mask goes before the others.
    """
    with open_hdf5(path) as file:
        names = names_of(path, file, dataset or _name(path, file, size, mask))
        return frames_in(path, file, names, "buif"), mask and NEXUS_MASK in own_names(file, names[0])


def _name(path: Path, file: h5py.File, size: tuple[int, ...], mask: bool) -> str:
    images = [entry for entry in list_datasets(file) if entry.kind in "buif" and len(entry.shape) >= 2]
    fitting = [entry for entry in images if entry.shape[-2:] == size]
    named = [entry for entry in fitting if mask and NEXUS_MASK in own_names(file, entry.name)]
    return choose(path, file, "name the 2-D data set to read, or a 3-D one of several images", (named, fitting, images))


def files_of_image(path: Path, dataset: str | None) -> tuple[Path, ...]:
    """``path`` and the files behind the data sets that a dark or a mask may be."""
    found = [path]
    with suppress(UserError, OSError, KeyError), open_hdf5(path) as file:
        entries = [entry for entry in list_datasets(file) if len(entry.shape) >= 2]
        for name in names_of(path, file, dataset) if dataset else [entry.name for entry in entries]:
            found += behind(file[name])
    return tuple(dict.fromkeys(found))

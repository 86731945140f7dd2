"""Darks and masks: one image each, read from any file, a dark from a stack of images too."""

from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import FrameSource, check_file, check_layout, images
from braggnn_edge.frames.formats.hdf5_image import files_of_image, open_image
from braggnn_edge.frames.formats.npy import NpyFrames

#: Memory for the median of a stack, bytes: it is found for so many rows at a time as fit.
MEDIAN_BYTES = 256 * 2**20
_NPY = b"\x93NUMPY"


def read_dark(name: str, size: tuple[int, ...]) -> np.ndarray:
    """The dark ``name`` (path, or path:data set) of frames of shape ``size``; of a stack the median.

    The median of integers is an integer (:func:`median`). Raises UserError for another shape, another type than
    integers or floats, and values that are not finite.
    """
    source, _ = _open("dark", name, size, mask=False)
    return _finite("dark", name, median(source) if source.shape[0] > 1 else next(source.read(0, 1)))


def read_mask(name: str, size: tuple[int, ...]) -> np.ndarray:
    """The mask ``name`` as bool of shape ``size``, True where a pixel is bad.

    In a data set called pixel_mask, as NeXus defines it, every value but 0 is bad; else the values must be 0 and 1.
    Raises UserError for several images: which is meant does not show.
    """
    source, nexus = _open("mask", name, size, mask=True)
    if source.shape[0] > 1:
        raise UserError(f"mask {name}: holds {source.shape[0]} images; expected one, name it or write it alone")
    image = _finite("mask", name, next(source.read(0, 1)))
    if nexus:
        return image != 0
    if not np.isin(image, (0, 1)).all():
        raise UserError(f"mask {name}: holds other values than 0 (good) and 1 (bad); save it as image != 0, or as bool")
    return image.astype(bool)


def files_of(name: str) -> tuple[Path, ...]:
    """Every file that a dark or a mask is read from."""
    path, dataset = split_name(name)
    with suppress(UserError):
        if dataset is not None or _is_hdf5(path):
            return files_of_image(path, dataset)
        return images.files_of(path, None)
    return (path,)


def split_name(name: str) -> tuple[Path, str | None]:
    """``path`` or ``path:data set`` as the two; a file whose own name holds a colon is taken as a path."""
    path = Path(name)
    if path.exists() or ":" not in name:
        return path, None
    head, _, dataset = name.rpartition(":")
    return Path(head), dataset


def _open(role: str, name: str, size: tuple[int, ...], mask: bool) -> tuple[FrameSource, bool]:
    """The images of a file, and whether they are a NeXus mask; refused where they do not fit frames of ``size``."""
    path, dataset = split_name(name)
    nexus = False
    source: FrameSource
    if dataset is not None or _is_hdf5(path):
        source, nexus = open_image(path, dataset, size, mask)
    elif _starts(path, _NPY):
        source = NpyFrames.open(role, path)
    else:
        source = images.open_frames(path, None, "buif")
    check_layout(f"{role} {name}", source.shape, source.dtype, "buif")
    if source.shape[1:] != size:
        raise UserError(f"{role} {name}: has shape {source.shape[1:]}; expected {size}, that of a frame")
    holes = getattr(source, "unwritten", None)
    if holes is not None:
        raise UserError(f"{role} {name}: image {holes[0]} was declared but never written; write it again")
    if getattr(source, "gaps", None) is not None:
        raise UserError(f"{role} {name}: is a virtual data set, and some of its elements have no source; map all of it")
    return source, nexus


def _is_hdf5(path: Path) -> bool:
    return path.is_file() and bool(h5py.is_hdf5(path))


def _starts(path: Path, magic: bytes) -> bool:
    if not path.is_file():
        return False
    check_file(path)
    with path.open("rb") as stream:
        return stream.read(len(magic)) == magic


def _finite(role: str, name: str, image: np.ndarray) -> np.ndarray:
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{role} {name}: holds NaN or infinity; repair it")
    return image


def median(source: FrameSource) -> np.ndarray:
    """The median (rows, cols) of the frames of a source, pixel by pixel; with bounded memory, read several times.

    Of integers it has their type: of two middle values it is their mean, rounded down.
    """
    count, rows, cols = source.shape
    band = max(1, MEDIAN_BYTES // (count * cols * source.dtype.itemsize))
    found = np.empty((rows, cols), source.dtype)
    low, high = (count - 1) // 2, count // 2
    for first in range(0, rows, band):
        stack = np.empty((count, min(band, rows - first), cols), source.dtype)
        for index, frame in enumerate(source.read(0, count)):
            stack[index] = frame[first : first + band]
        stack.partition((low, high), axis=0)
        if source.dtype.kind == "f":
            found[first : first + band] = (stack[low] + stack[high]) / 2
            found[first : first + band][np.isnan(stack).any(axis=0)] = np.nan
        elif source.dtype.kind == "b":
            found[first : first + band] = stack[low] & stack[high]
        else:
            # Half of each and what the halves lose: a sum may not fit the type.
            halves = stack[low] // 2 + stack[high] // 2
            found[first : first + band] = halves + (stack[low] % 2 + stack[high] % 2) // 2
    return found

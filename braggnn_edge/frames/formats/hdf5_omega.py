"""The rotation of every frame from the axes of an HDF5 or NeXus file.

NeXus gives an axis as the positions at the start of every frame, and beside it, with the name of the axis, the end
(``_end``) or the width (``_increment_set``, ``_increment``, ``_range_average``). Eiger master files do so in
``sample/goniometer``, NXmx in ``sample/transformations``. Names that end in ``_center`` are centres of frames. HEXRD
writes ``omega`` (frames, 2) as an attribute of the group of its images.
"""

import h5py
import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats.hdf5_complete import unwritten
from braggnn_edge.frames.formats.hdf5_tree import list_datasets
from braggnn_edge.frames.omega import around

#: Axes that turn the sample.
_AXES = ("omega", "phi", "rotation_angle", "rot", "diffrz")
_WIDTHS = ("_increment_set", "_increment", "_range_average")
_CENTRES = ("_center", "_centre")
_FACTORS = {"rad": 180 / np.pi, "radian": 180 / np.pi, "radians": 180 / np.pi, "mrad": 0.18 / np.pi}


def degrees(data: h5py.Dataset) -> NDArray[np.float64]:
    """The numbers of a data set in degrees: its attribute ``units`` may say radians."""
    units = data.attrs.get("units", "")
    units = units.decode() if isinstance(units, bytes) else str(units)
    return np.asarray(data[()], np.float64) * _FACTORS.get(units.strip().lower(), 1.0)


def read_omega(file: h5py.File, name: str, frames: int) -> NDArray[np.float64] | None:
    """Start and end (frames, 2) in degrees for the scan in data set ``name``; None where the file does not say them.

    The axes are those below the same entry as the data set. One that does not move is not the scan's, and where several
    move, only omega is taken, since which of the others is meant does not show. Ends go before widths, and both before
    starts alone.
    """
    named = file[name].parent.attrs.get("omega")
    if named is not None and np.shape(named) == (frames, 2):
        return np.asarray(named, np.float64)
    entry, _, below = name.strip("/").partition("/")
    places: set[tuple[str, str]] = set()
    for one in list_datasets(file):
        home, _, key = one.name.rpartition("/")
        same = not below or home.strip("/").partition("/")[0] in ("", entry)
        if same and one.kind in "uif" and one.shape in ((frames,), (1,), ()) and _turns(file[home or "/"], key):
            places.add((home or "/", _stem(key)))
    found: dict[str, list[tuple[int, NDArray[np.float64]]]] = {}
    for home, axis in sorted(places):
        rank, omega = _axis(file[home], axis, frames)
        if omega is not None and np.isfinite(omega).all() and np.ptp(omega) > 0:
            found.setdefault(axis, []).append((rank, omega))
    if "omega" in found:
        found = {"omega": found["omega"]}
    if len(found) != 1:
        return None
    (several,) = found.values()
    best = [omega for rank, omega in several if rank == min(rank for rank, _ in several)]
    return best[0] if all(np.allclose(best[0], omega, rtol=0, atol=1e-6) for omega in best) else None


def _stem(key: str) -> str:
    """The name of an axis without what says which part of it is meant."""
    for end in ("_end", "_start", *_WIDTHS, *_CENTRES):
        if key.endswith(end):
            return key.removesuffix(end)
    return key


def _turns(group: h5py.Group, key: str) -> bool:
    """Whether a data set of a group belongs to an axis that turns the sample, by its name or by what NeXus says."""
    if _stem(key) in _AXES:
        return True
    axis = group.get(_stem(key), group[key])
    kind = axis.attrs.get("transformation_type", "")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    return kind == "rotation" and "detector" not in group.name


def _axis(group: h5py.Group, axis: str, frames: int) -> tuple[int, NDArray[np.float64] | None]:
    """Start and end of every frame for one axis of a group, and how they are known: the lower, the better."""

    def read(*keys: str) -> NDArray[np.float64] | None:
        return next((values for values in (_values(group, key) for key in keys) if values is not None), None)

    start, end = read(axis, f"{axis}_start"), read(f"{axis}_end")
    width = read(*(axis + one for one in _WIDTHS))
    centre = read(*(axis + one for one in _CENTRES))
    width = width if width is not None and len(width) in (1, frames) else None
    many = start is not None and len(start) == frames
    if start is not None and end is not None and many and len(end) == frames:
        return 0, np.stack([start, end], axis=1)
    if centre is not None and len(centre) == frames:
        return 1, around(centre, width)
    if start is not None and width is not None and many:
        return 1, np.stack([start, start + width], axis=1)
    if start is not None and width is not None and len(start) == 1:
        edges = start + np.arange(frames + 1) * width[0]
        return 2, np.stack([edges[:-1], edges[1:]], axis=1)
    half = around(start) if start is not None and many else None
    return 3, None if half is None else half + (half[:, 1:] - half[:, :1]) / 2


def _values(group: h5py.Group, key: str) -> NDArray[np.float64] | None:
    """The numbers (n,) of a data set; None where there are none that can be trusted."""
    try:
        data = group.get(key)
        if not isinstance(data, h5py.Dataset) or data.ndim > 1 or data.dtype.kind not in "uif":
            return None
        if data.shape and unwritten(key, data).any():
            return None
        return degrees(data).reshape(-1)
    except (UserError, KeyError, OSError, RuntimeError, TypeError):  # a broken link, a missing source, a damaged file
        return None

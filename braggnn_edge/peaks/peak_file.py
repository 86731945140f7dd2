"""Lists of peaks or reflections in HDF5: one data set a column, which h5py alone reads and NeXus programs show.

    with h5py.File("peaks.h5") as file:
        columns = {name: data[:] for name, data in file["entry/peaks"].items()}   # row, col, omega, ... of one length

``entry/peaks`` (``entry/reflections``) is an NXdata group. Every data set has the attributes ``units`` and
``long_name``, and ``flags`` those of CF's section 3.5, ``flag_masks`` and ``flag_meanings``. ``entry/frames`` has the
rotation of every frame, and those that were left out; ``entry/process`` says what made the list.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggnn_edge import __version__
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.hdf5 import writing_hdf5
from braggnn_edge.peaks.peak_list import COLUMNS, PEAKS, REFLECTIONS, Column, PeakFlag

#: What the file says of itself, and the version of what it holds.
SCHEMA, VERSION = "braggnn-edge peaks", 1
#: Rows in one chunk of the file.
_CHUNK = 4096
#: The two kinds of lists, by the group that holds the columns.
_KINDS = {"peaks": PEAKS, "reflections": REFLECTIONS}
#: How a list of each kind is made, for messages.
_MADE_BY = {
    "peaks": "make a list of peaks with `braggnn-edge locate`",
    "reflections": "merge a list of peaks into one of reflections with `braggnn-edge merge`",
}

#: Takes rows (n,) of the list's type; the list is in the order of the calls.
Append = Callable[[NDArray[np.void]], None]


@dataclass(frozen=True)
class About:
    """Where a list comes from.

    scans: names, by the column ``scan``; shape: (frames, rows, cols) of the scan, the first one where there are
    several; omega: (frames, 2), start and end of every frame in degrees, NaN where they are not known; bad_frames:
    those that were left out; settings: what the list depends on, as JSON has it; program: the command.
    """

    scans: tuple[str, ...]
    shape: tuple[int, int, int]
    omega: NDArray[np.float64] = field(default_factory=lambda: np.full((0, 2), np.nan))
    bad_frames: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    program: str = "braggnn-edge locate"


@contextlib.contextmanager
def writing(path: Path, about: About, kind: str = "peaks") -> Iterator[Append]:
    """Write a list piece by piece; the file appears when the block succeeds.

    kind: "peaks" or "reflections". At most one chunk and one piece are held in memory. The bytes depend on the rows and
    on ``about`` alone, not on how the rows were cut.
    """
    dtype = _KINDS[kind]
    with writing_hdf5(path, track_order=True) as (file, check):
        file.attrs.update({"NX_class": "NXroot", "default": "entry", "schema": SCHEMA, "version": VERSION})
        entry = _group(file, "entry", "NXentry", default=kind)
        table = _group(entry, kind, "NXdata", signal="intensity", axes=".", scans=list(about.scans))
        table.attrs["shape"] = np.array(about.shape, np.int64)
        for column in COLUMNS[kind]:
            _create(table, column)
        frames = _group(entry, "frames", "NXcollection")
        omega = frames.create_dataset("omega", data=np.asarray(about.omega, np.float64))
        omega.attrs.update({"units": "deg", "long_name": "start and end of the rotation in every frame"})
        frames.create_dataset("bad", data=np.array(about.bad_frames, np.int64)).attrs["long_name"] = "frames left out"
        process = _group(entry, "process", "NXprocess")
        process["program"], process["version"] = about.program, __version__
        process["settings"] = json.dumps(about.settings, sort_keys=True)
        process["settings"].attrs["long_name"] = "what the list depends on, in JSON"
        waiting = np.empty(0, dtype)

        def write(rows: NDArray[np.void]) -> None:
            for name in dtype.names or ():
                data = table[name]
                start = len(data)
                data.resize(start + len(rows), axis=0)
                data[start:] = rows[name]
            check()

        def append(rows: NDArray[np.void]) -> None:
            nonlocal waiting
            if rows.dtype != dtype:
                raise ValueError(f"rows {rows.dtype} are not those of {kind}")
            waiting = np.concatenate([waiting, rows])
            # Whole chunks only: a chunk written twice would lie elsewhere in the file.
            whole = len(waiting) // _CHUNK * _CHUNK
            for start in range(0, whole, _CHUNK):
                write(waiting[start : start + _CHUNK])
            waiting = waiting[whole:].copy()

        yield append
        if len(waiting):
            write(waiting)


def _group(parent: h5py.Group, name: str, kind: str, **attributes: Any) -> h5py.Group:
    group = parent.create_group(name, track_order=True)
    group.attrs.update({"NX_class": kind, **attributes})
    return group


def _create(table: h5py.Group, column: Column) -> None:
    name, kind, unit, meaning = column
    data = table.create_dataset(
        name, (0,), kind, maxshape=(None,), chunks=(_CHUNK,), shuffle=True, compression="gzip", compression_opts=1
    )
    data.attrs.update({"units": unit, "long_name": meaning})
    if name == "flags":
        data.attrs["flag_masks"] = np.array([flag.value for flag in PeakFlag], kind)
        data.attrs["flag_meanings"] = " ".join(str(flag.name) for flag in PeakFlag)


def save(path: Path, rows: NDArray[np.void], about: About) -> None:
    """Write a list that is in memory: peaks or reflections, by the type of ``rows``."""
    kind = next(name for name, dtype in _KINDS.items() if dtype == rows.dtype)
    with writing(path, about, kind) as append:
        append(rows)


def load(path: Path, kind: str = "peaks") -> tuple[NDArray[np.void], About]:
    """Read a list: rows (n,) of :data:`PEAKS` or :data:`REFLECTIONS`, and where they come from.

    Raises UserError for a file that is missing, or is no such list.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {_MADE_BY[kind]}")
    try:
        with h5py.File(path) as file:
            schema, version = file.attrs.get("schema"), file.attrs.get("version")
            if schema != SCHEMA or version != VERSION:
                found = "no list of peaks" if schema is None else f"{schema!r} of version {version}"
                raise UserError(f"{path}: is {found}; expected {SCHEMA!r} of version {VERSION}: {_MADE_BY[kind]}")
            if kind not in file["entry"]:
                held = ", ".join(name for name in _KINDS if name in file["entry"])
                raise UserError(f"{path}: holds {held}; expected {kind}: {_MADE_BY[kind]}")
            table, frames, process = file["entry"][kind], file["entry/frames"], file["entry/process"]
            rows = np.empty(len(table["row"]), _KINDS[kind])
            for name in rows.dtype.names or ():
                rows[name] = table[name][:]
            shape = table.attrs["shape"]
            return rows, About(
                tuple(map(str, table.attrs["scans"])), (int(shape[0]), int(shape[1]), int(shape[2])),
                frames["omega"][:], tuple(frames["bad"][:].tolist()), json.loads(process["settings"][()]),
                process["program"][()].decode(),
            )  # fmt: skip
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a list of {kind} in HDF5 (.h5), or damaged ({error})") from error

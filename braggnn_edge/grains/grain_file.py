"""How grains are written, by the suffix of the file: our HDF5, CSV, HEXRD's ``grains.out``, and ImageD11's layouts.

ImageD11 has three: ``.map``, the grains; ``.flt``, their spots; ``.par``, the geometry.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import logm
from scipy.spatial.transform import Rotation

from braggnn_edge import __version__
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.hdf5 import writing_hdf5
from braggnn_edge.grains import columnfile
from braggnn_edge.grains.geometry import Floats
from braggnn_edge.grains.instrument import FROM_HEXRD
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.table import GRAIN_COLUMNS, GRAINS, SPOT_COLUMNS, SPOTS, GrainFlag
from braggnn_edge.peaks.peak_list import Column

#: What the file says of itself, and the version of what it holds. Version 1 had one standard deviation of the
#: orientation for all axes; what it does not know is NaN.
SCHEMA, VERSION = "braggnn-edge grains", 2
_READ = (1, VERSION)


@dataclass(frozen=True)
class Result:
    """Grains, rows of GRAINS; spots, rows of SPOTS; names of lists and panels; what the result depends on, as JSON.

    scene: all spots and the geometry, None where the grains were read from a file.
    """

    grains: NDArray[np.void]
    spots: NDArray[np.void]
    lists: tuple[str, ...] = ()
    panels: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    scene: Scene | None = None


Writer = Callable[[Path, Result], None]


def check(outputs: Sequence[Path], scene: Scene) -> None:
    """UserError where an output cannot hold this geometry: said before anything is searched."""
    for path in outputs:
        if path.suffix in (".flt", ".par"):
            columnfile.check(scene, path)


def writers(paths: Sequence[Path]) -> tuple[tuple[Path, Writer], ...]:
    """The outputs of the command with what writes them; UserError for names that cannot be written."""
    outputs = []
    for path in paths:
        writer = LAYOUTS.get(path.suffix)
        if writer is None:
            raise UserError(f"output {path}: its suffix stands for no layout; expected one of {', '.join(LAYOUTS)}")
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise UserError(f"output {path}: expected the name of a file in a folder that exists")
        outputs.append((path, writer))
    if len({path.absolute() for path in paths}) < len(outputs):
        raise UserError("two outputs have the same name; give each its own")
    return tuple(outputs)


def _hdf5(path: Path, result: Result) -> None:
    with writing_hdf5(path, track_order=True) as (file, _):
        file.attrs.update({"NX_class": "NXroot", "default": "entry", "schema": SCHEMA, "version": VERSION})
        entry = _group(file, "entry", "NXentry", default="grains")
        grains = _group(entry, "grains", "NXdata", signal="relative_volume", axes=".")
        spots = _group(entry, "spots", "NXdata", signal="residual_row", axes=".")
        _columns(grains, GRAIN_COLUMNS, result.grains)
        _columns(spots, SPOT_COLUMNS, result.spots)
        grains["flags"].attrs["flag_masks"] = np.array([flag.value for flag in GrainFlag], "u4")
        grains["flags"].attrs["flag_meanings"] = " ".join(str(flag.name) for flag in GrainFlag)
        spots.attrs["lists"], spots.attrs["panels"] = list(result.lists), list(result.panels)
        process = _group(entry, "process", "NXprocess")
        process["program"], process["version"] = "braggnn-edge grains", __version__
        process["settings"] = json.dumps(result.settings, sort_keys=True)
        process["settings"].attrs["long_name"] = "what the grains depend on, in JSON"


def _group(parent: h5py.Group, name: str, kind: str, **attributes: Any) -> h5py.Group:
    group = parent.create_group(name, track_order=True)
    group.attrs.update({"NX_class": kind, **attributes})
    return group


def _columns(group: h5py.Group, columns: Sequence[Column], rows: NDArray[np.void]) -> None:
    for name, kind, unit, meaning in columns:
        data = group.create_dataset(name, data=rows[name].astype(kind))
        data.attrs.update({"units": unit, "long_name": meaning})


def _csv(path: Path, result: Result) -> None:
    """All columns of the grains by their names; numbers in full precision."""
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as stream:
        stream.write(",".join(GRAINS.names or ()) + "\n")
        stream.writelines(",".join(map(str, row)) + "\n" for row in result.grains.tolist())


def matrices(rows: NDArray[np.void], name: str) -> Floats:
    """(n, 3, 3): the matrix whose elements are the columns ``name`` 11 to 33."""
    return np.stack([rows[f"{name}{i}{j}"] for i in (1, 2, 3) for j in (1, 2, 3)], -1).reshape(-1, 3, 3)


def positions(rows: NDArray[np.void]) -> Floats:
    """(n, 3) um."""
    return np.stack([rows[f"position_{axis}"] for axis in "xyz"], -1)


def stretches(rows: NDArray[np.void]) -> Floats:
    """(n, 3, 3): V = 1 + strain."""
    s = {name: rows[f"strain_{name}"] for name in ("xx", "yy", "zz", "yz", "xz", "xy")}
    lines = (("xx", "xy", "xz"), ("xy", "yy", "yz"), ("xz", "yz", "zz"))
    return np.stack([s[name] for line in lines for name in line], -1).reshape(-1, 3, 3) + np.eye(3)


def _hexrd(path: Path, result: Result) -> None:
    """HEXRD's table of grains, in its own axes: mm, rotation vectors, inverse and logarithm of the stretch."""
    root = np.sqrt(2)
    names = ["grain ID", "completeness", "chi^2", *(f"exp_map_c[{i}]" for i in range(3))]
    names += [f"t_vec_c[{i}]" for i in range(3)]
    places = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    names += [f"inv(V_s)[{i},{j}]" + ("*sqrt(2)" if i != j else "") for i, j in places]
    names += [f"ln(V_s)[{i},{j}]" for i, j in places]
    turns, places_mm = matrices(result.grains, "u"), positions(result.grains) / 1e3
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as stream:
        stream.write("# " + "  ".join(f"{name:<22}" for name in names).rstrip() + "\n")
        for row, turn, place, stretch in zip(result.grains, turns, places_mm, stretches(result.grains), strict=True):
            v = FROM_HEXRD.T @ stretch @ FROM_HEXRD
            inverse, log = np.linalg.inv(v), np.real(logm(v))
            numbers = [*Rotation.from_matrix(FROM_HEXRD.T @ turn).as_rotvec(), *(FROM_HEXRD.T @ place)]
            numbers += [inverse[i, j] * (root if i != j else 1) for i, j in places]
            numbers += [log[i, j] for i, j in places]
            start = f"{row['grain']:<12d}  {row['completeness']:<12f}  {row['chi2']:<12e}  "
            stream.write(start + "  ".join(f"{number:<23.16e}" for number in numbers).rstrip() + "\n")


def _flt(path: Path, result: Result) -> None:
    columnfile.write_flt(path, _scene(path, result), result.spots)


def _par(path: Path, result: Result) -> None:
    columnfile.write_par(path, _scene(path, result))


def _scene(path: Path, result: Result) -> Scene:
    if result.scene is None:
        raise UserError(f"output {path}: the spots and the geometry of these grains are not known")
    return result.scene


def _imaged11(path: Path, result: Result) -> None:
    """ImageD11's list of grains: translation in um, and the inverse of UB."""
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as stream:
        for row, ub, place in zip(result.grains, matrices(result.grains, "ub"), positions(result.grains), strict=True):
            stream.write("#translation: {:.6f} {:.6f} {:.6f}\n".format(*place))
            stream.write(f"#name {row['grain']}\n#npks {row['spots']}\n#UBI:\n")
            for line in np.linalg.inv(ub):
                stream.write("{:.9g} {:.9g} {:.9g}\n".format(*line))
            stream.write("\n")


def load(path: Path) -> Result:
    """Read grains from our HDF5. Raises UserError for a file that is missing, or holds something else."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; make it with `braggnn-edge grains`")
    try:
        with h5py.File(path) as file:
            schema, version = file.attrs.get("schema"), file.attrs.get("version")
            if schema != SCHEMA or version not in _READ:
                held = "no table of grains" if schema is None else f"{schema!r} of version {version}"
                raise UserError(
                    f"{path}: is {held}; expected {SCHEMA!r} of version {VERSION}: make it with `braggnn-edge grains`"
                )
            found: Mapping[str, NDArray[np.void]] = {
                "grains": np.empty(len(file["entry/grains/grain"]), GRAINS),
                "spots": np.empty(len(file["entry/spots/grain"]), SPOTS),
            }
            for group, rows in found.items():
                for name in rows.dtype.names or ():
                    old = version == 1 and name.startswith("sigma_orientation")
                    rows[name] = np.nan if old else file["entry"][group][name][:]
            about = file["entry/spots"].attrs
            return Result(
                found["grains"], found["spots"], tuple(map(str, about["lists"])), tuple(map(str, about["panels"])),
                json.loads(file["entry/process/settings"][()]),
            )  # fmt: skip
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a table of grains, or damaged ({error})") from error


#: Layouts by suffix.
LAYOUTS: Mapping[str, Writer] = {
    **dict.fromkeys((".h5", ".hdf5", ".nxs"), _hdf5), ".csv": _csv, ".out": _hexrd, ".map": _imaged11,
    ".flt": _flt, ".par": _par,
}  # fmt: skip

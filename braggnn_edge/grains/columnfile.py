"""Spots and geometry in the layouts of ImageD11: the table of spots ``.flt`` and the parameters ``.par``.

The two go with ``.map``, the list of grains: ImageD11 reads all three, and computes the vectors that we have. Flips of
``--flip`` are done already in the table's positions. The program itself is not needed, and nothing of it is used.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.grains.instrument import to_keys
from braggnn_edge.grains.match import Scene


def check(scene: Scene, path: Path) -> None:
    """UserError where the instrument cannot be written with keys of ImageD11, before anything is searched."""
    try:
        to_keys(scene.instrument)
    except UserError as error:
        raise UserError(f"output {path}: {error}; write .h5, .csv, .out or .map") from error


def write_par(path: Path, scene: Scene) -> None:
    """Geometry and cell, a key a line; lengths in um."""
    cell = scene.lattice.cell
    names = ("cell__a", "cell__b", "cell__c", "cell_alpha", "cell_beta", "cell_gamma")
    values: dict[str, object] = {
        **to_keys(scene.instrument), "t_x": 0.0, "t_y": 0.0, "t_z": 0.0, "fit_tolerance": 0.05,
        **dict(zip(names, cell, strict=True)), "cell_lattice_[P,A,B,C,I,F,R]": scene.lattice.centring,
    }  # fmt: skip
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as stream:
        stream.writelines(f"{key} {value}\n" for key, value in sorted(values.items()))


def write_flt(path: Path, scene: Scene, owned: NDArray[np.void]) -> None:
    """All spots that were used, one a line, with the grain and hkl of those that have them.

    owned: rows of :data:`braggnn_edge.grains.table.SPOTS`. The columns are positions, vectors (of a grain at the
    origin), the row of the list that a spot stands in (``spot3d_id``), and its grain (``labels``, -1: none).
    """
    spots = scene.spots
    names = ("labels", "h", "k", "l")
    own = {name: np.full(len(spots), -1 if name == "labels" else 0) for name in names}
    row_of = np.full(int(spots.reflection.max(initial=-1)) + 1, -1)
    row_of[spots.reflection] = np.arange(len(spots))
    at = row_of[owned["reflection"]]
    for name in names:
        own[name][at] = owned["grain" if name == "labels" else name]
    xyz, vectors = 1e3 * scene.xyz, scene.reciprocal
    columns = {
        "sc": ("%.6f", spots.row), "fc": ("%.6f", spots.col), "omega": ("%.6f", np.degrees(spots.omega)),
        "sum_intensity": ("%.6g", spots.intensity), "sigma_s": ("%.5f", spots.sigma_row),
        "sigma_f": ("%.5f", spots.sigma_col), "spot3d_id": ("%d", spots.reflection),
        **{f"{axis}l": ("%.6f", xyz[:, number]) for number, axis in enumerate("xyz")},
        **{f"g{axis}": ("%.9f", vectors[:, number]) for number, axis in enumerate("xyz")},
        **{name: ("%d", own[name]) for name in names},
    }  # fmt: skip
    line = " ".join(form for form, _ in columns.values()) + "\n"
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as stream:
        stream.write("# " + " ".join(columns) + "\n")
        values = [column.tolist() for _, column in columns.values()]
        stream.writelines(line % numbers for numbers in zip(*values, strict=True))

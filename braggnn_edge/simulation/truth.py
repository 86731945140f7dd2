"""The truth table of a simulated scan: which spot is where in which frame, and which of them a found peak is."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit import cramer_rao
from braggnn_edge.fit.pseudo_voigt import PARAMETERS
from braggnn_edge.frames.formats.hdf5_tree import find_dataset, open_hdf5
from braggnn_edge.simulation.reflections import REFLECTION_DTYPE

#: One row a spot and frame. reflection: row of the table of reflections; grain: -1 where there is none; row, col:
#: centre in px; amplitude: height of the profile above the background, in counts;
#: tilt: radians in [0, pi), from +col towards +row; background: the smooth background there, in counts; total:
#: expected counts above it; saturated: the pixel at its centre is expected at saturation; neighbour: distance in px to
#: the nearest other spot of the table in its frame (inf if none).
_FLOATS = ("amplitude", "fwhm_major", "fwhm_minor", "tilt", "eta", "background", "total", "neighbour")
TRUTH_DTYPE = np.dtype(
    [
        *(("frame", "i4"), ("reflection", "i4"), ("grain", "i4"), ("row", "f8"), ("col", "f8"), ("saturated", "?")),
        *((name, "f4") for name in _FLOATS),
    ]
)
#: Truth farther than this from the brightest pixel is another spot's, px.
RADIUS = 2.5


def read_truth(path: Path) -> np.ndarray:
    """The truth table of a simulated scan (:data:`TRUTH_DTYPE`), by frame."""
    truth = _read(path, "", TRUTH_DTYPE)
    return truth[np.argsort(truth["frame"], kind="stable")]


def read_reflections(path: Path) -> np.ndarray:
    """The reflections of a simulated scan, from the file of its truth table.

    They are rows of :data:`braggnn_edge.simulation.reflections.REFLECTION_DTYPE`: the true place and omega of each
    one, its intensity, and its grain and indices. ``reflection`` in the truth table is a row of this one.
    """
    return _read(path, "reflections/", REFLECTION_DTYPE)


def _read(path: Path, group: str, kind: np.dtype) -> np.ndarray:
    with open_hdf5(path) as file:
        columns = {name: find_dataset(path, file, group + name)[:] for name in kind.names or ()}
    if len({column.shape for column in columns.values()}) != 1:
        raise UserError(f"{path}: columns differ in length; the truth table is damaged, simulate again")
    table = np.empty(len(next(iter(columns.values()))), kind)
    for name, column in columns.items():
        table[name] = column
    return table


def of_frame(truth: np.ndarray, frame: int) -> np.ndarray:
    """The rows of one frame."""
    low, high = np.searchsorted(truth["frame"], (frame, frame + 1))
    return truth[low:high]


def spot_of(rows: NDArray, cols: NDArray, spots: np.ndarray) -> NDArray[np.int64]:
    """(n,) index into ``spots`` of the one that gives most counts to each of the pixels (rows, cols) (n,); -1: none.

    Spots are those of the pixels' frame, and taken as Gaussians; one farther than RADIUS explains no pixel.
    """
    found = np.full(len(rows), -1)
    if len(rows) == 0 or len(spots) == 0:
        return found
    pixels = cKDTree(np.stack([rows, cols], axis=1).astype(np.float64))
    near = pixels.sparse_distance_matrix(
        cKDTree(np.stack([spots["row"], spots["col"]], axis=1)), RADIUS, output_type="ndarray"
    )
    spot = spots[near["j"]]
    width2 = spot["fwhm_major"] * spot["fwhm_minor"]
    share = spot["amplitude"] * np.exp(-4 * np.log(2) * near["v"] ** 2 / width2)
    # Written from the smallest share to the largest, the first spot last among equals.
    order = np.lexsort((-near["j"], share))
    found[near["i"][order]] = near["j"][order]
    return found


def assign(
    peaks: NDArray[np.void],
    spots: np.ndarray,
    *,
    size: int,
    gain: float,
    read_noise: float,
    saturation: float | None,
    zero_suppression: float | None,
) -> None:
    """Fill truth_* and bound_* of one frame's rows of the peak table from the spots of that frame.

    The bound is that of the spot alone in a patch of ``size`` px around the pixel (row, col); rows that no spot
    explains have NaN, and -1 as their reflection.
    """
    for name in ("truth_row", "truth_col", "bound_var_row", "bound_cov_row_col", "bound_var_col"):
        peaks[name] = np.nan
    peaks["truth_reflection"] = -1
    chosen = spot_of(peaks["row"], peaks["col"], spots)
    target = np.flatnonzero(chosen >= 0)
    if len(target) == 0:
        return
    spot = spots[chosen[target]]
    for name in ("row", "col", "reflection"):
        peaks[f"truth_{name}"][target] = spot[name]
    parameters = np.stack([spot[name] for name in PARAMETERS], axis=1).astype(np.float64)
    parameters[:, 0] -= peaks["row"][target] - size // 2
    parameters[:, 1] -= peaks["col"][target] - size // 2
    bound = cramer_rao.position_bound(
        torch.from_numpy(parameters),
        size,
        gain=gain,
        read_noise=read_noise,
        saturation=saturation,
        zero_suppression=zero_suppression,
    )
    peaks["bound_var_row"][target] = bound[:, 0, 0]
    peaks["bound_cov_row_col"][target] = bound[:, 0, 1]
    peaks["bound_var_col"][target] = bound[:, 1, 1]

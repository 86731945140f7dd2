"""Tables of grains and of their spots: the columns, their units, and how they are filled."""

import enum

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.geometry import Floats
from braggnn_edge.grains.grains import Grains
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.refine import Grain
from braggnn_edge.peaks.peak_list import Column

#: Below these a grain is marked: degrees of the scan, spots, completeness; above this: reduced chi square.
NARROW_SCAN, FEW_SPOTS, LEAST_COMPLETENESS, MOST_CHI2 = 90.0, 30, 0.7, 4.0


class GrainFlag(enum.IntFlag):
    """The bits of the column ``flags``."""

    NARROW = 1 << 0  #: the scan covers less than 90 degrees
    FEW = 1 << 1  #: fewer than 30 spots
    INCOMPLETE = 1 << 2  #: completeness below 0.7
    POOR = 1 << 3  #: reduced chi square above 4


#: What a flag says, in words behind a number of grains.
FLAG_WORDS = {
    GrainFlag.NARROW: f"of a scan of less than {NARROW_SCAN:.0f} degrees: some directions are hardly known",
    GrainFlag.FEW: f"with fewer than {FEW_SPOTS} spots: they rest on little",
    GrainFlag.INCOMPLETE: (
        f"with less than {LEAST_COMPLETENESS:.0%} of the spots that they should have: faint spots of small grains lie "
        "below the threshold of `locate`; one with few spots may be no grain"
    ),
    GrainFlag.POOR: (
        f"with a reduced chi square above {MOST_CHI2:g}: their spots fit worse than those of the others, as where two "
        "grains are taken for one"
    ),
}

_XYZ = ("x", "y", "z")
_PLACES = [(i, j) for i in range(3) for j in range(3)]
_STRAINS = (("xx", 0, 0), ("yy", 1, 1), ("zz", 2, 2), ("yz", 1, 2), ("xz", 0, 2), ("xy", 0, 1))

#: The columns of a table of grains.
GRAIN_COLUMNS: tuple[Column, ...] = (
    Column("grain", "i4", "1", "its number, from 0"),
    *(Column(f"position_{axis}", "f8", "um", "of the grain in the sample") for axis in _XYZ),
    *(Column(f"sigma_position_{axis}", "f8", "um", "standard deviation of the position") for axis in _XYZ),
    *(Column(f"u{i + 1}{j + 1}", "f8", "1", "orientation, crystal to sample") for i, j in _PLACES),
    *(
        Column(f"sigma_orientation_{axis}", "f8", "deg", "standard deviation of a turn about this axis of the sample")
        for axis in _XYZ
    ),
    *(
        Column(f"strain_{name}", "f8", "1", "relative to the cell that was given, sample axes")
        for name, _, _ in _STRAINS
    ),
    *(Column(f"sigma_strain_{name}", "f8", "1", "standard deviation of the strain") for name, _, _ in _STRAINS),
    *(Column(f"ub{i + 1}{j + 1}", "f8", "1/angstrom", "reflection hkl to its vector, sample axes") for i, j in _PLACES),
    Column("relative_volume", "f8", "1", "from intensities; that of the median grain is 1"),
    Column("size", "f8", "um", "diameter of a ball of the grain's volume; NaN where no volume is given"),
    Column("spots", "i4", "1", "spots that it was refined from"),
    Column("completeness", "f8", "1", "share of the expected spots that are found, on the rings that are seen"),
    Column("chi2", "f8", "1", "reduced chi square of the refinement"),
    Column("rms_row", "f8", "px", "root mean square of computed minus measured"),
    Column("rms_col", "f8", "px", "root mean square of computed minus measured"),
    Column("rms_omega", "f8", "deg", "root mean square of computed minus measured, times |sin eta|"),
    Column("flags", "u4", "1", "bits: what is special about the grain"),
)

#: The columns of the table of spots, by grain.
SPOT_COLUMNS: tuple[Column, ...] = (
    Column("grain", "i4", "1", "the grain's number"),
    Column("list", "i4", "1", "number of the list of reflections, from 0; their names are an attribute"),
    Column("reflection", "i8", "1", "row of that list, from 0"),
    Column("panel", "i4", "1", "number of the panel, from 0; their names are an attribute"),
    *(Column(name, "i4", "1", "index of the reflection") for name in "hkl"),
    Column("residual_row", "f8", "px", "computed minus measured"),
    Column("residual_col", "f8", "px", "computed minus measured"),
    Column("residual_omega", "f8", "deg", "computed minus measured"),
)

GRAINS = np.dtype([(column.name, column.kind) for column in GRAIN_COLUMNS])
SPOTS = np.dtype([(column.name, column.kind) for column in SPOT_COLUMNS])


def tables(scene: Scene, found: Grains, volumes: Floats, um: float) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Rows of :data:`GRAINS` and :data:`SPOTS` of refined grains.

    volumes: relative ones; um: diameter of a grain with the relative volume 1.
    """
    rows = np.zeros(len(found.grains), GRAINS)
    spots = [_spots(scene, grain, number) for grain, number in zip(found.grains, found.numbers, strict=True)]
    for row, grain in zip(rows, found.grains, strict=True):
        _fill(row, grain, scene.lattice)
    rows["grain"], rows["completeness"] = found.numbers, found.completeness
    rows["relative_volume"], rows["size"] = volumes, um * np.cbrt(volumes)
    marks = (
        (GrainFlag.NARROW, np.full(len(rows), scene.spots.covered < NARROW_SCAN)),
        (GrainFlag.FEW, rows["spots"] < FEW_SPOTS),
        (GrainFlag.INCOMPLETE, rows["completeness"] < LEAST_COMPLETENESS),
        (GrainFlag.POOR, rows["chi2"] > MOST_CHI2),
    )
    for flag, which in marks:
        rows["flags"][which] |= np.uint32(flag)
    return rows, np.concatenate([np.empty(0, SPOTS), *spots])


def _fill(row: np.void, grain: Grain, lattice: Lattice) -> None:
    turn, strain = lattice.orientation_and_strain(grain.ub)
    spread = np.sqrt(np.maximum(np.diag(grain.covariance), 0))
    sigma_turn, sigma_strain = _propagated(grain, lattice)
    for number, axis in enumerate(_XYZ):
        row[f"position_{axis}"], row[f"sigma_position_{axis}"] = 1e3 * grain.position[number], 1e3 * spread[number]
        row[f"sigma_orientation_{axis}"] = np.degrees(sigma_turn[number])
    for i, j in _PLACES:
        row[f"u{i + 1}{j + 1}"], row[f"ub{i + 1}{j + 1}"] = turn[i, j], grain.ub[i, j]
    for (name, i, j), sigma in zip(_STRAINS, sigma_strain, strict=True):
        row[f"strain_{name}"], row[f"sigma_strain_{name}"] = strain[i, j], sigma
    row["spots"], row["chi2"] = len(grain.spots), grain.chi2
    rms = np.sqrt(np.square(grain.residual * np.stack([np.ones_like(grain.lorentz)] * 2 + [grain.lorentz], 1)).mean(0))
    row["rms_row"], row["rms_col"], row["rms_omega"] = rms[0], rms[1], np.degrees(rms[2])


def _propagated(grain: Grain, lattice: Lattice) -> tuple[Floats, Floats]:
    """Standard deviations of the turns about x, y and z (3,) in radians, and of the six strains (6,)."""
    turn, strain = lattice.orientation_and_strain(grain.ub)
    step = 1e-6 * float(np.linalg.norm(grain.ub))
    slopes = np.empty((9, 9))
    for number in range(9):
        moved = grain.ub.copy()
        moved.flat[number] += step
        other, stretched = lattice.orientation_and_strain(moved)
        small = other @ turn.T  # a small rotation: its axis and angle stand off the diagonal
        slopes[:3, number] = [small[2, 1] - small[1, 2], small[0, 2] - small[2, 0], small[1, 0] - small[0, 1]]
        slopes[:3, number] /= 2 * step
        slopes[3:, number] = [(stretched - strain)[i, j] / step for _, i, j in _STRAINS]
    spread = np.sqrt(np.maximum(np.diag(slopes @ grain.covariance[3:, 3:] @ slopes.T), 0))
    return spread[:3], spread[3:]


def _spots(scene: Scene, grain: Grain, number: int) -> NDArray[np.void]:
    rows = np.zeros(len(grain.spots), SPOTS)
    rows["grain"] = number
    rows["list"], rows["reflection"] = scene.spots.file[grain.spots], scene.spots.reflection[grain.spots]
    rows["panel"] = scene.spots.panel[grain.spots]
    rows["h"], rows["k"], rows["l"] = scene.hkl[grain.reflection].T
    rows["residual_row"], rows["residual_col"] = grain.residual[:, 0], grain.residual[:, 1]
    rows["residual_omega"] = np.degrees(grain.residual[:, 2])
    return rows

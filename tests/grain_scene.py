"""A scan of simulated grains as the label stage leaves it: a table of peaks with patches, without frames or fits."""

import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from braggnn_edge.grains import grain_file, instrument
from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.forward import spots_of
from braggnn_edge.grains.grain_file import Result
from braggnn_edge.grains.table import GRAINS, SPOTS
from braggnn_edge.peaks import table

GOLD, PIXEL, WAVELENGTH, ROWS, STEP = Lattice((4.0782,) * 3 + (90.0,) * 3, "F"), 0.2, 0.172979, 1024, 0.25
INSTRUMENT = {
    "distance": 500e3, "y_center": 512.0, "z_center": 512.0, "y_size": 200.0, "z_size": 200.0, "tilt_x": 0.005,
    "tilt_y": 0.01, "tilt_z": -0.007, "o11": -1.0, "o22": -1.0, "wavelength": WAVELENGTH,
}  # fmt: skip
#: Standard deviation of a spot on the detector, px, and of its rocking curve, degrees.
_WIDTH, _ROCKING = 1.0, 0.2


def true_grains(count: int, seed: int = 1) -> np.ndarray:
    """Rows of GRAINS."""
    rng = np.random.default_rng(seed)
    turns = Rotation.random(count, random_state=seed).as_matrix()
    strain = 2e-4 * rng.standard_normal((count, 3, 3))
    strain = (strain + strain.swapaxes(1, 2)) / 2
    ub = np.linalg.inv((np.eye(3) + strain) @ turns @ GOLD.a_matrix).swapaxes(1, 2)
    place = rng.uniform([-300, -300, -100], [300, 300, 100], (count, 3))
    rows = np.zeros(count, GRAINS)
    rows["grain"] = np.arange(count)
    for i in range(3):
        rows[f"position_{'xyz'[i]}"] = place[:, i]
        for j in range(3):
            rows[f"u{i + 1}{j + 1}"], rows[f"ub{i + 1}{j + 1}"] = turns[:, i, j], ub[:, i, j]
    for name, i, j in (("xx", 0, 0), ("yy", 1, 1), ("zz", 2, 2), ("yz", 1, 2), ("xz", 0, 2), ("xy", 0, 1)):
        rows[f"strain_{name}"] = strain[:, i, j]
    rows["size"] = 60 * np.exp(0.35 * rng.standard_normal(count))
    return rows


def write(run: Path, name: str, count: int, error: float = 0.05, seed: int = 1, shift: int = 1) -> np.ndarray:
    """``data`` and ``label`` of a run, whose fit is the truth with normal errors of ``error`` px; the true grains."""
    rng = np.random.default_rng(seed)
    rows = true_grains(count, seed)
    geometry = instrument.from_keys(INSTRUMENT)
    geometry = replace(geometry, panels=(replace(geometry.panels[0], rows=ROWS, cols=ROWS),))
    hkl = GOLD.reflections(2 * np.sin(0.2 / 2) / WAVELENGTH)
    parts, first = [], 0
    for number, (ub, place) in enumerate(zip(grain_file.matrices(rows, "ub"), grain_file.positions(rows), strict=True)):
        seen = spots_of(geometry, ub, place / 1e3, hkl, margin=12)
        vectors = (hkl @ ub.T)[seen.reflection]
        lorentz = geometry.lorentz(vectors, seen.omega)
        length = np.linalg.norm(vectors, axis=1)
        height = 4000 * (rows["size"][number] / 60) ** 3 * np.exp(-length) / lorentz
        middle, width = np.degrees(seen.omega) % 360, _ROCKING / lorentz
        for away in range(-12, 13):
            frame = np.floor(middle / STEP).astype(int) + away
            share = np.exp(-0.5 * ((frame + 0.5) * STEP - middle) ** 2 / width**2)
            one = np.stack([frame % 1440, seen.row, seen.col, height * share, first + np.arange(len(middle))], 1)
            parts.append(one[height * share > 60])
        first += len(middle)
    spots = np.concatenate(parts)
    spots = spots[np.lexsort((spots[:, 2], spots[:, 1], spots[:, 0]))]
    _save(run, name, spots, error, rng, shift)
    data = run / "data"
    total = Result(rows, np.zeros(0, SPOTS), (), ("panel",), {})
    grain_file.LAYOUTS[".h5"](data / f"{name}_grains.h5", total)
    (data / f"{name}_instrument.toml").write_text("".join(f"{key} = {value}\n" for key, value in INSTRUMENT.items()))
    return rows


def _save(run: Path, name: str, spots: np.ndarray, error: float, rng: np.random.Generator, shift: int) -> None:
    size, side = 11, 11 + 2 * shift
    row, col = spots[:, 1], spots[:, 2]
    pixel = np.round(spots[:, 1:3]).astype(int)
    steps = np.arange(side) - side // 2
    down = np.exp(-0.5 * (pixel[:, :1] + steps - row[:, None]) ** 2 / _WIDTH**2)
    right = np.exp(-0.5 * (pixel[:, 1:] + steps - col[:, None]) ** 2 / _WIDTH**2)
    crops = rng.poisson(20 + spots[:, 3, None, None] * down[:, :, None] * right[:, None, :]).astype("u2")
    peaks = np.zeros(len(spots), table.PEAK)
    peaks["frame"], peaks["row"], peaks["col"], peaks["area"] = spots[:, 0], pixel[:, 0], pixel[:, 1], 9
    peaks["maximum"], peaks["maxima"] = crops.max((1, 2)), 1
    sigma = error * np.exp(0.5 * rng.standard_normal(len(spots)))
    for axis, place in (("row", row), ("col", col)):
        peaks[f"truth_{axis}"], peaks[f"voigt_{axis}"] = place, place + sigma * rng.standard_normal(len(spots))
        peaks[f"voigt_var_{axis}"] = sigma**2
    peaks["voigt_converged"], peaks["truth_reflection"] = True, spots[:, 4]
    lost = np.arange(len(peaks)) % 50 == 0  # fits that did not converge; their columns mean nothing
    peaks["voigt_converged"][lost], peaks["voigt_row"][lost], peaks["voigt_var_row"][lost] = False, np.nan, -1.0
    for folder in ("data", "label"):
        (run / folder).mkdir(parents=True)
    with table.writing(run / "label/peaks.h5", (name,), size, shift, "u2") as append:
        append(peaks, crops)
    with h5py.File(run / f"data/{name}.h5", "w") as file:  # its pixels are never read
        frames = file.create_dataset("frames", (1440, ROWS, ROWS), "u1", chunks=(1, ROWS, ROWS), compression="gzip")
        empty = zlib.compress(bytes(ROWS * ROWS))
        for frame in range(1440):
            frames.id.write_direct_chunk((frame, 0, 0), empty)

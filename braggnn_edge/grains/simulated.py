"""Stage "data", and the files of simulated grains: their truth, as `braggnn-edge grains` writes grains, and geometry.

Both lie beside the frames of a scan NAME: ``NAME_grains.h5``, which :func:`braggnn_edge.grains.grain_file.load` reads,
and ``NAME_instrument.toml``, which ``--instrument`` takes.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.files import written_aside
from braggnn_edge.core.stages import Context
from braggnn_edge.grains.grain_file import LAYOUTS, Result
from braggnn_edge.grains.table import FEW_SPOTS, GRAINS, NARROW_SCAN, SPOTS, GrainFlag
from braggnn_edge.label import acquisition
from braggnn_edge.label.acquisition import seed_of
from braggnn_edge.simulation.grains import SimulatedGrains, draw_grains, instrument_file
from braggnn_edge.simulation.spec import SimulationSpec
from braggnn_edge.simulation.truth import read_reflections


def work(context: Context, directory: Path) -> None:
    """The stage: all scans (:mod:`braggnn_edge.label.acquisition`), and the grains of those that have some."""
    acquisition.work(context, directory)
    for index, scan in enumerate(context.cfg["scan"]):
        if scan.format == "simulated" and scan.simulate.grains is not None:
            for line in save(scan.simulate, seed_of(context.cfg.seed, index), directory, scan.name):
                context.say(f"  {scan.name}: {line}")


def save(spec: SimulationSpec, seed: int, directory: Path, name: str) -> list[str]:
    """Write grains and instrument of the scan ``name``, whose truth is in the directory; returns lines for the user."""
    if spec.grains is None:
        raise ValueError(f"scan {name} has no grains")
    reflections = read_reflections(directory / f"{name}_truth.h5")
    grains = draw_grains(spec.grains, seed)
    result = Result(
        table_of(spec, grains, reflections),
        spots_of(spec, reflections),
        (f"{name}_truth.h5",),
        ("panel",),
        {"simulated": asdict(spec), "seed": seed},
    )
    LAYOUTS[".h5"](directory / f"{name}_grains.h5", result)
    with written_aside(directory / f"{name}_instrument.toml") as aside:
        aside.write_text(instrument_file(spec), encoding="utf-8")
    turn = spec.frames * spec.omega_step
    lattice = " ".join(f"{value:g}" for value in spec.grains.lattice)
    lines = [
        f"{len(grains)} grains with {len(result.spots) / len(grains):.0f} spots each, up to {spec.grains.reach:.2f} mm "
        f"from the origin; to find them: braggnn-edge grains ... --instrument {name}_instrument.toml --lattice "
        f"{lattice} --centring {spec.grains.centring} --sample {max(0.5, spec.grains.reach):.2g}"
    ]
    if turn < NARROW_SCAN:
        lines.append(
            f"its {turn:g} degrees are few: the strain and the position of a grain are hardly known in some directions "
            "(marked NARROW)"
        )
    return lines


def table_of(spec: SimulationSpec, grains: SimulatedGrains, reflections: NDArray[np.void]) -> NDArray[np.void]:
    """The true grains as rows of :data:`braggnn_edge.grains.table.GRAINS`, with standard deviations and residuals of 0.

    relative_volume: that of the median grain is 1; spots: on the panel, in the scan.
    """
    rows = np.zeros(len(grains), GRAINS)
    rows["grain"] = np.arange(len(grains))
    strain = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}
    for place, axis in enumerate("xyz"):
        rows[f"position_{axis}"] = 1e3 * grains.position[:, place]
    for name, (i, j) in strain.items():
        rows[f"strain_{name}"] = grains.strain[:, i, j]
    for i in range(3):
        for j in range(3):
            rows[f"u{i + 1}{j + 1}"] = grains.orientation[:, i, j]
            rows[f"ub{i + 1}{j + 1}"] = grains.ub[:, i, j]
    rows["size"] = grains.size
    rows["relative_volume"] = (grains.size / np.median(grains.size)) ** 3
    rows["spots"] = np.bincount(spots_of(spec, reflections)["grain"], minlength=len(grains))
    rows["completeness"] = 1.0
    rows["flags"] = np.where(spec.frames * spec.omega_step < NARROW_SCAN, np.uint32(GrainFlag.NARROW), 0)
    rows["flags"] |= np.where(rows["spots"] < FEW_SPOTS, np.uint32(GrainFlag.FEW), 0).astype("u4")
    return rows


def spots_of(spec: SimulationSpec, reflections: NDArray[np.void]) -> NDArray[np.void]:
    """Rows of SPOTS of the reflections whose centre is on the panel, in the scan; ``reflection`` is a row of theirs."""
    row, col = reflections["row"], reflections["col"]
    seen = (row > -0.5) & (row < spec.rows - 0.5) & (col > -0.5) & (col < spec.cols - 0.5)
    which = np.flatnonzero(seen & (reflections["omega"] <= spec.frames * spec.omega_step))
    spots = np.zeros(len(which), SPOTS)
    spots["reflection"] = which
    for name in ("grain", "h", "k", "l"):
        spots[name] = reflections[name][which]
    return spots

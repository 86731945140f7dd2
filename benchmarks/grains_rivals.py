"""Our refinement of grains against those of ImageD11 and MIDAS on the same spots: errors to the truth, and times.

    python benchmarks/grains_rivals.py [--grains 50] [--work FOLDER] [--output benchmarks/grains_rivals.json]

Grains of gold as in benchmarks/grains_simulated.py, on a panel without tilts: MIDAS refines in the frame of an ideal
detector, to which spots of a tilted one are brought as if all grains were on the axis. Errors of 0.1 px in row and col,
0.01 degrees over |sin eta| in omega. All programs have the same spots, the same geometry and one thread. Times are
processor time.

- *alone*: each program finds its grains and refines them.
- *from the same start*: the orientations that our indexer finds, each at the origin, refined by each program. MIDAS is
  told which spots belong to a grain as that is its interface; ours and ImageD11 assign them.
- *uneven errors*: the same, where the errors' standard deviation differs from spot to spot (log-normal, its logarithm
  with a standard deviation of 0.8), as those of bright and faint spots do. Ours is told it; the programs of the others
  that are called here have no such input.

ImageD11 (GPL) needs the extra `imaged11`, MIDAS (midas-index and midas-fit-grain, BSD) the extra `benchmark`; what is
not installed is said in the table. Nothing was tuned beyond tolerances that hold the sample. ImageD11's refinement is
`makemap` by `grid_index_parallel.domap`, which refines twelve numbers against g vectors without weights. MIDAS' is its
compiled program, in stages of a derivative-free search. The command `midas-fit-grain` says that it is retired and does
nothing, so the program is called as MIDAS' own pipeline does. Alone it refines from every spot of the first ring, some
fourteen times a grain, of which the best result is kept here.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from grains_simulated import GOLD, OMEGA_ERROR, PIXEL, STEP, WAVELENGTH, grains, listed, panel

from braggnn_edge.grains import columnfile, imaged11
from braggnn_edge.grains.grains import refined
from braggnn_edge.grains.index import IndexSpec, Seed, index
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.table import SPOTS

ROWS, DISTANCE, SAMPLE, ERROR = 1024, 500.0, 0.5, 0.1
A = GOLD.cell[0]
#: Grains, of UB and position in mm; and processor seconds of finding and refining them.
Found = tuple[list[tuple[np.ndarray, np.ndarray]], float, float]


def seconds() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def ours(scene: Scene, seeds: list[Seed] | None = None) -> Found:
    start = seconds()
    found = seeds or index(scene, IndexSpec())
    between = seconds()
    done = refined(scene, found, 20)
    return [(g.ub, g.position) for g in done.grains], between - start, seconds() - between


# --- ImageD11


def of_imaged11(scene: Scene, work: Path, seeds: list[Seed] | None = None) -> Found:
    modules = [importlib.import_module(f"ImageD11.{name}") for name in ("columnfile", "grain", "parameters")]
    columnfiles, grain, parameters = modules
    domap = importlib.import_module("ImageD11.grid_index_parallel").domap
    steps = importlib.import_module("ImageD11.refinegrains").refinegrains.stepsizes
    columnfile.write_flt(work / "gold.flt", scene, np.zeros(0, SPOTS))
    columnfile.write_par(work / "gold.par", scene)
    start = seconds()
    found = seeds or imaged11.index(scene, IndexSpec())
    between = seconds()
    with contextlib.redirect_stdout(io.StringIO()):
        spots, geometry = columnfiles.columnfile(str(work / "gold.flt")), parameters.parameters()
        geometry.loadparameters(str(work / "gold.par"))
        geometry.stepsizes.update(steps)
        spots.parameters = geometry
        spots.updateGeometry(geometry)
        for name, value in (("Number_of_pixels", 9.0), ("drlv2", 1.0)):
            spots.addcolumn(np.full(spots.nrows, value), name)
        given = [grain.grain(np.linalg.inv(seed.ub), translation=np.zeros(3)) for seed in found]
        how = {"NUL": False, "TOLSEQ": [0.05, 0.03, 0.02], "SYMMETRY": "cubic", "NPKS": 20,
               "OMEGAFLOAT": np.degrees(STEP) / 2}  # fmt: skip
        done = domap(geometry, spots, given, how)
    places = [(np.linalg.inv(one.ubi), np.asarray(one.translation) / 1e3) for one in done]
    return places, between - start, seconds() - between


# --- MIDAS

#: Settings of MIDAS beside the geometry, um and degrees: margins hold the sample; steps as its own benchmark has them.
MIDAS = {
    "Rsample": 600, "Hbeam": 400, "StepsizePos": 100, "StepsizeOrient": 0.2, "MarginOme": 0.5, "MarginRadius": 800,
    "MarginRadial": 800, "MarginEta": 800, "EtaBinSize": 0.5, "OmeBinSize": 0.5, "ExcludePoleAngle": 5,
    "MinMatchesToAcceptFrac": 0.5, "Completeness": 0.5, "UseFriedelPairs": 1, "MargABC": 0.3, "MargABG": 0.3,
    "WeightMask": 1.0, "WeightFitRMSE": 0.0,
}  # fmt: skip


def midas_command(package: str, name: str) -> Path:
    return Path(str(importlib.util.find_spec(package).submodule_search_locations[0])) / "bin" / name  # type: ignore


def _midas_run(program: Path, work: Path, seeds: int) -> str:
    """In the folder of its files, from which it reads some by their names alone."""
    words = [program, work / "paramstest.txt", 0, 1, seeds, 1]
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, cwd=work,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{program} failed with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def midas_files(scene: Scene, work: Path) -> np.ndarray:
    """Files of the spots, the reflections and the parameters; the numbers of the spots, from 1, to index from."""
    results = work / "Results"
    for folder in (work / "Output", results):
        folder.mkdir(parents=True, exist_ok=True)
    far = 1e3 * DISTANCE
    rings = sorted({round(float(length), 9) for length in scene.rings[0]})
    radius = {n + 1: far * np.tan(2 * np.arcsin(WAVELENGTH * length / 2)) for n, length in enumerate(rings)}
    with (work / "hkls.csv").open("w") as stream:
        stream.write("h k l D-spacing RingNr g1 g2 g3 Theta 2Theta Radius\n")
        for hkl, ring in zip(scene.hkl, scene.rings[1], strict=True):
            theta = np.degrees(np.arcsin(WAVELENGTH * rings[ring] / 2))
            g = GOLD.b_matrix @ hkl
            numbers = [*hkl, 1 / rings[ring], ring + 1, *g, theta, 2 * theta, radius[ring + 1]]
            stream.write(" ".join(map(str, numbers)) + "\n")
    # On its ideal detector: across the beam at the distance, y to the left, z up; eta from z, negative for positive y.
    y, z = far * scene.xyz[:, 1] / scene.xyz[:, 0], far * scene.xyz[:, 2] / scene.xyz[:, 0]
    omega = (np.degrees(scene.spots.omega) + 180) % 360 - 180
    out = np.hypot(y, z)
    eta = np.degrees(np.arccos(z / out)) * np.where(y > 0, -1, 1)
    on = scene.ring_of_spot >= 0
    number = np.arange(1, on.sum() + 1)
    count, ring = len(number), scene.ring_of_spot[on] + 1
    two_theta, none = np.degrees(np.arctan(out / far))[on], np.zeros(len(number))
    spots = [y[on], z[on], omega[on], np.full(count, 50.0), number, ring, eta[on], two_theta]
    beyond = out[on] - np.array([radius[one] for one in ring])
    table = np.stack([*spots, beyond, none], 1)
    table.tofile(work / "Spots.bin")
    # Raw omega, y and z, in um and in px; omega once more; no mask; no misfit.
    more = [omega[on], y[on], z[on], y[on] / (1e3 * PIXEL), z[on] / (1e3 * PIXEL), omega[on], none, none]
    np.stack([*spots, *more], 1).tofile(work / "ExtraInfo.bin")
    which, bins = importlib.import_module("midas_index.io").build_bin_index(
        table, eta_bin_size=MIDAS["EtaBinSize"], ome_bin_size=MIDAS["OmeBinSize"], n_rings=len(rings),
        margin_eta=MIDAS["MarginEta"], margin_ome=MIDAS["MarginOme"], stepsize_orient=MIDAS["StepsizeOrient"],
        ring_radii=radius,
    )  # fmt: skip
    np.stack([which, np.zeros_like(which)], 1).astype(np.uint64).tofile(work / "Data.bin")
    bins.astype(np.uint64).tofile(work / "nData.bin")
    (work / "positions.csv").write_text("0.000000\n")
    seeds = number[ring == 1]
    (work / "SpotsToIndex.csv").write_text("".join(f"{one}\n" for one in seeds))
    half = far * 1.5
    lines = {
        "Distance": far, "Lsd": far, "Wavelength": WAVELENGTH, "px": 1e3 * PIXEL, "SpaceGroup": 225,
        "LatticeConstant": " ".join(map(str, GOLD.cell)), "OverAllRingToIndex": 1, "RingToIndex": 1,
        "OmegaRange": "-180 180", "BoxSize": f"{-half} {half} {-half} {half}", "NrPixelsY": ROWS, "NrPixelsZ": ROWS,
        "NrPixels": ROWS, "YBCFit": ROWS / 2, "ZBCFit": ROWS / 2, "BC": f"{ROWS / 2} {ROWS / 2}", "OmegaStart": -180,
        "OmegaStep": np.degrees(STEP), "Wedge": 0, "RhoD": far, "MaxRingRad": far, "OutputFolder": work / "Output",
        "ResultFolder": results, "SpotsFileName": "InputAll.csv", "IDsFileName": "SpotsToIndex.csv",
        "RefinementFileName": "InputAllExtraInfoFittingAll.csv", **MIDAS,
    }  # fmt: skip
    with (work / "paramstest.txt").open("w") as stream:
        stream.writelines(f"{key} {value}\n" for key, value in lines.items())
        stream.writelines(f"RingNumbers {n}\nRingRadii {r:.6f}\n" for n, r in radius.items())
    return seeds


def of_midas(scene: Scene, work: Path) -> Found:
    """Found from all spots of the first ring, refined, and made unique by its own program."""
    seeds = midas_files(scene, work)
    start = seconds()
    _midas_run(midas_command("midas_index", "midas_indexer"), work, len(seeds))
    between = seconds()
    _midas_run(midas_command("midas_fit_grain", "midas_fitgrain"), work, len(seeds))
    return midas_grains(work, len(seeds)), between - start, seconds() - between


def of_midas_from(scene: Scene, work: Path, seeds: list[Seed]) -> Found:
    """Refined from given orientations at the origin, with the spots that are within its tolerance of them."""
    midas_files(scene, work)
    number = np.cumsum(scene.ring_of_spot >= 0)
    best, full = np.zeros((len(seeds), 15)), np.zeros((len(seeds), 5000, 2))
    for row, seed in enumerate(seeds):
        reflection, off = scene.assigned(seed.ub, seed.position)
        own = np.flatnonzero((reflection >= 0) & (off < 0.35 * scene.tolerance) & (scene.ring_of_spot >= 0))
        turn = GOLD.orientation_and_strain(seed.ub)[0]
        best[row] = [0.0, *turn.ravel(), 0.0, 0.0, 0.0, len(own), len(own)]
        full[row, : len(own), 0] = number[own]
    best.tofile(work / "Output/IndexBest.bin")
    full.tofile(work / "Output/IndexBestFull.bin")
    first = [int(full[row, 0, 0]) for row in range(len(seeds))]
    (work / "SpotsToIndex.csv").write_text("".join(f"{one}\n" for one in first))
    start = seconds()
    _midas_run(midas_command("midas_fit_grain", "midas_fitgrain"), work, len(seeds))
    return midas_grains(work, len(seeds)), 0.0, seconds() - start


def midas_grains(work: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Refined grains: of those with nearly the same orientation the one with the smallest error of its own."""
    rows = np.fromfile(work / "Results/OrientPosFit.bin").reshape(count, -1)
    rows = rows[(rows[:, 15] > 0) & np.isfinite(rows[:, :27]).all(1)]
    rows = rows[rows[:, 26] >= 0.5]
    matrix = importlib.import_module("midas_diffract.hkls")._cartesian_B_matrix
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    turns: list[np.ndarray] = []
    for row in rows[np.argsort(rows[:, 22])]:
        turn = row[1:10].reshape(3, 3)
        if turns and GOLD.misorientation(np.array(turns), turn).min() < 0.25:
            continue
        turns.append(turn)
        kept.append((turn @ np.asarray(matrix(tuple(row[15:21]))), row[11:14] / 1e3))
    return kept


# --- the table


def judged(found: Found, ub: np.ndarray, turns: np.ndarray, position: np.ndarray) -> dict[str, Any]:
    """Errors of grains to the truth."""
    places, searching, refining = found
    said: dict[str, Any] = {"found": 0, "false": len(places), "index_s": round(searching, 1)}
    said["refine_s"] = round(refining, 1)
    if not places:
        return said
    got = [GOLD.orientation_and_strain(one) for one, _ in places]
    true = np.array([GOLD.orientation_and_strain(one)[1] for one in ub])
    angle = np.array([GOLD.misorientation(turns, turn) for turn, _ in got])
    of, good = angle.argmin(1), angle.min(1) < 0.25
    away = 1e3 * (np.array([place for _, place in places]) - position[of])[good]
    strain = (np.array([one for _, one in got]) - true[of])[good]
    distance = np.linalg.norm(away, axis=1)
    distinct = len(set(of[good].tolist()))
    return said | {
        "found": distinct, "false": len(places) - distinct,
        "p50_um": round(float(np.median(distance)), 2), "p95_um": round(float(np.percentile(distance, 95)), 2),
        "rms_um": np.sqrt(np.square(away).mean(0)).round(2).tolist(), "mean_vector_um": away.mean(0).round(2).tolist(),
        "misorientation_p50_deg": round(float(np.median(angle.min(1)[good])), 5),
        "strain_rms": float(f"{np.sqrt(np.square(strain[:, range(3), range(3)]).mean()):.2g}"),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grains", type=int, default=50)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/grains_rivals.json"))
    arguments = parser.parse_args()
    geometry = panel(ROWS, DISTANCE, tilted=False)
    truth = grains(arguments.grains, 1)
    scene, uneven = (
        Scene(geometry, listed(geometry, truth[0], truth[2], ERROR, 2, spread=spread), GOLD, SAMPLE)
        for spread in (0.0, 0.8)
    )
    missing = {
        name: [one for one in packages if importlib.util.find_spec(one) is None]
        for name, packages in (
            ("ImageD11", ("ImageD11",)),
            ("MIDAS", ("midas_index", "midas_fit_grain")),
        )
    }
    versions = {
        name: version(name)
        for name in ("ImageD11", "midas-index", "midas-fit-grain")
        if importlib.util.find_spec(name.replace("-", "_"))
    }
    count = len(scene.spots)
    document: dict[str, Any] = {
        "grains": arguments.grains, "spots": count, "error_px": ERROR,
        "omega_error_deg": float(np.degrees(OMEGA_ERROR)),
        "theory_rms_um": round(float(1e3 * PIXEL * ERROR * np.sqrt(5 * arguments.grains / count)), 2),
        "versions": versions, "midas_settings": MIDAS,
    }  # fmt: skip
    starts = {
        name: [replace(seed, position=np.zeros(3)) for seed in index(one, IndexSpec())]
        for name, one in (("even", scene), ("uneven", uneven))
    }
    with tempfile.TemporaryDirectory() as name:
        work = arguments.work or Path(name)
        runs: dict[str, dict[str, Callable[[], Found]]] = {
            "alone": {
                "ours": lambda: ours(scene),
                "ImageD11": lambda: of_imaged11(scene, work),
                "MIDAS": lambda: of_midas(scene, work / "alone"),
            }
        }
        for key, one, seeds in (
            ("from the same start", scene, starts["even"]),
            ("uneven errors", uneven, starts["uneven"]),
        ):
            runs[key] = {
                "ours": partial(ours, one, seeds),
                "ImageD11": partial(of_imaged11, one, work, seeds),
                "MIDAS": partial(of_midas_from, one, work / key.split()[0], seeds),
            }
        for key, programs in runs.items():
            document[key] = {}
            for program, run in programs.items():
                if missing.get(program):
                    document[key][program] = f"not installed: {', '.join(missing[program])}"
                    continue
                document[key][program] = judged(run(), *truth)
                print(key, program, document[key][program], flush=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

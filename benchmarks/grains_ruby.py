"""Grains of the ruby scan by ``locate``, ``merge`` and ``grains``, against HEXRD's ``grains.out``, and network to fit.

    python benchmarks/grains_ruby.py --data FOLDER --labels RUNS/chess_ruby [--output benchmarks/grains_ruby.json]

- *chain*: the three commands with the network that ships, on both panels, with the composite geometry (four tiles a
  panel) and with the plain one (one plane a panel). Distance of each grain to that of ``grains.out`` in position,
  orientation and strain, with the standard deviations that the refinement says.
- *networks*: the peaks whose pseudo-Voigt fit converged, merged once. Positions by the fit, the network that ships in
  float, in integers, the circuit that ships, and the brightest pixel. Grains from each: with the spots of the fit's
  grains (fixed), and found anew (free); the distance to those of the fit.

``grains.out`` is the result of another program on the same frames, not the truth. Nothing here is tuned on it. FOLDER
is that which holds chess_ruby/.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from braggnn_edge import cli
from braggnn_edge.grains import grain_file
from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.instrument import FROM_HEXRD
from braggnn_edge.peaks import peak_file, table
from braggnn_edge.peaks.merge import MergeSpec, merge
from braggnn_edge.peaks.rotation import Frames

PANELS = ("ff1", "ff2")
GEOMETRIES = {"composite": "dexelas_id3a_20200130_comp.yml", "one plane a panel": "instrument.yml"}
CELL = (4.7608, 4.7608, 12.99568, 90.0, 90.0, 120.0)
RUBY = Lattice(CELL, "R")
SHIPPED = Path(__file__).parents[1] / "braggnn_edge/weights"
NETWORKS = {
    "what ships, float": "universal",
    "what ships, integers": str(SHIPPED / "universal_layers.json"),
    "circuit that ships, integers": str(SHIPPED / "universal_circuit.json"),
}


def run(*words: object) -> None:
    if cli.main([str(word) for word in words]):
        raise SystemExit(f"failed: {' '.join(map(str, words))}")


def located(data: Path, folder: Path, network: str, name: str) -> dict[str, Path]:
    """Lists of peaks of both panels."""
    found = {}
    for panel in PANELS:
        found[panel] = folder / f"{name}_{panel}.h5"
        scan = data / f"chess_ruby/mruby-0129_000004_{panel}_000012-cachefile.npz"
        run("locate", scan, "--threshold", 150, "--min-area", 6, "--gain", 2, "--read-noise", 8, "--saturation", 15800,
            "--workers", 1, "--network", network, "-o", found[panel])  # fmt: skip
    return found


def grains(data: Path, lists: dict[str, Path], geometry: str, output: Path, *more: object) -> grain_file.Result:
    words = [f"{panel}={path}" for panel, path in lists.items()]
    run("grains", *words, "--instrument", data / "chess_ruby" / geometry, "--lattice", *CELL, "--centring", "R",
        "-o", output, *more)  # fmt: skip
    return grain_file.load(output)


def theirs(path: Path) -> list[dict[str, np.ndarray]]:
    """HEXRD's grains in our axes: orientation, position in um, strain."""
    found = []
    for line in np.loadtxt(path):
        inverse = np.diag(line[9:12])
        for value, (i, j) in zip(line[12:15] / np.sqrt(2), ((1, 2), (0, 2), (0, 1)), strict=True):
            inverse[i, j] = inverse[j, i] = value
        found.append({
            "u": FROM_HEXRD @ Rotation.from_rotvec(line[3:6]).as_matrix(), "position": 1e3 * FROM_HEXRD @ line[6:9],
            "strain": FROM_HEXRD @ np.linalg.inv(inverse) @ FROM_HEXRD.T - np.eye(3),
        })  # fmt: skip
    return found


def parts(result: grain_file.Result) -> list[dict[str, Any]]:
    rows = result.grains
    u, place, stretch = (
        of(rows) for of in (lambda r: grain_file.matrices(r, "u"), grain_file.positions, grain_file.stretches)
    )
    return [
        {"u": u[i], "position": place[i], "strain": stretch[i] - np.eye(3), "row": rows[i]} for i in range(len(rows))
    ]


def distances(reference: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each grain of the reference the one with the nearest orientation, and how far it is."""
    said: list[dict[str, Any]] = []
    for number, one in enumerate(reference):
        angle = np.array([RUBY.misorientation(other["u"], one["u"]) for other in found])
        if not len(angle) or angle.min() > 1.0:
            said.append({"grain": number, "found": False})
            continue
        other = found[int(angle.argmin())]
        turns = [Rotation.from_matrix(other["u"] @ turn @ one["u"].T) for turn in RUBY.symmetry]
        turn = min(turns, key=lambda t: t.magnitude())
        away, row = other["position"] - one["position"], other["row"]
        said.append({
            "grain": number, "found": True, "distance_um": round(float(np.linalg.norm(away)), 2),
            "vector_um": away.round(2).tolist(),
            "sigma_um": [round(float(row[f"sigma_position_{axis}"]), 2) for axis in "xyz"],
            "turn_deg": np.degrees(turn.as_rotvec()).round(4).tolist(),
            "misorientation_deg": round(float(angle.min()), 4),
            "strain_difference": float(f"{np.abs(other['strain'] - one['strain']).max():.2g}"),
            "spots": int(row["spots"]), "rms_px": [round(float(row[f"rms_{axis}"]), 3) for axis in ("row", "col")],
            "rms_omega_deg": round(float(row["rms_omega"]), 4), "completeness": round(float(row["completeness"]), 3),
        })  # fmt: skip
    return said


def fits(labels: Path) -> tuple[np.ndarray, dict[str, int]]:
    """Rows of the label stage whose fit converged, and the numbers of the panels there."""
    found = table.load(labels / "label/peaks.h5")
    rows = found.peaks
    return rows[rows["voigt_converged"]], {name: found.scans.index(name) for name in PANELS}


def lists_of(
    folder: Path, peaks: dict[str, dict[str, np.ndarray]], about: dict[str, peak_file.About]
) -> dict[str, dict]:
    """Lists of reflections by estimator and panel: peaks merged by the fit's positions, then placed by each."""
    lists: dict[str, dict[str, Path]] = {}
    for panel in PANELS:
        base = peaks["fit"][panel]
        merged = merge(base, MergeSpec(), {0: Frames(about[panel].omega.mean(1), about[panel].bad_frames)})
        for name, of_panel in peaks.items():
            rows, own = merged.reflections.copy(), of_panel[panel]
            for axis in ("row", "col"):
                for column, weight in (
                    (axis, np.maximum(base["intensity"], 1.0)),
                    (f"weighted_{axis}", own[f"sigma_{axis}"] ** -2),
                ):
                    total = np.bincount(merged.of, weight, len(rows))
                    rows[column] = np.bincount(merged.of, weight * own[axis], len(rows)) / total
                rows[f"weighted_sigma_{axis}"] = total**-0.5
            path = folder / f"{name.replace(' ', '_').replace(',', '')}_{panel}_reflections.h5"
            peak_file.save(path, rows, about[panel])
            lists.setdefault(name, {})[panel] = path
    return lists


def placed(folder: Path, data: Path, labels: Path) -> tuple[dict, dict]:
    """Peaks by estimator and panel, the same rows for all; and where they come from."""
    rows, numbers = fits(labels)
    peaks: dict[str, dict[str, np.ndarray]] = {}
    about = {}
    for name, network in NETWORKS.items():
        for panel, path in located(data, folder, network, name.replace(" ", "_").replace(",", "")).items():
            found, about[panel] = peak_file.load(path)
            mine = rows[rows["scan"] == numbers[panel]]
            key = {(int(r["frame"]), int(r["row"]), int(r["col"])): i for i, r in enumerate(mine)}
            at = np.array([key.get((int(r["frame"]), int(r["pixel_row"]), int(r["pixel_col"])), -1) for r in found])
            usable = (at >= 0) & np.isfinite(found["sigma_row"]) & np.isfinite(found["intensity"])
            own, fitted = found[usable], mine[at[usable]]
            peaks.setdefault(name, {})[panel] = own
            by_fit, by_pixel = own.copy(), own.copy()
            for axis in ("row", "col"):
                by_fit[axis], by_fit[f"sigma_{axis}"] = fitted[f"voigt_{axis}"], np.sqrt(fitted[f"voigt_var_{axis}"])
                by_fit[f"sigma_{axis}"] = np.maximum(by_fit[f"sigma_{axis}"], 1e-3)
                by_pixel[axis], by_pixel[f"sigma_{axis}"] = own[f"pixel_{axis}"], 12**-0.5
            peaks.setdefault("fit", {})[panel], peaks.setdefault("brightest pixel", {})[panel] = by_fit, by_pixel
    return peaks, about


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="run of configs/chess_ruby.toml, labelled")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/grains_ruby.json"))
    arguments = parser.parse_args()
    hexrd = theirs(arguments.data / "chess_ruby/grains.out")
    document: dict[str, Any] = {"chain_to_grains_out": {}, "to_fit": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peaks, about = placed(folder, arguments.data, arguments.labels)
        lists = {}
        for panel in PANELS:
            lists[panel] = folder / f"chain_{panel}.h5"
            run("merge", folder / f"what_ships_float_{panel}.h5", "-o", lists[panel])
        for geometry, file in GEOMETRIES.items():
            found = parts(grains(arguments.data, lists, file, folder / "grains.h5"))
            document["chain_to_grains_out"][geometry] = {
                "false": len(found) - sum(one["found"] for one in distances(hexrd, found)),
                "grains": distances(hexrd, found),
            }
        estimators = lists_of(folder, peaks, about)
        composite = GEOMETRIES["composite"]
        fit = folder / "fit_grains.h5"
        reference = parts(grains(arguments.data, estimators.pop("fit"), composite, fit))
        # In the order of grains.out, so that a number means the same grain everywhere.
        reference = [
            min(reference, key=lambda one, u=other["u"]: float(RUBY.misorientation(one["u"], u))) for other in hexrd
        ]
        document["to_fit"]["fit_to_grains_out"] = distances(hexrd, reference)
        for estimator, own in estimators.items():
            fixed = grains(arguments.data, own, composite, folder / "fixed.h5", "--assignment", fit)
            free = grains(arguments.data, own, composite, folder / "free.h5")
            document["to_fit"][estimator] = {
                "fixed": distances(reference, parts(fixed)), "free": distances(reference, parts(free)),
            }  # fmt: skip
    arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

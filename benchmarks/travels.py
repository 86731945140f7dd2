"""How far do networks travel? Errors of those that ship and of the squared centroid on scans they have not seen.

    BRAGGNN_EDGE_DATA=FOLDER python benchmarks/travels.py RUNS [--network FILE ...]

labels the scans in RUNS where that is not done yet, and writes travels.json. Simulated scans are compared with the
truth, measured ones with the pseudo-Voigt fit. The family's figures are of patches with a seed of their own.
travels.png shows, of each set, the peaks that the float network gets most wrong.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation.estimators import centre_of_mass_squared
from braggnn_edge.evaluation.metrics import PERCENTILES, distances
from braggnn_edge.evaluation.sigma import Intervals, binned, held
from braggnn_edge.locate.evaluate import evaluate, named
from braggnn_edge.locate.locator import Locator
from braggnn_edge.peaks.splits import EXCLUDED, TEST
from braggnn_edge.peaks.table import PeakTable, load
from braggnn_edge.simulation.family import draw
from braggnn_edge.simulation.family_spec import FamilySpec
from quant.shipped import path_of

ROOT = Path(__file__).resolve().parent.parent
#: Set to configuration, scan, and for measured ones the largest residual and the smallest area of a fit.
SETS: dict[str, tuple[str, str, float, int]] = {
    "demo": ("demo", "scan", 0.0, 0),
    "simulated": ("simulated", "scan", 0.0, 0),
    "ruby ff1": ("chess_ruby", "ff1", 0.05, 6),
    "ruby ff2": ("chess_ruby", "ff2", 0.05, 6),
    "thaumatin": ("dls_thaumatin", "thaumatin", 0.2, 6),
}


def selected(runs: Path, scenario: str, scan: str, residual: float, area: int) -> PeakTable:
    """The set's peaks: test peaks of a simulated scan, lone peaks with a good fit of a measured one."""
    command = [sys.executable, "-m", "braggnn_edge.cli", "label", "--config", f"configs/{scenario}.toml"]
    subprocess.run([*command, "--runs", str(runs.resolve())], cwd=ROOT, check=True)
    table = load(runs / scenario / "label" / "peaks.h5")
    table = table.where(table.peaks["scan"] == table.scans.index(scan))
    p = table.peaks
    if residual:
        good = p["voigt_converged"] & (p["voigt_residual"] < residual) & (p["area"] >= area)
        p["split"] = np.where(good & (p["split"] == TEST), TEST, EXCLUDED)
    return table


WORST, MARKS = 10, {"reference": ("+", "w"), "universal": ("x", "tab:orange"), "squared centroid": (".", "tab:cyan")}


def show_worst(rows: list[plt.Axes], label: str, table: PeakTable, kind: str, network: Locator) -> list[dict[str, Any]]:
    """Draw the patches (11 x 11 px) of the largest errors into ``rows``, and tell what they are."""
    used = table.where((table.peaks["split"] == TEST) & table.has(kind))
    patches, reference = used.patches(), used.offsets(kind)
    offsets, sigma = network.locate_with_sigma(patches)
    centre = centre_of_mass_squared(patches)
    error = distances(offsets, reference)
    told = []
    for axis, at in zip(rows, np.argsort(-error, kind="stable")[:WORST], strict=True):
        patch, middle = patches[at].astype(float), patches.shape[-1] // 2
        axis.imshow(np.arcsinh(patch - np.median(patch)), cmap="magma")
        for (mark, colour), offset in zip(MARKS.values(), (reference[at], offsets[at], centre[at]), strict=True):
            axis.plot(middle + offset[1], middle + offset[0], mark, color=colour, markersize=9, markeredgewidth=1.5)
        axis.set_title(f"{error[at]:.2f} px, $\\sigma$ {sigma[at].max():.2f}, max {patch.max():.0f}", fontsize=7)
        axis.set_axis_off()
        told.append({
            "error_px": float(error[at]), "sigma_px": float(sigma[at].max()), "maximum": float(patch.max()),
            "residual_of_fit": float(used.peaks["voigt_residual"][at]), "area": int(used.peaks["area"][at]),
            "centroid_error_px": float(distances(centre[at : at + 1], reference[at : at + 1])[0]),
        })  # fmt: skip
    rows[0].text(-0.35, 0.5, label, rotation=90, va="center", transform=rows[0].transAxes, fontsize=9)
    return told


def on_the_family(networks: dict[str, Locator]) -> dict[str, Any]:
    """What only a truth can tell: sigma in bins of brightness and width, means weighted by it, and as a flag."""
    drawn = draw(FamilySpec(), 20_000_000, 40_960)
    found: dict[str, Any] = {}
    for name, network in networks.items():
        if not network.sigma:
            continue
        offsets, sigma, wide = network.locate_with_intervals(drawn.counts)
        error, whole = offsets - drawn.offsets, distances(offsets, drawn.offsets)
        known = Intervals(sigma, wide)
        trusted = sigma.max(1) <= np.quantile(sigma.max(1), 0.95)
        found[name] = {
            "errors_px": {key: float(np.percentile(whole, q)) for key, q in PERCENTILES.items()},
            **held(error, known),
            "by_height": binned(error, known, drawn.height.astype(np.float64)),
            "by_fwhm": binned(error, known, drawn.fwhm.astype(np.float64)),
            "p99_5_without_5_percent_of_largest_sigma": float(np.percentile(whole[trusted], 99.5)),
            "rms_of_plain_by_weighted_mean_of_100": _gain(error, sigma),
        }
    return found


def _gain(error: NDArray, sigma: NDArray, of: int = 100) -> float:
    """Ratio of the rms errors of means of ``of`` peaks: plain by weighted with 1 / sigma**2."""
    n = len(error) // of * of
    errors, weights = error[:n].reshape(-1, of, 2), 1 / sigma[:n].reshape(-1, of, 2) ** 2
    plain, weighted = errors.mean(1), (errors * weights).sum(1) / weights.sum(1)
    return float(np.sqrt((plain**2).mean() / (weighted**2).mean()))


def main() -> None:
    """All sets, the document after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--network", action="append", default=[], metavar="FILE", help="default: those that ship")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    shipped = ["universal", *(str(path_of(name)) for name in ("shipped", "shipped_circuit"))]
    networks = named(arguments.network or shipped)
    document: dict[str, Any] = {"sets": {}}
    figure, axes = plt.subplots(len(SETS), WORST, figsize=(15, 1.75 * len(SETS)), constrained_layout=True)
    figure.suptitle("The ten largest errors of the float network: + reference, x network, . squared centroid")
    for (name, about), row in zip(SETS.items(), axes, strict=True):
        table = selected(arguments.runs, *about)
        found = evaluate(table, networks)
        document["sets"][name] = found
        found["worst"] = show_worst(list(row), name, table, found["reference"], next(iter(networks.values())))
        figure.savefig(arguments.output.with_suffix(".png"), dpi=90)
        write_json(arguments.output, document)
        for estimator in (*networks, "centre_of_mass_squared", "voigt"):
            if estimator in found["errors_px"]:
                entry = found["errors_px"][estimator]
                figures = " / ".join(f"{entry[key]:.3f}" for key in PERCENTILES)
                print(f"{name:12s} {estimator:24s} n {entry['n']:5d}  {figures}", flush=True)
    document["family"] = on_the_family(networks)
    print(json.dumps(document["family"], indent=1))
    write_json(arguments.output, document)


if __name__ == "__main__":
    main()

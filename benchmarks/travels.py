"""How far do networks travel? Errors of those that ship and of the squared centroid on scans they have not seen.

    BRAGGNN_EDGE_DATA=FOLDER python benchmarks/travels.py RUNS [--network FILE ...]

labels the scans in RUNS where that is not done yet, and writes travels.json. Simulated scans are compared with the
truth, measured ones with the pseudo-Voigt fit. The family's figures are of patches with a seed of their own.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation.metrics import PERCENTILES, distances
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


def on_the_family(networks: dict[str, Locator]) -> dict[str, Any]:
    """What only a truth can tell: sigma in bins of brightness and width, means weighted by it, and as a flag."""
    held = draw(FamilySpec(), 20_000_000, 40_960)
    found: dict[str, Any] = {}
    for name, network in networks.items():
        if not network.sigma:
            continue
        offsets, sigma = network.locate_with_sigma(held.counts)
        error, whole = offsets - held.offsets, distances(offsets, held.offsets)
        trusted = sigma.max(1) <= np.quantile(sigma.max(1), 0.95)
        found[name] = {
            "errors_px": {key: float(np.percentile(whole, q)) for key, q in PERCENTILES.items()},
            "within_one_sigma": float((np.abs(error) <= sigma).mean()),
            "by_height": _binned(error, sigma, held.height),
            "by_fwhm": _binned(error, sigma, held.fwhm),
            "p99_5_without_5_percent_of_largest_sigma": float(np.percentile(whole[trusted], 99.5)),
            "rms_of_plain_by_weighted_mean_of_100": _gain(error, sigma),
        }
    return found


def _binned(error: NDArray, sigma: NDArray, by: NDArray, bins: int = 6) -> list[dict[str, float]]:
    edges = np.quantile(by, np.linspace(0, 1, bins + 1))
    which = np.clip(np.searchsorted(edges, by, side="right") - 1, 0, bins - 1)
    return [
        {
            "from": float(edges[k]), "to": float(edges[k + 1]),
            "within_one_sigma": float((np.abs(error) <= sigma)[which == k].mean()),
        }
        for k in range(bins)
    ]  # fmt: skip


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
    for name, about in SETS.items():
        found = evaluate(selected(arguments.runs, *about), networks)
        document["sets"][name] = found
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

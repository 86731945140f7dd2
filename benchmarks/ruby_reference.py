"""The ruby errors against another, plainer fit, since on measured data the answer depends on the reference.

    python benchmarks/ruby_reference.py runs/chess_ruby --output benchmarks/ruby_reference.json
    python benchmarks/ruby_reference.py runs/circuit_ruby --circuit runs/circuit_ruby --output FILE

Refits every ruby peak of a finished run by scipy's least_squares: an axis-aligned pseudo-Voigt with 7 parameters,
sampled at pixel centres, unweighted, on the stored pixels of the component alone. Peaks whose rms residual over those
pixels is below 5 % of the maximum are kept. Prints p50, p75, p95 in px of every estimator.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from braggnn_edge.evaluation.estimators import ESTIMATORS
from braggnn_edge.evaluation.metrics import summary
from braggnn_edge.peaks import table
from quant.contract import locator as locators


def plain_fit(patch: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Offset (row, col) px from the centre pixel, and the rms residual over the maximum, of one patch."""
    half = patch.shape[0] // 2
    labels, _ = ndimage.label(patch > 0, np.ones((3, 3)))
    rows, cols = np.nonzero(labels == labels[half, half])
    counts = patch[rows, cols]
    peak = counts.max()

    def residual(p: NDArray[np.float64]) -> NDArray[np.float64]:
        r2 = ((rows - half - p[0]) / p[2]) ** 2 + ((cols - half - p[1]) / p[3]) ** 2
        shape = p[5] / (1 + 4 * r2) + (1 - p[5]) * np.exp(-4 * np.log(2) * r2)
        return p[4] * shape + p[6] - counts / peak

    start = np.array([0.0, 0.0, 2.0, 2.0, 1.0, 0.5, 0.0])
    low = np.array([-3.0, -3.0, 0.5, 0.5, 0.0, 0.0, -0.5])
    high = np.array([3.0, 3.0, 12.0, 12.0, 5.0, 1.0, 0.5])
    found = optimize.least_squares(residual, start, bounds=(low, high), max_nfev=200)
    return found.x[:2], float(np.sqrt(np.mean(found.fun**2)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of configs/chess_ruby.toml or configs/circuit_ruby.toml")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--circuit", type=Path, action="append", default=[], help="run with a circuit, as an estimator")
    arguments = parser.parse_args()
    everything = table.load(arguments.run / "label/peaks.h5")
    ruby = [i for i, name in enumerate(everything.scans) if name.startswith("ff")]
    chosen = everything.where(np.isin(everything.peaks["scan"], ruby))
    patches = chosen.patches().astype(np.float64)
    fits = [plain_fit(patch) for patch in patches]
    reference = np.array([offset for offset, _ in fits])
    kept = np.array([residual for _, residual in fits]) < 0.05
    estimates = {name: estimate(patches) for name, estimate in ESTIMATORS.items()}
    estimates["voigt (ours, tilted, censored)"] = chosen.offsets("voigt")
    path = arguments.run / "qat/locator.json"
    if path.exists():
        estimates["integer network (equal to csim)"] = locators.load(path).locate(patches)
    for run in arguments.circuit:
        estimates[f"circuit of {run.name}"] = locators.load(run / "qat/locator.json").locate(patches)
    errors = {
        name: summary(offsets[kept], reference[kept], "plain 7-parameter fit") for name, offsets in estimates.items()
    }
    document = {"run": arguments.run.name, "candidates": len(patches), "kept": int(kept.sum()), "errors_px": errors}
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    for name, entry in errors.items():
        print(f"{name:34s} n {entry['n']}  p50 {entry['p50']:.4f}  p75 {entry['p75']:.4f}  p95 {entry['p95']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

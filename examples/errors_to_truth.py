"""Errors of a network on the simulated test peaks of a run, beside those of the fit and of the squared centroid.

    python examples/errors_to_truth.py universal runs/demo/label/peaks.h5
    python examples/errors_to_truth.py runs/demo/qat/locator.json runs/demo/label/peaks.h5

prints percentiles of the distance from the true position, in px. The network is "universal", which ships with the
project, or a file of a run.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np

from braggnn_edge.locate.networks import open_network


# --8<-- [start:errors]
def errors(network: str, table: Path) -> dict[str, np.ndarray]:
    """Estimator to its distances (n,) px from the truth, on the test peaks that have one."""
    with h5py.File(table) as file:
        peaks, crops = file["peaks"][:], file["crops"][:]
        margin = file.attrs["shift"]  # crops are larger than patches, to allow for shifts in training
    chosen = (peaks["split"] == 2) & np.isfinite(peaks["truth_row"])
    peaks, patches = peaks[chosen], crops[chosen]
    if margin:
        patches = patches[:, margin:-margin, margin:-margin]
    pixel = np.stack([peaks["row"], peaks["col"]], axis=1)
    truth = np.stack([peaks["truth_row"], peaks["truth_col"]], axis=1) - pixel
    fit = np.stack([peaks["voigt_row"], peaks["voigt_col"]], axis=1) - pixel
    found = {"network": open_network(network).locate(patches), "squared centroid": squared_centroid(patches)}
    found["pseudo-Voigt fit"] = np.where(peaks["voigt_converged"][:, None], fit, np.nan)
    return {name: np.linalg.norm(offsets - truth, axis=1) for name, offsets in found.items()}


# --8<-- [end:errors]


def squared_centroid(patches: np.ndarray) -> np.ndarray:
    """Centre of mass (n, 2) px of the squared counts above each patch's minimum, from the centre pixel."""
    weights = (patches - patches.min(axis=(1, 2), keepdims=True).astype(float)) ** 2
    place = np.arange(patches.shape[1]) - patches.shape[1] // 2
    total = np.maximum(weights.sum(axis=(1, 2)), 1e-9)  # a flat patch has its centroid in the middle
    return np.stack([weights.sum(axis=2) @ place, weights.sum(axis=1) @ place], axis=1) / total[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help='"universal", or a file: locator.json, full.pt or compact.pt of a run')
    parser.add_argument("table", type=Path, help="peaks.h5 of the label stage")
    arguments = parser.parse_args()
    for name, distances in errors(arguments.network, arguments.table).items():
        known = distances[np.isfinite(distances)]
        p50, p75, p95 = np.percentile(known, [50, 75, 95])
        print(f"{name:18s} p50 {p50:.3f}  p75 {p75:.3f}  p95 {p95:.3f} px  ({len(known)} peaks)")


if __name__ == "__main__":
    main()

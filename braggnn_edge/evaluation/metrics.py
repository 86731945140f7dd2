"""Position errors as the report states them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILES = {"p50": 50.0, "p75": 75.0, "p95": 95.0, "p99_5": 99.5}


def distances(estimate: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float64]:
    """Euclidean distance in px between positions (n, 2) and (n, 2)."""
    return np.linalg.norm(np.asarray(estimate, np.float64) - np.asarray(reference, np.float64), axis=1)


def summary(estimate: NDArray[np.floating], reference: NDArray[np.floating], name: str) -> dict[str, Any]:
    """An ``errors_px`` entry: reference, n, mean and percentiles of the distance, mean error in row and col (px)."""
    difference = np.asarray(estimate, np.float64) - np.asarray(reference, np.float64)
    distance = np.linalg.norm(difference, axis=1)
    entry: dict[str, Any] = {"reference": name, "n": len(distance)}
    if len(distance):
        entry["mean"] = float(distance.mean())
        entry |= {key: float(np.percentile(distance, q)) for key, q in PERCENTILES.items()}
        entry["bias_row"], entry["bias_col"] = (float(v) for v in difference.mean(axis=0))
    return entry


def validation_figures(error: NDArray[np.float64]) -> dict[str, float]:
    """Of distances (n,) in px, what a training loop reports: their mean, the "score" it minimizes, and percentiles."""
    return {"score": float(error.mean()), **{f"p{q}": float(np.percentile(error, q)) for q in (50, 75, 95)}}

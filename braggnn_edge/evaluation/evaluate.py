"""Errors of all estimators on the test peaks, and where a network loses to a centroid."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.evaluation.estimators import ESTIMATORS
from braggnn_edge.evaluation.metrics import PERCENTILES, summary
from braggnn_edge.peaks.table import PeakTable

Offsets = NDArray[np.float64]

_CENTROIDS = ("centre_of_mass", "centre_of_mass_squared")
#: "Clean" measured peaks, whose pseudo-Voigt fit is a reference worth the name.
CLEAN_AREA, CLEAN_RESIDUAL = 6, 0.05


def reference_of(test: PeakTable) -> str:
    """What errors are measured from: "truth" when every scan of the test rows is simulated, else "voigt".

    A simulated scan may hold detections that no spot explains (hot pixels), which have no truth.
    """
    known = test.has("truth")
    scans = np.unique(test.peaks["scan"])
    return "truth" if all(known[test.peaks["scan"] == scan].any() for scan in scans) else "voigt"


def is_clean(table: PeakTable) -> NDArray[np.bool_]:
    """(n,) unsaturated peaks of enough pixels whose fit converged and leaves a small residual."""
    p = table.peaks
    good = p["voigt_converged"] & ~p["saturated"] & (p["area"] >= CLEAN_AREA)
    return good & (p["voigt_residual"] < CLEAN_RESIDUAL)


def estimates_without_network(used: PeakTable, kind: str, reference: Offsets, seed: int) -> dict[str, Offsets]:
    """The estimators that are no networks: offsets (n, 2) px, NaN where one has no answer."""
    patches = used.patches()
    estimates = {name: function(patches) for name, function in ESTIMATORS.items()}
    if kind == "truth":
        estimates["voigt"] = np.where(used.has("voigt")[:, None], used.offsets("voigt"), np.nan)
        estimates["cramer_rao_bound"] = reference + _efficient(used, np.random.default_rng((seed, 9)))
    return estimates


def _efficient(used: PeakTable, rng: np.random.Generator) -> Offsets:
    """Errors (n, 2) px of an estimator at the Cramer-Rao bound: one Gaussian draw a peak, NaN without bound.

    Cholesky factor of the covariance [[a, b], [b, c]]: (sqrt(a), 0), (b / sqrt(a), sqrt(c - b**2 / a)).
    """
    a, b, c = (used.peaks[f"bound_{name}"] for name in ("var_row", "cov_row_col", "var_col"))
    known = np.isfinite(a) & np.isfinite(b) & np.isfinite(c) & (a > 0) & (c > 0) & (b**2 <= a * c)
    a, b, c = (np.where(known, values, 1.0) for values in (a, b, c))
    normal = rng.standard_normal((len(a), 2))
    row = np.sqrt(a) * normal[:, 0]
    col = b / np.sqrt(a) * normal[:, 0] + np.sqrt(np.maximum(c - b**2 / a, 0)) * normal[:, 1]
    return np.where(known[:, None], np.stack([row, col], axis=1), np.nan)


def errors_of(
    estimates: Mapping[str, Offsets],
    reference: Offsets,
    kind: str,
    outside: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
) -> dict[str, Any]:
    """``errors_px`` of estimators with offsets (n, 2) px; each over the peaks that it answers, none without any.

    outside: by network, which peaks (n,) are outside what it was trained on; counted where there are some.
    """
    entries = {}
    for name, offsets in estimates.items():
        answered = np.isfinite(offsets).all(axis=1)
        if answered.any():
            entries[name] = summary(offsets[answered], reference[answered], kind)
            if name in outside and (beyond := int(outside[name][answered].sum())):
                entries[name]["outside"] = beyond
    return entries


def losses(errors: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Where a network's error is larger than a centroid's: the two, the percentile, both figures in px."""
    found = []
    for name, entry in errors.items():
        if name in ESTIMATORS or name in ("voigt", "cramer_rao_bound"):
            continue
        for baseline in _CENTROIDS:
            for key in PERCENTILES:
                if entry[key] > errors[baseline][key]:
                    lost = {"estimator": name, "centroid": baseline, "percentile": key}
                    found.append({**lost, "px": entry[key], "centroid_px": errors[baseline][key]})
    return found

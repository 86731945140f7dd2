"""Two estimators on the same peaks: how much one is better, with an interval by the bootstrap."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from braggnn_edge.evaluation.metrics import PERCENTILES
from braggnn_edge.peaks.table import PeakTable

#: Peaks of successive frames within so many px belong to one reflection.
_NEAR = 2
#: Random draws of the bootstrap, and the share of them that an interval holds.
RESAMPLES, CONFIDENCE = 2000, 0.95


def reflections(table: PeakTable) -> NDArray[np.int64]:
    """(n,) numbers: peaks of one reflection, which lie at one place of successive frames, have the same one.

    Their errors are alike, so they are no independent evidence. Peaks within 2 px of each other, in one frame or in two
    successive ones, are taken as one reflection, measured and simulated ones alike.
    """
    p = table.peaks
    places = np.stack([p["row"], p["col"], _NEAR * p["frame"].astype(np.int64)], 1).astype(np.float64)
    links = [np.zeros((0, 2), np.int64)]
    for scan in np.unique(p["scan"]):
        rows = np.flatnonzero(p["scan"] == scan)
        links.append(rows[cKDTree(places[rows]).query_pairs(_NEAR, p=np.inf, output_type="ndarray")])
    one, other = np.concatenate(links).T
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(p), len(p)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def differences(
    before: NDArray[np.float64], after: NDArray[np.float64], groups: NDArray[np.int64], seed: int
) -> dict[str, dict[str, float]]:
    """How much the errors ``after`` (n,) px are larger than ``before`` (n,), on the same peaks, at least one of them.

    For the mean and each percentile ``px``, ``low`` and ``high``: the difference, and the ends of its 95 % interval by
    the percentile bootstrap. Whole groups (n,), such as :func:`reflections`, are drawn, each with all its peaks.
    """
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    orders = [np.argsort(errors, kind="stable") for errors in (before, after)]
    ordered = [errors[order] for errors, order in zip((before, after), orders, strict=True)]
    rng = np.random.default_rng((seed, 11))
    found = np.empty((RESAMPLES, 1 + len(PERCENTILES)))
    for row in found:
        times = np.bincount(rng.integers(0, count, count), minlength=count)[group]
        old, new = (_figures(np.repeat(errors, times[order])) for errors, order in zip(ordered, orders, strict=True))
        row[:] = new - old
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    whole = _figures(after) - _figures(before)
    columns = zip(("mean", *PERCENTILES), whole, low, high, strict=True)
    return {key: {"px": float(px), "low": float(one), "high": float(other)} for key, px, one, other in columns}


def _figures(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([errors.mean(), *np.percentile(errors, list(PERCENTILES.values()))])

"""Errors over groups of peaks, each with a name: where an estimator is good, and where it is not.

Two groups are of peaks that have company, a crowd: "double maxima", whose component has two or more maxima, and
"neighbours within N px", in whose patch lies another component. A peak may be in both. With ``lone = true`` the split
leaves them out, so they are taken from all frames of the scans that are tested on, those of training included.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.evaluation.evaluate import errors_of
from braggnn_edge.peaks.splits import EXCLUDED, TEST
from braggnn_edge.peaks.table import PeakTable

Offsets = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Names of the groups: of peaks whose component has two or more maxima, and, before a distance, of those with another
#: component in their patch.
DOUBLE, NEIGHBOURS = "double maxima", "neighbours within"
#: The fewest peaks of a group that is reported.
FEWEST = 20
#: The most peaks with company that are looked at: with more, every group is thinned evenly.
MOST = 10_000


def part(values: Mapping[str, NDArray[Any]], chosen: Mask) -> dict[str, NDArray[Any]]:
    """Arrays (n, ...) by name, at the peaks (n,) that are chosen."""
    return {name: value[chosen] for name, value in values.items()}


def errors_by_group(
    groups: Mapping[str, Mask],
    estimates: Mapping[str, Offsets],
    reference: Offsets,
    kind: str,
    outside: Mapping[str, Mask],
) -> dict[str, dict[str, Any]]:
    """:func:`errors_of` over each group of peaks (n,) that has at least :data:`FEWEST`."""
    return {
        name: errors_of(part(estimates, chosen), reference[chosen], kind, part(outside, chosen))
        for name, chosen in groups.items()
        if chosen.sum() >= FEWEST
    }


def crowded(table: PeakTable, kind: str) -> PeakTable:
    """Peaks with company and a reference ``kind`` that no network was trained on, unsaturated, without bad pixels."""
    p = table.peaks
    company = ((p["maxima"] > 1) | (p["neighbours"] > 0)) & ~p["saturated"] & (p["masked"] == 0)
    tested = np.isin(p["scan"], np.unique(p["scan"][p["split"] == TEST])) & np.isin(p["split"], (TEST, EXCLUDED))
    found = np.flatnonzero(company & tested & table.has(kind))
    if len(found) > MOST:
        found = found[np.linspace(0, len(found) - 1, MOST).round().astype(np.int64)]
    chosen = np.zeros(len(p), bool)
    chosen[found] = True
    return table.where(chosen)


def crowds(crowded: PeakTable) -> dict[str, Mask]:
    """The groups of peaks (n,) with company, by name."""
    p = crowded.peaks
    return {DOUBLE: p["maxima"] > 1, f"{NEIGHBOURS} {crowded.size // 2} px": p["neighbours"] > 0}

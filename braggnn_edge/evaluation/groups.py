"""Errors over parts of the peaks, each with a name: where an estimator is good, and where it is not."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.evaluation.evaluate import errors_of

Offsets = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: The fewest peaks of a group that is reported.
FEWEST = 20


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

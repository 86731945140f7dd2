"""Two sets of grains compared: which are the same, and how far their positions, turns, strains and sizes are apart."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.grain_file import matrices, positions, stretches

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

#: Grains whose orientations differ by less are the same, degrees; among several the nearest in orientation is meant.
SAME_ANGLE = 0.25
#: Errors beyond this many standard deviations, by the spread of all, count neither to a bias nor to a random term.
_CLIP = 5.0
#: Decimals of um that are written: sizes beside the fit's differ by some nanometres.
_DIGITS = 5
#: Standard errors by which a bias must differ from nothing.
_SURE = 3.0


@dataclass(frozen=True)
class Differences:
    """Pairs (m, 2) of rows of two tables of grains, and what the first differs from the second.

    position: (m, 3) um; degrees: (m,); strain: (m,) the largest difference of a component; size: (m,) um, first minus
    second, NaN where one is not known; spots: (m,) of the first.
    """

    pairs: Index
    position: Floats
    degrees: Floats
    strain: Floats
    size: Floats
    spots: Index

    @property
    def distance(self) -> Floats:
        """(m,) um."""
        return np.linalg.norm(self.position, axis=1)


def paired(lattice: Lattice, first: NDArray[np.void], second: NDArray[np.void]) -> Index:
    """(m, 2) rows of the first and the second table that are one grain; each row is in one pair at most."""
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.int64)
    turns = matrices(second, "u")
    angle = np.array([lattice.misorientation(turns, turn) for turn in matrices(first, "u")])
    one, other = np.nonzero(angle < SAME_ANGLE)
    order = np.argsort(angle[one, other], kind="stable")
    used: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for i, j in zip(one[order].tolist(), other[order].tolist(), strict=True):
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            pairs.append((i, j))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def differences(lattice: Lattice, first: NDArray[np.void], second: NDArray[np.void]) -> Differences:
    """The grains of the first table beside those of the second, rows of GRAINS."""
    pairs = paired(lattice, first, second)
    one, other = first[pairs[:, 0]], second[pairs[:, 1]]
    turns = zip(matrices(one, "u"), matrices(other, "u"), strict=True)
    degrees = np.array([float(lattice.misorientation(a, b)) for a, b in turns])
    strain = np.abs(stretches(one) - stretches(other)).reshape(len(pairs), 9).max(1, initial=0.0)
    size, spots = one["size"] - other["size"], one["spots"].astype(np.int64)
    return Differences(pairs, positions(one) - positions(other), degrees, strain, size, spots)


def percentiles(values: Floats, digits: int) -> dict[str, float]:
    """Mean, p50 and p95 of the absolute values; nothing where none is known."""
    known = np.abs(values[np.isfinite(values)])
    if not len(known):
        return {}
    found = {"mean": known.mean(), "p50": np.median(known), "p95": np.percentile(known, 95)}
    return {name: round(float(value), digits) for name, value in found.items()}


def um(value: float) -> str:
    """A difference in um for the reader: two decimals, or as many as show two digits of it."""
    decimals = 2 if not value else max(2, 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, _DIGITS)}f}"


def summary(found: Differences) -> dict[str, Any]:
    """What ``grains.json`` says of differences: numbers, percentiles, and the mean vector with its standard error."""
    count = len(found.pairs)
    entry: dict[str, Any] = {"grains": count}
    if not count:
        return entry
    entry["position_um"] = percentiles(found.distance, _DIGITS)
    entry["mean_vector_um"] = [round(float(mean), 3) for mean in found.position.mean(0)]
    if count > 1:
        error = found.position.std(0, ddof=1) / np.sqrt(count)
        entry["mean_vector_error_um"] = [round(float(value), 3) for value in error]
    entry["degrees"] = percentiles(found.degrees, 5)
    entry["strain"] = percentiles(found.strain, 7)
    if size := percentiles(found.size, _DIGITS):
        entry["size_um"] = size
    return entry


def bias(errors: Floats, pixel: float, spots: float) -> dict[str, Any]:
    """Mean and random term of errors (m, 2) of positions in px, and what both do to a grain.

    pixel: um; spots: of a grain. A random term of s px moves a grain of n spots by pixel * s / sqrt(n) along the axis
    of rotation; a bias along the axis moves all grains by pixel * bias, and no number of spots helps. Errors farther
    out than five times the spread are outliers and in neither.
    """
    known = errors[np.isfinite(errors).all(1)]
    if len(known) < 2 or spots < 1:
        return {}
    middle = np.median(known, axis=0)
    spread = 1.4826 * np.median(np.abs(known - middle), axis=0)
    near = (np.abs(known - middle) <= _CLIP * np.maximum(spread, 1e-9)).all(1)
    mean, random = known[near].mean(0), known[near].std(0)
    moved, scattered = pixel * np.abs(mean), pixel * random / np.sqrt(spots)
    return {
        "reflections": len(known),
        "outliers": int((~near).sum()),
        "bias_px": [round(float(value), 5) for value in mean],
        "bias_error_px": [round(float(value), 5) for value in random / np.sqrt(near.sum())],
        "random_px": [round(float(value), 5) for value in random],
        "bias_um": [round(float(value), 3) for value in moved],
        "random_um": [round(float(value), 3) for value in scattered],
    }


def biased_axes(entry: Mapping[str, Any]) -> list[str]:
    """The axes along which a bias moves a grain by more than the random term does, and is no chance of few spots."""
    if not entry:
        return []
    found = []
    for number, axis in enumerate(("row", "col")):
        sure = abs(entry["bias_px"][number]) > _SURE * entry["bias_error_px"][number]
        if sure and entry["bias_um"][number] > entry["random_um"][number]:
            found.append(axis)
    return found

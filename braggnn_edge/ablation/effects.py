"""What an ingredient of the recipe changes, with a confidence interval over the seeds it was trained with."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from braggnn_edge.core.errors import UserError


@dataclass(frozen=True)
class Change:
    """Error with an ingredient over error without it, minus 1: negative where the ingredient helps.

    change: geometric mean over the seeds; low, high: ends of its confidence interval, None with fewer than two seeds;
    seeds: those trained both with and without.
    """

    change: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]


def paired_change(with_it: Mapping[int, float], without: Mapping[int, float], level: float = 0.95) -> Change:
    """The relative change of an error (px, positive) by seed, paired; seeds that one side lacks are left out.

    The interval is Student's t on the logarithm of the ratio, n - 1 degrees of freedom for n seeds: errors change by
    factors, and three seeds are too few for a bootstrap, whose intervals come out too short. It covers the draw of
    weights and batches, for one training set and one test set. Raises UserError without a common seed, or for an
    error that is not positive.
    """
    seeds = tuple(sorted(set(with_it) & set(without)))
    if not seeds:
        raise UserError(f"no seed was trained both ways: {sorted(with_it)} and {sorted(without)}; train more seeds")
    pairs = np.array([(with_it[seed], without[seed]) for seed in seeds], np.float64)
    if not (np.isfinite(pairs).all() and (pairs > 0).all()):
        raise UserError(f"errors {pairs.tolist()} must be positive numbers; a network answered without any error?")
    ratio = np.log(pairs[:, 0] / pairs[:, 1])
    middle = float(ratio.mean())
    if len(seeds) == 1:
        return Change(float(np.expm1(middle)), None, None, seeds)
    half = float(stats.t.ppf(0.5 + level / 2, len(seeds) - 1) * ratio.std(ddof=1) / np.sqrt(len(seeds)))
    return Change(float(np.expm1(middle)), float(np.expm1(middle - half)), float(np.expm1(middle + half)), seeds)

"""The patches on which every form is compared: peaks of the scans, random ones, and corner cases."""

from dataclasses import dataclass

import numpy as np

from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import PeakTable
from firmware_sim.verification.vectors import corner_case_codes, corner_case_counts
from quant.contract.arithmetic import Codes, Format
from quant.contract.locator import IntegerLocator
from quant.contract.vectors import corner_case_codes as patterns
from quant.contract.vectors import random_codes


@dataclass(frozen=True)
class Inputs:
    """Whole, saturated counts (m, window, window) and input codes (n, ...), n >= m: theirs, then bare codes.

    The first ``test`` patches are the test peaks; ``corner_cases`` counts the corner cases of both kinds.
    """

    counts: Codes
    codes: Codes
    test: int
    corner_cases: int


def inputs(table: PeakTable, locator: IntegerLocator, least: int, seed: int) -> Inputs:
    """``least`` patches of the test peaks, the other peaks, then random counts; corner cases come on top.

    Bare codes, which no counts may give, are for a network alone: other locators' hardware begins at counts.
    """
    rng = np.random.default_rng((seed, 4))
    test = table.peaks["split"] == TEST
    order = np.concatenate([np.flatnonzero(test), np.flatnonzero(~test)])[: max(least, int(test.sum()))]
    low, high = locator.normalizer.count_range
    form = Format(high.bit_length() + (low < 0), 0, low < 0)
    found = [locator.counts(table.patches()[order])]
    missing = least - len(order)
    if missing > 0:  # of every brightness
        found.append(random_codes(locator.window, form, missing, rng) >> rng.integers(0, 12, (missing, 1, 1)))
    corner = [patterns(locator.window, form), locator.normalizer.counts(corner_case_counts(locator.window, rng))[0]]
    counts = np.concatenate([*found, *corner])
    bare = [corner_case_codes(locator.window, locator.network.input, rng)] if locator.is_bare else []
    codes = np.concatenate([locator.inputs(counts), *bare])
    return Inputs(counts, codes, int(test.sum()), sum(map(len, [*corner, *bare])))

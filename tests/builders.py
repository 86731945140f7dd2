"""What several test modules build: references in plain Python integers."""

import numpy as np

from quant.contract.block_shift import BlockShift
from quant.contract.normalize import Normalizer


def min_max_by_steps(n: Normalizer, patch: np.ndarray) -> list[int]:
    """The documented steps in plain Python integers, one pixel at a time: a second, independent spelling."""
    half = 1 << (n.count_bits - 1)
    counts = [min(max(int(np.floor(v)), -half), half - 1) for v in patch.ravel().tolist()]
    low = min(counts)
    r = max(counts) - low
    if r == 0:
        return [0] * len(counts)
    w, m, t = n.count_bits, n.bits + 4, n.table_bits
    z = w - r.bit_length()
    index = ((r << z) >> (w - 1 - t)) & ((1 << t) - 1)
    entry = (1 << (t + m)) // ((1 << t) + index + 1)
    return [((((c - low) << z) >> (w - m)) * entry) >> (2 * m - 1 - n.bits) for c in counts]


def block_shift_by_steps(shift: BlockShift, patch: np.ndarray) -> list[int]:
    """The steps of quant/contract/block_shift.py in plain Python integers, one pixel at a time."""
    counts = [min(max(int(np.floor(c)), 0), 2**shift.count_bits - 1) for c in patch.ravel().tolist()]
    low = min(counts) if shift.subtract else 0
    together = 0
    for c in counts:
        together |= c - low
    zeros = shift.count_bits - together.bit_length()
    return [((c - low) << zeros) >> (shift.count_bits - shift.bits) for c in counts]

"""Deep valleys in the height along omega, where two reflections of one place follow each other."""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def valley_parts(group: Index, slot: Index, maximum: NDArray[np.float64], share: float) -> Index:
    """(n,) numbers of the parts into which groups (n,) of peaks are cut at deep valleys along ``slot``, their frame.

    maximum: (n,) heights, finite. That of a group in a frame is the largest of its peaks there; frames in which it has
    no peak do not count. A valley is deep when it is below ``share`` of the largest height on either side of it, up to
    the next deep valley. Its own peaks go with the brighter of the two frames beside it, the earlier of equal ones.
    With share 0 nothing is cut.
    """
    if not len(group):
        return group
    order = np.lexsort((slot, group))
    of, at = group[order], slot[order]
    first = np.diff(of, prepend=of[0] - 1) != 0
    new = first | (np.diff(at, prepend=at[0]) != 0)
    point = np.cumsum(new) - 1
    height = np.maximum.reduceat(maximum[order], np.flatnonzero(new)).astype(np.float64)
    begins = first[new]
    start = np.flatnonzero(begins)
    length = np.diff(start, append=len(height))
    begins[_cuts(height, start[length > 2], length[length > 2], share)] = True
    part = np.empty(len(group), np.int64)
    part[order] = (np.cumsum(begins) - 1)[point]
    return part


def _cuts(height: NDArray[np.float64], start: Index, length: Index, share: float) -> Index:
    """Points where a new part begins; of ``height`` (p,) the profiles begin at ``start`` and have ``length`` points.

    All profiles are walked along together, the longest first, so that those still under way come first.
    """
    order = np.argsort(-length, kind="stable")
    start, length = start[order], length[order]
    top, low, low_at = height[start].copy(), height[start].copy(), start.copy()
    found: list[Index] = []
    for step in range(1, int(length.max(initial=1))):
        busy = int(np.searchsorted(-length, -step))  # those longer than the step
        here = start[:busy] + step
        value = height[here]
        deeper = value < low[:busy]
        low[:busy][deeper], low_at[:busy][deeper] = value[deeper], here[deeper]
        cut = low[:busy] < share * np.minimum(top[:busy], value)
        valley = low_at[:busy][cut]
        found.append(valley + (height[valley - 1] >= height[valley + 1]))
        risen = cut | (value > top[:busy])
        top[:busy][risen] = low[:busy][risen] = value[risen]
        low_at[:busy][risen] = here[risen]
    return np.concatenate(found) if found else np.zeros(0, np.int64)

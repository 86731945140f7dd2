"""Which peaks of neighbouring frames belong together: candidates by a grid of cells, one partner each, chains.

Everything is done with whole arrays; memory holds the candidates of some frames at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from braggnn_edge.peaks.components import ranges

Index = NDArray[np.int64]

#: Candidates that are looked at together. All of one pair of frames are, however many these are.
_BLOCK = 4_000_000
#: Cells are at least so wide, px, that their number fits in 64 bits.
_SMALLEST_CELL = 0.25


@dataclass(frozen=True)
class Links:
    """Pairs (source, target) of peaks, the target in a later frame; wrapped: over the end of a full turn."""

    source: Index
    target: Index
    wrapped: NDArray[np.bool_]

    def where(self, mask: NDArray[np.bool_]) -> "Links":
        """The pairs where ``mask`` holds."""
        return Links(self.source[mask], self.target[mask], self.wrapped[mask])

    def groups(self, peaks: int) -> Index:
        """(peaks,) a number for the group that each peak belongs to, through any chain of pairs."""
        graph = coo_array((np.ones(len(self.source), np.int8), (self.source, self.target)), (peaks, peaks))
        return connected_components(graph, directed=False)[1].astype(np.int64)


class Neighbours:
    """Peaks (n,) at (row, col) px in frames, and a search for those of other frames within ``radius`` px.

    frame: numbers of the frames, ascending; row and col finite. turn: frames in a full turn, after which the first
    frame comes again; 0: there is no turn to close.
    """

    def __init__(self, frame: Index, row: NDArray, col: NDArray, radius: float, turn: int) -> None:
        self._frame, self._row, self._col, self._radius, self._turn = frame, row, col, radius, turn
        self._frames, self._group = np.unique(frame, return_inverse=True)
        cell = max(radius, _SMALLEST_CELL)
        # A margin of one cell on all sides, so that a neighbour's cell is never one of another line.
        self._down, self._right = (np.floor((x - x.min()) / cell).astype(np.int64) + 1 for x in (row, col))
        self._width = int(self._right.max()) + 2
        self._lines = int(self._down.max()) + 2
        key = self._key(self._group, self._down, self._right)
        self._order = np.argsort(key, kind="stable")
        self._sorted = key[self._order]

    def _key(self, group: Index, down: Index, right: Index) -> Index:
        return (group * self._lines + down) * self._width + right

    def within(self, later: int) -> Iterator[tuple[Links, NDArray[np.float64]]]:
        """Pairs at most ``radius`` px apart whose frames differ by ``later``, with their distances in px, in blocks.

        All pairs of one source frame are in one block. Of a frame with itself (later = 0) each pair comes once.
        """
        wanted = self._frames + later
        beyond = self._turn > 0
        wrapped = np.zeros(len(wanted), bool)
        if beyond:
            wrapped = wanted > self._frames[-1]
            wanted = np.where(wrapped, wanted - self._turn, wanted)
            wrapped &= wanted < self._frames  # a gap of more than the whole turn leads nowhere
        place = np.searchsorted(self._frames, wanted).clip(0, len(self._frames) - 1)
        known = self._frames[place] == wanted
        known &= wrapped | (wanted >= self._frames)
        source = np.flatnonzero(known[self._group])
        to = place[self._group[source]]
        lows, highs = [], []
        for step in (-1, 0, 1):
            cell = self._key(to, self._down[source] + step, self._right[source])
            lows.append(np.searchsorted(self._sorted, cell - 1))
            highs.append(np.searchsorted(self._sorted, cell + 1, side="right"))
        low, high = np.stack(lows, 1), np.stack(highs, 1)
        for block in _blocks((high - low).sum(1), self._group[source]):
            owner, found = ranges(low[block].ravel(), high[block].ravel())
            first, second = source[block][owner // 3], self._order[found]
            distance = np.hypot(self._row[first] - self._row[second], self._col[first] - self._col[second])
            near = distance <= self._radius
            if later == 0:
                near &= first < second
            first, second = first[near], second[near]
            yield Links(first, second, wrapped[self._group[first]]), distance[near]


def _blocks(count: Index, group: Index) -> Iterator[slice]:
    """Slices of sources with some :data:`_BLOCK` candidates each, that end where a group ends."""
    ends = np.flatnonzero(np.diff(group, append=-1)) + 1
    total = np.cumsum(count)[ends - 1]
    done = start = 0
    while done < len(ends):
        limit = (total[done - 1] if done else 0) + _BLOCK
        done = max(int(np.searchsorted(total, limit, side="right")), done + 1)
        yield slice(start, int(ends[done - 1]))
        start = int(ends[done - 1])


def one_partner_each(links: Links, distance: NDArray[np.float64]) -> Links:
    """Of all pairs the nearest, then the nearest of the rest, and so on, until every peak has one partner at most.

    Among equal distances the first source goes first, then the first target.
    """
    order = np.lexsort((links.target, links.source, distance))
    source, target = links.source[order], links.target[order]
    kept = np.zeros(len(order), bool)
    left = np.arange(len(order))
    while len(left):
        # The first pair of a peak is its nearest; what is first for both can be taken, whatever the others do.
        from_first, to_first = _first(source[left]), _first(target[left])
        taken = from_first & to_first
        kept[left[taken]] = True
        free = ~np.isin(source[left], source[left[taken]]) & ~np.isin(target[left], target[left[taken]])
        left = left[free]
    return links.where(np.isin(np.arange(len(order)), order[kept]))


def _first(values: Index) -> NDArray[np.bool_]:
    """(n,) whether a value comes for the first time."""
    result = np.zeros(len(values), bool)
    result[np.unique(values, return_index=True)[1]] = True
    return result


def joined(parts: list[Links]) -> Links:
    """All pairs of several lists."""
    none = np.zeros(0, np.int64)
    parts = [Links(none, none, none.astype(bool)), *parts]
    return Links(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("source", "target", "wrapped")))


def chains(neighbours: Neighbours, peaks: int, gap: int) -> Links:
    """Pairs that make chains: every peak has at most one before it and one after it.

    Frames that follow each other are looked at first, then those with one frame between them, up to ``gap``.
    """
    before, after = np.zeros(peaks, bool), np.zeros(peaks, bool)
    found: list[Links] = []
    for later in range(1, gap + 2):
        for links, distance in neighbours.within(later):
            free = ~after[links.source] & ~before[links.target]
            chosen = one_partner_each(links.where(free), distance[free])
            after[chosen.source] = before[chosen.target] = True
            found.append(chosen)
    return joined(found)


def without_loops(links: Links, frame: Index) -> Links:
    """Chains (:func:`chains`) without the wrapped pairs that would put a frame twice into one.

    A chain that reaches from the first frames of a turn to the last (a defect of the detector does) is not wrapped.
    """
    inner, wrapped = links.where(~links.wrapped), links.where(links.wrapped)
    chain = inner.groups(len(frame))
    count = int(chain.max(initial=-1)) + 1
    first, last = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(first, chain, frame)
    np.maximum.at(last, chain, frame)
    head, tail = chain[wrapped.source], chain[wrapped.target]
    both = np.isin(head, tail), np.isin(tail, head)
    return joined([inner, wrapped.where((first[head] > last[tail]) & ~both[0] & ~both[1])])

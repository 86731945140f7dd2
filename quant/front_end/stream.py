"""A stream of rows as it comes from a detector's link, with its faults, to frames.

A row is what lies between two ends of rows (TLAST) or before a start (TUSER) that comes before its end. What the rules
make of faults:

- Rows before the first start, and between the last row of a frame and the next start, are thrown away; the frame that
  starts next is RESYNCHRONIZED.
- A row with fewer pixels than set: the rest of it is masked. With more: the rest of it is not used. Either way, and
  where the end of a row does not come with its last pixel, the frame has ROW_LENGTH.
- A start before the frame's rows are all there: the frame ends, in the middle of a row behind that row, with
  RESYNCHRONIZED, and SHORT if rows are missing. It has the rows that came: those that are missing are outside of it, so
  peaks near them have EDGE.

A frame that no start and no last row ended is not there yet.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.front_end.records import EndFlag
from quant.front_end.spec import FrontEnd


@dataclass(frozen=True, eq=False)
class Row:
    """counts: (n,) raw, n at least 1; start: its first pixel starts a frame; ended: its last one ends the row."""

    counts: NDArray[np.integer]
    start: bool = False
    ended: bool = True


@dataclass(frozen=True, eq=False)
class Arrived:
    """counts: (rows, cols) raw, rows at most those set; bad: (rows, cols), pixels that did not come, None: all came;
    flags: of :class:`EndFlag`."""

    counts: NDArray[np.integer]
    bad: NDArray[np.bool_] | None
    flags: EndFlag


def rows_of(frame: NDArray[np.integer]) -> list[Row]:
    """A frame (rows, cols) as the rows of a stream without faults."""
    return [Row(counts, start=number == 0) for number, counts in enumerate(frame)]


def arrived(front: FrontEnd, rows: Iterable[Row]) -> Iterator[Arrived]:
    """The frames of a stream of rows, by the rules of the module's text."""
    held: list[Row] = []
    thrown = False
    flags = EndFlag(0)
    for row in rows:
        if row.start:
            if held:
                flags |= EndFlag.RESYNCHRONIZED if _unfinished(front, held) else EndFlag(0)
                yield _frame(front, held, flags)
            held, flags, thrown = [row], EndFlag.RESYNCHRONIZED if thrown else EndFlag(0), False
        elif held:
            held.append(row)
        else:
            thrown = True
        # A last row that lacks its end goes on until the next start.
        if len(held) == front.rows and held[-1].ended:
            yield _frame(front, held, flags)
            held = []


def _unfinished(front: FrontEnd, held: list[Row]) -> bool:
    """Whether a start came before the pixels of a frame were all there."""
    return len(held) < front.rows or len(held[-1].counts) < front.cols


def _frame(front: FrontEnd, held: list[Row], flags: EndFlag) -> Arrived:
    counts = np.zeros((len(held), front.cols), np.uint16)
    bad = np.ones(counts.shape, bool)
    for number, row in enumerate(held):
        length = min(len(row.counts), front.cols)
        counts[number, :length] = row.counts[:length]
        bad[number, :length] = False
        if len(row.counts) != front.cols or not row.ended:
            flags |= EndFlag.ROW_LENGTH
    if len(held) < front.rows:
        flags |= EndFlag.SHORT
    return Arrived(counts, bad if bad.any() else None, flags)

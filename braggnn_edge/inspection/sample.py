"""Which frames of a scan are looked at: runs of consecutive frames, spread evenly over it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.scan import Scan

#: Frames in a run: most reflections rock through fewer.
LENGTH = 8
#: Pixels that are looked at one by one (noise, bad pixels), and pixels in which spots are searched.
PIXEL_BUDGET, SPOT_BUDGET, SPOT_BUDGET_LOCAL = 120e6, 3.2e9, 4e8
_MOST_PAIRS, _MOST_RUNS = 16, 48
#: Frames that were read are kept up to so many bytes in all.
_KEPT_BYTES = 2e8


@dataclass(frozen=True)
class Frame:
    """A frame that was read: its index in the scan, its run, the counts and the good pixels (None: all)."""

    index: int
    run: int
    counts: NDArray[np.generic]
    valid: NDArray[np.bool_] | None


def runs(frames: int, pixels: int, budget: float) -> list[range]:
    """Runs of consecutive frames, in order; no more than ``budget`` pixels in all, but at least one run."""
    length = min(LENGTH, frames)
    count = int(min(frames // length, max(1, budget / (pixels * length)), _MOST_RUNS))
    starts = np.linspace(0, frames - length, count).astype(int)
    return [range(start, start + length) for start in starts.tolist()]


def pairs(frames: int, pixels: int) -> list[range]:
    """Neighbouring frames two by two, spread over the scan; of a single frame that one."""
    if frames < 2:
        return [range(frames)]
    count = int(np.clip(PIXEL_BUDGET / (2 * pixels), 2, _MOST_PAIRS))
    starts = np.unique(np.linspace(0, frames - 2, min(count, frames // 2)).astype(int))
    return [range(start, start + 2) for start in starts.tolist()]


def spread(chosen: list[range]) -> list[int]:
    """Numbers of runs in an order in which the first few are spread over the scan too."""
    count = len(chosen)
    order = sorted(range(count), key=lambda i: int(format(i, "010b")[::-1], 2))
    return order


class Reader:
    """Reads frames of a scan, and notes those that cannot be used. Raises UserError where none can."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.bad: dict[int, str] = {}
        self._kept: dict[int, Frame] = {}
        self._room = _KEPT_BYTES

    def read(self, chosen: range, run: int) -> Iterator[Frame]:
        """The usable frames of one run."""
        if all(index in self._kept or index in self.bad for index in chosen):
            for index in chosen:
                if index in self._kept:
                    yield replace(self._kept[index], run=run)
            return
        for index, counts, valid in self.scan.frames_with_valid(chosen.start, chosen.stop, self._note):
            if valid is not None and not valid.any():
                self.bad[index] = f"frame {index} has no good pixel"
                continue
            frame = Frame(index, run, counts, valid)
            size = counts.nbytes + (0 if valid is None else valid.nbytes)
            if index not in self._kept and size <= self._room:
                self._kept[index] = frame
                self._room -= size
            yield frame

    def _note(self, index: int, message: str) -> None:
        self.bad[index] = message

    def refuse(self) -> None:
        """Raise the error for a scan without a usable frame."""
        first = next(iter(self.bad.values()), "")
        raise UserError(
            f"scan {self.scan.name!r}: none of the frames looked at can be used ({first}); check --mask, --negative, "
            "--overflow-value and the file"
        )

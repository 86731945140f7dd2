"""What ``locate`` says at its end: how many peaks, with which flags, and what the network was not trained on."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.locate.frames import flagged, outside
from braggnn_edge.locate.locator import Locator
from braggnn_edge.peaks.peak_list import PeakFlag

#: What a flag says, in words behind a number of peaks.
_WORDS = {
    PeakFlag.SATURATED: "saturated",
    PeakFlag.EDGE: "at the edge, not located",
    PeakFlag.NEIGHBOUR: "with another component in the patch",
    PeakFlag.DOUBLE: "in components of several maxima",
    PeakFlag.BAD_PIXEL: "with bad pixels in the patch",
    PeakFlag.NOT_TRUSTED: "whose sigma is above the limit",
}


class Summary:
    """Counts rows of :data:`braggnn_edge.peaks.peak_list.PEAKS` as they come."""

    def __init__(self, locator: Locator, gain: float = 1.0) -> None:
        self._locator = locator
        self._gain = gain  # counts a photon
        self._peaks = 0
        self._flags: Counter[PeakFlag] = Counter()
        self._reasons: Counter[str] = Counter()

    def add(self, rows: NDArray[np.void]) -> None:
        """Count the rows (n,) of some frames."""
        self._peaks += len(rows)
        for flag in PeakFlag:
            self._flags[flag] += int(flagged(rows, flag).sum())
        if self._locator.trained_on is not None:
            for name, mask in outside(rows, self._locator.trained_on, self._divisor).items():
                self._reasons[name] += int(mask.sum())

    def lines(self, frames: int, bad: Sequence[int]) -> list[str]:
        """Sentences for the user. frames: how many were located; bad: those that were left out."""
        lines = [f"{self._peaks:,} peaks in {frames:,} frames"]
        if bad:
            more = ", ..." if len(bad) > 12 else ""
            lines.append(f"{len(bad)} bad frames skipped: {', '.join(map(str, bad[:12]))}{more}")
        if not self._peaks:
            lines.append("no peak was found; the list is empty")
            return lines
        for flag, words in _WORDS.items():
            if self._flags[flag]:
                lines.append(f"{flag.name}: {self._flags[flag]:,} peaks {words}")
        if self._divisor != 1:
            lines.append(f"{self._name} was given counts divided by the gain of {self._gain:g}: sigma supposes photons")
        elif self._locator.sigma and self._gain != 1:
            lines.append(
                f"sigma supposes counts of about one photon; at a gain of {self._gain:g} that of {self._name} "
                f"is too {'small' if self._gain > 1 else 'large'}, since integers take counts as they are"
            )
        return [*lines, self._outside()]

    @property
    def _name(self) -> str:
        return "this integer network" if self._locator.exact else self._locator.name

    @property
    def _divisor(self) -> float:
        return self._gain if self._locator.photons else 1.0

    def _outside(self) -> str:
        ranges, name = self._locator.trained_on, self._name
        if ranges is None:
            return f"what {name} was trained on is not known: no peak is marked OUTSIDE"
        known = [f"counts of the brightest pixel {_range(ranges.counts)}", f"FWHM {_range(ranges.fwhm)} px"]
        if ranges.area is not None:
            known.append(f"area {_range(ranges.area)} px")
        if not ranges.saturated:
            known.append("not saturated")
        count = self._flags[PeakFlag.OUTSIDE]
        reasons = "; ".join(f"{number:,} {reason}" for reason, number in self._reasons.items())
        return f"OUTSIDE: {count:,} peaks are outside of what {name} was trained on ({', '.join(known)})" + (
            f": {reasons}" if reasons else ""
        )


def _range(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.6g} to {bounds[1]:.6g}"

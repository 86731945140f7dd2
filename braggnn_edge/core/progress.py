"""Progress of a long stage: a line that rewrites itself on a terminal, a few lines elsewhere."""

import sys
import time
from collections.abc import Callable

#: Seconds between two writings of the line on a terminal, and between two lines elsewhere when a tenth takes longer.
_REWRITE, _SILENCE = 0.2, 300.0


class Progress:
    """Counts what is done, in units, and peaks.

    done, peaks: of an earlier run, which do not count for the rate. verb and units: of the line.
    """

    def __init__(
        self,
        total: int,
        say: Callable[[str], None],
        done: int = 0,
        peaks: int = 0,
        verb: str = "labelled",
        units: str = "shards",
    ) -> None:
        self._verb, self._units = verb, units
        self.total, self.done, self.peaks = total, done, peaks
        self._say, self._first, self._first_peaks = say, done, peaks
        self._began = self._spoke = time.monotonic()
        self._live = sys.stdout is not None and sys.stdout.isatty()

    def add(self, peaks: int, units: int = 1) -> None:
        """One more unit, or some, with its number of peaks."""
        tenths = self.done * 10 // max(1, self.total)
        self.done, self.peaks = self.done + units, self.peaks + peaks
        now, last = time.monotonic(), self.done == self.total
        if self._live:
            if last or now - self._spoke > _REWRITE:
                sys.stdout.write(f"\r{self.line(now)}\x1b[K" + ("\n" if last else ""))
                sys.stdout.flush()
                self._spoke = now
        elif last or self.done * 10 // self.total > tenths or now - self._spoke > _SILENCE:
            self._say(self.line(now))
            self._spoke = now

    def end(self) -> None:
        """End the line on a terminal, when it is not at its own end: what is said next has its own."""
        if self._live and self._first < self.done < self.total:
            sys.stdout.write("\n")

    def line(self, now: float) -> str:
        """``labelled 12 of 40 shards, 15,230 peaks, 812 peaks/s, 0:42 left``; of frames their rate too."""
        spent, units = max(now - self._began, 1e-9), self.done - self._first
        left = round(spent / units * (self.total - self.done)) if units else 0
        speed = units / spent
        rate = f"{speed:,.0f} frames/s, " if speed >= 10 else f"{speed:.2g} frames/s, "
        rate = rate if self._units == "frames" else ""
        return (
            f"  {self._verb} {self.done:,} of {self.total:,} {self._units}, {self.peaks:,} peaks, {rate}"
            f"{(self.peaks - self._first_peaks) / spent:,.0f} peaks/s, {clock(left)} left"
        )


def clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"

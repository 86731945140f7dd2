"""How fast the training loop goes, in words: a line within seconds of its start, then one about every half minute."""

import time
from collections.abc import Callable

from braggnn_edge.core.progress import clock

#: Seconds from the start to the first line, and from any line to the next one.
FIRST, EVERY = 3.0, 30.0


class Pace:
    """Counts iterations of one process from ``start`` on, up to ``total``."""

    def __init__(self, start: int, total: int, say: Callable[[str], None]) -> None:
        self._start, self._total, self._say = start, total, say
        self._began = time.monotonic()
        self._due = self._began + FIRST

    def step(self, iteration: int) -> None:
        """``iteration`` is done: say so when nothing was said for a while."""
        if time.monotonic() >= self._due:
            self._say(f"  iteration {iteration:6d}/{self._total}  {self.rate(iteration)}")
            self.spoken()

    def spoken(self) -> None:
        """The user has just been told something."""
        self._due = time.monotonic() + EVERY

    def rate(self, iteration: int) -> str:
        """``8.2 iterations/s, at most 2:42:33 left``: training may stop early."""
        rate = max(iteration - self._start, 1) / max(time.monotonic() - self._began, 1e-9)
        return f"{rate:.3g} iterations/s, at most {clock(round((self._total - iteration) / rate))} left"

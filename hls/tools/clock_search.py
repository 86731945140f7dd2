"""Which clock to ask of place and route next: it is raised until it is missed with every seed."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """One run of place and route: the clock asked for and the one reached, in MHz, and the seed of the placer."""

    asked_mhz: float
    reached_mhz: float
    seed: int

    @property
    def met(self) -> bool:
        """Whether the timing is met."""
        return self.reached_mhz >= self.asked_mhz


def following(tried: Sequence[Tried], first_mhz: float, seeds: int) -> tuple[float, int] | None:
    """Clock and seed of the run after those that were ``tried``, in their order; None where the search has ended.

    A clock that one seed meets is met; the next is 1.05 times what was reached. One that ``seeds`` seeds miss ends the
    search where a lower one was met. Where none was, 0.98 times the best that was reached is tried, since a clock far
    out of reach makes a worse placement than one just out of reach, and the first that is met ends the search.
    """
    if not tried:
        return first_mhz, 1
    last = tried[-1]
    same = [run for run in tried if run.asked_mhz == last.asked_mhz]
    best = max(run.reached_mhz for run in same)
    lowered = last.asked_mhz < first_mhz
    if last.met:
        return None if lowered else (round(1.05 * best, 1), 1)
    if len(same) < seeds:
        return last.asked_mhz, last.seed + 1
    return None if any(run.met for run in tried) else (round(min(0.98 * best, last.asked_mhz - 0.1), 1), 1)


def met_mhz(tried: Sequence[Tried]) -> float | None:
    """The highest clock that was asked for and met; None where none was."""
    return max((run.asked_mhz for run in tried if run.met), default=None)

"""How a stream simulation is run, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from quant.contract.arithmetic import Codes

#: Who stalls at random, next to the random order and speed of the processes: nobody, the source of patches, the sink of
#: results, both, every process at every access. Odd seeds stall in bursts of up to 8,192 steps, even ones briefly.
STALLS = ("free", "source", "sink", "both", "everywhere")


@dataclass(frozen=True)
class Schedule:
    """How to run: one of :data:`STALLS`; ``held``, a process that runs only when no other can.

    ``in_flight``: each process is a pipeline that stalls as a whole; its access to each FIFO is in a stage of its own,
    0 to in_flight, drawn from the seed. ``depths`` replace the declared ones.
    """

    seed: int
    stall: str = "free"
    held: str = ""
    in_flight: int = 0
    depths: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Wait:
    """A process that cannot go on, in which patch, and the FIFO it waits for."""

    process: str
    writes: bool
    channel: str
    fill: int
    depth: int
    patch: int

    def __str__(self) -> str:
        what = "space" if self.writes else "data"
        return f"{self.process} (patch {self.patch}) waits for {what} in {self.channel} ({self.fill} of {self.depth})"


@dataclass(frozen=True)
class Deadlock:
    """No process can go on while work remains."""

    schedule: Schedule
    waits: tuple[Wait, ...]

    @property
    def full(self) -> tuple[str, ...]:
        """The FIFOs that a process wants to write and cannot."""
        return tuple(wait.channel for wait in self.waits if wait.writes)

    def __str__(self) -> str:
        return "; ".join(str(wait) for wait in self.waits)


@dataclass(frozen=True)
class Channel:
    """A FIFO, or an array in several copies (``array``): ``depth`` simulated, ``declared`` in the project, in elements
    or copies; the ``high`` water mark, what is ``left`` in the end, how many elements were ``passed``.
    """

    name: str
    array: bool
    declared: int
    depth: int
    high: int
    left: int
    passed: int
    writer: str
    reader: str


@dataclass(frozen=True)
class Outcome:
    """What one schedule did: output codes (patches that came out, outputs) and all FIFOs."""

    schedule: Schedule
    outputs: Codes
    channels: tuple[Channel, ...]
    deadlock: Deadlock | None


@dataclass(frozen=True)
class StreamResult:
    """What all schedules did."""

    outcomes: tuple[Outcome, ...]

    @property
    def outputs(self) -> tuple[Codes, ...]:
        """Output codes of each schedule."""
        return tuple(outcome.outputs for outcome in self.outcomes)

    @property
    def deadlock(self) -> Deadlock | None:
        """The first deadlock, if any."""
        return next((outcome.deadlock for outcome in self.outcomes if outcome.deadlock), None)

    @property
    def channels(self) -> dict[str, Channel]:
        """By name, with the highest fill and what was left over all schedules."""
        found: dict[str, Channel] = {}
        for channel in (channel for outcome in self.outcomes for channel in outcome.channels):
            known = found.setdefault(channel.name, channel)
            found[channel.name] = replace(
                known, high=max(known.high, channel.high), left=max(known.left, channel.left),
                passed=known.passed if known is channel else known.passed + channel.passed,
            )  # fmt: skip
        return found

    @property
    def high_water(self) -> dict[str, int]:
        """The highest fill of each FIFO, and copies in use of each array."""
        return {name: channel.high for name, channel in self.channels.items()}

    def wrong(self, expected: Codes) -> int:
        """Schedules whose results are not the expected codes, each patch once and in order."""
        return sum(not np.array_equal(found, expected) for found in self.outputs)

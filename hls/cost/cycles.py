"""Processes with bounded FIFOs between them, cycle by cycle: when each step runs, and whether all can stop for good.

A process repeats its steps, one after another, for every patch. A step starts when the process's step before is over
and all tokens that it reads are there; it takes them then. What it writes comes out of the process's pipeline ``depth``
cycles after the step is over, and must have room then, or the pipeline waits. Between patches the pipeline drains. A
pipelined loop is one step an iteration, as long as its initiation interval. An array that a dataflow region buffers
twice is two FIFOs of tokens: full buffers forwards, free ones (two at first) backwards.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from braggnn_edge.core.errors import UserError


@dataclass(frozen=True)
class Step:
    """cycles: how long it takes; reads, writes: names of FIFOs, one token each."""

    cycles: int
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Process:
    """steps: of one patch, in order; depth: cycles of its pipeline beyond the last step."""

    name: str
    steps: tuple[Step, ...]
    depth: int = 0


@dataclass(frozen=True)
class Fifo:
    """depth: tokens it holds; full: tokens in it at first."""

    depth: int
    full: int = 0


class _Channel:
    """A FIFO at work: when each token in it can be read, and since when each empty place is one."""

    def __init__(self, fifo: Fifo) -> None:
        self.tokens = deque([0] * fifo.full)
        self.places = deque([0] * (fifo.depth - fifo.full))


def simulate(processes: Sequence[Process], fifos: Mapping[str, Fifo], patches: int) -> dict[str, list[int]]:
    """The cycle in which each process is over with each patch, by the process's name.

    A FIFO that is not in ``fifos`` is an endless source or sink. Raises UserError when no process can go on, naming
    what each of them waits for.
    """
    channels = {name: _Channel(fifo) for name, fifo in fifos.items()}
    running = {process.name: _run(process, channels, patches) for process in processes}
    ends: dict[str, list[int]] = {process.name: [] for process in processes}
    waits: dict[str, str] = {}
    while running:
        moved = False
        for name, steps in list(running.items()):
            for found in steps:
                if isinstance(found, str):
                    waits[name] = found
                    break
                moved = True
                if found >= 0:
                    ends[name].append(found)
            else:
                del running[name]
        if running and not moved:
            stuck = "; ".join(f"{name} waits for {waits[name]}" for name in running)
            raise UserError(f"deadlock: {stuck}; a FIFO is too shallow for the tokens that must wait in it")
    return ends


def _run(process: Process, channels: Mapping[str, _Channel], patches: int) -> Iterator[int | str]:
    """Yields the end of every patch, -1 after any other step, and what it waits for when it cannot go on now."""
    now = 0
    for _ in range(patches):
        for index, step in enumerate(process.steps):
            reads = [channels[name] for name in step.reads if name in channels]
            writes = [channels[name] for name in step.writes if name in channels]
            while not (all(c.tokens for c in reads) and all(c.places for c in writes)):
                empty = [name for name in step.reads if name in channels and not channels[name].tokens]
                full = [name for name in step.writes if name in channels and not channels[name].places]
                yield f"a token in {empty[0]}" if empty else f"room in {full[0]}"
            through = step.cycles + process.depth
            start = max([now, *(c.tokens[0] for c in reads), *(c.places[0] - through for c in writes)])
            now = start + step.cycles
            for channel in reads:
                channel.tokens.popleft()
                channel.places.append(start)
            for channel in writes:
                channel.places.popleft()
                channel.tokens.append(start + through)
            if index == len(process.steps) - 1:
                now += process.depth
                yield now
            else:
                yield -1

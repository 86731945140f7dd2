"""All units of a command: in this process while that is quicker, on a Dask cluster else; and the progress of it."""

import time
from collections.abc import Callable, Sequence

import torch

from braggnn_edge.core.progress import Progress
from braggnn_edge.shards import files
from braggnn_edge.shards.environment import environment
from braggnn_edge.shards.unit import Unit

#: Seconds of work left from which on a local cluster pays: it takes some 5 to 20 to start on two cores.
CLUSTER_PAYS = 20.0


def do(
    units: Sequence[Unit], workers: int, scheduler: str, say: Callable[[str], None], verb: str, in_frames: bool = False
) -> None:
    """Make the shards of ``units`` that are missing or damaged.

    workers: processes on this machine; scheduler: address or scheduler file of a Dask cluster that does the work
    instead (:func:`distribute.connected`). verb: what is done, for the progress, counted in shards or ``in_frames``.
    """

    def size(unit: Unit) -> int:
        return unit.stop - unit.start if in_frames else 1

    waiting, done_before, peaks = [], 0, 0
    for unit in units:
        found = files.head(unit)
        if found is None:
            waiting.append(unit)
        else:
            done_before, peaks = done_before + size(unit), peaks + found["peaks"][0]
    unit_name = "frames" if in_frames else "shards"
    progress = Progress(sum(map(size, units)), say, done_before, peaks, verb, unit_name)
    if progress.done:
        say(f"  {progress.done:,} of {progress.total:,} {unit_name} were done before")

    def done(unit: Unit) -> None:
        progress.add(files.finished(unit), size(unit))

    try:
        if not scheduler:
            waiting = _serially(waiting, workers, done)
        if waiting:
            # Dask takes seconds to import.
            from braggnn_edge.shards import distribute  # noqa: PLC0415

            with distribute.connected(scheduler) if scheduler else distribute.local_cluster(workers) as client:
                distribute.do_shards(client, waiting, done, say, local=not scheduler)
    finally:
        progress.end()


def _serially(units: list[Unit], workers: int, done: Callable[[Unit], None]) -> list[Unit]:
    """Do units in this process while that is quicker than to start a cluster; what is left to that."""
    wanted = {unit.scan: environment(unit) for unit in {unit.scan: unit for unit in units}.values()}
    threads, began = torch.get_num_threads(), 0.0
    try:
        for number, unit in enumerate(units):
            left = len(units) - number
            if number > 1:  # the first took longer: it opened, or built, what all others use
                expected = (time.monotonic() - began) / (number - 1) * left
                if workers > 1 and left > 1 and expected > CLUSTER_PAYS:
                    return units[number:]
            files.make(unit, wanted[unit.scan])
            done(unit)
            if not number:
                began = time.monotonic()
        return []
    finally:
        torch.set_num_threads(threads)

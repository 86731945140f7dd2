"""Units of work on a Dask cluster: one of this machine, or that of a scheduler's address.

A shard counts as done when its file is there, and it gets there by one rename, so that workers, scheduler and client
may be killed at any moment: what is missing is done again, by whom and how often is of no consequence for the result.
"""

import asyncio
import contextlib
import json
import logging
import math
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

import dask
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.comm import connect
from distributed.security import Security
from distributed.utils import silence_logging_cmgr

from braggnn_edge.core.errors import UserError
from braggnn_edge.shards import files
from braggnn_edge.shards.environment import environment
from braggnn_edge.shards.unit import Unit

#: Seconds that a scheduler has to answer, at the start and after a lost connection.
ANSWER = 30.0
#: Seconds between two looks at the number of workers; seconds that a local cluster may be without any.
_LOOK, _RESTART = 10.0, 120.0
#: Times that a local cluster is started when it fails to.
_STARTS = 3
#: A worker may die of another's shard, or of a stranger's hand: Dask gives a shard up after its fourth worker (its
#: setting allowed-failures), and it is given to Dask this often.
_ROUNDS = 2
#: Shards handed to the scheduler at a time, for every thread and at least.
_AHEAD, _AT_LEAST = 4, 64

#: No log lines of Dask about workers and connections that come and go: that is expected here.
_SILENT = logging.CRITICAL + 1

_LOCAL = {
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.worker-saturation": 1.0,  # the shards that a dead worker had in hand are blamed: one only
    "distributed.scheduler.worker-ttl": None,  # a worker in a long fit sends no heartbeat; its nanny sees it die
    # A worker holds nothing but its frames: nothing to spill, and waiting frees no memory. It may be too large, though.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}


@contextlib.contextmanager
def local_cluster(workers: int) -> Iterator[Client]:
    """A cluster of ``workers`` processes of one thread on this machine, and its client; it dies with this process."""
    with (
        silence_logging_cmgr(_SILENT),
        dask.config.set(_LOCAL),
        _started(workers) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _started(workers: int, again: int = _STARTS - 1) -> LocalCluster:
    """A worker that is killed while it starts fails the whole cluster: it is tried again a few times."""
    try:
        # Port 0 takes a free one where the default, 8787, would warn when two runs share a machine.
        return LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0",
            silence_logs=_SILENT,
        )  # fmt: skip
    except RuntimeError as error:
        if again:
            return _started(workers, again - 1)
        raise UserError(
            f"{workers} workers did not start on this machine ({_first_line(error)}); what is finished is kept: run "
            "the same command again, with fewer --workers"
        ) from error


@contextlib.contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """The client of a running cluster: ``scheduler`` is an address, ``tcp://host:port``, or a scheduler file.

    Raises UserError when it does not answer within :data:`ANSWER` seconds.
    """
    security = Security()  # keys and certificates, where Dask's configuration names some
    with silence_logging_cmgr(_SILENT), contextlib.ExitStack() as stack:
        try:
            address = _address(scheduler)
            # Dask's client waits without end for a scheduler that takes the connection and then says nothing.
            asyncio.run(asyncio.wait_for(_greet(address, security), ANSWER))
            options = {"timeout": ANSWER, "security": security, "set_as_default": False}
            client = stack.enter_context(Client(address, **options))
        except (OSError, ValueError) as error:
            raise UserError(
                f"scheduler {scheduler} does not answer within {ANSWER:g} s ({_first_line(error)}); check that "
                "`dask scheduler` runs there and is reachable from here, or leave --scheduler out"
            ) from error
        yield client


def _address(scheduler: str) -> str:
    if "://" in scheduler or not (scheduler.endswith(".json") or Path(scheduler).exists()):
        return scheduler
    try:
        return str(json.loads(Path(scheduler).read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"scheduler file {scheduler} is missing or names no address; start `dask scheduler --scheduler-file "
            f"{scheduler}` first"
        ) from error


async def _greet(address: str, security: Security) -> None:
    comm = await connect(address, timeout=ANSWER, **security.get_connection_args("client"))
    await comm.close()


def do_shards(
    client: Client,
    units: Sequence[Unit],
    done: Callable[[Unit], None],
    say: Callable[[str], None],
    *,
    local: bool,
) -> None:
    """Do all ``units`` on the cluster; ``done`` is called here with each whose shard is there, in any order.

    Bounded: few more than the workers can do are handed over, and nothing but errors comes back. Raises what a worker
    raised; UserError when the scheduler is lost, when one shard kills worker after worker, and when a cluster that is
    ``local`` has no worker for long.
    """
    where = str(client.scheduler.address) if client.scheduler else "of this machine"
    first = {unit.scan: unit for unit in units}
    wanted = {scan: environment(unit) for scan, unit in first.items()}
    waiting, running = deque(units), dict[str, tuple[Future, Unit]]()
    ready: SimpleQueue[str] = SimpleQueue()
    killed: Counter[Path] = Counter()
    watch = _Watch(client, where, say, _RESTART if local else math.inf)
    while waiting or running:
        while waiting and len(running) < watch.ahead:
            unit = waiting.popleft()
            key = f"shard-{unit.shard.stem}-{uuid.uuid4().hex}"
            future = client.submit(files.make, unit, wanted[unit.scan], key=key, pure=False)
            running[key] = future, unit
            future.add_done_callback(lambda future: ready.put(future.key))
        try:
            key = ready.get(timeout=_LOOK)
        except Empty:
            if not watch.look():
                in_hand = _named([unit for _, unit in running.values()])
                raise UserError(
                    f"no worker of this machine is left; in hand were {in_hand}; most likely they lack memory: what is "
                    "finished is kept, run the same command again with fewer --workers"
                ) from None
            continue
        watch.alive()
        future, unit = running.pop(key)
        if future.status == "finished":
            files.finished(unit)
            done(unit)
        elif future.status == "error":
            _check_error(future.exception(), unit, killed, where)
            waiting.append(unit)
        else:  # cancelled, with all the others, since the connection is lost
            _wait_for_connection(client, where)
            waiting.append(unit)


class _Watch:
    """Looks now and then how many threads the cluster has."""

    def __init__(self, client: Client, where: str, say: Callable[[str], None], restart: float) -> None:
        self._client, self._where, self._say, self._restart = client, where, say, restart
        self._alone_since, self._looked, self._told = time.monotonic(), -_LOOK, False
        self.ahead = _AT_LEAST
        self.look()

    def alive(self) -> None:
        """A shard came back."""
        self._alone_since = time.monotonic()
        if self._alone_since - self._looked > _LOOK:
            self.look()

    def look(self) -> bool:
        """Count the threads; without any, say so. False when there were none for too long."""
        self._looked = time.monotonic()
        scheduler = self._client.scheduler
        if scheduler is None:  # the client gave its scheduler up
            _wait_for_connection(self._client, self._where)
            return True
        try:
            found = self._client.sync(scheduler.identity, n_workers=0, callback_timeout=ANSWER)
        except (OSError, RuntimeError, ValueError) as error:
            if isinstance(error, TimeoutError) and self._client.status == "running":  # connected, and silent
                raise UserError(
                    f"scheduler {self._where} no longer answers; what is finished is kept: start it again and run the "
                    "same command again"
                ) from error
            _wait_for_connection(self._client, self._where)
            return True
        threads = found["total_threads"]
        self.ahead = max(_AT_LEAST, _AHEAD * threads)
        if threads:
            self._alone_since, self._told = self._looked, False
        elif self._looked - self._alone_since > self._restart:
            return False
        elif not self._told:
            self._say(f"  scheduler {self._where} has no workers; waiting for some (`dask worker {self._where}`)")
            self._told = True
        return True


def _named(units: list[Unit], most: int = 4) -> str:
    first = [f"frames {unit.start} to {unit.stop - 1} of scan {unit.scan_name!r}" for unit in units[:most]]
    return ", ".join(first) + (f" and {len(units) - most} shards more" if len(units) > most else "")


def _check_error(error: BaseException, unit: Unit, killed: Counter[Path], where: str) -> None:
    """Return when the shard is to be tried again, raise when not."""
    if isinstance(error, KilledWorker):
        killed[unit.shard] += 1
        if killed[unit.shard] < _ROUNDS:
            return
        raise UserError(
            f"{_named([unit])} brought down worker after worker, most "
            "likely for lack of memory; what is finished is kept: give each worker more memory (fewer --workers, or "
            "another job script) and run the same command again"
        ) from error
    if isinstance(error, ImportError) or "deserializ" in str(error):
        raise UserError(
            f"scheduler {where} or a worker of it cannot load this program ({_first_line(error)}); start both in the "
            "environment of this command"
        ) from error
    raise error


def _wait_for_connection(client: Client, where: str) -> None:
    """Return when the client has found its scheduler again, or another at its address."""
    until = time.monotonic() + ANSWER + 5.0
    while client.status == "connecting" and time.monotonic() < until:
        time.sleep(0.1)
    if client.status != "running":
        raise UserError(
            f"scheduler {where} was lost and did not come back within {ANSWER:g} s; what is finished is kept: start "
            "it again and run the same command again"
        )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

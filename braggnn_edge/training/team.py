"""The processes that torchrun started: they wait for the first one, and train a network together when it says so.

While the first process simulates and labels, which may take hours, the others wait for a key in torchrun's store. No
collective operation is begun, which would run into its timeout. A process group exists only while a network is trained.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from braggnn_edge.core.errors import UserError

#: Seconds between two looks at the store, and how long the first process waits at its end for the others to look.
_LOOK, _LEAVE = 0.2, 30.0
#: A store that does not answer for so long is gone.
_STORE_TIMEOUT = timedelta(minutes=5)


@dataclass
class Team:
    """This process among those of torchrun. ``store`` passes the orders of the first process, in turn, to the others.

    An order is the name of a network to train, or ``end`` with the exit status.
    """

    store: dist.Store
    rank: int
    world: int
    orders: int = 0  # given, or followed

    def order(self, text: str) -> None:
        """First process: what the others do next."""
        self.store.set(f"order{self.orders}", text)
        self.orders += 1

    def next_order(self) -> str:
        """Other processes: wait for the next order, however long it takes."""
        key = f"order{self.orders}"
        try:
            while not self.store.check([key]):  # each look tells whether the store's process is alive
                time.sleep(_LOOK)
            text = self.store.get(key).decode()
        except (RuntimeError, OSError) as error:
            raise SystemExit(1) from error  # the first process is gone, and has said why
        self.orders += 1
        return text

    def end(self, status: int) -> None:
        """First process: send the others away, and stay until they know, since it may keep the store."""
        self.order(f"end {status}")
        until = time.monotonic() + _LEAVE
        with contextlib.suppress(RuntimeError, OSError):
            while self.store.add("left", 0) < self.world - 1 and time.monotonic() < until:
                time.sleep(_LOOK)

    def leave(self) -> None:
        """Other processes: tell the first that this one knows that it is over."""
        with contextlib.suppress(RuntimeError, OSError):
            self.store.add("left", 1)

    @contextlib.contextmanager
    def group(self, device: str) -> Iterator[None]:
        """The process group for the gradients of one network (NCCL on GPUs, gloo on CPUs)."""
        if cuda := device.startswith("cuda"):
            torch.cuda.set_device(device)  # else NCCL takes the first GPU in every process
        store = dist.PrefixStore(f"group{self.orders}", self.store)
        dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=self.rank, world_size=self.world)
        try:
            yield
        finally:
            dist.destroy_process_group()


#: Holds the team while this is its first process.
_led: list[Team] = []


@contextlib.contextmanager
def together(name: str, device: str) -> Iterator[None]:
    """First process: train the float network ``name`` inside, with the others' help where there are others."""
    if not _led:
        yield
        return
    (team,) = _led
    team.order(name)
    with team.group(device):
        yield


def lead_or_follow(work: Callable[[], None], train: Callable[[str], None], device: str) -> None:
    """``work()`` in the first process; in the others ``train(name)`` for each network that it trains.

    When the first process fails, the others end without a word of their own and with its exit status.
    """
    store, rank, world = next(dist.rendezvous("env://", timeout=_STORE_TIMEOUT))
    team = Team(dist.PrefixStore("braggnn_edge", store), rank, world)
    if rank:
        _follow(team, train, device)
        return
    _led.append(team)
    try:
        work()
    except BaseException as error:
        team.end(_status(error))
        raise
    finally:
        _led.clear()
    team.end(0)


def _follow(team: Team, train: Callable[[str], None], device: str) -> None:
    failed: Exception | None = None
    while True:
        word, _, status = team.next_order().partition(" ")
        if word == "end":
            team.leave()
            if int(status):
                raise SystemExit(int(status))
            if failed is not None:
                raise failed
            return
        if failed is not None:
            raise failed
        try:
            with team.group(device):
                train(word)
        except UserError as error:
            failed = error  # the first process sees the same and says it


def _status(error: BaseException) -> int:
    """The exit status that the command line has for an error."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, UserError | BrokenExecutor | MemoryError) else 1


def ranks() -> tuple[int, int]:
    """This process among those that train together now, and their number: (0, 1) without others."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def agreed(text: str) -> str:
    """The first process's ``text``, on every process of a process group."""
    shared: list[str] = [text]
    if dist.is_initialized():
        dist.broadcast_object_list(shared, src=0)
    return shared[0]

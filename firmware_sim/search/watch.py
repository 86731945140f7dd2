"""Signs of life of trials: a killed process leaves a trial that runs for ever, which others must be able to tell."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

#: Seconds between two signs of life of a trial, and seconds without one after which it counts as lost. What is compared
#: is a counter, by each process's own clock: those of two machines may differ. optuna's own heartbeat compares clocks,
#: and does not know journal files.
BEAT, GRACE = 10.0, 60.0

#: Attribute of a trial.
_COUNT = "alive"


@contextlib.contextmanager
def alive(trial: Trial) -> Iterator[None]:
    """Count in the storage for as long as the trial is worked at."""
    stopped = threading.Event()

    def count() -> None:
        number = 0
        while not stopped.wait(BEAT):
            number += 1
            # A storage that cannot be reached now is tried again; the trial's end will tell if it stays so.
            with contextlib.suppress(Exception):
                trial.set_user_attr(_COUNT, number)

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


class Watch:
    """Gives up trials of processes that show no sign of life any more."""

    def __init__(self, study: optuna.Study, say: Callable[[str], None]) -> None:
        self._study, self._say = study, say
        self._seen: dict[int, tuple[Any, float]] = {}

    def look(self, trials: Sequence[FrozenTrial]) -> None:
        """To be called every now and then with all trials; none may be this process's own."""
        now = time.monotonic()
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            count = trial.user_attrs.get(_COUNT)
            before = self._seen.get(trial.number)
            if before is None or before[0] != count:
                self._seen[trial.number] = (count, now)
            elif now - before[1] > GRACE:
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                self._say(f"  trial {trial.number} is lost: no sign of life of its process for {GRACE:.0f} s")


class Pace:
    """How long the rest will take, from what all processes finished since this one began."""

    def __init__(self) -> None:
        self._began, self._first = time.monotonic(), math.inf

    def left(self, finished: int, wanted: int) -> str:
        """``  0:12:30 left``, with ``finished`` trials of all processes of those ``wanted``."""
        self._first = min(self._first, finished - 1)
        seconds = (time.monotonic() - self._began) / (finished - self._first) * max(0, wanted - finished)
        minutes = round(seconds) // 60
        return f"  {minutes // 60}:{minutes % 60:02d}:{round(seconds) % 60:02d} left"

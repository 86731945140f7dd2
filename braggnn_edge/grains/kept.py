"""What the stage "grains" has done so far, in its folder: a run that was interrupted goes on behind it."""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from braggnn_edge.core.files import written_aside
from braggnn_edge.grains import grain_file
from braggnn_edge.grains.estimates import Estimate
from braggnn_edge.grains.index import Seed
from braggnn_edge.grains.task import Done, Task, done

Say = Callable[[str], None]


class Kept:
    """Positions and grains of estimators in files of ``folder``, which :meth:`removed` takes away at last.

    say: is told what was done, and how long it took.
    """

    def __init__(self, folder: Path, say: Say) -> None:
        self.folder, self.say = folder, say
        folder.mkdir(exist_ok=True)

    def estimate(self, name: str, make: Callable[[], Estimate]) -> Estimate:
        """The positions by an estimator, made where they are not there yet."""
        path = self.folder / f"{file_name(name)}_positions.npz"
        if path.is_file():
            with np.load(path) as arrays:
                return Estimate(arrays["position"], arrays.get("sigma"))
        started = time.monotonic()
        made = make()
        arrays = {"position": made.position} | ({} if made.sigma is None else {"sigma": made.sigma})
        with written_aside(path) as aside, aside.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        self.say(f"  positions by {name}: {time.monotonic() - started:.0f} s")
        return made

    def all_done(self, tasks: Mapping[str, Task], workers: int) -> dict[str, Done]:
        """Results of the tasks by their names, in up to ``workers`` processes; those that are there are read."""
        found = {name: self._read(name) for name in tasks}
        missing = [name for name, one in found.items() if one is None]
        started = time.monotonic()

        def keep(name: str, one: Done, number: int) -> None:
            self._write(name, one)
            found[name] = one
            self.say(
                f"  {name}: {len(one.result.grains)} grains ({number} of {len(missing)}, "
                f"{time.monotonic() - started:.0f} s so far)"
            )

        if workers < 2 or len(missing) < 2:
            for number, name in enumerate(missing, 1):
                keep(name, done(tasks[name]), number)
        else:
            # Not forked: the parent may have threads of the numerical libraries.
            with ProcessPoolExecutor(min(workers, len(missing)), get_context("spawn")) as pool:
                for number, (name, one) in enumerate(
                    zip(missing, pool.map(done, [tasks[name] for name in missing]), strict=True), 1
                ):
                    keep(name, one, number)
        return {name: one for name, one in found.items() if one is not None}

    def removed(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.folder)

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{file_name(name)}.h5", self.folder / f"{file_name(name)}_seeds.npz"

    def _read(self, name: str) -> Done | None:
        result, seeds = self._paths(name)
        if not (result.is_file() and seeds.is_file()):
            return None
        with np.load(seeds) as arrays:
            columns = (arrays["ub"], arrays["position"], arrays["completeness"].tolist())
        return Done(grain_file.load(result), tuple(Seed(*one) for one in zip(*columns, strict=True)))

    def _write(self, name: str, one: Done) -> None:
        result, path = self._paths(name)
        grain_file.LAYOUTS[".h5"](result, one.result)
        ub, position = (np.array([getattr(seed, key) for seed in one.seeds]) for key in ("ub", "position"))
        with written_aside(path) as aside, aside.open("wb") as stream:
            np.savez(
                stream, ub=ub.reshape(-1, 3, 3), position=position.reshape(-1, 3),
                completeness=np.array([seed.completeness for seed in one.seeds], float),
            )  # fmt: skip


def file_name(name: str) -> str:
    """The name of an estimator as a part of that of a file."""
    return re.sub(r"[^\w.-]", "_", name)

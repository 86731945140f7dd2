"""``auto``: the fastest of the forms of one network on this processor, by a short measurement that is remembered.

Every form is asked for the same spots. One that cannot run here, or whose positions are farther from the reference than
allowed, is left out. Of the others the fastest is taken; the first of the list where it is nearly as fast, since a
choice that hangs on a few per cent would change with the load of the machine. For the same reason one thread is
measured, by the processor's time, in which other programs do not count: two threads by the clock, on a busy machine,
told more of the others. The forms that are preferred gain most from further threads.

What was chosen is kept beside the compiled kernels, under a hash of all that it depends on: the network, the
processor, the forms that there are and the versions of what computes them. Where nothing can be kept, or what was kept
is damaged, it is measured again.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.compiler import cache_folder, compiler_version
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.machine import processor
from braggnn_edge.locate.locator import Locator, Patches
from braggnn_edge.shards import environment

#: A form that is listed later is taken only where it is this much faster than all before it.
MARGIN = 1.05
#: Seconds of the timed rounds, and of one call of the fastest form; the most rounds.
BUDGET, _CALL, _ROUNDS = 0.3, 0.01, 6
#: Spots on which the forms are compared, and limits of how many one timed call gets.
_COMPARED, _LEAST, _MOST = 256, 64, 4096

#: What opens each form for a number of threads, by its name; the preferred ones first.
Forms = Mapping[str, Callable[[int], Locator]]


@dataclass(frozen=True)
class Choice:
    """form: what was chosen; per_second: patches, by form; left_out: why others are not among them."""

    form: str
    per_second: Mapping[str, int]
    left_out: Mapping[str, str]

    def words(self) -> str:
        """For the user, with all that was measured."""
        measured = ", ".join(f"{name} {rate:,}" for name, rate in self.per_second.items())
        said = f"{self.form}" + (f", of {measured} patches/s and thread here" if measured else ", the only form here")
        return said + "".join(f"; {name} left out: {reason}" for name, reason in self.left_out.items())


def fastest(
    forms: Forms,
    network: str,
    size: int,
    threads: int,
    reference: Callable[[Patches], NDArray[np.floating]],
    tolerance: float,
) -> Locator:
    """The fastest of ``forms``, for ``threads`` threads, as a locator whose ``form`` and ``remark`` say which it is.

    network: a digest of all that it computes; size: of its patches, px; reference: offsets (n, 2) px that every form
    must reach within ``tolerance`` px (0: they must be equal). Raises UserError when none can run.
    """
    key = _key(forms, network)
    path = cache_folder() / f"choice-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    patches = spots(_COMPARED, size)
    if (found := _remembered(path, key, forms)) is not None:
        with contextlib.suppress(Exception):  # a form that no longer runs is measured against the others again
            locator = forms[found.form](threads)
            locator.locate(patches[:1])
            return _described(locator, found)
    with _one_thread():
        opened, left_out = _runnable(forms, patches, reference, tolerance)
        rates = _rates(opened, patches) if len(opened) > 1 else {}
    best = max(rates.values(), default=0.0)
    form = next(name for name in opened if MARGIN * rates.get(name, 0.0) >= best)
    choice = Choice(form, {name: round(rate) for name, rate in rates.items()}, left_out)
    _remember(path, key, choice)
    return _described(opened[form] if threads == 1 else forms[form](threads), choice)


def spots(count: int, size: int) -> NDArray[np.uint16]:
    """Seeded Gaussian spots near the centre with shot noise: (count, size, size) counts."""
    rng = np.random.default_rng(16)
    at = np.arange(size) - size // 2
    centre, width = rng.uniform(-1, 1, (count, 2, 1, 1)), rng.uniform(0.8, 2.0, (count, 1, 1))
    distance = (at[:, None] - centre[:, 0]) ** 2 + (at - centre[:, 1]) ** 2
    height = 10 ** rng.uniform(2, 4, (count, 1, 1))
    return rng.poisson(20 + height * np.exp(-distance / (2 * width**2))).astype(np.uint16)


def _runnable(
    forms: Forms, patches: Patches, reference: Callable[[Patches], NDArray[np.floating]], tolerance: float
) -> tuple[dict[str, Locator], dict[str, str]]:
    """The forms that run here and are right, and why each other one is not among them."""
    opened: dict[str, Locator] = {}
    errors: dict[str, Exception] = {}
    left_out: dict[str, str] = {}
    wanted: NDArray[np.floating] | None = None
    for name, opening in forms.items():
        try:
            locator = opening(1)
            found = locator.locate(patches)
        except Exception as error:  # libraries have errors of their own; whatever it is, this form does not run here
            errors[name] = error
            left_out[name] = next(iter(str(error).splitlines()), "") or type(error).__name__
            continue
        wanted = reference(patches) if wanted is None else wanted
        distance = float(np.abs(found - wanted).max())
        if distance <= tolerance:  # not with NaN
            opened[name] = locator
        else:
            left_out[name] = f"its positions differ by {distance:.1e} px"
    if not opened:
        if errors:
            raise next(iter(errors.values()))
        raise UserError(
            f"no form of this network is within {tolerance:g} px of the reference here "
            f"({'; '.join(f'{name}: {reason}' for name, reason in left_out.items())}); name one with --backend"
        )
    return opened, left_out


def _rates(opened: Mapping[str, Locator], patches: Patches) -> dict[str, float]:
    """Patches a second of each form, the best of interleaved rounds; a form of less than half the best has no more."""
    rates = {name: max(_rate(locator, patches) for _ in range(2)) for name, locator in opened.items()}
    count = int(np.clip(_CALL * max(rates.values()), _LEAST, _MOST))
    many = np.resize(patches, (count, *patches.shape[1:]))
    began = time.process_time()
    for _ in range(_ROUNDS):
        for name, locator in opened.items():
            if 2 * rates[name] >= max(rates.values()):
                rates[name] = max(rates[name], _rate(locator, many))
        if time.process_time() - began > BUDGET:
            break
    return rates


def _rate(locator: Locator, patches: Patches) -> float:
    began = time.process_time()
    locator.locate(patches)
    return len(patches) / max(time.process_time() - began, 1e-9)


def _described(locator: Locator, choice: Choice) -> Locator:
    locator.form, locator.remark = choice.form, choice.words()
    return locator


def _key(forms: Forms, network: str) -> dict[str, Any]:
    """All that a choice depends on, as plain data."""
    versions = dict(environment.versions()) | {"compiler": compiler_version()}
    return {
        "network": network,
        "forms": list(forms),
        "processor": json.loads(json.dumps(asdict(processor()))),
        "versions": versions,
    }


def _remembered(path: Path, key: dict[str, Any], forms: Forms) -> Choice | None:
    """The choice of an earlier time; None where there is none, or no sound one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = Choice(
            document["form"],
            {str(name): int(rate) for name, rate in document["per_second"].items()},
            {str(name): str(reason) for name, reason in document["left_out"].items()},
        )
        return found if document["key"] == key and found.form in forms else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _remember(path: Path, key: dict[str, Any], choice: Choice) -> None:
    """Keep a choice; a folder that cannot be written costs another measurement, and nothing else."""
    with contextlib.suppress(OSError):
        # Processes may measure at the same time: each writes a file of its own, and the last one stays.
        handle, aside = tempfile.mkstemp(suffix=".json", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump({"key": key, **asdict(choice)}, stream, indent=1)
            os.replace(aside, path)
        finally:
            Path(aside).unlink(missing_ok=True)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

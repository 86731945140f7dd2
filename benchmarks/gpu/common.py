"""What the steps share: their arguments and reports, seeded data, networks, timing, and the card's limits."""

import argparse
import functools
import json
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braggnn_edge.core.counts import widened
from braggnn_edge.fit.pseudo_voigt import pixel_means
from braggnn_edge.training.dataset import min_max
from braggnn_edge.training.initialize import begin_linear
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec

SIZE = 11
#: Exit status of a step that wants to go on in a new process.
AGAIN = 75
#: A form whose answers are further than this from float64's at p95, px, is wrong, however fast.
WRONG = 0.1
#: The published network, and the compact one of configs/simulated.toml.
SPECS = {
    "published": NetworkSpec(),
    "compact": NetworkSpec(conv=(16, 8, 4), dense=(32, 16), attention=False, slope=0.0),
}


class Step:
    """One step: its options, and what it reports, which is in its file at every moment.

    full, tiny: choose by ``pick``. Figures of a rehearsal show that a step works and mean nothing else.
    """

    def __init__(self, description: str | None) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
        parser.add_argument("--output", type=Path, required=True)
        parser.add_argument("--seconds", type=float, default=600.0)
        parser.add_argument("--rehearsal", action="store_true")
        parser.add_argument("--resume", action="store_true")
        arguments = parser.parse_args()
        self.until = time.monotonic() + arguments.seconds
        self.device, self.rehearsal = torch.device(arguments.device), arguments.rehearsal
        self.output: Path = arguments.output
        # After an error that spoils the device for a process, another one goes on behind it.
        self.resumed = arguments.resume and self.output.exists()
        self.report: dict[str, Any] = json.loads(self.output.read_text(encoding="utf-8")) if self.resumed else {}
        self.done = frozenset(self.report)
        if self.rehearsal:
            torch.set_num_threads(1)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds before the step is ended."""
        return self.until - time.monotonic()

    def pick(self, full: int, tiny: int) -> int:
        return tiny if self.rehearsal else full

    def put(self, key: str, value: Any) -> None:
        """Report a value: written at once."""
        self.report[key] = value
        aside = self.output.with_suffix(".tmp")
        aside.write_text(json.dumps(self.report, indent=1, default=float) + "\n", encoding="utf-8")
        aside.replace(self.output)

    def attempt(self, key: str, work: Callable[[], Any], least: float = 0.0) -> Any:
        """Report what ``work`` returns, or why it was left out: it failed, or ``least`` seconds were not left."""
        if key in self.done:
            before = self.report[key]
            return None if isinstance(before, dict) and "skipped" in before else before
        if self.left < least:
            self.put(key, {"skipped": f"less than {least:.0f} s were left"})
            return None
        try:
            found = work()
        except Exception as error:  # whatever goes wrong: the others go on
            traceback.print_exc()
            found = {"skipped": f"{type(error).__name__}: {str(error).strip()[:400]}"}
            self.put(key, found)
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            elif self.spoiled():
                raise SystemExit(AGAIN) from error
            return None
        self.put(key, found)
        print(key, json.dumps(found, default=float), flush=True)
        return found

    def spoiled(self) -> bool:
        """Whether an error, such as an access to no memory, is all that the device answers from now on."""
        try:
            self.sync()
        except RuntimeError:
            return True
        return False

    def sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def wall_ms(self, call: Callable[[], Any], rounds: int = 7, warm: int = 2) -> dict[str, float]:
        """Milliseconds of a call that begins and ends on the host: median, least and largest of some rounds."""
        return self._rounds(call, rounds, warm, self._by_clock)

    def device_ms(self, call: Callable[[], Any], rounds: int = 7, warm: int = 2) -> dict[str, float]:
        """Milliseconds that the device takes for what a call launches, by its events; on a CPU by the clock."""
        return self._rounds(call, rounds, warm, self._by_events if self.cuda else self._by_clock)

    def _rounds(self, call: Callable[[], Any], rounds: int, warm: int, one: Callable[[Any], float]) -> dict[str, float]:
        rounds, warm = self.pick(rounds, 1), self.pick(warm, 1)
        for _ in range(warm):
            call()
        found = [one(call) for _ in range(rounds)]
        return {"ms": float(np.median(found)), "least_ms": min(found), "largest_ms": max(found), "rounds": rounds}

    def _by_clock(self, call: Callable[[], Any]) -> float:
        self.sync()
        began = time.perf_counter()
        call()
        self.sync()
        return 1e3 * (time.perf_counter() - began)

    def _by_events(self, call: Callable[[], Any]) -> float:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last)

    def pinned(self, array: NDArray[np.generic]) -> Tensor:
        """On the host, where the device can read it by itself."""
        source = torch.from_numpy(array)
        return source.pin_memory() if self.cuda else source


def halved(work: Callable[[int], Any], size: int, least: int) -> tuple[Any, int]:
    """``work(size)``, with half the size whenever the device has no memory for it, and the size that went."""
    while True:
        try:
            return work(size), size
        except torch.OutOfMemoryError:
            if size // 2 < least:
                raise
            size //= 2
            torch.cuda.empty_cache()


def spots(count: int, device: torch.device, size: int = SIZE, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Seeded pseudo-Voigt spots with shot noise, made on the device.

    Returns counts (count, size, size) uint16, and the parameters (8, count) of their profiles.
    """
    rng = np.random.default_rng(seed)
    columns = [
        *rng.uniform(size // 2 - 1, size // 2 + 1, (2, count)), 10 ** rng.uniform(1.5, 4.5, count),
        rng.uniform(1.5, 4, count), rng.uniform(1.2, 3, count), rng.uniform(-1.5, 1.5, count),
        rng.uniform(0, 1, count), rng.uniform(2, 40, count),
    ]  # fmt: skip
    truth = torch.from_numpy(np.stack(columns).astype(np.float32)).to(device)
    made = []
    torch.manual_seed(seed)
    for block in truth.split(1 << 16, 1):
        mean = pixel_means(block, size, 3, jacobian=False)[0]
        made.append(torch.poisson(mean).clamp(max=65535).T.reshape(-1, size, size).to(torch.int32))
    whole = torch.cat(made)
    return torch.where(whole > 32767, whole - 65536, whole).to(torch.int16).view(torch.uint16), truth


@functools.cache
@torch.no_grad()
def network(name: str) -> BraggNN:
    """The layers of a network with seeded weights, whose answers spread by some 0.7 px: no unit is dead, as trained.

    Rates do not need training; errors of rounding do need answers that depend on all layers.
    """
    torch.manual_seed(5)
    net = BraggNN(SPECS[name], SIZE).eval()
    given = widened(spots(256, torch.device("cpu"))[0], torch.float32)
    last = net.dense_layers[-1]
    weight = last.weight.clone()
    begin_linear(net, given)
    last.weight.copy_(weight)
    found = net(min_max(given)[:, None])
    last.weight.mul_(0.7 / SIZE / found.std(0)[:, None])
    last.bias.add_(found.new_tensor(0.5) - net(min_max(given)[:, None]).mean(0))
    return net


def errors(found: NDArray[np.floating], reference: NDArray[np.floating]) -> dict[str, float]:
    """Distances (px) between two sets of positions (n, 2). ValueError where they are no rounding."""
    distance = np.linalg.norm(found[:, :2].astype(np.float64) - reference[:, :2], axis=1)
    figures = {**{f"p{q}": float(np.percentile(distance, q)) for q in (50, 95)}, "max": float(distance.max())}
    if not figures["p95"] < WRONG:
        raise ValueError(f"answers are wrong: {figures} px from those in float64")
    return figures


def bus(step: Step) -> dict[str, float]:
    """Bytes a second between pinned host memory and the device, each way alone, and in its own memory, by copies."""
    size = step.pick(1 << 28, 1 << 16)
    host = step.pinned(np.random.default_rng(1).integers(0, 255, size, dtype=np.uint8))
    there = host.to(step.device, copy=True)
    other = torch.empty_like(there)
    rate = lambda call, moved: moved / (1e-3 * step.device_ms(call)["least_ms"])  # noqa: E731
    return {
        "to_device": rate(lambda: there.copy_(host, non_blocking=True), size),
        "to_host": rate(lambda: host.copy_(there, non_blocking=True), size),
        "in_device": rate(lambda: other.copy_(there), 2 * size),
        "bytes": size,
    }


def products(step: Step) -> dict[str, float]:
    """Operations a second of a large matrix product on random numbers, by precision."""
    found = {}
    for name, large in (("float16", 8192), ("bfloat16", 8192), ("float32", 4096), ("float64", 4096)):
        side = step.pick(large, 32)
        a = torch.randn((side, side), device=step.device, dtype=torch.float32).to(getattr(torch, name))
        found[name] = 2 * side**3 / (1e-3 * step.device_ms(lambda m=a: m @ m)["ms"])
    return found


def clocks() -> dict[str, str] | None:
    """What the driver's tool says now of clocks, power and temperature; None where there is no such tool."""
    asked = "name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.total,pcie.link.gen.current"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, timeout=15, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None
    return dict(zip(asked.split(","), (value.strip() for value in line.split(",")), strict=False))

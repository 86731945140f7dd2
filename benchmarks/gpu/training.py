"""Step (f): training iterations a second of the paper's recipe: published network, Adam, 512 patches, squared error."""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor, nn
from torch.nn import functional

from braggnn_edge.core.counts import widened
from braggnn_edge.training import upstream
from braggnn_edge.training.dataset import Batches, Peaks, min_max
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.optimize import optimize
from braggnn_edge.training.spec import LoopSpec


def data(step: common.Step) -> Peaks:
    """Crops with a margin of 1 px for the random shifts, and their offsets, on the device."""
    side = common.SIZE + 2
    crops, truth = common.spots(step.pick(50_000, 256), step.device, side)
    return Peaks(widened(crops, torch.float32), (truth[:2].T - side // 2).contiguous(), common.SIZE, 1)


def loss_of(peaks: Peaks, batch: int, device: torch.device, precision: str) -> Callable[[nn.Module, int], Tensor]:
    batches = Batches(peaks, batch, 1, 3)

    def loss(module: nn.Module, iteration: int) -> Tensor:
        patches, offsets = batches(iteration)
        images = min_max(patches)[:, None].contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = module(images)
        return functional.mse_loss(output.float(), upstream.from_offset(offsets, peaks.size))

    return loss


def net_of(device: torch.device, size: int) -> BraggNN:
    torch.manual_seed(3)
    net = BraggNN(common.SPECS["published"], size).to(device)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def as_used(step: common.Step, peaks: Peaks, precision: str) -> dict[str, Any]:
    """The project's own loop, batches drawn on the host."""
    batch, iterations = min(512, len(peaks)), step.pick(1000, 3)
    losses: list[float] = []

    def run(count: int) -> float:
        net, spec = (
            net_of(step.device, peaks.size),
            LoopSpec(batch=batch, max_iterations=count, evaluate_every=count, patience=0),
        )
        with tempfile.TemporaryDirectory() as folder:
            step.sync()
            began = time.perf_counter()
            evaluate = lambda: {"score": 1.0}  # noqa: E731
            history = optimize(
                net,
                loss_of(peaks, batch, step.device, precision),
                evaluate,
                spec,
                Path(folder) / "state",
                lambda _: None,
            )
            step.sync()
            losses.append(float(history[-1]["loss"]))
            return time.perf_counter() - began

    run(step.pick(50, 1))
    seconds = run(iterations)
    return {"iterations": iterations, "batch": batch, "iterations_per_s": iterations / seconds, "loss": losses[-1]}


def alone(step: common.Step, peaks: Peaks, precision: str) -> dict[str, Any]:
    """One batch again and again: gradients and Adam's step alone, what the device does without the host's batches."""
    batch = min(512, len(peaks))
    net = net_of(step.device, peaks.size)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-4)
    patches, offsets = peaks.centred(0, batch)
    images = min_max(patches)[:, None].contiguous(memory_format=torch.channels_last)
    wanted = upstream.from_offset(offsets, peaks.size)
    steps = step.pick(50, 1)

    def call() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(step.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                output = net(images)
            functional.mse_loss(output.float(), wanted).backward()
            optimizer.step()

    found = step.device_ms(call, rounds=5)
    return {"iterations_per_s": steps / (1e-3 * found["ms"]), "batch": batch, **found}


def main() -> int:
    step = common.Step(__doc__)
    peaks = data(step)
    step.put("processor_threads", torch.get_num_threads())
    for precision in ("float32", "bfloat16"):
        step.attempt(f"as used: {precision}", lambda p=precision: as_used(step, peaks, p))
        step.attempt(f"device alone: {precision}", lambda p=precision: alone(step, peaks, p))
    return 0


if __name__ == "__main__":
    sys.exit(main())

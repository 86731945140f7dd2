"""Step (g): under torchrun, one process: the project's team and its process group (NCCL on a GPU, gloo on a CPU)."""

import sys
import time
from typing import Any

import common
import torch
import torch.distributed as dist
from torch import nn
from training import data, loss_of, net_of

from braggnn_edge.training.team import lead_or_follow, together


def main() -> int:
    step = common.Step(__doc__)
    name = "cuda:0" if step.cuda else "cpu"

    def work() -> None:
        with together("published", name):
            step.attempt("group", lambda: group(step))
            step.attempt("training", lambda: training(step))

    lead_or_follow(work, lambda _: None, name)
    return 0


def group(step: common.Step) -> dict[str, Any]:
    """A sum over all processes, of which there is one."""
    values = torch.arange(1000, dtype=torch.float32, device=step.device)
    dist.all_reduce(values)
    return {
        "backend": dist.get_backend(), "processes": dist.get_world_size(),
        "right": bool((values.cpu() == dist.get_world_size() * torch.arange(1000)).all()),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if step.cuda else "none",
    }  # fmt: skip


def training(step: common.Step) -> dict[str, Any]:
    """Iterations a second with gradients averaged over the group."""
    peaks = data(step)
    batch, iterations = min(512, len(peaks)), step.pick(300, 2)
    net = nn.parallel.DistributedDataParallel(net_of(step.device, peaks.size))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-4)
    loss = loss_of(peaks, batch, step.device, "float32")
    warm = step.pick(20, 1)
    for iteration in range(warm + iterations):
        if iteration == warm:
            step.sync()
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        value = loss(net, iteration)
        value.backward()
        optimizer.step()
    step.sync()
    return {
        "iterations_per_s": iterations / (time.perf_counter() - began),
        "batch": batch,
        "loss": float(value.detach()),
    }


if __name__ == "__main__":
    sys.exit(main())

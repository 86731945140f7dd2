"""The training loop, shared by float training and quantization-aware training: resumable to the same weights."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.training.pace import Pace
from braggnn_edge.training.spec import LoopSpec
from braggnn_edge.training.team import ranks
from braggnn_edge.training.tensors import save_tensors


def position_loss(predicted: Tensor, offsets: Tensor, huber: float) -> Tensor:
    """Mean loss of positions (n, 2) in px: squared error, or Huber's with its corner at ``huber`` px if not 0."""
    if huber:
        return nn.functional.huber_loss(predicted, offsets, delta=huber)
    return nn.functional.mse_loss(predicted, offsets)


Evaluation = Callable[[], Mapping[str, float]]


def optimize(
    module: nn.Module,
    loss: Callable[[nn.Module, int], Tensor],
    evaluate: Evaluation,
    spec: LoopSpec,
    checkpoint: Path,
    say: Callable[[str], None],
    after_step: Callable[[int], None] | None = None,
    settled: int = 0,
) -> list[dict[str, float]]:
    """Minimize ``loss(module, iteration)`` with Adam; leave ``module`` at its best validation.

    ``evaluate()`` returns figures of the module as it is; the one called "score" (px, lower is better) picks the
    best, from iteration ``settled`` on (pruning, for one, must be over before a network counts). After every
    validation all state goes to ``checkpoint`` (aside, then renamed), and a rerun continues from there to the same
    weights, bit for bit on the same machine and thread count. Under torchrun every rank must call this; gradients
    are averaged, rank 0 validates and writes. Returns the learning curve.
    """
    rank, world = ranks()
    optimizer = torch.optim.Adam(module.parameters(), lr=spec.learning_rate)
    state = _load(checkpoint)
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {"score": math.inf, "iteration": 0, "module": None}
    start = 0
    if state is not None:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        history, best, start = state["history"], state["best"], state["iteration"]
        say(f"  continues at iteration {start}")
    say(
        f"  at most {spec.max_iterations} iterations of {spec.batch} patches, {_plan(spec)}, on {_where(module, world)}"
    )
    pace = Pace(start, spec.max_iterations, say)
    wrapped = nn.parallel.DistributedDataParallel(module) if world > 1 else module
    running, count = 0.0, 0
    iteration = start
    while iteration < spec.max_iterations and not _stalled(spec, history, best["iteration"]):
        module.train()
        for group in optimizer.param_groups:
            group["lr"] = spec.rate(iteration)
        optimizer.zero_grad(set_to_none=True)
        value = loss(wrapped, iteration)
        value.backward()
        optimizer.step()
        if after_step is not None:
            after_step(iteration)
        running, count = running + float(value.detach()), count + 1
        iteration += 1
        if iteration % spec.evaluate_every and iteration < spec.max_iterations:
            pace.step(iteration)
            continue
        module.eval()
        figures = _evaluated(evaluate, rank, world)
        if not math.isfinite(running) or not math.isfinite(figures["score"]):
            raise UserError(
                f"training diverged at iteration {iteration}; lower the learning rate ({spec.learning_rate})"
            )
        history.append({"iteration": iteration, "loss": running / count, **figures})
        running, count = 0.0, 0
        if iteration >= settled and figures["score"] < best["score"]:
            copied = {key: item.detach().clone() for key, item in module.state_dict().items()}
            best = {"score": figures["score"], "iteration": iteration, "module": copied}
        line = f"  iteration {iteration:6d}/{spec.max_iterations}  loss {history[-1]['loss']:.3e}  {_line(figures)}"
        say(f"{line}  {pace.rate(iteration)}" if len(history) == 1 else line)
        pace.spoken()
        if rank == 0:
            everything = {
                "module": module.state_dict(),
                "optimizer": optimizer.state_dict(),
                "iteration": iteration,
            }
            with written_aside(checkpoint) as aside:
                save_tensors({**everything, "history": history, "best": best}, aside)
    if best["module"] is not None:
        module.load_state_dict(best["module"])
    module.eval()
    return history


def _plan(spec: LoopSpec) -> str:
    stops = f", stops after {spec.patience} without improvement" if spec.patience else ""
    return f"a validation every {spec.evaluate_every}{stops}"


def _where(module: nn.Module, world: int) -> str:
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    return f"{device}, {world} processes" if world > 1 else str(device)


def _stalled(spec: LoopSpec, history: list[dict[str, float]], best_at: int) -> bool:
    if not spec.patience or not history or not best_at:
        return False
    return history[-1]["iteration"] - best_at >= spec.patience * spec.evaluate_every


def _evaluated(evaluate: Evaluation, rank: int, world: int) -> dict[str, float]:
    figures = [dict(evaluate()) if rank == 0 else {}]
    if world > 1:
        dist.broadcast_object_list(figures, src=0)
    return figures[0]


def _line(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{key} {value:.4f}" for key, value in figures.items())


def _load(checkpoint: Path) -> dict[str, Any] | None:
    if not checkpoint.exists():
        return None
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file; each means the same to the user
        raise UserError(
            f"checkpoint {checkpoint.name} is damaged ({error}); delete it to train from the start"
        ) from error

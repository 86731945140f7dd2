"""The training loop: a killed run ends with the same weights, and failures are loud."""

import pytest
import torch
from torch import nn

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.optimize import optimize
from braggnn_edge.training.spec import LoopSpec


class Interrupted(Exception):
    pass


def problem(spec: LoopSpec, path, stop_at: int | None = None, scale: float = 1.0):
    """Fit a small network to a fixed function; optionally interrupted when an iteration begins."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def batch(seed: int) -> torch.Tensor:
        return torch.randn(32, 3, generator=torch.Generator().manual_seed(seed))

    def loss(module: nn.Module, iteration: int) -> torch.Tensor:
        if iteration == stop_at:
            raise Interrupted
        x = batch(iteration)
        return scale * (module(x) - x.prod(1, keepdim=True)).square().mean()

    def evaluate() -> dict[str, float]:
        x = batch(10**6)
        with torch.no_grad():
            return {"score": float((net(x) - x.prod(1, keepdim=True)).abs().mean())}

    history = optimize(net, loss, evaluate, spec, path, lambda _: None)
    return net, history


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
@pytest.mark.parametrize("stop_at", [1, 20, 37])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, schedule, stop_at) -> None:
    spec = LoopSpec(32, 1e-2, schedule, max_iterations=60, evaluate_every=10, patience=0)
    whole, history = problem(spec, tmp_path / "whole")
    with pytest.raises(Interrupted):
        problem(spec, tmp_path / "killed", stop_at)
    resumed, resumed_history = problem(spec, tmp_path / "killed")
    assert resumed_history == history
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_early_stopping_counts_from_the_best(tmp_path) -> None:
    spec = LoopSpec(32, 1e-9, max_iterations=1000, evaluate_every=10, patience=3)
    _, history = problem(spec, tmp_path / "c")
    best = min(history, key=lambda entry: entry["score"])["iteration"]
    assert history[-1]["iteration"] == best + 30 < 1000


def test_divergence_is_an_error(tmp_path) -> None:
    spec = LoopSpec(32, 1e-2, max_iterations=20, evaluate_every=10)
    with pytest.raises(UserError, match="diverged"):
        problem(spec, tmp_path / "c", scale=float("nan"))


def test_damaged_checkpoint_is_named(tmp_path) -> None:
    (tmp_path / "c").write_bytes(b"garbage")
    with pytest.raises(UserError, match="checkpoint c is damaged"):
        problem(LoopSpec(max_iterations=1), tmp_path / "c")


@pytest.mark.parametrize("change", [{"batch": 0}, {"learning_rate": 0.0}, {"patience": -1}])
def test_senseless_settings_are_refused(change) -> None:
    with pytest.raises(UserError, match="must be positive"):
        LoopSpec(**change)

"""The training loop: a killed run ends with the same weights, and failures are loud."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.training import pace
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.optimize import optimize
from braggnn_edge.training.spec import LoopSpec, NetworkSpec
from braggnn_edge.training.stage import float_networks
from braggnn_edge.training.upstream import save_checkpoint


class Interrupted(Exception):
    pass


def problem(spec: LoopSpec, path, stop_at: int | None = None, scale: float = 1.0, say=lambda _: None):
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

    history = optimize(net, loss, evaluate, spec, path, say)
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


def test_the_loop_says_what_it_will_do_and_how_fast_it_is(tmp_path, monkeypatch) -> None:
    said: list[str] = []
    seconds = itertools.count()  # each look at the clock takes one
    monkeypatch.setattr(pace.time, "monotonic", lambda: float(next(seconds)))
    problem(LoopSpec(32, 1e-2, max_iterations=400, evaluate_every=300, patience=7), tmp_path / "c", say=said.append)
    assert (
        said[0]
        == "  at most 400 iterations of 32 patches, a validation every 300, stops after 7 without improvement, on cpu"
    )
    assert said[1].startswith("  iteration      ")
    assert "iterations/s, at most " in said[1]
    between = [int(line.split()[1].split("/")[0]) for line in said[1:]]
    assert between[0] <= pace.FIRST
    assert max(np.diff(between)) <= pace.EVERY
    first = next(line for line in said if "score" in line)
    assert "iterations/s" in first


@pytest.mark.parametrize(
    ("tables", "networks"),
    [
        ("", ("full",)),
        ("[full]\nseed = 2\n", ("full",)),
        ("[compact]\nseed = 2\n", ("full", "compact")),
        ('[qat]\nnetwork = "compact"\n', ("full", "compact")),
        ("[qat]\nshift = 1\n", ("full",)),
        ('[qat]\nnetwork = "full"\n[compact]\nseed = 2\n', ("full",)),
    ],
)
def test_the_compact_network_is_trained_where_it_is_asked_for(tmp_path, tables: str, networks: tuple[str, ...]) -> None:
    """Without a table of its own it was trained for 80,000 iterations."""
    (tmp_path / "a.toml").write_text('[[scan]]\nname = "s"\n' + tables)
    cfg = config.load(tmp_path / "a.toml", stages.tables())
    assert float_networks(cfg) == networks
    made = {stage.name for stage in stages.asked_for("train", cfg)}
    assert ("compact" in made) == ("compact" in networks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"net\.pt does not exist"),
        (b"no checkpoint", "not a readable PyTorch state dict"),
        ((NetworkSpec((4, 2), (4,), False), 9), r"for patches of 9 px, those of this run have 11"),
        ((NetworkSpec((4, 3), (4,), False), 11), r"holds .* expected"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_found_before_any_work(tmp_path, content, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "net.pt").write_bytes(content)
    elif content is not None:
        save_checkpoint(BraggNN(*content), tmp_path / "net.pt")
    (tmp_path / "a.toml").write_text(
        '[[scan]]\nname = "s"\n[full]\ninitial = "net.pt"\n'
        "network = { conv = [4, 2], dense = [4], attention = false }\n"
    )
    cfg = config.load(tmp_path / "a.toml", stages.tables())
    context = stages.Context(cfg, tmp_path / "a.toml", tmp_path / "run", 1, print)
    with pytest.raises(UserError, match=message):
        stages.check("train", context)
    stages.check("label", context)

"""How float networks begin: no direction is lost whatever the seed, and one that is lost all the same begins again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import spots
from torch import nn

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.splits import VALIDATION
from braggnn_edge.training import train, upstream
from braggnn_edge.training.dataset import Peaks
from braggnn_edge.training.initialize import begin_linear
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import LoopSpec, NetworkSpec, TrainSpec

#: The published head, made as small as the spots allow.
NARROW = NetworkSpec((4,), (8, 4, 2))
LOOP = LoopSpec(64, 1e-2, "one_cycle", max_iterations=90, evaluate_every=30, patience=0)
SIZE = 7
TABLE = spots(600, SIZE, 1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def lost(seed: int, folder: Path, initialize: str) -> float:
    """Share of the labels' variance that one training leaves along its worst direction; 1 for all of it and more."""
    spec = TrainSpec(NARROW, LOOP, initialize=initialize)
    try:
        net = train.train_network(spec, TABLE, seed, folder, f"net{seed}", lambda _: None, 1, directions=False)
    except UserError:  # no better than the constant predictor
        return 1.0
    patches, offsets = (tensor.numpy() for tensor in Peaks.of(TABLE.of(VALIDATION), "best").centred())
    return min(1.0, train.unexplained(train.predict(net, patches), offsets))


def test_no_seed_loses_a_direction(tmp_path: Path) -> None:
    """When all biases begin at 0, as published, nearly every one of these does."""
    assert max(lost(seed, tmp_path, "linear") for seed in range(5)) < 0.4
    published = tmp_path / "published"
    published.mkdir()
    assert sum(lost(seed, published, "published") > 0.6 for seed in range(5)) >= 3


@pytest.mark.parametrize(
    "spec", [NetworkSpec((4, 2), (8,), False, 0.0), NetworkSpec((8, 4), (16, 8, 4, 2)), NetworkSpec((4,), (), False)]
)
def test_dense_layers_begin_linear_at_the_centre(spec: NetworkSpec) -> None:
    torch.manual_seed(3)
    net = BraggNN(spec, SIZE)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    patches = Peaks.of(TABLE, "best").centred(stop=256)[0]
    begin_linear(net, patches)
    assert (train.predict(net, patches.numpy()) == 0).all()
    last = f"dense_layers.{2 * len(spec.dense)}"
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    biases = {f"dense_layers.{2 * index}.bias" for index in range(len(spec.dense) + 1)}
    assert changed == {*biases, f"{last}.weight"}
    x = net.features(train.min_max(patches)[:, None])
    for layer in net.dense_layers[:-1]:
        if isinstance(layer, nn.Linear):
            # The mean is three standard deviations above 0; by Cantelli's inequality at most 1 / (1 + 3**2) lie below.
            assert ((layer(x) > 0).float().mean(0) >= 0.9).all()
        x = layer(x)


def test_flat_patches_are_no_trouble() -> None:
    """One patch, or patches that are all alike, give a unit no spread."""
    net = BraggNN(NARROW, SIZE)
    begin_linear(net, torch.zeros(1, SIZE, SIZE))
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())


class Killed(Exception):
    pass


def blind(monkeypatch: pytest.MonkeyPatch, trainings: int) -> list[torch.Tensor]:
    """Let the first ``trainings`` begin with dead units; returns the first layer's weights that each began with."""
    begun: list[torch.Tensor] = []

    def begin(net: BraggNN, patches: torch.Tensor) -> None:
        begin_linear(net, patches)
        begun.append(net.cnn_layers[0].weight.detach().clone())
        if len(begun) <= trainings:
            for value in net.parameters():
                nn.init.zeros_(value)

    monkeypatch.setattr(train, "begin_linear", begin)
    return begun


def trained(folder: Path, said: list[str] | None = None) -> dict[str, bytes]:
    """Files of the stage for a network that is trained as :data:`LOOP` says."""
    folder.mkdir(exist_ok=True)
    train.run(
        TABLE,
        "compact",
        TrainSpec(NARROW, LOOP, initialize="linear"),
        4,
        folder,
        (said if said is not None else []).append,
    )
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".png"}


def test_a_lost_network_begins_again_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    begun = blind(monkeypatch, 1)
    found = trained(tmp_path / "a", said)
    assert set(found) == {"compact.pt", "compact.json"}
    assert json.loads(found["compact.json"])["training"] == 2
    assert any("is that of the constant predictor" in line for line in said)
    assert any("begins again from other initial weights: training 2 of at most 3" in line for line in said)
    assert len(begun) == 2
    assert not torch.equal(begun[0], begun[1])
    monkeypatch.undo()
    assert json.loads(trained(tmp_path / "b")["compact.json"])["training"] == 1


@pytest.mark.parametrize("stop", [40, 100, 160])
def test_killed_in_either_training_it_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Killed at the iteration ``stop`` of both together: the second training begins after 90."""
    blind(monkeypatch, 1)
    whole = trained(tmp_path / "whole")
    optimize, done = train.optimize, 0

    def killed(net, loss, *rest):
        def dying(module, iteration):
            nonlocal done
            done += 1
            if done == stop:
                raise Killed
            return loss(module, iteration)

        return optimize(net, dying, *rest)

    monkeypatch.setattr(train, "optimize", killed)
    blind(monkeypatch, 1)
    with pytest.raises(Killed):
        trained(tmp_path / "killed")
    monkeypatch.setattr(train, "optimize", optimize)
    blind(monkeypatch, 1)
    assert trained(tmp_path / "killed") == whole


def test_after_three_trainings_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = blind(monkeypatch, 3)
    with pytest.raises(UserError, match=r"compact: mean .* has not learned; .* \(3 trainings from other initial"):
        trained(tmp_path / "a")
    assert len(begun) == 3
    assert not (tmp_path / "a" / "compact.pt").exists()


def test_a_checkpoint_is_trained_once(tmp_path: Path) -> None:
    """From the same weights another training would end the same."""
    net = BraggNN(NARROW, SIZE)
    for value in net.parameters():
        nn.init.zeros_(value)
    upstream.save_checkpoint(net, tmp_path / "given.pt")
    said: list[str] = []
    with pytest.raises(UserError, match=r"has not learned; [^(]*$"):
        train.run(TABLE, "full", TrainSpec(NARROW, LOOP, initial=str(tmp_path / "given.pt")), 1, tmp_path, said.append)
    assert not any("begins again" in line for line in said)


def test_how_to_begin_has_no_effect_on_a_checkpoint() -> None:
    with pytest.raises(UserError, match="initialize = linear has no effect beside initial; leave it out"):
        TrainSpec(initial="given.pt", initialize="linear")


def test_published_weights_are_upstreams() -> None:
    """Xavier-uniform with biases of 0, from the run's own seed: the default, and what the ablation begins with."""
    batches = train.Batches(Peaks.of(TABLE, "best"), 64, 1, 2)
    torch.manual_seed(2)
    expected = BraggNN(NARROW, SIZE).state_dict()
    found = train._initialized(TrainSpec(NARROW), batches, SIZE, 2, 1, "net").state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert all(not value.any() for name, value in found.items() if name.endswith("bias"))
    assert np.isclose(found["dense_layers.0.weight"].abs().max(), np.sqrt(6 / (100 + 8)), rtol=0.05)

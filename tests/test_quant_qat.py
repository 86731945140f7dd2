"""The fine-tuning stage on the published kind of network: attention and LeakyReLU, through to its files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import spots

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.training import train, upstream
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import LoopSpec, NetworkSpec
from braggnn_edge.training.train import located
from quant.contract import locator as locators
from quant.contract.attention import NonLocal
from quant.contract.emulate import run as emulate
from quant.contract.vectors import random_codes
from quant.exchange.execute import run_qonnx
from quant.training.plan import BitPlan
from quant.training.qat import load_quantized, run
from quant.training.qnet import eval_exact
from quant.training.spec import QatSpec

torch.set_num_threads(1)
SIZE = 9


def learned(table: PeakTable) -> BraggNN:
    """A network that has seen the spots for a second."""
    torch.manual_seed(0)
    net = BraggNN(NetworkSpec((4, 3), (8,), True, 0.01), SIZE)
    patches = torch.from_numpy(table.patches()).float()
    offsets = torch.from_numpy(table.offsets("truth")).float()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        (located(net, patches) - offsets).square().mean().backward()
        optimizer.step()
    return net


def test_a_checkpoint_is_taken_as_it_is(tmp_path: Path) -> None:
    table = spots(200, SIZE, 1, reach=1.5)
    net = learned(table)
    upstream.save_checkpoint(net, tmp_path / "given.pt")
    none = LoopSpec(max_iterations=0)
    spec = train.TrainSpec(net.spec, none, initial=str(tmp_path / "given.pt"))
    train.run(table, "full", spec, 1, tmp_path, lambda _: None)
    kept = train.load_network(tmp_path, "full").state_dict()
    assert all(torch.equal(kept[name], value) for name, value in net.state_dict().items())
    run(table, QatSpec(loop=none), BitPlan(weight_bits=8), net, None, 1, tmp_path, lambda _: None)
    assert json.loads((tmp_path / "qat.json").read_text())["history"] == []


def test_a_lost_direction_is_refused() -> None:
    """The direction may be any: here a diagonal one, along which the answers are constant."""
    offsets = np.random.default_rng(2).normal(size=(200, 2))
    across = np.array([1.0, -1.0]) / np.sqrt(2)
    train.check_directions(offsets + 0.3, offsets, "net")
    with pytest.raises(UserError, match="net: along one direction 100% of the labels' variance"):
        train.check_directions(offsets - np.outer(offsets @ across, across), offsets, "net")
    assert train.unexplained(np.zeros((10, 2)), offsets[:10]) == 0.0


def test_a_network_of_convolutions_may_correct_the_centroid(tmp_path: Path) -> None:
    """Float and integers: the locator's file holds the centroid, whose share of the answer is exact."""
    table = spots(200, SIZE, 1, reach=1.5)
    spec = NetworkSpec((4, 3), (8,), True, 0.01, centroid=True)
    loop = LoopSpec(batch=64, learning_rate=3e-3, max_iterations=100, evaluate_every=50, patience=0)
    train.run(table, "full", train.TrainSpec(spec, loop, initialize="linear"), 1, tmp_path, lambda _: None)
    net = train.load_network(tmp_path, "full")
    assert net.spec == spec
    qat = QatSpec(loop=LoopSpec(batch=64, max_iterations=50, evaluate_every=50, patience=0), shift=0)
    run(table, qat, BitPlan(power_of_two_slope=True), net, None, 1, tmp_path, lambda _: None)
    locator = locators.load(tmp_path / "locator.json")
    assert locator.centroid is not None
    assert not locator.is_bare
    patches, offsets = table.patches(), table.offsets("truth")
    codes = locator.codes(patches)
    layers = eval_exact(load_quantized(tmp_path, net, BitPlan(power_of_two_slope=True)), codes)
    assert (locator.run(codes) == locator.combined(codes, layers)).all()
    assert (locator.combined(codes, layers) != layers).any()
    for found in (locator.locate(patches), train.predict(net, patches)):
        centroid = np.ldexp(locator.centroid.codes(codes), -locator.centroid.frac)
        assert np.median(np.hypot(*(found - offsets).T)) < np.median(np.hypot(*(centroid - offsets).T))
    with pytest.raises(UserError, match="centroid: frac 20 is out of range"):
        BitPlan(output_bits=24, output_frac=20).check(spec, SIZE)


@pytest.mark.slow
def test_stage_fine_tunes_a_network_with_attention(tmp_path: Path) -> None:
    table = spots(200, SIZE, 1, reach=1.5)
    net = learned(table)
    loop = LoopSpec(batch=32, learning_rate=1e-3, max_iterations=6, evaluate_every=3, patience=0)
    plan = BitPlan(power_of_two_slope=True)
    run(table, QatSpec(loop=loop, shift=0, sparsity=0.2), plan, net, None, 1, tmp_path, lambda _: None)
    network = locators.load(tmp_path / "locator.json").network
    kinds = [layer.kind for layer in network.layers]
    assert kinds[:4] == ["conv2d", "identity", "nonlocal", "leaky"]
    block = next(layer for layer in network.layers if isinstance(layer, NonLocal))
    for part in (block.theta, block.phi, block.g, block.out):
        assert np.count_nonzero(part.weight == 0) >= int(0.2 * part.weight.size) > 0
    assert len(json.loads((tmp_path / "qat.json").read_text())["sparsity"]) == 8
    codes = random_codes(SIZE, plan.input, 50, np.random.default_rng(0))
    reference = eval_exact(load_quantized(tmp_path, net, plan), codes)
    assert (emulate(network, codes).outputs == reference).all()
    assert (run_qonnx(tmp_path / "model.onnx", codes) == reference).all()

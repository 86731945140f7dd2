"""The universal network in layers of integers: the same answers, exact integers, and a stage that writes its files."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.simulation import family
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.training.dataset import Batches
from braggnn_edge.training.spec import LoopSpec
from braggnn_edge.universal.network import UniversalNetwork, laplace_loss, squared_centroid
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.network import as_document
from quant.contract.vectors import corner_case_inputs, random_inputs
from quant.exchange.from_qonnx import integer_network
from quant.training import universal
from quant.training.examples import Examples
from quant.training.qdense import DensePlan, QuantDense, exact_outputs, integers
from quant.training.task import SIGMA_OVER_B
from quant.training.universal import load_quantized, plan_of, rewritten
from quant.training.universal_spec import UniversalLayersSpec

torch.set_num_threads(1)


def plan(exponent: int = 16, outputs: int = 4, dense: tuple[int, ...] = (12, 8), bits: int = 6) -> DensePlan:
    return DensePlan(5, exponent, dense, outputs, bits, bits, Format(6, 6, False), Format(11, 8, True))


def initialized(made: DensePlan, seed: int = 0) -> QuantDense:
    """From random layers and random patches, as values."""
    torch.manual_seed(seed)
    net = QuantDense(made)
    sources = [torch.nn.Linear(i, o) for i, o in zip(made.widths, made.widths[1:], strict=False)]
    net.initialize(sources, torch.randint(0, 64, (500, *made.shape)) / 64)
    return net.eval()


@pytest.mark.parametrize(
    "made",
    [plan(), plan(dense=(9,), outputs=2), plan(0), plan(0, 2, ()), plan(bits=2), plan(bits=8)],
    ids=["flat", "one layer", "square", "linear", "2 bits", "8 bits"],
)
def test_integers_are_the_trained_network(made: DensePlan) -> None:
    net = initialized(made)
    network = integers(net)
    assert (network.shape, network.outputs, network.exponent) == (made.shape, made.outputs, made.exponent)
    codes = np.concatenate([corner_case_inputs(network), random_inputs(network, 800, np.random.default_rng(0))])
    found = emulate.run(network, codes)
    assert np.array_equal(found.outputs, exact_outputs(net, codes))
    assert len(np.unique(found.outputs, axis=0)) > 10
    assert all(layer.overflows == 0 for layer in found.layers)
    assert exact_outputs(net, codes[:0]).shape == (0, made.outputs)
    with torch.no_grad():  # training moves weights and not scales: integers follow
        for layer in net.dense:
            layer.weight.mul_(0.7)
            layer.bias.add_(0.05)
    assert not np.array_equal(exact_outputs(net, codes), found.outputs)
    assert np.array_equal(exact_outputs(net, codes), emulate.run(integers(net), codes).outputs)


def test_quantization_stays_close_to_the_float_layers() -> None:
    """At 5 bits the answers are those of the float layers to half a step of the activations, and without a bias."""
    made = plan(bits=5)
    torch.manual_seed(0)
    net = QuantDense(made)
    sources = [torch.nn.Linear(i, o) for i, o in zip(made.widths, made.widths[1:], strict=False)]
    values = torch.randint(0, 64, (500, *made.shape)) / 64
    net.initialize(sources, values)
    with torch.no_grad():
        x = values
        for layer in sources[:-1]:
            x = torch.relu(layer(x))
        difference = net.eval()(values) - sources[-1](x)
    assert difference.abs().max() < 0.03
    assert (
        difference.mean(dim=0).abs().max() < 0.004
    )  # one step of the output's format; what floor takes away is in the biases


def bright_patches(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Counts whose codes of 8 bits are exact: 8 bits of every pixel, at every brightness up to 16 bits."""
    codes = rng.integers(0, 256, (count, size, size)) >> rng.integers(0, 8, (count, 1, 1))
    return (codes << rng.integers(0, 9, (count, 1, 1))).astype(np.int64)


def test_rewritten_layers_answer_as_the_universal_network_looking_once() -> None:
    torch.manual_seed(0)
    network = UniversalNetwork(7, (12, 8)).eval()
    counts = bright_patches(np.random.default_rng(0), 7, 300)
    counts[0] = 0
    shift = BlockShift(8, 16)
    codes, exponents = shift.codes(counts), shift.exponents(counts)
    lengths = (exponents > 0).sum(axis=1)
    assert np.array_equal(codes / 256.0 * 2.0 ** lengths[:, None, None], counts)  # no bit is lost
    assert set(range(17)) - set(lengths.tolist()) == set()
    values = torch.from_numpy(np.concatenate([codes.reshape(300, -1), exponents], axis=1) / 256).float()
    with torch.no_grad():
        x = values
        *hidden, last = rewritten(network, 16)
        for layer in hidden:
            x = torch.relu(layer(x))
        found = last(x)
        expected = network(torch.from_numpy(counts).float())
        pixels = torch.from_numpy(codes / 256).float()
    assert torch.allclose(found[:, :2] + squared_centroid(pixels), expected[:, :2], atol=1e-5)
    assert torch.allclose(found[:, 2:] - math.log(SIGMA_OVER_B), expected[:, 2:], atol=1e-5)
    assert expected[:, 2:].abs().max() < 3  # not where the limits of ln b hold
    # The universal network is as before.
    assert [tuple(layer.weight.shape) for layer in (hidden[0], last)] == [(12, 49 + 16), (4, 8)]
    with torch.no_grad():
        assert torch.equal(network(torch.from_numpy(counts).float()), expected)


DENSE = (32, 16)
SPEC = UniversalLayersSpec(
    loop=LoopSpec(256, 1e-3, "one_cycle", max_iterations=400, evaluate_every=200, patience=0), teacher=0.0,
    patches=4000, validation=1000,
)  # fmt: skip


@pytest.fixture(scope="module")
def examples() -> Examples:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family, "SHARD", 1000)  # patches are drawn a quarter of a shard at a time
        return Examples.of_family(FamilySpec(), 4, SPEC.patches, SPEC.validation, 1)


@pytest.fixture(scope="module")
def trained(examples: Examples) -> UniversalNetwork:
    """A small universal network, trained in float for a second: the stage begins with one."""
    torch.manual_seed(0)
    network = UniversalNetwork(11, DENSE)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    batches = Batches(examples.data, 256, 0, 1, dihedral=True)
    for iteration in range(500):
        patches, offsets = batches(iteration)
        optimizer.zero_grad()
        laplace_loss(network(patches), offsets, 0.5).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def run(
    examples: Examples, trained: UniversalNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Runs the stage's work once for each name."""
    made: dict[str, Path] = {}

    def work(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            universal.run(SPEC, trained, examples, 5, made[name], lambda _: None, {"seed": 4})
        return made[name]

    return work


def test_the_stage_writes_one_network_in_every_form(run: Callable[[str], Path], examples: Examples) -> None:
    directory = run("once")
    assert {path.name for path in directory.iterdir()} == {
        "locator.json", "model.onnx", "quantized.pt", "qat.json", "curves.png"
    }  # fmt: skip
    made = locators.load(directory / "locator.json")
    assert as_document(integer_network(directory / "model.onnx")) == as_document(made.network)
    net = load_quantized(directory, SPEC, DENSE)
    codes = np.concatenate(
        [corner_case_inputs(made.network), random_inputs(made.network, 200, np.random.default_rng(0))]
    )
    assert np.array_equal(exact_outputs(net, codes), emulate.run(made.network, codes).outputs)
    assert (made.size, made.window, made.outputs, made.network.exponent) == (11, 11, 4, 16)
    described = json.loads((directory / "qat.json").read_text())
    assert made.provenance["seed"] == 4
    assert made.provenance["validation_px"] == described["validation"]
    held = examples.held_out
    errors = np.linalg.norm(made.locate(held.crops.numpy()) - held.offsets.numpy(), axis=1)
    assert described["validation"]["score"] == pytest.approx(errors.mean())


def test_training_helps_and_sigma_knows_bad_from_good(run: Callable[[str], Path], examples: Examples) -> None:
    made = locators.load(run("once") / "locator.json")
    held = examples.held_out
    patches, truth = held.crops.numpy(), held.offsets.numpy()
    offsets, sigma = made.locate_with_sigma(patches)
    assert made.centroid is not None
    base = made.output.values(made.centroid.codes(made.normalizer.codes(patches)))
    errors, before = (np.linalg.norm(found - truth, axis=1) for found in (offsets, base))
    assert errors.mean() < before.mean()
    assert 0.66 < (np.abs(offsets - truth) <= sigma).mean() < 0.72
    sure, unsure = np.array_split(errors[np.argsort(sigma.max(axis=1))], 2)
    assert np.median(unsure) > 2 * np.median(sure)
    _, nothing = made.locate_with_sigma(np.zeros((1, 11, 11)))
    assert nothing.min() > 1  # of a patch without counts nothing is known
    assert nothing.min() > np.quantile(sigma, 0.99)


def test_the_same_arguments_give_the_same_files(run: Callable[[str], Path]) -> None:
    for name in ("locator.json", "model.onnx", "quantized.pt"):
        assert (run("once") / name).read_bytes() == (run("again") / name).read_bytes()


def test_a_missing_or_another_quantized_network_is_refused(run: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"quantized\.pt of the qat stage cannot be read .*; run `braggnn-edge qat`"):
        load_quantized(tmp_path, SPEC, (16, 8))
    with pytest.raises(UserError, match=r"quantized\.pt of the qat stage cannot be read"):
        load_quantized(run("once"), SPEC, (16, 9))


def test_a_network_that_has_not_learned_is_refused(examples: Examples, tmp_path: Path) -> None:
    network = UniversalNetwork(11, (16, 8))
    with torch.no_grad():
        network.layers[-1].bias[:2] = 3.0
    idle = UniversalLayersSpec(
        loop=LoopSpec(256, 1e-9, max_iterations=1, evaluate_every=1, patience=0), patches=4000, validation=1000
    )
    with pytest.raises(UserError, match="universal layers: mean validation error"):
        universal.run(idle, network, examples, 5, tmp_path, lambda _: None, {})
    assert not (tmp_path / "locator.json").exists()


def test_the_plan_is_that_of_the_front_end() -> None:
    made = plan_of(UniversalLayersSpec(), (256, 128))
    assert made.widths == (121 + 16, 256, 128, 4)
    assert (made.input, made.output) == (Format(8, 8, False), Format(14, 10, True))
    assert (made.weight_bits, made.activation_bits) == (8, 8)


def test_sizes_that_differ_are_refused_before_any_training(examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"front_end\.window 11 px, a universal network of 9 px and patches of 11 px"):
        universal.run(UniversalLayersSpec(), UniversalNetwork(9, (4,)), examples, 5, tmp_path, lambda _: None, {})
    assert not list(tmp_path.iterdir())

"""Networks of learned bit widths: gradients of the roundings, pruning, exact integers, and the stage."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import spots

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.metrics import distances
from braggnn_edge.peaks.splits import VALIDATION
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.training.spec import LoopSpec
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.layers import Linear
from quant.contract.network import as_document
from quant.contract.vectors import corner_case_codes, corner_case_inputs, random_codes, random_inputs
from quant.exchange.from_qonnx import integer_network
from quant.training import compress
from quant.training.circuit_spec import CircuitNetworkSpec, CircuitSpec, FrontEndSpec
from quant.training.compress import load_mixed_precision, luts, task_of
from quant.training.examples import Examples
from quant.training.mixed_precision import MixedPrecisionNetwork, _Rounded, prune
from quant.training.mixed_precision_integers import exact_outputs, integers, trimmed

torch.set_num_threads(1)
INPUT, OUTPUT = Format(5, 5, False), Format(11, 8, True)
SPECS = {
    "dense": CircuitNetworkSpec(dense=(10, 6)),
    "convolutions": CircuitNetworkSpec(conv=(4, 3), dense=(6,)),
    "wide kernel": CircuitNetworkSpec(conv=(2,), kernel=5, dense=()),
    "layer": CircuitNetworkSpec(dense=(10, 6), widths="layer"),
    "linear": CircuitNetworkSpec(dense=()),
}
SHORT = LoopSpec(64, 3e-3, "one_cycle", max_iterations=200, evaluate_every=100, patience=0)


def uneven_spots(n: int, shift: int = 0) -> PeakTable:
    """Spots whose height varies a thousandfold, with the noise of counts."""

    def crops(rng: np.random.Generator, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        height = 30 * 10 ** rng.uniform(0, 3, n)
        return rng.poisson(height[:, None, None] * rows * cols + 20.0).astype(np.float64)

    return spots(n, 9, shift, crops=crops)


def disturbed(spec: CircuitNetworkSpec, seed: int = 1, *, exponent: int = 0, outputs: int = 2) -> MixedPrecisionNetwork:
    """A network with fractions, biases and masks that differ from channel to channel."""
    torch.manual_seed(seed)
    net = MixedPrecisionNetwork(spec, 7, INPUT, OUTPUT, exponent=exponent, outputs=outputs)
    net.initialize(torch.rand(200, *(net.shape if exponent else (1, 7, 7))))
    with torch.no_grad():
        for layer in net.stack:
            layer.fraction -= 0.3 * torch.rand_like(layer.fraction)
            layer.activation_fraction -= 0.3 * torch.rand_like(layer.activation_fraction)
            layer.bias += 0.2 * torch.rand_like(layer.bias)
            layer.hold()
    prune(net, 0.3, 0.2)
    return net


@pytest.mark.parametrize("name", SPECS)
def test_integers_are_the_trained_network(name: str) -> None:
    net = disturbed(SPECS[name])
    made = integers(net)
    codes = np.concatenate([corner_case_codes(7, INPUT), random_codes(7, INPUT, 800, np.random.default_rng(0))])
    found, expected = emulate.run(made, codes), exact_outputs(net, codes)
    assert np.array_equal(found.outputs, expected)
    assert len(np.unique(expected, axis=0)) > 15
    assert all(layer.overflows == 0 for layer in found.layers)


@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize(("name", "exponent"), [("dense", 12), ("layer", 12), ("linear", 12), ("convolutions", 0)])
def test_integers_with_exponent_and_sigma_are_the_trained_network(name: str, outputs: int, exponent: int) -> None:
    net = disturbed(SPECS[name], exponent=exponent, outputs=outputs)
    made = integers(net)
    assert (made.shape, made.outputs, made.exponent) == (net.shape, outputs, exponent)
    codes = np.concatenate([corner_case_inputs(made), random_inputs(made, 800, np.random.default_rng(0))])
    found, expected = emulate.run(made, codes), exact_outputs(net, codes)
    assert np.array_equal(found.outputs, expected)
    assert len(np.unique(expected, axis=0)) > 15
    assert all(layer.overflows == 0 for layer in found.layers)
    assert exact_outputs(net, codes[:0]).shape == (0, outputs)


def test_integers_notice_a_fraction_that_is_not_folded() -> None:
    """The test above can fail: one activation fraction changed after the export."""
    net = disturbed(SPECS["dense"])
    made = integers(net)
    with torch.no_grad():
        net.stack[0].activation_fraction -= 1 / 8
    codes = random_codes(7, INPUT, 800, np.random.default_rng(0))
    assert not np.array_equal(emulate.run(made, codes).outputs, exact_outputs(net, codes))


def test_channels_of_one_layer_may_have_different_fractions() -> None:
    fractions = [layer.fractions() for layer in disturbed(SPECS["dense"]).stack]
    assert len(fractions[0][0].unique()) > 1
    assert len(fractions[0][1].unique()) > 1
    assert all(len(f.unique()) == 1 for f in disturbed(SPECS["layer"]).stack[0].fractions())


def test_rounding_gradients() -> None:
    """Inside, the error shrinks with the step; beyond, the value with the range: -ln 2 times each."""
    x = torch.tensor([0.30, 0.55, 9.0], requires_grad=True)
    fraction = torch.tensor([2.0], requires_grad=True)
    y = _Rounded.apply(x, fraction, 0, 15, True, False)
    assert y.tolist() == [0.25, 0.5, 3.75]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0]
    assert fraction.grad is not None
    assert fraction.grad.item() == pytest.approx(-np.log(2) * (-0.05 - 0.05 + 3.75), rel=1e-5)


def test_held_fractions_leave_room_for_the_largest() -> None:
    net = disturbed(SPECS["dense"])
    layer = net.stack[0]
    with torch.no_grad():
        layer.fraction += 5
        layer.activation_fraction += 5
    layer.hold()
    with torch.no_grad():
        use = layer.rounded()
    codes = (use.weight * torch.exp2(use.fraction)).abs()
    assert codes.max() <= 31
    assert torch.allclose(use.weight, layer.weight * layer.mask, atol=float(torch.exp2(-use.fraction).max()))
    assert (layer.peak * torch.exp2(use.activation_fraction)).max() <= 64
    assert layer.fractions()[0].max() - layer.fractions()[0].min() <= 3


def test_cost_counted_by_hand() -> None:
    """Codes 1, 3 and 0 on inputs of 5 bits: 1 + 2 + 0 bits times 5."""
    net = MixedPrecisionNetwork(CircuitNetworkSpec(dense=()), 3, INPUT, OUTPUT)
    with torch.no_grad():
        layer = net.stack[0]
        layer.weight.zero_()
        layer.weight[0, 0], layer.weight[1, 4] = 0.25, -0.75
        layer.fraction.fill_(2 / 8)
    net.quantized = True
    _, costs = net.priced(torch.zeros(1, 1, 3, 3))
    assert costs[0].item() == pytest.approx(15.0)
    assert luts(costs).item() > 0


def test_a_code_of_the_exponent_costs_one_bit() -> None:
    """Codes 1 and 3 on inputs of 5 bits, 3 and 7 on the exponent: (1 + 2) times 5, and 2 + 3."""
    net = MixedPrecisionNetwork(CircuitNetworkSpec(dense=()), 3, INPUT, OUTPUT, exponent=4, outputs=4)
    with torch.no_grad():
        layer = net.stack[0]
        layer.weight.zero_()
        layer.weight[0, 0], layer.weight[3, 8] = 0.25, -0.75
        layer.weight[1, 9], layer.weight[2, 12] = 0.75, -1.75
        layer.fraction.fill_(2 / 8)
    net.quantized = True
    answers, costs = net.priced(torch.zeros(1, 13))
    assert answers.shape == (1, 4)
    assert costs[0].item() == pytest.approx(15.0 + 5.0)


def test_pruning_reaches_its_shares_and_frees_whole_channels() -> None:
    torch.manual_seed(0)
    net = MixedPrecisionNetwork(CircuitNetworkSpec(dense=(16, 8)), 7, INPUT, OUTPUT)
    prune(net, 0.75, 0.5)
    assert float(net.stack[0].mask.mean()) <= 0.25
    dead = ~net.stack[0].mask.any(dim=1)
    assert int(dead.sum()) >= 8
    assert not net.stack[1].mask[:, dead].any()
    net.initialize(torch.rand(50, 1, 7, 7))
    widths = [len(layer.weight) for layer in integers(net).layers if isinstance(layer, Linear)]
    assert widths[0] <= 8
    assert widths[1] <= 4


def test_trimming_changes_no_output() -> None:
    net = disturbed(SPECS["dense"])
    made = integers(net)
    codes = random_codes(7, INPUT, 200, np.random.default_rng(0))
    again = trimmed(made)
    assert np.array_equal(emulate.run(again, codes).outputs, emulate.run(made, codes).outputs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CircuitSpec, PeakTable]:
    directory = tmp_path_factory.mktemp("circuit")
    front_end = FrontEndSpec(bits=5, centroid="squared", discarded_bits=3, output_bits=12, output_frac=8)
    spec = CircuitSpec(
        front_end, CircuitNetworkSpec(dense=(8,)), SHORT, SHORT, sparsity=0.5, lut_budget=800, channel_sparsity=0.25
    )
    compress.run(Examples.of_table(uneven_spots(1000)), spec, None, 1, directory, lambda _: None)
    return directory, spec, uneven_spots(1000)


def test_stage_writes_a_circuit_that_is_better_than_its_centroid(trained) -> None:
    directory, spec, table = trained
    made = locators.load(directory / "locator.json")
    held = table.of(VALIDATION)
    error = distances(made.locate(held.patches()), held.offsets("truth")).mean()
    base = made.output.values(made.centroid.codes(made.codes(held.patches())))
    assert error < distances(base, held.offsets("truth")).mean()
    described = json.loads((directory / "circuit_training.json").read_text())
    assert described["circuit"]["score"] == pytest.approx(error)
    assert described["history"][-1]["luts"] < 1.3 * spec.lut_budget
    assert {"model.onnx", "mixed_precision.pt", "curves.png"} <= {path.name for path in directory.iterdir()}
    assert not list(directory.glob("*.checkpoint"))


def test_stage_files_are_one_network(trained) -> None:
    directory, spec, _ = trained
    made = locators.load(directory / "locator.json")
    codes = random_codes(7, made.network.input, 300, np.random.default_rng(0))
    outputs = exact_outputs(load_mixed_precision(directory, spec), codes)
    assert np.array_equal(outputs, emulate.run(made.network, codes).outputs)


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CircuitSpec]:
    """A run of the stage: exponent in, sigma out."""
    directory = tmp_path_factory.mktemp("knowing")
    front_end = FrontEndSpec(bits=5, exponent=True, discarded_bits=3, output_bits=12, output_frac=8)
    loop = LoopSpec(128, 3e-3, "one_cycle", max_iterations=600, evaluate_every=300, patience=0)
    spec = CircuitSpec(front_end, CircuitNetworkSpec(dense=(12,)), loop, loop, lut_budget=3000, sigma=True, beta=1.0)
    compress.run(Examples.of_table(uneven_spots(4000)), spec, None, 1, directory, lambda _: None, {"seed": 4})
    return directory, spec


def test_stage_with_exponent_and_sigma_writes_one_network(knowing: tuple[Path, CircuitSpec]) -> None:
    directory, spec = knowing
    made = locators.load(directory / "locator.json")
    assert (made.outputs, made.network.exponent, made.provenance) == (4, 16, {"seed": 4})
    net = load_mixed_precision(directory, spec)
    codes = np.concatenate(
        [corner_case_inputs(made.network), random_inputs(made.network, 300, np.random.default_rng(0))]
    )
    outputs = emulate.run(made.network, codes).outputs
    assert np.array_equal(exact_outputs(net, codes), outputs)
    assert as_document(integers(net)) == as_document(made.network)
    assert as_document(integer_network(directory / "model.onnx")) == as_document(made.network)
    with pytest.raises(UserError, match=r"mixed_precision\.pt of the qat stage cannot be read"):
        load_mixed_precision(directory, replace(spec, sigma=False, beta=0.5))


def test_faint_spots_are_less_sure(knowing: tuple[Path, CircuitSpec]) -> None:
    """Heights differ a thousandfold, and the exponent says by how much."""
    made = locators.load(knowing[0] / "locator.json")
    held = uneven_spots(1000).of(VALIDATION)
    offsets, sigma = made.locate_with_sigma(held.patches())
    error = np.abs(offsets - held.offsets("truth"))
    assert 0.6 < (error <= sigma).mean() < 0.8
    top = held.patches().max(axis=(1, 2))
    faint, bright = top < 120, top > 3000
    assert np.median(sigma[faint]) > 2 * np.median(sigma[bright])
    assert np.median(error[faint]) > 2 * np.median(error[bright])


def test_interrupted_training_goes_on_to_the_same_circuit(tmp_path: Path) -> None:
    spec = CircuitSpec(FrontEndSpec(bits=5), CircuitNetworkSpec(dense=(4,)), SHORT, SHORT, lut_budget=500, sparsity=0.3)
    table = Examples.of_table(uneven_spots(200))
    whole, _, _ = compress.fit(spec, table, None, 1, tmp_path, lambda _: None)
    (again := tmp_path / "again").mkdir()

    def interrupt(text: str) -> None:
        if "iteration    100/200" in text and "luts" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress.fit(spec, table, None, 1, again, interrupt)
    (again / "circuit.checkpoint").unlink(missing_ok=True)  # a kill between the line and the checkpoint
    resumed, _, _ = compress.fit(spec, table, None, 1, again, lambda _: None)
    assert resumed.digest == whole.digest


def test_task_targets_are_what_the_centroid_leaves() -> None:
    examples = Examples.of_table(uneven_spots(120, shift=1))
    task = task_of(CircuitSpec(FrontEndSpec(bits=6), shift=1, loop=SHORT), examples, 3)
    values, (truth, target) = task.batch(0)
    codes = np.rint(values.numpy()[:, 0] * 64).astype(np.int64)
    patches, offsets = task.batches(0)
    assert np.array_equal(codes, task.inputs(patches))
    assert np.allclose(target.numpy() + task.base_of(codes), offsets.numpy(), atol=1e-6)
    assert truth is not None
    assert np.array_equal(truth, target)  # no teacher


def test_wrong_tables_are_refused() -> None:
    for made, message in (
        (lambda: CircuitNetworkSpec(conv=(2,), kernel=2), "kernel 2 must be odd"),
        (lambda: CircuitNetworkSpec(weight_bits=9), "expected 2 to 8 of each"),
        (lambda: CircuitSpec(network=CircuitNetworkSpec(conv=(2, 2, 2, 2))), "do not fit a window of 7 px"),
        (lambda: FrontEndSpec(normalizer="min_max", subtract=True), "subtracts the minimum anyway"),
        (lambda: FrontEndSpec(output_bits=4), "fraction bits, and at least 2 bits more"),
        (lambda: CircuitSpec(sparsity=1.0), "sparsity and channel_sparsity in"),
        (
            lambda: task_of(CircuitSpec(FrontEndSpec(window=11)), Examples.of_table(uneven_spots(20)), 1),
            "does not fit patches of 9 px",
        ),
        (lambda: task_of(CircuitSpec(shift=1), Examples.of_table(uneven_spots(20)), 1), "exceeds the margin of 0 px"),
    ):
        with pytest.raises(UserError, match=message):
            made()


@pytest.mark.parametrize("changed", ["float_loop", "loop"])
def test_each_loop_of_a_circuit_has_its_own_batch(changed: str) -> None:
    loops = {"float_loop": LoopSpec(batch=32, max_iterations=5), "loop": LoopSpec(batch=32, max_iterations=5)}
    loops[changed] = LoopSpec(batch=48, max_iterations=5)
    spec = CircuitSpec(**loops)
    task = task_of(spec, Examples.of_table(uneven_spots(200)), 1)
    sizes = {"float_loop": len(task.batch(0)[0]), "loop": len(task.batch(0, task.of(spec.loop.batch))[0])}
    assert sizes == {name: 48 if name == changed else 32 for name in loops}

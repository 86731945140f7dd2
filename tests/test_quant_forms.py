"""One network in three forms, Brevitas in float64, QONNX and the emulator: equal code for code."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes
from quant.contract.emulate import run
from quant.contract.network import IntegerNetwork, Linear, Requantize
from quant.contract.normalize import Normalizer
from quant.contract.vectors import corner_case_codes, random_codes
from quant.exchange.execute import run_qonnx
from quant.exchange.from_qonnx import integer_network
from quant.training import qnet as q
from quant.training.export import export_qonnx
from quant.training.plan import BitPlan

torch.set_num_threads(1)
CASES = [  # spec, patch size, plan
    (NetworkSpec((4, 3), (5,), False, 0.0), 9, BitPlan()),
    (NetworkSpec((2, 3, 2), (4, 3), False, 0.0), 11, BitPlan(5, (2, 3, 4, 5, 6, 7), (8, 2, 3, 4, 5), 12, 6)),
    (NetworkSpec((3,), (6,), False, 0.0), 9, BitPlan(8, 8, 8, 20, 14)),
    (NetworkSpec((2,), (), False, 0.0), 11, BitPlan(2, 2, 2, 4, 0)),
    (NetworkSpec((3, 2), (3,), False, 0.0), 9, BitPlan(6, (4, 7, 3, 5), 5)),
]


def network(spec: NetworkSpec, size: int, plan: BitPlan, seed: int) -> q.QuantBraggNN:
    """A random float network with biases, quantized and calibrated."""
    torch.manual_seed(seed)
    net = BraggNN(spec, size)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0.05, 0.1)
        net.dense_layers[-1].bias.add_(0.5)
    quantized = q.QuantBraggNN(spec, size, plan)
    q.load_float(quantized, net)
    codes = random_codes(size, plan.input, 60, np.random.default_rng(seed))
    q.calibrate(quantized, plan.input.values(codes[:, None]))
    return quantized


def inputs(net: q.QuantBraggNN, seed: int) -> Codes:
    fmt = net.plan.input
    rng = np.random.default_rng(seed)
    return np.concatenate([corner_case_codes(net.size, fmt), random_codes(net.size, fmt, 200, rng)])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_three_forms_agree(case: tuple[NetworkSpec, int, BitPlan], seed: int, tmp_path: Path) -> None:
    net = network(*case, seed)
    path = tmp_path / "model.onnx"
    exported = export_qonnx(net, path)
    codes = inputs(net, seed + 100)
    reference = q.eval_exact(net, codes)
    result = run(exported, codes)
    assert (run_qonnx(path, codes, batch=97) == reference).all()
    assert (result.outputs == reference).all()
    assert all(layer.overflows == 0 for layer in result.layers)
    assert len(np.unique(reference, axis=0)) > 1  # a constant network would agree with anything
    assert exported.output == net.plan.output
    assert exported.input == net.plan.input
    locator = locators.of_layers(exported, Normalizer(net.plan.input_bits))
    locators.save(locator, tmp_path / "locator.json")
    again = locators.load(tmp_path / "locator.json")
    assert (again.run(codes) == reference).all()
    assert (run(again.network, codes).outputs == reference).all()
    assert [layer.name for layer in again.network.layers] == [layer.name for layer in exported.layers]
    assert again.normalizer == Normalizer(net.plan.input_bits)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[q.QuantBraggNN, Path, IntegerNetwork]:
    net = network(*CASES[0], seed=5)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    return net, path, export_qonnx(net, path)


Exported = tuple[q.QuantBraggNN, Path, IntegerNetwork]


def test_quantized_is_near_float_when_bits_are_many() -> None:
    spec, size = NetworkSpec((4, 3), (5,), False, 0.0), 9
    torch.manual_seed(2)
    net = BraggNN(spec, size)
    quantized = q.QuantBraggNN(spec, size, BitPlan(8, 14, 14, 24, 16))
    q.load_float(quantized, net)
    codes = random_codes(size, quantized.plan.input, 100, np.random.default_rng(0))
    values = quantized.plan.input.values(codes[:, None])
    q.calibrate(quantized, values)
    upstream = net.double()(torch.from_numpy(values)).detach().numpy()
    offsets = upstream[:, ::-1] * size - size // 2  # (col, row) / size to (row, col) in px from the centre
    # Relative steps of 2**-13 on weights and on activations in four layers of gain about 1, sums of
    # at most 75 terms, a last factor of 9 px: 4 * 2 * 2**-13 * sqrt(75) * 9 = 0.08 px. Swapped axes: more.
    assert np.abs(q.eval_exact(quantized, codes) / 2**16 - offsets).max() < 0.08


def test_same_weights_same_bytes_and_no_paths(exported: Exported, tmp_path: Path) -> None:
    net, path, _ = exported
    export_qonnx(net, tmp_path / "again.onnx")
    data = path.read_bytes()
    assert (tmp_path / "again.onnx").read_bytes() == data
    for word in (b".py", b"site-packages", b"/home", b"/tmp", b"/usr"):
        assert word not in data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.onnx"]


def test_network_does_not_depend_on_a_second_file(exported: Exported) -> None:
    _, path, network = exported
    again = integer_network(path)
    kinds = [layer.kind for layer in again.layers]
    assert kinds == ["conv2d", "relu", "conv2d", "relu", "flatten", "dense", "relu", "dense", "identity"]
    for one, two in zip(again.layers, network.layers, strict=True):
        if isinstance(one, Linear) and isinstance(two, Linear):
            assert (one.weight == two.weight).all()
            assert (one.bias == two.bias).all()
            assert one.accumulator == two.accumulator


def test_first_accumulator_bounds_are_attained_and_never_exceeded(exported: Exported) -> None:
    """Per channel the extreme sum is reached by the patch that is high where the weight is positive (or
    negative); the accumulator is the narrowest format that holds all of them and 0."""
    net, _, network = exported
    first = network.layers[0]
    assert isinstance(first, Linear)
    extremes = []
    for weight in first.weight[:, 0]:
        for sign in (1, -1):
            patch = np.zeros((1, net.size, net.size), np.int64)
            patch[0, 2:5, 3:6] = np.where(sign * weight > 0, 255, 0)
            sums = run(network, patch, trace=True).trace[0]
            extremes += [int(sums.min()), int(sums.max())]
    for channel, weight in enumerate(first.weight[:, 0]):
        patch = np.zeros((1, net.size, net.size), np.int64)
        patch[0, 2:5, 3:6] = np.where(weight > 0, 255, 0)
        found = run(network, patch, trace=True).trace[0][0, channel, 2, 3]
        assert found == 255 * weight[weight > 0].sum() + first.bias[channel]
    low = min(0, *(255 * w[w < 0].sum() + min(b, 0) for w, b in zip(first.weight[:, 0], first.bias, strict=True)))
    high = max(0, *(255 * w[w > 0].sum() + max(b, 0) for w, b in zip(first.weight[:, 0], first.bias, strict=True)))
    assert low <= min(extremes) <= max(extremes) <= high
    acc = first.accumulator
    assert acc.low <= low <= high <= acc.high
    assert not (acc.low // 2 <= low and high <= acc.high // 2)  # one bit fewer would not hold them


def test_trace_is_every_layer_and_chunks_do_not_matter(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    net, _, network = exported
    codes = inputs(net, 1)[:50]
    whole = run(network, codes, trace=True)
    monkeypatch.setattr("quant.contract.emulate._CHUNK_CODES", 1)
    parts = run(network, codes, trace=True)
    assert whole.layers == parts.layers
    assert len(whole.trace) == len(network.layers)
    assert all(np.array_equal(a, b) for a, b in zip(whole.trace, parts.trace, strict=True))
    assert (whole.trace[-1] == whole.outputs).all()
    assert (run(network, codes[:, None]).outputs == whole.outputs).all()
    assert run(network, codes[:0]).outputs.shape == (0, 2)


def test_emulator_equals_plain_integer_loops(exported: Exported) -> None:
    """The first two layers by Python loops over integers."""
    net, _, network = exported
    conv, relu = network.layers[:2]
    assert isinstance(conv, Linear)
    assert isinstance(relu, Requantize)
    patch = inputs(net, 2)[-1]
    trace = run(network, patch[None], trace=True).trace
    shift = conv.accumulator.frac - relu.output.frac
    for o in range(len(conv.weight)):
        for r in range(net.size - 2):
            for c in range(net.size - 2):
                total = int(conv.bias[o])
                for i in range(3):
                    for j in range(3):
                        total += int(conv.weight[o, 0, i, j]) * int(patch[r + i, c + j])
                assert trace[0][0, o, r, c] == total
                assert trace[1][0, o, r, c] == min(int(max(total, 0) // 2**shift), relu.output.high)


def test_saturations_and_overflows_are_counted(exported: Exported) -> None:
    net, _, network = exported
    codes = inputs(net, 3)[:20]
    trace = run(network, codes, trace=True).trace
    conv, relu = network.layers[:2]
    assert isinstance(conv, Linear)
    assert isinstance(relu, Requantize)
    narrow = replace(conv.accumulator, bits=conv.accumulator.bits - 4)
    small = replace(relu.output, bits=3)
    broken = replace(
        network, layers=(replace(conv, accumulator=narrow), replace(relu, output=small), *network.layers[2:])
    )
    stats = run(broken, codes).layers
    assert stats[0].overflows == np.count_nonzero((trace[0] < narrow.low) | (trace[0] > narrow.high)) > 0
    shifted = np.maximum(trace[0], 0) >> (conv.accumulator.frac - small.frac)
    assert stats[1].saturations == np.count_nonzero(shifted > 7) > 0


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.full((1, 9, 9), 256), "span 256 to 256, expected 0 to 255"),
        (np.full((1, 9, 9), -1), "expected 0 to 255"),
        (np.zeros((1, 9, 9)), "expected integers"),
        (np.zeros((1, 11, 11), int), r"expected integers \(n, 9, 9\)"),
        (np.zeros((9, 9), int), r"expected integers \(n, 9, 9\)"),
    ],
)
def test_codes_that_are_none_are_refused(exported: Exported, codes: np.ndarray, message: str) -> None:
    net, path, network = exported
    for form in (
        lambda: run(network, codes),
        lambda: run_qonnx(path, codes),
        lambda: q.eval_exact(net, codes),
    ):
        with pytest.raises(UserError, match=message):
            form()


def test_sums_beyond_float32_are_refused_by_qonnx_and_leave_no_file(tmp_path: Path) -> None:
    net = network(NetworkSpec((3,), (6,), False, 0.0), 9, BitPlan(8, 12, 14, 24, 14), 0)
    with pytest.raises(UserError, match="Gemm_0: its accumulator needs"):
        export_qonnx(net, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_a_form_that_differs(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = exported[0]
    right = q.eval_exact
    monkeypatch.setattr(
        "quant.training.export.eval_exact", lambda n, c: right(n, c) + (np.arange(len(c))[:, None] == 7)
    )
    with pytest.raises(UserError, match=r"differs from the quantized network on 1 of \d+ patches"):
        export_qonnx(net, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []

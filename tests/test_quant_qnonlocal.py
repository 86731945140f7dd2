"""The published network quantized: non-local block and LeakyReLU in PyTorch, QONNX and the emulator, code for code."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.model import BraggNN, pooled
from braggnn_edge.training.spec import NetworkSpec
from quant.contract import attention, emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes
from quant.contract.attention import NonLocal, nonlocal_codes
from quant.contract.emulate import run
from quant.contract.layers import Leaky, Linear
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer
from quant.contract.sizing import check_accumulators
from quant.contract.tables import exp_table
from quant.contract.vectors import corner_case_codes, random_codes
from quant.exchange.execute import run_qonnx
from quant.exchange.from_qonnx import integer_network
from quant.exchange.to_qonnx import qonnx_model
from quant.training import export, qnonlocal
from quant.training import qnet as q
from quant.training.export import export_qonnx
from quant.training.integers import integers
from quant.training.plan import AttentionPlan, BitPlan
from quant.training.qnonlocal import QuantNonLocal, _TableSoftmax

torch.set_num_threads(1)
SIZE, POOLED_SIZE = 9, 11
SPEC = NetworkSpec((8, 4), (6,), True, 0.01)
#: 9 keys from 81 positions, 3 channels inside.
POOLED = NetworkSpec((8, 4), (6,), True, 0.01, attention_channels=3, attention_pool=3)


def plan(bits: int, **others: object) -> BitPlan:
    """Every width ``bits``, the reciprocal's table 64 entries of 10 bits."""
    narrow = {field.name: bits for field in fields(AttentionPlan)}
    attention = AttentionPlan(**(narrow | {"reciprocal_index_bits": 6, "reciprocal_bits": 10}))
    return BitPlan(8, bits, bits, attention=attention, **others)  # type: ignore[arg-type]


def size_of(spec: NetworkSpec) -> int:
    return POOLED_SIZE if spec.attention_pool > 1 else SIZE


def float_network(spec: NetworkSpec, seed: int) -> BraggNN:
    """Random weights, biases, and scores of several units, so that attention is neither uniform nor one key alone."""
    torch.manual_seed(seed)
    net = BraggNN(spec, size_of(spec))
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0.05, 0.1)
        net.nlb.theta_layer.weight.mul_(6)
        net.dense_layers[-1].bias.add_(0.5)
    return net


def network(bits: int, seed: int = 0, spec: NetworkSpec = SPEC, **others: object) -> q.QuantBraggNN:
    quantized = q.QuantBraggNN(spec, size_of(spec), plan(bits, **others))
    q.load_float(quantized, float_network(spec, seed))
    codes = random_codes(quantized.size, quantized.plan.input, 60, np.random.default_rng(seed))
    q.calibrate(quantized, quantized.plan.input.values(codes[:, None]))
    return quantized


def inputs(seed: int, count: int = 100, size: int = SIZE) -> Codes:
    to = BitPlan().input
    return np.concatenate([corner_case_codes(size, to), random_codes(size, to, count, np.random.default_rng(seed))])


def block_of(found: IntegerNetwork) -> tuple[int, NonLocal]:
    return next((i, layer) for i, layer in enumerate(found.layers) if isinstance(layer, NonLocal))


@pytest.mark.parametrize("name", ["score", "total", "weighted", "accumulator", "theta", "phi", "g", "out"])
def test_a_sum_of_the_block_that_is_too_narrow_is_refused(name: str) -> None:
    found = integers(network(6, 1, POOLED))
    check_accumulators(found)
    index, block = block_of(found)
    part = getattr(block, name)
    if isinstance(part, Linear):
        narrow = replace(part, accumulator=replace(part.accumulator, bits=part.accumulator.bits - 1))
    else:
        narrow = replace(part, bits=part.bits - 1)
    layers = (*found.layers[:index], replace(block, **{name: narrow}), *found.layers[index + 1 :])
    with pytest.raises(UserError, match=r"its accumulator holds .*make it again with `make qat`"):
        check_accumulators(replace(found, layers=layers))


@pytest.mark.parametrize(
    ("bits", "spec", "slope", "power"),
    [
        (8, SPEC, 0.01, False),
        (6, SPEC, 0.01, True),
        (4, SPEC, 2.0**-3, False),
        (8, SPEC, 0.0, False),
        (8, POOLED, 0.01, False),
        (4, POOLED, 0.0, False),
    ],
)
def test_three_forms_agree(bits: int, spec: NetworkSpec, slope: float, power: bool, tmp_path: Path) -> None:
    net = network(bits, bits, replace(spec, slope=slope), power_of_two_slope=power)
    path = tmp_path / "model.onnx"
    exported = export_qonnx(net, path)
    codes = inputs(7, size=net.size)
    reference = q.eval_exact(net, codes)
    result = run(exported, codes, trace=True)
    assert (result.outputs == reference).all()
    assert (run_qonnx(path, codes, batch=97) == reference).all()
    assert not any(layer.overflows for layer in result.layers)
    assert len(np.unique(reference, axis=0)) > 50
    index, block = block_of(exported)
    assert (len(block.theta.weight), block.keys) == (spec.inner, spec.keys(net.size))
    inner = nonlocal_codes(block, result.trace[index - 1])
    assert (inner.codes == result.trace[index]).all()
    assert len(np.unique(inner.trace["e"])) > 5
    own = integers(net)
    normalizer = Normalizer(net.plan.input_bits)
    locators.save(locators.of_layers(own, normalizer), tmp_path / "own.json")
    locators.save(locators.of_layers(exported, normalizer), tmp_path / "read.json")
    same = [
        (tmp_path / name).read_text().replace("conv.0.act_quant", "conv.0.act") for name in ("own.json", "read.json")
    ]
    assert same[0] == same[1]
    assert (run(locators.load(tmp_path / "read.json").network, codes).outputs == reference).all()
    leaky = [(layer.slope_code, layer.slope_frac) for layer in exported.layers if isinstance(layer, Leaky)]
    assert leaky == [{0.01: (1, 7) if power else (164, 14), 0.125: (1, 3)}[slope]] * 3 if slope else not leaky


def test_a_stale_table_a_lost_residual_and_a_turned_key_show() -> None:
    """Each changes the block alone, and the comparison with the trainable network sees it."""
    net = network(8, 2)
    right = integers(net)
    codes = inputs(4, 30)
    reference = q.eval_exact(net, codes)
    assert (run(right, codes).outputs == reference).all()
    index, block = block_of(right)
    finer = replace(block.difference, frac=block.difference.frac + 1)
    key = replace(block.phi, weight=np.ascontiguousarray(block.phi.weight[::-1]), bias=block.phi.bias[::-1])
    lost = np.zeros_like(block.out.weight)
    for change in (
        {"exp_table": exp_table(finer, block.exponential)},
        {"reciprocal_table": block.reciprocal_table[::-1]},
        {"phi": key},
        {"out": replace(block.out, weight=lost)},
        {"input": replace(block.input, frac=block.input.frac - 1), "accumulator": replace(block.accumulator, bits=40)},
    ):
        layers = [*right.layers]
        layers[index] = replace(block, **change)
        found = run(replace(right, layers=tuple(layers)), codes).outputs
        assert (found != reference).any(axis=1).mean() > 0.5, change.keys()


def changed_source(function: Callable, before: str, after: str) -> Callable:
    """The function compiled anew from its source with one text changed."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(before) == 1, before
    scope: dict = {}
    exec(source.replace(before, after), function.__globals__, scope)
    return next(iter(scope.values()))


#: Mutations of the emulator and of the trainable network: the function, the text that is changed, what it becomes.
EMULATOR = {
    "a transposed key": ('trace["k"].transpose(0, 2, 1)', 'trace["k"].reshape(len(codes), -1, layer.keys)'),
    "maximum over queries": ('trace["s"].max(axis=2)', 'trace["s"].max(axis=1)'),
    "sum over queries": ('trace["e"].sum(axis=2)', 'trace["e"].sum(axis=1)'),
    "a dropped residual": ("+ (pixels << layer.residual_shift)", ""),
    "a stale table": ('layer.exp_table[trace["t"]]', 'np.minimum(layer.exp_table[trace["t"]] + 1, 200)'),
}
TABLES = "self.exp_table, self.reciprocal_table, 2.0**self.plan.difference.frac"
TWIN = {
    "a transposed key": ("attend", "q @ k.transpose(1, 2)", "q @ k.reshape(len(k), k.shape[2], -1)"),
    "a softmax over queries": ("attend", f"(scores, {TABLES})", f"(scores.mT, {TABLES}).mT"),
    "a dropped residual": ("forward", " + x.value", ""),
    "a stale table": ("attend", "self.exp_table,", "(self.exp_table / 2).floor(),"),
    "another stale table": ("attend", "self.reciprocal_table,", "self.reciprocal_table.flip(0),"),
}


@pytest.mark.parametrize("what", [f"emulator: {name}" for name in EMULATOR] + [f"twin: {name}" for name in TWIN])
def test_the_export_catches_a_mutation_of_either_side(
    what: str, mutable: q.QuantBraggNN, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    form, _, name = what.partition(": ")
    if form == "emulator":
        monkeypatch.setattr(emulate, "nonlocal_codes", changed_source(nonlocal_codes, *EMULATOR[name]))
    else:
        method, *texts = TWIN[name]
        monkeypatch.setattr(QuantNonLocal, method, changed_source(getattr(QuantNonLocal, method), *texts))
    with pytest.raises(
        UserError, match=r"the integer network differs from the quantized network on \d+ of \d+ patches"
    ):
        export_qonnx(mutable, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def mutable() -> q.QuantBraggNN:
    """A network that is exported as it is, and refused with any mutation."""
    return network(8, 2)


def test_the_export_catches_another_pooling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Windows that forget their first pixel, in the trainable network and in the emulator."""
    net = network(8, 2, POOLED)
    message = r"the integer network differs from the quantized network on \d+ of \d+ patches"
    with monkeypatch.context() as patch:
        patch.setattr(qnonlocal, "pooled", lambda x, pool: pooled(x.roll(-1, 3), pool))
        with pytest.raises(UserError, match=message):
            export_qonnx(net, tmp_path / "model.onnx")
    right = attention._pooled
    monkeypatch.setattr(attention, "_pooled", lambda layer, codes: right(layer, np.roll(codes, -1, 1)))
    with pytest.raises(UserError, match=message):
        export_qonnx(net, tmp_path / "model.onnx")


def test_the_export_catches_a_foreign_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A graph that holds another plan's exponentials is read as it is, and is not this network."""
    net = network(8, 2)
    right = qonnx_model(integers(net))
    for name in ("nlb_exp_table", "nlb_reciprocal_table"):
        model = onnx.ModelProto()
        model.CopyFrom(right)
        (tensor,) = [t for t in model.graph.initializer if t.name == name]
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[1:-1] = values[2:]
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
        monkeypatch.setattr(export, "_graph", lambda _, model=model: model)
        with pytest.raises(UserError, match="the integer network differs from the quantized network"):
            export_qonnx(net, tmp_path / "model.onnx")


def test_extreme_weights_agree() -> None:
    """Weights at the ends of their formats, scores far beyond the table, everything saturated."""
    net = network(6, 1)
    with torch.no_grad():
        for layer in net.layers():
            top = 2.0 ** float(q.scale_of(layer).exponent) * 40
            layer.weight.copy_(torch.where(layer.weight > 0, top, -top))
    codes = inputs(3, 40)
    found = run(integers(net), codes, trace=True)
    assert (found.outputs == q.eval_exact(net, codes)).all()
    index, block = block_of(integers(net))
    inner = nonlocal_codes(block, found.trace[index - 1])
    assert all(inner.saturations[step] > 0 for step in ("q", "k", "v", "t"))
    assert not any(inner.overflows.values())


def test_quantized_is_near_float_when_bits_are_many() -> None:
    """The distance to the float network halves at least with every two bits more in the block."""
    spec, distances = NetworkSpec((4, 3), (5,), True, 0.01), []
    for bits in (8, 10, 12):
        wide = AttentionPlan(**({field.name: bits for field in fields(AttentionPlan)} | {"reciprocal_bits": bits + 4}))
        quantized = q.QuantBraggNN(spec, SIZE, BitPlan(8, 14, 14, 24, 16, attention=wide))
        net = float_network(spec, 0)
        q.load_float(quantized, net)
        codes = random_codes(SIZE, quantized.plan.input, 60, np.random.default_rng(0))
        values = quantized.plan.input.values(codes[:, None])
        q.calibrate(quantized, values)
        upstream = net.double()(torch.from_numpy(values)).detach().numpy()
        offsets = upstream[:, ::-1] * SIZE - SIZE // 2
        distances.append(float(np.abs(q.eval_exact(quantized, codes) / 2**16 - offsets).mean()))
    assert distances[1] < 0.6 * distances[0]
    assert distances[2] < 0.6 * distances[1]
    assert distances[2] < 0.02


def test_training_goes_through_the_tables() -> None:
    net = network(8)
    x = torch.from_numpy(net.plan.input.values(inputs(1)[:, None])).float()
    peak = x.flatten(1).argmax(1)
    target = torch.stack([peak // SIZE, peak % SIZE], 1).float() - SIZE // 2
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    net.train()
    for _ in range(25):
        optimizer.zero_grad()
        loss = (net(x) - target).square().mean()
        loss.backward()
        assert net.nlb is not None
        assert all(float(part.weight.grad.abs().max()) > 0 for part in net.nlb.convolutions())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    codes = inputs(2, 30)
    assert (run(integers(net), codes).outputs == q.eval_exact(net, codes)).all()
    q.train_scales(net)
    net(x[:20]).square().sum().backward()
    assert all(q.scale_of(quantizer).exponent.grad is not None for quantizer in net.nlb.quantizers())


def test_gradient_of_the_tables_is_that_of_softmax() -> None:
    tables = [torch.from_numpy(table).double() for table in AttentionPlan().tables()]
    scores = torch.randn(3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    factor = torch.randn(3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = _TableSoftmax.apply(scores, *tables, 2.0**5)
    (weights * factor).sum().backward()
    found, scores.grad = scores.grad, None
    exact = torch.softmax(scores, -1)
    (exact * factor).sum().backward()
    assert torch.equal(found, scores.grad) or float((found - scores.grad).abs().max()) < 1e-15
    # A step of 1/32 in the exponent, half a code of 255 over the largest weight, the reciprocal's 2**-8.
    assert float((weights - exact).detach().abs().max()) < 1 / 32 + 1 / 255 + 2.0**-8


def test_state_is_restored_and_a_float_network_of_another_kind_refused() -> None:
    net, again = network(6), network(6, 5)
    codes = inputs(0, 20)
    assert (q.eval_exact(again, codes) != q.eval_exact(net, codes)).any()
    again.load_state_dict(net.state_dict())
    assert (q.eval_exact(again, codes) == q.eval_exact(net, codes)).all()
    for spec in (NetworkSpec((8, 4), (6,), True, 0.0), NetworkSpec((8, 4), (6,), False, 0.01)):
        with pytest.raises(UserError, match="does not match"):
            q.load_float(net, BraggNN(spec, SIZE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query_bits": 13}, "attention.query_bits 13 is out of range; expected whole numbers from 2 to 12"),
        ({"exponential_bits": 1}, "attention.exponential_bits 1"),
        ({"difference_bits": 13}, "attention.difference_bits 13"),
        ({"reciprocal_bits": 8}, "attention.reciprocal_bits 8 is out of range; expected whole numbers from 9"),
    ],
)
def test_plans_out_of_range_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        AttentionPlan(**arguments)


@pytest.mark.parametrize("bits", [2, 4, 8, 12])
@pytest.mark.parametrize("keys", [1, 9, 16, 17, 81])
def test_the_reciprocals_index_lies_below_every_sums_leading_one(bits: int, keys: int) -> None:
    """The largest index that is taken is that of the widest sum; one bit more is refused."""
    most = len(f"{keys * (2**bits - 1):b}") - 1
    for index in range(2, 13):
        chosen = AttentionPlan(exponential_bits=bits, reciprocal_index_bits=index, reciprocal_bits=16)
        if index <= most:
            chosen.check_keys(keys)
            continue
        with pytest.raises(UserError, match=f"sums of {keys} exponentials of {bits} bits .* expected at most {most}"):
            chosen.check_keys(keys)


def test_an_index_too_wide_for_few_keys_is_refused_with_the_network() -> None:
    narrow = BitPlan(attention=AttentionPlan(exponential_bits=4))
    narrow.check(SPEC, SIZE)
    narrow.check(NetworkSpec(attention=False), POOLED_SIZE)
    message = "reciprocal_index_bits 8 is more than the sums of 9 exponentials of 4 bits have .* expected at most 7"
    with pytest.raises(UserError, match=message):
        q.QuantBraggNN(POOLED, POOLED_SIZE, narrow)


def test_plan_of_the_published_network() -> None:
    spec = NetworkSpec()
    BitPlan().check(spec)
    assert len(BitPlan().weights(spec)) == 12
    mixed = BitPlan(weight_bits=tuple(range(2, 10)), attention=AttentionPlan(weight_bits=5))
    assert mixed.weights(spec) == (2, 5, 5, 5, 5, 3, 4, 5, 6, 7, 8, 9)
    assert BitPlan().slope(spec) == (164, 14)
    assert BitPlan(power_of_two_slope=True).slope(spec) == (1, 7)
    assert BitPlan(power_of_two_slope=True).slope(NetworkSpec(slope=0.2)) == (1, 2)
    assert BitPlan().slope(NetworkSpec(slope=0.25)) == (1, 2)
    assert BitPlan().slope(NetworkSpec(slope=0.0)) is None
    with pytest.raises(UserError, match=r"network.slope 0.2 has no quantized form; expected 0.0"):
        BitPlan().check(NetworkSpec(slope=0.2))


def test_sums_beyond_float32_are_refused_by_name(tmp_path: Path) -> None:
    wide = AttentionPlan(value_bits=12, exponential_bits=12)
    net = q.QuantBraggNN(SPEC, SIZE, BitPlan(attention=wide))
    q.load_float(net, float_network(SPEC, 0))
    q.calibrate(net, net.plan.input.values(inputs(0, 5)[:, None]))
    with pytest.raises(UserError, match=r"layer nlb \(weighted\): its accumulator needs 30 bits"):
        export_qonnx(net, tmp_path / "model.onnx")
    codes = inputs(0, 5)
    assert (run(integers(net), codes).outputs == q.eval_exact(net, codes)).all()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return qonnx_model(integers(network(6)))


Change = Callable[[onnx.ModelProto], None]


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def between(name: str, place: int, op: str, **attributes: object) -> Change:
    """Put a node called "extra" before one input of a node."""

    def change(model: onnx.ModelProto) -> None:
        position = next(i for i, n in enumerate(model.graph.node) if n.name == name)
        target = model.graph.node[position]
        inputs = [target.input[place]] + (["two"] if op == "Mul" else [])
        model.graph.initializer.append(helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]))
        target.input[place] = "extra_out"
        model.graph.node.insert(position, helper.make_node(op, inputs, ["extra_out"], name="extra", **attributes))

    return change


def reads(name: str, place: int, tensor: str) -> Change:
    return lambda model: node(model, name).input.__setitem__(place, tensor)


def attributes(name: str, key: str, value: object) -> Change:
    def change(model: onnx.ModelProto) -> None:
        target = node(model, name).attribute
        kept = next((a for a in target if a.name == key), None)
        made = helper.make_attribute(key, value)
        if kept is None:
            target.append(made)
        else:
            kept.CopyFrom(made)

    return change


def stale(name: str) -> Change:
    """Exchange two entries of a constant table."""

    def change(model: onnx.ModelProto) -> None:
        (tensor,) = [t for t in model.graph.initializer if t.name == name]
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[[40, 300]] = values[[300, 40]]
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))

    return change


def constant(name: str, value: np.ndarray | np.number) -> Change:
    def change(model: onnx.ModelProto) -> None:
        (tensor,) = [t for t in model.graph.initializer if t.name == name]
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(value), name))

    return change


def extra_reader(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["nlb_scores_out"], ["extra_out"], name="extra"))


REFUSALS: list[tuple[str, Change]] = [
    (r"node nlb_maximum: its axes is \[1\], expected \[-1\]", attributes("nlb_maximum", "axes", [1])),
    (r"node nlb_sum: its axes is \[1.0\], expected \[-1\]", constant("nlb_sum_axes", np.array([1]))),
    (r"node extra: operator Mul, expected MatMul \(scores, without a scale\)", between("nlb_difference", 1, "Mul")),
    (r"node extra: operator Mul, expected Sub", between("nlb_index_quant", 0, "Mul")),
    (r"node extra: operator Mul, expected Transpose", between("nlb_scores", 0, "Mul")),
    (r"node nlb_maximum: reads 'extra_out', expected 'nlb_scores_out'", between("nlb_maximum", 0, "Mul")),
    (r"node extra: operator Transpose, expected Reshape", between("nlb_scores", 1, "Transpose", perm=[0, 2, 1])),
    (r"node nlb_query_rows: perm is \[0, 1, 2\], expected", attributes("nlb_query_rows", "perm", [0, 1, 2])),
    (r"node nlb.phi: one of 2 nodes \(nlb.input, nlb.phi\) that read 'conv.0_out'", reads("nlb.phi", 0, "conv.0_out")),
    (r"node nlb.g: reads \['nlb.input_out'\], expected 'nlb_out' alone", reads("nlb_value_flat", 0, "nlb_key_out")),
    (r"nodes .* that read 'nlb.input_out'; expected one, or the three", reads("nlb", 1, "nlb.out_out")),
    (r"node extra: reads 'nlb_scores_out' inside the pattern that ends at node nlb", extra_reader),
    (r"node nlb_mixed: rounding mode ROUND", attributes("nlb_mixed", "rounding_mode", "ROUND")),
    (r"node nlb_scores: operator MatMul, expected ReduceMax", reads("nlb_difference", 0, "nlb_scores_out")),
    (r"node nlb_sum_index: its table differs from the bits below", stale("nlb_sum_index_table")),
    (r"node nlb_sum_power: its table differs from the power", stale("nlb_sum_power_table")),
    (r"node nlb_index: its scale is \[9.0\]", constant("nlb_index_scale", np.float32(9))),
    (r"node nlb.theta: strides is \[2, 2\]", attributes("nlb.theta", "strides", [2, 2])),
    (r"node conv.0.act: one of 2 nodes .* that read 'nlb_out'", reads("conv.0.act", 0, "nlb_out")),
]  # fmt: skip


@pytest.mark.parametrize(("message", "change"), REFUSALS, ids=[m for m, _ in REFUSALS])
def test_other_patterns_are_refused_by_name(
    message: str, change: Change, model: onnx.ModelProto, tmp_path: Path
) -> None:
    found = onnx.ModelProto()
    found.CopyFrom(model)
    change(found)
    onnx.save(found, str(tmp_path / "m.onnx"))
    with pytest.raises(UserError, match=message):
        integer_network(tmp_path / "m.onnx")


def spelt_otherwise(model: onnx.ModelProto) -> None:
    """Axes where another version of ONNX has them, counted from the front; defaults left out; constants as nodes."""
    total, highest = node(model, "nlb_sum"), node(model, "nlb_maximum")
    axes = total.input.pop()
    total.attribute.append(helper.make_attribute("axes", [2]))
    kept = [found for found in highest.attribute if found.name not in ("axes", "keepdims")]
    del highest.attribute[:]
    highest.attribute.extend(kept)
    highest.input.append(axes)
    for name in ("nlb_exponentials", "nlb_sum_index", "nlb_reciprocal", "nlb_sum_power"):
        del node(model, name).attribute[:]
    for tensor in [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64]:
        if len(tensor.dims) == 1:
            values = onnx.numpy_helper.to_array(tensor).tolist()
            model.graph.initializer.remove(tensor)
            model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value_ints=values))


def test_another_spelling_of_the_block_is_the_same(model: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(model, str(tmp_path / "a.onnx"))
    other = onnx.ModelProto.FromString(model.SerializeToString())
    spelt_otherwise(other)
    onnx.save(other, str(tmp_path / "b.onnx"))
    one, two = (integer_network(tmp_path / name) for name in ("a.onnx", "b.onnx"))
    codes = random_codes(9, one.input, 40, np.random.default_rng(2))
    assert np.array_equal(run(one, codes).outputs, run(two, codes).outputs)
    node(other, "nlb_sum").input[:] = []
    onnx.save(other, str(tmp_path / "c.onnx"))
    with pytest.raises(UserError, match="node nlb_sum: has 0 inputs, expected 1 or more"):
        integer_network(tmp_path / "c.onnx")


@pytest.fixture(scope="module")
def pooled_model() -> onnx.ModelProto:
    return qonnx_model(integers(network(6, spec=POOLED)))


def changes(*several: Change) -> Change:
    return lambda model: [change(model) for change in several] and None


def window(role: str, side: int) -> Change:
    """Pool keys or values by another window, with the shape that follows from it."""
    count = np.array([1, 3, (9 // side) ** 2])
    return changes(
        attributes(f"nlb_{role}_pool", "kernel_shape", [side, side]),
        attributes(f"nlb_{role}_pool", "strides", [side, side]),
        constant(f"nlb_{role}_shape", count),
    )


def averaged(model: onnx.ModelProto) -> None:
    node(model, "nlb_value_pool").op_type = "AveragePool"


POOLING: list[tuple[str, Change]] = [
    (r"nlb_key_pool: kernel_shape is \[2, 2\], expected a square whose side is one of \[3, 9\]", window("key", 2)),
    (r"nlb_key_pool: kernel_shape is \[3, 9\]", attributes("nlb_key_pool", "kernel_shape", [3, 9])),
    (r"nlb_key_pool: strides is \[1, 1\], expected \[3, 3\]", attributes("nlb_key_pool", "strides", [1, 1])),
    (r"nlb_value_pool: pads is \[1, 1, 1, 1\]", attributes("nlb_value_pool", "pads", [1, 1, 1, 1])),
    (r"nlb_value_pool: ceil_mode is 1, expected 0", attributes("nlb_value_pool", "ceil_mode", 1)),
    (r"nlb_value_pool: dilations is \[2, 2\]", attributes("nlb_value_pool", "dilations", [2, 2])),
    (r"nlb_value_pool: auto_pad is b'SAME_UPPER'", attributes("nlb_value_pool", "auto_pad", "SAME_UPPER")),
    (r"nlb_scores: its keys are pooled by 9, the values by 3, expected the same", window("key", 9)),
    (r"nlb_key_flat: its shape is .*9.0\], expected \[1, 3, 81\]", reads("nlb_key_flat", 0, "nlb_key_out")),
    (r"nlb_value_pool: operator AveragePool, expected Quant", averaged),
    (r"nlb_sum_index: its table differs .* 64 entries", changes(window("key", 9), window("value", 9))),
    (r"nlb_mixed_square: its shape is .*, expected \[1, 4, 9, 9\]", constant("nlb.out_weight", np.ones((8, 4, 1, 1)))),
]  # fmt: skip


@pytest.mark.parametrize(("message", "change"), POOLING, ids=[m for m, _ in POOLING])
def test_other_poolings_are_refused_by_name(
    message: str, change: Change, pooled_model: onnx.ModelProto, tmp_path: Path
) -> None:
    found = onnx.ModelProto()
    found.CopyFrom(pooled_model)
    change(found)
    onnx.save(found, str(tmp_path / "m.onnx"))
    with pytest.raises(UserError, match=f"node {message}"):
        integer_network(tmp_path / "m.onnx")


def test_inexact_slopes_are_refused(tmp_path: Path) -> None:
    found = qonnx_model(integers(network(6, power_of_two_slope=True)))
    attributes("conv.1.act", "alpha", 0.01)(found)
    onnx.save(found, str(tmp_path / "m.onnx"))
    with pytest.raises(UserError, match=r"node conv.1.act: alpha is 0.0099\d*, expected a power of two below 1"):
        integer_network(tmp_path / "m.onnx")

"""The quantized network: plan, loading, calibration, training, pruning, state."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from quant.contract.arithmetic import power_of_two_exponent
from quant.contract.vectors import corner_case_codes, random_codes
from quant.training import qnet as q
from quant.training.plan import BitPlan

torch.set_num_threads(1)
SPEC = NetworkSpec((4, 3), (5,), False, 0.0)


@pytest.fixture
def net() -> q.QuantBraggNN:
    torch.manual_seed(0)
    source = BraggNN(SPEC, 9)
    with torch.no_grad():
        for layer in (source.cnn_layers[0], source.cnn_layers[2], source.dense_layers[0]):
            layer.bias.uniform_(0.02, 0.1)
    quantized = q.QuantBraggNN(SPEC, 9, BitPlan())
    q.load_float(quantized, source)
    q.calibrate(quantized, batch(quantized, 100))
    return quantized


def batch(net: q.QuantBraggNN, count: int, seed: int = 0) -> torch.Tensor:
    codes = random_codes(net.size, net.plan.input, count, np.random.default_rng(seed))
    return torch.from_numpy(net.plan.input.values(codes[:, None])).float()


def train(net: q.QuantBraggNN, steps: int) -> tuple[float, float]:
    """Teach the offset of the brightest pixel; the first and last loss."""
    x = batch(net, 256, seed=1)
    peak = x.flatten(1).argmax(1)
    target = torch.stack([peak // 9, peak % 9], 1).float() - 4
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (net(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


@pytest.mark.parametrize("exponent", range(-40, 40))
def test_scale_is_an_exact_power_of_two(exponent: int) -> None:
    scale = q.PowerOfTwoScale()
    with torch.no_grad():
        scale.exponent.fill_(exponent + 0.3)
    assert power_of_two_exponent(float(scale(torch.zeros(1))), "s") == exponent


def test_input_quantizer_is_the_identity_on_codes(net: q.QuantBraggNN) -> None:
    values = torch.arange(256.0).div(256).reshape(1, 1, 16, 16)
    assert torch.equal(net.input(values).value, values)


def test_training_learns_through_floor_and_leaves_scales_alone(net: q.QuantBraggNN) -> None:
    before = {k: v.clone() for k, v in net.state_dict().items() if k.endswith("exponent")}
    first, last = train(net, 60)
    assert last < 0.5 * first
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


def test_scales_train_when_asked(net: q.QuantBraggNN) -> None:
    q.train_scales(net)
    net(batch(net, 32)).square().sum().backward()
    grads = [q.scale_of(m).exponent.grad for m in (*net.layers(), *net.activations())]
    assert all(g is not None and float(g) != 0.0 for g in grads)
    assert q.scale_of(net.output).exponent.grad is None


def test_gradient_of_floor_is_straight_through(net: q.QuantBraggNN) -> None:
    x = torch.linspace(0.01, 0.4, 50, requires_grad=True)
    act = net.conv_act[0]
    act(x).value.sum().backward()
    assert x.grad is not None
    top = 2.0 ** float(q.scale_of(act).exponent) * 255
    assert torch.equal(x.grad, (x < top + 2.0 ** float(q.scale_of(act).exponent)).float())


def test_pruning_keeps_zeros_through_training_and_state(net: q.QuantBraggNN, tmp_path: Path) -> None:
    q.prune(net, 0.5)
    pruned = [layer.mask == 0 for layer in net.layers()]
    counts = [int(p.sum()) for p in pruned]
    assert counts == [int(0.5 * p.numel()) for p in pruned]
    train(net, 10)
    q.prune(net, 0.5)  # again: nothing more is taken
    assert [int((layer.mask == 0).sum()) for layer in net.layers()] == counts
    q.prune(net, 0.8)  # a schedule only adds
    assert all(bool((layer.mask[p] == 0).all()) for layer, p in zip(net.layers(), pruned, strict=True))
    train(net, 10)
    assert all(s >= int(0.8 * p.numel()) / p.numel() for s, p in zip(q.sparsity(net), pruned, strict=True))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    again = q.QuantBraggNN(SPEC, 9, BitPlan())
    again.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    codes = np.concatenate(
        [corner_case_codes(9, net.plan.input), random_codes(9, net.plan.input, 50, np.random.default_rng(9))]
    )
    assert (q.eval_exact(again, codes) == q.eval_exact(net, codes)).all()
    train(again, 5)
    assert all(bool((layer.quant_weight().value[layer.mask == 0] == 0).all()) for layer in exact_layers(again))


def test_forward_applies_the_mask(net: q.QuantBraggNN) -> None:
    """An optimizer may move a pruned weight after the last mask was applied; no forward pass sees it."""
    q.prune(net, 0.5)
    net.eval()
    x = batch(net, 20)
    before = net(x)
    with torch.no_grad():
        for layer in net.layers():
            layer.weight.add_(1 - layer.mask)
    assert torch.equal(net(x), before)


def exact_layers(net: q.QuantBraggNN) -> list[torch.nn.Module]:
    q.apply_masks(net)
    return list(net.layers())


def test_copies_are_independent(net: q.QuantBraggNN) -> None:
    codes = random_codes(9, net.plan.input, 30, np.random.default_rng(1))
    before = q.eval_exact(net, codes)
    other = copy.deepcopy(net)
    with torch.no_grad():
        for module in (*other.layers(), *other.activations()):
            q.scale_of(module).exponent.add_(1)
    other.load_state_dict(other.state_dict())
    assert (q.eval_exact(net, codes) == before).all()
    assert (q.eval_exact(other, codes) != before).any()


def test_loading_keeps_the_optimizer_s_parameters(net: q.QuantBraggNN) -> None:
    parameters = list(net.parameters())
    net.load_state_dict(net.state_dict())
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))


def test_calibration_is_least_squares_over_exponents(net: q.QuantBraggNN) -> None:
    """No other exponent of the first activation gives a smaller error on the calibration batch."""
    exact = q.exact_copy(net)
    x = batch(net, 100).double()
    rectified = exact.conv[0](exact.input(x)).clamp(min=0)
    chosen = float(q.scale_of(net.conv_act[0]).exponent)

    def error(exponent: float) -> float:
        codes = torch.floor(rectified / 2.0**exponent).clamp(0, 255)
        return (codes * 2.0**exponent - rectified).square().mean().item()

    assert all(error(chosen) <= error(chosen + k) for k in range(-5, 6))


def test_dead_layer_calibrates(net: q.QuantBraggNN) -> None:
    with torch.no_grad():
        net.conv[0].weight.zero_()
        net.conv[0].bias.fill_(-1.0)
    q.fit_weight_scales(net)
    q.calibrate(net, batch(net, 10))
    assert np.ptp(q.eval_exact(net, random_codes(9, net.plan.input, 10, np.random.default_rng(0))), axis=0).max() == 0


@pytest.mark.parametrize("shape", [(0, 1, 9, 9), (3, 9, 9), (3, 1, 11, 11)])
def test_calibration_batches_are_refused(net: q.QuantBraggNN, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="calibration batch"):
        q.calibrate(net, torch.zeros(shape))


def test_nan_in_calibration_is_refused(net: q.QuantBraggNN) -> None:
    with pytest.raises(UserError, match="calibration batch"):
        q.calibrate(net, torch.full((2, 1, 9, 9), torch.nan))


def test_networks_without_quantized_form_are_refused(net: q.QuantBraggNN) -> None:
    with pytest.raises(UserError, match=r"slope 0.03 has no quantized form; expected 0.0"):
        q.QuantBraggNN(NetworkSpec((4, 3), (5,), False, 0.03), 9, BitPlan())
    for spec in (NetworkSpec((4, 3), (5,), True, 0.0), NetworkSpec((4, 3), (5,), False, 0.01)):
        with pytest.raises(UserError, match="does not match"):
            q.load_float(net, BraggNN(spec, 9))


def test_float_network_of_another_shape_is_refused(net: q.QuantBraggNN) -> None:
    for spec, size in ((SPEC, 11), (NetworkSpec((4, 2), (5,), False, 0.0), 9)):
        with pytest.raises(UserError, match="does not match"):
            q.load_float(net, BraggNN(spec, size))


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_pruning_fractions_are_refused(net: q.QuantBraggNN, fraction: float) -> None:
    with pytest.raises(UserError, match="pruning fraction"):
        q.prune(net, fraction)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight_bits": 1}, "weight_bits 1 is out of range"),
        ({"weight_bits": (4, 17)}, "weight_bits 17"),
        ({"weight_bits": ()}, "weight_bits is empty"),
        ({"weight_bits": "6"}, "weight_bits '6'"),
        ({"weight_bits": 6.0}, "weight_bits 6.0"),
        ({"activation_bits": True}, "activation_bits True"),
        ({"input_bits": 0}, "input_bits 0"),
        ({"output_bits": 25}, "output_bits 25"),
        ({"output_frac": -1}, "output_frac -1"),
        ({"rounding": "half_up"}, "rounding 'half_up'"),
    ],
)
def test_plans_out_of_range_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        BitPlan(**arguments)


def test_plan_lengths() -> None:
    plan = BitPlan(weight_bits=[3, 4, 5, 6], activation_bits=(7, 8, 9))  # type: ignore[arg-type]
    assert plan.weights(SPEC) == (3, 4, 5, 6)
    assert plan.activations(SPEC) == (7, 8, 9)
    assert hash(plan)
    assert BitPlan().weights(SPEC) == (6, 6, 6, 6)
    for wrong in (BitPlan(weight_bits=(3, 4, 5)), BitPlan(activation_bits=(3, 4, 5, 6))):
        with pytest.raises(UserError, match="needs"):
            q.QuantBraggNN(SPEC, 9, wrong)

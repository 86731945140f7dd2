"""What networks of integers are trained for: batches with exponents and a teacher's label, the loss, calibration."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.estimators import centre_of_mass, centre_of_mass_squared
from braggnn_edge.simulation import family
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.training.dataset import Batches, Peaks
from braggnn_edge.training.optimize import position_loss
from braggnn_edge.universal.network import UniversalNetwork, laplace_loss
from braggnn_edge.universal.train import VALIDATION_SHARD, answers, calibrated
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.vectors import corner_case_inputs
from quant.training.circuit_spec import CircuitNetworkSpec, FrontEndSpec
from quant.training.examples import Examples
from quant.training.mixed_precision import MixedPrecisionNetwork
from quant.training.mixed_precision_integers import exact_outputs, integers
from quant.training.task import SIGMA_OVER_B, Task, calibrated_locator, require_same_codes

torch.set_num_threads(1)
FLAT = FrontEndSpec(window=7, bits=6, exponent=True)


def examples(n: int = 300, held: int = 1200) -> Examples:
    """Patches of 9 px with two labels that turn with the patch: two centroids stand for truth and teacher."""
    drawn = family.draw(FamilySpec(size=9), 3, n + held)
    truth, taught = (function(drawn.counts) for function in (centre_of_mass, centre_of_mass_squared))
    labels = np.concatenate([truth, taught], axis=1).astype(np.float32)
    counts = torch.from_numpy(drawn.counts)
    held_out = Peaks(counts[n:], torch.from_numpy(drawn.offsets[n:]), 9, 0)
    return Examples(Peaks(counts[:n], torch.from_numpy(labels[:n]), 9, 0), held_out)


@pytest.fixture(scope="module")
def some() -> Examples:
    return examples()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("centroid", ["squared", "none"])
def test_targets_are_what_the_centroid_leaves_of_both_labels(some: Examples, share: float, centroid: str) -> None:
    widths = {} if centroid == "squared" else {"discarded_bits": 4, "index_bits": 6, "reciprocal_bits": 9}
    front_end = replace(FLAT, centroid=centroid, **widths)
    task = Task(front_end, some, 64, 5, sigma=True, share=share)
    values, (truth, target) = task.batch(3)
    patches, labels = task.batches(3)
    normalizer, base, output = front_end.made()
    assert isinstance(normalizer, BlockShift)
    inner = patches[:, 1:-1, 1:-1].numpy()
    codes, exponents = normalizer.codes(inner), normalizer.exponents(inner)
    assert values.shape == (64, 49 + 16)
    assert np.array_equal(values.numpy() * 64, np.concatenate([codes.reshape(64, -1), exponents], axis=1))
    corrected = np.zeros((64, 2)) if base is None else output.values(base.codes(codes))
    assert corrected.any() == (centroid == "squared")
    both = labels.numpy()
    assert np.allclose(truth.numpy() + corrected, both[:, :2], atol=1e-6)
    mixed = (1 - share) * both[:, :2] + share * both[:, 2:]
    assert np.allclose(target.numpy() + corrected, mixed, atol=1e-6)
    assert np.abs(both[:, :2] - both[:, 2:]).max() > 0.05


def test_both_labels_turn_with_the_patch(some: Examples) -> None:
    batches = Batches(some.data, 256, 0, 7, dihedral=True)
    patches, labels = batches(0)
    for columns, function in ((slice(0, 2), centre_of_mass), (slice(2, 4), centre_of_mass_squared)):
        assert np.allclose(labels[:, columns].numpy(), function(patches.numpy()), atol=1e-4)
    plain, _ = Batches(some.data, 256, 0, 7)(0)
    turned = (patches != plain).any(dim=(1, 2))
    assert 0.6 < float(turned.double().mean()) < 1  # seven of eight, but for patches that are alike


def test_labels_of_moved_patches_move(some: Examples) -> None:
    wide = Peaks(some.data.crops, some.data.offsets, 7, 1)
    patches, labels = Batches(wide, 64, 1, 7)(0)
    assert patches.shape == (64, 7, 7)
    still, unmoved = Batches(wide, 64, 0, 7)(0)
    steps = np.round((unmoved - labels).numpy(), 5)
    assert np.array_equal(steps[:, :2], steps[:, 2:])
    assert set(steps.ravel().tolist()) == {-1.0, 0.0, 1.0}
    moved = np.any(np.abs(steps) > 0.5, axis=1)
    assert (patches != still).any(dim=(1, 2)).numpy()[moved].all()


def test_without_a_teacher_its_share_has_no_effect(some: Examples) -> None:
    alone = Examples(Peaks(some.data.crops, some.data.offsets[:, :2], 9, 0), some.held_out)
    task = Task(FLAT, alone, 64, 5, share=1.0)
    _, (truth, target) = task.batch(0)
    assert torch.equal(truth, target)
    # Labels of a teacher that is asked for each batch instead.
    asked = Task(FLAT, alone, 64, 5, share=1.0, teacher=lambda patches: patches[:, :2, 0] * 0 + 2.5)
    values, (_, target) = asked.batch(0)
    base = asked.base_of(np.rint(values.numpy() * 64).astype(np.int64))
    assert np.allclose(target.numpy() + base, 2.5, atol=1e-6)


def gradients(task: Task, answer: torch.Tensor, truth: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    given = answer.clone().requires_grad_()
    task.loss(given, (truth, target)).backward()
    assert given.grad is not None
    return given.grad


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_positions_follow_the_target_and_sigma_the_truth(some: Examples, beta: float) -> None:
    task = Task(FLAT, some, 64, 5, sigma=True, beta=beta, share=1.0)
    torch.manual_seed(1)
    answer, truth, target = torch.randn(40, 4), torch.randn(40, 2), torch.randn(40, 2)
    found = gradients(task, answer, truth, target)
    log_b = answer[:, 2:] - math.log(SIGMA_OVER_B)
    weight = torch.exp(beta * log_b)
    weight = weight / weight.mean() / answer[:, :2].numel()
    position = weight * torch.sign(answer[:, :2] - target) * torch.exp(-log_b)
    scale = weight * (1 - (answer[:, :2] - truth).abs() * torch.exp(-log_b))
    assert torch.allclose(found[:, :2], position, atol=1e-6)
    assert torch.allclose(found[:, 2:], scale, atol=1e-6)
    # Where the two are one, it is the likelihood that the universal network is trained by.
    same = torch.cat([answer[:, :2], log_b], 1).requires_grad_()
    laplace_loss(same, truth, beta).backward()
    assert same.grad is not None
    assert torch.allclose(gradients(task, answer, truth, truth), same.grad, atol=1e-6)


@pytest.mark.parametrize("huber", [0.0, 0.1])
def test_without_sigma_it_is_the_loss_of_the_position(some: Examples, huber: float) -> None:
    task = Task(FLAT, some, 64, 5, huber=huber, share=1.0)
    torch.manual_seed(1)
    answer, truth, target = torch.randn(40, 2), torch.randn(40, 2), torch.randn(40, 2)
    assert torch.equal(task.loss(answer, (truth, target)), position_loss(answer, target, huber))
    assert task.outputs == 2


def small(task: Task) -> MixedPrecisionNetwork:
    """A network of integers that was not trained, whose codes of ln sigma differ from patch to patch."""
    torch.manual_seed(2)
    net = MixedPrecisionNetwork(
        CircuitNetworkSpec(dense=(40,)), task.window, task.input, task.output, exponent=16, outputs=task.outputs
    )
    with torch.no_grad():
        net.stack[-1].weight[2:] *= 8
    net.initialize(task.sample(200))
    return net.eval()


def test_sigma_is_calibrated_on_the_held_out_patches(some: Examples) -> None:
    task = Task(FLAT, some, 64, 5, sigma=True)
    made = calibrated_locator(task, integers(small(task)))
    patches = some.held_out.crops.numpy()
    offsets, sigma = made.locate_with_sigma(patches)
    assert len(np.unique(sigma)) > 200
    inside = np.abs(offsets - some.held_out.offsets.numpy()) <= sigma
    assert inside.mean() > 0.68  # more where a network knows nothing: half-widths do not fall with what it says
    answered = made.output.values(made.run(made.codes(patches)))
    assert made.calibration == calibrated(answered, some.held_out.offsets.numpy())
    without = Task(FLAT, some, 64, 5)
    assert calibrated_locator(without, integers(small(without))).calibration is None


def test_figures_are_of_corrected_answers(some: Examples) -> None:
    task = Task(FLAT, some, 64, 5, sigma=True)
    right = np.concatenate([task.held_offsets - task.held_base, np.full_like(task.held_base, 9.0)], axis=1)
    assert task.figures(right)["score"] == pytest.approx(0, abs=1e-12)
    base = np.linalg.norm(task.held_base - task.held_offsets, axis=1)
    assert task.figures(np.zeros_like(right))["score"] == pytest.approx(base.mean())


def test_another_code_is_refused(some: Examples) -> None:
    task = Task(FLAT, some, 64, 5, sigma=True)
    net = small(task)
    made = calibrated_locator(task, integers(net))
    require_same_codes(made, task.held_inputs, lambda codes: exact_outputs(net, codes))
    total = len(task.held_inputs) + len(corner_case_inputs(made.network)) + 500

    def flawed(codes: np.ndarray) -> np.ndarray:
        found = exact_outputs(net, codes)
        found[-1, 3] += 1
        return found

    with pytest.raises(UserError, match=f"differs from the trained one on 1 of {total} patches"):
        require_same_codes(made, task.held_inputs, flawed)


def teacher() -> UniversalNetwork:
    torch.manual_seed(3)
    return UniversalNetwork(9, (4,)).eval()


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard is drawn whole."""
    monkeypatch.setattr(family, "SHARD", 1000)


@pytest.mark.usefixtures("small_shards")
def test_examples_of_the_family_are_drawn_held_out_and_empty_patches() -> None:
    spec = FamilySpec(size=9)
    made = Examples.of_family(spec, 4, 1500, 1000, 1, teacher())
    drawn = family.draw(spec, 4, 1500)
    held = family.draw(spec, 4, 1000, VALIDATION_SHARD)
    assert (len(made.data), len(made.held_out), made.size) == (1503, 1000, 9)
    counts, labels = made.data.crops.numpy(), made.data.offsets.numpy()
    assert np.array_equal(counts[:1500], drawn.counts)
    assert np.array_equal(labels[:1500, :2], drawn.offsets)
    assert np.array_equal(labels[:1500, 2:], answers(teacher(), drawn.counts)[:, :2])
    assert not counts[1500:].any()
    empty = labels[1500:]
    assert np.array_equal(empty[:, :2], empty[:, 2:])  # the teacher knows no more
    assert np.abs(empty).max() <= 4.5
    assert np.abs(empty).max() > 1
    assert np.array_equal(made.held_out.crops.numpy(), held.counts)
    assert np.array_equal(made.held_out.offsets.numpy(), held.offsets)
    assert counts[:1500].any(axis=(1, 2)).all()


@pytest.mark.usefixtures("small_shards")
def test_examples_without_a_teacher_have_one_label_and_another_seed_others() -> None:
    made, again, other = (Examples.of_family(FamilySpec(size=9), seed, 1000, 1000, 1) for seed in (4, 4, 5))
    assert made.data.offsets.shape == (1002, 2)
    for part in ("data", "held_out"):
        for name in ("crops", "offsets"):
            one, two, three = (getattr(getattr(found, part), name) for found in (made, again, other))
            assert torch.equal(one, two)
            assert not torch.equal(one, three)
    assert not torch.equal(made.data.offsets[1000:], other.data.offsets[1000:])


def test_both_sets_of_examples_are_drawn_by_the_processes_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches are the same whatever their number, which is a test of the family's."""
    real, asked = family.draw, []

    def drawing(spec: FamilySpec, seed: int, patches: int, first: int, workers: int, *rest: object) -> family.Patches:
        asked.append((patches, workers))
        return real(spec, seed, patches, first)

    monkeypatch.setattr(family, "draw", drawing)
    Examples.of_family(FamilySpec(size=9), 4, 300, 200, 2)
    assert asked == [(300, 2), (200, 2)]


def test_inputs_of_a_task_are_those_of_its_locator(some: Examples) -> None:
    """Both make codes of counts; a network must not be trained on others than it is used with."""
    for front_end in (
        FLAT,
        replace(FLAT, exponent=False),
        replace(FLAT, subtract=True),
        FrontEndSpec(window=9, bits=8),
    ):
        task = Task(front_end, some, 64, 5)
        net = MixedPrecisionNetwork(
            CircuitNetworkSpec(dense=(3,)), task.window, Format(front_end.bits, front_end.bits, False), task.output,
            exponent=16 if front_end.exponent else 0,
        )  # fmt: skip
        net.initialize(task.sample(50))
        made = calibrated_locator(task, integers(net))
        patches = some.data.crops[:100]
        inputs = made.codes(patches.numpy())
        assert np.array_equal(task.inputs(patches), inputs)
        assert made.centroid is not None
        assert np.array_equal(task.base_of(inputs), made.output.values(made.centroid.codes(made.pixels(inputs))))

"""The kinds of networks that benchmarks/family_networks.py compares: shapes, the centroid in front, costs by hand."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from braggnn_edge.simulation.family import draw
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.training.spec import NetworkSpec
from braggnn_edge.universal.network import scaled, squared_centroid

CONVOLUTIONAL = ("published", "without_attention", "wide_head", "wide_head_without_attention", "compact")
NAMES = (*CONVOLUTIONAL, "dense_64_32", "dense_256_128", "dense_512_256")


def _module() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "family_kinds.py"
    spec = importlib.util.spec_from_file_location("family_kinds", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["family_kinds"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


kinds = _module()


@pytest.fixture(scope="module")
def patches() -> Tensor:
    torch.set_num_threads(1)
    return torch.from_numpy(draw(FamilySpec(), 3, 64).counts)


def _move(network: nn.Module) -> None:
    """Away from where trainings begin."""
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))


def test_these_are_the_kinds() -> None:
    assert tuple(kinds.KINDS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_centroid_is_added_exactly(name: str, patches: Tensor) -> None:
    network = kinds.begun(name, 1, patches).eval()
    pixels, exponent = scaled(patches)
    with torch.inference_mode():
        found = network(patches)
        missing = network.missing(pixels, (exponent[:, None] - 8) / 4)
    assert found.shape == (64, 4)
    assert torch.equal(found[:, :2], squared_centroid(pixels) + missing[:, :2])
    assert torch.equal(found[:, 2:], missing[:, 2:])


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutional_kinds_begin_at_the_centroid_with_no_dead_unit(name: str, patches: Tensor) -> None:
    network = kinds.begun(name, 1, patches).eval()
    answer = network(patches)
    assert torch.equal(answer[:, :2], squared_centroid(scaled(patches)[0]))
    answer.sum().backward()
    assert network.braggnn.dense_layers[-1].weight.grad.abs().amin(0).min() > 0  # every hidden unit passes something


@pytest.mark.parametrize("name", NAMES)
def test_a_turned_patch_has_the_turned_answer(name: str, patches: Tensor) -> None:
    network = kinds.begun(name, 1, patches).eval()
    with torch.inference_mode():
        _move(network)
        found = network.answer(patches)
        mirrored, turned = network.answer(patches.flip(1)), network.answer(patches.transpose(1, 2))
        assert not torch.allclose(
            network(patches.flip(1))[:, 0], -network(patches)[:, 0], atol=1e-3
        )  # one look differs
    assert torch.allclose(mirrored, found * torch.tensor([-1.0, 1.0, 1.0, 1.0]), atol=2e-5)
    assert torch.allclose(turned, found[:, [1, 0, 3, 2]], atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_exponent_is_an_input(name: str, patches: Tensor) -> None:
    """Pixels of twice the counts, less the smallest step, are alike; what tells them apart is the exponent."""
    network = kinds.begun(name, 1, patches).eval()
    pixels, exponent = scaled(patches)
    with torch.inference_mode():
        _move(network)
        one, other = (network.missing(pixels, exponent[:, None] + more) for more in (0, 1))
    assert ((one - other).abs().amax(1) > 1e-6).all()


def test_costs_by_hand(patches: Tensor) -> None:
    """Layer by layer: 64-32-8 convolutions, the block on 81 pixels, 201 inputs of the head, four outputs."""
    convolutions = 81 * 9 * 64 + 49 * 9 * 64 * 32 + 25 * 9 * 32 * 8
    head = 201 * 32 + 32 * 16 + 16 * 8 + 8 * 4 + 4 * 4
    block = 4 * 81 * 64 * 32 + 2 * 81 * 81 * 32
    costs = {name: kinds.cost(kinds.begun(name, 0, patches)) for name in NAMES}
    assert costs["published"]["multiplications"] == convolutions + block + head
    assert costs["without_attention"]["multiplications"] == convolutions + head
    assert costs["without_attention"]["weights"] == 9 * (64 + 64 * 32 + 32 * 8) + 104 + head + 64
    assert costs["published"]["weights"] - costs["without_attention"]["weights"] == 4 * 64 * 32 + 3 * 32 + 64
    assert costs["dense_64_32"]["multiplications"] == 122 * 64 + 64 * 32 + 32 * 4
    assert costs["dense_64_32"]["weights"] == 122 * 64 + 64 * 32 + 32 * 4 + 64 + 32 + 4


def test_only_attention_or_the_head_differs_between_the_published_ones() -> None:
    specs = {name: kinds.KINDS[name].build(11).spec for name in CONVOLUTIONAL}
    published = replace(NetworkSpec(), dense=(32, 16, 8, 4))
    assert specs["published"] == published
    assert specs["without_attention"] == replace(published, attention=False)
    assert specs["wide_head"] == replace(published, dense=(64, 32))
    assert specs["wide_head_without_attention"] == replace(published, dense=(64, 32), attention=False)

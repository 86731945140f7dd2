"""The float networks against the published description, and the upstream conventions."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.training import upstream
from braggnn_edge.training.model import BraggNN, NonLocalBlock
from braggnn_edge.training.spec import PATCH_SIZES, NetworkSpec
from braggnn_edge.training.train import load_network

PUBLISHED_NAMES = {
    f"{layer}.{kind}"
    for layer in (
        *(f"cnn_layers.{i}" for i in (0, 2, 4)),
        *(f"nlb.{n}" for n in ("theta_layer", "phi_layer", "g_layer", "out_cnn")),
        *(f"dense_layers.{i}" for i in (0, 2, 4, 6, 8)),
    )
    for kind in ("weight", "bias")
}


def literal_forward(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The paper's network written out with explicit matrix products, for comparison with the module."""
    f = torch.nn.functional
    x = f.conv2d(x, state["cnn_layers.0.weight"], state["cnn_layers.0.bias"])
    n, c, h, w = x.shape
    project = lambda name: f.conv2d(x, state[f"nlb.{name}.weight"], state[f"nlb.{name}.bias"]).reshape(n, c // 2, h * w)  # noqa: E731
    theta, phi, g = project("theta_layer"), project("phi_layer"), project("g_layer")
    attention = torch.softmax(torch.einsum("nck,ncl->nkl", theta, phi), dim=-1)
    mixed = torch.einsum("nkl,ncl->nck", attention, g).reshape(n, c // 2, h, w)
    x = x + f.conv2d(mixed, state["nlb.out_cnn.weight"], state["nlb.out_cnn.bias"])
    x = f.leaky_relu(x, 0.01)
    for i in (2, 4):
        x = f.leaky_relu(f.conv2d(x, state[f"cnn_layers.{i}.weight"], state[f"cnn_layers.{i}.bias"]), 0.01)
    x = x.reshape(n, -1)
    for i in (0, 2, 4, 6):
        x = f.leaky_relu(x @ state[f"dense_layers.{i}.weight"].T + state[f"dense_layers.{i}.bias"], 0.01)
    return x @ state["dense_layers.8.weight"].T + state["dense_layers.8.bias"]


def test_published_network_has_the_published_names_and_function() -> None:
    torch.manual_seed(1)
    net = BraggNN(NetworkSpec(), 11).double()
    state = net.state_dict()
    assert set(state) == PUBLISHED_NAMES
    for value in state.values():  # biases start at zero; the comparison must see them
        value.add_(0.1 * torch.randn_like(value))
    x = torch.rand(5, 1, 11, 11, dtype=torch.float64)
    with torch.no_grad():
        # Two orders of the same float64 sums of fewer than 10^4 terms of order 1: 10^4 * 2^-53 < 1e-11.
        torch.testing.assert_close(net(x), literal_forward(state, x), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("inner", "pool"), [(2, 3), (5, 1), (1, 9), (3, 3)])
def test_fewer_channels_and_pooled_keys_are_their_definition(inner: int, pool: int) -> None:
    """Position by position: softmax over windows of the query times the windows' largest phi, of the largest g."""
    torch.manual_seed(4)
    block = NonLocalBlock(6, inner, pool).double()
    x = torch.randn(2, 6, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        found = block(x)
        theta, phi, g = block.theta_layer(x), block.phi_layer(x), block.g_layer(x)
        assert theta.shape == (2, inner, 9, 9)
        corners = [(r, c) for r in range(0, 9, pool) for c in range(0, 9, pool)]
        key, value = (
            torch.stack([t[:, :, r : r + pool, c : c + pool].amax((2, 3)) for r, c in corners], 1) for t in (phi, g)
        )
        for r, c in ((0, 0), (4, 7), (8, 8)):
            weights = torch.softmax((key * theta[:, None, :, r, c]).sum(2), 1)
            mixed = (weights[:, :, None] * value).sum(1)
            expected = x[:, :, r, c] + mixed @ block.out_cnn.weight[:, :, 0, 0].T + block.out_cnn.bias
            torch.testing.assert_close(found[:, :, r, c], expected, rtol=0, atol=1e-12)


def test_one_network_has_one_description() -> None:
    assert NetworkSpec(attention_channels=32) == NetworkSpec()
    assert NetworkSpec(attention=False, attention_channels=8, attention_pool=3) == NetworkSpec(attention=False)
    cheap = NetworkSpec(attention_channels=8, attention_pool=3)
    assert (cheap.inner, cheap.keys(11), NetworkSpec().keys(11)) == (8, 9, 81)


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        ({"attention_pool": 2}, 11, r"attention_pool 2 does not divide the 9 x 9 positions .* one of 1, 3, 9"),
        ({"attention_pool": 3}, 9, r"does not divide the 7 x 7 positions .* expected one of 1, 7"),
        ({"attention_pool": 0}, 11, "attention_pool 0 are out of range; expected at least 0 .* and at least 1"),
        ({"attention_channels": -1}, 11, "attention_channels -1"),
        ({"conv": (1,)}, 11, "needs at least 2 channels in the first convolution, or attention_channels"),
    ],
)  # fmt: skip
def test_attention_without_a_meaning_is_refused(fields: dict, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        BraggNN(NetworkSpec(**fields), size)


@pytest.mark.parametrize("size", PATCH_SIZES)
def test_published_patch_sizes(size: int) -> None:
    assert BraggNN(NetworkSpec(dense=(64, 32, 16, 8)), size)(torch.rand(2, 1, size, size)).shape == (2, 2)


@pytest.mark.parametrize("size", [10, 5])
def test_unusable_patch_size_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"patch size {size}"):
        BraggNN(NetworkSpec(), size)


def test_offsets_round_trip_and_axis_order() -> None:
    # Upstream (col, row) / size from the corner: col 7, row 4 of an 11 px patch is 1 px up, 2 px right of the centre.
    assert upstream.to_offset(torch.tensor([[7.0 / 11, 4.0 / 11]]), 11).numpy() == pytest.approx(
        np.array([[-1.0, 2.0]]), abs=1e-6
    )
    offsets = torch.randn(20, 2, dtype=torch.float64)
    torch.testing.assert_close(upstream.to_offset(upstream.from_offset(offsets, 11), 11), offsets)


def test_folded_head_answers_in_offsets() -> None:
    torch.manual_seed(2)
    head = torch.nn.Linear(6, 2).double()
    weight, bias = upstream.fold_offset(head, 11)
    x = torch.randn(9, 6, dtype=torch.float64)
    torch.testing.assert_close(x @ weight.T + bias, upstream.to_offset(head(x), 11))


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec(),
        NetworkSpec(dense=(64, 32, 16, 8)),
        NetworkSpec((8, 2, 8), (16,), False, 0.0),
        NetworkSpec((6, 4), (5,), attention_channels=2),
        NetworkSpec((6, 4), (5,), attention_channels=5, attention_pool=11),
    ],
)
def test_checkpoint_round_trip(tmp_path, spec: NetworkSpec) -> None:
    net = BraggNN(spec, 13).to(memory_format=torch.channels_last)
    upstream.save_checkpoint(net, tmp_path / "net.pth")
    read = upstream.load_checkpoint(tmp_path / "net.pth", spec)
    assert (read.spec, read.size) == (spec, 13)
    for name, value in net.state_dict().items():
        assert torch.equal(value, read.state_dict()[name])
    if spec.slope == 0.01 and spec.attention_pool == 1:
        assert upstream.load_checkpoint(tmp_path / "net.pth").spec == spec


def test_channels_of_the_attention_are_the_files(tmp_path) -> None:
    spec = NetworkSpec((6, 4), (5,), attention_channels=2, attention_pool=3)
    net = BraggNN(spec, 11)
    upstream.save_checkpoint(net, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"attention_channels=2, .* expected .*attention_channels=0"):
        upstream.load_checkpoint(tmp_path / "net.pt", NetworkSpec((6, 4), (5,), attention_pool=3))
    with pytest.raises(UserError, match="attention_pool 2 does not divide"):
        upstream.load_checkpoint(tmp_path / "net.pt", dataclasses.replace(spec, attention_pool=2))


def test_descriptions_of_before_there_were_these_choices_are_read(tmp_path) -> None:
    spec = NetworkSpec((6, 4), (5,), slope=0.125)
    upstream.save_checkpoint(BraggNN(spec, 11), tmp_path / "full.pt")
    old = {"conv": [6, 4], "dense": [5], "attention": True, "slope": 0.125}
    (tmp_path / "full.json").write_text(json.dumps({"spec": old}))
    assert load_network(tmp_path, "full").spec == spec
    (tmp_path / "full.json").write_text(json.dumps({"spec": old | {"unknown": 1}}))
    with pytest.raises(UserError, match=r"full.json of the train stage cannot be read .*unknown"):
        load_network(tmp_path, "full")


def test_damaged_checkpoints_are_refused(tmp_path) -> None:
    path = tmp_path / "net.pth"
    with pytest.raises(UserError, match=r"net\.pth"):
        upstream.load_checkpoint(path)
    path.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(UserError, match=r"net\.pth"):
        upstream.load_checkpoint(path)
    state = BraggNN(NetworkSpec(), 11).state_dict()
    torch.save({**state, "decoder.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"decoder\.weight"):
        upstream.load_checkpoint(path)
    torch.save({k: v for k, v in state.items() if k != "nlb.g_layer.weight"}, path)
    with pytest.raises(UserError, match=r"nlb\.g_layer\.weight"):
        upstream.load_checkpoint(path)
    torch.save(state, path)
    with pytest.raises(UserError, match="expected"):
        upstream.load_checkpoint(path, NetworkSpec(dense=(8,)))

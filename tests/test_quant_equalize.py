"""The rewritten float network: the same function, channels of equal range, and what quantization gains by it."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from braggnn_edge.training.upstream import to_offset
from quant.training import equalize
from quant.training.equalize import _divide, equalized
from quant.training.initialize import initialize
from quant.training.plan import BitPlan
from quant.training.qnet import QuantBraggNN, calibrate, load_float

SIZE = 9


def uneven(spec: NetworkSpec, seed: int = 0) -> BraggNN:
    """A network whose hidden channels differ in range by up to a thousand; its answers spread by about a pixel."""
    torch.manual_seed(seed)
    net = BraggNN(spec, SIZE).double().eval()
    layers = [m for m in (*net.cnn_layers, *net.dense_layers) if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            assert layer.bias is not None
            layer.bias.uniform_(0.0, 0.2)
        last = layers[-1]
        last.weight /= net(images()).std() * SIZE
        last.bias += 0.4 - net(images()).mean()
        for layer, reader in itertools.pairwise(layers[1:] if spec.attention else layers):
            _divide((layer,), (reader,), 10 ** (3 * torch.rand(len(layer.weight), dtype=torch.float64) - 2))
    return net


def images(n: int = 64) -> torch.Tensor:
    return torch.rand(n, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def outputs_of(net: BraggNN, x: torch.Tensor) -> list[torch.Tensor]:
    """What each activation passes on."""
    found: list[torch.Tensor] = []
    hooks = [
        m.register_forward_hook(lambda _, __, y: found.append(y))
        for m in net.modules()
        if isinstance(m, nn.LeakyReLU | nn.ReLU)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("spec", [NetworkSpec((6, 4), (8, 3)), NetworkSpec((6, 4), (8,), False, 0.0)])
def test_the_function_is_kept_and_the_ranges_are_equal(spec, monkeypatch):
    monkeypatch.setattr(equalize, "_NEGLIGIBLE", 0.0)  # channels of one sign without exception
    net, x = uneven(spec), images()
    found = equalized(net, x)
    with torch.no_grad():
        np.testing.assert_allclose(found(x), net(x), rtol=0, atol=1e-12)
        for y in outputs_of(found, x)[1:]:
            top = y.abs().transpose(0, 1).flatten(1).amax(1)
            assert bool(((top == 0) | (top - 0.99).abs().lt(1e-9)).all())
        if spec.attention:
            q, k, v = (layer(found.cnn_layers[0](x)) for layer in
                       (found.nlb.theta_layer, found.nlb.phi_layer, found.nlb.g_layer))  # fmt: skip
            ranges = [y.abs().transpose(0, 1).flatten(1).amax(1) for y in (q, k, v)]
            torch.testing.assert_close(ranges[0], ranges[1])
            torch.testing.assert_close(ranges[2], torch.full_like(ranges[2], 0.99))


def test_a_channel_that_is_never_positive_is_lifted(monkeypatch):
    monkeypatch.setattr(equalize, "_NEGLIGIBLE", 0.0)
    net, x = uneven(NetworkSpec((4,), (6, 2), False)), images()
    with torch.no_grad():
        net.dense_layers[2].bias[0] = -1e4
    found = equalized(net, x)
    with torch.no_grad():
        np.testing.assert_allclose(found(x), net(x), rtol=0, atol=1e-9)
        hidden = found.dense_layers[:4](functional.leaky_relu(found.cnn_layers[0](x), 0.01).flatten(1))
    assert float(hidden[:, 0].min()) == pytest.approx(0.99 * 0.03 / 1.03)
    assert float(hidden[:, 0].max()) == pytest.approx(0.99)


def test_quantization_gains_by_it():
    """Eight bits on uneven channels, to the float network's answer: less than a fifth of the error."""
    spec = NetworkSpec((6, 4), (8, 4))
    net, x = uneven(spec, 3).float(), images(100).float()
    answer = to_offset(net(x), SIZE)
    plain, begun = (QuantBraggNN(spec, SIZE, BitPlan(weight_bits=8)) for _ in range(2))
    said: list[str] = []
    load_float(plain, net)
    calibrate(plain, x)
    initialize(begun, net, x, said.append)
    with torch.no_grad():
        errors = [float((qnet.eval()(x) - answer).norm(dim=1).median()) for qnet in (plain, begun)]
    assert errors[1] < errors[0] / 5
    assert said[0].startswith("  quantized, rms px to float: as trained ")

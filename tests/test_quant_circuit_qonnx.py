"""A circuit's network in QONNX: read back equal, executed equal, refused by the layer's name otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from quant.contract import emulate
from quant.contract.arithmetic import Format
from quant.contract.layers import Flatten, Linear, Requantize
from quant.contract.network import IntegerNetwork, Layer, as_document
from quant.contract.sizing import size_accumulators
from quant.contract.vectors import corner_case_codes, random_codes
from quant.exchange.circuit_qonnx import export_network
from quant.exchange.execute import run_qonnx
from quant.exchange.from_qonnx import integer_network


def linear(
    rng: np.random.Generator, name: str, shape: tuple[int, ...], frac: int, before: int, wide: int = 0
) -> Linear:
    """Half of the weights zero, codes of 4 bits, shifted by up to ``wide`` bits from channel to channel."""
    weight = rng.integers(-7, 8, shape) * (rng.random(shape) < 0.5)
    weight <<= rng.integers(0, wide + 1, (shape[0], *(1,) * (len(shape) - 1)))
    form = Format(4 + wide, frac, True)
    kind = "conv2d" if len(shape) == 4 else "dense"
    return Linear(name, kind, weight, form, rng.integers(-30, 31, shape[0]), Format(1, frac + before, True))


def dense(window: int = 7, bits: int = 6, hidden: tuple[int, ...] = (32, 16), wide: int = 10) -> IntegerNetwork:
    rng = np.random.default_rng(window)
    layers: list[Layer] = [Flatten("flatten")]
    inputs, frac = window**2, bits
    for i, outputs in enumerate(hidden):
        layers.append(linear(rng, f"dense.{i}", (outputs, inputs), 3 + wide, frac, wide))
        layers.append(Requantize(f"dense.{i}.act", "relu", Format(6, 5, False)))
        inputs, frac = outputs, 5
    last = len(hidden)
    layers.append(linear(rng, f"dense.{last}", (2, inputs), 5, frac))
    layers.append(Requantize(f"dense.{last}.act", "identity", Format(12, 9, True)))
    return size_accumulators(IntegerNetwork(window, Format(bits, bits, False), tuple(layers)))


def convolution(kernel: int, window: int = 5) -> IntegerNetwork:
    rng = np.random.default_rng(10 + kernel)
    side = window - kernel + 1
    return size_accumulators(
        IntegerNetwork(
            window,
            Format(4, 4, False),
            (
                linear(rng, "conv.0", (3, 1, kernel, kernel), 3, 4),
                Requantize("conv.0.act", "relu", Format(5, 3, False)),
                Flatten("flatten"),
                linear(rng, "dense.1", (2, 3 * side**2), 4, 3),
                Requantize("dense.1.act", "identity", Format(10, 6, True)),
            ),
        )
    )


@pytest.mark.parametrize(
    "network",
    [
        dense(),
        dense(3, 4, (5,), 0),
        dense(5, 4, (), 3),
        convolution(3),
        convolution(5, 7),
        convolution(2),
        convolution(1),
    ],
    ids=["49-32-16-2", "9-5-2", "25-2", "3x3", "5x5", "2x2", "1x1"],
)
def test_reads_back_and_executes_equal(network, tmp_path):
    path = tmp_path / "model.onnx"
    export_network(network, path)
    assert as_document(integer_network(path)) == as_document(network)
    rng = np.random.default_rng(1)
    codes = np.concatenate(
        [corner_case_codes(network.size, network.input), random_codes(network.size, network.input, 90, rng)]
    )
    outputs = emulate.run(network, codes).outputs
    assert np.array_equal(run_qonnx(path, codes), outputs)
    assert len(np.unique(outputs, axis=0)) > 10  # not the constant network
    export_network(network, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def changed(network: IntegerNetwork, index: int, **fields: object) -> IntegerNetwork:
    layers = list(network.layers)
    layers[index] = replace(layers[index], **fields)
    return replace(network, layers=tuple(layers))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (dense(7, 6, (8,), 18), r"layer dense\.0: its accumulator needs 2\d bits, but float32"),
        (
            changed(dense(3, 4, (5,), 0), 2, rounding="half_up"),
            r"layer dense\.0\.act: its rounding is read back as floor",
        ),
        (changed(dense(3, 4, (5,), 0), 1, accumulator=Format(20, 7, True)), r"layer dense\.0: its accumulator"),
        (changed(dense(3, 4, (5,), 0), 2, output=Format(1, 0, False)), r"node dense\.0\.act_quant: bit width is 1"),
    ],
    ids=["float32", "rounding", "accumulator", "one bit"],
)
def test_what_qonnx_cannot_hold_is_refused_and_nothing_is_left(network, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export_network(network, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())

"""Locators' integers as a GPU computes them, here on the CPU: the emulator's codes, all of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import linear

from braggnn_edge.core.errors import UserError
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.attention import NonLocal, difference_frac, exp_table, reciprocal_table, size_block
from quant.contract.block_shift import BlockShift
from quant.contract.layers import Flatten, Leaky, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer
from quant.exchange.device import IntegersOnDevice
from quant.exchange.locators import integer_locator
from quant.shipped import path_of

torch.set_num_threads(1)


def counts(size: int, count: int = 300) -> np.ndarray:
    """Patches of all brightnesses, with empty, full, flat and single-pixel ones."""
    rng = np.random.default_rng(size)
    found = rng.poisson(10 ** rng.uniform(0, 4.8, (count, 1, 1)) * rng.random((count, size, size))).clip(0, 65535)
    found[0], found[1], found[2], found[3] = 0, 65535, 7, 0
    found[3, size // 2, size // 2] = 1
    return found.astype(np.uint16)


@pytest.mark.parametrize("name", ["shipped", "shipped_circuit"])
def test_what_ships_has_the_same_codes(name: str) -> None:
    locator = locators.load(path_of(name))
    given = counts(locator.size)
    found = IntegersOnDevice(locator)
    assert np.array_equal(found(torch.from_numpy(given)).numpy(), locator.run(locator.codes(given)))
    expected = np.concatenate(locator.locate_with_intervals(given), axis=1)
    assert np.allclose(found.values(torch.from_numpy(given)).numpy(), expected, rtol=1e-12, atol=0)


def layered(seed: int, normalizer: Normalizer | BlockShift, pool: int) -> IntegerLocator:
    """Convolution, non-local block, leaky and plain activations, both roundings, dense layers: random, not sized."""
    rng = np.random.default_rng(seed)
    bits, size, channels, inner = normalizer.bits, 8, 4, 2
    size += 1
    x = Format(bits, bits, signed=False)
    block_input = Format(8, 7, signed=True)

    def part(name: str, outputs: int, inputs: int) -> Linear:
        weight = rng.integers(-90, 90, (outputs, inputs, 1, 1))
        return Linear(name, "conv2d", weight, Format(8, 6, True), rng.integers(-99, 99, outputs), Format(1, 13, True))

    exponential = Format(8, 8, signed=False)
    formats = {role: Format(8, 6, signed=True) for role in ("query", "key", "value", "mixed")}
    formats["difference"] = Format(8, difference_frac(8, exponential), signed=False)
    formats |= {"exponential": exponential, "reciprocal": Format(12, 12, signed=False)}
    parts = {role: part(role, inner, channels) for role in ("theta", "phi", "g")} | {
        "out": part("out", channels, inner)
    }
    tables = exp_table(formats["difference"], exponential), reciprocal_table(6, 12)
    block: NonLocal = size_block("nlb", 49, (block_input, -128, 127), parts, formats, tables, pool)
    layers = (
        replace(linear(rng, "conv0", "conv2d", (channels, 1, 3, 3), bits, 8), accumulator=Format(24, bits + 7, True)),
        Requantize("first", "identity", block_input),
        block,
        Leaky("leaky", "leaky", Format(8, 6, True), "half_up", 3, 7),
        replace(linear(rng, "conv1", "conv2d", (3, channels, 3, 3), 6, 8), accumulator=Format(24, 13, True)),
        Requantize("relu", "relu", Format(7, 7, signed=False), "half_up"),
        Flatten("flat"),
        replace(linear(rng, "dense", "dense", (2, 75), 7, 20, 1 << 20), accumulator=Format(40, 26, True)),
        Requantize("output", "identity", Format(12, 8, True)),
    )
    return locators.of_layers(IntegerNetwork(size, x, layers), normalizer)


@pytest.mark.parametrize("pool", [1, 7])
@pytest.mark.parametrize("normalizer", [Normalizer(8), Normalizer(6, 20, 5), BlockShift(8, 16, subtract=True)])
def test_every_kind_of_layer_has_the_same_codes(normalizer: Normalizer | BlockShift, pool: int) -> None:
    locator = layered(pool, normalizer, pool)
    given = counts(9)
    expected = locator.run(locator.codes(given))
    assert len(np.unique(expected)) > 50  # a network that is constant would agree with anything
    found = IntegersOnDevice(locator)
    assert torch.float64 in found.sums
    assert torch.float32 in found.sums
    assert np.array_equal(found(torch.from_numpy(given)).numpy(), expected)
    floats = given.astype(np.float32) - 100.5  # negative, and between whole counts
    assert np.array_equal(found(torch.from_numpy(floats)).numpy(), locator.run(locator.codes(floats)))


def test_a_device_that_is_not_there_is_refused() -> None:
    locator = locators.load(path_of("shipped"))
    with pytest.raises(UserError, match="expected cpu or cuda"):
        integer_locator(locator, "tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            integer_locator(locator, "cuda")

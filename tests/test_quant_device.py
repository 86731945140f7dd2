"""Locators' integers as a GPU computes them, here on the CPU: the emulator's codes, all of them."""

import numpy as np
import pytest
import torch
from builders import bright_and_faint as counts
from builders import with_every_layer

from braggnn_edge.core.errors import UserError
from quant.contract import locator as locators
from quant.contract.block_shift import BlockShift
from quant.contract.normalize import Normalizer
from quant.exchange.device import IntegersOnDevice
from quant.exchange.locators import integer_locator
from quant.shipped import path_of

torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["shipped", "shipped_circuit"])
def test_what_ships_has_the_same_codes(name: str) -> None:
    locator = locators.load(path_of(name))
    given = counts(locator.size)
    found = IntegersOnDevice(locator)
    assert np.array_equal(found(torch.from_numpy(given)).numpy(), locator.run(locator.codes(given)))
    expected = np.concatenate(locator.locate_with_intervals(given), axis=1)
    assert np.allclose(found.values(torch.from_numpy(given)).numpy(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("pool", [1, 7])
@pytest.mark.parametrize("normalizer", [Normalizer(8), Normalizer(6, 20, 5), BlockShift(8, 16, subtract=True)])
def test_every_kind_of_layer_has_the_same_codes(normalizer: Normalizer | BlockShift, pool: int) -> None:
    locator = with_every_layer(pool, normalizer, pool)
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

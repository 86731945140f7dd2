"""Random locators of every kind and width, compiled: the emulator's codes."""

from collections.abc import Callable

import numpy as np
import pytest
from builders import with_every_layer

from braggnn_edge.core.errors import UserError
from braggnn_edge.locate.calibration import Calibration
from quant.compiled.kernel import CompiledIntegers
from quant.compiled.records import Sums
from quant.contract.arithmetic import Codes, Format
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.layers import Flatten, Leaky, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork, Layer
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators

Rng = np.random.Generator
Patches = Callable[..., Codes]


def normalizer(rng: Rng) -> Normalizer | BlockShift:
    bits = int(rng.integers(2, 17))
    counts = int(rng.integers(max(bits + 4, 14), 33))
    if rng.random() < 0.5:
        return Normalizer(bits, counts, int(rng.integers(1, 13)))
    return BlockShift(bits, counts, bool(rng.random() < 0.5))


def layer(rng: Rng, name: str, kind: str, shape: tuple[int, ...], frac: int) -> tuple[Linear, int]:
    """A linear layer behind codes of ``frac``, some weights 0, and its weights' bits."""
    bits = int(rng.choice([2, 4, 6, 8, 8, 8, 12, 16, 18, 22]))
    weight = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape) * (rng.random(shape) < rng.choice([0.2, 0.7, 1]))
    form = Format(bits, int(rng.integers(0, bits + 2)), True)
    return Linear(name, kind, weight, form, rng.integers(-999, 999, shape[0]), Format(1, frac + form.frac, True)), bits


def requantization(rng: Rng, name: str, frac: int, wide: int, last: bool) -> Requantize:
    """Of sums at ``frac`` that are some ``wide`` bits wide: any kind, rounding and shift, to the left too."""
    bits = int(rng.integers(6, 20) if last else rng.integers(2, 17))
    to = Format(bits, frac - int(rng.integers(-2, wide)), last or bool(rng.random() < 0.4))
    rounding = str(rng.choice(["floor", "half_up"]))
    kind = str(rng.choice(["leaky", "identity"] if last else ["leaky", "identity", "relu", "relu"]))
    if kind == "leaky":
        return Leaky(name, kind, to, rounding, int(rng.integers(1, 8)), int(rng.integers(0, 9)))
    return Requantize(name, kind, to, rounding)


def random_locator(seed: int) -> IntegerLocator:
    """Any normalizer, up to three convolutions, up to three dense layers, perhaps exponent, centroid and sigma."""
    rng = np.random.default_rng(seed)
    front = normalizer(rng)
    window = side = int(rng.choice([3, 5, 7]))
    exponent = front.count_bits if isinstance(front, BlockShift) and rng.random() < 0.4 else 0
    outputs = int(rng.choice([2, 4]))
    layers: list[Layer] = []
    channels, frac = 1, front.bits

    def put(kind: str, shape: tuple[int, ...], last: bool = False) -> None:
        nonlocal frac
        name = f"{kind}{len(layers)}"
        made, bits = layer(rng, name, kind, shape, frac)
        layers.append(made)
        frac = made.accumulator.frac
        if rng.random() < 0.9:
            after = requantization(rng, f"{name}.act", frac, 8 + bits, last)
            layers.append(after)
            frac = after.output.frac

    inputs = window**2 + exponent
    if not exponent:
        for _ in range(int(rng.integers(0, 3))):
            kernel, more = int(rng.integers(1, min(3, side) + 1)), int(rng.integers(1, 10))
            put("conv2d", (more, channels, kernel, kernel))
            side, channels = side - kernel + 1, more
        layers.append(Flatten("flatten"))
        inputs = channels * side**2
    for _ in range(int(rng.integers(0, 3))):
        more = int(rng.integers(1, 12))
        put("dense", (more, inputs))
        inputs = more
    put("dense", (outputs, inputs), last=True)
    network = size_accumulators(IntegerNetwork(window, Format(front.bits, front.bits, False), tuple(layers), exponent))
    base = None
    if rng.random() < 0.6 and 0 <= frac <= 16:
        power = int(rng.integers(1, 3))
        dropped = int(rng.integers(0, power * front.bits))
        base = Centroid.of_power(window, front.bits, power, dropped, index_bits=1, numerator_bits=18, frac=frac)
    size, to = window + 2 * int(rng.integers(0, 2)), Format(int(rng.integers(6, 30)), frac, True)
    return IntegerLocator(size, window, front, network, base, to, Calibration() if outputs == 4 else None)


def compared(locator: IntegerLocator, patches: np.ndarray) -> set[Sums]:
    """Compare a locator's codes, in pairs and in fours, and say which types of sums it had."""
    expected = locator.run(locator.codes(patches))
    sums: set[Sums] = set()
    for fours in (False, True):
        found = CompiledIntegers(locator, fours=fours)
        assert np.array_equal(found(patches), expected), f"in {'fours' if fours else 'pairs'}"
        sums |= set(found.plan.sums)
    return sums


def test_random_locators(detector_patches: Patches) -> None:
    most = np.iinfo(np.int32)
    sums: set[Sums] = set()
    refused: list[str] = []
    done = 0
    for seed in range(70):
        try:
            locator = random_locator(seed)
        except UserError:  # a random centroid need not be one
            continue
        patches = detector_patches(locator, 60, seed).clip(most.min, most.max).astype(np.int32)
        try:
            sums |= compared(locator, patches)
        except UserError as error:
            refused.append(str(error))
            continue
        done += 1
    assert sums == set(Sums)
    assert done > 10 * len(refused)
    assert all("too wide for a compiled form" in message for message in refused)
    assert done > 60


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("pool", [1, 7])
def test_random_non_local_blocks(pool: int, signed: bool, detector_patches: Patches) -> None:
    for seed in range(2):
        locator = with_every_layer(seed, Normalizer(8), pool, mixed=4 + 2 * seed, signed=signed)
        compared(locator, detector_patches(locator, 40, seed).astype(np.int32))

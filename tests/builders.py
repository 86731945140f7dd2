"""What several test modules build: a scenario, tables of spots, random layers, references in plain Python integers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from braggnn_edge.peaks.splits import TRAIN, VALIDATION
from braggnn_edge.peaks.table import PEAK, PeakTable
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.attention import NonLocal, difference_frac, exp_table, reciprocal_table, size_block
from quant.contract.block_shift import BlockShift
from quant.contract.layers import Flatten, Leaky, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer

#: A simulated scan of seconds and its split; tables of a stage may be appended.
TINY_SCAN = """
name = "tiny"
seed = 3
[[scan]]
name = "scan"
threshold = 45.0
detector = { gain = 1.0, read_noise = 2.0, saturation = 65535.0 }
[scan.simulate]
rows = 256
cols = 256
frames = 30
reflections = 700
heights = [500.0, 20000.0]
rings = [60.0, 90.0, 115.0]
window = 27
[split]
block = 5
guard = 1
validation = 0.2
test = 0.2
"""


def spots(
    n: int,
    size: int,
    shift: int = 0,
    *,
    reach: float = 0.5,
    variance: float = 1.0,
    at: tuple[int, int] = (0, 0),
    crops: Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray] = lambda _, rows, cols: (
        1000 * rows * cols
    ),
) -> PeakTable:
    """n Gaussians whose centre lies within ``reach`` px of that of their crop, a quarter of them for validation.

    variance: in px**2; at: the brightest pixel (row, col) of each. ``crops`` makes pixels (n, side, side) of a
    generator and the two profiles of height 1, (n, side, 1) and (n, 1, side); by default 1000 counts high, no noise.
    """
    rng = np.random.default_rng(5)
    side = size + 2 * shift
    centre = side // 2 + rng.uniform(-reach, reach, (n, 2))
    grid = np.arange(side)
    rows, cols = (np.exp(-((grid[None] - centre[:, axis, None]) ** 2) / (2 * variance)) for axis in (0, 1))
    peaks = np.zeros(n, PEAK)
    peaks["row"], peaks["col"] = at
    peaks["truth_row"], peaks["truth_col"] = (np.array(at) + centre - side // 2).T
    peaks["split"] = np.where(np.arange(n) % 4 == 0, VALIDATION, TRAIN)
    return PeakTable(peaks, crops(rng, rows[:, :, None], cols[:, None, :]), ("scan",), size, shift)


def sloping_spots(n: int, size: int) -> PeakTable:
    """Spots on a slope that leads their centroids astray."""

    def crops(_: np.random.Generator, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        return np.round(900 * rows * cols + 20 * np.arange(size)).astype(np.uint16)

    return spots(n, size, crops=crops)


def linear(
    rng: np.random.Generator, name: str, kind: str, shape: tuple[int, ...], frac: int, bits: int = 5, bias: int = 60
) -> Linear:
    """A layer of random weights of ``bits`` bits, and biases up to ``bias``; frac: of its input. Not sized."""
    weight = Format(bits, bits - 1, True)
    codes = rng.integers(weight.low, weight.high, shape, endpoint=True)
    return Linear(name, kind, codes, weight, rng.integers(-bias, bias, shape[0]), Format(1, frac + weight.frac, True))


def min_max_by_steps(n: Normalizer, patch: np.ndarray) -> list[int]:
    """The documented steps in plain Python integers, one pixel at a time: a second, independent spelling."""
    half = 1 << (n.count_bits - 1)
    counts = [min(max(int(np.floor(v)), -half), half - 1) for v in patch.ravel().tolist()]
    low = min(counts)
    r = max(counts) - low
    if r == 0:
        return [0] * len(counts)
    w, m, t = n.count_bits, n.bits + 4, n.table_bits
    z = w - r.bit_length()
    index = ((r << z) >> (w - 1 - t)) & ((1 << t) - 1)
    entry = (1 << (t + m)) // ((1 << t) + index + 1)
    return [((((c - low) << z) >> (w - m)) * entry) >> (2 * m - 1 - n.bits) for c in counts]


def block_shift_by_steps(shift: BlockShift, patch: np.ndarray) -> list[int]:
    """The steps of quant/contract/block_shift.py in plain Python integers, one pixel at a time."""
    counts = [min(max(int(np.floor(c)), 0), 2**shift.count_bits - 1) for c in patch.ravel().tolist()]
    low = min(counts) if shift.subtract else 0
    together = 0
    for c in counts:
        together |= c - low
    zeros = shift.count_bits - together.bit_length()
    return [((c - low) << zeros) >> (shift.count_bits - shift.bits) for c in counts]


def bright_and_faint(size: int, count: int = 300) -> np.ndarray:
    """Patches of all brightnesses, with empty, full, flat and single-pixel ones."""
    rng = np.random.default_rng(size)
    found = rng.poisson(10 ** rng.uniform(0, 4.8, (count, 1, 1)) * rng.random((count, size, size))).clip(0, 65535)
    found[0], found[1], found[2], found[3] = 0, 65535, 7, 0
    found[3, size // 2, size // 2] = 1
    return found.astype(np.uint16)


def with_every_layer(
    seed: int, normalizer: Normalizer | BlockShift, pool: int, mixed: int = 8, signed: bool = True
) -> IntegerLocator:
    """Convolution, non-local block, leaky and plain activations, both roundings, dense layers: random, not sized.

    mixed: bits of what the block mixes; few of them saturate. signed: whether its input is.
    """
    rng = np.random.default_rng(seed)
    bits, size, channels, inner = normalizer.bits, 8, 4, 2
    size += 1
    x = Format(bits, bits, signed=False)
    block_input = Format(8, 7, signed)

    def part(name: str, outputs: int, inputs: int) -> Linear:
        weight = rng.integers(-90, 90, (outputs, inputs, 1, 1))
        return Linear(name, "conv2d", weight, Format(8, 6, True), rng.integers(-99, 99, outputs), Format(1, 13, True))

    exponential = Format(8, 8, signed=False)
    formats = {role: Format(8, 6, signed=True) for role in ("query", "key", "value", "mixed")}
    formats["mixed"] = Format(mixed, 6, signed=True)
    formats["difference"] = Format(8, difference_frac(8, exponential), signed=False)
    formats |= {"exponential": exponential, "reciprocal": Format(12, 12, signed=False)}
    parts = {role: part(role, inner, channels) for role in ("theta", "phi", "g")} | {
        "out": part("out", channels, inner)
    }
    tables = exp_table(formats["difference"], exponential), reciprocal_table(6, 12)
    block: NonLocal = size_block(
        "nlb", 49, (block_input, block_input.low, block_input.high), parts, formats, tables, pool
    )
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

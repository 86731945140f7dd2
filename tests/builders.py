"""What several test modules build: a scenario, tables of spots, random layers, references in plain Python integers."""

from collections.abc import Callable

import numpy as np

from braggnn_edge.peaks.splits import TRAIN, VALIDATION
from braggnn_edge.peaks.table import PEAK, PeakTable
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.layers import Linear
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

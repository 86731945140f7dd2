"""Corner cases: patches that a comparison must hold on, as detector values and as input codes."""

import numpy as np
from numpy.typing import NDArray

from quant.contract.arithmetic import Codes, Format
from quant.contract.vectors import corner_case_codes as _patterns
from quant.contract.vectors import random_codes


def corner_case_counts(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Detector values (n, size, size) that go through the normalizer: all zero, constant, saturated, one hot pixel
    at every position, dead pixels, checkerboards, gradients, negative and fractional values, tiny and huge ranges.
    """
    row, col = np.indices((size, size), dtype=np.float64)
    hot = np.eye(size * size).reshape(-1, size, size)
    board = (row + col) % 2
    patches = [np.full((size, size), value) for value in (0.0, 1.0, -1.0, 0.5, 15800.0, 65535.0, 131071.0, -131072.0)]
    patches += [np.full((size, size), value) for value in (1e9, -1e9)]  # beyond the count's bits: saturate
    for high in (0.25, 1.0, 1.5, 2.0, 255.0, 256.0, 257.0, 16383.0, 65535.0, 262143.0, 1e9):
        patches += [high * board, high * (1 - board) - high / 3, -high * board]
    patches += [row, col, row * size + col, -(row * size + col), 1000 - 7.3 * row + 0.4 * col]
    patches += [np.where(board > 0, 131071.0, -131072.0)]
    single = [high * hot + low for low, high in ((0.0, 1.0), (-0.5, 300.25), (120.0, 15800.0), (500.0, -500.0))]
    background = rng.poisson(20, (64, size, size)).astype(np.float64)
    scale = rng.uniform(1, 60000, (64, 1, 1))
    centre, width = rng.uniform(0, size - 1, (64, 2, 1, 1)), rng.uniform(0.4, 4, (64, 1, 1))
    peaks = scale * np.exp(-((row - centre[:, 0]) ** 2 + (col - centre[:, 1]) ** 2) / (2 * width**2)) + background
    wild = rng.uniform(-1, 1, (64, size, size)) * 10.0 ** rng.uniform(-2, 6, (64, 1, 1))
    clipped = np.minimum(peaks, 15800.0)
    return np.concatenate([np.stack(patches), *single, peaks, np.floor(clipped), -peaks, wild])


def corner_case_codes(size: int, to: Format, rng: np.random.Generator, count: int = 500) -> Codes:
    """Input codes (n, size, size): the patterns of :func:`quant.contract.vectors.corner_case_codes`, ``count`` random
    patches over the full range, and ``count`` that are sparse or single peaks.
    """
    uniform = rng.integers(to.low, to.high, (count, size, size), endpoint=True)
    return np.concatenate([_patterns(size, to), uniform, random_codes(size, to, count, rng)])

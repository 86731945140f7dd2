"""Input codes that look for trouble, for every comparison between two forms of a network."""

import numpy as np

from quant.contract.arithmetic import Codes, Format
from quant.contract.network import IntegerNetwork


def corner_case_inputs(network: IntegerNetwork) -> Codes:
    """:func:`corner_case_codes` as inputs (n, *network.shape) of a network: with exponents of every size."""
    return as_inputs(network, corner_case_codes(network.size, network.input))


def random_inputs(network: IntegerNetwork, count: int, rng: np.random.Generator) -> Codes:
    """:func:`random_codes` as inputs (count, *network.shape) of a network."""
    return as_inputs(network, random_codes(network.size, network.input, count, rng))


def as_inputs(network: IntegerNetwork, codes: Codes) -> Codes:
    """Codes (n, size, size) as inputs of a network; exponents, where it takes them, run through all there are."""
    if not network.exponent:
        return codes
    count = network.exponent
    exponents = np.tri(count + 1, count, -1, dtype=np.int64) << (network.input.bits - 1)
    return np.concatenate(
        [codes.reshape(len(codes), network.size**2), np.resize(exponents, (len(codes), count))], axis=1
    )


def corner_case_codes(size: int, to: Format) -> Codes:
    """Patches (n, size, size): all zero, all at each end of the format, one hot pixel at every position and its
    negative image, halves, stripes, checkerboards, ramps and a single saturated row or column.
    """
    low, high = to.low, to.high
    row, col = np.indices((size, size))
    flat = [np.full((size, size), code) for code in sorted({low, 0, 1, high // 2, high - 1, high})]
    patterns = [
        (row + col) % 2 == 0,
        (row + col) % 2 == 1,
        row % 2 == 0,
        col % 2 == 0,
        row < size // 2,
        col < size // 2,
    ]
    patterns += [row == k for k in (0, size // 2, size - 1)] + [col == k for k in (0, size // 2, size - 1)]
    patterns += [row == col, row + col == size - 1]
    hot = np.eye(size * size, dtype=bool).reshape(-1, size, size)
    marks = np.concatenate([np.stack(patterns), hot, ~hot])
    ramp = (row * size + col) * (high - low) // (size * size - 1) + low
    return np.concatenate([np.stack([*flat, ramp, ramp[::-1, ::-1]]), np.where(marks, high, low)]).astype(np.int64)


def random_codes(size: int, to: Format, count: int, rng: np.random.Generator) -> Codes:
    """``count`` patches (count, size, size) of codes: a third uniform, a third sparse, a third near a single peak."""
    uniform = rng.integers(to.low, to.high, (count, size, size), endpoint=True)
    sparse = np.where(rng.random((count, size, size)) < 0.1, uniform, 0)
    row, col = np.indices((size, size))
    centre = rng.uniform(0, size - 1, (count, 2, 1, 1))
    width = rng.uniform(0.4, size / 3, (count, 1, 1))
    peak = np.exp(-((row - centre[:, 0]) ** 2 + (col - centre[:, 1]) ** 2) / (2 * width**2))
    peaks = np.clip(np.floor(peak * to.high + rng.normal(0, 0.02 * to.high, peak.shape)), to.low, to.high)
    return np.choose(np.arange(count)[:, None, None] % 3, [uniform, sparse, peaks.astype(np.int64)]).astype(np.int64)

"""The non-local block (self-attention over all pixels, with a residual) in integers.

Steps for one patch of N positions i (row-major) and C channels, D inside, with K keys j: one a position, or one a
window of pool x pool positions, windows in row-major order. ``floor`` is an arithmetic right shift, ``sat`` clips to
the named format; every format and table is data of the layer:

 1. q = sat(floor(theta(x))), k = sat(floor(phi(x))), v = sat(floor(g(x))): 1 x 1 convolutions with exact sums, in
    the formats query, key, value. With pooling k and v are then the windows' maxima, channel by channel (pooled before
    the floor they are the same integers: floor and sat are monotone)
 2. s[i, j] = sum_c q[i, c] * k[j, c], exact (score)
 3. d[i, j] = max_j s[i, j] - s[i, j] >= 0, exact; t = min(floor(d / 2**difference_shift), difference.high)
 4. e[i, j] = exp_table[t[i, j]]; entry 0 is the largest code of ``exponential``, the last one is 0
 5. S[i] = sum_j e[i, j]; 2**E - 1 <= S <= K * (2**E - 1) with E = exponential.bits (total)
 6. a[i, c] = sum_j e[i, j] * v[j, c], exact (weighted)
 7. L = bit_length(S); r = the T bits of S below its leading one (zeros where S has no more); R = reciprocal_table[r];
    y = sat(floor(a * R / 2**(reciprocal_shift + L))), in the format ``mixed``
 8. z = (out(y) << out_shift) + (x << residual_shift), exact (accumulator): the result

The errors of steps 4 and 7 are bounded in docs/reference/numerics.md. Source of the block: Wang et al., CVPR 2018
(embedded Gaussian, subsampling trick), as in :mod:`braggnn_edge.training.model`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Codes, Format, linear_bounds, requantize
from quant.contract.layers import Linear
from quant.contract.tables import difference_frac, exp_table, leading_bits, reciprocal_table

__all__ = [
    "NonLocal", "NonLocalResult", "block_bounds", "difference_frac", "exp_table", "nonlocal_codes",
    "reciprocal_table", "reciprocals", "resized_block", "size_block",
]  # fmt: skip

#: Sums of integers below this are exact in float32, in any order.
_FLOAT32_LIMIT = 1 << 24


@dataclass(frozen=True)
class NonLocal:
    """One non-local block: codes (n, C, R, R) of format ``input`` to sums (n, C, R, R) of format ``accumulator``.

    positions: N = R * R; pool: side of the windows of positions that a key is the maximum of, a divisor of R. theta,
    phi, g, out: kind "conv2d", weights (D, C, 1, 1) and, for out, (C, D, 1, 1), each with its own exact accumulator.
    query, key, value, mixed: signed. difference: unsigned, its bits index ``exp_table``. exponential, reciprocal:
    unsigned, the formats of the two tables' entries (frac = bits, so that an entry is below 1). score, total, weighted:
    exact sums. The tables have 2**difference.bits and 2**T entries.
    """

    name: str
    kind: str
    positions: int
    input: Format
    theta: Linear
    phi: Linear
    g: Linear
    query: Format
    key: Format
    value: Format
    score: Format
    difference: Format
    exponential: Format
    total: Format
    weighted: Format
    reciprocal: Format
    mixed: Format
    out: Linear
    accumulator: Format
    exp_table: Codes
    reciprocal_table: Codes
    pool: int = 1

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise UserError(f"layer {self.name}: {problem}; make the integer network again with `make qat`")

    def _problem(self) -> str | None:
        if self.side**2 != self.positions or self.pool < 1 or self.side % self.pool:
            return f"windows of side {self.pool} do not tile its {self.positions} positions"
        if len(self.exp_table) != 1 << self.difference.bits:
            return f"exp_table has {len(self.exp_table)} entries, expected {1 << self.difference.bits}"
        if self.exp_table.min() < 0 or self.exp_table[0] != self.exponential.high or self.exp_table[-1] != 0:
            return f"exp_table must begin with {self.exponential.high}, end with 0 and hold nothing negative"
        if self.exp_table.max() > self.exponential.high:
            return f"exp_table holds {self.exp_table.max()}, beyond its {self.exponential.bits} bits"
        if len(self.reciprocal_table) != 1 << self.index_bits:
            return f"reciprocal_table has {len(self.reciprocal_table)} entries, expected a power of two"
        if self.reciprocal_table.min() < 1 or self.reciprocal_table.max() > self.reciprocal.high:
            return f"reciprocal_table does not fit its {self.reciprocal.bits} bits"
        if self.index_bits >= self.total.bits:
            return (
                f"reciprocal_table's index has {self.index_bits} bits, expected fewer than the sum's {self.total.bits}"
            )
        if self.reciprocal_shift + self.exponential.bits < 0:
            return f"the fraction of its mixed values, {self.mixed.frac}, is too fine for its tables"
        return None

    @property
    def side(self) -> int:
        """R: rows and columns of positions."""
        return math.isqrt(self.positions)

    @property
    def keys(self) -> int:
        """K: keys and values."""
        return (self.side // self.pool) ** 2

    @property
    def index_bits(self) -> int:
        """T: log2 of the number of reciprocals."""
        return len(self.reciprocal_table).bit_length() - 1

    @property
    def difference_shift(self) -> int:
        """Right shift (left where negative) from a difference of scores to the exponential table's index."""
        return self.score.frac - self.difference.frac

    @property
    def reciprocal_shift(self) -> int:
        """The right shift of ``a * R`` less L = bit_length(S), which is at least ``exponential.bits``."""
        return self.reciprocal.bits - 1 + self.value.frac - self.mixed.frac

    @property
    def out_shift(self) -> int:
        """Left shift of out's sums to the result's fraction, at least 0."""
        return self.accumulator.frac - self.out.accumulator.frac

    @property
    def residual_shift(self) -> int:
        """Left shift of the input's codes to the result's fraction, at least 0."""
        return self.accumulator.frac - self.input.frac


@dataclass(frozen=True)
class NonLocalResult:
    """codes: (n, C, R, R) at ``accumulator``. saturations, overflows: counts by step. trace: every step's codes.

    trace: q, a, y (n, N, D); k, v (n, K, D), pooled; s, t, e (n, N, K), queries first; m, S, R (n, N); o (n, N, C),
    out's unshifted sums. Saturations of k and v are counted before the pooling; those of t are part of the exponential
    (its last entry is 0) and are counted with the others.
    """

    codes: Codes
    saturations: Mapping[str, int]
    overflows: Mapping[str, int]
    trace: Mapping[str, Codes]


def size_block(
    name: str,
    positions: int,
    source: tuple[Format, int, int],
    parts: Mapping[str, Linear],
    formats: Mapping[str, Format],
    tables: tuple[Codes, Codes],
    pool: int = 1,
) -> NonLocal:
    """A block whose accumulators are sized so that none can overflow.

    source: format, lowest and highest code of the input; parts: theta, phi, g, out, of whose accumulators only the frac
    counts; formats: query, key, value, difference, exponential, reciprocal, mixed; tables: exponential, reciprocal;
    pool: side of the windows of keys and values, a divisor of the rows of positions.
    """
    query, key, value, exponential = (formats[role] for role in ("query", "key", "value", "exponential"))
    products = [one * two for one in (query.low, query.high) for two in (key.low, key.high)]
    inner, most = len(parts["theta"].weight), positions // pool**2 * exponential.high
    x, low, high = source
    frac = max(parts["out"].accumulator.frac, x.frac)
    block = NonLocal(
        name=name,
        kind="nonlocal",
        positions=positions,
        input=x,
        theta=parts["theta"],
        phi=parts["phi"],
        g=parts["g"],
        query=query,
        key=key,
        value=value,
        score=Format.holding(inner * min(products), inner * max(products), query.frac + key.frac),
        difference=formats["difference"],
        exponential=exponential,
        total=Format.holding(0, most, exponential.frac),
        weighted=Format.holding(most * value.low, most * value.high, exponential.frac + value.frac),
        reciprocal=formats["reciprocal"],
        mixed=formats["mixed"],
        out=parts["out"],
        accumulator=Format(1, frac, signed=True),
        exp_table=tables[0],
        reciprocal_table=tables[1],
        pool=pool,
    )
    return resized_block(block, low, high)


def resized_block(block: NonLocal, low: int, high: int) -> NonLocal:
    """The block with the accumulators of its convolutions and its result sized for inputs in ``[low, high]``.

    Interval arithmetic: none can overflow. The sums inside (score, total, weighted) follow from the formats alone.
    """
    return replace(
        block,
        theta=_sized(block.theta, low, high),
        phi=_sized(block.phi, low, high),
        g=_sized(block.g, low, high),
        out=_sized(block.out, block.mixed.low, block.mixed.high),
        accumulator=Format.holding(*block_bounds(block, low, high), block.accumulator.frac),
    )


def block_bounds(layer: NonLocal, low: int, high: int) -> tuple[int, int]:
    """Bounds of the result's codes over all inputs with codes in ``[low, high]``, widened to include 0."""
    z_low, z_high = linear_bounds(*_flat(layer.out), layer.mixed.low, layer.mixed.high)
    return (
        (z_low << layer.out_shift) + (min(low, 0) << layer.residual_shift),
        (z_high << layer.out_shift) + (max(high, 0) << layer.residual_shift),
    )


def nonlocal_codes(layer: NonLocal, x: NDArray[np.integer]) -> NonLocalResult:
    """Execute the block exactly on codes (n, C, R, R) of format ``layer.input``; the module's text has the steps."""
    codes = np.asarray(x, dtype=np.int64)
    channels = layer.theta.weight.shape[1]
    if codes.ndim != 4 or codes.shape[1] != channels or codes.shape[2] * codes.shape[3] != layer.positions:
        raise UserError(
            f"layer {layer.name}: codes of shape {codes.shape}, expected (n, {channels}, rows, cols) with "
            f"{layer.positions} positions"
        )
    pixels = codes.reshape(len(codes), channels, layer.positions).transpose(0, 2, 1)  # n, N, C
    saturations, overflows, trace = {}, {}, {}
    for step, part, to in (
        ("q", layer.theta, layer.query),
        ("k", layer.phi, layer.key),
        ("v", layer.g, layer.value),
    ):
        sums = _pointwise(part, pixels)
        overflows[part.name] = _beyond(sums, part.accumulator)
        trace[step], saturations[step] = requantize(sums, part.accumulator.frac, to)
    trace["k"], trace["v"] = (_pooled(layer, trace[step]) for step in ("k", "v"))
    trace["s"] = _matmul(trace["q"], trace["k"].transpose(0, 2, 1), layer.score)
    trace["m"] = trace["s"].max(axis=2)
    difference = trace["m"][:, :, None] - trace["s"]
    trace["t"], saturations["t"] = requantize(difference, layer.score.frac, layer.difference)
    trace["e"] = layer.exp_table[trace["t"]]
    trace["S"] = trace["e"].sum(axis=2)
    trace["a"] = _matmul(trace["e"], trace["v"], layer.weighted)
    trace["R"], length = reciprocals(layer, trace["S"])
    product = trace["a"] * trace["R"][:, :, None]
    rounded = np.right_shift(product, (layer.reciprocal_shift + length)[:, :, None])
    trace["y"] = np.clip(rounded, layer.mixed.low, layer.mixed.high)
    saturations["y"] = int(np.count_nonzero(trace["y"] != rounded))
    trace["o"] = _pointwise(layer.out, trace["y"])
    z = (trace["o"] << layer.out_shift) + (pixels << layer.residual_shift)
    for step, values, to in (
        ("s", trace["s"], layer.score),
        ("S", trace["S"], layer.total),
        ("a", trace["a"], layer.weighted),
        (layer.out.name, trace["o"], layer.out.accumulator),
        ("z", z, layer.accumulator),
    ):
        overflows[step] = _beyond(values, to)
    return NonLocalResult(
        np.ascontiguousarray(z.transpose(0, 2, 1)).reshape(codes.shape), saturations, overflows, trace
    )


def reciprocals(layer: NonLocal, total: NDArray[np.integer]) -> tuple[Codes, Codes]:
    """Table entries R and bit lengths L of sums S of at least 1: ``1 / S`` is about ``R * 2**-(M + L - 1)``."""
    index, length = leading_bits(np.asarray(total, dtype=np.int64), layer.index_bits)
    return layer.reciprocal_table[index], length


def _pooled(layer: NonLocal, codes: Codes) -> Codes:
    """Maxima over the windows, channel by channel: (n, N, D) to (n, K, D)."""
    count = layer.side // layer.pool
    windows = codes.reshape(len(codes), count, layer.pool, count, layer.pool, codes.shape[2])
    return windows.max(axis=(2, 4)).reshape(len(codes), layer.keys, codes.shape[2])


def _flat(part: Linear) -> tuple[Codes, Codes]:
    return part.weight.reshape(len(part.weight), -1), part.bias


def _sized(part: Linear, low: int, high: int) -> Linear:
    bounds = linear_bounds(*_flat(part), low, high)
    return replace(part, accumulator=Format.holding(*bounds, part.accumulator.frac))


def _pointwise(part: Linear, x: Codes) -> Codes:
    """Exact sums of a 1 x 1 convolution: (n, N, in) to (n, N, out)."""
    weight, bias = _flat(part)
    return _matmul(x, weight.T, part.accumulator) + bias


def _matmul(one: Codes, two: Codes, bounds: Format) -> Codes:
    """Exact products of integer matrices whose partial sums stay within ``bounds``: BLAS, in a type that holds them.

    A bias that is inside the bounds can be left out: the bounds are widened to include 0.
    """
    if bounds.bits > 53:
        raise UserError(f"sums of {bounds.bits} bits need more than 53; use narrower weights or activations")
    dtype = np.float32 if max(-bounds.low, bounds.high) <= _FLOAT32_LIMIT else np.float64
    product: Codes = (one.astype(dtype) @ two.astype(dtype)).astype(np.int64)
    return product


def _beyond(values: Codes, to: Format) -> int:
    return int(np.count_nonzero((values < to.low) | (values > to.high)))

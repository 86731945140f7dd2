"""The non-local block in integers: against plain loops, its bounds, its tables against the real functions, its file."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Format, requantize
from quant.contract.attention import (
    NonLocal,
    block_bounds,
    difference_frac,
    exp_table,
    nonlocal_codes,
    reciprocal_table,
    reciprocals,
    size_block,
)
from quant.contract.emulate import activate, run
from quant.contract.layers import Leaky, Linear, Requantize
from quant.contract.network import IntegerNetwork, as_document, from_document

SIDE = 3


def block(
    bits: int = 8,
    channels: int = 4,
    seed: int = 0,
    side: int = SIDE,
    index_bits: int = 6,
    inner: int = 2,
    pool: int = 1,
) -> NonLocal:
    """A block of random weights, with fracs under which queries, sums of values and results use their range."""
    rng = np.random.default_rng(seed)
    top = 1 << (bits - 1)
    x = Format(bits, bits - 1, signed=True)

    def part(name: str, outputs: int, inputs: int) -> Linear:
        weight = rng.integers(-top, top, (outputs, inputs, 1, 1))
        accumulator = Format(1, x.frac + bits - 2, signed=True)
        return Linear(name, "conv2d", weight, Format(bits, bits - 2, True), rng.integers(-99, 99, outputs), accumulator)

    exponential = Format(bits, bits, signed=False)
    formats = {role: Format(bits, bits - 2, signed=True) for role in ("query", "key", "value", "mixed")}
    formats["difference"] = Format(bits, difference_frac(bits, exponential), signed=False)
    formats |= {"exponential": exponential, "reciprocal": Format(bits + 4, bits + 4, signed=False)}
    tables = exp_table(formats["difference"], exponential), reciprocal_table(index_bits, bits + 4)
    parts = {role: part(role, inner, channels) for role in ("theta", "phi", "g")} | {
        "out": part("out", channels, inner)
    }
    return size_block("nlb", side * side, (x, x.low, x.high), parts, formats, tables, pool)


def inputs(layer: NonLocal, count: int, seed: int = 1) -> np.ndarray:
    """Codes (n, C, R, R): random ones, and constants and stripes at both ends of the format."""
    side, channels = round(layer.positions**0.5), layer.theta.weight.shape[1]
    x = np.random.default_rng(seed).integers(layer.input.low, layer.input.high + 1, (count, channels, side, side))
    x[0], x[1], x[2] = layer.input.low, layer.input.high, 0
    x[3, :, ::2], x[3, :, 1::2] = layer.input.low, layer.input.high
    return x


def plain(layer: NonLocal, x: np.ndarray) -> dict[str, list]:
    """One patch (C, R, R) by loops over Python integers, written from the numbered steps."""
    pixels = x.reshape(len(x), -1).T.tolist()
    n = len(pixels)

    def sat(value: int, to: Format) -> int:
        return max(to.low, min(to.high, value))

    def sums(part: Linear, vector: list[int]) -> list[int]:
        rows = zip(part.weight[:, :, 0, 0].tolist(), part.bias.tolist(), strict=True)
        return [sum(w * v for w, v in zip(row, vector, strict=True)) + b for row, b in rows]

    def projected(part: Linear, to: Format) -> list[list[int]]:
        shift = part.accumulator.frac - to.frac
        assert shift >= 0
        return [[sat(value // 2**shift, to) for value in sums(part, pixel)] for pixel in pixels]

    def maxima(rows: list[list[int]]) -> list[list[int]]:
        """Of every window, channel by channel, windows in row-major order."""
        side, pool = round(n**0.5), layer.pool
        corners = [(r, c) for r in range(0, side, pool) for c in range(0, side, pool)]
        windows = [[(r + i) * side + c + j for i in range(pool) for j in range(pool)] for r, c in corners]
        return [[max(rows[i][d] for i in window) for d in range(len(rows[0]))] for window in windows]

    q, k = projected(layer.theta, layer.query), maxima(projected(layer.phi, layer.key))
    v = maxima(projected(layer.g, layer.value))
    y, z, weights = [], [], []
    for i in range(n):
        s = [sum(a * b for a, b in zip(q[i], key, strict=True)) for key in k]
        t = [int((max(s) - value) * 2.0 ** (layer.difference.frac - layer.score.frac)) for value in s]
        e = [int(layer.exp_table[min(index, layer.difference.high)]) for index in t]
        total = sum(e)
        tail = bin(total)[3:] + "0" * layer.index_bits  # the bits below the leading one
        r = int(layer.reciprocal_table[int(tail[: layer.index_bits], 2)])
        a = [sum(e[j] * v[j][c] for j in range(len(v))) for c in range(len(v[0]))]
        exponent = layer.reciprocal.bits + total.bit_length() - 1 + layer.value.frac - layer.mixed.frac
        y.append([sat(value * r // 2**exponent, layer.mixed) for value in a])
        lift_o = 2 ** (layer.accumulator.frac - layer.out.accumulator.frac)
        lift_x = 2 ** (layer.accumulator.frac - layer.input.frac)
        z.append([o * lift_o + x_ * lift_x for o, x_ in zip(sums(layer.out, y[-1]), pixels[i], strict=True)])
        weights.append(e)
    return {"q": q, "k": k, "v": v, "e": weights, "y": y, "z": z}


@pytest.mark.parametrize(
    ("bits", "side", "inner", "pool"), [(8, 3, 2, 1), (6, 3, 3, 1), (4, 3, 1, 1), (8, 6, 3, 2), (6, 6, 2, 3)]
)
def test_block_equals_plain_loops(bits: int, side: int, inner: int, pool: int) -> None:
    layer = block(bits, seed=bits, side=side, inner=inner, pool=pool)
    assert layer.keys == (side // pool) ** 2
    x = inputs(layer, 12)
    found = nonlocal_codes(layer, x)
    for index, patch in enumerate(x):
        expected = plain(layer, patch)
        for step in ("q", "k", "v", "e", "y"):
            assert found.trace[step][index].tolist() == expected[step], step
        z = np.array(expected["z"]).T.reshape(patch.shape)
        assert (found.codes[index] == z).all()
    assert not any(found.overflows.values())
    assert found.saturations["q"] > 0
    assert len(np.unique(found.trace["e"])) > 4  # neither uniform nor one key alone


def test_saturations_and_overflows_are_counted_by_step() -> None:
    layer = block()
    x = inputs(layer, 12)
    right = nonlocal_codes(layer, x)
    score, value = replace(layer.score, bits=layer.score.bits - 4), replace(layer.value, bits=3)
    wrong = nonlocal_codes(replace(layer, score=score, value=value), x)
    s = right.trace["s"]
    assert wrong.overflows["s"] == np.count_nonzero((s < score.low) | (s > score.high)) > 0
    v = (x.reshape(12, 4, -1).transpose(0, 2, 1) @ layer.g.weight[:, :, 0, 0].T + layer.g.bias) >> (
        layer.g.accumulator.frac - value.frac
    )
    assert wrong.saturations["v"] == np.count_nonzero((v < -4) | (v > 3)) > 0


def test_bounds_hold_and_are_attained_where_the_parts_allow_it() -> None:
    for seed in range(4):
        layer = block(4, seed=seed)
        x = inputs(layer, 300, seed)
        found = nonlocal_codes(layer, x)
        low, high = block_bounds(layer, layer.input.low, layer.input.high)
        assert low <= found.codes.min()
        assert found.codes.max() <= high
        assert layer.accumulator == Format.holding(low, high, layer.accumulator.frac)
    # One position attends to itself alone: y = v up to the reciprocal; out of weight 0 leaves the shifted residual.
    silent = block(8, side=1)
    out = replace(silent.out, weight=silent.out.weight * 0, bias=silent.out.bias * 0)
    silent = replace(silent, out=out)
    x = inputs(silent, 8)
    assert (nonlocal_codes(silent, x).codes == x << silent.residual_shift).all()
    assert block_bounds(silent, -128, 127) == (-128 << silent.residual_shift, 127 << silent.residual_shift)


@pytest.mark.parametrize("bits", [4, 6, 8, 10])
def test_exponential_table_against_the_real_function(bits: int) -> None:
    """Over all differences d >= 0: e(floor(d)) is within one step and half a code of exp(-d)."""
    exponential = Format(bits, bits, signed=False)
    frac = difference_frac(bits, exponential)
    table = exp_table(Format(bits, frac, signed=False), exponential)
    reach = 2.0 ** (bits - frac)
    d = np.linspace(0, 2 * reach, 200_001)
    index = np.minimum(np.floor(np.ldexp(d, frac)), (1 << bits) - 1).astype(int)
    error = table[index] / exponential.high - np.exp(-d)
    # exp falls by at most 1 - exp(-step) over a step; the table is rounded to half a code; its last entry, 0,
    # stands for at most half a code.
    assert error.max() <= 1 - np.exp(-(2.0**-frac)) + 0.5 / exponential.high
    assert error.min() >= -0.5 / exponential.high - 1e-12
    worst, mean = {4: (0.221, 0.0230), 6: (0.117, 0.00498), 8: (0.0307, 0.00129), 10: (0.00798, 0.000339)}[bits]
    assert error.max() == pytest.approx(worst, rel=0.02)
    assert np.abs(error).mean() == pytest.approx(mean, rel=0.02)
    assert exponential.high * np.exp(-((1 << bits) - 1) * 2.0**-frac) <= 0.5


@pytest.mark.parametrize(("index_bits", "bits"), [(4, 8), (6, 10), (8, 12)])
def test_reciprocal_table_against_the_real_function(index_bits: int, bits: int) -> None:
    """Every sum that 81 keys of 8 bits can have: the relative error stays below its proven bound."""
    layer = block(8, side=9)
    layer = replace(
        layer,
        reciprocal=Format(bits, bits, signed=False),
        reciprocal_table=reciprocal_table(index_bits, bits),
    )
    sums = np.arange(255, 81 * 255 + 1)
    entries, length = reciprocals(layer, sums)
    assert [int(s).bit_length() for s in sums] == length.tolist()
    relative = entries * sums * 2.0 ** -(bits - 1.0 + length) - 1
    assert np.abs(relative).max() < 2.0 ** -(index_bits + 1) + 2.0**-bits
    worst, mean = {4: (0.0313, 0.0113), 6: (0.0079, 0.0028), 8: (0.0021, 0.0007)}[index_bits]
    assert np.abs(relative).max() == pytest.approx(worst, rel=0.1)
    assert np.abs(relative).mean() == pytest.approx(mean, rel=0.1)


def test_division_stays_within_its_proven_error() -> None:
    layer = block(8, seed=3, side=5)
    trace = nonlocal_codes(layer, inputs(layer, 50)).trace
    exact = trace["a"] / trace["S"][:, :, None] * 2.0 ** (layer.mixed.frac - layer.value.frac)
    slack = np.abs(exact) * (2.0 ** -(layer.index_bits + 1) + 2.0**-layer.reciprocal.bits)
    inside = (trace["y"] > layer.mixed.low) & (trace["y"] < layer.mixed.high)
    error = (trace["y"] - exact)[inside]
    assert inside.mean() > 0.5
    assert (error <= slack[inside]).all()
    assert (error > -1 - slack[inside]).all()


def test_pooling_before_the_floor_gives_the_same_codes() -> None:
    """floor and clipping change no order: the code of a window's largest sum is the largest of its codes."""
    layer = block(6, side=6, pool=2)
    x = inputs(layer, 40)
    sums = np.tensordot(layer.phi.weight[:, :, 0, 0], x, (1, 1)).swapaxes(0, 1) + layer.phi.bias[:, None, None]
    largest = sums.reshape(40, 2, 3, 2, 3, 2).max(axis=(3, 5)).reshape(40, 2, 9).transpose(0, 2, 1)
    codes, saturated = requantize(largest, layer.phi.accumulator.frac, layer.key)
    assert saturated > 0
    assert (nonlocal_codes(layer, x).trace["k"] == codes).all()


@pytest.mark.parametrize("pool", [1, 3])
def test_document_holds_the_block(pool: int) -> None:
    layer = block(pool=pool)
    head = Linear(
        "c", "conv2d", np.ones((4, 1, 3, 3), np.int64), Format(2, 0, True), np.zeros(4, np.int64), Format(12, 7, True)
    )
    leaky = Leaky("r", "leaky", Format(8, 5, signed=True), slope_code=164, slope_frac=14)
    network = IntegerNetwork(5, Format(8, 7, False), (head, Requantize("i", "identity", layer.input), layer, leaky))
    text = json.dumps(as_document(network))
    again = from_document(json.loads(text))
    assert json.dumps(as_document(again)) == text
    assert again.layers[3] == leaky
    if pool == 1:  # files of before there was pooling
        assert text.count(', "pool": 1') == 1
        again = from_document(json.loads(text.replace(', "pool": 1', "")))
    codes = np.random.default_rng(0).integers(0, 256, (5, 5, 5))
    one, two = run(network, codes, trace=True), run(again, codes, trace=True)
    assert all((a == b).all() for a, b in zip(one.trace, two.trace, strict=True))
    assert one.layers == two.layers
    found = nonlocal_codes(layer, one.trace[1])
    assert (found.codes == one.trace[2]).all()
    assert one.layers[2].saturations == sum(found.saturations.values()) > 0


DAMAGE: list[tuple[str, Callable[[NonLocal], dict]]] = [
    ("exp_table has 255 entries, expected 256", lambda b: {"exp_table": b.exp_table[1:]}),
    ("exp_table must begin with 255, end with 0", lambda b: {"exp_table": b.exp_table[::-1]}),
    ("exp_table holds 256", lambda b: {"exp_table": np.r_[255, 256, b.exp_table[2:]]}),
    ("reciprocal_table has 63 entries", lambda b: {"reciprocal_table": b.reciprocal_table[1:]}),
    ("reciprocal_table does not fit its 12 bits", lambda b: {"reciprocal_table": b.reciprocal_table * 2}),
    ("index has 6 bits, expected fewer than the sum's 6", lambda b: {"total": replace(b.total, bits=6)}),
    ("windows of side 2 do not tile its 9 positions", lambda b: {"pool": 2}),
    ("windows of side 0 do not tile its 9 positions", lambda b: {"pool": 0}),
    ("mixed values, 40, is too fine", lambda b: {"mixed": replace(b.mixed, frac=40)}),
]


@pytest.mark.parametrize(("message", "damage"), DAMAGE, ids=[m for m, _ in DAMAGE])
def test_damaged_blocks_are_refused(message: str, damage: Callable[[NonLocal], dict]) -> None:
    layer = block()
    with pytest.raises(UserError, match=f"layer nlb: .*{message}"):
        replace(layer, **damage(layer))


def test_codes_of_another_shape_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"codes of shape \(2, 4, 4, 4\), expected \(n, 4, rows, cols\) with 9 positions"
    ):
        nonlocal_codes(block(), np.zeros((2, 4, 4, 4), np.int64))


def test_leaky_multiplies_below_zero_with_one_floor() -> None:
    codes = np.array([-5000, -1281, -1280, -129, -128, -1, 0, 1, 7, 8, 9, 5000])
    power = Leaky("r", "leaky", Format(8, 5, signed=True), slope_code=1, slope_frac=7)
    found, saturated = activate(power, codes, 8)
    assert found.tolist() == [-5, -2, -2, -1, -1, -1, 0, 0, 0, 1, 1, 127]
    assert saturated == 1
    exact = Leaky("r", "leaky", Format(8, 5, signed=True), slope_code=164, slope_frac=14)
    assert activate(exact, codes, 8)[0].tolist() == [
        *(int(c) * 164 // 2**17 for c in codes[:6]), 0, 0, 0, 1, 1, 127,
    ]  # fmt: skip

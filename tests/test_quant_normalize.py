"""The integer normalizer: its table, its proof, its properties and its refusals."""

from fractions import Fraction

import numpy as np
import pytest
from builders import min_max_by_steps

from braggnn_edge.core.errors import UserError
from quant.contract.normalize import Normalizer


@pytest.fixture
def patches() -> np.ndarray:
    """Random, negative, fractional, constant, one-hot, saturating and huge patches, 5 x 5."""
    rng = np.random.default_rng(3)
    scale = 2.0 ** rng.uniform(0, 17, (300, 1, 1))
    mixed = rng.normal(0.2, 1, (300, 5, 5)) * scale
    mixed[::3] = np.round(mixed[::3])
    hot = np.zeros((25, 25))
    np.fill_diagonal(hot, rng.integers(1, 130_000, 25))
    special = [
        np.zeros((5, 5)),
        np.full((5, 5), 7.5),
        np.full((5, 5), -3e9),
        np.eye(5) * 1e12,
        np.eye(5) * -1e12,
    ]
    return np.concatenate([mixed, hot.reshape(25, 5, 5), np.stack(special)])


@pytest.mark.parametrize("n", [Normalizer(), Normalizer(6, 16, 5), Normalizer(10, 24, 11), Normalizer(4, 8, 7)])
def test_codes_equal_the_documented_steps(n: Normalizer, patches: np.ndarray) -> None:
    expected = [min_max_by_steps(n, p) for p in patches]
    assert n.codes(patches).reshape(len(patches), -1).tolist() == expected


@pytest.mark.parametrize("n", [Normalizer(), Normalizer(8, 18, 6), Normalizer(5, 12, 9)])
def test_exhaustive_over_buckets_code_is_in_range_and_never_above_the_real_value(n: Normalizer) -> None:
    size = 1 << n.table_bits
    assert n.table.max() < 1 << n.mantissa_bits
    assert (n.table > 0).all()
    w, spare = n.count_bits, n.count_bits - 1 - n.table_bits
    rng = np.random.default_rng(0)
    index = np.arange(size)
    # Every bucket's lowest and highest range, and one inside; the largest differences and random ones.
    bottom = (size + index) << spare
    ranges = np.stack([bottom, bottom + (1 << spare) - 1, bottom + rng.integers(0, 1 << spare, size)]).ravel()
    difference = np.concatenate(
        [ranges[:, None] - np.arange(3), rng.integers(0, ranges[:, None] + 1, (len(ranges), 20))], axis=1
    )
    t = difference >> (w - n.mantissa_bits)
    code = (t * np.tile(n.table, 3)[:, None]) >> n.shift
    assert int(code.max()) <= (1 << n.bits) - 1
    for d, r, c in zip(difference.ravel().tolist(), np.repeat(ranges, 23).tolist(), code.ravel().tolist(), strict=True):
        gap = Fraction(d << n.bits, r) - c
        assert 0 <= gap < Fraction(n.deviation)


def test_every_range_of_a_small_normalizer() -> None:
    """All (D, r) of a 9-bit normalizer: bounds hold, and over 80 % of the upper one is reached."""
    n = Normalizer(4, 9, 4)
    worst = Fraction(0)
    for r in range(1, 512):
        d = np.arange(r + 1)
        patch = np.concatenate([d, np.zeros(-len(d) % 4, int)]).reshape(1, -1, 4) - 256
        code = n.codes(patch).ravel()[: r + 1]
        assert code[0] == 0
        assert int(code.max()) <= 15
        assert (np.diff(code) >= 0).all()
        gaps = [Fraction(16 * int(x), r) - int(c) for x, c in zip(d, code, strict=True)]
        assert min(gaps) >= 0
        worst = max(worst, *gaps)
    assert 0.8 * n.deviation < worst < n.deviation


def test_brightest_pixel_of_the_default_is_at_most_one_below_full_scale() -> None:
    n = Normalizer()
    r = np.arange(1, 1 << 17)
    patch = np.zeros((len(r), 1, 2), np.int64)
    patch[:, 0, 1] = r
    top = n.codes(patch)[:, 0, 1]
    assert (int(top.min()), int(top.max())) == (254, 255)


def test_adding_a_whole_number_changes_no_code(patches: np.ndarray) -> None:
    # Counts of at most 2**13 in quarters: exact after the addition, and far from saturation.
    whole = np.round(np.clip(patches, -8192, 8192) * 4) / 4
    n = Normalizer()
    for shift in (-100_000, -1, 1, 3, 100_000):
        assert (n.codes(whole + shift) == n.codes(whole)).all()


def test_fractions_floor_and_dtypes_agree() -> None:
    n = Normalizer()
    values = np.array([[[0.0, 0.99], [-0.01, 7.5]]])
    assert (n.codes(values) == n.codes(np.array([[[0, 0], [-1, 7]]]))).all()
    counts = np.arange(9).reshape(1, 3, 3)
    found = [n.codes(counts.astype(t)).tolist() for t in ("uint8", "int16", "uint32", "float32", "uint64")]
    assert all(f == found[0] for f in found)


def test_saturations_are_counted() -> None:
    n = Normalizer(count_bits=16)
    counts, saturated = n.counts(np.array([[[40_000.0, -40_000.0], [32_767.9, -32_768.0]]]))
    assert counts.ravel().tolist() == [32_767, -32_768, 32_767, -32_768]
    assert saturated == 2


def test_empty_batch() -> None:
    assert Normalizer().codes(np.zeros((0, 9, 9))).shape == (0, 9, 9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused_naming_the_patch(value: float) -> None:
    patches = np.zeros((4, 3, 3), np.float32)
    patches[2, 1, 1] = value
    with pytest.raises(UserError, match="patch 2 holds NaN or infinity"):
        Normalizer().codes(patches)


@pytest.mark.parametrize("patches", [np.zeros((3, 3)), np.zeros((1, 3, 3), complex), np.zeros((1, 3, 3), bool)])
def test_other_arrays_are_refused(patches: np.ndarray) -> None:
    with pytest.raises(UserError, match="expected numbers"):
        Normalizer().codes(patches)


@pytest.mark.parametrize("widths", [(1, 18, 8), (17, 32, 8), (8, 11, 8), (8, 33, 8), (8, 18, 0), (4, 10, 12)])
def test_widths_out_of_range_are_refused(widths: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="out of range"):
        Normalizer(*widths)


def test_document_round_trip_and_refusal() -> None:
    n = Normalizer(7, 20, 6)
    document = n.document()
    assert Normalizer.from_document(document) == n
    document["table"][5] += 1
    with pytest.raises(UserError, match="table"):
        Normalizer.from_document(document)
    del document["bits"]
    with pytest.raises(UserError, match="not readable"):
        Normalizer.from_document(document)

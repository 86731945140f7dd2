"""Properties of the integer contract, for generated inputs: Python's integers and fractions are the reference."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from builders import block_shift_by_steps, min_max_by_steps
from hypothesis import given
from hypothesis import strategies as st

from quant.contract import locator as locators
from quant.contract.arithmetic import (
    ROUNDINGS,
    Codes,
    Format,
    exact_codes,
    linear_bounds,
    quantize,
    requantize,
    shift_round,
)
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.locator import IntegerLocator
from quant.contract.normalize import Normalizer

FORMATS = st.builds(Format, st.integers(1, 24), st.integers(-8, 24), st.booleans())
WIDE = st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=8)


def rounded(value: Fraction, rounding: str) -> int:
    return math.floor(value + Fraction(1, 2) if rounding == "half_up" else value)


@given(st.integers(1, 62), st.integers(-8, 24), st.booleans())
def test_a_format_has_as_many_codes_as_its_bits_say(bits: int, frac: int, signed: bool) -> None:
    made = Format(bits, frac, signed)
    assert made.high - made.low + 1 == 2**bits
    assert made.low == (-(made.high + 1) if signed else 0)


@given(st.integers(1, 53), st.integers(-40, 40), st.booleans(), st.data())
def test_codes_survive_as_values(bits: int, frac: int, signed: bool, data: st.DataObject) -> None:
    """float64 holds 53 bits."""
    made = Format(bits, frac, signed)
    ends = [made.low, made.high]
    codes = np.array(data.draw(st.lists(st.integers(*ends), max_size=6)) + ends)
    values = made.values(codes)
    assert [Fraction(v) for v in values.tolist()] == [c / Fraction(2) ** frac for c in codes.tolist()]
    assert np.array_equal(exact_codes(values, frac, "codes"), codes)
    found, saturated = quantize(values, made)
    assert np.array_equal(found, codes)
    assert saturated == 0


#: Integers beside a power of two, of both signs.
CORNERS = st.builds(
    lambda bit, sign, more: sign * 2**bit + more, st.integers(0, 60), st.sampled_from((-1, 1)), st.integers(-1, 1)
)


@given(CORNERS, CORNERS, st.integers(-8, 24))
def test_holding_is_the_narrowest_format(one: int, other: int, frac: int) -> None:
    low, high = min(one, other), max(one, other)
    made = Format.holding(low, high, frac)
    assert made.low <= low <= high <= made.high
    assert made.frac == frac
    for signed in (False, True):
        if made.bits > 1:
            less = Format(made.bits - 1, frac, signed)
            assert not less.low <= low <= high <= less.high


@given(st.lists(st.integers(-(2**36), 2**36), min_size=1, max_size=8), FORMATS, st.sampled_from(ROUNDINGS))
def test_quantize_equals_fractions(parts: list[int], to: Format, rounding: str) -> None:
    values = [part / 4096 for part in parts]  # at most 48 bits after scaling: float64 adds 1/2 to them exactly
    exact = [rounded(Fraction(v) * Fraction(2) ** to.frac, rounding) for v in values]
    found, saturated = quantize(np.array(values), to, rounding)
    assert found.tolist() == [min(max(e, to.low), to.high) for e in exact]
    assert saturated == sum(not to.low <= e <= to.high for e in exact)


@given(WIDE, st.integers(-20, 50), st.sampled_from(ROUNDINGS))
def test_shift_round_equals_fractions(codes: list[int], shift: int, rounding: str) -> None:
    expected = [rounded(c / Fraction(2) ** shift, rounding) for c in codes]
    assert shift_round(np.array(codes), shift, rounding).tolist() == expected


@given(WIDE, st.integers(-8, 24), FORMATS, st.sampled_from(ROUNDINGS))
def test_requantize_equals_fractions_is_monotone_and_idempotent(
    codes: list[int], frac: int, to: Format, rounding: str
) -> None:
    codes = sorted(code >> max(0, to.frac - frac) for code in codes)  # so that int64 holds what is shifted left
    exact = [rounded(c * Fraction(2) ** (to.frac - frac), rounding) for c in codes]
    found, saturated = requantize(np.array(codes), frac, to, rounding)
    assert found.tolist() == [min(max(e, to.low), to.high) for e in exact]
    assert saturated == sum(not to.low <= e <= to.high for e in exact)
    assert (np.diff(found) >= 0).all()
    again, more = requantize(found, to.frac, to, rounding)
    assert np.array_equal(again, found)
    assert more == 0


@given(FORMATS, st.integers(0, 12), st.sampled_from(ROUNDINGS))
def test_saturation_begins_exactly_beyond_the_ends(to: Format, shift: int, rounding: str) -> None:
    """The last input on each side that keeps its code, and the first that saturates."""
    half = (1 << shift) // 2 if rounding == "half_up" else 0
    below, above = (to.low << shift) - half, ((to.high + 1) << shift) - half
    for code, expected, saturated in (
        (below, to.low, 0),
        (below - 1, to.low, 1),
        (above - 1, to.high, 0),
        (above, to.high, 1),
    ):
        found, count = requantize(np.array([code]), to.frac + shift, to, rounding)
        assert (int(found[0]), count) == (expected, saturated)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(-9, 9), min_size=3, max_size=3), st.integers(-40, 40)), min_size=1, max_size=3
    ),
    st.integers(-20, 20),
    st.integers(0, 20),
)
def test_linear_bounds_are_those_of_all_partial_sums(layer: list[tuple[list[int], int]], low: int, width: int) -> None:
    """A partial sum in any order is the sum of some of the terms, bias among them; both bounds are reached."""
    ends = (low, low + width)
    sums = [0]
    for weights, bias in layer:
        for inputs in itertools.product(ends, repeat=len(weights)):
            terms = [w * x for w, x in zip(weights, inputs, strict=True)] + [bias]
            sums += [sum(itertools.compress(terms, chosen)) for chosen in itertools.product((0, 1), repeat=len(terms))]
    weight, bias_codes = np.array([w for w, _ in layer]), np.array([b for _, b in layer])
    assert linear_bounds(weight, bias_codes, *ends) == (min(sums), max(sums))


@st.composite
def normalizers(draw: st.DrawFn) -> Normalizer:
    bits, table = draw(st.integers(2, 16)), draw(st.integers(1, 12))
    return Normalizer(bits, draw(st.integers(max(bits + 4, table + 1), 32)), table)


@st.composite
def block_shifts(draw: st.DrawFn) -> BlockShift:
    bits = draw(st.integers(2, 16))
    return BlockShift(bits, draw(st.integers(bits, 32)), draw(st.booleans()))


def patches_of(elements: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    """Patches (1, 3, 3)."""
    return st.lists(elements, min_size=9, max_size=9).map(lambda found: np.array(found).reshape(1, 3, 3))


#: Counts in quarters: of every magnitude, beyond what 32 bits hold, and small ones that make ties; on a pedestal.
QUARTERS = st.builds(
    lambda patch, pedestal: patch + pedestal,
    patches_of(st.integers(-(2**36), 2**36) | st.integers(-2000, 200_000)) | patches_of(st.integers(-8, 40)),
    st.integers(0, 400),
)


@given(normalizers(), QUARTERS)
def test_min_max_equals_its_steps_and_is_a_code(normalizer: Normalizer, quarters: np.ndarray) -> None:
    patch = quarters / 4
    found = normalizer.codes(patch)
    assert found.ravel().tolist() == min_max_by_steps(normalizer, patch)
    assert found.min() == 0
    assert found.max() < 2**normalizer.bits


@given(normalizers(), st.data())
def test_min_max_forgets_what_is_added_to_all(normalizer: Normalizer, data: st.DataObject) -> None:
    low, high = normalizer.count_range
    patch = data.draw(patches_of(st.integers(low, high)))
    added = data.draw(st.integers(low - int(patch.min()), high - int(patch.max())))
    assert np.array_equal(normalizer.codes(patch + added), normalizer.codes(patch))


@given(block_shifts(), QUARTERS)
def test_block_shift_equals_its_steps_and_is_a_code(normalizer: BlockShift, quarters: np.ndarray) -> None:
    patch = quarters / 4
    found = normalizer.codes(patch)
    counts = normalizer.counts(patch)[0]
    assert found.ravel().tolist() == block_shift_by_steps(normalizer, patch)
    rest = counts - counts.min() if normalizer.subtract else counts
    assert found.min() >= 0
    assert (2 ** (normalizer.bits - 1) <= found.max() < 2**normalizer.bits) if rest.any() else not found.any()


@given(block_shifts(), st.data())
def test_block_shift_forgets_a_power_of_two(normalizer: BlockShift, data: st.DataObject) -> None:
    """As long as no count saturates; with ``subtract`` also what is added to all."""
    top = normalizer.count_range[1]
    patch = data.draw(patches_of(st.integers(0, data.draw(st.integers(0, top)))))
    codes = normalizer.codes(patch)
    doubled = patch.copy()
    while doubled.max() and 2 * doubled.max() <= top:
        doubled *= 2
        assert np.array_equal(normalizer.codes(doubled), codes)
    if normalizer.subtract:
        added = data.draw(st.integers(0, top - int(patch.max())))
        assert np.array_equal(normalizer.codes(patch + added), codes)


@given(block_shifts(), QUARTERS)
def test_exponents_are_the_bit_length_in_plain_integers(normalizer: BlockShift, quarters: np.ndarray) -> None:
    patch = quarters / 4
    counts = [min(max(math.floor(v), 0), 2**normalizer.count_bits - 1) for v in patch.ravel().tolist()]
    low = min(counts) if normalizer.subtract else 0
    length = (max(counts) - low).bit_length()
    half = 2 ** (normalizer.bits - 1)
    assert normalizer.exponents(patch).tolist() == [[half] * length + [0] * (normalizer.count_bits - length)]


@given(block_shifts(), st.data())
def test_doubling_moves_one_code_of_the_exponent_and_no_pixel(normalizer: BlockShift, data: st.DataObject) -> None:
    top = normalizer.count_range[1]
    most = data.draw(st.integers(1, top.bit_length() - 1))
    patch = data.draw(patches_of(st.integers(0, 2**most - 1)))
    changed = normalizer.exponents(2 * patch) - normalizer.exponents(patch)
    rest = patch - patch.min() if normalizer.subtract else patch
    length = int(rest.max()).bit_length()
    assert np.flatnonzero(changed).tolist() == ([length] if length else [])
    assert changed.sum() == (2 ** (normalizer.bits - 1) if length else 0)
    assert np.array_equal(normalizer.codes(2 * patch), normalizer.codes(patch))


@pytest.mark.parametrize(("bits", "count_bits"), [(b, w) for b in (2, 6, 8, 16) for w in range(b, 33)])
@pytest.mark.parametrize("subtract", [False, True])
def test_exponents_of_every_size(bits: int, count_bits: int, subtract: bool) -> None:
    """All zero, the ends of every bit length, saturated counts, and no patch at all."""
    normalizer = BlockShift(bits, count_bits, subtract)
    tops = (
        [0] + [value for e in range(1, count_bits + 1) for value in (2 ** (e - 1), 2**e - 1)] + [2**count_bits, 2**40]
    )
    patches = np.zeros((len(tops), 3, 3), np.int64)
    patches[:, 1, 2] = tops
    found = normalizer.exponents(patches)
    lengths = [min(top, 2**count_bits - 1).bit_length() for top in tops]
    half = 2 ** (bits - 1)
    assert found.tolist() == [[half * (k < length) for k in range(count_bits)] for length in lengths]
    assert normalizer.exponents(patches[:0]).shape == (0, count_bits)


@st.composite
def centroids(draw: st.DrawFn) -> Centroid:
    window, bits, power = draw(st.sampled_from((3, 5, 7))), draw(st.integers(2, 8)), draw(st.integers(1, 2))
    drop = draw(st.integers(0, power * bits - 1))
    index, reciprocal, numerator = draw(st.integers(1, 4)), draw(st.integers(2, 16)), draw(st.integers(4, 24))
    frac = draw(st.integers(0, reciprocal + numerator - (window // 2).bit_length() - 1))
    widths = {"index_bits": index, "reciprocal_bits": reciprocal, "numerator_bits": numerator, "frac": frac}
    return Centroid.of_power(window, bits, power, drop, **widths)


@given(centroids(), st.data())
def test_centroid_equals_its_steps_within_its_bound_of_the_quotient(base: Centroid, data: st.DataObject) -> None:
    side, h = base.window, base.window // 2
    pixels = data.draw(st.lists(st.integers(0, 2**base.bits - 1), min_size=side**2, max_size=side**2))
    weights = [base.weights[code] for code in pixels]
    total = sum(weights)
    found = base.codes(np.array(pixels).reshape(1, side, side))[0].tolist()
    for axis, result in enumerate(found):
        moment = sum(w * (divmod(place, side)[axis] - h) for place, w in enumerate(weights))
        if total == 0:
            assert result == 0
            continue
        d, t_bits, reach = (side**2 * max(base.weights)).bit_length(), base.index_bits, h.bit_length()
        zeros = d - total.bit_length()
        t = math.floor((moment << zeros) * Fraction(2) ** (base.numerator_bits - d - reach))
        index = ((total << zeros) >> (d - 1 - t_bits)) & (2**t_bits - 1)
        nearest = math.floor(
            2 ** (base.reciprocal_bits + t_bits) / (2**t_bits + index + Fraction(1, 2)) + Fraction(1, 2)
        )
        entry = min(nearest, 2**base.reciprocal_bits - 1)
        shift = base.reciprocal_bits + base.numerator_bits - reach - 1 - base.frac
        assert result == math.floor(Fraction(t * entry, 2**shift))
        exact = Fraction(moment, total) * 2**base.frac
        one = Fraction(1)
        relative = one / 2 ** (t_bits + 1) + one / 2**base.reciprocal_bits
        lowered = 1 + Fraction(2) ** (base.frac + reach + 1 - base.numerator_bits) * (1 + one / 2**base.reciprocal_bits)
        assert -lowered - relative * abs(exact) < result - exact <= relative * abs(exact)


@given(centroids(), st.data())
def test_centroid_of_the_transposed_patch_is_transposed(base: Centroid, data: st.DataObject) -> None:
    side = base.window
    pixels = data.draw(st.lists(st.integers(0, 2**base.bits - 1), min_size=side**2, max_size=side**2))
    codes = np.array(pixels).reshape(1, side, side)
    assert np.array_equal(base.codes(codes.transpose(0, 2, 1)), base.codes(codes)[:, ::-1])


@given(seed=st.integers(0, 99), output=st.integers(2, 12), data=st.data())
def test_a_locator_adds_the_centroid_and_saturates(
    random_circuit: Callable[..., IntegerLocator], seed: int, output: int, data: st.DataObject
) -> None:
    circuit = random_circuit(output=output, seed=seed)
    pixels = data.draw(st.lists(st.integers(0, circuit.network.input.high), min_size=9, max_size=9))
    made = circuit.network.output
    answer = data.draw(st.tuples(st.integers(made.low, made.high), st.integers(made.low, made.high)))
    codes = np.array(pixels).reshape(1, 3, 3)
    base = circuit.centroid.codes(codes)[0].tolist()
    expected = [min(max(a + b, -(2 ** (output - 1))), 2 ** (output - 1) - 1) for a, b in zip(answer, base, strict=True)]
    assert circuit.combined(codes, np.array([answer])).tolist() == [expected]


@given(
    window=st.sampled_from((3, 5)),
    normalizer=st.builds(BlockShift, st.integers(2, 6), st.integers(8, 16), st.booleans())
    | st.builds(Normalizer, st.integers(2, 6), st.integers(12, 20), st.integers(1, 6)),
    hidden=st.lists(st.integers(1, 4), max_size=2).map(tuple),
    channels=st.integers(0, 2),
    seed=st.integers(0, 99),
    knows=st.sampled_from(({}, {"sigma": True}, {"exponent": True}, {"exponent": True, "sigma": True})),
)
def test_a_locator_survives_its_file(
    random_circuit: Callable[..., IntegerLocator],
    detector_patches: Callable[..., Codes],
    tmp_path_factory: pytest.TempPathFactory,
    knows: dict[str, bool],
    **shape: object,
) -> None:
    if shape["channels"] or isinstance(shape["normalizer"], Normalizer):
        knows = {key: value for key, value in knows.items() if key != "exponent"}  # it has no place there
    circuit = random_circuit(centroid=shape["normalizer"].bits >= 3, **shape, **knows)
    folder = tmp_path_factory.mktemp("locator")
    locators.save(circuit, folder / "locator.json")
    found = locators.load(folder / "locator.json")
    locators.save(found, folder / "again.json")
    assert (folder / "again.json").read_bytes() == (folder / "locator.json").read_bytes()
    assert found.digest == circuit.digest
    patches = detector_patches(circuit, 12)
    assert np.array_equal(found.run(found.codes(patches)), circuit.run(circuit.codes(patches)))
    assert np.array_equal(found.locate(patches), circuit.locate(patches))

"""The front end's contract against a plain reading of it, pixel by pixel; its bounds, its streams, its bad input."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.significance import Significance
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.locator import IntegerLocator
from quant.front_end.correct import correct
from quant.front_end.pipeline import Pipeline, Shot
from quant.front_end.records import END_FLAGS, END_RECORD, PEAK_FLAGS, RECORD, EndFlag, RecordFlag, decode
from quant.front_end.rule import find
from quant.front_end.spec import FrontEnd
from quant.front_end.stream import Row, rows_of

WINDOW = 7


@pytest.fixture(scope="module")
def locator(random_circuit: Callable[..., IntegerLocator]) -> IntegerLocator:
    """With sigma; its output has fraction bits."""
    return random_circuit(WINDOW, BlockShift(4, 16), sigma=True)


@st.composite
def cases(draw: st.DrawFn) -> tuple[FrontEnd, np.ndarray]:
    """A front end and a frame for it: ties, plateaus, saturated and masked pixels, darks, thresholds of a pixel."""
    rows, cols = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = draw(st.sampled_from([8, 12, 16]))
    most = draw(st.sampled_from([1, 3, 9, 2**bits - 1]))
    frame = rng.integers(0, most + 1, (rows, cols)) * (rng.random((rows, cols)) < draw(st.floats(0.2, 1.0)))
    if draw(st.booleans()):  # many at the largest count
        frame = np.minimum(frame * 3, 2**bits - 1)
    shape, some = (rows, cols), st.booleans()
    level = draw(st.integers(0, most - 1))
    front = FrontEnd(
        rows, cols, bits, window=WINDOW, reach=3, min_area=draw(st.integers(1, 4)),
        threshold=rng.integers(0, level + 1, shape) if draw(some) else level,
        saturation=draw(st.integers(0, most)),
        gain_shift=draw(st.sampled_from([0, 0, 1, 3])),
        dark=rng.integers(0, max(most // 2, 1) + 1, shape) if draw(some) else None,
        mask=rng.random(shape) < 0.1 if draw(some) else None,
        sigma_limit=draw(st.sampled_from([2**15 - 1, 0, -5])),
        significance=Significance(draw(st.integers(0, 600)), draw(st.integers(0, 9))) if draw(some) else None,
    )  # fmt: skip
    return front, frame.astype(np.uint16)


def plain(front: FrontEnd, locator: IntegerLocator, frame: np.ndarray) -> list[tuple[int, ...]]:
    """The fields of a frame's records but the last two and the first, as the contract has them, pixel by pixel."""
    rows, cols = frame.shape
    bad = front.mask if front.mask is not None else np.zeros(frame.shape, bool)
    dark = front.dark if front.dark is not None else np.zeros(frame.shape, int)
    level = np.broadcast_to(front.threshold, frame.shape)
    count = {(r, c): max(int(frame[r, c]) - int(dark[r, c]), 0) >> front.gain_shift for r, c in np.ndindex(rows, cols)}
    count = {at: 0 if bad[at] else value for at, value in count.items()}
    full = front.saturation or 2**front.bits - 1
    above = {at: value for at, value in count.items() if not bad[at] and value > level[at]}

    def around(at: tuple[int, int], reach: int) -> list[tuple[int, int]]:
        steps = range(-reach, reach + 1)
        return [(at[0] + down, at[1] + right) for down, right in product(steps, steps)]

    def brightest(at: tuple[int, int], reach: int) -> bool:
        others = [(above[q], q) for q in around(at, reach) if q in above and q != at]
        return all(value < above[at] or (value == above[at] and q > at) for value, q in others)

    def area(at: tuple[int, int]) -> int:
        """Pixels within min_area - 1 steps, as hardware counts them."""
        near = {at}
        for _ in range(front.min_area - 1):
            near |= {q for p in near for q in around(p, 1) if q in above}
        return len(near)

    def stands_out(at: tuple[int, int]) -> bool:
        if front.significance is None:
            return True
        core = sum(count.get(q, 0) for q in around(at, 1))
        ring = sum(count.get(q, 0) for q in around(at, 3)) - sum(count.get(q, 0) for q in around(at, 2))
        excess = 8 * core - 3 * ring
        return excess > 0 and excess**2 > front.significance.slope * ring + front.significance.offset

    found = []
    for at in sorted(above):
        if not brightest(at, 3) or area(at) < front.min_area or not stands_out(at):
            continue
        r, c = at
        flags, half = 0, front.window // 2
        window = around(at, half)
        if not all(q in count for q in window):
            flags |= 1 | 16
        second = (q for q in around(at, 2) if q != at and q in above and brightest(q, 1) and 2 * above[q] >= above[at])
        flags |= 2 * any(second)
        flags |= 4 * any(q in count and not bad[q] and frame[q] >= full for q in around(at, 3))
        flags |= 8 * any(q in count and bad[q] for q in window)
        codes = [0, 0, 0, 0]
        if not flags & 1:
            patch = np.array([count[q] for q in window]).reshape(1, front.window, front.window)
            codes = locator.run(locator.inputs(patch))[0].tolist()
            flags |= 16 * (max(codes[2:]) > front.sigma_limit)
        frac = locator.output.frac
        total = sum(above.get(q, 0) for q in around(at, 3))
        found.append(((r << frac) + codes[0], (c << frac) + codes[1], *codes[2:], above[at], total, r, c, flags))
    return [*found, len(above)]  # type: ignore[list-item]


@settings(max_examples=200)
@given(cases())
def test_records_are_those_of_a_plain_reading(locator: IntegerLocator, case: tuple[FrontEnd, np.ndarray]) -> None:
    front, frame = case
    (records,) = Pipeline(front, locator).records([frame], first=7)
    *expected, above = plain(front, locator, frame)
    decoded = decode(records)
    assert [tuple(record)[1:-2] for record in decoded.peaks.tolist()] == expected
    assert (decoded.peaks["frame"] == 7).all()
    (end,) = decoded.ends
    assert (end["frame"], end["peaks"], end["rows"], end["cols"]) == (7, len(expected), *frame.shape)
    assert (end["above"], end["dropped"], end["flags"]) == (above, 0, 0)
    words = np.frombuffer(decoded.peaks.tobytes(), "<u4").tolist()
    assert end["checksum"] == sum(words) % 2**32


@given(cases())
def test_sparse_frames_and_batches_change_nothing(locator: IntegerLocator, case: tuple[FrontEnd, np.ndarray]) -> None:
    front, frame = case
    pipeline = Pipeline(front, locator)
    masked = frame if front.mask is None else np.where(front.mask, np.uint16(0), frame)
    (dense,) = pipeline.records([masked])
    first, second = pipeline.records([Shot(masked, stored=np.flatnonzero(masked)), masked[::-1]])
    assert np.array_equal(first, dense)
    assert np.array_equal(second, next(pipeline.records([masked[::-1]], first=1)))


# A plateau: its first pixel is the peak. A masked peak: the next brightest is. Dark above the count: nothing is left.
PLATEAU = np.full((9, 9), 5, np.uint16)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"threshold": 4}, [(0, 0)]),
        ({"threshold": 5}, []),  # not above its threshold, strictly
        ({"threshold": 4, "mask": np.eye(9, dtype=bool)}, [(0, 1)]),
        ({"dark": np.full((9, 9), 6)}, []),
        ({"threshold": 2, "gain_shift": 1}, []),
        ({"threshold": 1, "gain_shift": 1}, [(0, 0)]),
        ({"threshold": 2**16 - 1}, []),
    ],
)
def test_plateaus_masks_darks_and_thresholds(settings: dict, expected: list[tuple[int, int]]) -> None:
    front = FrontEnd(9, 9, **settings)
    found = find(front, correct(front, PLATEAU))
    # Within reach of the first pixel all others are later; beyond it, one is a peak where all of its own are later.
    assert list(zip(found.row.tolist(), found.col.tolist(), strict=True))[: len(expected)] == expected
    assert bool(expected) == bool(len(found.row))


@pytest.mark.parametrize(
    ("at", "counts", "expected"),
    [
        ((4, 6), 10, True),  # half of the peak's 20
        ((4, 6), 9, False),
        ((2, 2), 10, True),
        ((6, 5), 10, True),
        ((4, 7), 10, False),  # farther than 2 px
        ((4, 5), 15, False),  # a neighbour of the peak is no maximum
    ],
)
def test_a_second_maximum_is_near_and_half_as_bright(at: tuple[int, int], counts: int, expected: bool) -> None:
    frame = np.zeros((9, 9), np.uint8)
    frame[4, 4], frame[at] = 20, counts
    front = FrontEnd(9, 9, threshold=3, min_area=1)
    found = find(front, correct(front, frame))
    assert found.row.tolist() == [4]
    assert bool(found.flags[0] & RecordFlag.SECOND_MAXIMUM) == expected


def test_a_position_is_not_trusted_above_the_limit_of_either_axis(locator: IntegerLocator) -> None:
    frame = np.zeros((9, 11), np.uint16)
    frame[3:6, 4:8] = np.random.default_rng(2).integers(10, 900, (3, 4))

    def peaks(limit: int) -> np.ndarray:
        front = FrontEnd(9, 11, threshold=5, window=WINDOW, sigma_limit=limit)
        (records,) = Pipeline(front, locator).records([frame])
        return decode(records).peaks

    (peak,) = peaks(2**15 - 1)
    low, high = sorted((int(peak["ln_sigma_row"]), int(peak["ln_sigma_col"])))
    assert low < high
    for limit, expected in ((high, 0), (high - 1, RecordFlag.NOT_TRUSTED), (low - 1, RecordFlag.NOT_TRUSTED)):
        assert peaks(limit)["flags"] & RecordFlag.NOT_TRUSTED == expected


@pytest.mark.parametrize(("distance", "expected"), [(3, True), (4, False)])
def test_saturated_and_bad_pixels_count_within_reach_and_window(distance: int, expected: bool) -> None:
    frame, mask = np.zeros((13, 13), np.uint8), np.zeros((13, 13), bool)
    frame[6, 6], frame[6 + distance, 6] = 20, 200
    mask[6, 6 + distance] = True
    level = np.full((13, 13), 3)
    level[6 + distance, 6] = 255  # saturated, and not above its own threshold
    front = FrontEnd(13, 13, threshold=level, min_area=1, window=WINDOW, saturation=200, mask=mask)
    found = find(front, correct(front, frame))
    flags = RecordFlag(int(found.flags[0]))
    assert found.total.tolist() == [20]
    assert (RecordFlag.SATURATED in flags, RecordFlag.BAD_PIXEL in flags) == (expected, expected)


def test_a_frame_smaller_than_the_window_has_edge_peaks_alone(locator: IntegerLocator) -> None:
    front = FrontEnd(3, 4, threshold=1, window=WINDOW, min_area=1)
    frame = np.array([[0, 0, 0, 0], [0, 9, 8, 0], [0, 0, 0, 0]], np.uint8)
    (records,) = Pipeline(front, locator).records([frame])
    (peak,) = decode(records).peaks
    assert peak["flags"] == RecordFlag.EDGE | RecordFlag.NOT_TRUSTED
    assert (peak["row"], peak["col"]) == (1 << locator.output.frac, 1 << locator.output.frac)
    assert (peak["ln_sigma_row"], peak["total"], peak["brightest"]) == (0, 17, 9)


@given(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 6]))
@example(3, 16, 16, 0, 1)
def test_no_frame_has_more_peaks_than_the_bound(reach: int, rows: int, cols: int, seed: int, most: int) -> None:
    front = FrontEnd(rows, cols, reach=reach, min_area=1)
    frame = np.random.default_rng(seed).integers(0, most + 1, (rows, cols)).astype(np.uint16)
    found = find(front, correct(front, frame))
    assert len(found.row) <= front.most_in_a_frame
    per_row = np.bincount(found.row, minlength=rows + reach)
    assert np.convolve(per_row, np.ones(reach + 1, int)).max() <= front.most_in_a_row
    blocks = found.row // (reach + 1) * front.most_in_a_row + found.col // (reach + 1)
    assert len(set(blocks.tolist())) == len(blocks)


@pytest.mark.parametrize("reach", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(17, 23), (8, 8), (5, 40), (4, 3)])
def test_the_densest_lattice_reaches_the_bound(reach: int, shape: tuple[int, int]) -> None:
    front = FrontEnd(*shape, reach=reach, min_area=min(4, reach + 1))
    frame = np.full(shape, 5, np.uint16)
    frame[:: reach + 1, :: reach + 1] = 9
    found = find(front, correct(front, frame))
    assert len(found.row) == front.most_in_a_frame
    assert np.bincount(found.row).max() == front.most_in_a_row


@pytest.mark.parametrize(("gain", "noise", "level"), [(1.0, 0.0, 20.0), (2.0, 8.0, 50.0), (1.0, 2.0, 400.0)])
def test_significance_counts_deviations_of_the_background(gain: float, noise: float, level: float) -> None:
    """D of flat frames has the standard deviation that its registers suppose, within 3 % (20,000 of them: 0.5 %)."""
    rng = np.random.default_rng(3)
    flat = rng.poisson(level / gain, (20_000, 7, 7)) * gain + rng.normal(0, noise, (20_000, 7, 7))
    core = flat[:, 2:5, 2:5].sum(axis=(1, 2))
    ring = flat.sum(axis=(1, 2)) - flat[:, 1:6, 1:6].sum(axis=(1, 2))
    test = Significance.of(1.0, gain, noise)
    assert np.std(8 * core - 3 * ring) == pytest.approx(math.sqrt(test.slope * 24 * level + test.offset), rel=0.03)


def test_significance_is_strict_and_exact() -> None:
    around = np.zeros((1, 7, 7), np.int64)
    around[0, 3, 3] = 3  # D = 24
    assert Significance(0, 575).holds(around).tolist() == [True]
    assert Significance(0, 576).holds(around).tolist() == [False]
    around[0, 6, 6] = -9  # below its dark: firmware has 0
    for ring in (8, 80):  # D = 0, and far below it
        around[0, 0, 0] = ring
        assert Significance(0, 0).holds(around).tolist() == [False]
    around[:] = 0
    around[0, 2:5, 2:5] = 2**16 - 1
    around[0, 0] = 2**16 - 1  # D is large enough to be significant whatever the registers are
    assert Significance(2**16 - 1, 2**32 - 1).holds(around).tolist() == [True]


def rows_with(front: FrontEnd, frames: list[np.ndarray], change: Callable[[list[Row]], list[Row]]) -> list[Row]:
    """The rows of frames, changed, with a last frame behind them that ends what is under way."""
    return [*change([row for frame in frames for row in rows_of(frame)]), *rows_of(frames[0])]


@pytest.fixture(scope="module")
def shots() -> tuple[FrontEnd, list[np.ndarray]]:
    rng = np.random.default_rng(5)
    return FrontEnd(12, 16, threshold=3, window=WINDOW), list(rng.integers(0, 200, (3, 12, 16)).astype(np.uint16))


def cut(row: Row, length: int, *, ended: bool = True) -> Row:
    return Row(row.counts[:length], row.start, ended)


@pytest.mark.parametrize(
    ("change", "flags", "rows"),
    [
        (lambda rows: rows, [0, 0, 0, 0], [12, 12, 12, 12]),
        (lambda rows: rows[2:], [EndFlag.RESYNCHRONIZED, 0, 0], [12, 12, 12]),  # no start of the first
        (lambda rows: rows[:9] + rows[12:], [EndFlag.RESYNCHRONIZED | EndFlag.SHORT, 0, 0, 0], [9, 12, 12, 12]),
        (lambda rows: [*rows[:12], rows[1], *rows[12:]], [0, EndFlag.RESYNCHRONIZED, 0, 0], [12] * 4),  # one too many
        (lambda rows: [cut(rows[0], 7), *rows[1:]], [EndFlag.ROW_LENGTH, 0, 0, 0], [12] * 4),
        (
            lambda rows: [Row(np.r_[rows[0].counts, rows[1].counts[:3]], True), *rows[1:]],
            [EndFlag.ROW_LENGTH, 0, 0, 0], [12] * 4,
        ),
        (  # a start in the middle of a row
            lambda rows: [*rows[:4], cut(rows[4], 6, ended=False), *rows[12:]],
            [EndFlag.RESYNCHRONIZED | EndFlag.SHORT | EndFlag.ROW_LENGTH, 0, 0, 0], [5, 12, 12, 12],
        ),
        (  # the same in the last row
            lambda rows: [*rows[:11], cut(rows[11], 6, ended=False), *rows[12:]],
            [EndFlag.RESYNCHRONIZED | EndFlag.ROW_LENGTH, 0, 0, 0], [12] * 4,
        ),
        (  # the end of the last row is missing
            lambda rows: [*rows[:11], cut(rows[11], 16, ended=False), *rows[12:]], [EndFlag.ROW_LENGTH, 0, 0, 0],
            [12] * 4,
        ),
    ],
)  # fmt: skip
def test_faults_of_a_stream(
    locator: IntegerLocator, shots: tuple[FrontEnd, list[np.ndarray]], change: Callable, flags: list, rows: list[int]
) -> None:
    front, frames = shots
    pipeline = Pipeline(front, locator)
    found = list(pipeline.stream(rows_with(front, frames, change)))
    ends = np.concatenate([records[-1:].view(END_RECORD) for records in found])
    assert ends["flags"].tolist() == [int(flag) for flag in flags]
    assert ends["rows"].tolist() == rows
    assert ends["frame"].tolist() == list(range(len(rows)))
    # The last frame is the first one again, whatever came before it.
    alone = next(pipeline.records([frames[0]], first=len(rows) - 1))
    assert np.array_equal(found[-1], alone)


def test_what_did_not_come_is_masked_or_outside(
    locator: IntegerLocator, shots: tuple[FrontEnd, list[np.ndarray]]
) -> None:
    front, frames = shots
    frame, pipeline = frames[0], Pipeline(front, locator)
    bad = np.zeros(frame.shape, bool)
    bad[2, 9:] = True
    rows = rows_of(frame)
    short = pipeline.stream([*rows[:2], cut(rows[2], 9), *rows[3:]])
    assert np.array_equal(next(short)[:-1], next(pipeline.records([Shot(frame, bad)]))[:-1])
    few = next(pipeline.stream([*rows[:9], *rows]))
    whole = next(Pipeline(FrontEnd(9, 16, threshold=3, window=WINDOW), locator).records([frame[:9]]))
    assert np.array_equal(few[:-1], whole[:-1])
    with pytest.raises(UserError, match=r"row 3 .* neither ended"):
        list(pipeline.stream([*rows[:3], cut(rows[3], 5, ended=False), *rows[4:]]))


def test_damaged_records_are_refused(locator: IntegerLocator, shots: tuple[FrontEnd, list[np.ndarray]]) -> None:
    front, frames = shots
    found = np.concatenate(list(Pipeline(front, locator).records(frames)))
    assert RECORD.itemsize == END_RECORD.itemsize == 32
    assert (list(PEAK_FLAGS), list(END_FLAGS)) == (list(RecordFlag), list(EndFlag))
    assert len(decode(found.tobytes()).ends) == 3
    assert len(decode(b"").peaks) == 0
    with pytest.raises(UserError, match="no multiple of 32"):
        decode(found.tobytes()[:-1])
    with pytest.raises(UserError, match="without an end record"):
        decode(found[:-1])
    with pytest.raises(UserError, match=r"frame 0: .* lost or changed"):
        decode(found[1:])
    other = found.copy()
    other["brightest"][0] ^= 4
    with pytest.raises(UserError, match=r"frame 0: .* lost or changed"):
        decode(other)
    other["version"][2] = 9
    with pytest.raises(UserError, match="record 2 has kind 0 and version 9"):
        decode(other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "frames of 0 x 9"),
        ({"cols": 2**16}, "frames of 9 x 65536"),
        ({"bits": 7}, "counts of 7 bits"),
        ({"bits": 17}, "counts of 17 bits"),
        ({"reach": 0}, "reach 0"),
        ({"min_area": 5}, "min_area 5"),
        ({"min_area": 0}, "min_area 0"),
        ({"window": 5}, "a window of 5 px"),
        ({"threshold": -1}, "threshold spans -1 to -1"),
        ({"threshold": 2**16}, "threshold spans 65536"),
        ({"threshold": 1.5}, "threshold is float64"),
        ({"threshold": np.zeros((9, 8), int)}, r"threshold is int64 \(9, 8\)"),
        ({"bits": 8, "saturation": 256}, "saturation spans 256"),
        ({"gain_shift": 16}, "gain_shift 16"),
        ({"dark": np.full((9, 9), -1)}, "dark spans -1"),
        ({"mask": np.zeros((9, 9), int)}, r"mask is int64 \(9, 9\)"),
        ({"sigma_limit": 2**15}, "sigma_limit 32768"),
        ({"reach": 4, "significance": Significance(1, 1)}, "significance is for a reach of 3"),
    ],
)
def test_settings_without_bits_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        FrontEnd(**({"rows": 9, "cols": 9} | settings))


def test_frames_and_locators_that_do_not_fit_are_refused(
    locator: IntegerLocator, random_circuit: Callable[..., IntegerLocator]
) -> None:
    front = FrontEnd(9, 9, bits=12, window=WINDOW)
    pipeline = Pipeline(front, locator)
    for frame, message in (
        (np.zeros((9, 8), np.uint16), r"frame 4: it is uint16 \(9, 8\)"),
        (np.zeros((10, 9), np.uint16), r"\(10, 9\)"),
        (np.zeros((9, 9)), "float64"),
        (np.full((9, 9), 4096), "span 4096 to 4096 counts; expected 0 to 4095"),
        (np.full((9, 9), -1), "span -1 to -1"),
    ):
        with pytest.raises(UserError, match=message):
            list(pipeline.records([frame], first=4))
    # What a masked pixel holds is nobody's business.
    (records,) = pipeline.records([Shot(np.full((9, 9), -1), np.ones((9, 9), bool))])
    assert len(records) == 1
    with pytest.raises(UserError, match="bad pixels are"):
        list(pipeline.records([Shot(np.zeros((9, 9), np.uint16), np.zeros((9, 8), bool))]))
    with pytest.raises(UserError, match="its window is 9 px, the locator's 7"):
        Pipeline(FrontEnd(9, 9, window=9), locator)
    wide = random_circuit(WINDOW, BlockShift(4, 16), output=17)
    assert wide.output == Format(17, wide.output.frac, True)
    with pytest.raises(UserError, match="outputs have 17 bits"):
        Pipeline(front, wide)
    with pytest.raises(UserError, match="significance slope 66825"):
        Significance.of(45.0)
    with pytest.raises(UserError, match="expected positive"):
        Significance.of(0.0)

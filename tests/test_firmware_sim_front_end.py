"""The front end's RTL, clock by clock, against its contract in software: records, faults of the stream, registers."""

import dataclasses
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.significance import Significance
from firmware_sim.front_end import cases, mutations
from firmware_sim.front_end.compare import as_records, differences
from firmware_sim.front_end.project import simulate
from firmware_sim.front_end.simulate import Script, build, run
from hls.rtl import build as rtl_stage
from hls.rtl.cmvm import Effort
from hls.rtl.front_end import registers
from hls.rtl.front_end.bad_pixels import bad_pixels, writes
from hls.rtl.front_end.geometry import Geometry, least_places
from hls.rtl.front_end.header import header
from hls.rtl.front_end.project import NAME, sources, write_front_end
from hls.rtl.front_end.rates import need
from hls.rtl.front_end.spec import FrontEndSpec
from hls.rtl.spec import RtlSpec
from hls.tools import programs as tools
from quant.contract.block_shift import BlockShift
from quant.contract.locator import load, save
from quant.front_end.pipeline import Pipeline, Shot
from quant.front_end.records import END, END_RECORD, RECORD, EndFlag, RecordFlag
from quant.front_end.spec import FrontEnd
from quant.front_end.stream import Row, rows_of

PLACES, PIXELS, BITS = 32, 8, 13
#: Words of the list of bad pixels.
BAD = 64


@pytest.fixture(scope="module")
def bench(tmp_path_factory, random_circuit):
    """A small circuit and its compiled front end, 8 pixels of 13 bits a clock, with all that it may be built with."""
    circuit = random_circuit(window=7, sigma=True, normalizer=BlockShift(4, 7))
    geometry = Geometry(
        PIXELS, BITS, 128, 4096, window=7, places=PLACES, significance=True, bad_words=BAD, dark=True, thresholds=True
    )
    found = sources(circuit, geometry, effort=Effort(trials=2))
    return circuit, mutations.simulator(found, geometry, tmp_path_factory.mktemp("front"))


def _front(rows, cols, **given):
    return FrontEnd(rows=rows, cols=cols, bits=BITS, window=7, **given)


@pytest.mark.parametrize("seed", range(14))
def test_every_record_is_the_contracts(seed, bench):
    circuit, simulator = bench
    for case, pace in cases.random_cases(seed, simulator.geometry, 2):
        expected = case.expected(circuit)
        found = run(simulator, cases.script_of(case, pace, simulator.geometry, sum(map(len, expected))), seed=seed)
        assert not any(response for _, response in found.answers)
        assert differences(as_records(found.raw), expected) == []


def test_a_gain_shift_has_all_its_bits(bench):
    circuit, simulator = bench
    frame = np.random.default_rng(3).integers(0, 1 << BITS, (12, 32)).astype(np.uint16)
    for shift in (4, 6, 9, 12):
        front = _front(12, 32, threshold=(1 << BITS >> shift) // 4, gain_shift=shift)
        (expected,) = Pipeline(front, circuit).records([frame])
        found = run(simulator, cases.settings(front, Script(PIXELS)).frame(frame).until(len(expected)).wait(100))
        assert differences(as_records(found.raw), [expected]) == []
        assert len(expected) > 1


def test_a_comparison_names_what_differs(bench):
    circuit, simulator = bench
    ((case, pace),) = cases.random_cases(3, simulator.geometry, 1)
    expected = case.expected(circuit)
    found = as_records(run(simulator, cases.script_of(case, pace, simulator.geometry, sum(map(len, expected)))).raw)
    wrong = found.copy()
    wrong["flags"][0] ^= 2
    assert "record 0" in differences(wrong, expected)[0]
    assert differences(found[:-1], expected) == ["frame 2: no end record"]
    assert "more than the contract's" in differences(np.concatenate([found, found[-1:]]), expected)[0]


def _lattice(rows, cols):
    """The most maxima that there can be: one in each 4 x 4 pixels."""
    frame = np.full((rows, cols), 10, np.uint16)
    frame[3::4, 3::4] = 200
    return frame


def test_with_a_ready_output_nothing_waits_and_nothing_is_lost(bench):
    circuit, simulator = bench
    front = _front(20, 128, threshold=5)
    # Peaks in the last row: many still wait when the frame's last word has come.
    frames = [_lattice(20, 128), np.full((20, 128), 9, np.uint16), _lattice(20, 128)[::-1].copy()]
    expected = list(Pipeline(front, circuit).records(frames))
    script = cases.settings(front, Script(PIXELS))
    for frame in frames:
        script.frame(frame)
    found = run(simulator, script.until(sum(map(len, expected))).wait(100))
    assert differences(as_records(found.raw), expected) == []
    assert found.throttled == 0
    assert sum(map(len, expected)) > 250  # many times the places
    stages = int(re.search(r"STAGES = (\d+)", bench_sources(circuit, simulator.geometry)).group(1))
    ends = as_records(found.raw)
    ends = ends[ends["kind"] == END].view(END_RECORD)
    # A row brings a maximum a clock for longer than a place is taken: one place less would drop a peak.
    assert ends["record_high_water"].max() == least_places(stages, simulator.geometry.later) - 1


def bench_sources(circuit, geometry):
    """The text of the top module."""
    return sources(circuit, geometry, effort=Effort(trials=2))[f"{NAME}.v"]


def test_too_few_places_for_the_stages_are_refused(random_circuit):
    circuit = random_circuit(window=7, sigma=True, normalizer=BlockShift(4, 7), hidden=(4, 4, 4))
    with pytest.raises(
        UserError, match=r"32 places for records, but a locator of \d+ stages needs \d+ .* places to 64"
    ):
        sources(circuit, Geometry(8, 8, 128, places=32), logic_levels=1.0, effort=Effort(trials=2))
    assert least_places(31) == 35
    Geometry().check_places(200)  # the default


def test_the_latency_of_a_peak(bench):
    circuit, simulator = bench
    frame = np.zeros((9, 64), np.uint16)
    frame[2:5, 58:61] = [[9, 20, 9], [30, 200, 40], [9, 50, 9]]
    front = _front(9, 64, threshold=5)
    (expected,) = Pipeline(front, circuit).records([frame])
    script = cases.settings(front, Script(PIXELS)).wait(200)
    stop = 7 * 8  # beats until the window's last pixel, in the last word of row 6, has come
    found = run(simulator, script.part(frame, 0, stop).wait(200).part(frame, stop).until(2).wait(100))
    assert differences(as_records(found.raw), [expected]) == []
    # One word more pushes the last on; in a stream it comes one clock later.
    script = cases.settings(front, Script(PIXELS)).wait(200).part(frame, 0, stop + 1)
    waiting = run(simulator, script.until(1))
    assert 20 < int(waiting.clocks[0]) - waiting.last_word + 2 <= 60


@pytest.mark.parametrize(("rows", "cols"), [(9, 64), (20, 24), (7, 16), (5, 8)])
def test_a_frame_takes_the_clocks_that_rates_are_counted_with(rows, cols, bench):
    circuit, simulator = bench
    script = cases.settings(_front(rows, cols, threshold=5), Script(PIXELS)).wait(200)
    for _ in range(3):
        script.frame(np.zeros((rows, cols), int))
    found = run(simulator, script.until(3))
    stages = int(re.search(r"STAGES = (\d+)", bench_sources(circuit, simulator.geometry)).group(1))
    counted = need(rows, cols, 1.0, PIXELS, window=7, stages=stages, later=simulator.geometry.later, maps=True)
    assert np.diff(found.clocks).tolist() == [counted.clocks] * 2
    if cols >= 3 * PIXELS:
        assert found.waited == 1 + 2 * counted.pause  # one clock at a start behind a pause


def test_peaks_without_a_place_are_dropped_whole_and_counted(bench):
    circuit, simulator = bench
    front = _front(24, 64, threshold=5)
    frames = [_lattice(24, 64)] * 3
    expected = list(Pipeline(front, circuit).records(frames))
    script = cases.settings(front, Script(PIXELS)).pace(0, 256).frame(frames[0]).wait(500).pace(0, 200)
    script.frame(frames[1]).pace(0, 0).wait(500).frame(frames[2]).wait(2000).read("dropped").read("peaks").read(
        "frames"
    )
    found = run(simulator, script, seed=4)
    records = as_records(found.raw)
    assert differences(records, expected) == []
    ends = records[records["kind"] == END].view(END_RECORD)
    assert ends["dropped"][0] == len(expected[0]) - 1 - (PLACES - 1)  # a place was kept for the end
    assert ends["record_high_water"][0] == PLACES
    assert ends["dropped"][2] == 0
    values = [value for value, _ in found.answers[-3:]]
    assert values == [ends["dropped"].sum(), ends["peaks"].sum(), 3]


def test_a_frame_waits_for_a_place_of_its_end(bench):
    circuit, simulator = bench
    front = _front(8, 64, threshold=5)
    frames = [_lattice(8, 64)] * 4
    expected = list(Pipeline(front, circuit).records(frames))
    # The first frame and its end take all places; the second one's start waits until the slow output gives one back.
    script = (
        cases.settings(front, Script(PIXELS)).pace(0, 256).frame(frames[0]).wait(1000).pace(0, 250).frame(frames[1])
    )
    found = run(simulator, script.frame(frames[2]).pace(0, 0).frame(frames[3]).wait(2000))
    assert found.waited > 300
    records = as_records(found.raw)
    assert differences(records, expected) == []
    assert (records["kind"] == END).sum() == 4


def test_a_reset_in_the_middle_of_a_frame_leaves_nothing_behind(bench):
    circuit, simulator = bench
    front = _front(20, 48, threshold=5)
    frame = _lattice(20, 48)
    expected = list(Pipeline(front, circuit).records([frame, frame]))
    for seed, beats in enumerate((1, 30, 71, 119)):
        script = cases.settings(front, Script(PIXELS)).pace(20, 120)
        script.part(frame, 0, beats).reset(1 + seed).pace(0, 0)
        before = run(simulator, script.wait(200), seed=seed)
        script = cases.settings(front, script).pace(20, 20).frame(frame).frame(frame).pace(0, 0).wait(1000)
        found = run(simulator, script, seed=seed)
        assert differences(as_records(found.raw)[len(before.raw) :], expected) == []


def test_registers(bench):
    circuit, simulator = bench
    names = [one.name for one in registers.REGISTERS if "read" in one.access]
    script = Script(PIXELS)
    for name in names:
        script.read(name)
    values = dict(zip(names, (value for value, _ in run(simulator, script).answers), strict=True))
    assert values["identity"] == registers.IDENTITY
    assert "".join(f"{values[f'digest_{k}']:08x}" for k in range(8)) == circuit.digest
    assert values["shape"] == 8 | BITS << 8 | 7 << 16 | 4 << 24
    assert values["options"] == 15 | BAD << 16
    assert values["largest"] == 128 | 4096 << 16
    assert (values["rows"], values["cols"], values["sigma_limit"], values["enable"]) == (4096, 128, 32767, 0)


@pytest.mark.parametrize(
    ("register", "value"),
    [("cols", 6), ("cols", 0), ("cols", 136), ("rows", 0), ("rows", 4097), ("threshold", 8192), ("identity", 1),
     (0xF0, 0), (0x59, 3), ("gain_shift", 16), ("sigma_limit", 1 << 16),
     ("sigma_limit", 32768), ("sigma_limit", -32769), ("enable", 2), ("enable", 0xFFFFFFFE)],
)  # fmt: skip
def test_a_write_that_does_not_fit_is_refused_and_changes_nothing(register, value, bench):
    names = ("cols", "rows", "threshold", "gain_shift", "sigma_limit")
    script = Script(PIXELS).write("cols", 16).write("threshold", 7).write(register, value)
    for name in names:
        script.read(name)
    answers = run(bench[1], script).answers
    assert [response for _, response in answers] == [0, 0, 2, 0, 0, 0, 0, 0]
    assert [value for value, _ in answers[3:]] == [16, 4096, 7, 0, 32767]


def test_the_limit_of_sigma_is_a_signed_number_of_32_bits(bench):
    script = Script(PIXELS).write("sigma_limit", -300).read("sigma_limit").write("sigma_limit", 7).read("sigma_limit")
    assert run(bench[1], script).answers == [(0, 0), ((-300) & 0xFFFFFFFF, 0), (0, 0), (7, 0)]


def test_counts_restart_behind_the_frame_that_is_in_hand_when_it_is_enabled(bench):
    circuit, simulator = bench
    front = _front(8, 32, threshold=3)
    frame = np.random.default_rng(2).integers(0, 200, (8, 32))
    script = cases.settings(front, Script(PIXELS)).frame(frame).wait(500).part(frame, 0, 15)
    script.write("enable", 0).write("enable", 1).part(frame, 15).wait(500)
    for name in ("frames", "peaks", "dropped"):
        script.read(name)
    found = run(simulator, script.frame(frame).wait(500).read("frames"))
    before = list(Pipeline(front, circuit).records([frame, frame]))
    (after,) = Pipeline(front, circuit).records([frame])
    assert differences(as_records(found.raw), [*before, after]) == []  # the third one is frame 0 again
    assert [value for value, _ in found.answers[-4:]] == [0, 0, 0, 1]


def test_a_variable_of_a_loop_belongs_to_one_clocked_block(bench, random_circuit):
    circuit = random_circuit(window=7, sigma=True, normalizer=BlockShift(4, 7))
    for name, text in sources(circuit, bench[1].geometry, effort=Effort(trials=2)).items():
        if "_fe_" not in name:
            continue
        blocks = [set(re.findall(r"for \((\w+) =", part)) for part in re.split(r"\balways @", text)[1:]]
        integers = set(re.findall(r"\w+", " ".join(re.findall(r"^ +integer ([\w, ]+);", text, re.M))))
        for one in integers:
            assert sum(one in block for block in blocks) <= 1, f"{name}: {one} is assigned in two blocks"


def test_a_register_written_in_mid_frame_holds_from_the_next_frame_on(bench):
    circuit, simulator = bench
    rng = np.random.default_rng(8)
    old, new = _front(12, 32, threshold=3), _front(9, 16, threshold=60, gain_shift=1, saturation=90, sigma_limit=-3)
    first, second = rng.integers(0, 200, (12, 32)), rng.integers(0, 200, (9, 16))
    script = cases.settings(old, Script(PIXELS)).part(first, 0, 25)
    cases.settings(new, script).part(first, 25).frame(second).wait(1000)
    found = run(simulator, script)
    expected = [*Pipeline(old, circuit).records([first]), *Pipeline(new, circuit).records([second], first=1)]
    assert differences(as_records(found.raw), expected) == []


def test_a_position_is_trusted_up_to_the_limit_itself(bench):
    circuit, simulator = bench
    frame = np.random.default_rng(5).integers(0, 250, (20, 64))
    (free,) = Pipeline(_front(20, 64, threshold=100), circuit).records([frame])
    inside = free[:-1][(free["flags"][:-1] & 1) == 0]
    limit = int(np.maximum(inside["ln_sigma_row"], inside["ln_sigma_col"]).max())
    assert (inside["ln_sigma_row"] == limit).any()
    for given, expected_flags in ((limit, False), (limit - 1, True)):
        front = _front(20, 64, threshold=100, sigma_limit=given)
        (expected,) = Pipeline(front, circuit).records([frame])
        found = run(simulator, cases.settings(front, Script(PIXELS)).frame(frame).wait(1000))
        assert differences(as_records(found.raw), [expected]) == []
        whole = expected[:-1][(expected["flags"][:-1] & 1) == 0]
        assert (whole["flags"] & 16).any() == expected_flags


def test_while_it_is_not_enabled_nothing_is_taken(bench):
    circuit, simulator = bench
    front = _front(8, 32, threshold=3)
    frame = np.random.default_rng(2).integers(0, 200, (8, 32))
    script = cases.settings(front, Script(PIXELS)).frame(frame).wait(500).write("enable", 0).wait(50).read("status")
    script.write("enable", 1).read("frames").frame(frame).wait(500).read("frames")
    found = run(simulator, script)
    (one,) = Pipeline(front, circuit).records([frame])
    assert differences(as_records(found.raw), [one, one]) == []  # frame 0 again
    assert [value for value, _ in found.answers[-4:]] == [0, 0, 0, 1]


def test_the_stored_frame_is_found_and_located(bench):
    circuit, simulator = bench
    front = _front(8, 32, threshold=3)
    frame = np.random.default_rng(2).integers(0, 200, (8, 32))
    (one,) = Pipeline(front, circuit).records([frame])
    (two,) = Pipeline(front, circuit).records([frame], first=1)
    script = Script(PIXELS).read("status").write("test", 1).read("status").wait(300).read("status")  # not enabled yet
    script = cases.settings(front, script).part(frame, 0, 15).write("test", 1)
    script.wait(300).read("status").part(frame, 15).frame(frame).wait(500)
    found = run(simulator, script.read("status").read("frames").read("peaks"))
    assert differences(as_records(found.raw), [one, two]) == []
    reads = [value for value, _ in found.answers]
    assert reads[0] == 0
    assert reads[2] == 2
    assert reads[3] == 12  # done, passed
    assert reads[-4] == 3  # waits for the end of the frame in hand
    assert reads[-3:] == [12, 2, len(one) + len(two) - 2]


def test_columns_and_words_are_the_mask():
    rng = np.random.default_rng(6)
    for pixels in (1, 4, 8):
        for share in (0.0, 0.02, 0.3, 0.9, 1.0):
            mask = rng.random((7, 5 * pixels)) < share
            mask[:, 2] = True
            found = bad_pixels(mask, pixels)
            again = np.zeros((7, 5), np.int64)
            order = []
            for row, first, last, word in zip(found.row, found.first, found.last, found.pixels, strict=True):
                assert (again[row, first : last + 1] == 0).all()
                again[row, first : last + 1] = word
                order += [(row, first), (row, last)]
            assert order == sorted(order)
            bits = (again | found.columns)[..., None] >> np.arange(pixels) & 1
            assert (bits.reshape(7, -1) == mask).all()
    # A module's gap is a pattern of columns and an entry a row, whatever its size.
    gaps = np.zeros((300, 64), bool)
    gaps[:, 20:27] = gaps[100:110] = True
    assert bad_pixels(gaps, 16).row.tolist() == list(range(100, 110))
    with pytest.raises(UserError, match="a multiple of 8 columns"):
        bad_pixels(np.zeros((3, 12), bool), 8)
    with pytest.raises(UserError, match="takes 10 entries besides whole columns; the front end has 4"):
        writes(gaps, 16, entries=4)


def test_a_mask_of_the_detectors_own_columns_is_loaded_with_the_added_ones_as_bad():
    mask = np.zeros((514, 1030), bool)  # 1040 columns at 16 pixels a clock
    mask[3] = mask[7, 1029] = True
    padded = np.ones((514, 1040), bool)
    padded[:, :1030] = mask
    found = writes(mask, 16)
    assert found == writes(padded, 16)
    assert found[65] == ("bad_columns", 0xFFC0)  # the word of columns 1024 to 1039; pixels 6 to 15 of it are added
    assert found[66:69] == [("bad_row", 3), ("bad_span", 64 << 16), ("bad_pixels", 0xFFFF)]
    assert found[69:72] == [("bad_row", 7), ("bad_span", 64 | 64 << 16), ("bad_pixels", 0x20)]
    assert len(found) == 72
    for wrong in (mask.astype(np.uint8), mask[0], mask[:0], mask[:, :0]):
        with pytest.raises(UserError, match=r"expected bool \(rows, cols\)"):
            writes(wrong, 16)


def test_an_entry_that_does_not_lie_behind_the_others_is_refused(bench):
    circuit, simulator = bench
    front = _front(12, 64, threshold=3, mask=np.zeros((12, 64), bool))
    script = cases.settings(front, Script(PIXELS)).write("enable", 0)
    for word in (*[255] * 8, None, 2, 2):  # the columns of a mask that is no longer there
        script.write("bad_clear", 1) if word is None else script.write("bad_columns", word)
    refused = []
    for row, first, last, pixels, fits in (
        (3, 2, 4, 0x81, True), (3, 4, 5, 1, False), (2, 6, 7, 1, False), (3, 5, 5, 255, True), (3, 5, 5, 255, False),
        (4, 3, 2, 1, False), (4, 3, 8, 1, False), (4, 0, 0, 256, False), (4, 0, 7, 0x10, True), (4, 0, 7, 0x10, False),
    ):  # fmt: skip
        script.write("bad_row", row).write("bad_span", first | last << 16).write("bad_pixels", pixels)
        script.write("bad_pixels", pixels)  # the same once more, at once
        refused += [0, 0, 0 if fits else 2, 2]
    script.read("bad_loaded")
    mask = np.zeros((12, 64), bool)
    mask[:, [1, 9]] = mask[3, 16:40:8] = mask[3, 23:40:8] = mask[3, 40:48] = mask[4, 4::8] = True
    frame = np.random.default_rng(1).integers(0, 200, (12, 64))
    (one,) = Pipeline(_front(12, 64, threshold=3, mask=mask), circuit).records([frame])
    found = run(simulator, script.write("enable", 1).frame(frame).wait(500))
    assert [response for _, response in found.answers[-2 - len(refused) : -2]] == refused
    assert found.answers[-2][0] == 3 | 2 << 16
    assert differences(as_records(found.raw), [one]) == []


def test_a_list_takes_what_it_was_built_for(bench):
    script = Script(PIXELS).write("cols", 128).write("bad_span", 0)
    for row in range(BAD + 1):
        script.write("bad_row", row).write("bad_pixels", 1)
    for word in range(17):
        script.write("bad_columns", word)
    answers = run(bench[1], script.read("bad_loaded").write("bad_clear", 1).read("bad_loaded")).answers
    refused = [response for _, response in answers[3 : 2 * BAD + 4 : 2]]
    assert refused == [0] * BAD + [2]
    assert [response for _, response in answers[-20:-3]] == [0] * 16 + [2]
    assert (answers[-3][0], answers[-1][0]) == (BAD | 16 << 16, 0)


def test_nothing_is_loaded_while_a_frame_may_be_in_hand(bench):
    circuit, simulator = bench
    rng = np.random.default_rng(3)
    mask = rng.random((8, 32)) < 0.05
    front = _front(8, 32, threshold=3, mask=mask)
    frame = rng.integers(0, 200, (8, 32))
    attempts = (("bad_clear", 1), ("bad_pixels", 1), ("bad_columns", 1))
    script = cases.settings(front, Script(PIXELS)).write("bad_row", 9).write("bad_span", 0)
    for name, value in attempts:
        script.write(name, value)
    script.part(frame, 0, 12).write("enable", 0).write("cols", 64).write("cols", 32)
    for name, value in attempts:
        script.write(name, value)
    script.part(frame, 12).wait(400).write("enable", 1).frame(frame).wait(400).write("enable", 0)
    # Nothing is in hand now. Other columns are refused as long as there is a mask.
    script.write("cols", 64).write("bad_clear", 1).write("cols", 64).write("enable", 1)
    wide = rng.integers(0, 200, (8, 64))
    found = run(simulator, script.frame(wide).wait(400))
    expected = list(Pipeline(front, circuit).records([frame]))
    expected += [*Pipeline(front, circuit).records([frame])]
    expected += [*Pipeline(_front(8, 64, threshold=3), circuit).records([wide])]
    assert differences(as_records(found.raw), expected) == []
    responses = [response for _, response in found.answers[len(writes(mask, PIXELS)) + 8 :]]
    assert responses == [0, 0, 2, 2, 2, 0, 2, 0, 2, 2, 2, 0, 0, 2, 0, 0, 0]


def test_a_maximum_is_significant_above_its_bound_and_not_at_it(bench):
    circuit, simulator = bench
    top = (1 << BITS) - 1
    for height, slope, large in ((260, 77, False), (260, 0, False), (top, 0, True)):
        frame = np.zeros((16, 32), np.int64)
        frame[2:13, 8:19] = 0 if large else np.random.default_rng(9).integers(0, 20, (11, 11))
        frame[6:9, 12:15] = height - 1
        frame[7, 13] = height
        around = frame[4:11, 10:17]
        ring = int(around.sum() - around[1:6, 1:6].sum())
        excess = 8 * (9 * height - 8) - 3 * ring
        bound = (1 << 32) - 1 if large else excess**2 - slope * ring
        assert (excess >= 1 << 19) == large
        for offset, peaks in ((bound, int(large)), (bound - 1, 1)):
            front = _front(16, 32, threshold=20, significance=Significance(slope, offset))
            (expected,) = Pipeline(front, circuit).records([frame])
            assert len(expected) == peaks + 1
            found = run(simulator, cases.settings(front, Script(PIXELS)).frame(frame).wait(400))
            assert differences(as_records(found.raw), [expected]) == []


@pytest.mark.parametrize("shift", [BITS - 1, BITS, 15])
def test_a_large_gain_shift_leaves_the_highest_bit_or_nothing(shift, bench):
    circuit, simulator = bench
    frame = np.random.default_rng(shift).integers(0, 1 << BITS, (12, 32)).astype(np.uint16)
    front = _front(12, 32, gain_shift=shift, min_area=4)
    (expected,) = Pipeline(front, circuit).records([frame])
    assert (expected.view(END_RECORD)["above"][-1] > 0) == (shift < BITS)
    found = run(simulator, cases.settings(front, Script(PIXELS)).frame(frame).until(len(expected)).wait(200))
    assert differences(as_records(found.raw), [expected]) == []


def test_the_header_has_registers_fields_flags_and_records(tmp_path):
    options = tuple(registers.OPTIONS)
    digest = "0123456789abcdef" * 4
    text = header({"pixels": 8, "fraction_bits": 9}, options, digest)
    (tmp_path / "registers.h").write_text(text)
    layouts = {"peak": RECORD, "end": END_RECORD}
    names = [f"braggnn_front_end_{kind}, {name}" for kind, dtype in layouts.items() for name in dtype.names]
    values = ["PEAK_EDGE", "PEAK_NOT_TRUSTED", "END_ROW_LENGTH", "KIND_END", "SHAPE_WINDOW_MASK", "SHAPE_WINDOW_SHIFT"]
    values += ["BUILD_PIXELS", "BUILD_FRACTION_BITS", "VERSION_VALUE", "DIGEST_7_VALUE"]
    print_ = [f'printf("%u ", (unsigned)offsetof({name}));' for name in names]
    print_ += [f'printf("%u ", (unsigned)BRAGGNN_FRONT_END_{name});' for name in values]
    source = tmp_path / "main.c"
    source.write_text(
        '#include <stddef.h>\n#include <stdio.h>\n#include "registers.h"\nint main(void) {' + "\n".join(print_) + "}\n"
    )
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    for compiler, language, year in (("g++", "c++", "c++98"), ("g++", "c++", "c++17"), ("gcc", "c", "c99")):
        command = [compiler, "-x", language, f"-std={year}", *strict, "-o", str(tmp_path / "main"), str(source)]
        subprocess.run(command, check=True)
    said = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=True).stdout
    offsets = [dtype.fields[name][1] for dtype in layouts.values() for name in dtype.names]
    assert list(map(int, said.split())) == [*offsets, 1, 16, 4, 1, 0xFF0000, 16, 8, 9, registers.VERSION, 0x89ABCDEF]
    for one in registers.REGISTERS:
        assert f"#define BRAGGNN_FRONT_END_{one.name.upper()} 0x{one.offset:02X}u\n" in text
        assert all(shift + bits <= one.bits for _, shift, bits in one.fields)
    assert "BAD_ROW" not in header({}, (), digest)


def test_what_is_not_built_costs_nothing_and_is_not_there(random_circuit):
    circuit = random_circuit(window=7, sigma=True, normalizer=BlockShift(4, 7))
    found = sources(circuit, Geometry(8, 8, 128), effort=Effort(trials=2))
    assert not {"braggnn_fe_bad.v", "braggnn_fe_significance.v", "braggnn_fe_maps.v"} & set(found)
    optional = [one.name for one in registers.REGISTERS if one.option]
    assert len(optional) > 5
    assert not any(re.search(rf"\b{name}\b", found["braggnn_fe_registers.v"]) for name in optional)
    assert not re.search(r"^ +(input|output) .*s_map_", found[f"{NAME}.v"], re.M)


def test_an_aborted_frame_ends_as_if_the_next_one_had_started(bench):
    circuit, simulator = bench
    rng = np.random.default_rng(12)
    front = _front(9, 32, threshold=3)
    first, second = rng.integers(0, 200, (9, 32)), rng.integers(0, 200, (9, 32))
    start = rows_of(second)[0]
    long = [*rows_of(first)[:3], Row(np.tile(first[3], 2), ended=False)]
    ended_long = [*rows_of(first)[:8], Row(np.tile(first[8], 2), ended=False)]
    cut = [*rows_of(first)[:4], Row(first[4, :8], ended=False)]
    short = [*rows_of(first)[:4], Row(first[4, :8])]
    for rows in (rows_of(first)[:1], rows_of(first)[:5], cut, short, long, ended_long):
        # The test waits for the frame in hand; what is left of an aborted frame is thrown away.
        left = [*rows_of(first)[7:]]
        script = cases.settings(front, Script(PIXELS)).rows(rows).write("test", 1).wait(500).read("status")
        script.write("abort", 1).wait(500).read("status").rows([*left, *rows_of(second)]).wait(500)
        found = run(simulator, script)
        (aborted,) = Pipeline(front, circuit).stream([*rows, start])
        (after,) = Pipeline(front, circuit).stream([left[0], *rows_of(second)], first=1)
        assert differences(as_records(found.raw), [aborted, after]) == []
        assert [value for value, _ in found.answers if value] == [3, 12]


def test_the_rest_of_a_short_row_is_masked(bench):
    circuit, simulator = bench
    front = _front(14, 48, threshold=5)
    frame = np.zeros((14, 48), np.uint16)
    # One peak whose window has pixels that did not come, and one whose window has none.
    for row, col in ((6, 28), (6, 14)):
        frame[row - 1 : row + 2, col - 1 : col + 2] = [[9, 20, 9], [30, 200, 40], [9, 50, 9]]
    frame[9, :8] = 300  # the beat that waits while the row before it is filled: its counts are not those of the rest
    rows = rows_of(frame)
    rows[8] = Row(frame[8, :24])
    case = cases.Case(front, rows)
    (expected,) = case.expected(circuit)
    at = {int(one["peak_col"]): int(one["flags"]) for one in expected[:-1]}
    assert (at[28] & RecordFlag.BAD_PIXEL, at[14] & RecordFlag.BAD_PIXEL) == (RecordFlag.BAD_PIXEL, 0)
    for pace in ((0, 0), (60, 0)):
        found = run(simulator, cases.script_of(case, pace, simulator.geometry, len(expected)))
        assert differences(as_records(found.raw), [expected]) == []


def test_without_a_frame_an_abort_throws_away_the_beat_that_waits(bench):
    circuit, simulator = bench
    front = _front(9, 32, threshold=3)
    frame = np.random.default_rng(13).integers(0, 200, (9, 32))
    one, two, three = (next(Pipeline(front, circuit).records([frame], first=k)) for k in range(3))
    script = cases.settings(front, Script(PIXELS)).write("enable", 0).part(frame, 5, 6).write("abort", 1)
    # Behind a frame the next one's start stays: that frame's end is under way.
    script.write("enable", 1).frame(frame).part(frame, 0, 1).write("abort", 1).part(frame, 1).wait(500)
    script.write("abort", 1).frame(frame).wait(500).write("abort", 2)
    found = run(simulator, script)
    assert differences(as_records(found.raw), [one, two, three]) == []
    assert [response for _, response in found.answers if response] == [2]


def _maps(frame, front, wrong=None):
    """Beats and flags of a frame's dark counts and thresholds, changed at a beat."""
    script = Script(PIXELS).maps(front.dark, front.threshold)
    beats = script.words[-1].reshape(len(frame) * frame.shape[1] // PIXELS, -1)
    values = beats[:, 1:].copy().view(np.uint16).reshape(len(beats), 2, PIXELS)
    flags = beats[:, 0].copy()
    return (values, flags) if wrong is None else wrong(values, flags)


def test_maps_of_another_shape_mask_the_rest_of_their_frame(bench):
    circuit, simulator = bench
    rng = np.random.default_rng(14)
    rows, cols = 9, 32
    frame = rng.integers(0, 200, (rows, cols))
    front = _front(rows, cols, dark=rng.integers(0, 30, (rows, cols)), threshold=rng.integers(3, 60, (rows, cols)))
    words = cols // PIXELS

    def flagged(at, flag):
        return lambda values, flags: (values, np.where(np.arange(len(flags)) == at, flags ^ flag, flags))

    for wrong, lost in (
        (lambda values, flags: (values[: 5 * words], flags[: 5 * words]), 5 * words),  # rows are missing
        (lambda values, flags: (np.delete(values, 6, 0), np.delete(flags, 6)), 6),  # a beat is missing: an early end
        (flagged(3 * words - 1, 2), 3 * words - 1),
        (flagged(13, 2), 13),
        (flagged(13, 1), 13),
        # rows too many
        (lambda values, flags: (np.concatenate([values, values[4:18]]), np.r_[flags, flags[4:18]]), None),
    ):
        good, bad = _maps(frame, front), _maps(frame, front, wrong)
        masked = np.zeros((rows, cols), bool)
        masked.reshape(-1)[len(frame) * cols if lost is None else lost * PIXELS :] = True
        shots = [Shot(frame), Shot(frame, bad=masked, flags=EndFlag(0 if lost is None else 8)), Shot(frame)]
        if bad[1][13] == 1:
            shots.pop()  # what follows a start in mid-frame is taken for the next frame's maps
        script = cases.settings(_front(rows, cols), Script(PIXELS)).write("maps", 1)
        script.map_beats(*(np.concatenate(parts) for parts in zip(good, bad, good, strict=True)))
        for _ in shots:
            script.frame(frame)
        found = run(simulator, script.pace(0, 0).wait(500), seed=lost or 0)
        assert differences(as_records(found.raw), Pipeline(front, circuit).records(shots)) == []


def test_maps_are_for_those_who_ask_and_wait_for_no_one_else(bench):
    circuit, simulator = bench
    rng = np.random.default_rng(15)
    frame = rng.integers(0, 200, (9, 32))
    plain = _front(9, 32, threshold=20)
    front = _front(9, 32, dark=rng.integers(0, 30, (9, 32)), threshold=rng.integers(3, 60, (9, 32)))
    none = np.zeros((0, 2, PIXELS), np.uint16), np.zeros(0, np.uint32)
    # No maps come: the frame waits, and what is aborted has one word, masked.
    script = cases.settings(plain, Script(PIXELS)).write("maps", 1)
    script.part(frame, 0, 1).wait(300).write("abort", 1).wait(300)
    # They cease to come in mid-row.
    script.maps(front.dark, front.threshold).part(frame, 0, 9).map_beats(*none).wait(300).write("abort", 1).wait(300)
    script.maps(front.dark, front.threshold).frame(frame).wait(500)
    # Nobody asks for those that come.
    found = run(simulator, script.write("maps", 0).frame(frame).wait(500))
    gone = Shot(frame[:1], bad=np.ones((1, 32), bool), flags=EndFlag(15))
    (first,) = Pipeline(front, circuit).records([gone])
    cut = [*rows_of(frame)[:2], Row(frame[2, :8], ended=False), rows_of(frame)[0]]
    (second,) = Pipeline(front, circuit).stream(cut, first=1)
    (third,) = Pipeline(front, circuit).records([frame], first=2)
    (fourth,) = Pipeline(plain, circuit).records([frame], first=3)
    assert differences(as_records(found.raw), [first, second, third, fourth]) == []


def test_what_cannot_be_built_is_refused(random_circuit):
    for wrong, text in (
        ({"pixels": 3}, "3 pixels a clock"), ({"bits": 17}, "17 bits"), ({"max_cols": 30}, "30 columns"),
        ({"window": 5}, "window of 5"), ({"min_area": 5}, "5 pixels or more"), ({"places": 48}, "48 places"),
        ({"max_rows": 3}, "3 rows"), ({"bad_words": 100}, "100 words with bad pixels"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=text):
            dataclasses.replace(Geometry(4, 8, 64, 4096), **wrong)
    with pytest.raises(UserError, match="window is 3 px and the front end's 7"):
        sources(random_circuit(window=3), Geometry(4, 8, 64))


def test_the_page_has_the_map_of_the_registers():
    page = (Path(__file__).parents[1] / "docs/reference/front_end.md").read_text()
    assert registers.table() in page, "put hls.rtl.front_end.registers.table() into docs/reference/front_end.md"
    offsets = [one.offset for one in registers.REGISTERS]
    assert offsets == sorted(set(offsets))
    assert max(offsets) < registers.SPACE


@pytest.mark.parametrize(
    ("pixels", "bits", "cols", "window", "options"),
    [
        (32, 12, 96, 9, {"significance": True, "bad_words": 16, "dark": True, "thresholds": True}),
        pytest.param(1, 8, 13, 11, {}, marks=pytest.mark.slow),
    ],
)
def test_verilator_finds_nothing_to_say(pixels, bits, cols, window, options, random_circuit, tmp_path):
    circuit = random_circuit(window=window, sigma=pixels == 1, normalizer=BlockShift(4, 8))
    write_front_end(
        circuit, Geometry(pixels, bits, cols, window=window, **options), tmp_path / "project", effort=Effort(trials=2)
    )
    files = sorted(str(path) for path in (tmp_path / "project" / "src").glob("*.v"))
    arguments = ["--lint-only", "-Wall", "--top-module", NAME, str(tmp_path / "project" / "lint.vlt"), *files]
    tools.call(tools.VERILATOR, arguments, tmp_path, tmp_path / "lint.log")


def test_every_mutation_has_its_place(bench, random_circuit):
    circuit = random_circuit(window=7, sigma=True, normalizer=BlockShift(4, 7))
    found = sources(circuit, bench[1].geometry, effort=Effort(trials=2))
    assert len(mutations.MUTATIONS) >= 30
    changed = mutations.instrumented(found)
    for number, one in enumerate(mutations.MUTATIONS, 1):
        if one.module in mutations.OTHER_TESTS:
            continue
        assert f"(mutant == {number} ?" in changed[one.module]
    with pytest.raises(UserError, match="occurs 0 times"):
        mutations.instrumented({**found, "braggnn_fe_pixels.v": "module braggnn_fe_pixels (\n);\nendmodule"})


def test_the_table_of_the_configuration():
    assert FrontEndSpec().pixels == 0
    assert FrontEndSpec(16, 12, 1024).geometry(9) == Geometry(16, 12, 1024, window=9)
    with pytest.raises(UserError, match="3 pixels a clock"):
        FrontEndSpec(3)
    with pytest.raises(UserError, match="bits = 12 has no effect without pixels"):
        FrontEndSpec(bits=12, places=64)


class _Table:
    """As much of a table of labelled peaks as the stage asks for."""

    def __init__(self, patches):
        self._patches = patches

    def of(self, split):
        return self

    def patches(self):
        return self._patches


def test_the_stage_writes_a_front_end_where_one_is_asked_for(random_circuit, detector_patches, tmp_path):
    circuit = random_circuit(window=7, hidden=(2,), density=0.2, centroid=False)
    save(circuit, tmp_path / "locator.json")
    said = []
    spec = RtlSpec(vectors=3, front_end=FrontEndSpec(2, 8, 64))
    rtl_stage.run(spec, _Table(detector_patches(circuit, 5)), tmp_path, tmp_path / "rtl", said.append)
    made = tmp_path / "rtl" / "front_end"
    assert {path.name for path in made.iterdir()} == {
        "src", "lint.vlt", "registers.h", "registers.md", "project.json", "locator.json", "README.txt", "vectors", "tb",
        "sim", "constraints", "vivado.tcl", "quartus.tcl", "component.xml", "package_ip.tcl",
    }  # fmt: skip
    document = json.loads((made / "project.json").read_text())
    assert (document["pixels"], document["clock_mhz"]) == (2, 400.0)
    assert load(made / "locator.json").digest == circuit.digest
    assert not any(re.search(r"@[A-Z][A-Z_0-9]*@", path.read_text()) for path in (made / "src").iterdir())
    readme = (made / "README.txt").read_text()
    assert f"verilator --lint-only -Wall --top-module {NAME} lint.vlt src/*.v" in readme
    assert "tdata 16 bits, 2 pixels of 8 bits" in readme
    for dtype in (RECORD, END_RECORD):
        for name in dtype.names:
            assert re.search(rf"^ +{dtype.fields[name][1]} \w\d +{name} ", readme, re.M)
    header = (made / "registers.h").read_text()
    assert "#define BRAGGNN_FRONT_END_THRESHOLD 0x58u" in header
    assert "#define BRAGGNN_FRONT_END_BUILD_PIXELS 2u" in header
    assert f"#define BRAGGNN_FRONT_END_DIGEST_0_VALUE 0x{circuit.digest[:8].upper()}u" in header
    assert "2 pixels of 8 bits a clock" in said[-1]
    with pytest.raises(UserError, match="exists"):
        write_front_end(circuit, Geometry(2, 8, 64), made)


SHAPES = [
    (1, 8, 13, 7, 4, {}),
    (16, 12, 64, 9, 2, {"significance": True, "bad_words": 32, "dark": True}),
    (32, 16, 96, 11, 1, {"bad_words": 64, "thresholds": True}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("pixels", "bits", "cols", "window", "area", "options"), SHAPES)
def test_other_shapes(pixels, bits, cols, window, area, options, random_circuit, tmp_path):
    circuit = random_circuit(window=window, sigma=pixels != 8, normalizer=BlockShift(4, 10))
    geometry = Geometry(pixels, bits, cols, window=window, min_area=area, places=PLACES, **options)
    simulator = build(sources(circuit, geometry, effort=Effort(trials=2)), geometry, tmp_path, optimize="-O0")
    for seed, (case, pace) in enumerate(cases.random_cases(pixels, geometry, 40)):
        expected = case.expected(circuit)
        found = run(simulator, cases.script_of(case, pace, geometry, sum(map(len, expected))), seed=seed)
        assert differences(as_records(found.raw), expected) == []
    front = FrontEnd(rows=40, cols=cols // pixels * pixels, bits=bits, window=window, min_area=area, threshold=5)
    lattice = _lattice(40, front.cols)
    expected = list(Pipeline(front, circuit).records([lattice, lattice]))
    found = run(simulator, cases.settings(front, Script(pixels)).frame(lattice).frame(lattice).wait(2000))
    assert differences(as_records(found.raw), expected) == []
    assert pixels == 32 or found.throttled == 0


@pytest.mark.slow
def test_a_project_of_long_rows_has_time_for_them(random_circuit, tmp_path):
    """At a pixel a clock the rows that clear the memories and those behind a frame take tens of thousands of clocks."""
    circuit = random_circuit(window=11, normalizer=BlockShift(4, 7))
    project = tmp_path / "front_end"
    write_front_end(circuit, Geometry(1, 8, 4096, 64, window=11, places=PLACES), project, effort=Effort(trials=2))
    found = simulate(project, tmp_path / "build", lambda text: None)
    assert (found.streams, found.wrong, found.first) == (4, 0, "")


@pytest.mark.skipif("FRONT_END_MUTANT" in os.environ, reason="of sources without a mutation")
def test_the_project_as_written_sends_the_records_of_its_vectors(bench, tmp_path):
    """What `make csim` does with a front end; a record of the vectors that is wrong is found, and named."""
    circuit, simulator = bench
    project = tmp_path / "front_end"
    write_front_end(circuit, simulator.geometry, project, effort=Effort(trials=2))
    said = []
    found = simulate(project, simulator.path.parents[1], said.append)  # compiled before: the same sources
    assert (found.streams, found.frames, found.wrong, found.first) == (5, 33, 0, "")
    assert found.records > 100
    assert "0 wrong of 15 runs, 33 frames" in said[0]
    path = project / "vectors" / "faults.records.hex"
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:6] + f"{int(lines[1][6], 16) ^ 1:x}" + lines[1][7:]
    path.write_text("\n".join(lines) + "\n")
    found = simulate(project, simulator.path.parents[1], said.append)
    assert found.wrong == 3
    assert found.first.startswith("vector faults, gaps 0, stalls 0 of 256: frame 0, record 1")
    (project / "vectors" / "faults.beats.hex").write_text("no number\n")
    with pytest.raises(UserError, match="not a vector"):
        simulate(project, simulator.path.parents[1], said.append)
    (project / "project.json").write_text("{}")
    with pytest.raises(UserError, match="not a front end"):
        simulate(project, simulator.path.parents[1], said.append)

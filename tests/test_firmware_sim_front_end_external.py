"""A front end whose locator is outside, behind two streams, and takes its time."""

import dataclasses

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from firmware_sim.front_end import cases, mutations
from firmware_sim.front_end.compare import as_records, differences
from firmware_sim.front_end.project import simulate
from firmware_sim.front_end.simulate import Script, run
from hls.rtl.front_end.external import beats, patches_of, stored_patch
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.project import NAME, sources, write_front_end
from hls.rtl.front_end.wrapper import HLS_TOP, WRAPPER
from hls.tools import programs as tools
from quant.contract.block_shift import BlockShift
from quant.front_end.pipeline import Pipeline
from quant.front_end.records import END, END_RECORD, RecordFlag
from quant.front_end.spec import FrontEnd
from quant.front_end.stream import rows_of

PIXELS, BITS, PLACES = 8, 13, 32
#: Clocks that the slowest of these locators takes for a patch.
SLOW = 400


@pytest.fixture(scope="module")
def bench(tmp_path_factory, random_circuit):
    """A locator for counts of 7 bits, and a compiled front end that it is not in, with all options."""
    locator = random_circuit(window=7, sigma=True, normalizer=BlockShift(4, 7))
    geometry = Geometry(
        PIXELS, BITS, 128, 4096, window=7, places=PLACES, significance=True, bad_words=64, dark=True, thresholds=True,
        external=True,
    )  # fmt: skip
    return locator, mutations.simulator(sources(locator, geometry), geometry, tmp_path_factory.mktemp("front"))


def _front(rows, cols, **given):
    return FrontEnd(rows=rows, cols=cols, bits=BITS, window=7, **given)


def _script(bench, front, frames, user=0, **pace):
    """A script whose external locator knows the patches of the frames and of the stored one."""
    locator, simulator = bench
    rows = [row for frame in frames for row in rows_of(frame)]
    patches = np.concatenate([patches_of(front, rows, locator), stored_patch(simulator.geometry, locator)])
    answers = beats(locator.run(locator.inputs(patches)), locator)
    return Script(PIXELS).locator(patches, answers, user).locator_pace(**pace)


def _spots(rows, cols, seed=0, number=6):
    rng = np.random.default_rng(seed)
    frame = np.full((rows, cols), 9, np.uint16)
    for _ in range(number):
        row, col = rng.integers(3, rows - 3), rng.integers(3, cols - 3)
        frame[row - 1 : row + 2, col - 1 : col + 2] = rng.integers(20, 100, (3, 3))
        frame[row, col] = 120 + rng.integers(0, 100)
    return frame


def _lattice(rows, cols):
    frame = np.full((rows, cols), 10, np.uint16)
    frame[3::4, 3::4] = 200
    return frame


@pytest.mark.parametrize("seed", range(8))
def test_every_record_is_the_contracts_however_long_the_locator_takes(seed, bench):
    locator, simulator = bench
    geometry = simulator.geometry
    for case, pace in cases.random_cases(seed, geometry, 2):
        expected = case.expected(locator)
        patches = patches_of(case.front, case.rows, locator)
        script = Script(PIXELS).locator(patches, beats(locator.run(locator.inputs(patches)), locator))
        # As fast as a patch comes, so that nothing is dropped with few places; or with breaks and a long way.
        script.locator_pace(1 + 40 * (seed % 4), 0, 128 * (seed % 2))
        play = cases.script_of(case, pace, geometry, sum(map(len, expected)))
        found = run(simulator, dataclasses.replace(script, words=script.words + play.words), seed=seed)
        records = as_records(found.raw)
        ends = records[records["kind"] == END].view(END_RECORD)
        if ends["dropped"].sum() == 0:
            assert differences(records, expected) == []
            continue
        # What was dropped is counted, frame by frame, and what is left is the contract's.
        assert ends["peaks"].tolist() == [len(one) for one in _frames(records)]
        assert (ends["peaks"] + ends["dropped"]).tolist() == [len(one) - 1 for one in expected]
        _require_some_of(records, expected)


def _frames(records):
    stops = np.flatnonzero(records["kind"] == END)
    return np.split(records[records["kind"] != END], stops - np.arange(len(stops)))[:-1]


def _require_some_of(records, expected):
    known = {one.tobytes() for frame in expected for one in frame}
    assert all(one.tobytes() in known for one in records[records["kind"] != END])


def test_a_slow_locator_loses_whole_peaks_and_counts_them(bench):
    locator, simulator = bench
    front = _front(20, 128, threshold=5)
    frames = [_lattice(20, 128), _spots(20, 128)]
    expected = list(Pipeline(front, locator).records(frames))
    script = cases.settings(front, _script(bench, front, frames, latency=9, interval=SLOW))
    for frame in frames:
        script.frame(frame).wait(40_000)
    records = as_records(run(simulator, script.wait(100)).raw)
    ends = records[records["kind"] == END].view(END_RECORD)
    assert ends["dropped"][0] > 50
    assert ends["peaks"][0] + ends["dropped"][0] == len(expected[0]) - 1
    # The end record has a place of its own.
    assert ends["record_high_water"][0] == PLACES
    _require_some_of(records, expected)
    # Nothing of it is left behind: the next frame is whole.
    assert differences(records[records["frame"] == 1], expected[1:]) == []
    assert ends["dropped"][1] == 0


def test_the_next_frame_comes_while_the_locator_has_peaks_of_the_last(bench):
    locator, simulator = bench
    front = _front(16, 64, threshold=11)
    frames = [_spots(16, 64, seed) for seed in range(5)]
    expected = list(Pipeline(front, locator).records(frames))
    script = cases.settings(front, _script(bench, front, frames, latency=SLOW, interval=SLOW))
    for frame in frames:
        script.frame(frame)
    found = run(simulator, script.until(sum(map(len, expected)), 100_000).wait(50))
    assert differences(as_records(found.raw), expected) == []
    # All pixels were taken before the first frame's end record had left.
    first_end = found.clocks[np.flatnonzero(as_records(found.raw)["kind"] == END)[0]]
    assert found.last_word < first_end
    assert found.throttled == 0


def test_every_peak_has_the_limit_of_its_own_frame(bench):
    locator, simulator = bench
    frames = [_spots(16, 64, seed) for seed in (5, 6)]
    fronts = [_front(16, 64, threshold=11, sigma_limit=limit) for limit in (-256, 32767)]
    expected = [
        next(iter(Pipeline(front, locator).records([frame], number)))
        for number, (front, frame) in enumerate(zip(fronts, frames, strict=True))
    ]
    assert (expected[0]["flags"][:-1] & RecordFlag.NOT_TRUSTED).all()
    script = cases.settings(fronts[0], _script(bench, fronts[0], frames, latency=SLOW, interval=SLOW))
    script.frame(frames[0]).wait(70).write("sigma_limit", 32767).frame(frames[1])
    found = run(simulator, script.until(sum(map(len, expected)), 100_000).wait(50))
    assert differences(as_records(found.raw), expected) == []
    assert found.last_word < found.clocks[0] + SLOW


def test_the_stored_frame_waits_for_the_locator_and_passes(bench):
    locator, simulator = bench
    front = _front(16, 64, threshold=11)
    frames = [_spots(16, 64, seed) for seed in (7, 8)]
    expected = list(Pipeline(front, locator).records(frames))
    script = cases.settings(front, _script(bench, front, frames, latency=SLOW, interval=SLOW)).frame(frames[0])
    script.wait(200).write("test", 1).read("status").frame(frames[1]).wait(30_000).read("status")
    found = run(simulator, script.until(sum(map(len, expected)), 100_000).wait(50))
    waiting, done = (value for value, _ in found.answers[-2:])
    assert waiting == 0b0011  # a frame is in hand, the test waits
    assert done == 0b1100
    assert differences(as_records(found.raw), expected) == []


def test_a_stored_frame_that_is_answered_otherwise_does_not_pass(bench):
    locator, simulator = bench
    patch = stored_patch(simulator.geometry, locator)
    codes = locator.run(locator.inputs(patch))
    codes[0, 1] ^= 1
    front = _front(16, 64)
    script = cases.settings(front, Script(PIXELS).locator(patch, beats(codes, locator)))
    found = run(simulator, script.write("test", 1).wait(2000).read("status"))
    assert found.answers[-1] == (0b0100, 0)


def test_counts_begin_anew_when_the_locator_has_answered(bench):
    locator, simulator = bench
    front = _front(16, 64, threshold=11)
    frames = [_spots(16, 64, seed) for seed in (1, 2)]
    expected = [one.copy() for one in Pipeline(front, locator).records(frames)]
    expected[1] = next(iter(Pipeline(front, locator).records(frames[1:])))
    script = cases.settings(front, _script(bench, front, frames, latency=SLOW, interval=SLOW)).frame(frames[0])
    script.wait(100).write("enable", 0).write("enable", 1).frame(frames[1])
    found = run(simulator, script.until(sum(map(len, expected)), 100_000).wait(50).read("frames").read("peaks"))
    records = as_records(found.raw)
    first = np.flatnonzero(records["kind"] == END)[0] + 1
    assert differences(records[:first], expected[:1]) == []
    assert differences(records[first:], expected[1:]) == []
    assert [value for value, _ in found.answers[-2:]] == [1, len(expected[1]) - 1]


@pytest.mark.parametrize("after", [37, 64, 151, 300])
def test_a_reset_in_the_middle_of_a_patch(after, bench):
    locator, simulator = bench
    front = _front(16, 64, threshold=11)
    frames = [_spots(16, 64, seed) for seed in (3, 4)]
    expected = list(Pipeline(front, locator).records(frames[1:]))
    script = cases.settings(front, _script(bench, front, frames, latency=20, interval=0, stalls=100))
    script.frame(frames[0]).wait(after).reset()
    cases.settings(front, script).frame(frames[1])
    records = as_records(run(simulator, script.wait(20_000)).raw)
    assert differences(records[-len(expected[0]) :], expected) == []


def test_a_patch_of_another_length_is_not_trusted(bench):
    locator, simulator = bench
    front = _front(16, 64, threshold=11)
    frames = [_spots(16, 64)]
    expected = [one.copy() for one in Pipeline(front, locator).records(frames)]
    inside = (expected[0]["kind"] != END) & (expected[0]["flags"] & RecordFlag.EDGE == 0)
    assert inside.any()
    script = cases.settings(front, _script(bench, front, frames, user=1)).frame(frames[0])
    records = as_records(run(simulator, script.until(len(expected[0]), 20_000).wait(50)).raw)
    expected[0]["flags"][inside] |= int(RecordFlag.NOT_TRUSTED)
    peaks = records["kind"] != END
    assert (records[peaks] == expected[0][peaks]).all()


def test_there_is_no_locator_inside(random_circuit):
    locator = random_circuit(window=7, sigma=False, normalizer=BlockShift(4, 7))
    found = sources(locator, Geometry(PIXELS, BITS, 128, window=7, external=True))
    assert not any("core" in name for name in found)
    assert "m_patch_tdata" in found[f"{NAME}.v"]
    assert "m_patch_tdata" not in sources(locator, Geometry(PIXELS, BITS, 128, window=7))[f"{NAME}.v"]


def test_the_project_says_what_passes_and_a_wrong_answer_is_seen(tmp_path, random_circuit):
    locator = random_circuit(window=7, sigma=True, normalizer=BlockShift(4, 7))
    geometry = Geometry(4, 8, 64, 512, window=7, external=True)
    write_front_end(locator, geometry, tmp_path / "project")
    same = simulate(tmp_path / "project", tmp_path / "build", lambda _: None)
    assert (same.wrong, same.first) == (0, "")

    def other(patches):
        codes = locator.run(locator.inputs(patches))
        codes[0, 0] += 1
        return codes

    assert simulate(tmp_path / "project", tmp_path / "build", lambda _: None, other).wrong > 0
    patches = next((tmp_path / "project" / "vectors").glob("*.patches.hex"))
    patches.write_text("f" * 49 * 2 + "\n" + "".join(patches.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserError, match="a patch came by m_patch that is not known"):
        simulate(tmp_path / "project", tmp_path / "build", lambda _: None)


def test_front_end_and_hls_project_fit_together(tmp_path, random_circuit):
    locator = random_circuit(window=7, sigma=True, normalizer=BlockShift(4, 7))
    project = tmp_path / "project"
    write_front_end(locator, Geometry(4, 8, 64, 512, window=7, external=True), project)
    # In place of what the vendor's tool makes: a module with its ports, which answers every patch with 0.
    stub = tmp_path / f"{HLS_TOP}.v"
    stub.write_text(f"""
module {HLS_TOP} (
    input ap_clk, input ap_rst_n,
    input [7:0] counts_TDATA, input [0:0] counts_TKEEP, input [0:0] counts_TSTRB, input [0:0] counts_TUSER,
    input [0:0] counts_TLAST, input [0:0] counts_TID, input [0:0] counts_TDEST, input counts_TVALID,
    output counts_TREADY,
    output [63:0] outputs_TDATA, output [7:0] outputs_TKEEP, output [7:0] outputs_TSTRB, output [0:0] outputs_TUSER,
    output [0:0] outputs_TLAST, output [0:0] outputs_TID, output [0:0] outputs_TDEST, output reg outputs_TVALID,
    input outputs_TREADY
);
    assign {{counts_TREADY, outputs_TDATA}} = {{outputs_TREADY | ~outputs_TVALID, 64'd0}};
    assign {{outputs_TKEEP, outputs_TSTRB, outputs_TUSER, outputs_TLAST, outputs_TID, outputs_TDEST}} = 0;
    always @(posedge ap_clk) outputs_TVALID <= ap_rst_n & counts_TVALID & counts_TREADY & counts_TLAST;
endmodule
""")
    arguments = ["--lint-only", "-Wall", "-Wno-DECLFILENAME", "-Wno-UNUSEDSIGNAL", "-Wno-PINCONNECTEMPTY"]
    arguments += ["--top-module", WRAPPER, str(project / "lint.vlt"), str(project / f"{WRAPPER}.v"), str(stub)]
    files = [str(path) for path in sorted((project / "src").glob("*.v"))]
    tools.call(tools.VERILATOR, [*arguments, *files], tmp_path, tmp_path / "lint.log")

"""From the detector's link to the network card: the rates, and that the page's commands and programs run."""

import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

from braggnn_edge import cli
from braggnn_edge.core.errors import UserError
from hls.rtl.front_end import rates, registers
from hls.rtl.front_end.header import header
from hls.rtl.front_end.rates import CLOCKS, DETECTORS, Detector, least, need
from quant.contract.locator import load
from quant.front_end.pipeline import Pipeline
from quant.front_end.records import RECORD, RecordFlag, decode
from quant.front_end.spec import FrontEnd
from quant.shipped import path_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/how_to/detector_link.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_a_frame_takes_its_words_and_the_pause() -> None:
    asked = need(2048, 2048, 1000.0, 16, window=9, stages=16)
    assert asked.words == 2048 * 128
    assert asked.pause == 4 * 128 + 2 + 42 + 11
    assert asked.hertz == 1000 * asked.clocks == 1000 * (asked.words + asked.pause)
    assert asked.margin(2 * asked.hertz) == 0.5
    assert need(2048, 2041, 1000.0, 16, window=9, stages=16) == asked  # columns are padded
    assert need(100, 8, 1.0, 8).clocks > 3 * 100  # a row of one word waits


def test_the_queue_holds_what_comes_in_a_pause() -> None:
    """Played clock by clock: a source that sends evenly, a front end that takes a word a clock but in its pauses."""
    asked = need(50, 400, 1e6, 8)
    clock = asked.hertz / 0.9
    a_clock = asked.words * asked.hertz / asked.clocks / clock
    come, held, most, taken, waits = 0.0, 0, 0, 0, 0
    for _ in range(12 * asked.clocks):
        come += a_clock
        held, come = held + int(come), come - int(come)
        most = max(most, held)
        if waits:
            waits -= 1
        elif held:
            held, taken = held - 1, taken + 1
            if taken % asked.words == 0:
                waits = asked.pause
    assert taken > 10 * asked.words
    assert asked.queue(clock) - 3 <= most <= asked.queue(clock)


def test_the_fewest_pixels_a_clock_that_are_enough_are_taken() -> None:
    for one in DETECTORS:
        for clock in CLOCKS:
            fronts, found = least(one, clock)
            assert found.hertz <= clock
            if fronts == 1 and found.pixels > 1:
                assert need(one.rows, one.cols, one.frames, found.pixels // 2).hertz > clock
            if fronts > 1:
                assert need(one.rows, one.cols, one.frames, 32).hertz > clock
    with pytest.raises(UserError, match="pixels a second are too many"):
        least(Detector("too fast", 20, 2048, 1e9, 16), 150e6)


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--rows", "100"], "belong together"), (["--rows", "0", "--cols", "9", "--frames-per-second", "1"], "0 x 9 px"),
     (["--clock", "0"], "expected positive numbers of MHz"), (["--window", "5"], "window of 5 px"),
     (["--stages", "0"], "stages 0"), (["--pixels", "16"], "--pixels needs --rows"),
     (["--rows", "9", "--cols", "9", "--frames-per-second", "1", "--pixels", "12"], "12 pixels a clock"),
     (["--rows", "70000", "--cols", "9", "--frames-per-second", "1"], "70000 rows")],
)  # fmt: skip
def test_what_cannot_be_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rates.main(words) == 2
    assert said in capsys.readouterr().err


def test_the_command_of_rates_on_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    command = shlex.split(blocks("sh")[0])
    assert command[:3] == ["python", "-m", "hls.rtl.front_end.rates"]
    assert rates.main(command[3:]) == 0
    assert "| yours | 2167 x 2070 | 750 | 16 | 3,364 | 16 px, 15%," in capsys.readouterr().out


def test_a_given_number_of_pixels_a_clock_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    asked = need(514, 1030, 2000.0, 8)
    detector = ["--rows", "514", "--cols", "1030", "--frames-per-second", "2000"]
    assert rates.main([*detector, "--pixels", "8", "--clock", "100", "--clock", "250"]) == 0
    said = capsys.readouterr().out
    assert f"at least {asked.hertz / 1e6:.1f} MHz" in said
    assert f"at 250 MHz: {asked.margin(250e6):.0%} to spare, a queue of {asked.queue(250e6)} words" in said
    assert f"at 100 MHz: too slow, {asked.margin(100e6):.0%}" in said
    assert asked.margin(100e6) < 0 < asked.margin(250e6)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """(3, 60, 64) counts: spots, some of them at the borders and in the middle row."""
    rng = np.random.default_rng(5)
    found = rng.poisson(8.0, (3, 60, 64)).astype(np.float64)
    row, col = np.mgrid[:60, :64]
    for index in range(3):
        places = [(30, 12), (29, 40), (31, 55), (27, 25), (33, 33), *rng.uniform(0, 59, (14, 2))]
        for r, c in places:
            found[index] += rng.uniform(80, 900) * np.exp(-((row - r - 0.2) ** 2 + (col - c + 0.3) ** 2) / 2.5)
    return found.astype(np.uint16)


def test_the_programs_on_the_page_run(
    frames: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = frames
    monkeypatch.chdir(tmp_path)
    command = shlex.split(blocks("sh")[1])
    assert command[:2] == ["braggnn-edge", "locate"]
    assert cli.main([*command[1:], "--workers", "1", "--no-check", "--backend", "emulator"]) == 0
    peaks = len(decode((tmp_path / "records.bin").read_bytes()).peaks)
    programs = blocks("python")
    assert len(programs) == 3
    raw = np.fromfile(tmp_path / "records.bin", RECORD)

    def said(program: str) -> list[str]:
        capsys.readouterr()
        exec(compile(program, "the page", "exec"), {})
        return capsys.readouterr().out.splitlines()

    assert said(programs[0]) == ["212 MHz at least; at 250 MHz 15% to spare, queue 378"]
    assert said(programs[1]) == [f"3 frames, {peaks} peaks, 0 dropped"]
    np.delete(raw, 0).tofile(tmp_path / "records.bin")
    assert said(programs[2]) == ["2 frames are complete; of 1 records were lost: [0]"]


def test_bands_that_overlap_send_what_one_front_end_sends(frames: np.ndarray) -> None:
    locator = load(path_of("shipped_circuit"))
    half, middle = locator.window // 2, 30

    def sent(counts: np.ndarray, first: int) -> set[tuple[int, ...]]:
        front = FrontEnd(*counts.shape[1:], threshold=60, window=locator.window)
        found = np.concatenate(list(Pipeline(front, locator).records(counts)))
        found = found[(found["kind"] == 0) & ((found["flags"] & RecordFlag.EDGE) == 0)].copy()
        found["row"] += first << locator.output.frac
        found["peak_row"] += first
        return {tuple(one) for one in found.tolist()}

    whole = sent(frames, 0)
    above, below = sent(frames[:, : middle + half], 0), sent(frames[:, middle - half :], middle - half)
    assert above | below == whole
    assert not above & below
    assert above
    assert below


def test_names_of_registers_in_the_c_program_are_those_of_the_map() -> None:
    (program,) = blocks("c")
    names = {one.name.upper() for one in registers.REGISTERS}
    values = {name.removesuffix("_VALUE") for name in re.findall(r"BRAGGNN_FRONT_END_(\w+_VALUE)", program)}
    assert values <= names
    assert set(re.findall(r"FE\((\w+)\)", program)) - {"name"} <= names
    assert "BRAGGNN_FRONT_END_IDENTITY_VALUE" in header({}, (), "0" * 64)

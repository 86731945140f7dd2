"""``locate --records``: the list of peaks and the firmware's records of the same frames say the same."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from braggnn_edge import cli
from braggnn_edge.locate import locating
from braggnn_edge.locate.frames import flagged
from braggnn_edge.peaks import peak_file
from braggnn_edge.peaks.peak_list import PeakFlag
from quant.contract.locator import load
from quant.front_end.listed import peak_rows
from quant.front_end.records import Decoded, RecordFlag, decode, positions
from quant.shipped import path_of

FRAMES, SIDE = 10, 64
#: Rows, columns and heights: lone ones, two of one component, saturated, near and at the edge, on a bad pixel.
SPOTS = (
    (14, 14, 900), (14, 45, 3000), (44, 42, 2000), (44, 47, 1500), (30, 20, 90_000), (4, 30, 800), (2, 50, 700),
    (50, 20, 900),
)  # fmt: skip
#: Columns that a record knows.
KNOWN = (
    "frame", "row", "col", "sigma_row", "sigma_col", "wide_row", "wide_col", "maximum", "pixel_row", "pixel_col",
)  # fmt: skip
OPTIONS = ("--threshold", "60.5", "--find", "window", "--saturation", "60000", "--workers", "1", "--no-check")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scan.h5, its frames with a dark in them; dark.h5 and mask.h5."""
    rng = np.random.default_rng(4)
    row, col = np.indices((SIDE, SIDE))
    frames = rng.poisson(10, (FRAMES, SIDE, SIDE)).astype(np.float64)
    for index in range(FRAMES):
        for r, c, height in SPOTS:
            r0, c0 = r + rng.uniform(-0.4, 0.4), c + rng.uniform(-0.4, 0.4)
            frames[index] += height * np.exp(-((row - r0) ** 2 + (col - c0) ** 2) / 3)
    dark = rng.integers(0, 30, (SIDE, SIDE)).astype(np.uint16)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[51, 21] = mask[10, 10] = 1
    found = tmp_path_factory.mktemp("records")
    for name, data in (("scan", np.minimum(frames + dark, 65535).astype(np.uint16)), ("dark", dark), ("mask", mask)):
        with h5py.File(found / f"{name}.h5", "w") as file:
            file["data"] = data
    return found


@pytest.fixture(scope="module")
def both(folder: Path) -> Callable[..., tuple[np.ndarray, Decoded]]:
    """The list and the records of a command."""

    def made(*options: str) -> tuple[np.ndarray, Decoded]:
        listed, records = folder / "a.h5", folder / "a.records"
        command = ["locate", str(folder / "scan.h5"), *OPTIONS, *options, "-o", str(listed), "--records", str(records)]
        assert cli.main(command) == 0
        return peak_file.load(listed)[0], decode(records.read_bytes())

    return made


@pytest.mark.parametrize("network", ["shipped_circuit", "shipped"])
@pytest.mark.parametrize("corrected", [False, True])
def test_list_and_records_agree(
    both: Callable[..., tuple[np.ndarray, Decoded]], folder: Path, monkeypatch: pytest.MonkeyPatch, network: str,
    corrected: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(locating, "_RUN", 4)  # several shards
    files = ("--dark", str(folder / "dark.h5"), "--mask", str(folder / "mask.h5")) if corrected else ()
    name = {"shipped_circuit": "universal_circuit", "shipped": "universal_layers"}[network]
    rows, records = both("--network", name, "--do-not-trust-above", "0.03", *files)
    peaks, locator = records.peaks, load(path_of(network))
    assert records.ends["frame"].tolist() == list(range(FRAMES))
    assert len(rows) == len(peaks) >= 7 * FRAMES
    listed = peak_rows(peaks, locator, np.arange(FRAMES) / 8)
    for column in KNOWN:
        assert np.array_equal(rows[column], listed[column], equal_nan=True), column
    assert np.array_equal(listed["omega"], rows["frame"] / 8)
    assert np.isnan(listed["intensity"]).all()

    flags = [PeakFlag.EDGE, PeakFlag.BAD_PIXEL, PeakFlag.NOT_TRUSTED]
    if not corrected:  # with a dark, a record compares the raw count, the list that above the dark
        flags.append(PeakFlag.SATURATED)
    for flag in flags:
        assert np.array_equal(flagged(rows, flag), flagged(listed, flag)), flag
        assert flagged(rows, flag).any() == (flag != PeakFlag.BAD_PIXEL or corrected), flag
    edge = flagged(listed, PeakFlag.EDGE)
    assert ((peaks["flags"] & RecordFlag.NOT_TRUSTED) > 0)[edge].all()
    assert np.array_equal(positions(peaks[edge], locator.output.frac)[:, 0], rows["pixel_row"][edge])
    # A window that fits is enough, whatever the patch of the labels: the spots in row 4 have a position in 7 x 7 px.
    assert edge[peaks["peak_row"] == 4].all() == (locator.window > 9)


def test_records_are_numbered_as_the_scan_and_the_rest_of_the_list_does_not_change(
    both: Callable[..., tuple[np.ndarray, Decoded]], folder: Path
) -> None:
    rows, records = both("--network", "universal_circuit", "--frames", "3:5")
    assert records.ends["frame"].tolist() == [3, 4]
    with_records = (folder / "a.h5").read_bytes()
    command = [*OPTIONS, "--network", "universal_circuit", "--frames", "3:5", "-o", str(folder / "a.h5")]
    assert cli.main(["locate", str(folder / "scan.h5"), *command]) == 0
    assert (folder / "a.h5").read_bytes() == with_records
    assert len(rows) == len(records.peaks)


def test_significance_is_the_same_in_list_and_records(
    both: Callable[..., tuple[np.ndarray, Decoded]], folder: Path
) -> None:
    """With a dark too, below which the list has negative counts around a peak and the records 0."""
    noisy = (
        "--threshold",
        "14",
        "--min-area",
        "2",
        "--network",
        "universal_circuit",
        "--dark",
        str(folder / "dark.h5"),
    )
    found = {}
    for deviations in ("0", "3", "6"):
        rows, records = both(*noisy, "--significance", deviations, "--frames", "0:4", "--mask", str(folder / "mask.h5"))
        for column, own in (("pixel_row", "peak_row"), ("pixel_col", "peak_col"), ("frame", "frame")):
            assert np.array_equal(rows[column], records.peaks[own])
        found[deviations] = {tuple(row) for row in rows[["frame", "pixel_row", "pixel_col"]].tolist()}
        about = peak_file.load(folder / "a.h5")[1]
        assert about.settings.get("significance", 0) == float(deviations)
    assert found["6"] < found["3"] < found["0"]
    assert len(found["6"]) >= 7 * 4  # the spots


def test_the_component_rule_has_the_test_of_significance_too(folder: Path) -> None:
    command = [
        "locate",
        str(folder / "scan.h5"),
        "--threshold",
        "14",
        "--min-area",
        "2",
        "--frames",
        "0:2",
        "--workers",
    ]
    number = {}
    for deviations in ("0", "4"):
        options = ["1", "--no-check", "--significance", deviations, "-o", str(folder / "a.h5")]
        assert cli.main([*command, *options]) == 0
        rows, about = peak_file.load(folder / "a.h5")
        assert about.settings.get("significance", 0) == float(deviations)
        number[deviations] = len(rows)
    assert 7 * 2 <= number["4"] < number["0"]


def test_pixels_that_are_bad_in_one_frame_are_masked_there(folder: Path, tmp_path: Path) -> None:
    with h5py.File(folder / "scan.h5") as file:
        frames = file["data"][:2].astype(np.int32)
    frames[1, 15, 15] = -1
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = frames
    command = ["locate", str(tmp_path / "scan.h5"), *OPTIONS, "--network", "universal_circuit", "--negative", "bad"]
    assert cli.main([*command, "-o", str(tmp_path / "a.h5"), "--records", str(tmp_path / "a.records")]) == 0
    rows, peaks = peak_file.load(tmp_path / "a.h5")[0], decode((tmp_path / "a.records").read_bytes()).peaks
    bad = (peaks["flags"] & RecordFlag.BAD_PIXEL) > 0
    assert np.array_equal(flagged(rows, PeakFlag.BAD_PIXEL), bad)
    assert peaks["frame"][bad].tolist() == [1]


def test_what_firmware_cannot_do_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(tmp_path / "wide.h5", "w") as file:
        file["data"] = np.full((2, SIDE, SIDE), 70_000, np.int32)
    with h5py.File(tmp_path / "float.h5", "w") as file:
        file["data"] = np.zeros((2, SIDE, SIDE), np.float32)
    with h5py.File(tmp_path / "dark.h5", "w") as file:
        file["data"] = np.full((SIDE, SIDE), 0.5, np.float32)
    scan, out = folder / "scan.h5", tmp_path / "a.h5"
    window = ("--find", "window", "--network", "universal_circuit")
    fixed = ("--threshold", "60", *window)
    records = ("--records", tmp_path / "a.records")
    for frames, options, message in (
        (scan, ("--threshold", "60", "--network", "universal_circuit", *records), "add --find window"),
        (scan, ("--threshold", "60", "--find", "window", *records), "choose universal_layers or universal_circuit"),
        (scan, (*fixed, "--records", tmp_path), "expected the name of a file in a folder that exists"),
        (scan, (*fixed, "--records", out), "give the records another"),
        (scan, ("--sigma", "5", "--background-box", "16", *window, *records), "does not follow the background"),
        (scan, (*fixed, "--min-area", "5", *records), "min_area 5; expected 1 to 4"),
        (scan, (*fixed, "--significance", "-1"), "significance of -1.0 deviations"),
        (scan, (*fixed, "--significance", "4", "--gain", "200"), "significance slope 105600: expected 0 to 65535"),
        (scan, ("--threshold", "60", "--significance", "-1"), "significance of -1.0 deviations"),
        (scan, (*fixed, "--dark", tmp_path / "dark.h5", *records), "the dark has fractions of a count"),
        (scan, (*fixed, "--do-not-trust-above", "1e-9", *records), "sigma of at most 1e-09 px"),
        (tmp_path / "float.h5", (*fixed, *records), "frames are float32; a front end takes whole counts"),
        (tmp_path / "wide.h5", (*fixed, "--no-check", *records), "frame 0: good pixels span 70000 to 70000 counts"),
    ):
        assert cli.main(["locate", str(frames), *map(str, options), "-o", str(out), "--workers", "1"]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "a.records").exists()

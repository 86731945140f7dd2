"""The command ``locate``: the list, its layouts, its flags, interruptions, workers, scenarios, and bad input."""

import csv
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from distributed import LocalCluster

from braggnn_edge import cli
from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats.braggnn import read_peaks, write_frames
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.label import labelling as label
from braggnn_edge.label.spec import PeakSpec, ScanSpec, SplitSpec
from braggnn_edge.locate import choice, locating, shard
from braggnn_edge.locate.frames import flagged, locate_frames
from braggnn_edge.locate.networks import network_file, open_network
from braggnn_edge.peaks import peak_file, table
from braggnn_edge.peaks.peak_list import PEAKS, REFLECTIONS, PeakFlag
from braggnn_edge.peaks.rules import component_rule
from braggnn_edge.shards import files
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from braggnn_edge.training.upstream import save_checkpoint

FRAMES, SIDE = 40, 64
#: Of every frame: three lone spots, two of one component, one whose patch does not fit.
SPOTS = ((14, 14), (14, 45), (44, 14), (44, 42), (44, 47), (3, 30))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BraggNN frames file, which has no rotation."""
    rng = np.random.default_rng(2)
    row, col = np.indices((SIDE, SIDE))
    images = rng.poisson(10, (FRAMES, SIDE, SIDE)).astype(np.float64)
    for index in range(FRAMES):
        for r, c in SPOTS:
            r0, c0 = r + rng.uniform(-0.4, 0.4), c + rng.uniform(-0.4, 0.4)
            images[index] += 3000 * np.exp(-((row - r0) ** 2 + (col - c0) ** 2) / 3)
    path = tmp_path_factory.mktemp("scan") / "a scan.h5"
    write_frames(path, images.astype(np.uint16), images.shape, np.dtype(np.uint16))
    return path


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locating, "_RUN", 8)


def locate(scan: Path | str, *options: str | Path, status: int = 0) -> None:
    assert cli.main(["locate", str(scan), *map(str, options)]) == status


ROTATION = ("--omega-start", "-5", "--omega-step", "0.25")


@pytest.fixture(scope="module")
def found(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of that scan in every layout."""
    out = tmp_path_factory.mktemp("found")
    names = ("peaks.h5", "peaks.csv", "peaks.flt", "peaks.midas.csv", "peaks.braggnn.h5")
    outputs = [word for name in names for word in ("-o", out / name)]
    locate(scan, "--threshold", "200", *ROTATION, "--beam-center", "32,30", *outputs)
    assert {path.name for path in out.iterdir()} == set(names)
    return out


def test_the_table_is_read_by_h5py_alone(found: Path) -> None:
    with h5py.File(found / "peaks.h5") as file:
        assert (file.attrs["NX_class"], file.attrs["default"]) == ("NXroot", "entry")
        assert (file["entry"].attrs["NX_class"], file["entry"].attrs["default"]) == ("NXentry", "peaks")
        table = file["entry/peaks"]
        assert (table.attrs["NX_class"], table.attrs["signal"], table.attrs["scans"].tolist()) == (
            "NXdata", "intensity", ["a_scan"],
        )  # fmt: skip
        columns = {name: data[:] for name, data in table.items()}
        units = {name: data.attrs["units"] for name, data in table.items()}
        masks, meanings = (table["flags"].attrs[name] for name in ("flag_masks", "flag_meanings"))
        assert file["entry/frames/omega"].shape == (FRAMES, 2)
    assert list(columns) == list(PEAKS.names)
    assert {len(column) for column in columns.values()} == {FRAMES * len(SPOTS)}
    assert (units["row"], units["omega"], units["intensity"], units["frame"]) == ("px", "deg", "counts", "1")
    assert dict(zip(meanings.split(), masks.tolist(), strict=True)) == {f.name: f.value for f in PeakFlag}
    assert np.array_equal(columns["omega"], -5 + 0.25 * (columns["frame"] + 0.5))  # of the middle of a frame


def test_positions_and_flags_are_those_of_the_spots(found: Path) -> None:
    rows, about = peak_file.load(found / "peaks.h5")
    assert about.shape == (FRAMES, SIDE, SIDE)
    assert about.settings["network"]["name"] == "universal"
    by_frame = rows.reshape(FRAMES, len(SPOTS))
    order = np.lexsort(np.array(SPOTS).T[::-1])
    assert np.abs(by_frame["pixel_row"] - np.array(SPOTS)[order, 0]).max() <= 1
    edge, double = flagged(rows, PeakFlag.EDGE), flagged(rows, PeakFlag.DOUBLE)
    assert edge.sum() == FRAMES
    assert double.sum() == 2 * FRAMES
    assert (rows["row"][edge] == rows["pixel_row"][edge]).all()
    assert np.isnan(rows["sigma_row"][edge]).all()
    assert (rows["sigma_row"][~edge] > 0).all()
    lone = ~edge & ~double
    assert rows["intensity"][lone] == pytest.approx(3000 * np.pi * 3, rel=0.03)
    assert rows["width_row"][lone] == pytest.approx(np.sqrt(1.5 + 1 / 12), rel=0.15)


def test_in_python_it_is_three_lines(scan: Path, found: Path) -> None:
    rows, _ = peak_file.load(found / "peaks.h5")
    pieces = list(locate_frames(open_network("universal"), open_scan("braggnn", scan), component_rule(200.0)))
    assert [np.concatenate(pieces)[name].tobytes() for name in ("row", "col", "sigma_row")] == [
        rows[name].tobytes() for name in ("row", "col", "sigma_row")
    ]


def test_positions_at_labelled_peaks_are_those_of_their_crops_to_the_bit(
    scan: Path, found: Path, tmp_path: Path
) -> None:
    spec = ScanSpec("spots", format="braggnn", path=str(scan), threshold=200.0, use=("test",))
    label.run((spec,), PeakSpec(), SplitSpec(), 1, tmp_path, tmp_path, tmp_path, 1, lambda _: None)
    labelled = table.load(tmp_path / "peaks.h5")
    offsets, sigma = open_network("universal").locate_with_sigma(labelled.patches())
    rows, _ = peak_file.load(found / "peaks.h5")
    key = ["frame", "pixel_row", "pixel_col"]
    at = {pixel: index for index, pixel in enumerate(rows[key].tolist())}
    mine = rows[[at[pixel] for pixel in labelled.peaks[["frame", "row", "col"]].tolist()]]
    assert len(mine) == FRAMES * (len(SPOTS) - 1)  # the label stage has no row for those at the edge
    expected = np.stack([labelled.peaks["row"] + offsets[:, 0], labelled.peaks["col"] + offsets[:, 1], *sigma.T], 1)
    given = np.stack([mine[name] for name in ("row", "col", "sigma_row", "sigma_col")], 1)
    assert given.tobytes() == expected.tobytes()


def test_csv_has_every_column_in_full(found: Path) -> None:
    rows, _ = peak_file.load(found / "peaks.h5")
    with (found / "peaks.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert list(read[0]) == list(PEAKS.names)
    for name in PEAKS.names:
        assert np.array_equal([float(line[name]) for line in read], rows[name].astype(float), equal_nan=True), name


def test_braggnn_layout_is_read_as_peaks(found: Path) -> None:
    rows, _ = peak_file.load(found / "peaks.h5")
    peaks = read_peaks(found / "peaks.braggnn.h5")
    assert np.array_equal(peaks["frame"], rows["frame"])
    assert np.array_equal(peaks["row"], rows["row"].astype(np.float32))
    assert np.array_equal(peaks["npeaks"] == 2, flagged(rows, PeakFlag.DOUBLE))


def test_midas_layout_has_its_columns(found: Path) -> None:
    rows, _ = peak_file.load(found / "peaks.h5")
    lines = (found / "peaks.midas.csv").read_text().splitlines()
    assert lines[0] == (
        "SpotID IntegratedIntensity Omega(degrees) YCen(px) ZCen(px) IMax MinOme(degrees) MaxOme(degress) "
        "SigmaR SigmaEta NrPx NrPxTot Radius(px) Eta(degrees)"
    )
    table = np.array([[float(word) for word in line.split()] for line in lines[1:]])
    assert np.array_equal(table[:, 0], np.arange(1, len(rows) + 1))
    assert np.abs(table[:, 3:5] - np.stack([rows["col"], rows["row"]], 1)).max() < 1e-6
    down, left = rows["row"] - 32, 30 - rows["col"]
    assert np.abs(table[:, 12] - np.hypot(down, left)).max() < 1e-5
    eta = np.radians(table[:, 13])  # from downwards, and negative for positive y, which is to the left
    assert np.abs(np.hypot(down, left) * np.cos(eta) - down).max() < 1e-4
    assert np.abs(np.hypot(down, left) * np.sin(eta) + left).max() < 1e-4


@pytest.mark.filterwarnings("ignore")  # of its own imports
def test_flt_is_read_by_imaged11(found: Path) -> None:
    columnfile = pytest.importorskip("ImageD11.columnfile", reason="ImageD11 is not installed (extra `imaged11`)")
    rows, _ = peak_file.load(found / "peaks.h5")
    read = columnfile.columnfile(str(found / "peaks.flt"))
    assert read.nrows == len(rows)
    for theirs, mine, most in (
        (read.sc, rows["row"], 1e-5), (read.fc, rows["col"], 1e-5), (read.omega, rows["omega"], 1e-5),
        (read.sum_intensity, rows["intensity"], 1e-3), (read.IMax_int, rows["maximum"], 1e-3),
        (read.Number_of_pixels, rows["area"], 0.1), (read.IMax_s, rows["pixel_row"], 0.1),
        (read.spot3d_id, np.arange(len(rows)), 0.1), (read.frame, rows["frame"], 0.1), (read.flags, rows["flags"], 0.1),
        (read.avg_intensity * read.Number_of_pixels, rows["intensity"], 0.1),
    ):  # fmt: skip
        assert np.abs(theirs - mine).max() < most
    read.filter(read.flags == 0)
    assert read.nrows == 3 * FRAMES


def test_flt_without_imaged11(found: Path) -> None:
    """What ImageD11 needs: a line of names behind ``#``, and numbers alone behind it."""
    rows, _ = peak_file.load(found / "peaks.h5")
    head, *lines = (found / "peaks.flt").read_text().splitlines()
    names = head.split()[1:]
    assert head.startswith("# sc fc omega Number_of_pixels avg_intensity ")
    table = np.array([[float(word) for word in line.split()] for line in lines])
    assert table.shape == (len(rows), len(names))
    assert np.abs(table[:, names.index("fc")] - rows["col"]).max() < 1e-5


def stopped_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the command be interrupted when so many shards are made."""
    original, made = shard.Task.work, []

    def work(task: shard.Task, path: Path) -> None:
        if len(made) == count:
            raise KeyboardInterrupt
        original(task, path)
        made.append(task.start)

    monkeypatch.setattr(shard.Task, "work", work)


OPTIONS = ("--threshold", "200", *ROTATION)


def test_an_interrupted_command_goes_on_and_gives_the_same_bytes(
    scan: Path, found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "peaks.h5"
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        locate(scan, *OPTIONS, "-o", out, status=130)
    assert not out.exists()
    assert len(list((tmp_path / "peaks.h5.partial").glob("shards-*/*.npz"))) == 2
    with monkeypatch.context() as patch:
        stopped_after(patch, 3)
        locate(scan, *OPTIONS, "-o", out)
    assert "16 of 40 frames were done before" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["peaks.h5"]
    assert out.read_bytes() == (found / "peaks.h5").read_bytes()


def test_another_command_begins_anew_and_says_why(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "peaks.h5"
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        locate(scan, *OPTIONS, "-o", out, status=130)
    locate(scan, *OPTIONS, "--min-area", "5", "-o", out)
    said = capsys.readouterr().out
    assert "peaks.h5.partial is of another command (scan min_area was 4, is 5): beginning anew" in said
    assert "were done before" not in said
    assert peak_file.load(out)[1].settings["scan"]["min_area"] == 5


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A float network, whose forms differ in the last bits."""
    torch.manual_seed(3)
    path = tmp_path / "net.pt"
    save_checkpoint(BraggNN(NetworkSpec(conv=(4,), dense=(5,), attention=False), 9), path)
    return path


def test_one_form_of_a_network_serves_a_whole_list(
    scan: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever goes on takes the form of the shards that are there, though another looks faster now."""
    out, options = tmp_path / "peaks.h5", (*OPTIONS, "--network", checkpoint)

    def looks_fast(form: str) -> None:
        monkeypatch.setattr(choice, "_rate", lambda locator, *_: 2000.0 if locator.name == form else 1000.0)
        monkeypatch.setattr(choice, "_remembered", lambda *_: None)
        shard._opened.cache_clear()

    locate(scan, *options, "--backend", "torch", "-o", tmp_path / "torch.h5")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        looks_fast("torch")
        locate(scan, *options, "-o", out, status=130)
    assert (
        "net.pt: torch, of compiled 1,000, onnxruntime 1,000, torch 2,000 patches/s and thread here"
        in capsys.readouterr().out
    )
    looks_fast("onnxruntime")
    locate(scan, *options, "-o", out)
    said = capsys.readouterr().out
    assert "16 of 40 frames were done before" in said
    assert "patches/s and thread here" not in said
    assert out.read_bytes() == (tmp_path / "torch.h5").read_bytes()
    assert peak_file.load(out)[1].settings["network"]["form"] == "torch"


def test_another_form_begins_anew_and_a_missing_one_is_chosen_again(
    scan: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, options = tmp_path / "peaks.h5", (*OPTIONS, "--network", checkpoint)
    for form in ("torch", "compiled"):
        with monkeypatch.context() as patch:
            stopped_after(patch, 2)
            locate(scan, *options, "--backend", form, "-o", out, status=130)
    assert "is of another command (network form was torch, is compiled): beginning anew" in capsys.readouterr().out
    command = tmp_path / "peaks.h5.partial" / "command.json"
    command.write_text(command.read_text().replace('"compiled"', '"none such"'))
    locate(scan, *options, "-o", out)
    assert "network form was none such, is " in capsys.readouterr().out
    locate(scan, *options, "--backend", "none", "-o", tmp_path / "b.h5", status=2)
    assert "backend 'none' is unknown; expected one of auto, compiled" in capsys.readouterr().err


def test_integers_do_not_say_by_which_form(scan: Path, tmp_path: Path) -> None:
    """They are the same, and so are the bytes of the list."""
    for form in ("emulator", "onnxruntime", "auto"):
        locate(scan, *OPTIONS, "--network", "universal_layers", "--backend", form, "-o", tmp_path / f"{form}.h5",
               "--frames", "0:4")  # fmt: skip
    wanted = (tmp_path / "emulator.h5").read_bytes()
    assert all(path.read_bytes() == wanted for path in tmp_path.glob("*.h5"))
    assert peak_file.load(tmp_path / "auto.h5")[1].settings["network"]["name"] == "integers"


@pytest.fixture
def threads() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=60
    ) as cluster:
        yield cluster


def test_a_cluster_gives_the_same_bytes(scan: Path, found: Path, tmp_path: Path, threads: LocalCluster) -> None:
    locate(scan, *OPTIONS, "-o", tmp_path / "a.h5", "--scheduler", threads.scheduler_address)
    assert (tmp_path / "a.h5").read_bytes() == (found / "peaks.h5").read_bytes()


def test_a_command_in_use_is_refused(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "peaks.h5"
    with locating._held(tmp_path / "peaks.h5.partial"):
        locate(scan, *OPTIONS, "-o", out, status=2)
    assert "is in use by another process" in capsys.readouterr().err


def test_rotation_is_said_when_it_is_missing_or_odd(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locate(scan, "--threshold", "200", "--frames", "3:5", "-o", tmp_path / "a.csv")
    assert "a_scan: the rotation of its frames is not known" in capsys.readouterr().out
    text = (tmp_path / "a.csv").read_text().splitlines()
    assert [line.split(",")[1:3] for line in text[1:]] == [[str(f), "nan"] for f in (3, 4) for _ in SPOTS]
    locate(scan, "--threshold", "200", "--frames", "3:4", "-o", tmp_path / "a.csv", "--omega-start", "5",
           "--omega-step", "-1")  # fmt: skip
    assert "its rotation does not increase from frame 0" in capsys.readouterr().out
    assert {line.split(",")[2] for line in (tmp_path / "a.csv").read_text().splitlines()[1:]} == {"1.5"}


SCENARIO = """
name = "mine"
[[scan]]
name = "first"
format = "braggnn"
path = "frames.h5"
threshold = 2600.0
detector = { gain = 2.0, saturation = 3000.0 }
omega_start = 10.0
omega_step = 0.5
[[scan]]
name = "made"
threshold = 300.0
[scan.simulate]
omega_step = 0.125
saturation = 65535
"""


def test_a_scenario_says_what_the_command_line_does_not(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(scan, tmp_path / "frames.h5")
    (tmp_path / "mine.toml").write_text(SCENARIO)
    shown = ("--config", tmp_path / "mine.toml", "--frames", "0:2", "-o", tmp_path / "a.h5")

    def settings(*options: str | Path) -> tuple[dict, np.ndarray]:
        assert cli.main(["locate", *map(str, (*options, *shown))]) == 0
        rows, about = peak_file.load(tmp_path / "a.h5")
        return about.settings["scan"], rows

    found, rows = settings("--scan", "first")
    assert (found["name"], found["threshold"], found["detector"]["saturation"]) == ("first", 2600.0, 3000.0)
    assert set(rows["omega"].tolist()) <= {10.25, 10.75}
    found, more = settings("--scan", "first", "--threshold", "200", "--gain", "3", "--find", "window")
    assert (found["threshold"], found["detector"]["gain"], found["detector"]["saturation"]) == (200.0, 3.0, 3000.0)
    assert len(more) > len(rows)
    assert flagged(more, PeakFlag.SATURATED).any()
    found, _ = settings("--scan", "first", "--sigma", "6", "--background-box", "16")
    assert (found["threshold"], found["sigma"]) == (150.0, 6.0)
    found, rows = settings("--scan", "made", tmp_path / "frames.h5")
    assert (found["format"], found["threshold"], rows["omega"][0]) == ("braggnn", 300.0, 0.0625)
    for options, message in (
        ((), "has several scans, or none; choose one of first, made with --scan"),
        (("--scan", "x"), "has no [[scan]] 'x'; choose one of first, made"),
        (("--scan", "made"), "runs/mine/data/made.h5: no such file; simulate it with `braggnn-edge data --config"),
    ):
        assert cli.main(["locate", *map(str, (*options, *shown))]) == 2
        assert message in capsys.readouterr().err


def test_bad_frames_stop_the_command_or_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.zeros((12, 32, 32), np.float32)
    frames[:, 14:17, 14:17] = 500.0
    frames[5, 0, 0] = np.nan
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = frames
    options = ("--threshold", "100", "-o", tmp_path / "a.h5")
    locate(tmp_path / "scan.h5", *options, status=2)
    assert "frame 5 holds 1 pixels that are NaN or infinite" in capsys.readouterr().err
    locate(tmp_path / "scan.h5", *options, "--on-bad-frame", "skip")
    said = capsys.readouterr().out
    assert "beginning anew" not in said
    assert "  11 peaks in 11 frames\n  1 bad frames skipped: 5\n" in said
    rows, about = peak_file.load(tmp_path / "a.h5")
    assert about.bad_frames == (5,)
    assert rows["frame"].tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    with monkeypatch.context() as patch:  # shards that lack the frame are no reason not to stop
        patch.setattr(locating, "_join", lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            locate(tmp_path / "scan.h5", *options, "--on-bad-frame", "skip")
    locate(tmp_path / "scan.h5", *options, status=2)
    assert "1 frames are bad, frame 5 the first" in capsys.readouterr().err


def test_peaks_of_a_large_sigma_are_not_trusted(scan: Path, tmp_path: Path) -> None:
    rows = []
    for most in ("1e-6", "100"):
        locate(scan, "--threshold", "200", "--frames", "0:4", "-o", tmp_path / "a.h5", "--do-not-trust-above", most)
        rows.append(peak_file.load(tmp_path / "a.h5")[0])
    assert np.array_equal(flagged(rows[0], PeakFlag.NOT_TRUSTED), ~flagged(rows[0], PeakFlag.EDGE))
    assert not flagged(rows[1], PeakFlag.NOT_TRUSTED).any()


def test_counts_are_divided_by_the_gain_for_sigma(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four counts a photon: the same photons have the same positions and sigma, in integers they have not."""
    with h5py.File(scan) as file:
        counts = file["frames"][:4].astype(np.uint32)
    for name, times in (("one.h5", 1), ("four.h5", 4)):
        with h5py.File(tmp_path / name, "w") as file:
            file["frames"] = counts * times
    rows = {}
    for name, threshold, gain in (("one.h5", "200", "1"), ("four.h5", "800", "4"), ("four.h5", "800", "1")):
        out = tmp_path / "a.h5"
        locate(tmp_path / name, "--threshold", threshold, "--gain", gain, "-o", out)
        rows[name, gain] = peak_file.load(out)[0]
    one, four, blind = rows.values()
    for column in ("row", "col", "sigma_row", "sigma_col", "flags"):
        assert np.array_equal(one[column], four[column], equal_nan=column.startswith("sigma"))
    assert np.nanmedian(blind["sigma_row"]) < 0.9 * np.nanmedian(four["sigma_row"])
    assert "universal was given counts divided by the gain of 4: sigma supposes photons" in capsys.readouterr().out
    integers = ("--threshold", "800", "--gain", "4", "--network", "universal_layers", "--frames", "0:1")
    locate(tmp_path / "four.h5", *integers, "-o", tmp_path / "b.h5")
    assert "at a gain of 4 that of this integer network is too small" in capsys.readouterr().out


def test_a_list_without_peaks_is_written_in_every_layout(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [word for suffix in (".h5", ".csv", ".flt", ".midas.csv", ".braggnn.h5")
               for word in ("-o", tmp_path / f"none{suffix}")]  # fmt: skip
    locate(scan, "--threshold", "60000", "--frames", "0:9", "--no-check", *outputs)
    assert "no peak was found; the list is empty" in capsys.readouterr().out
    rows, _ = peak_file.load(tmp_path / "none.h5")
    assert rows.shape == (0,)
    assert len((tmp_path / "none.csv").read_text().splitlines()) == 1
    assert len(read_peaks(tmp_path / "none.braggnn.h5")) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "a.h5"), "no threshold; give --threshold COUNTS"),
        (("--threshold", "5", "-o", "a.txt"), "output a.txt: its suffix stands for no layout; expected one of .bragg"),
        (("--threshold", "5", "-o", ".h5"), "output .h5: its suffix"),
        (("--threshold", "5", "-o", "none/a.h5"), "output none/a.h5: expected the name of a file in a folder that"),
        (("--threshold", "5", "-o", "a.h5", "-o", "a.h5"), "two outputs have the same name"),
        (("--threshold", "5", "-o", "a.h5", "--sigma", "3"), "--threshold and --sigma exclude each other"),
        (("--sigma", "3", "-o", "a.h5"), "sigma 3.0 must be 0 or more, and needs a background_box"),
        (("--threshold", "nan", "-o", "a.h5"), "threshold nan: expected a finite number of counts"),
        (("--threshold", "5", "-o", "a.h5", "--frames", "7"), "--frames 7: expected START:STOP"),
        (("--threshold", "5", "-o", "a.h5", "--frames", "30:50"), "--frames 30:50 of 'a_scan': it has 40 frames"),
        (("--threshold", "5", "-o", "a.h5", "--workers", "0"), "--workers 0 must be at least 1"),
        (("--threshold", "5", "-o", "a.h5", "--network", "none.json"), "network none.json does not exist"),
        (("--threshold", "5", "-o", "a.h5", "--network", "a.txt"), "network 'a.txt': expected 'universal'"),
        (("--threshold", "5", "-o", "a.h5", "--network", "."), "network .: this folder holds no network"),
        (("--threshold", "5", "-o", "a.h5", "--do-not-trust-above", "0"), "--do-not-trust-above 0.0: expected a pos"),
        (("--threshold", "5", "-o", "a.h5", "--beam-center", "5"), "--beam-center 5: expected ROW,COL"),
        (("--threshold", "5", "-o", "a.h5", "--omega-start", "5"), "omega_start 5.0 and omega_step None: give both"),
        (("--threshold", "5", "-o", "a.h5", "--scan", "x"), "--scan x names a [[scan]] of a scenario; give its --con"),
        (("--threshold", "5", "-o", "a.h5", "--gain", "0"), "gain must be positive"),
    ],
)
def test_bad_input_ends_in_one_line(
    scan: Path, options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    locate(scan, *options, status=2)
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "a.h5").exists()


def test_a_scan_must_be_there_and_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["locate", "--threshold", "5", "-o", str(tmp_path / "a.h5")]) == 2
    assert "no scan is named; give its file" in capsys.readouterr().err
    locate(tmp_path / "none.npz", "--threshold", "5", "-o", tmp_path / "a.h5", status=2)
    assert "none.npz: no such file" in capsys.readouterr().err
    write_frames(tmp_path / "small.h5", [np.zeros((8, 50), np.uint16)], (1, 8, 50), np.dtype(np.uint16))
    locate(tmp_path / "small.h5", "--threshold", "5", "-o", tmp_path / "a.h5", status=2)
    assert "frames of 8 x 50 px are smaller than the patches of 11 px of universal" in capsys.readouterr().err


def test_the_network_of_a_run_is_that_of_its_firmware(tmp_path: Path) -> None:
    for name in ("full/full.pt", "compact/compact.pt", "qat/locator.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
        assert network_file(tmp_path) == str(tmp_path / name)
    assert network_file("universal") == "universal"


def test_lists_come_back_as_they_were_written_and_others_are_refused(found: Path, tmp_path: Path) -> None:
    rows, about = peak_file.load(found / "peaks.h5")
    peak_file.save(tmp_path / "again.h5", rows, about)
    assert (tmp_path / "again.h5").read_bytes() == (found / "peaks.h5").read_bytes()
    reflections = np.zeros(5000, REFLECTIONS)
    reflections["row"] = np.arange(5000)
    peak_file.save(tmp_path / "merged.h5", reflections, about)
    assert peak_file.load(tmp_path / "merged.h5", "reflections")[0].tobytes() == reflections.tobytes()
    with pytest.raises(UserError, match=r"merged\.h5: holds reflections; expected peaks"):
        peak_file.load(tmp_path / "merged.h5")
    with pytest.raises(UserError, match=r"is no list of peaks; expected 'braggnn-edge peaks'"):
        peak_file.load(found / "peaks.braggnn.h5")
    with pytest.raises(UserError, match=r"none\.h5: no such file; make a list of peaks with `braggnn-edge locate`"):
        peak_file.load(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(UserError, match=r"text\.h5: not a list of peaks in HDF5 \(\.h5\), or damaged"):
        peak_file.load(tmp_path / "text.h5")


def test_shards_of_locate_are_whole_or_made_again(scan: Path, tmp_path: Path) -> None:
    request = locating.request_of(cli._parser(scenario=False).parse_args(
        ["locate", str(scan), *OPTIONS, "-o", str(tmp_path / "a.h5")]))  # fmt: skip
    task = shard.Task(0, request.spec, 0, 4, request.network, "torch", request.find, request.trust, tmp_path / "0.npz")
    assert files.head(task) is None
    task.work(task.shard)
    assert files.head(task)["peaks"] == (4 * len(SPOTS), PEAKS)
    task.shard.write_bytes(task.shard.read_bytes()[:-50])
    assert files.head(task) is None


def test_a_pattern_without_quotes_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shell has written it out: several files stand in the place of one."""
    files = [tmp_path / f"scan_{number}.tif" for number in range(3)]
    for file in files:
        file.touch()
    assert cli.main(["locate", *map(str, files), "--threshold", "5", "-o", str(tmp_path / "a.h5")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("braggnn-edge: error: 3 files are named")
    assert "put a pattern in quotes" in said
    with pytest.raises(SystemExit):
        cli.main(["locate", str(files[0]), "--treshold", "5", "-o", str(tmp_path / "a.h5")])
    assert "unrecognized arguments: --treshold 5" in capsys.readouterr().err


def test_threads_open_a_network_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads of a cluster once read one file at the same time, and one of them called it damaged."""
    inside: list[int] = []
    most: list[int] = []

    def opened(name: str, *_: object, **__: object) -> str:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return name

    monkeypatch.setattr(shard, "open_network", opened)
    shard._opened.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: shard.network("a", "torch"), range(8))) == ["a"] * 8
    shard._opened.cache_clear()
    assert most == [1]

"""Command "inspect": what it finds of simulated detectors, and clear words for scans that show little or nothing."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from braggnn_edge import cli
from braggnn_edge.core.config import load
from braggnn_edge.core.stages import RENAMED_TABLES, tables
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.inspection import dark, pixels, sample, transfer
from braggnn_edge.inspection.facts import Look
from braggnn_edge.inspection.look import look
from braggnn_edge.simulation.simulate import simulate
from braggnn_edge.simulation.spec import SimulationSpec

DATA = os.environ.get("BRAGGNN_EDGE_DATA", "")


def spec(**keys: object) -> SimulationSpec:
    """A small scan with a detector of its own."""
    common = {"rows": 256, "cols": 256, "frames": 16, "reflections": 160, "fwhm_median": 2.2, "fwhm_spread": 0.15}
    return SimulationSpec(**{**common, **keys})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the command wrote for a scan of known gain, read noise and saturation, and what it said."""
    folder = tmp_path_factory.mktemp("inspect")
    made = spec(
        gain=3.0, read_noise=6.0, background=90.0, saturation=4000, heights=(300.0, 20000.0), hot=1e-4, dead=1e-4
    )
    simulate(made, 3, folder / "my scan.h5", folder / "truth.h5", workers=1)
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_say", lines.append)
        arguments = ["inspect", str(folder / "my scan.h5"), "-o", str(folder / "look"), "--simulated-frames", "2"]
        assert cli.main(arguments) == 0
    return folder / "look", "\n".join(lines)


def test_scan_without_still_background_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no box of background is as still as most, all pixels choose the threshold; it once raised."""
    monkeypatch.setattr("braggnn_edge.inspection.look._add_like", lambda *_: None)
    simulate(spec(frames=2, reflections=20), 3, tmp_path / "scan.h5", tmp_path / "truth.h5", workers=1)
    assert look(open_scan("braggnn", tmp_path / "scan.h5"), lambda _: None).pixels.histogram[1].sum() > 0


def test_the_detector_is_found(looked: tuple[Path, str]) -> None:
    found = json.loads((looked[0] / "inspect.json").read_text())
    assert found["gain"]["value"] == pytest.approx(3.0, rel=0.1)
    assert found["read_noise"]["value"] == pytest.approx(6.0, rel=0.2)
    assert found["saturation"]["value"] == 4000.0
    assert found["zero_suppression"]["value"] == 0.0
    assert found["background"]["value"] == pytest.approx(90.0, rel=0.1)
    assert found["pixels"]["faults"] == {"masked": 0, "dead": 7, "hot": 7}
    assert found["spots"]["fwhm_minor_px"]["median"] == pytest.approx(2.2, rel=0.1)
    assert found["omega_step"]["value"] is None
    assert any("rotation" in line for line in found["not_found"])


def test_it_is_said_in_words_and_drawn(looked: tuple[Path, str]) -> None:
    folder, said = looked
    for words in ("gain: ", "read noise: ", "4,000", "Could not be found", "rotation of a frame", "patch size: 1"):
        assert words in said
    page = (folder / "inspect.html").read_text()
    assert "data:image/png;base64" in page
    assert "A first look at my scan" in page
    assert (folder / "inspect.png").stat().st_size > 20_000
    assert "simulated" in json.loads((folder / "inspect.json").read_text())["distributions"]["axis ratio"]


def test_the_scenario_can_be_labelled(looked: tuple[Path, str], tmp_path: Path) -> None:
    scenario = looked[0] / "scenario.toml"
    measured, simulated = load(scenario, tables(), RENAMED_TABLES)["scan"]
    assert measured.mask == str(looked[0] / "mask.npy")
    assert np.load(measured.mask).sum() == 14  # seven dead, seven hot
    assert f"locate --config {scenario} --scan my_scan" in looked[1]
    assert (measured.name, measured.use, measured.detector.saturation) == ("my_scan", ("test",), 4000.0)
    assert simulated.simulate.gain == pytest.approx(3.0, rel=0.1)
    assert simulated.simulate.saturation == 4000
    assert simulated.sigma == measured.sigma
    assert cli.main(["label", "--config", str(scenario), "--runs", str(tmp_path), "--workers", "1"]) == 0


def test_zero_suppression_is_found_and_read_noise_is_not_guessed(tmp_path: Path) -> None:
    made = spec(gain=2.0, read_noise=8.0, background=5.0, threshold=60.0, heights=(250.0, 20000.0))
    simulate(made, 4, tmp_path / "scan.h5", tmp_path / "truth.h5", workers=1)
    found = look(open_scan("braggnn", tmp_path / "scan.h5"), lambda _: None)
    assert found.pixels.zero_suppression.value == 61.0
    assert found.detector.read_noise.value is None
    assert "stored as zero" in found.detector.read_noise.why
    assert found.spots is not None
    assert found.spots.rule.threshold == 60.0


def written(path: Path, frames: NDArray[np.generic]) -> Path:
    """An HDF5 file with one data set."""
    with h5py.File(path, "w") as file:
        file["frames"] = frames
    return path


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


ODD = {
    "constant": (np.full((4, 64, 64), 7, np.uint16), [], "none was found"),
    "zeros": (np.zeros((4, 64, 64), np.uint16), [], "none was found"),
    "one frame": (rng().poisson(20.0, (1, 64, 64)).astype(np.uint16), [], "background: 2"),
    "floats": (rng().normal(0.0, 1.0, (6, 64, 64)).astype(np.float32), [], "counts from -"),
    "signed, dark subtracted": (rng().normal(0.0, 9.0, (6, 64, 64)).astype(np.int32), [], "counts from -"),
    "some frames are NaN": (
        np.where(np.arange(6)[:, None, None] < 2, np.nan, rng().normal(5.0, 1.0, (6, 64, 64))), [], "bad frames",
    ),
    "a single bright pixel": (
        np.pad(np.full((1, 1, 1), 60000, np.uint16), ((1, 2), (20, 43), (20, 43))), [], "none was found",
    ),
    "tiny": (rng().poisson(3.0, (3, 16, 17)).astype(np.uint8), [], "uint8"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_scans_that_show_little_are_described(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames, options, said = ODD[name]
    path = written(tmp_path / "scan.h5", frames)
    status = cli.main(["inspect", str(path), "-o", str(tmp_path / "look"), "--simulated-frames", "0", *options])
    output = capsys.readouterr()
    assert status == 0, output.err
    assert said in output.out
    assert "Could not be found" in output.out
    json.loads((tmp_path / "look/inspect.json").read_text())


REFUSED = {
    "no good pixel": (np.full((3, 64, 64), -1, np.int32), ["--negative", "bad"], "no good pixel"),
    "all NaN": (np.full((2, 64, 64), np.nan, np.float32), [], "none of the frames"),
    "empty": (np.zeros((0, 64, 64), np.uint16), [], "frames"),
    "too small": (np.zeros((2, 8, 8), np.uint16), [], "16 x 16"),
    "negative number of frames": (np.zeros((2, 64, 64), np.uint16), ["--simulated-frames", "-1"], "0 (none) or more"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_scans_without_a_usable_frame_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, options, said = REFUSED[name]
    path = written(tmp_path / "scan.h5", frames)
    assert cli.main(["inspect", str(path), "-o", str(tmp_path / "look"), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "look").exists()


def table(values: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    found = pixels.Values()
    found.add(values)
    return found.table()


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.uint64, np.float32])
def test_histograms_hold_every_value(kind: type) -> None:
    values = rng().integers(0, 120, 5000).astype(kind)
    value, number = table(values)
    expected = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(number, expected[1])


def test_steps_of_a_gain_are_no_zero_suppression() -> None:
    counted = 20 * rng().poisson(0.4, 100_000)
    assert pixels.zero_suppression(table(counted)).smallest == 0.0
    suppressed = np.where(counted <= 30, 0, counted)
    assert pixels.zero_suppression(table(suppressed)).smallest == 40.0


def test_saturation_is_a_pile_and_not_a_tail() -> None:
    tail = (200 / rng().random(20_000) ** 0.8).astype(np.int64)
    assert pixels.saturation(table(tail), 1e9)[0] is None
    assert pixels.saturation(table(np.minimum(tail, 9000)), 1e9)[0] == 9000.0
    spread = np.where(tail > 9000, 9000 + rng().integers(0, 60, len(tail)), tail)  # a dark was subtracted
    level, why = pixels.saturation(table(spread), 1e9)
    assert level == pytest.approx(9000.0, rel=0.01)
    assert "pile up" in why


@pytest.mark.parametrize(("gain", "noise", "background"), [(10.0, 3.0, 0.5), (1.0, 0.0, 0.8), (4.0, 12.0, 0.0)])
def test_few_counts_tell_the_detector(gain: float, noise: float, background: float) -> None:
    counts = gain * rng().poisson(background, 200_000) + noise * rng().standard_normal(200_000)
    value, number = table(np.rint(counts).clip(0).astype(np.int64))
    found = dark.fit_histogram(value, number, gain, 0.1 * gain)
    assert found is not None
    assert found.read_noise == pytest.approx(noise, rel=0.05, abs=0.3)
    assert found.misfit < 0.02


def test_a_peak_that_comes_and_goes_is_no_noise() -> None:
    first, second = rng().poisson(30.0, (2, 128, 128)).astype(np.uint16)
    first[40:46, 60:66] += 5000
    clean, _ = transfer.tiles_of_pair(first, second, np.ones(first.shape, bool), 1.0)
    assert clean.variance.max() < 60.0
    assert np.median(clean.variance) == pytest.approx(30.0, rel=0.05)


def test_a_line_needs_a_spread_of_means() -> None:
    mean = np.linspace(10.0, 200.0, 12)
    points = transfer.Points(mean, 16.0 + 2.0 * mean, 0.01 * mean)
    found = transfer.line(points, transfer.NO_POINTS)
    assert found is not None
    assert (found.gain, found.intercept) == pytest.approx((2.0, 16.0), rel=1e-6)
    even = transfer.line(points.where(mean < 11.0), transfer.NO_POINTS)
    assert even is None


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 100, 1440])
def test_sampled_frames_are_spread_over_the_scan(frames: int) -> None:
    for chosen in (sample.runs(frames, 10**6, 1e9), sample.pairs(frames, 10**6)):
        every = [i for run in chosen for i in run]
        assert len(set(every)) == len(every)
        assert min(every) == 0
        assert max(every) == frames - 1 or frames < 16
        assert sorted(sample.spread(chosen)) == list(range(len(chosen)))


@pytest.fixture(scope="module")
def thaumatin() -> Look:
    path = Path(DATA) / "dls_thaumatin"
    if not DATA or not path.exists():
        pytest.skip("BRAGGNN_EDGE_DATA names no folder with dls_thaumatin")
    return look(open_scan("images", path / "*.cbf.bz2"), lambda _: None)


@pytest.mark.slow
def test_thaumatin_is_a_photon_counter_with_a_background(thaumatin: Look) -> None:
    found = thaumatin
    assert set(found.pixels.marks) == {"-1", "-2"}
    assert found.detector.gain.value == pytest.approx(1.0, rel=0.1)
    assert found.detector.read_noise.value == 0.0
    assert 1.0 < found.pixels.background.or_else(0.0) < 4.0
    assert found.spots is not None
    assert found.spots.rule.background_box > 0
    major, minor = transfer.widths_of(found.spots.fitted)
    assert np.median(minor[found.spots.good]) == pytest.approx(1.9, rel=0.15)
    assert np.median(major[found.spots.good]) == pytest.approx(3.5, rel=0.2)


@pytest.mark.slow
def test_ruby_is_zero_suppressed_and_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(DATA) / "chess_ruby/mruby-0129_000004_ff1_000012-cachefile.npz"
    if not DATA or not path.exists():
        pytest.skip("BRAGGNN_EDGE_DATA names no folder with chess_ruby")
    monkeypatch.setattr(sample, "SPOT_BUDGET", 8e8)  # spots of a quarter of the frames
    found = look(open_scan("hexrd", path), lambda _: None)
    assert found.omega_step.value == pytest.approx(0.25)
    assert found.pixels.zero_suppression.value == 151.0
    assert found.detector.saturation.value == pytest.approx(15_800.0, rel=0.03)
    assert found.detector.read_noise.value is None
    assert found.spots is not None
    assert found.spots.rule.threshold == 150.0
    major, minor = transfer.widths_of(found.spots.fitted)
    assert 1.5 < np.median(minor[found.spots.good]) <= np.median(major[found.spots.good]) < 2.7

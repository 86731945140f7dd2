"""Nonsense stops at the first frames with the advice that helps, in label and in locate; good scans never stop."""

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from braggnn_edge import cli
from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.label import exclusion
from braggnn_edge.label import labelling as label
from braggnn_edge.label.acquisition import open_spec
from braggnn_edge.label.spec import DetectorSpec, PeakSpec, ScanSpec, SplitSpec
from braggnn_edge.peaks import first_look, guards, table
from braggnn_edge.peaks.splits import EXCLUDED, SPLITS, TEST, TRAIN, VALIDATION
from braggnn_edge.peaks.table import PEAK, Flag

CONFIGS = Path(__file__).parents[1] / "configs"
SIDE = 160
ROW, COL = np.mgrid[:SIDE, :SIDE]
RADIUS = np.hypot(ROW - 150.0, COL - 30.0)
Frames = Callable[[np.random.Generator], np.ndarray]


def gaussian(distance: np.ndarray, fwhm: float) -> np.ndarray:
    return np.exp(-4 * np.log(2) * (distance / fwhm) ** 2)


def rings(height: float, fwhm: float, grain: float = 0.0) -> Frames:
    """Powder rings of some height and width, coarse to some degree."""

    def make(rng: np.random.Generator) -> np.ndarray:
        smooth = sum(height * gaussian(RADIUS - radius, fwhm) for radius in (40, 75, 120))
        return rng.poisson(20 + smooth * np.exp(grain * rng.standard_normal(smooth.shape)))

    return make


def flat(level: float) -> Frames:
    return lambda rng: rng.poisson(level, (SIDE, SIDE))


def spots(fwhm: float, number: int = 9, height: float = 800.0, aspect: float = 1.0) -> Frames:
    """Spots that lie apart, of several heights; streaks where aspect is not 1."""

    def make(rng: np.random.Generator) -> np.ndarray:
        image = np.full((SIDE, SIDE), 20.0)
        for place in rng.permutation(9)[:number]:
            row, col = 30 + 50 * np.array(divmod(place, 3)) + rng.uniform(-3, 3, 2)
            image += height * rng.uniform(0.3, 1) * gaussian(np.hypot((ROW - row) / aspect, COL - col), fwhm)
        return rng.poisson(image)

    return make


def crowded(number: int, fwhm: float = 2.2) -> Frames:
    """Spots of any height from 50 to 20,000 counts, close to each other along three rings."""

    def make(rng: np.random.Generator) -> np.ndarray:
        image = np.full((SIDE, SIDE), 20.0)
        for _ in range(number):
            angle, radius = rng.uniform(-0.1, np.pi / 2), rng.choice([50, 80, 120]) + rng.normal()
            distance = np.hypot(ROW - 150 + radius * np.sin(angle), COL - radius * np.cos(angle))
            tail = 0.03 / (1 + (2 * distance / fwhm) ** 2)
            image += 50 * 400 ** rng.random() * (0.97 * gaussian(distance, fwhm) + tail)
        return rng.poisson(image).clip(0, 65535)

    return make


def ramp(rng: np.random.Generator) -> np.ndarray:
    """A dark that rises from one side to the other."""
    return rng.poisson(20 + COL)


def half_dark(rng: np.random.Generator) -> np.ndarray:
    """A dark whose one module is far higher than the other."""
    return spots(2.5)(rng) + 300 * (COL > 100)


RAISE = "subtract the dark if it is still in the frames, raise the threshold"
LOWER = "so lower the threshold: about 4[0-9] counts"
#: What is wrong, keys of the scan that make it so, and what is said. Frames have a background of 20 counts.
NONSENSE: dict[str, tuple[Frames, dict[str, Any], str]] = {
    "powder": (rings(300, 5), {}, "% of what is above the threshold is in arcs .*: these are powder rings"),
    "faint powder": (rings(70, 8), {"threshold": 45.0}, "these are powder rings"),
    "coarse powder": (rings(1000, 4, 0.3), {}, "these are powder rings"),
    "threshold in the noise": (flat(20), {"threshold": 22.0}, f"most of them are noise of the background.*; {RAISE}"),
    "threshold close to it": (flat(20), {"threshold": 25.0}, rf"{RAISE} \(about 4[0-9] counts"),
    "dark left in": (flat(320), {}, rf"100% of the pixels are above .* of about 320 counts; {RAISE} \(about 4"),
    "dark of one module": (half_dark, {}, rf"an area [0-9]+ px wide is above .* but background; {RAISE}"),
    "dark that rises": (ramp, {}, f"(an area [0-9]+ px wide is|of the pixels are) above .*; {RAISE}"),
    "wide spots": (
        spots(28, 4),
        {},
        "spots are 2[0-9] px wide .* do not fit in patches of 11 px; bin the frames, or take",
    ),
    "empty": (flat(0), {}, "no pixel of 4 frames is above 0; see whether the file and data set are the right ones"),
    "threshold too high": (spots(2.5), {"threshold": 5000.0}, f"no pixel of 4 frames is above .*, {LOWER}"),
    "mask the wrong way round": (spots(2.5), {"mask": "mask.npy"}, "% of the pixels are bad; see whether the mask"),
    "sigma too low": (
        flat(20),
        {"threshold": 150.0, "background_box": 32, "sigma": 1.0},
        "above 1 standard deviations of the local background.*; raise sigma, and see whether gain",
    ),
    "threshold low above the local background": (
        flat(20),
        {"threshold": 3.0, "background_box": 32},
        r"threshold of 3 counts above the local background.*; raise the threshold \(about 2[0-9] counts",
    ),
}


@pytest.fixture(scope="module", params=NONSENSE)
def nonsense(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScanSpec, str]:
    """A scan of nonsense, described, and what is to be said."""
    make, keys, wanted = NONSENSE[request.param]
    folder, rng = tmp_path_factory.mktemp("nonsense"), np.random.default_rng(0)
    with h5py.File(folder / "scan.h5", "w") as file:
        file["data"] = np.stack([make(rng) for _ in range(4)]).astype(np.uint16)
    good = np.zeros((SIDE, SIDE), bool)
    good[10, 10:20] = True
    np.save(folder / "mask.npy", ~good)
    keys = {"threshold": 60.0, **keys}
    return folder, ScanSpec("s", "hdf5", "scan.h5", use=("test",), detector=DetectorSpec(1.0, 2.0), **keys), wanted


def no_advice_to_the_contrary(message: str, wanted: str) -> bool:
    return "lower" not in message or "lower" in wanted


def test_label_stops_at_the_first_frames(nonsense, tmp_path) -> None:
    folder, spec, wanted = nonsense
    with pytest.raises(UserError, match=wanted) as caught:
        label.run((spec,), PeakSpec(), SplitSpec(), 0, folder, folder, tmp_path, 1, lambda _: None)
    assert no_advice_to_the_contrary(str(caught.value), wanted)
    assert str(caught.value).startswith("scan 's': ")
    assert str(caught.value).endswith("To go on all the same: check = false in the [[scan]]")
    assert not list(tmp_path.glob("shards-*/*"))


def test_locate_stops_at_the_first_frames(nonsense, tmp_path, capsys) -> None:
    folder, spec, wanted = nonsense
    options = ["--min-area", "4", "--gain", "1", "--read-noise", "2"]
    if spec.sigma:
        options += ["--sigma", str(spec.sigma)]
    else:
        options += ["--threshold", str(spec.threshold)]
    if spec.background_box:
        options += ["--background-box", str(spec.background_box)]
    if spec.mask:
        options += ["--mask", str(folder / spec.mask)]
    arguments = ["locate", str(folder / "scan.h5"), *options, "-o", str(tmp_path / "peaks.h5"), "--workers", "1"]
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert re.search(wanted, said.err)
    assert no_advice_to_the_contrary(said.err, wanted)
    assert said.err.count("\n") == 1
    assert said.err.endswith("To go on all the same: --no-check\n")
    assert "first look at 4 of 4 frames" in said.out
    assert not (tmp_path / "peaks.h5").exists()


def test_noise_that_is_labelled_all_the_same_is_not_told_to_lower_the_threshold(tmp_path) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = flat(320)(np.random.default_rng(0))[None].astype(np.uint16)
    spec = ScanSpec("s", "hdf5", "scan.h5", use=("test",), threshold=60.0, check=False)
    wanted = "no peak is in the test part: .* are excluded as 'several maxima': raise the threshold"
    with pytest.raises(UserError, match=wanted):
        label.run((spec,), PeakSpec(), SplitSpec(), 0, tmp_path, tmp_path, tmp_path, 1, lambda _: None)


def test_who_wants_to_goes_on_and_is_told_the_same_when_there_is_no_peak(tmp_path, capsys) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.full((4, SIDE, SIDE), 320, np.uint16)  # its maximum is a corner
    spec = ScanSpec("s", "hdf5", "scan.h5", use=("test",), threshold=60.0, check=False)
    (tmp_path / "label").mkdir()
    with pytest.raises(UserError, match=f"no peaks found; 100% of the pixels are above .*; {RAISE}") as caught:
        label.run((spec,), PeakSpec(), SplitSpec(), 0, tmp_path, tmp_path, tmp_path / "label", 1, lambda _: None)
    assert "lower" not in str(caught.value)
    options = ["--threshold", "60", "--no-check", "--workers", "1"]
    assert cli.main(["locate", str(tmp_path / "scan.h5"), *options, "-o", str(tmp_path / "peaks.h5")]) == 0
    assert (tmp_path / "peaks.h5").exists()
    assert "first look" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "keys", "peaks", "wanted"),
    [
        (spots(2.5), {"min_area": 500}, {}, "make no component of 500 pixels in 4 frames; lower min_area"),
        (spots(2.5, 1), {}, {"size": 159}, "no patch of 159 px with its margin of 0 px fits in the frame"),
    ],
)
def test_why_no_peak_is_found(make, keys, peaks, wanted, tmp_path) -> None:
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.stack([make(rng) for _ in range(4)]).astype(np.uint16)
    spec = ScanSpec("s", "hdf5", "scan.h5", use=("test",), **{"threshold": 60.0, **keys})
    (tmp_path / "label").mkdir()
    with pytest.raises(UserError, match=wanted):
        label.run(
            (spec,), PeakSpec(shift=0, **peaks), SplitSpec(), 0, tmp_path, tmp_path, tmp_path / "label", 1,
            lambda _: None,
        )  # fmt: skip


def looked_at(frames: list[np.ndarray], spec: ScanSpec, valid: np.ndarray | None = None) -> first_look.Look:
    seen = [first_look._seen(i, frame, valid, spec, spec.min_area, 11) for i, frame in enumerate(frames)]
    return first_look.Look(tuple(seen), len(frames), frames[0].shape)


#: Frames far from each other, and keys of their scan.
GOOD: dict[str, tuple[Frames, dict[str, Any]]] = {
    "spots": (spots(2.5), {}),
    "one spot": (spots(2.5, 1), {}),
    "sharp": (spots(1.0), {"min_area": 2}),
    "wide": (spots(7), {}),
    "streaks": (spots(2.0, aspect=5.0), {}),
    "close to each other": (crowded(60), {}),
    "crowded": (crowded(200), {}),
    "faint": (spots(2.5, height=60.0), {"threshold": 45.0}),
    "bright": (spots(3.0, height=60000.0), {}),
    "close to the background": (crowded(30), {"threshold": 36.0}),
    "far from it": (crowded(60), {"threshold": 500.0}),
    "zero suppression": (lambda rng: (image := spots(2.5)(rng)) * (image > 50), {"threshold": 50.0}),
    "local background": (lambda rng: spots(2.5)(rng) + rng.poisson(ROW), {"background_box": 32, "threshold": 150.0}),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_scans_go_on(name) -> None:
    make, keys = GOOD[name]
    spec, rng = ScanSpec("s", "hdf5", "x.h5", **{"threshold": 60.0, **keys}), np.random.default_rng(6)
    for _ in range(3):
        seen = looked_at([make(rng) for _ in range(3)], spec)
        assert guards.nonsense(seen, spec, 11) == ""
        assert seen.middle("components") > 0


def test_a_faint_local_background_goes_on() -> None:
    rng = np.random.default_rng(2)
    spec = ScanSpec("s", "hdf5", "x.h5", background_box=32, sigma=4.0)
    frames = [rng.poisson(1 + 8 * gaussian(RADIUS - 60, 30) + spots(2.5)(rng) / 30).astype(np.int32) for _ in range(3)]
    seen = looked_at(frames, spec)
    assert guards.nonsense(seen, spec, 11) == ""
    assert seen.middle("components") >= 1


@pytest.mark.skipif("BRAGGNN_EDGE_DATA" not in os.environ, reason="BRAGGNN_EDGE_DATA does not name real data")
@pytest.mark.parametrize(
    ("name", "scan"), [("chess_ruby", "ff1"), ("chess_ruby", "ff2"), ("dls_thaumatin", "thaumatin")]
)
def test_measured_scans_go_on(name, scan) -> None:
    cfg = config.load(CONFIGS / f"{name}.toml", stages.tables(), stages.RENAMED_TABLES)
    spec = next(one for one in cfg["scan"] if one.name == scan)
    said: list[str] = []
    guards.check(open_spec(spec, Path(), cfg.folder), spec, min_area=spec.min_area, size=11, anyway="", say=said.append)
    assert len(said) == 1


def test_few_frames_are_read_and_more_where_nothing_is_seen(tmp_path) -> None:
    frames = np.zeros((200, 32, 32), np.uint16)
    frames[60:130, 10:13, 10:13] = 200
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = frames
    spec, scan = ScanSpec("s", "hdf5", "x.h5", threshold=60.0), open_scan("hdf5", tmp_path / "scan.h5")
    assert [one.frame for one in first_look.look(scan, spec, 4, 11).seen] == [20, 60, 100, 140, 180]
    seen = first_look.look(scan, spec, 4, 11, (0, 61))
    assert 5 < len(seen.seen) <= 61
    assert seen.seen[-1].frame >= 60 or seen.nothing
    assert len(first_look.look(scan, spec, 4, 11, (140, 200)).seen) == 60
    nothing = first_look.look(scan, dataclasses.replace(spec, threshold=250.0), 4, 11)
    assert first_look.MOST <= len(nothing.seen) < first_look.MOST + first_look.FRAMES
    assert re.match("no pixel of 6[4-9] frames is above", guards.nonsense(nothing, spec, 11))


def test_wide_spots_and_large_masks_are_remarked_upon(tmp_path) -> None:
    rng = np.random.default_rng(3)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.stack([spots(8)(rng) for _ in range(3)]).astype(np.uint16)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:, : int(0.6 * SIDE)] = True
    np.save(tmp_path / "mask.npy", mask)
    scan = open_scan("hdf5", tmp_path / "scan.h5", mask=str(tmp_path / "mask.npy"))
    said: list[str] = []
    guards.check(scan, ScanSpec("s", "hdf5", "x.h5", threshold=60.0), min_area=4, size=11, anyway="", say=said.append)
    assert "60 % bad" in said[0]
    assert "more than half of the pixels are bad" in said[1]
    assert re.search("spots are 8 px wide .* patches of 11 px .*, 21 px would suit them", said[2])


def rows_with(*flags: Flag) -> np.ndarray:
    rows = np.zeros(len(flags), PEAK)
    rows["maxima"], rows["voigt_converged"], rows["voigt_fwhm_major"] = 1, True, 2.0
    rows["flags"] = [int(flag) for flag in flags]
    return rows


MEASURED = ScanSpec("m", "hdf5", "x.h5")
SOFT = (Flag.AT_BOUND, Flag.AT_BOUND | Flag.POSITION_AT_BOUND, Flag.AT_BOUND | Flag.WIDTH_AT_BOUND, Flag(0))


@pytest.mark.parametrize(
    ("scan", "spec", "split", "used"),
    [
        (MEASURED, PeakSpec(), TRAIN, [True, False, False, False]),
        (MEASURED, PeakSpec(), VALIDATION, [True, False, False, False]),
        (MEASURED, PeakSpec(), TEST, [True] * 4),
        (MEASURED, PeakSpec(bounded_fits=True), TRAIN, [True] * 4),
        (MEASURED, PeakSpec(size=13), TRAIN, [True, False, False, True]),
        (ScanSpec("s"), PeakSpec(), TRAIN, [True] * 4),
    ],
)
def test_soft_labels_are_not_trained_on(scan, spec, split, used) -> None:
    rows = rows_with(*SOFT)
    rows["voigt_fwhm_major"][3] = 12.0
    rows["split"] = split
    counts = exclusion.exclude(rows, scan, spec)
    assert (rows["split"] != EXCLUDED).tolist() == used
    assert exclusion.listed(counts.sum(1)) == ({} if all(used) else {list(exclusion.REASONS)[-1]: used.count(False)})


def test_every_excluded_peak_has_one_reason() -> None:
    rng = np.random.default_rng(4)
    rows = rows_with(*[Flag(0)] * 400)
    rows["saturated"], rows["maxima"] = rng.random(400) < 0.2, rng.integers(1, 3, 400)
    rows["neighbours"], rows["masked"] = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    rows["voigt_converged"], rows["voigt_residual"] = rng.random(400) < 0.7, rng.uniform(0, 0.1, 400)
    rows["split"] = rng.integers(0, 4, 400)
    before = rows["split"].copy()
    counts = exclusion.exclude(rows, dataclasses.replace(MEASURED, max_residual=0.05), PeakSpec())
    assert counts.shape == (len(exclusion.REASONS), len(SPLITS))
    assert counts.sum() == (rows["split"] == EXCLUDED).sum()
    for split in range(3):
        assert counts[:, split].sum() == ((before == split) & (rows["split"] == EXCLUDED)).sum()
    assert (counts.sum(1) > 0).sum() == len(exclusion.REASONS) - 1
    said: list[str] = []
    exclusion.report("m", counts.sum(1), said.append)
    assert said[0].startswith("  m: excluded: ")
    assert sum(map(int, re.findall(r"(\d+) [a-z]", said[0]))) == counts.sum()
    assert exclusion.remedy(0 * counts[:, 0]).startswith("its frames show no peak")
    assert "raise" in exclusion.remedy(np.eye(len(exclusion.REASONS), dtype=int)[2])


def test_configurations_that_come_with_the_project_are_checked() -> None:
    for path in CONFIGS.glob("*.toml"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"check\s*=|bounded_fits", text)
        assert tomllib.loads(text)


def test_flags_say_which_parameter_is_on_its_bound(tmp_path) -> None:
    rng = np.random.default_rng(5)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = np.stack([spots(28, 1, height=20000.0)(rng), spots(2.5)(rng)]).astype(np.uint16)
    spec = ScanSpec("s", "hdf5", "scan.h5", use=("test",), threshold=60.0, check=False)
    (tmp_path / "label").mkdir()
    label.run((spec,), PeakSpec(lone=False), SplitSpec(), 0, tmp_path, tmp_path, tmp_path / "label", 1, lambda _: None)
    peaks = table.load(tmp_path / "label/peaks.h5").peaks
    wide, sharp = peaks[peaks["frame"] == 0], peaks[peaks["frame"] == 1]
    bound = np.diagonal(wide["voigt_covariance"], axis1=1, axis2=2) == 0
    assert ((wide["flags"] & Flag.WIDTH_AT_BOUND) > 0).any()
    converged = wide["voigt_converged"]
    assert np.array_equal((wide["flags"] & Flag.WIDTH_AT_BOUND)[converged] > 0, bound[converged][:, [3, 4]].any(1))
    assert not (sharp["flags"] & (Flag.WIDTH_AT_BOUND | Flag.POSITION_AT_BOUND)).any()

"""Tuning a universal network: it helps and is kept, or it does not and the network stays as it was; refusals."""

import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import TINY_SCAN, sloping_spots

from braggnn_edge import __version__
from braggnn_edge.cli import main
from braggnn_edge.core.digests import sha256
from braggnn_edge.core.errors import UserError
from braggnn_edge.locate.calibration import Calibration
from braggnn_edge.locate.networks import open_network
from braggnn_edge.peaks.splits import TEST, TRAIN, VALIDATION
from braggnn_edge.peaks.table import Flag, PeakTable
from braggnn_edge.simulation import family
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.training.spec import LoopSpec
from braggnn_edge.universal.labelled import Mixed, labelled, soft
from braggnn_edge.universal.network import UniversalNetwork, load, save
from braggnn_edge.universal.train import calibrated
from braggnn_edge.universal.tune import tune
from braggnn_edge.universal.tune_spec import TuneSpec

SIZE = 7
FAMILY = FamilySpec(size=SIZE)
SPEC = TuneSpec(
    share=0.0, loop=LoopSpec(128, 5e-3, "one_cycle", max_iterations=150, evaluate_every=50, patience=2)
)  # fmt: skip
#: Shards of the family that the tests share.
SHARDS = functools.cache(family._shard)
#: Indices of a fit's parameters in its covariance.
ROW, ETA, BACKGROUND = 0, 6, 7


def scan(n: int = 800, size: int = SIZE) -> PeakTable:
    """Spots on a slope that leads centroids astray, at places of their own; half of them for training."""
    table = sloping_spots(n, size)
    p = table.peaks
    places = np.stack([np.arange(n) // 40, np.arange(n) % 40], 1) * 20
    for axis, name in enumerate(("row", "col")):
        p[f"truth_{name}"] += places[:, axis]
        p[name] = places[:, axis]
        p[f"voigt_{name}"] = p[f"truth_{name}"]
    p["voigt_converged"], p["voigt_covariance"] = True, np.eye(8)
    p["split"] = np.array([TRAIN, VALIDATION, TRAIN, TEST])[np.arange(n) % 4]
    return table


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "_shard", SHARDS)


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braggnn_edge.universal.tune.picture", lambda *_: None)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A file of a network that answers the centroid and is as sure of everything."""
    torch.manual_seed(0)
    network = UniversalNetwork(SIZE, (16,))
    torch.nn.init.zeros_(network.layers[-1].weight)
    torch.nn.init.zeros_(network.layers[-1].bias)
    save(network, Calibration(), {"family": "another"}, tmp_path / "parent.npz")
    return tmp_path / "parent.npz"


def tuned(
    table: PeakTable, parent: Path, out: Path, spec: TuneSpec = SPEC, say: Callable[[str], Any] = lambda _: None
) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return tune(spec, FAMILY, table, parent, 5, out, 1, say)


def test_spots_that_the_parent_has_not_seen_are_learned(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("braggnn_edge.core.checkout.commit", lambda: "fedc")
    said: list[str] = []
    found = tuned(scan(), parent, tmp_path / "out", say=said.append)
    assert found["kept"]
    assert found["peaks"]["train"] == {"used": 400, "reflections": 400, "fit_on_a_bound": 0}
    for part in ("validation", "test"):
        assert found[part]["after"]["mean"] < 0.5 * found[part]["before"]["mean"]
        assert found[part]["difference"]["p95"]["high"] < 0
    assert found["test"]["after"]["within_one_sigma"] == pytest.approx(0.68, abs=0.1)
    test = labelled(scan(), TEST, "best", SIZE)
    offsets, sigma = open_network(tmp_path / "out/universal.npz").locate_with_sigma(test.patches)
    errors = np.linalg.norm(offsets - test.offsets, axis=1)
    assert errors.mean() == pytest.approx(found["test"]["after"]["mean"], rel=1e-5)
    assert (np.abs(offsets - test.offsets) <= sigma).mean() == pytest.approx(found["test"]["after"]["within_one_sigma"])
    _, _, provenance = load(tmp_path / "out/universal.npz")
    assert provenance["kept"] == "tuned"
    assert (provenance["made_by"], provenance["commit"]) == (f"braggnn-edge {__version__}", "fedc")
    assert provenance["parent"] == {"sha256": sha256(parent), "provenance": {"family": "another"}}
    assert (provenance["seed"], provenance["scans"], provenance["test"]) == (5, ["scan"], found["test"])
    history = json.loads((tmp_path / "out/tune.json").read_text())["history"]
    assert [entry["iteration"] for entry in history] == [0, 50, 100, 150]
    assert history[0]["score"] == pytest.approx(found["validation"]["before"]["mean"])
    assert (tmp_path / "out/tune.png").stat().st_size > 10_000
    assert not (tmp_path / "out/tune.checkpoint").exists()
    assert said[-1].startswith("  it helps, and is kept: the mean validation error changed by -0.")


def shuffled(table: PeakTable) -> None:
    """The labels of other peaks: a network that answers 0 is nearer to them than one that finds the spot."""
    order = np.random.default_rng(1).permutation(len(table.peaks))
    for name in ("row", "col"):
        table.peaks[f"truth_{name}"] = table.peaks[name] + (table.peaks[f"truth_{name}"] - table.peaks[name])[order]


def learned_already(table: PeakTable) -> None:
    """The labels are what the parent answers."""
    pixels = table.patches().astype(np.float64) ** 2
    at = np.arange(SIZE) - SIZE // 2
    total = pixels.sum((1, 2))
    table.peaks["truth_row"] = table.peaks["row"] + (pixels.sum(2) * at).sum(1) / total
    table.peaks["truth_col"] = table.peaks["col"] + (pixels.sum(1) * at).sum(1) / total


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize(
    ("change", "why"), [(shuffled, "patches and labels do not belong together"), (learned_already, "no clear gain")]
)
def test_what_does_not_help_leaves_the_parent_as_it_was(
    change: Callable[[PeakTable], None], why: str, parent: Path, tmp_path: Path
) -> None:
    table, said = scan(), list[str]()
    change(table)
    found = tuned(table, parent, tmp_path / "out", say=said.append)
    assert not found["kept"]
    assert why in said[-1]
    assert said[-1].endswith("universal.npz is the network that it started from")
    (network, calibration, provenance), (old, before, _) = load(tmp_path / "out/universal.npz"), load(parent)
    assert provenance["kept"] == "parent"
    assert calibration == before
    assert all(torch.equal(one, old.state_dict()[name]) for name, one in network.state_dict().items())


@pytest.mark.usefixtures("no_picture")
def test_an_interrupted_tuning_goes_on_to_the_same_network(parent: Path, tmp_path: Path) -> None:
    tuned(scan(), parent, tmp_path / "whole")

    def stop(text: str) -> None:
        said.append(text)
        if "iteration    100/" in text:
            raise KeyboardInterrupt

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        tuned(scan(), parent, tmp_path / "parts", say=stop)
    assert not (tmp_path / "parts/universal.npz").exists()
    tuned(scan(), parent, tmp_path / "parts", say=said.append)
    assert "  continues at iteration 50" in said
    for name in ("universal.npz", "tune.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("no_picture")
def test_larger_patches_are_cut_to_their_middle(parent: Path, tmp_path: Path) -> None:
    table = scan(size=SIZE + 4)
    found = labelled(table, TEST, "best", SIZE)
    assert np.array_equal(found.patches, table.of(TEST).crops[:, 2:-2, 2:-2])
    assert tuned(table, parent, tmp_path / "out")["kept"]


def test_fits_on_a_bound_are_left_out_where_they_are_the_label() -> None:
    table = scan()
    p = table.peaks
    p["flags"][:120] = Flag.AT_BOUND
    p["voigt_covariance"][:40, ETA] = 0  # forty on each: eta, the background alone, not known
    p["voigt_covariance"][40:80, BACKGROUND] = 0
    p["voigt_covariance"][80:120] = np.nan
    assert np.flatnonzero(soft(table)).tolist() == [*range(40), *range(80, 120)]
    by_fit, by_truth = (labelled(table, TRAIN, labels, SIZE) for labels in ("voigt", "best"))
    assert (len(by_fit), by_fit.left_out) == (360, 40)
    assert (len(by_truth), by_truth.left_out) == (400, 0)
    p["truth_row"] = np.nan  # a measured scan
    measured, apart = (labelled(table, TRAIN, "best", SIZE, firm) for firm in (True, False))
    assert (len(measured), measured.left_out, len(apart)) == (360, 40, 40)
    assert (by_truth.reference, by_fit.reference, measured.reference) == ("truth", "voigt", "voigt")


def test_a_batch_has_its_share_of_the_family() -> None:
    peaks, drawn = labelled(scan(), TRAIN, "best", SIZE), family.draw(FAMILY, 5, 500, first=1 << 22)
    marked = np.full_like(peaks.offsets, 9.0)  # no patch of the family is so far off
    object.__setattr__(peaks, "offsets", marked)
    for batch, share, expected in ((100, 0.25, (75, 25)), (2000, 0.5, (400, 400)), (100, 0.0, (100, 0))):
        patches, offsets, true = Mixed(peaks, drawn, batch, share, 1, "cpu")(3)
        assert true.all()
        own = int((offsets.abs() == 9).all(1).sum())
        assert (own, len(patches) - own) == expected


@pytest.mark.usefixtures("no_picture")
def test_fits_teach_positions_and_not_their_errors(parent: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = tuned(scan(), parent, tmp_path / "out", dataclasses.replace(SPEC, labels="voigt"), said.append)
    assert found["kept"]
    last = load(tmp_path / "out/universal.npz")[0].layers[-1]
    assert last.weight[:2].abs().max() > 0.01
    assert last.weight[2:].abs().max() == last.bias[2:].abs().max() == 0
    assert found["family"]["before"]["within_one_sigma"] > 0.85
    assert found["family"]["after"]["within_one_sigma"] == pytest.approx(0.68, abs=0.06)  # calibrated on it
    assert found["test"]["after"]["reference"] == "truth"
    assert "  labels are fits: what is gained is agreement with the fit, which may be farther from the truth" in said


def test_a_batch_has_its_share_of_fits() -> None:
    table = scan()
    table.peaks["scan"][::4] = 1  # half of the training peaks: a measured scan
    table.peaks["truth_row"][::4] = np.nan
    peaks = labelled(table, TRAIN, "best", SIZE)
    assert (peaks.reference, int(peaks.true.sum())) == ("best", 200)
    _, _, true = Mixed(peaks, None, 100, 0.0, 1, "cpu")(0)
    assert true.tolist() == [[True]] * 50 + [[False]] * 50


def test_few_errors_make_few_nodes() -> None:
    rng = np.random.default_rng(1)
    found = rng.normal(size=(300, 4)).astype(np.float32)
    assert len(calibrated(found, np.zeros((300, 2), np.float32), 2).log_b) == 4  # one more beyond either end


def few(table: PeakTable) -> PeakTable:
    return table.where(np.arange(len(table.peaks)) < 300)


def one_reflection(table: PeakTable) -> PeakTable:
    table.peaks["row"][table.peaks["split"] == VALIDATION] = 0
    table.peaks["col"][table.peaks["split"] == VALIDATION] = 0
    return table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (few, r"reflections: 150 for train \(expected 200\), 75 for validation \(expected 50\), 75 for test"),
        (one_reflection, r"1 for validation \(expected 50\).*Change \[split\]"),
        (lambda _: scan(size=5), "takes patches of 7 px, those of this scan have 5 px, .*set size in .peaks. to 7"),
    ],
)
def test_scans_that_cannot_be_tuned_on_are_refused(
    change: Callable[[PeakTable], PeakTable], message: str, parent: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        tuned(change(scan()), parent, tmp_path / "out")


@pytest.mark.parametrize("keys", [{"share": 1.0}, {"patches": 3}, {"beta": -0.5}, {"share": 0.0, "patches": 5000}])
def test_specs_that_cannot_be_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"tune|has no effect"):
        TuneSpec(**keys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[peaks]\nsize = 9\n", "universal.npz takes patches of 11 px, those of this scan have 9 px"),
        ("[family]\nsize = 9\n", r"size in \[family\] is 9 px, universal.npz takes patches of 11 px"),
        ('[tune]\ninitial = "none.npz"\n', r"none.npz does not exist; correct initial in \[tune\]"),
        ('[tune]\ninitial = "tiny.toml"\n', "tiny.toml: not a universal network, or damaged"),
        ("[[scan]]\n", "no scan is used for 'train'"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = TINY_SCAN + text if text != "[[scan]]\n" else TINY_SCAN.replace("threshold", 'use = ["test"]\nthreshold')
    (tmp_path / "tiny.toml").write_text(scene)
    assert main(["tune", "--config", str(tmp_path / "tiny.toml"), "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_command_tunes_what_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = TINY_SCAN.replace("reflections = 700", "reflections = 1200").replace("rows = 256", "rows = 512")
    scene = scene.replace("115.0]", "115.0, 145.0, 175.0, 205.0, 235.0]")
    loop = "[tune]\npatches = 2048\nloop = { batch = 256, max_iterations = 20, evaluate_every = 10 }\n"
    (tmp_path / "tiny.toml").write_text(scene.replace("cols = 256", "cols = 512") + loop)
    words = ["tune", "--config", str(tmp_path / "tiny.toml"), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "test peaks, errors in px to the truth, and the change with its 95 % interval" in said
    folder = tmp_path / "runs/tiny/tune"
    assert open_network(folder / "universal.npz").size == 11
    assert json.loads((folder / "tune.json").read_text())["kept"] in (True, False)
    assert main(words) == 0
    assert "tune: up to date" in capsys.readouterr().out

"""The ablation: goes on where it was, states intervals that cover, and refuses a grid that says nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from braggnn_edge.ablation import figures as ablation_figures
from braggnn_edge.ablation import grid as ablation
from braggnn_edge.ablation.effects import paired_change
from braggnn_edge.ablation.grid import Variant
from braggnn_edge.ablation.spec import AblationSpec
from braggnn_edge.core import config
from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.table import PEAK, PeakTable, save
from braggnn_edge.training import train
from braggnn_edge.training.spec import LoopSpec, NetworkSpec

LOOP = LoopSpec(64, 1e-2, "one_cycle", max_iterations=120, evaluate_every=20, patience=0)
SPEC = AblationSpec(seeds=(1, 2, 3), shifts=(0, 1), without_attention=(1,), network=NetworkSpec((8,), (16,)), loop=LOOP)

KINDS = (("attention", 0), ("attention", 1), ("plain", 1))


def gaussians(n: int = 600, size: int = 7, shift: int = 1) -> PeakTable:
    """Noiseless round peaks with known centres, split 4 : 1 : 1 into train, validation and test."""
    rng = np.random.default_rng(5)
    side = size + 2 * shift
    centre = rng.uniform(-0.5, 0.5, (n, 2)) + side // 2
    grid = np.arange(side)
    profiles = np.exp(-((grid - centre[:, :, None]) ** 2) / 1.5)
    crops = (1000 * profiles[:, 0, :, None] * profiles[:, 1, None, :] + 10).astype(np.uint16)
    peaks = np.zeros(n, PEAK)
    peaks["truth_row"], peaks["truth_col"] = (centre - side // 2).T
    peaks["split"] = np.where(np.arange(n) % 6 < 4, 0, np.arange(n) % 6 - 3)
    return PeakTable(peaks, crops, ("scan",), size, shift)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[PeakTable, Path]:
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("run")
    table = gaussians()
    (run / "label").mkdir()
    save(table, run / "label" / "peaks.h5")
    (run / "ablation").mkdir()
    ablation.run(table, SPEC, 9, run / "ablation", lambda _: None)
    return table, run


def test_grid_is_every_variant_of_every_seed_on_every_crop(finished: tuple[PeakTable, Path]) -> None:
    _, run = finished
    document = json.loads((run / "ablation" / "ablation.json").read_text())
    rows = {(row["variant"], row["seed"], row["crop"]) for row in document["errors_px"]}
    assert rows == {(f"{kind}-m{m}", seed, crop) for kind, m in KINDS for seed in (1, 2, 3) for crop in (0, 1)}
    assert document["peaks"] == {"train": 400, "validation": 100, "test": 100}
    assert {e["factor"] for e in document["effects"]} == {"attention", "augmentation"}
    assert all(e["seeds"] == [1, 2, 3] and e["low"] < e["change"] < e["high"] for e in document["effects"])
    for name in ("distances", "attention", "augmentation", "effects"):
        assert (run / "ablation" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list((run / "ablation").glob("*.checkpoint"))


def test_shifted_crops_are_what_they_say(finished: tuple[PeakTable, Path]) -> None:
    """A constant answer errs by the label on centred crops, and by the label and the shift on shifted ones."""
    table, run = finished
    document = json.loads((run / "ablation" / "ablation.json").read_text())
    trivial = {(row["estimator"], row["crop"]): row for row in document["trivial_px"]}
    truth = np.linalg.norm(table.of(2).offsets("truth"), axis=1)
    assert trivial["constant", 0]["p50"] == pytest.approx(np.median(truth), rel=1e-6)
    assert trivial["constant", 1]["p50"] > 0.8
    # The squared centre of mass follows the peak wherever it is shifted: labels move with the patch, not against it.
    assert trivial["centre_of_mass_squared", 1]["p95"] < 0.2


def test_without_shifts_in_training_shifted_crops_suffer(finished: tuple[PeakTable, Path]) -> None:
    _, run = finished
    effects = json.loads((run / "ablation" / "ablation.json").read_text())["effects"]
    found = next(e for e in effects if (e["factor"], e["crop"], e["percentile"]) == ("augmentation", 1, "p50"))
    assert found["change"] < -0.2


def test_interrupted_ablation_goes_on_and_ends_the_same(
    finished: tuple[PeakTable, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the last network but one: what is done is kept, the network continues, the result is the same."""
    table, run = finished
    for path in (run / "ablation").iterdir():
        if not path.name.startswith(("attention-m1-seed3", "plain-m1-seed3", "ablation.json", "effects")):
            shutil.copy(path, tmp_path)
    optimize = train.optimize

    class Killed(Exception):
        pass

    def killed(net, loss, *rest):
        def dying(module, iteration):
            if iteration == 33:
                raise Killed
            return loss(module, iteration)

        return optimize(net, dying, *rest)

    monkeypatch.setattr(train, "optimize", killed)
    with pytest.raises(Killed):
        ablation.run(table, SPEC, 9, tmp_path, lambda _: None)
    monkeypatch.undo()
    monkeypatch.setattr(ablation_figures, "draw", lambda *_: None)  # drawn again below, from the same files
    said: list[str] = []
    ablation.run(table, SPEC, 9, tmp_path, said.append)
    assert said[:3] == [f"{kind}-m{m}-seed1: was done before" for kind, m in KINDS]
    assert "  continues at iteration 20" in said
    for name in ("ablation.json", "ablation.md"):
        assert (tmp_path / name).read_bytes() == (run / "ablation" / name).read_bytes()


def test_redrawn_from_what_is_finished(finished: tuple[PeakTable, Path], tmp_path: Path) -> None:
    _, run = finished
    assert ablation.main([str(run), str(tmp_path / "out")]) == 0
    for name in ("ablation.json", "ablation.md", "effects.png"):
        assert (tmp_path / "out" / name).read_bytes() == (run / "ablation" / name).read_bytes()


def test_page_states_every_effect_and_network(finished: tuple[PeakTable, Path]) -> None:
    _, run = finished
    document = json.loads((run / "ablation" / "ablation.json").read_text())
    page = (run / "ablation" / "ablation.md").read_text()
    assert page.count("| attention | attention-m1 / plain-m1 |") == 2
    assert page.count("| augmentation | attention-m1 / attention-m0 |") == 2
    for row in document["errors_px"]:
        assert f"| {row['variant']} | {row['seed']} | {row['crop']} | {row['p50']:.4f} |" in page
    assert all(f"{100 * effect['change']:+.1f} % [" in page for effect in document["effects"])


def test_network_that_has_not_learned_is_a_result(tmp_path: Path) -> None:
    """It is named and left out of the effects; the others are still compared."""
    table = gaussians()
    still = AblationSpec((1, 2, 3), (0,), (0,), SPEC.network, LoopSpec(64, 1e-9, max_iterations=4, evaluate_every=2))
    for seed in (1, 2, 3):
        ablation.train_member(table, still, Variant(True, 0), seed, tmp_path, lambda _: None)
    assert "has not learned" in json.loads((tmp_path / "attention-m0-seed1.json").read_text())["collapsed"]
    with pytest.raises(UserError, match="no network of the ablation is finished"):
        ablation.report(table, still, 9, tmp_path, tmp_path, lambda _: None)
    learning = AblationSpec((1, 2, 3), (0,), (0,), SPEC.network, LOOP)
    ablation.train_member(table, learning, Variant(False, 0), 2, tmp_path, lambda _: None)
    document = ablation.report(table, learning, 9, tmp_path, tmp_path, lambda _: None)
    assert document["collapsed"] == [f"attention-m0-seed{seed}" for seed in (1, 2, 3)]
    assert document["effects"] == []


def test_damaged_checkpoint_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "attention-m0-seed1.checkpoint").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="damaged"):
        ablation.train_member(gaussians(), SPEC, Variant(True, 0), 1, tmp_path, lambda _: None)
    assert not (tmp_path / "attention-m0-seed1.json").exists()


def test_change_by_hand() -> None:
    """Ratios 1/2, 1/4, 1/8: log2 mean -2, deviation 1, and t of two degrees of freedom is 4.302653 at 97.5 %."""
    change = paired_change({1: 1.0, 2: 1.0, 3: 0.5, 7: 9.0}, {1: 2.0, 2: 4.0, 3: 4.0})
    half = 4.302653 / np.sqrt(3)
    assert change.seeds == (1, 2, 3)
    assert change.change == pytest.approx(-0.75)
    assert change.low == pytest.approx(2.0 ** (-2 - half) - 1, rel=1e-6)
    assert change.high == pytest.approx(2.0 ** (-2 + half) - 1, rel=1e-6)


def test_pairs_take_out_what_a_seed_does_to_both() -> None:
    scale = {1: 1.0, 2: 100.0, 3: 0.01}
    change = paired_change({s: 0.8 * v for s, v in scale.items()}, scale)
    assert (change.low, change.high) == pytest.approx((-0.2, -0.2))


@pytest.mark.parametrize("seeds", [3, 5])
def test_interval_covers_the_truth_as_often_as_it_says(seeds: int) -> None:
    """Of 4000 intervals 95 % cover; the band is five standard deviations of the binomial, 5 sqrt(.95 .05 / 4000)."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(4000):
        errors = np.exp(rng.normal((np.log(0.8), 0.0), 0.1, (seeds, 2)))
        change = paired_change(dict(enumerate(errors[:, 0])), dict(enumerate(errors[:, 1])))
        assert change.low is not None
        assert change.high is not None
        covered += change.low <= -0.2 <= change.high
    assert abs(covered / 4000 - 0.95) < 5 * np.sqrt(0.95 * 0.05 / 4000)


def test_one_seed_has_no_interval() -> None:
    change = paired_change({4: 1.0}, {4: 2.0, 5: 1.0})
    assert (change.change, change.low, change.high) == (-0.5, None, None)


@pytest.mark.parametrize(
    ("with_it", "without", "message"),
    [({1: 1.0}, {2: 1.0}, "no seed"), ({1: 0.0}, {1: 1.0}, "positive"), ({1: float("nan")}, {1: 1.0}, "positive")],
)
def test_errors_that_cannot_be_compared(with_it, without, message) -> None:
    with pytest.raises(UserError, match=message):
        paired_change(with_it, without)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"seeds": [1, 2]}, "at least three different"),
        ({"seeds": []}, "at least three different"),
        ({"seeds": [1, 1, 2]}, "at least three different"),
        ({"seeds": [-1, 1, 2]}, "0 or more"),
        ({"seeds": [1, 2, 3.5]}, "seeds"),
        ({"shifts": [1, 2]}, "0 among them"),
        ({"shifts": []}, "0 among them"),
        ({"shifts": [0, 1, 1]}, "different"),
        ({"shifts": [0, 1, -1]}, "0 or more"),
        ({"without_attention": [3]}, "some of shifts"),
        ({"without_attention": [1, 1]}, "some of shifts"),
        ({"network": {"attention": False}}, "attention is what is varied"),
        ({"loop": {"batch": 0}}, "must be positive"),
        ({"shift": 1}, "unknown key 'shift'"),
    ],
)
def test_bad_configuration(table, message) -> None:
    with pytest.raises(UserError, match=message):
        config.parse(AblationSpec, table, "ablation")


def test_margin_and_patch_size_are_checked_before_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set shift = 2 in \[peaks\]"):
        ablation.run(gaussians(), AblationSpec(), 1, tmp_path, lambda _: None)
    with pytest.raises(UserError, match="patch size 5"):
        AblationSpec().check(5, 2)
    assert not list(tmp_path.iterdir())


def test_run_without_ablation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "label").mkdir()
    save(gaussians(12), tmp_path / "label" / "peaks.h5")
    assert ablation.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "has no ablation" in capsys.readouterr().err

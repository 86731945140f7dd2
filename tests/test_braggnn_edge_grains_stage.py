"""The stage "grains": estimators to grains beside the truth and the fit, biases, pictures, and the report's section."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grain_scene import GOLD, PIXEL, true_grains, write
from matplotlib.figure import Figure

from braggnn_edge import cli
from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import fits, write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation.estimators import centre_of_mass_squared
from braggnn_edge.grains import (
    compare,
    estimates,
    grain_file,
    imaged11,
    instrument,
    kept,
    outcome,
    pictures,
    scenario,
    task,
)
from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.index import IndexSpec, Seed
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.merged import places
from braggnn_edge.grains.screen import lines
from braggnn_edge.grains.sized import sized
from braggnn_edge.grains.spec import GrainSpec
from braggnn_edge.grains.spots import Listed
from braggnn_edge.grains.spots import load as load_spots
from braggnn_edge.grains.task import Done, Task
from braggnn_edge.locate.locator import Locator
from braggnn_edge.peaks import peak_file
from braggnn_edge.peaks.table import load
from braggnn_edge.report.grains_section import grains_section, taken_over

#: px along the rows, of the circuit's stand-in.
BIAS = 0.05
SCENARIO = """
[[scan]]
name = "gold"
[scan.simulate]
frames = 1440
distance = 500.0
wavelength = 0.172979
[scan.simulate.grains]
number = 3
"""


def networks(_: Context) -> dict[str, Locator]:
    """Stand-ins: the squared centroid with a sigma that falls with the height, and one that is biased."""

    def sure(block: np.ndarray) -> np.ndarray:
        sigma = 0.3 / np.sqrt(block.max(axis=(1, 2), keepdims=True)[:, 0].astype(float))
        return np.concatenate([centre_of_mass_squared(block), np.repeat(sigma, 4, axis=1)], axis=1)

    def biased(block: np.ndarray) -> np.ndarray:
        return centre_of_mass_squared(block) + np.array([BIAS, 0.0])

    return {
        "universal": Locator("sure", 11, sure, "float", "CPU", sigma=True),
        "universal_circuit": Locator("biased", 11, biased, "integer", "CPU"),
    }


def context_of(folder: Path, text: str, said: Callable[[str], None] = print) -> Context:
    (folder / "scene.toml").write_text(text)
    cfg = config.load(folder / "scene.toml", stages.tables())
    return Context(cfg, folder / "scene.toml", folder / "runs/scene", 1, said)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The stage on three simulated grains."""
    folder, said = tmp_path_factory.mktemp("stage"), list[str]()
    context = context_of(folder, SCENARIO, said.append)
    truth = write(context.run, "gold", 3)
    out = context.run / "grains"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenario, "networks", networks)
        for module in (scenario, outcome):
            patch.setattr(module, "SHARES", (0.3, 1.0))
        scenario.check(context)
        scenario.work(context, out)
    document = json.loads((out / "grains.json").read_text())
    return {"out": out, "run": context.run, "truth": truth, "document": document, "said": said}


def test_every_estimator_finds_all_grains_and_no_other(found) -> None:
    entries = found["document"]["estimators"]
    assert list(entries) == ["truth", "voigt", "centre_of_mass_squared", "universal", "universal_circuit"]
    assert found["document"]["truth"] == {"grains": 3, "least_size_um": 30.0, "above_least_size": 3}
    for name, entry in entries.items():
        kinds = {"free"} if name == "truth" else {"free", "fixed"} - ({"fixed"} if name == "voigt" else set())
        kinds |= {"plain"} if name in ("voigt", "universal") else set()
        assert {kind for kind in ("free", "plain", "fixed") if kind in entry} == kinds, name
        for kind in kinds:
            assert (entry[kind]["found"], entry[kind]["false"], entry[kind]["found_above_least_size"]) == (3, 0, 3)
            assert entry[kind]["completeness_p50"] > 0.9
            assert ("to_fit" in entry[kind]) == (name not in ("truth", "voigt"))


def test_the_truth_is_found_again_and_errors_are_those_of_theory(found) -> None:
    """Positions of the truth are exact: what is left is of omega, which frames cut, and small in um."""
    entries = found["document"]["estimators"]
    assert entries["truth"]["free"]["to_truth"]["position_um"]["p95"] < 0.1
    for entry in (entries["voigt"], entries["centre_of_mass_squared"]):
        for share in entry["by_spots"]:
            # The rms of three grains, nine numbers: a relative standard deviation of 1 / sqrt(18), and tails besides.
            assert share["rms_um"] == pytest.approx(share["expected_um"], rel=0.9)
        few, many = entry["by_spots"]
        assert few["spots"] < 0.4 * many["spots"]
        assert few["expected_um"] > 1.6 * many["expected_um"]


def test_a_bias_is_named_and_moves_all_grains(found) -> None:
    document, moved = found["document"], 1e3 * PIXEL * BIAS
    about = document["estimators"]["universal_circuit"]["bias"]
    assert about["bias_px"][0] == pytest.approx(BIAS, abs=0.002)
    assert about["bias_um"][0] == pytest.approx(moved, rel=0.05)
    assert about["random_um"][0] < 1
    along = document["estimators"]["universal_circuit"]["free"]["to_truth"]["mean_vector_um"]
    assert abs(along[2]) == pytest.approx(moved, rel=0.05)
    assert max(map(abs, along[:2])) < 1
    warned = [text for text in document["warnings"] if "in row" in text]
    assert any(text.startswith("shipped circuit, integers: its bias of +0.0") for text in warned)
    assert not any(text.startswith("pseudo-Voigt fit") for text in warned)
    assert any(line.strip().startswith("WARNING: shipped circuit") for line in found["said"])


def test_sigma_helps_where_it_is_right(found) -> None:
    gain = found["document"]["weighting"]["voigt"]
    assert gain["weighted_um"] < gain["plain_um"]
    assert gain["gain"] == pytest.approx(gain["plain_um"] / gain["weighted_um"], abs=1e-3)
    assert set(found["document"]["weighting"]) == {"voigt", "universal"}


@pytest.mark.parametrize(
    ("weighted_um", "plain_um", "verdict"),
    [
        ((0.4, 0.5, 0.9), (0.6, 0.6, 0.6), "better"), ((0.6, 0.7, 0.3), (0.5, 0.5, 0.5), "worse"),
        ((0.3, 0.61, 0.69), (0.4, 0.6, 0.7), "no clear difference"),
    ],
)  # fmt: skip
def test_weighting_that_makes_grains_worse_is_called_so(found, tmp_path, weighted_um, plain_um, verdict: str) -> None:
    """By the median and by most of the grains, which are the true ones, moved along the beam."""
    result = grain_file.load(found["out"] / "voigt_free.h5")
    runs = {"truth": {"free": result}, "voigt": {}}
    for kind, um in ("free", weighted_um), ("plain", plain_um):
        moved = result.grains.copy()
        moved["position_x"] += um
        runs["voigt"][kind] = replace(result, grains=moved)
    rows, _ = peak_file.load(found["out"] / "reflections.h5", "reflections")
    used = {"voigt": [rows], "truth": [rows]}
    document = outcome.summarized(outcome.Outcome(GOLD, runs, used, result.grains, 200.0, {}), 30.0)
    assert document["weighting"]["voigt"]["verdict"] == verdict
    (said,) = [line for line in lines(document) if line.startswith("Weighting by sigma")]
    nearer = int(np.sum(np.array(weighted_um) < plain_um))
    medians = f"{np.median(plain_um):.2f} -> {np.median(weighted_um):.2f} um"
    assert f"{medians}, nearer to it in {nearer} of 3 grains: " in said
    assert ("WORSE" in said and "voigt_plain.h5" in said and "--equal-weights" in said) == (verdict == "worse")
    html = grains_section(document | {"peaks": 1, "reflections": 1}, found["out"] / "figures", prefix="")
    assert ("voigt_plain.h5" in html) == (verdict == "worse")


def test_differences_are_shown_with_digits_that_fit_them(found) -> None:
    """Sizes beside the fit's differ by nanometres, which two decimals would show as nothing."""
    assert [compare.um(value) for value in (0.0, 12.345, 1.0, 0.567, 0.0023, 9.96e-4)] == [
        "0.00", "12.35", "1.00", "0.57", "0.0023", "0.00100"
    ]  # fmt: skip
    sizes = [
        entry[kind]["to_fit"]["size_um"]["p50"]
        for kind in ("free", "plain", "fixed")
        for entry in found["document"]["estimators"].values()
        if "to_fit" in entry.get(kind, {})
    ]
    assert 0 < min(sizes) < 0.005
    start = found["said"].index("  Differences to the grains of the pseudo-Voigt fit:")
    shown = [line.split()[-1] for line in found["said"][start + 3 :] if re.search(r" [-+]\d", line)]
    assert [float(text) for text in shown[: len(sizes)]] == pytest.approx(sizes, rel=0.05, abs=6e-6)
    assert compare.um(min(sizes)) in (found["out"] / "grains.html").read_text()


def test_fixed_grains_have_the_very_spots_of_the_fit(found) -> None:
    kinds = {"universal": "free", "centre_of_mass_squared": "plain"}
    for name, kind in kinds.items():
        own, fit = (grain_file.load(found["out"] / f"{of}.h5").spots for of in (f"{name}_fixed", f"voigt_{kind}"))
        columns = ["grain", "list", "reflection", "h", "k", "l"]
        assert sorted(own[columns].tolist()) == sorted(fit[columns].tolist())


def test_sizes_are_of_the_grains_and_not_of_the_estimators(found) -> None:
    """Also where grains are found anew, from other spots: those for sizes are chosen by where they are predicted."""
    for name, entry in found["document"]["estimators"].items():
        for kind in ("free", "plain", "fixed"):
            if kind in entry and name not in ("truth", "voigt"):
                assert entry[kind]["to_fit"]["size_um"]["p95"] < 0.01, (name, kind)


def test_a_grain_that_one_estimator_misses_changes_no_size(found) -> None:
    """The scale is that of the fit's grains beside the true ones that these are."""
    fit, truth = (
        grain_file.load(path) for path in (found["out"] / "voigt_free.h5", found["run"] / "data/gold_grains.h5")
    )
    keys = instrument.read(found["run"] / "data/gold_instrument.toml")
    geometry, spots = load_spots({"panel": found["out"] / "reflections.h5"}, keys)
    scene = Scene(geometry, spots, GOLD, 0.5)
    whole = sized({"voigt": {"free": fit}}, fit, scene, truth, 0.0)["voigt"]["free"]
    fewer = replace(fit, grains=fit.grains[1:])
    part = sized({"voigt": {"free": fewer}}, fewer, scene, truth, 0.0)["voigt"]["free"]
    np.testing.assert_allclose(part.grains["size"], whole.grains["size"][1:], rtol=0.01)
    of = compare.paired(GOLD, whole.grains, truth.grains)[:, 1]
    np.testing.assert_allclose(whole.grains["size"], truth.grains["size"][of], rtol=0.05)
    measured = sized({"voigt": {"free": fit}}, fit, scene, None, 50.0)["voigt"]["free"]
    assert np.median(measured.grains["size"]) == pytest.approx(50.0, rel=1e-6)


def test_an_interrupted_stage_goes_on_behind_what_is_done(found, tmp_path: Path, monkeypatch) -> None:
    """Positions and grains that are there are read, to the last bit; the others are made."""
    assert not (found["out"] / "kept").exists()
    assert any(
        re.search(r"pseudo-Voigt fit, found anew: 3 grains \(\d of \d, \d+ s so far\)", line) for line in found["said"]
    )
    made = Done(grain_file.load(found["out"] / "voigt_free.h5"), (Seed(np.eye(3) / 3, np.arange(3.0), 0.7),))
    asked: list[object] = []
    monkeypatch.setattr(kept, "done", lambda task: asked.append(task) or made)
    tasks: dict[str, Any] = {"one free": 1, "two/2 free": 2}
    placed = estimates.Estimate(np.array([[0.1, np.nan]]), np.array([[0.2, 0.3]]))
    for expected in ([1, 2], [1, 2, 2]):
        here = kept.Kept(tmp_path / "kept", lambda _: None)
        results = here.all_done(tasks, 1)
        estimate = here.estimate("a", lambda: placed)
        assert asked == expected
        assert list(results) == list(tasks)
        for one in results.values():
            assert one.result.grains.tobytes() == made.result.grains.tobytes()
            assert one.result.spots.tobytes() == made.result.spots.tobytes()
            assert one.result.settings == made.result.settings
            np.testing.assert_array_equal(one.seeds[0].position, np.arange(3.0))
        np.testing.assert_array_equal(estimate.position, placed.position)
        (tmp_path / "kept/two_2_free_seeds.npz").unlink()  # stopped before it was written
    again = kept.Kept(tmp_path / "kept", lambda _: None).estimate("a", lambda: pytest.fail("is there"))
    np.testing.assert_array_equal(again.sigma, placed.sigma)


def test_the_screen_has_one_name_for_an_estimator_and_aligned_columns_with_units(found) -> None:
    said, entries = found["said"], found["document"]["estimators"]
    assert entries["voigt"]["label"] == "pseudo-Voigt fit"
    assert any('"false" are refined grains that are none of them' in line for line in said)
    start = said.index("  Differences to the true grains:")
    group, head, how, first, *_ = said[start + 1 :]
    assert group.split("  ")[-1].strip() == "size, um"
    assert "turn, deg" in group
    assert head.split()[:5] == ["estimator", "found", "false", "p50", "p95"]
    assert how == "  -- found anew"
    assert re.match(r"  true positions +3 +0 +0\.0\d\d+ ", first)
    table = [line for line in said[start + 1 : said.index("", start + 1)] if not line.startswith("  --")]
    assert len({len(line) for line in table}) == 1
    # No name of a key is left on the screen, in the pictures' words, or in those of the report.
    for key in ("voigt ", "universal_circuit", "centre_of_mass"):
        assert not any(key in line for line in said), key


def test_a_grain_is_a_step() -> None:
    """Where they are few: each estimator's line counts its grains, and the axis shows what is worth a picture."""
    rng, axes = np.random.default_rng(1), Figure().subplots()
    values = {"voigt": rng.random(19), "universal_circuit": np.full(20, 1e-4)}
    pictures._steps(axes, values, "universal_circuit", {})
    assert {tuple(line.get_ydata())[-1] for line in axes.lines[:2]} == {19, 20}
    assert [len(line.get_xdata()) for line in axes.lines[:2]] == [21, 22]
    assert axes.get_xlim()[1] == pytest.approx(1.05 * np.percentile(values["voigt"], 95))
    pictures._steps(axes, {"universal_circuit": values["universal_circuit"]}, "universal_circuit", {})
    assert axes.get_xlim()[1] == 0.05


def test_omega_adds_to_the_error_that_is_expected(found) -> None:
    """A turn about the axis by an error of omega moves a grain by its distance from the axis."""
    document, entry = found["document"], found["document"]["estimators"]["voigt"]
    fit = grain_file.load(found["out"] / "voigt_plain.h5")
    spread = np.radians(np.sqrt(np.mean(np.square(fit.spots["residual_omega"]))))
    away = np.sqrt(np.mean(np.square(fit.grains["position_x"]) + np.square(fit.grains["position_y"])))
    assert 0.2 < document["omega_um"] / (np.sqrt(2) * spread * away) <= 1.001
    of_px = np.sqrt(5) * 200 * np.sqrt(np.mean(np.square(entry["bias"]["random_px"])))
    share = entry["by_spots"][1]
    assert share["expected_um"] == pytest.approx(
        np.hypot(of_px, document["omega_um"]) / np.sqrt(share["spots"]), rel=0.05
    )


def test_lists_have_the_rows_of_the_merge(found) -> None:
    rows, about = peak_file.load(found["out"] / "reflections.h5", "reflections")
    assert len(rows) == found["document"]["reflections"]
    assert rows["peaks"].sum() == found["document"]["peaks"]
    assert about.shape == (1440, 1024, 1024)
    with np.load(found["out"] / "grains.npz") as arrays:
        distance = np.linalg.norm(arrays["voigt/free/to_truth/position"], axis=1)
        at = found["document"]["estimators"]["voigt"]["free"]["to_truth"]["position_um"]
        assert np.median(distance) == pytest.approx(at["p50"], abs=1e-3)


@pytest.mark.parametrize("name", ["balls", "histograms", "theory", "mean_vector"])
def test_pictures_are_there(found, name: str) -> None:
    assert (found["out"] / f"figures/{name}.png").stat().st_size > 10_000


def test_the_report_has_a_section_while_the_labels_are_the_same(found, tmp_path: Path) -> None:
    run = found["run"]
    whole = {"configuration": {}, "packages": {}, "wall_seconds": 1.0}
    write_json(run / "label/manifest.json", whole | {"inputs": {}, "outputs": {"peaks.h5": "one"}})
    assert taken_over(run, tmp_path) is None  # not finished
    write_json(run / "grains/manifest.json", whole | {"inputs": {"label/peaks.h5": "one"}, "outputs": {}})
    assert fits(run, "grains", "label")
    document = taken_over(run, tmp_path)
    html = re.sub(r"\s+", " ", grains_section(document, tmp_path))
    assert "simulated from <b>3 grains</b>" in html
    assert html.count("<figure>") == 4
    assert "found anew, sigma not used" in html
    tables = html.split("<table")[1:]
    assert len(tables) == 3
    for table in tables:
        head, *rows = table.split("</table>")[0].split("<tr")[1:]
        assert {row.count("<td") for row in rows} == {head.count("<th>")}
    assert "A bias moves grains" in html
    assert "shipped circuit, integers: its bias of" in html
    write_json(run / "label/manifest.json", whole | {"inputs": {}, "outputs": {"peaks.h5": "another"}})
    assert taken_over(run, tmp_path) is None
    assert grains_section(None, tmp_path) == ""


def test_the_page_of_the_grains_needs_no_other_stage(found) -> None:
    """It has the report's section, with all pictures, and names what a report would run."""
    page = re.sub(r"\s+", " ", (found["out"] / "grains.html").read_text())
    assert "<h1>Grains of scene</h1>" in page
    assert page.count("<figure>") == 4
    assert page.count("data:image/png;base64,") == 4
    named = page[page.index("What else there is") :]
    for stage in ("qat", "hls", "csim"):
        assert f"<code>{stage}</code>" in named
    assert "(not run)" in named
    assert "<code>grains</code>, " not in named


def test_without_truth_the_fit_is_the_reference(found, tmp_path: Path) -> None:
    """Of what the fixture found, seen as a measured scan's."""
    runs = {
        name: {kind: grain_file.load(found["out"] / f"{name}_{kind}.h5") for kind in kinds}
        for name, kinds in {"voigt": ("free", "plain"), "centre_of_mass_squared": ("free", "fixed")}.items()
    }
    rows, _ = peak_file.load(found["out"] / "reflections.h5", "reflections")
    moved = rows.copy()
    moved["row"] += 0.03
    fewer = {name: [one["free"]] for name, one in runs.items()}
    measured = outcome.Outcome(GOLD, runs, {"voigt": [rows], "centre_of_mass_squared": [moved]}, None, 200.0, fewer)
    document = outcome.summarized(measured, 30.0)
    assert (document["truth"], document["reference"]) == (None, "voigt")
    assert "bias" not in document["estimators"]["voigt"]
    assert document["estimators"]["centre_of_mass_squared"]["bias"]["bias_px"] == pytest.approx([0.03, 0.0], abs=1e-5)
    assert "false" not in document["estimators"]["centre_of_mass_squared"]["free"]
    html = grains_section(document | {"peaks": 1, "reflections": 1}, tmp_path)
    assert "The true grains are not known" in html
    assert "Grains beside the true ones" not in html


# --- parts


def test_the_stage_takes_the_indexer_that_is_asked_for(found, tmp_path: Path, monkeypatch) -> None:
    asked: list[IndexSpec] = []
    monkeypatch.setitem(task.INDEXERS, "imaged11", lambda scene, spec: asked.append(spec) or [])
    keys = instrument.read(found["run"] / "data/gold_instrument.toml")
    rows, about = peak_file.load(found["out"] / "reflections.h5", "reflections")
    lists = {"panel": Listed(rows, about, tmp_path / "r.h5")}
    one = Task(lists, keys, GOLD, 0.5, "", IndexSpec(0.6), "imaged11")
    result = task.done(one).result
    assert asked == [IndexSpec(0.6)]
    assert (len(result.grains), result.settings["indexer"]) == (0, "imaged11")
    monkeypatch.setattr(imaged11.importlib.util, "find_spec", lambda name: None)
    context = context_of(tmp_path, SCENARIO + '[grains]\nindexer = "imaged11"\n')
    with pytest.raises(UserError, match=r'grains: indexer imaged11: ImageD11 is not installed; .*indexer = "own"'):
        scenario.check(context)


def test_reflections_take_the_mean_of_the_peaks_that_an_estimator_answers(found) -> None:
    """By hand, of the reflection with the most peaks."""
    table = load(found["run"] / "label/peaks.h5")
    listed, about = peak_file.load(found["out"] / "reflections.h5", "reflections")
    one = scenario.merged(table, 0, about, Path("reflections.h5"))
    np.testing.assert_array_equal(one.rows["row"], listed["row"])
    most = int(np.bincount(one.of).argmax())
    mine = one.peaks[one.of == most]
    position = np.full((len(table.peaks), 2), np.nan)
    position[mine] = np.arange(2 * len(mine)).reshape(-1, 2)
    position[mine[0]] = np.nan
    sigma = np.full_like(position, 0.1)
    sigma[mine[1]] = 0.05
    answered, weight = position[mine[1:]], one.weight[one.of == most][1:]
    estimate = estimates.Estimate(position, sigma)
    plain, both = (places(one.at(estimate, weighted).rows) for weighted in (False, True))
    np.testing.assert_allclose(plain[most], (weight[:, None] * answered).sum(0) / weight.sum())
    inverse = np.where(np.arange(len(answered)) == 0, 4.0, 1.0)
    np.testing.assert_allclose(both[most], (inverse[:, None] * answered).sum(0) / inverse.sum())
    assert np.isnan(np.delete(plain, most, axis=0)).all()


def test_grains_are_paired_one_to_one() -> None:
    rows = true_grains(4)
    twice = np.concatenate([rows[[2]], rows[[0, 2]], true_grains(1, seed=9)])
    assert compare.paired(GOLD, twice, rows).tolist() == [[0, 2], [1, 0]]
    assert compare.paired(GOLD, rows[:0], rows).shape == (0, 2)
    near = compare.differences(GOLD, rows[:0], rows)
    assert compare.summary(near) == {"grains": 0}


def test_differences_by_hand() -> None:
    rows = true_grains(2)
    other = rows.copy()
    other["position_x"] += 3.0
    other["position_z"] -= 4.0
    other["strain_xy"] += 1e-4
    other["size"] += (1.0, np.nan)
    entry = compare.summary(compare.differences(GOLD, other, rows))
    assert entry["position_um"] == {"mean": 5.0, "p50": 5.0, "p95": 5.0}
    assert entry["mean_vector_um"] == [3.0, 0.0, -4.0]
    assert entry["strain"]["p50"] == pytest.approx(1e-4)
    assert entry["size_um"]["mean"] == 1.0
    assert entry["degrees"]["p95"] == 0


def test_bias_and_random_term_by_hand() -> None:
    rng = np.random.default_rng(1)
    errors = rng.normal((0.02, 0.0), (0.1, 0.05), (20_000, 2))
    errors[:100] = 2.0
    errors[100] = np.nan
    entry = compare.bias(errors, 200.0, 100.0)
    assert (entry["reflections"], entry["outliers"]) == (19_999, 100)
    assert entry["bias_px"] == pytest.approx([0.02, 0.0], abs=0.003)
    assert entry["random_px"] == pytest.approx([0.1, 0.05], rel=0.02)
    assert entry["bias_um"][0] == pytest.approx(4.0, abs=0.6)
    assert entry["random_um"] == pytest.approx([2.0, 1.0], rel=0.02)
    assert compare.biased_axes(entry) == ["row"]
    assert compare.bias(errors[:1], 200.0, 100.0) == {}
    assert compare.biased_axes({}) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"estimators": ("universal",)}, '"voigt" among them'),
        ({"estimators": ("voigt", "voigt")}, "expected different ones"),
        ({"lattice": (4.0, 4.0)}, "expected a \\(cubic\\)"),
        ({"flip": "x"}, "flip 'x'"),
        ({"least": 7}, "7 spots of a grain"),
        ({"completeness": 0.0}, "completeness 0.0"),
        ({"sample": -1.0}, "sample -1.0"),
    ],
)
def test_tables_that_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        GrainSpec(**changes)


def test_networks_that_do_not_fit_are_refused_before_any_work(tmp_path: Path, capsys) -> None:
    text = SCENARIO + "[peaks]\nsize = 7\nshift = 1\n"
    (tmp_path / "scene.toml").write_text(text)
    words = ["grains", "--config", str(tmp_path / "scene.toml"), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert cli.main(words) == 2
    assert "takes patches of 11 px, those of this scan have 7 px and a margin of 1 px" in capsys.readouterr().err
    (tmp_path / "scene.toml").write_text(SCENARIO + '[grains]\nestimators = ["voigt", "nothing.pt"]\n')
    assert cli.main(words) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_run_own_networks_are_taken_where_they_are(tmp_path: Path) -> None:
    context = context_of(tmp_path, SCENARIO)
    shipped = estimates.network_files(context)
    assert list(shipped) == ["universal", "universal_layers", "universal_circuit"]
    (context.run / "qat").mkdir(parents=True)
    (context.run / "qat/locator.json").write_bytes(shipped["universal_circuit"].read_bytes())
    assert estimates.network_files(context) == shipped  # the same once more
    (context.run / "qat/locator.json").write_text("{}")
    assert list(estimates.network_files(context)) == [*shipped, "quantized"]
    assert estimates.subject(["truth", "voigt", "universal", "universal_circuit", "quantized"]) == "quantized"
    assert estimates.subject(["truth", "voigt", "maximum"]) == "voigt"
    other = context_of(tmp_path, SCENARIO + "[grains]\nown = false\n")
    assert estimates.network_files(other) == shipped


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["grains", "--help"], "With --config the name stands for a stage"),
        (["grains", "--config", "none.toml", "--help"], "--scheduler"),
        (["--help"], "with --config"),
    ],
)
def test_one_name_stands_for_a_command_and_for_a_stage(capsys, words: list[str], said: str) -> None:
    with pytest.raises(SystemExit):
        cli.main(words)
    assert said in capsys.readouterr().out


def test_the_stage_says_that_a_configuration_is_missing(tmp_path: Path, capsys) -> None:
    for option in (["--config", "none.toml"], ["--conf=none.toml"]):
        assert cli.main(["grains", *option, "--runs", str(tmp_path)]) == 2
        assert "none.toml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["grains", "list.h5"])
    assert "the following arguments are required: -o/--output" in capsys.readouterr().err


def test_what_the_geometry_does_not_fit_is_said(found) -> None:
    """The grains of the fit with a cell that is 0.5 % too large: named, as by the command, on the page, too."""
    assert found["document"]["remarks"] == []
    keys = instrument.read(found["run"] / "data/gold_instrument.toml")
    fit = grain_file.load(found["out"] / "voigt_free.h5")
    wrong = Lattice(tuple(1.005 * edge for edge in GOLD.cell[:3]) + GOLD.cell[3:], GOLD.centring)
    rows, about = peak_file.load(found["out"] / "reflections.h5", "reflections")
    lists = {"panel": Listed(rows, about, found["out"] / "reflections.h5")}
    seeds = [
        Seed(ub, place / 1e3, 1.0)
        for ub, place in zip(grain_file.matrices(fit.grains, "ub"), grain_file.positions(fit.grains), strict=True)
    ]
    told = task.done(Task(lists, keys, wrong, 0.5, "", IndexSpec(0.6), seeds=seeds)).result.settings["remarks"]
    assert any("angstrom" in line or "strained" in line for line in told), told
    assert any(line.endswith(told[0]) for line in lines({**found["document"], "remarks": told}))

"""Command "evaluate": errors of given networks on known peaks, groups, sigma, refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import spots

from braggnn_edge.cli import main
from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.estimators import ESTIMATORS
from braggnn_edge.evaluation.groups import crowded, crowds
from braggnn_edge.locate.evaluate import evaluate, named, table_lines
from braggnn_edge.locate.locator import Locator
from braggnn_edge.peaks.splits import EXCLUDED, TEST, TRAIN, VALIDATION
from braggnn_edge.peaks.table import Flag, PeakTable, save


def table(n: int = 200, size: int = 11) -> PeakTable:
    found = spots(n, size)
    found.peaks["split"] = TEST
    found.peaks["voigt_converged"] = True
    found.peaks["voigt_fwhm_major"] = found.peaks["voigt_fwhm_minor"] = 2.5
    found.peaks["maximum"] = np.arange(n) + 100.0
    return found


def offset_by(shift: float, size: int = 11, sigma: bool = False) -> Locator:
    """A network that is off by ``shift`` px along the rows of the spots of :func:`table`."""

    def run(block: np.ndarray) -> np.ndarray:
        right = ESTIMATORS["centre_of_mass"](block)  # exact for a whole spot
        found = right + np.array([shift, 0.0])
        return np.concatenate([found, np.full_like(found, abs(shift))], 1) if sigma else found

    return Locator("known", size, run, "float64", "CPU", sigma=sigma)


def test_errors_are_those_of_the_networks() -> None:
    found = evaluate(table(), {"right": offset_by(0.0), "wrong": offset_by(0.25, sigma=True)})
    assert found["reference"] == "truth"
    assert found["peaks"] == 200
    errors = found["errors_px"]
    assert set(ESTIMATORS) < set(errors)
    assert errors["right"]["p95"] < 0.01
    assert errors["wrong"]["p50"] == pytest.approx(0.25, abs=0.01)
    assert errors["wrong"]["bias_row"] == pytest.approx(0.25, abs=0.01)
    assert list(found["sigma"]) == ["wrong"]
    assert found["sigma"]["wrong"]["within_two"] == 1.0
    assert found["sigma"]["wrong"]["median_px"] == 0.25
    assert "within_wide" not in found["sigma"]["wrong"]  # it gives none
    assert found["sigma"]["wrong"]["flag"]["flagged"] == 0
    flagged = evaluate(table(), {"wrong": offset_by(0.25, sigma=True)}, largest_sigma=0.2)["sigma"]["wrong"]["flag"]
    assert (flagged["sigma_px"], flagged["chosen"], flagged["flagged"]) == (0.2, "asked for", 200)
    lines = table_lines(found)
    assert lines[0] == "200 test peaks, errors in px to the truth:"
    assert lines.index(next(one for one in lines if "right" in one)) < lines.index(
        next(one for one in lines if "wrong" in one)
    )


def test_smaller_patches_are_cut_from_the_middle() -> None:
    found = evaluate(table(), {"small": offset_by(0.0, size=9)})
    assert found["errors_px"]["small"]["p95"] < 0.05


def test_peaks_are_grouped() -> None:
    peaks = table(400)
    peaks.peaks["voigt_fwhm_major"][:100] = peaks.peaks["voigt_fwhm_minor"][:100] = 5.0
    peaks.peaks["flags"][:50] = Flag.AT_BOUND
    peaks.peaks["split"][300:] = EXCLUDED
    peaks.peaks["maxima"][300:370], peaks.peaks["neighbours"][350:] = 2, 1
    groups = evaluate(peaks, {"right": offset_by(0.0)})["groups"]
    sizes = {name: errors["right"]["n"] for name, errors in groups.items()}
    assert sizes["FWHM 4 to 6 px"] == 100
    assert sizes["FWHM 2 to 3 px"] == 200
    assert sizes["fit on a bound"] == 50
    assert sizes["double maxima"] == 70
    assert sizes["neighbours within 5 px"] == 50
    assert sum(size for name, size in sizes.items() if "counts" in name) == 300


def test_peaks_with_company_are_those_that_nothing_was_trained_on() -> None:
    table_of = table(600)
    p = table_of.peaks
    p["maxima"], p["split"] = 2, EXCLUDED
    p["split"][:100] = np.repeat([TRAIN, VALIDATION, TEST, EXCLUDED], 25)
    p["saturated"][100:110], p["masked"][110:120], p["truth_row"][120:130] = True, 2, np.nan
    p["scan"][130:150] = 1  # a scan without test peaks
    p["maxima"][150:160] = 1
    found = crowded(table_of, "truth")
    assert len(found.peaks) == 600 - 50 - 60
    assert {name: int(mask.sum()) for name, mask in crowds(found).items()} == {
        "double maxima": 490, "neighbours within 5 px": 0,
    }  # fmt: skip


def test_a_large_crowd_is_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braggnn_edge.evaluation.groups.MOST", 50)
    table_of = table(200)
    table_of.peaks["maxima"], table_of.peaks["row"] = 2, np.arange(200)
    found = crowded(table_of, "truth").peaks["row"]
    assert len(found) == 50
    assert (found[0], found[-1]) == (0, 199)
    assert set(np.diff(found)) == {4, 5}


def test_errors_of_each_crowd_are_its_own() -> None:
    peaks = table(300)
    peaks.peaks["split"][100:] = EXCLUDED
    peaks.peaks["maxima"][100:200], peaks.peaks["neighbours"][200:] = 2, 1
    peaks.peaks["truth_row"][100:200] += 1.0
    found = evaluate(peaks, {"right": offset_by(0.0)})
    groups = found["groups"]
    assert groups["double maxima"]["right"]["p50"] == pytest.approx(1.0, abs=0.02)
    assert groups["neighbours within 5 px"]["right"]["p50"] < 0.01
    assert set(ESTIMATORS) < set(groups["double maxima"])
    assert found["errors_px"]["right"]["n"] == 100
    lines = table_lines(found)
    assert "100 peaks, double maxima:" in lines
    assert "100 peaks, neighbours within 5 px:" in lines


def bare(peaks: PeakTable) -> None:
    peaks.peaks["split"] = EXCLUDED


def unknown(peaks: PeakTable) -> None:
    peaks.peaks["truth_row"] = np.nan
    peaks.peaks["voigt_converged"] = False


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        (bare, 11, "no test peaks to evaluate on"),
        (unknown, 11, r"no test peak has a reference \(voigt\)"),
        (lambda _: None, 13, "takes patches of 13 px, those of this scan have 11 px"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: Callable[[PeakTable], None], size: int, message: str) -> None:
    peaks = table()
    change(peaks)
    with pytest.raises(UserError, match=message):
        evaluate(peaks, {"net": offset_by(0.0, size=size)})


def test_networks_get_short_names_that_differ() -> None:
    assert list(named(["universal"])) == ["universal"]
    with pytest.raises(UserError, match="does not exist"):
        named(["nothing.npz"])


@pytest.mark.slow
def test_command_writes_the_errors_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text(
        '[[scan]]\nname = "s"\nuse = ["test"]\nthreshold = 45.0\n'
        "simulate = { rows = 256, cols = 256, frames = 12, reflections = 150, rings = [60.0, 90.0] }\n"
    )
    out = tmp_path / "out.json"
    words = ["evaluate", "--config", str(tmp_path / "s.toml"), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert main([*words, "--network", "universal", "--json", str(out), "--largest-sigma", "0.3"]) == 0
    found = json.loads(out.read_text())
    assert (found["sigma"]["universal"]["flag"]["sigma_px"]) == 0.3
    assert found["reference"] == "truth"
    assert found["errors_px"]["universal"]["p50"] < found["errors_px"]["centre_of_mass"]["p50"]
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert "within one sigma" in capsys.readouterr().out
    assert main([*words, "--network", str(tmp_path / "none.pt")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main([*words, "--largest-sigma", "0"]) == 2
    assert "--largest-sigma 0.0: expected a length in px, above 0" in capsys.readouterr().err
    for wrong in ("out.png", "none/out.json"):
        assert main([*words, "--json", str(tmp_path / wrong)]) == 2
        assert "expected the name of a .json file" in capsys.readouterr().err
    (tmp_path / "text.npz").write_text("text")
    assert main([*words, "--network", str(tmp_path / "text.npz")]) == 2
    assert "not a universal network, or damaged" in capsys.readouterr().err


def test_a_table_of_a_file_is_evaluated_in_three_lines(tmp_path: Path) -> None:
    save(table(), tmp_path / "peaks.h5")
    from braggnn_edge.peaks.table import load  # noqa: PLC0415  as the docs have it

    found = evaluate(load(tmp_path / "peaks.h5"), {"right": offset_by(0.0)})
    assert found["errors_px"]["right"]["p50"] < 0.01

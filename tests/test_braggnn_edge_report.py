"""report.json, report.html and report.png: figures computed by hand, honest words, nothing invented."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from jinja2 import UndefinedError

from braggnn_edge.core.config import Config, shortened
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation import evaluate
from braggnn_edge.evaluation.estimators import ESTIMATORS
from braggnn_edge.evaluation.positions import load_positions, save_positions
from braggnn_edge.evaluation.sigma import Intervals
from braggnn_edge.locate.locator import Locator
from braggnn_edge.peaks import table
from braggnn_edge.peaks.splits import EXCLUDED, TEST
from braggnn_edge.peaks.table import PEAK, PeakTable
from braggnn_edge.report import build as report
from braggnn_edge.report import page
from braggnn_edge.report.error_section import compared
from braggnn_edge.report.networks import left_out, networks_of
from braggnn_edge.report.spec import ReportSpec
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from braggnn_edge.training.upstream import save_checkpoint

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "artifacts.md"
SIZE, SHIFT = 11, 1
HISTORY = [{"iteration": i, "loss": 1 / i, "score": 2 / i, "p50": 1 / i, "p75": 2 / i, "p95": 4 / i} for i in (1, 2, 4)]
RESULTS: dict[str, Any] = {
    "bit_exact": {
        "quantized/integer": {"patches": 500, "wrong": 0},
        "csim:io_stream/integer": {"patches": 500, "wrong": 0},
    },
    "layers": [
        {"name": "conv0", "kind": "conv2d", "weight_bits": 6, "accumulator_bits": 17, "macs": 729, "overflows": 0}
    ],
    "hardware": [
        {"form": "hls4ml", "io": "io_stream", "clock_mhz": 200, "dsp": 12, "lut": None, "ff": float("nan"),
         "source": "analytic"}
    ],
}  # fmt: skip


def make_table(n: int = 160, simulated: bool = True, seed: int = 3) -> tuple[PeakTable, np.ndarray]:
    """Poisson Gaussians on brightest-pixel crops, every second one a test peak; and the test peaks' true offsets."""
    rng = np.random.default_rng(seed)
    side = SIZE + 2 * SHIFT
    grid = np.arange(side) - side // 2
    offsets = rng.uniform(-0.45, 0.45, (n, 2))
    height = 10 ** rng.uniform(2, 4, n)
    shape = (
        np.exp(-(((grid - offsets[:, :1]) / 1.2) ** 2))[:, :, None]
        * np.exp(-(((grid - offsets[:, 1:]) / 1.2) ** 2))[:, None]
    )
    crops = rng.poisson(height[:, None, None] * shape + 5).astype(np.uint16)
    peaks = np.zeros(n, PEAK)
    peaks["row"], peaks["col"] = rng.integers(20, 900, (2, n))
    peaks["area"], peaks["maximum"] = rng.integers(4, 12, n), crops[:, side // 2, side // 2]
    peaks["voigt_row"], peaks["voigt_col"] = peaks["row"] + offsets[:, 0], peaks["col"] + offsets[:, 1]
    peaks["voigt_converged"], peaks["voigt_residual"] = True, 0.01
    for name in ("truth_row", "truth_col", "bound_var_row", "bound_cov_row_col", "bound_var_col"):
        peaks[name] = np.nan
    if simulated:
        peaks["truth_row"], peaks["truth_col"] = peaks["voigt_row"], peaks["voigt_col"]
        peaks["bound_var_row"] = peaks["bound_var_col"] = 0.02**2
        peaks["bound_cov_row_col"] = 0.0
    peaks["split"] = np.where(np.arange(n) % 2, TEST, 0)
    return PeakTable(peaks, crops, ("far",), SIZE, SHIFT), offsets[1::2]


def moved(offsets: np.ndarray) -> dict[str, np.ndarray]:
    """Predictions whose errors are known: 0.01 px, 0.05 px as (0.03, -0.04), and 0.1 px for the last two forms."""
    worse = offsets + np.array([0.0, 0.1])
    return {
        "csim:io_stream": worse,
        "quantized": worse,
        "float": offsets + np.array([0.01, 0.0]),
        "float_compact": offsets + np.array([0.03, -0.04]),
    }


def knowing(n: int) -> dict[str, Intervals]:
    """Of :func:`moved`: forms whose col is off by 0.1 px, within their wide interval, and a row that is right."""
    same = Intervals(np.full((n, 2), 0.05), np.full((n, 2), 0.15))
    return {"csim:io_stream": same, "quantized": same, "float": Intervals(np.full((n, 2), 0.02), np.full((n, 2), 0.03))}


INFO: dict[str, Any] = {
    "name": "tiny",
    "seed": 5,
    "notes": ["A short run."],
    "config": {
        "scan": [
            {
                "name": "far",
                "format": "simulated",
                "threshold": 45.0,
                "min_area": 4,
                "path": shortened("/secret/place/far.h5"),
            }
        ],
        "peaks": {"lone": True},
        "split": {"block": 8, "guard": 1},
    },
}


def build(directory: Path, data: PeakTable, predictions: dict[str, np.ndarray], **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "results": RESULTS,
        "histories": {"full": HISTORY},
        "seconds": {"label": 1.5},
        "info": INFO,
    }
    return report.build(data, predictions, directory=directory, **(arguments | changes))


def content(data: PeakTable, predictions: dict[str, np.ndarray], results: dict[str, Any] = RESULTS) -> dict[str, Any]:
    return report.evaluate_run(data, predictions, results, {}, INFO).document


def words_of(directory: Path) -> str:
    """``report.html`` in one line."""
    return " ".join((directory / "report.html").read_text().split())


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    data, offsets = make_table()
    directory = tmp_path_factory.mktemp("simulated")
    return directory, build(directory, data, moved(offsets), intervals=knowing(80))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    data, offsets = make_table(simulated=False)
    rows = np.flatnonzero(data.peaks["split"] == TEST)
    data.peaks["voigt_converged"][rows[:3]] = False
    data.peaks["saturated"][rows[3]] = True
    data.peaks["voigt_residual"][rows[4]] = 0.05
    data.peaks["area"][rows[5:]] = 6
    data.peaks["area"][rows[5]] = 5
    predictions = moved(offsets)
    predictions["float"] = predictions["float"].copy()
    predictions["float"][:6] += 3.0  # only on the peaks that the clean subset must not hold
    directory = tmp_path_factory.mktemp("measured")
    return directory, build(directory, data, predictions, results={})


def test_errors_of_known_predictions(simulated: tuple[Path, dict[str, Any]]) -> None:
    errors = simulated[1]["errors_px"]
    assert list(errors) == [
        "constant", "maximum", "centre_of_mass", "centre_of_mass_squared", "voigt", "cramer_rao_bound", "float",
        "float_compact", "quantized", "csim:io_stream",
    ]  # fmt: skip
    # Positions near 900 px are stored in float64: differences carry rounding of about 900 * 2**-53, below 1e-12.
    for name, row, col, far in (
        ("float", 0.01, 0, 0.01),
        ("float_compact", 0.03, -0.04, 0.05),
        ("quantized", 0, 0.1, 0.1),
    ):
        entry = errors[name]
        assert entry["reference"] == "truth"
        assert entry["n"] == 80
        figures = [entry[key] for key in ("mean", "p50", "p75", "p95", "p99_5")]
        assert figures == pytest.approx([far] * 5, abs=1e-11)
        assert (entry["bias_row"], entry["bias_col"]) == pytest.approx((row, col), abs=1e-11)
    assert errors["csim:io_stream"] == errors["quantized"]
    assert errors["voigt"]["p99_5"] == pytest.approx(0, abs=1e-11)


def test_json_file_is_the_returned_document(simulated: tuple[Path, dict[str, Any]]) -> None:
    directory, document = simulated
    assert json.loads((directory / "report.json").read_text()) == json.loads(json.dumps(document))
    assert document["dataset"]["source"] == "far (simulated)"
    assert (document["dataset"]["train"], document["dataset"]["test"]) == (80, 80)
    assert document["dataset"]["labels"] == {"truth": 80, "voigt": 0}
    assert "blocks of 8 frames" in document["dataset"]["split_by"]
    assert document["seconds"] == {"label": 1.5}


def test_unknown_hardware_figures_are_absent(simulated: tuple[Path, dict[str, Any]]) -> None:
    directory, document = simulated
    assert document["hardware"] == [
        {"form": "hls4ml", "io": "io_stream", "clock_mhz": 200, "dsp": 12, "source": "analytic"}
    ]
    html = (directory / "report.html").read_text()
    assert re.search(r"<td[^>]*>LUT</td><td>.*?not measured", html)
    assert re.search(r"<td[^>]*>DSP</td><td>~ 12</td>", html)
    assert "our cost model: an estimate, not a synthesis result" in html


def test_losses_are_marked_and_said() -> None:
    errors = {
        "centre_of_mass": {"p50": 0.2, "p75": 0.3, "p95": 0.4, "p99_5": 0.5},
        "centre_of_mass_squared": {"p50": 0.1, "p75": 0.2, "p95": 0.3, "p99_5": 0.6},
        "voigt": {"p50": 9.0, "p75": 9.0, "p95": 9.0, "p99_5": 9.0},
        "csim": {"p50": 0.1, "p75": 0.1, "p95": 0.35, "p99_5": 0.55},
    }
    found = [(e["estimator"], e["centroid"], e["percentile"]) for e in evaluate.losses(errors)]
    assert found == [
        ("csim", "centre_of_mass", "p99_5"),  # 0.55 > 0.5
        ("csim", "centre_of_mass_squared", "p95"),  # 0.35 > 0.3; equal at p50 is no loss
    ]


def test_page_says_where_a_network_loses(simulated: tuple[Path, dict[str, Any]]) -> None:
    directory, document = simulated
    lost = {(e["estimator"], e["centroid"]) for e in document["loses_to_centroid"]}
    assert ("quantized", "centre_of_mass_squared") in lost
    assert ("float", "centre_of_mass") not in lost
    html = words_of(directory)
    best = document["errors_px"]["centre_of_mass_squared"]["p50"]
    assert (
        "<b>quantized</b>, <b>C simulation, io_stream</b>: the squared centroid is closer at p50 "
        f"({best:.4f} against 0.1000 px)" in html
    )
    assert '<td class="lost">▲ 0.1000<i class="bar"' in html
    assert '<td class="lost">▲ 0.0100' not in html
    assert "Behind a trivial estimator at one percentile or more: float compact, quantized and C simulation." in html


def test_page_says_that_no_network_is_behind(tmp_path: Path) -> None:
    data, offsets = make_table()
    document = content(data, {"csim:io_stream": offsets + np.array([0.001, 0.0])})
    html = page.render(document, "csim:io_stream", tmp_path)
    assert "No network is behind a trivial estimator at p50, p75, p95 or p99.5." in html
    assert "The C simulation is within 0.001 px" in html
    assert "▲ 0" not in html


def test_network_behind_the_centre_pixel_alone_is_behind() -> None:
    errors = {name: dict.fromkeys(("p50", "p75", "p95", "p99_5"), px) for name, px in (
        ("constant", 0.4), ("centre_of_mass", 0.6), ("centre_of_mass_squared", 0.7), ("voigt", 0.1), ("csim", 0.5)
    )}  # fmt: skip
    errors["csim"]["p75"] = 0.4  # equal is not behind
    groups = compared(errors)
    assert [row.name for row in groups["trivial"]] == ["constant", "centre_of_mass", "centre_of_mass_squared"]
    assert [(place.percentile, place.best, place.best_px) for place in groups["networks"][0].behind] == [
        ("p50", "constant", 0.4), ("p95", "constant", 0.4), ("p99_5", "constant", 0.4),
    ]  # fmt: skip


@pytest.mark.parametrize(("simulated", "kind"), [(True, "truth"), (False, "voigt")])
def test_peaks_with_company_have_a_table_of_their_own(tmp_path: Path, simulated: bool, kind: str) -> None:
    data, offsets = make_table(200, simulated)
    peaks = data.peaks
    peaks["split"][0::2] = np.where(np.arange(100) < 60, EXCLUDED, 0)
    peaks["maxima"][0:60:2], peaks["neighbours"][60:120:2] = 2, 1
    one = Locator("known", SIZE, ESTIMATORS["centre_of_mass_squared"], "float64", "CPU")
    document = report.evaluate_run(data, {"float": offsets}, RESULTS, {}, INFO, {"quantized": one}).document
    assert set(document["groups"]) == {"double maxima", "neighbours within 5 px"}
    for errors in document["groups"].values():
        assert set(errors) >= {*ESTIMATORS, "quantized"}
        assert ("voigt" in errors) == simulated
        assert "float" not in errors  # it cannot be asked
        assert errors["quantized"]["n"] == 30
        assert errors["quantized"] == errors["centre_of_mass_squared"]
        assert errors["quantized"]["reference"] == kind
    assert document["sigma"] == {}
    html = " ".join(page.render(document, "float", tmp_path).split())
    assert "Groups of peaks" in html
    assert "neighbours within 5 px</th>" in html
    assert "Groups of peaks" not in page.render(content(make_table()[0], moved(make_table()[1])), "float", tmp_path)


def test_flags_of_peaks_with_company_are_those_of_the_integers(tmp_path: Path) -> None:
    data, offsets = make_table(200)
    data.peaks["split"][0::2] = EXCLUDED
    data.peaks["maxima"][0:60:2] = 2

    def run(block: np.ndarray) -> np.ndarray:
        found = ESTIMATORS["centre_of_mass_squared"](block)
        return np.concatenate([found, np.full_like(found, 0.2)], 1)

    one = Locator("known", SIZE, run, "float64", "CPU", sigma=True)
    known, networks = knowing(100), {"quantized": one}
    document = report.evaluate_run(data, moved(offsets), RESULTS, {}, INFO, networks, known, 0.1).document
    flags = {name: entry["flag"] for name, entry in document["sigma"].items()}
    assert "groups" not in flags["float"]  # it cannot be asked
    for name in ("quantized", "csim:io_stream"):
        assert flags[name]["flagged"] == 0
        (tail,) = flags[name]["groups"].values()
        assert (tail["n"], tail["flagged"]) == (30, 30)
        assert tail["p95"] == document["groups"]["double maxima"]["quantized"]["p95"]
    assert "The same threshold on peaks with company" in " ".join(page.render(document, "float", tmp_path).split())


def test_networks_of_a_run_are_those_that_it_trained(tmp_path: Path) -> None:
    assert list(networks_of(tmp_path, 11)) == ["universal"]
    assert left_out(networks_of(tmp_path, 11), 11) == ()
    assert list(networks_of(tmp_path, 9)) == []
    assert left_out({}, 9)[0].startswith(
        "The universal network is left out: it takes patches of 11 px, those of this run"
    )
    net = BraggNN(NetworkSpec((4, 2), (4,), False), 11)
    (tmp_path / "compact").mkdir()
    save_checkpoint(net, tmp_path / "compact/compact.pt")
    spec = {"conv": [4, 2], "dense": [4], "attention": False}
    (tmp_path / "compact/compact.json").write_text(json.dumps({"spec": spec}))
    found = networks_of(tmp_path, 11)
    assert list(found) == ["universal", "float_compact"]
    data, _ = make_table(40)
    assert found["float_compact"].locate(data.patches()).shape == (40, 2)


def test_measured_scan_is_compared_with_the_fit(measured: tuple[Path, dict[str, Any]]) -> None:
    directory, document = measured
    assert document["reference"] == {"kind": "voigt", "left_out": 3}
    errors, clean = document["errors_px"], document["errors_px_clean"]
    assert "voigt" not in errors
    assert "cramer_rao_bound" not in errors
    assert {entry["reference"] for entry in errors.values()} == {"voigt"}
    assert errors["float"]["n"] == 77
    assert errors["float"]["p99_5"] > 1
    assert clean["float"]["n"] == 74
    assert clean["float"]["p99_5"] == pytest.approx(0.01, abs=1e-11)
    html = words_of(directory)
    assert "3 test peaks whose fit did not converge are left out" in html
    assert "Clean peaks only" in html


def test_absent_results_are_not_measured(measured: tuple[Path, dict[str, Any]]) -> None:
    directory, document = measured
    assert (document["bit_exact"], document["layers"], document["hardware"]) == ({}, [], [])
    html = (directory / "report.html").read_text()
    assert "<b>not measured</b>" in html
    assert "PASS" not in html
    for form in ("quantized network in PyTorch", "QONNX model", "C simulation", "RTL simulation"):
        assert f'<tr><td>{form}</td><td><span class="none">not measured</span>' in html, form


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, "not measured"),
        ({"a/integer": {"patches": 5, "wrong": 0}}, "PASS"),
        ({"a/integer": {"patches": 5, "wrong": 0}, "b/integer": {"patches": 5, "wrong": 1}}, "FAIL"),
        ({"a/integer": {"patches": 0, "wrong": 0}}, "not measured"),
        ({"a/integer": {"patches": 5, "wrong": 0}, "b/integer": {"patches": 0, "wrong": 0}}, "not measured"),
        ({"a/integer": {"patches": 5, "wrong": 2}, "b/integer": {"patches": 0, "wrong": 0}}, "FAIL"),
    ],
)
def test_verdict(entries: dict[str, dict[str, int]], expected: str) -> None:
    assert page.verdict(entries) == expected


class _Balanced(HTMLParser):
    """Fails on a tag that is closed without being open, on scripts, and collects what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "a", "form")
        assert not [key for key, _ in attrs if key.startswith("on") or key in ("action", "srcset", "poster", "data")]
        self.fetched += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


@pytest.mark.parametrize("which", ["simulated", "measured"])
def test_page_is_one_file(which: str, request: pytest.FixtureRequest) -> None:
    html = (request.getfixturevalue(which)[0] / "report.html").read_text()
    parser = _Balanced()
    parser.feed(html)
    assert parser.open == []
    assert len(parser.fetched) >= 4
    assert all(source.startswith("data:image/png;base64,") for source in parser.fetched)
    assert "url(" not in html
    assert "@import" not in html


def test_no_absolute_path_is_written(simulated: tuple[Path, dict[str, Any]]) -> None:
    directory, _ = simulated
    for name in ("report.json", "report.html"):
        text = (directory / name).read_text()
        assert "/secret" not in text
        assert ".../far.h5" in text


def test_scan_name_is_escaped(tmp_path: Path) -> None:
    data, offsets = make_table(40)
    data = dataclasses.replace(data, scans=('<b>&"',))
    html = page.render(content(data, moved(offsets)), "float", tmp_path)
    assert "of scan &lt;b&gt;&amp;&#34;" in html
    assert "<b>&" not in html
    assert '&"' not in html


def test_what_a_page_needs_and_is_not_given_raises(tmp_path: Path) -> None:
    data, offsets = make_table(40)
    document = content(data, moved(offsets))
    page.render(document, "float", tmp_path)
    del document["errors_px"]["float"]["bias_col"]
    with pytest.raises(UndefinedError, match="bias_col"):
        page.render(document, "float", tmp_path)


def test_the_page_says_what_the_front_ends_simulation_found(tmp_path: Path) -> None:
    data, offsets = make_table(40)
    found = {"streams": 4, "frames": 30, "records": 174, "wrong": 0, "first": ""}
    pages = []
    for one in (None, found, found | {"wrong": 2, "first": "vector faults"}):
        results = {} if one is None else {"front_end": one}
        document = report.evaluate_run(data, moved(offsets), results, {}, INFO).document
        assert document.get("front_end") == one
        pages.append(page.render(document, "float", tmp_path))
    assert "front end" not in pages[0]
    assert "all 174 records of 30 frames are" in pages[1]
    assert "FAIL</span>, vector faults" in pages[2]


def test_every_name_is_escaped(tmp_path: Path) -> None:
    data, offsets = make_table(40)
    evil = "<script>alert(1)</script>"
    data = dataclasses.replace(data, scans=(evil,))
    results = {
        "bit_exact": {evil: {"patches": 1, "wrong": 0}},
        "layers": [{"name": evil}],
        "notes": evil,
        "corner_cases": {"patches": evil},
    }
    info = INFO | {"name": evil, "notes": [evil], "split_by": evil, "versions": {evil: evil}}
    document = report.evaluate_run(data, {evil: offsets + 1}, results, {evil: 1.0}, info).document
    html = page.render(document, evil, tmp_path)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 10


def test_same_input_same_bytes(tmp_path: Path, simulated: tuple[Path, dict[str, Any]]) -> None:
    data, offsets = make_table()
    build(tmp_path, data, moved(offsets), intervals=knowing(80))
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert {"report.json", "report.html", "report.png", "figures/gallery.png"} <= set(map(str, files))
    for name in files:
        assert (tmp_path / name).read_bytes() == (simulated[0] / name).read_bytes(), name


def test_summary_picture_fits_a_readme(simulated: tuple[Path, dict[str, Any]]) -> None:
    path = simulated[0] / "report.png"
    assert matplotlib.image.imread(path).shape[1] == 1400
    assert path.stat().st_size < 300_000


def test_bound_draws_follow_the_covariance() -> None:
    data, _ = make_table(4000)
    used = data.of(TEST)
    draws = evaluate.estimates_without_network(used, "truth", np.zeros((2000, 2)), 1)["cramer_rao_bound"]
    # Rayleigh: the mean distance is s sqrt(pi / 2), with standard error s sqrt((2 - pi / 2) / n); 5 of those pass.
    error = 5 * 0.02 * np.sqrt((2 - np.pi / 2) / 2000)
    assert np.linalg.norm(draws, axis=1).mean() == pytest.approx(0.02 * np.sqrt(np.pi / 2), abs=error)
    used.peaks["bound_var_row"], used.peaks["bound_cov_row_col"], used.peaks["bound_var_col"] = 4e-4, -6e-4, 9e-4
    used.peaks["bound_var_row"][:2] = (np.nan, -1.0)
    draws = evaluate.estimates_without_network(used, "truth", np.zeros((2000, 2)), 1)["cramer_rao_bound"]
    assert np.isnan(draws[:2]).all()
    # Fully anticorrelated: col = -1.5 row, up to the rounding of sqrt(c - b**2 / a), which is below 1e-9.
    np.testing.assert_allclose(draws[2:, 1], -1.5 * draws[2:, 0], atol=1e-8)


def test_truth_is_the_reference_of_simulated_scans_alone() -> None:
    data, _ = make_table(40)
    test = data.of(TEST)
    assert evaluate.reference_of(test) == "truth"
    test.peaks["truth_row"][0] = np.nan  # a hot pixel
    assert evaluate.reference_of(test) == "truth"
    test.peaks["scan"][:5], test.peaks["truth_row"][:5] = 1, np.nan  # a measured scan beside it
    assert evaluate.reference_of(test) == "voigt"


def test_detection_without_a_spot_is_left_out() -> None:
    data, offsets = make_table(40)
    data.peaks["truth_row"][1] = np.nan  # row 1 is the first test peak
    data.peaks["voigt_converged"][3] = False
    document = content(data, moved(offsets))
    assert document["reference"] == {"kind": "truth", "left_out": 1, "voigt_not_converged": 1}
    assert document["errors_px"]["float"]["n"] == 19
    assert document["errors_px"]["float"]["p99_5"] == pytest.approx(0.01, abs=1e-11)
    assert document["errors_px"]["voigt"]["n"] == 18


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda offsets: offsets[:-1], "'float' have shape"),
        (lambda offsets: np.where(np.arange(len(offsets))[:, None] == 1, np.nan, offsets), "not finite on 1 of 20"),
    ],
)
def test_bad_predictions_write_nothing(tmp_path: Path, wrong: Any, message: str) -> None:
    data, offsets = make_table(40)
    with pytest.raises(UserError, match=message):
        build(tmp_path, data, {"float": wrong(offsets)})
    assert list(tmp_path.iterdir()) == []


def test_no_test_peak_is_an_error(tmp_path: Path) -> None:
    data, _ = make_table(40)
    data.peaks["split"] = 0
    with pytest.raises(UserError, match="no test peak has a known position"):
        build(tmp_path, data, {})


def test_float_that_loses_to_the_centroid_is_refused(tmp_path: Path) -> None:
    data, offsets = make_table(40)
    with pytest.raises(UserError, match="is not below the centre of mass"):
        build(tmp_path, data, {"float": offsets + 2.0}, spec=ReportSpec(float_beats_centroid=True))
    assert list(tmp_path.iterdir()) == []


def test_float_that_beats_the_centroid_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "_write", lambda *_: None)
    data, offsets = make_table(40)
    document = build(tmp_path, data, {"float": offsets}, spec=ReportSpec(float_beats_centroid=True))
    assert document["errors_px"]["float"]["p95"] < document["errors_px"]["centre_of_mass"]["p95"]


def test_stage_collects_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, offsets = make_table(40)
    run = tmp_path / "runs" / "tiny"
    stages = ("data", "label", "train", "compact", "qat", "hls", "csim", "reference")
    for index, name in enumerate(stages):
        (run / name).mkdir(parents=True)
        manifest = {"wall_seconds": index + 0.5, "python": "3.11.0", "packages": {"torch": "2"}, "git_commit": "abc+"}
        manifest |= {"configuration": {}, "inputs": {}, "outputs": {}}
        write_json(run / name / "manifest.json", manifest)
    table.save(data, run / "label/peaks.h5")
    for name in ("compact/compact", "train/full", "qat/qat"):
        write_json(run / f"{name}.json", {"history": HISTORY})
    cfg = Config("tiny", 7, MappingProxyType({"report": report.ReportSpec(("Short.",))}), tmp_path)
    said: list[str] = []
    written: list[Any] = []
    monkeypatch.setattr(report, "_write", lambda *arguments: written.append(arguments))
    with pytest.raises(UserError, match="run `braggnn-edge csim`"):
        report.run(cfg["report"], cfg, run, stages, [], tmp_path / "out", said.append)
    write_json(run / "csim/results.json", RESULTS | {"hardware": []})
    save_positions(moved(offsets), {name: knowing(20)[name] for name in ("quantized",)}, run / "csim/predictions.npz")
    with pytest.raises(UserError, match="run `braggnn-edge reference`"):
        report.run(cfg["report"], cfg, run, stages, [], tmp_path / "out", said.append)
    write_json(run / "reference/reference.json", {"patches": 40})
    (run / "reference/reference.png").write_bytes(b"picture")
    report.run(cfg["report"], cfg, run, stages, [], tmp_path / "out", said.append)
    ((evaluation, histories, directory),) = written
    document = evaluation.document
    assert directory == tmp_path / "out"
    assert list(histories) == ["full", "compact", "quantized"]
    assert document["seconds"] == {name: index + 0.5 for index, name in enumerate(stages)}
    assert document["notes"] == ["Short."]
    assert document["reference_inference"] == {"patches": 40}
    assert (tmp_path / "out/figures/reference.png").read_bytes() == b"picture"
    assert document["versions"] == {"python": "3.11.0", "torch": "2"}
    assert (document["git_commit"], document["seed"], document["name"]) == ("abc+", 7, "tiny")
    assert document["errors_px"]["csim:io_stream"]["p50"] == pytest.approx(0.1, abs=1e-11)
    assert said[-1] == "  bit-exactness: PASS"
    assert list(document["sigma"]) == ["universal", "quantized"]
    positions, intervals = load_positions(tmp_path / "out/positions.npz")
    assert set(positions) == {*moved(offsets), "universal"}
    assert set(intervals) == {"universal", "quantized"}
    shipped = networks_of(run, 11)["universal"].locate_with_intervals(data.of(TEST).patches())
    for found, expected in zip((positions["universal"], *vars(intervals["universal"]).values()), shipped, strict=True):
        assert np.array_equal(found, expected)


def test_everything_written_is_documented(
    simulated: tuple[Path, dict[str, Any]], measured: tuple[Path, dict[str, Any]]
) -> None:
    text = DOCS.read_text()
    for column in PEAK.names or ():
        assert f"`{column}`" in text, column
    for document in (simulated[1], measured[1]):
        for key in document:
            assert f"`{key}`" in text, key
        for key in document["dataset"]:
            assert f"`{key}`" in text, key
    for entry in simulated[1]["sigma"].values():
        for key in (*entry, *entry["flag"], *entry["reliability"][0], *entry["by_brightness"][0]):
            assert f"`{key}`" in text, key


def test_sigma_has_a_section(simulated: tuple[Path, dict[str, Any]], measured: tuple[Path, dict[str, Any]]) -> None:
    directory, document = simulated
    sigma = document["sigma"]
    assert list(sigma) == ["float", "quantized", "csim:io_stream"]
    assert sigma["quantized"] == sigma["csim:io_stream"]
    assert (sigma["quantized"]["within_one"], sigma["quantized"]["within_wide"]) == (0.5, 1.0)
    assert (sigma["float"]["within_one"], sigma["float"]["n"], sigma["float"]["median_px"]) == (1.0, 80, 0.02)
    assert [part["n"] for part in sigma["float"]["by_brightness"]] == [20] * 4
    html = words_of(directory)
    assert "sigma: how sure the networks are" in html
    assert "quantized, C simulation, io_stream</th>" in html  # one entry for forms that answer alike
    assert '<td class="lost">▲ 50.0 %</td><td>100.0 %</td>' in html
    assert "too few peaks" in html  # for means
    assert (directory / "figures/sigma.png").stat().st_size > 10_000
    assert "the truth is not known" not in html.partition("sigma: how sure")[2].partition("<h2>")[0]
    assert measured[1]["sigma"] == {}
    assert "sigma: how sure" not in words_of(measured[0])
    assert not (measured[0] / "figures/sigma.png").exists()


def test_sigma_of_measured_peaks_is_said_to_be_against_the_fit(tmp_path: Path) -> None:
    data, offsets = make_table(simulated=False)
    documents = [
        report.evaluate_run(data, moved(offsets), {}, {}, INFO, {}, knowing(80), largest).document
        for largest in (0.0, 0.01)
    ]
    assert documents[0]["sigma"]["float"]["reference"] == "voigt"
    assert documents[0]["sigma"]["float"]["flag"]["flagged"] == 0
    assert documents[1]["sigma"]["float"]["flag"]["flagged"] == 80
    for document in documents:
        html = " ".join(page.render(document, "float", tmp_path).split())
        assert "<b>Errors are differences from the pseudo-Voigt fit</b>" in html
        assert "a share here is one of agreement with the fit and not of truth" in html
    assert "<small>asked for</small>" in html


@pytest.mark.parametrize(("n", "sigma"), [(79, 0.1), (80, 0.0), (80, float("nan"))])
def test_intervals_that_do_not_fit_are_refused(n: int, sigma: float) -> None:
    data, offsets = make_table()
    given = {"float": Intervals(np.full((n, 2), sigma), np.full((n, 2), 0.1))}
    with pytest.raises(UserError, match=r"intervals of 'float' have shape .* run `braggnn-edge csim`"):
        report.evaluate_run(data, moved(offsets), {}, {}, INFO, {}, given)


@pytest.mark.parametrize("largest", [-0.1, float("inf"), float("nan")])
def test_a_threshold_that_is_none_is_refused(largest: float) -> None:
    with pytest.raises(UserError, match=r"report: largest_sigma .* px; expected a length, or 0"):
        ReportSpec(largest_sigma=largest)

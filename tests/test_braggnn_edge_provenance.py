"""What a network was trained on: ranges of its file, peaks outside of them, in evaluate and in the report."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from builders import spots

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.estimators import ESTIMATORS
from braggnn_edge.evaluation.provenance import (
    Ranges,
    described,
    groups_outside,
    outside,
    ranges_of,
    ranges_of_peaks,
    reasons,
    sentence,
)
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.locate.calibration import Calibration
from braggnn_edge.locate.evaluate import evaluate, table_lines
from braggnn_edge.locate.frames import flagged, locate_frames
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.networks import open_network
from braggnn_edge.locate.summary import Summary
from braggnn_edge.peaks.peak_list import PeakFlag
from braggnn_edge.peaks.rules import component_rule
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.report import build as report
from braggnn_edge.report import page
from braggnn_edge.training.spec import LoopSpec, NetworkSpec, TrainSpec
from braggnn_edge.training.train import train_network
from braggnn_edge.universal.network import UniversalNetwork, save

FILE = Path("net.npz")
RANGES = Ranges((1.0, 4.0), (50.0, 900.0), saturated=True)


def peaks(n: int = 100) -> PeakTable:
    """Peaks of 2.5 px and 500 counts that the tests change."""
    found = spots(n, 11)
    p = found.peaks
    p["split"], p["voigt_converged"], p["maximum"], p["area"] = TEST, True, 500.0, 9
    p["voigt_fwhm_minor"], p["voigt_fwhm_major"] = 2.5, 6.0
    return found


def test_ranges_are_those_of_the_family() -> None:
    family = {"fwhm": [0.7, 9.0], "heights": [10.0, 1e5], "gain": [0.5, 4.0], "saturated": 0.0}
    assert ranges_of({"family": family}, FILE) == Ranges((0.7, 9.0), (5.0, 4e5), None, False)
    assert ranges_of({"family": family | {"saturated": 0.1}}, FILE) == Ranges((0.7, 9.0), (5.0, 4e5), None, True)
    assert ranges_of({"seed": 3}, FILE) is None
    assert open_network("universal").trained_on == Ranges((0.7, 9.0), (5.0, 4e5), None, True)


@pytest.mark.parametrize(
    "provenance",
    [
        {"family": {"fwhm": [0.7, 9.0]}},
        {"family": {"fwhm": [9.0, 0.7], "heights": [1, 2], "gain": [1, 1], "saturated": 0}},
        {"family": {"fwhm": [1.0], "heights": [1, 2], "gain": [1, 1], "saturated": 0}},
        {"family": 3},
        {"training_peaks": {"fwhm": [1, 2], "counts": ["few", 2], "area": [1, 2], "saturated": False}},
    ],
)
def test_ranges_that_cannot_be_are_refused(provenance: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"net\.npz: the ranges of what this network was trained on cannot be read"):
        ranges_of(provenance, FILE)


def test_peaks_outside_are_counted_by_reason_and_once_in_all() -> None:
    table = peaks()
    p = table.peaks
    p["voigt_fwhm_minor"][:4] = 4.0, 4.01, 0.9, 1.0
    p["maximum"][1:7] = 901.0, 900.0, 900.0, 50.0, 49.0, 1e5
    p["voigt_converged"][7], p["voigt_fwhm_minor"][7] = False, np.nan
    p["saturated"][8] = True
    found = {name: np.flatnonzero(mask).tolist() for name, mask in reasons(RANGES, table).items()}
    assert found == {
        "narrower than 1 px": [2], "wider than 4 px": [1], "fainter than 50 counts": [5],
        "brighter than 900 counts": [1, 6],
    }  # fmt: skip
    assert np.flatnonzero(outside(RANGES, table)).tolist() == [1, 2, 5, 6]
    entry = described(RANGES, table)
    assert (entry["outside"], entry["peaks"], entry["without_width"]) == (4, 100, 1)
    said = sentence(["net"], entry)
    assert said.startswith(
        "4 of 100 peaks are outside what net was trained on: 1 narrower than 1 px, 1 wider than 4 px"
    )
    assert said.endswith("2 brighter than 900 counts (the width of 1, whose fit did not converge, is not known)")
    unsaturated = Ranges(RANGES.fwhm, RANGES.counts, (9, 9), False)
    assert reasons(unsaturated, table)["saturated"].sum() == 1
    p["area"][9] = 10
    assert reasons(unsaturated, table)["larger than 9 pixels"].sum() == 1


def test_all_inside_and_nothing_known_are_said() -> None:
    assert sentence(["a", "b"], described(RANGES, peaks())) == "all 100 peaks are within what a and b were trained on"
    assert "is not known" in sentence(["a"], described(None, peaks()))
    assert not outside(None, peaks()).any()
    assert groups_outside({"a": RANGES, "b": None, "c": RANGES}, peaks()).keys() == {"outside provenance of a, c"}


def test_ranges_of_training_peaks_are_those_of_their_fits() -> None:
    table = peaks(10)
    table.peaks["voigt_fwhm_minor"] = np.linspace(1, 2, 10)
    table.peaks["voigt_converged"][9] = False
    table.peaks["maximum"], table.peaks["area"] = np.arange(10) + 100, np.arange(10) + 4
    found = ranges_of_peaks(table)
    assert found is not None
    assert found.fwhm == pytest.approx((1.0, 17 / 9))
    assert (found.counts, found.area, found.saturated) == ((100.0, 109.0), (4.0, 13.0), False)
    assert not outside(found, table).any()
    table.peaks["voigt_converged"] = False
    assert ranges_of_peaks(table) is None


def test_a_network_of_a_scan_writes_its_ranges_and_opens_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = spots(64, 9)
    table.peaks["voigt_converged"], table.peaks["voigt_fwhm_minor"] = True, 2.0
    table.peaks["maximum"] = np.where(table.peaks["split"] == 0, 70.0, 80.0)  # of training, of validation
    monkeypatch.setattr("braggnn_edge.training.train.check_learned", lambda *_: None)  # one step teaches nothing
    loop = LoopSpec(16, 1e-3, max_iterations=1, evaluate_every=1)
    spec = TrainSpec(NetworkSpec((4, 2), (4,), False), loop=loop, shift=0)
    train_network(spec, table, 1, tmp_path, "full", lambda _: None, directions=False)
    assert open_network(tmp_path / "full.pt").trained_on == Ranges((2.0, 2.0), (70.0, 70.0), (0.0, 0.0), False)
    document = json.loads((tmp_path / "full.json").read_text())
    del document["training_peaks"]  # files of an earlier version have none
    (tmp_path / "full.json").write_text(json.dumps(document))
    assert open_network(tmp_path / "full.pt").trained_on is None


def network(trained_on: Ranges | None) -> Locator:
    return Locator("known", 11, ESTIMATORS["centre_of_mass"], "float64", "CPU", trained_on=trained_on)


def test_evaluate_marks_and_groups_peaks_outside() -> None:
    table = peaks()
    table.peaks["voigt_fwhm_minor"][:19] = 5.0
    few = evaluate(table, {"net": network(RANGES)})
    assert few["provenance"]["net"]["reasons"] == {"wider than 4 px": 19}
    assert few["errors_px"]["net"]["outside"] == 19
    assert "outside" not in few["errors_px"]["centre_of_mass"]
    assert "outside provenance of net" not in few["groups"]  # too few
    table.peaks["voigt_fwhm_minor"][19] = 5.0
    found = evaluate(table, {"net": network(RANGES), "other": network(None)})
    assert found["provenance"]["other"] == {}
    assert found["groups"]["outside provenance of net"]["net"]["n"] == 20
    assert found["groups"]["outside provenance of net"]["other"]["n"] == 20
    lines = "\n".join(table_lines(found))
    assert "20 of 100 peaks are outside what net was trained on: 20 wider than 4 px" in lines
    assert "what other was trained on is not known" in lines
    assert "(20 outside its provenance)" in lines
    assert "20 peaks, outside provenance of net:" in lines


def test_report_marks_and_groups_peaks_outside(tmp_path: Path) -> None:
    table = peaks()
    table.peaks["voigt_fwhm_minor"][:25] = 5.0
    table.peaks["split"][60:] = 0
    offsets = table.of(TEST).offsets("truth")
    predictions = {"universal": offsets, "float": offsets, "quantized": offsets}
    info: dict[str, Any] = {"name": "tiny", "seed": 1, "config": {}}
    shipped = {"universal": network(RANGES)}
    document = report.evaluate_run(table, predictions, {}, {}, info, shipped).document
    assert document["provenance"]["universal"]["outside"] == 25
    assert document["provenance"]["float"]["reasons"] == {"wider than 2.5 px": 25}  # the other 40 are of training
    assert document["errors_px"]["universal"]["outside"] == 25
    assert set(document["groups"]) == {"outside provenance of universal", "outside provenance of float, quantized"}
    html = " ".join(page.render(document, "float", tmp_path).split())
    assert "25 of 60 peaks are outside what universal network was trained on: 25 wider than 4 px." in html
    assert "outside what float BraggNN and quantized were trained on: 25 wider than 2.5 px." in html
    assert "60<small>◇ 25 outside</small>" in html  # of all peaks
    assert "25<small>◇ 25 outside</small>" in html  # in the group
    assert "outside provenance of float, quantized</th>" in html
    initial = info | {"config": {"full": {"initial": "net.pt"}}}
    document = report.evaluate_run(table, predictions, {}, {}, initial, shipped).document
    assert document["provenance"]["float"] == {}


def test_a_locator_counts_patches_beyond_what_it_was_trained_on() -> None:
    locator = network(RANGES)
    patches = np.zeros((5, 11, 11), np.uint16)
    patches[:, 5, 5] = 49, 50, 900, 901, 60_000
    locator.batch = 2
    assert np.isfinite(locator.locate(patches)).all()
    assert locator.outside == 3
    locator.locate(patches[:1])
    assert locator.outside == 4
    assert network(None).outside == 0


def test_a_universal_file_without_a_family_is_of_unknown_provenance(tmp_path: Path) -> None:
    save(UniversalNetwork(7, (4,)), Calibration(), {}, tmp_path / "a.npz")
    assert open_network(tmp_path / "a.npz").trained_on is None
    save(UniversalNetwork(7, (4,)), Calibration(), {"family": {}}, tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"a\.npz: the ranges"):
        open_network(tmp_path / "a.npz")


def test_locate_says_how_many_peaks_are_outside_and_marks_them(tmp_path: Path) -> None:
    frames = np.zeros((2, 32, 32), np.uint16)
    for frame, top in zip(frames, (500, 50_000), strict=True):
        frame[14:17, 14:17] = top // 2
        frame[15, 15] = top
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["frames"] = frames
    for ranges, marked, words in (
        (Ranges((1.0, 4.0), (5.0, 900.0)), [0, 1], "(counts of the brightest pixel 5 to 900, FWHM 1 to 4 px"),
        (Ranges((1.0, 4.0), (5.0, 900.0)), [0, 1], "): 1 brighter than 900 counts"),
        (Ranges((3.0, 4.0), (5.0, 4e5)), [1, 1], "): 2 narrower than 3 px"),
        (Ranges((1.0, 4.0), (5.0, 4e5), (4.0, 8.0)), [1, 1], "area 4 to 8 px, not saturated): 2 larger than 8 pixels"),
        (Ranges((1.0, 4.0), (5.0, 4e5)), [0, 0], "OUTSIDE: 0 peaks are outside of what known was trained on ("),
        (None, [0, 0], "what known was trained on is not known: no peak is marked OUTSIDE"),
    ):
        locator = network(ranges)
        (rows,) = locate_frames(locator, open_scan("braggnn", tmp_path / "scan.h5"), component_rule(100.0))
        assert flagged(rows, PeakFlag.OUTSIDE).tolist() == marked
        summary = Summary(locator)
        summary.add(rows)
        assert words in summary.lines(2, [])[-1]

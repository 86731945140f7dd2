"""The labelling stage: complete, independent of workers, resumable, and clear about bad input."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge import acquisition, label, table
from braggnn_edge.acquisition import DetectorSpec, ScanSpec
from braggnn_edge.errors import UserError
from braggnn_edge.label_part import PeakSpec
from braggnn_edge.scan import open_scan
from braggnn_edge.simulate import SimulationSpec
from braggnn_edge.split import SplitSpec

SCAN = ScanSpec(
    "tiny",
    threshold=45.0,
    detector=DetectorSpec(1.0, 2.0, 65535.0),
    simulate=SimulationSpec(
        rows=192, cols=192, frames=34, reflections=250, heights=(300.0, 20000.0), rings=(50.0, 80.0)
    ),
)
SPLIT = SplitSpec(block=5, guard=1, validation=0.2, test=0.2)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    acquisition.run((SCAN,), directory, 1, directory, 1, quiet)
    return directory


def labelled(data: Path, out: Path, workers: int = 1, **changes) -> table.PeakTable:
    out.mkdir(exist_ok=True)
    scan = dataclasses.replace(SCAN, **changes)
    label.run((scan,), PeakSpec(), SPLIT, 1, data, data, out, workers, quiet)
    return table.load(out / "peaks.h5")


def test_labels_crops_and_truth_agree(data, tmp_path) -> None:
    found = labelled(data, tmp_path / "label")
    assert len(found.peaks) > 50
    assert {0, 1, 2} <= set(found.peaks["split"].tolist())
    patches = found.patches()
    assert (patches[:, 5, 5] == found.peaks["maximum"]).all()
    known = found.has("truth") & found.has("voigt")
    assert known.mean() > 0.95
    error = np.linalg.norm((found.offsets("voigt") - found.offsets("truth"))[known], axis=1)
    bound = np.sqrt(found.peaks["bound_var_row"] + found.peaks["bound_var_col"])[known]
    # The fit is efficient on isolated peaks, so the median of error / bound is that of a 2-D normal with both widths
    # in the denominator: sqrt(ln 4) / sqrt(2) = 0.83 for equal widths, less for unequal; neighbours add a little.
    assert 0.6 < np.median(error / bound) < 1.1
    assert np.array_equal(found.offsets("best")[known], found.offsets("truth")[known])


def test_labels_and_frames_are_a_pair_in_the_upstream_layout(data, tmp_path) -> None:
    found = labelled(data, tmp_path / "label")
    pair = open_scan("braggnn", data / "tiny.h5", peaks=tmp_path / "label/tiny_peaks.h5")
    converged = found.peaks[found.peaks["voigt_converged"]]
    assert len(pair.peaks) == len(converged)
    assert np.array_equal(pair.peaks["frame"], converged["frame"])
    assert np.array_equal(pair.peaks["row"], converged["voigt_row"].astype(np.float32))
    assert pair.peaks["valid"].mean() > 0.9


def test_interrupted_and_parallel_runs_give_the_same_bytes(data, tmp_path, monkeypatch) -> None:
    labelled(data, tmp_path / "whole")
    calls = 0
    original = label.label_part

    def fails_once(task) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        original(task)

    monkeypatch.setattr(label, "label_part", fails_once)
    with pytest.raises(KeyboardInterrupt):
        labelled(data, tmp_path / "killed")
    assert not (tmp_path / "killed" / "peaks.h5").exists()
    assert len(list((tmp_path / "killed" / "parts").glob("*.npz"))) == 1
    labelled(data, tmp_path / "killed")
    monkeypatch.undo()
    labelled(data, tmp_path / "parallel", workers=2)
    whole = (tmp_path / "whole" / "peaks.h5").read_bytes()
    assert (tmp_path / "killed" / "peaks.h5").read_bytes() == whole
    assert (tmp_path / "parallel" / "peaks.h5").read_bytes() == whole


def test_selection_by_residual_and_saturation(data, tmp_path) -> None:
    strict = labelled(data, tmp_path / "strict", max_residual=0.02, unsaturated=True)
    used = strict.peaks[strict.peaks["split"] != table.EXCLUDED]
    assert 0 < len(used) < len(strict.peaks)
    assert (used["voigt_residual"] < 0.02).all()
    assert not strict.peaks["saturated"].any()


def test_no_peaks_is_an_error_that_names_the_scan(data, tmp_path) -> None:
    with pytest.raises(UserError, match="'tiny': no peaks found above 60000"):
        labelled(data, tmp_path / "none", threshold=60000.0)
    assert not (tmp_path / "none" / "peaks.h5").exists()


def test_patch_larger_than_the_frame_is_refused(data, tmp_path) -> None:
    with pytest.raises(UserError, match="do not fit in frames of 192 x 192"):
        label.run((SCAN,), PeakSpec(size=193), SPLIT, 1, data, data, tmp_path, 1, quiet)


@pytest.mark.parametrize("size", [10, 1])
def test_even_or_tiny_patch_size_is_refused(size) -> None:
    with pytest.raises(UserError, match=f"patch size {size}"):
        PeakSpec(size=size)


def test_table_refuses_other_files(tmp_path) -> None:
    path = tmp_path / "peaks.h5"
    with pytest.raises(UserError, match=r"peaks\.h5"):
        table.load(path)
    path.write_bytes(b"\x89HDF truncated")
    with pytest.raises(UserError, match=r"peaks\.h5"):
        table.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "hexrd"}, "needs a path"),
        ({"use": ("train", "tests")}, "use"),
        ({"name": "a/b"}, "file name"),
        ({"min_area": 0}, "min_area"),
    ],
)
def test_senseless_scans_are_refused(changes, message) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SCAN, **changes)

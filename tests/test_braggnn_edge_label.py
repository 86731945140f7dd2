"""The labelling stage: complete, independent of workers, resumable, and clear about bad input."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.core import progress
from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats.braggnn import read_peaks
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.label import acquisition, shard
from braggnn_edge.label import labelling as label
from braggnn_edge.label.spec import DetectorSpec, PeakSpec, ScanSpec, SplitSpec, check_scans
from braggnn_edge.peaks import table
from braggnn_edge.peaks.find import is_lone
from braggnn_edge.peaks.splits import EXCLUDED, TEST, TRAIN
from braggnn_edge.shards import files
from braggnn_edge.simulation.simulate import SimulationSpec

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
    assert (np.diff(found.peaks["frame"]) >= 0).all()
    patches = found.patches()
    assert (patches[:, 5, 5] == found.peaks["maximum"]).all()
    found = found.where(is_lone(found.peaks))
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
    assert pair.peaks["valid"][is_lone(converged)].mean() > 0.9


def interrupted(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> list[Path]:
    """The shards that a run leaves which is stopped when it has made some."""
    original, made = shard.label_shard, []

    def stops(task) -> None:
        if len(made) == after:
            raise KeyboardInterrupt
        original(task)
        made.append(task.start)

    with monkeypatch.context() as patch:
        patch.setattr(shard, "label_shard", stops)
        with pytest.raises(KeyboardInterrupt):
            labelled(data, out)
    assert not (out / "peaks.h5").exists()
    return sorted(out.glob("shards-*/*"))


def test_interrupted_run_goes_on_and_gives_the_same_bytes(data, tmp_path, monkeypatch) -> None:
    labelled(data, tmp_path / "whole")
    kept = interrupted(data, tmp_path / "killed", monkeypatch, 2)
    assert [path.name for path in kept] == ["00-000000.npz", "00-000016.npz"]
    # What a power failure leaves of a file, and a killed worker of another.
    kept[0].write_bytes(kept[0].read_bytes()[:-100])
    kept[0].with_name(".00-000032.writing").write_bytes(b"half")
    before = kept[1].stat().st_mtime_ns
    made, original = [], shard.label_shard
    monkeypatch.setattr(shard, "label_shard", lambda task: (made.append(task.start), original(task)))
    monkeypatch.setattr(files, "remove", lambda _: None)
    labelled(data, tmp_path / "killed")
    assert made == [0, 32]
    assert kept[1].stat().st_mtime_ns == before
    for name in ("peaks.h5", "tiny_peaks.h5", "summary.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_run_stopped_while_tidying_up_labels_nothing_again(data, tmp_path, monkeypatch) -> None:
    labelled(data, tmp_path / "out")
    before = (tmp_path / "out/peaks.h5").stat().st_mtime_ns
    for name in ("shards-1", ".shards-2"):
        (tmp_path / "out" / name).mkdir()
    monkeypatch.setattr(shard, "label_shard", None)
    labelled(data, tmp_path / "out")
    assert (tmp_path / "out/peaks.h5").stat().st_mtime_ns == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"peaks.h5", "tiny_peaks.h5", "summary.json"}


def test_damaged_shard_that_was_whole_at_the_start_is_removed(data, tmp_path, monkeypatch) -> None:
    kept = interrupted(data, tmp_path / "out", monkeypatch, 2)
    raw = bytearray(kept[1].read_bytes())
    raw[len(raw) // 3] ^= 1  # in the data of the first array, whose checksum no longer fits
    kept[1].write_bytes(raw)
    with pytest.raises(UserError, match=r"00-000016\.npz is damaged and was removed; run the same command again"):
        labelled(data, tmp_path / "out")
    labelled(data, tmp_path / "out")


def test_scan_for_one_part_needs_no_other(data, tmp_path) -> None:
    found = labelled(data, tmp_path / "out", use=("test",))
    assert set(found.peaks["split"].tolist()) <= {TEST, EXCLUDED}
    assert np.array_equal(found.peaks["split"] == TEST, is_lone(found.peaks))


def test_part_that_a_scan_feeds_must_have_peaks(data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(label, "frame_splits", lambda frames, *_: np.full(frames, TRAIN, np.uint8))
    with pytest.raises(UserError, match="no peak is in the validation part"):
        labelled(data, tmp_path / "out")
    assert not (tmp_path / "out/peaks.h5").exists()
    with pytest.raises(UserError, match="no peak is in the test part"):
        labelled(data, tmp_path / "test", use=("train", "test"))
    labelled(data, tmp_path / "train", use=("train",))


def test_skipped_frames_are_counted_and_rows_that_are_not_alone_excluded(data, tmp_path, monkeypatch) -> None:
    original, said = shard.label_shard, []

    def marks(task) -> None:
        original(task)
        with np.load(task.shard) as file:
            arrays = dict(file)
        if task.start == 16:
            arrays["bad_frames"] = np.array([17, 20])
        arrays["peaks"]["maxima"][::2] = 2
        with task.shard.open("wb") as stream:
            np.savez(stream, **arrays)

    monkeypatch.setattr(shard, "label_shard", marks)
    monkeypatch.setattr(sys.modules[__name__], "quiet", said.append)
    found = labelled(data, tmp_path / "out", use=("test",))
    assert json.loads((tmp_path / "out/summary.json").read_text())["tiny"]["bad_frames"] == 2
    assert "  tiny: 2 bad frames skipped: 17, 20" in said
    alone = is_lone(found.peaks)
    assert not alone[found.peaks["maxima"] == 2].any()
    assert 0 < alone.sum() < len(alone) / 2
    assert np.array_equal(found.peaks["split"] == EXCLUDED, ~alone)
    assert len(read_peaks(tmp_path / "out/tiny_peaks.h5")) == found.peaks["voigt_converged"].sum()


def test_progress_is_a_few_lines(monkeypatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    said: list[str] = []
    shown = progress.Progress(100, said.append, done=40, peaks=4000)
    for _ in range(60):
        shown.add(1500)
    assert len(said) == 6
    assert said[0] == "  labelled 50 of 100 shards, 19,000 peaks, 1,500 peaks/s, 0:50 left"
    assert said[-1] == "  labelled 100 of 100 shards, 94,000 peaks, 1,500 peaks/s, 0:00 left"


def test_selection_by_residual_and_saturation(data, tmp_path) -> None:
    strict = labelled(data, tmp_path / "strict", max_residual=0.02, unsaturated=True)
    used = strict.peaks[strict.peaks["split"] != EXCLUDED]
    assert 0 < len(used) < len(strict.peaks)
    assert (used["voigt_residual"] < 0.02).all()
    assert not strict.peaks["saturated"].any()


def test_no_peaks_is_an_error_that_names_the_scan(data, tmp_path) -> None:
    wrong = r"'tiny': no pixel of 34 frames is above the threshold of 60000 counts, .* so lower the threshold"
    with pytest.raises(UserError, match=wrong):
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


def test_saturated_peaks_are_in_the_table_but_not_used(data, tmp_path) -> None:
    lower = dataclasses.replace(SCAN.simulate, saturation=2000)
    scan = dataclasses.replace(SCAN, detector=dataclasses.replace(SCAN.detector, saturation=2000.0), simulate=lower)
    (tmp_path / "out").mkdir()
    label.run((scan,), PeakSpec(), SPLIT, 1, data, data, tmp_path / "out", 1, quiet)
    found = table.load(tmp_path / "out/peaks.h5").peaks
    assert found["saturated"].sum() > 5
    assert (found["split"][found["saturated"]] == EXCLUDED).all()


def test_a_detector_that_equals_the_defaults_is_given_all_the_same() -> None:
    """It was taken for one that is left out, and replaced by the simulation's."""
    given = ScanSpec("s", detector=DetectorSpec(gain=1.0, read_noise=1.0))
    assert given.detector.read_noise == 1.0
    with pytest.raises(UserError, match=r"read_noise = 1\.0 but simulate read_noise = 2\.0"):
        check_scans((given,), training=False)
    assert ScanSpec("s").detector == DetectorSpec(1.0, 2.0, 65535.0, 0.0)
    assert ScanSpec("m", "hdf5", "a.h5").detector == DetectorSpec()
    same = SimulationSpec(read_noise=1.0)
    check_scans((ScanSpec("s", detector=DetectorSpec(saturation=65535.0), simulate=same),), training=False)

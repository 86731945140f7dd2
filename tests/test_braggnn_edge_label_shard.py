"""One shard of labelling: joint fits against the truth, what is left out of fits, flags; the table they go to."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from braggnn_edge.fit.pseudo_voigt import PARAMETERS, render
from braggnn_edge.frames.formats.braggnn import write_frames
from braggnn_edge.label.shard import Task, label_shard
from braggnn_edge.label.spec import DetectorSpec, PeakSpec, ScanSpec
from braggnn_edge.peaks import table
from braggnn_edge.peaks.find import is_lone
from braggnn_edge.peaks.table import PEAK, Flag, PeakTable
from braggnn_edge.simulation.truth import RADIUS, TRUTH_DTYPE, spot_of

DETECTOR = DetectorSpec(gain=1.0, read_noise=1.0)
BACKGROUND = 10.0
WINDOW = 31  # px in which a spot is rendered


def spots_at(places: list[tuple[float, float]], amplitude: float = 3000.0, **shape: float) -> np.ndarray:
    """Truth rows of round spots in frame 0."""
    spots = np.zeros(len(places), TRUTH_DTYPE)
    spots["row"], spots["col"] = np.reshape(places, (-1, 2)).T
    for name, value in {"fwhm_major": 2.2, "fwhm_minor": 1.9, "eta": 0.3, "tilt": 0.4, **shape}.items():
        spots[name] = value
    spots["amplitude"], spots["background"], spots["reflection"] = amplitude, BACKGROUND, np.arange(len(spots))
    return spots


def frame_of(spots: np.ndarray, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Photons (rows, cols) of the spots on a constant background."""
    half = WINDOW // 2
    parameters = np.stack([spots[name] for name in PARAMETERS], axis=1).astype(np.float64)
    corner = np.rint(parameters[:, :2]).astype(int)
    parameters[:, :2] += half - corner
    parameters[:, PARAMETERS.index("background")] = 0.0
    padded = np.full((shape[0] + 2 * half, shape[1] + 2 * half), BACKGROUND)
    windows = render(torch.from_numpy(parameters), WINDOW, 4).numpy()
    for (row, col), window in zip(corner, windows, strict=True):
        padded[row : row + WINDOW, col : col + WINDOW] += window
    expected = padded[half:-half, half:-half]
    return np.random.default_rng(seed).poisson(expected).astype(np.uint16)


def rows_of(
    folder: Path,
    frame: np.ndarray,
    spots: np.ndarray | None,
    mask: np.ndarray | None = None,
    saturation: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and crops that labelling makes of one frame."""
    write_frames(folder / "scan.h5", [frame], (1, *frame.shape), frame.dtype)
    options = {"name": "scan", "threshold": 80.0, "detector": dataclasses.replace(DETECTOR, saturation=saturation)}
    if spots is None:
        spec = ScanSpec(format="braggnn", path=str(folder / "scan.h5"), mask=_saved(folder, mask), **options)
    else:
        with h5py.File(folder / "scan_truth.h5", "w") as file:
            for name in TRUTH_DTYPE.names:
                file[name] = spots[name]
        spec = ScanSpec(**options)
    label_shard(Task(0, spec, 0, 1, folder, folder, PeakSpec(), folder / "shard.npz"))
    with np.load(folder / "shard.npz") as shard:
        return shard["peaks"], shard["crops"]


def _saved(folder: Path, mask: np.ndarray | None) -> str:
    if mask is None:
        return ""
    np.save(folder / "mask.npy", mask)
    return str(folder / "mask.npy")


def test_overlapping_peaks_are_fitted_jointly_at_the_bound(tmp_path) -> None:
    rng = np.random.default_rng(3)
    places = []
    for number, (row, col) in enumerate(np.mgrid[25:210:36, 25:210:36].reshape(2, -1).T):
        centre = np.array([row, col]) + rng.uniform(-0.5, 0.5, 2)
        angle = rng.uniform(0, np.pi)
        step = rng.uniform(3.5, 4.5) * np.array([np.sin(angle), np.cos(angle)])
        across = np.array([-step[1], step[0]])
        places += [centre, centre + step, centre + across][: 2 + number % 2]
    spots = spots_at([tuple(place) for place in places])
    frame = frame_of(spots, (230, 230))
    rows, crops = rows_of(tmp_path, frame, spots)
    assert len(rows) == len(spots) == 90
    assert sorted(rows["truth_reflection"].tolist()) == list(range(len(spots)))
    assert rows["voigt_converged"].all()
    assert ((rows["flags"] & Flag.JOINT) > 0).all()
    assert np.bincount(rows["maxima"]).tolist() == [0, 0, 36, 54]
    assert np.array_equal(np.bincount(np.bincount(rows["component"])), [0, 0, 18, 18])
    assert (crops[:, 6, 6] == rows["maximum"]).all()
    order = np.lexsort((rows["col"], rows["row"]))
    assert np.array_equal(order, np.arange(len(rows)))
    error = np.stack([rows[f"voigt_{name}"] - rows[f"truth_{name}"] for name in ("row", "col")], axis=1)
    # chi^2 of the errors with the fit's own covariance has a mean of 2; of 90 with a standard deviation of 0.21.
    pull = np.einsum("ni,nij,nj->n", error, np.linalg.inv(rows["voigt_covariance"][:, :2, :2]), error)
    assert abs(pull.mean() - 2) < 0.6
    assert np.hypot(*error.T).max() < 0.12
    assert np.allclose(rows["voigt_covariance"][:, 0, 0], rows["voigt_var_row"], rtol=1e-6)
    assert abs(np.median(rows["voigt_background"]) - BACKGROUND) < 1
    reduced = rows["voigt_chi2"] / rows["voigt_dof"]
    assert 0.9 < reduced.mean() < 1.1
    assert not is_lone(rows).any()


def test_bad_pixels_and_neighbours_are_left_out_of_the_fit(tmp_path) -> None:
    # Alone; with a bad pixel at its flank; with another component in its patch, which a bad column parts from it.
    spots = spots_at([(20.2, 20.1), (20.2, 60.1), (20.2, 100.1), (20.2, 107.1)])
    frame = frame_of(spots, (40, 130))
    mask = np.zeros(frame.shape, bool)
    mask[21, 61] = mask[:, 104] = True
    frame[21, 61] = 60000
    rows, _ = rows_of(tmp_path, frame, None, mask)
    assert rows["col"].tolist() == [20, 60, 100, 107]
    assert rows["masked"].tolist() == [0, 1, 11, 11]
    assert rows["neighbours"].tolist() == [0, 0, 1, 1]
    assert rows["maxima"].tolist() == [1] * 4
    assert rows["flags"].tolist() == [0, Flag.MASKED] + 2 * [Flag.MASKED | Flag.CROWDED]
    assert rows["voigt_converged"].all()
    assert rows["voigt_dof"][1] == rows["voigt_dof"][0] - 1
    assert rows["voigt_dof"][2] < rows["voigt_dof"][0] - 11  # the column, and what is of the other component
    error = np.hypot(rows["voigt_row"] - spots["row"], rows["voigt_col"] - spots["col"])
    assert error.max() < 0.05
    assert rows["maximum"].max() < 4000  # the bad pixel is no maximum
    assert is_lone(rows).tolist() == [True, False, False, False]


def test_joint_fits_leave_out_bad_pixels_and_neighbours(tmp_path) -> None:
    spots = spots_at([(20.2, 20.1), (20.2, 24.1), (20.2, 29.9)], eta=0.05)
    spots["amplitude"][2] = 900.0
    frame = frame_of(spots, (40, 50))
    mask = np.zeros(frame.shape, bool)
    mask[19, 21] = mask[:, 27] = True
    rows, _ = rows_of(tmp_path, frame, None, mask)
    assert rows["maxima"].tolist() == [2, 2, 1]
    # 15 x 15 px, less the bad column and pixel, and 15 parameters; the neighbour takes part of two more columns.
    assert 225 - 16 - 15 - 2 * 15 < rows["voigt_dof"][0] < 225 - 16 - 15 - 4
    assert rows["voigt_dof"][0] == rows["voigt_dof"][1]
    assert rows["voigt_chi2"][0] / rows["voigt_dof"][0] < 1.4
    assert np.hypot(rows["voigt_row"] - spots["row"], rows["voigt_col"] - spots["col"]).max() < 0.1


def test_components_that_cannot_be_fitted_are_flagged(tmp_path) -> None:
    cases = {
        "many": [(20.0 + 4 * (i // 4), 20.0 + 4 * (i % 4)) for i in range(8)],
        "far": [(60.0, 20.0 + 4.0 * i) for i in range(6)] + [(60.0, 44.5)],
        "edge": [(100.0, 3.0), (100.0, 7.0)],
    }
    rows = {}
    for name, places in cases.items():
        (tmp_path / name).mkdir()
        spots = spots_at(places, fwhm_major=2.6, fwhm_minor=2.6)
        rows[name] = rows_of(tmp_path / name, frame_of(spots, (120, 70)), spots)[0]
    assert len(rows["many"]) == 8
    assert (rows["many"]["flags"] == (Flag.TOO_MANY_MAXIMA | Flag.NOT_CONVERGED)).all()
    assert np.isnan(rows["many"]["voigt_row"]).all()
    assert not rows["many"]["voigt_converged"].any()
    # Six maxima in a row of 21 px or more, with half a patch on both sides, do not fit in 31 px.
    far = spots_at([(60.0, 20.0 + 4.5 * i) for i in range(6)], fwhm_major=2.6, fwhm_minor=2.6)
    found, _ = rows_of(tmp_path, frame_of(far, (120, 70)), far)
    assert (found["flags"] == (Flag.TOO_FAR | Flag.NOT_CONVERGED)).all()
    assert len(found) == 6
    assert (rows["far"]["flags"] == (Flag.TOO_MANY_MAXIMA | Flag.NOT_CONVERGED)).all()
    # The maximum at the edge has no crop and no row, and takes part in the fit of the other.
    assert rows["edge"]["col"].tolist() == [7]
    assert rows["edge"]["flags"].tolist() == [Flag.JOINT | Flag.EDGE]
    assert abs(rows["edge"]["voigt_col"][0] - 7.0) < 0.05


def test_spots_are_found_as_by_looking_at_all() -> None:
    rng = np.random.default_rng(5)
    spots = spots_at([tuple(place) for place in rng.uniform(0, 60, (150, 2))])
    spots["amplitude"] = rng.choice([100.0, 1000.0, 3000.0], len(spots))
    rows, cols = rng.integers(0, 60, (2, 200))
    found = spot_of(rows, cols, spots)
    distance2 = (rows[:, None] - spots["row"]) ** 2 + (cols[:, None] - spots["col"]) ** 2
    share = spots["amplitude"] * np.exp(-4 * np.log(2) * distance2 / (spots["fwhm_major"] * spots["fwhm_minor"]))
    share[distance2 > RADIUS**2] = -1
    expected = np.where(share.max(axis=1) >= 0, share.argmax(axis=1), -1)
    assert np.array_equal(found, expected)
    assert (found == -1).any()
    assert (spot_of(rows, cols, spots[:0]) == -1).all()


def _random_table(count: int) -> PeakTable:
    rng = np.random.default_rng(1)
    peaks = np.zeros(count, PEAK)
    for name in PEAK.names:
        peaks[name] = rng.integers(0, 2, peaks[name].shape)
    return PeakTable(peaks, rng.integers(0, 999, (count, 7, 7), dtype=np.uint16), ("a", "b"), 5, 1)


@pytest.mark.parametrize("step", [1, 999, 1024, 2500])
def test_the_table_does_not_depend_on_its_shards(tmp_path, step) -> None:
    expected = _random_table(2500)
    table.save(expected, tmp_path / "whole.h5")
    with table.writing(tmp_path / "shards.h5", ("a", "b"), 5, 1, np.uint16) as append:
        for start in range(0, 2500, step):
            append(expected.peaks[start : start + step], expected.crops[start : start + step])
            append(expected.peaks[:0], expected.crops[:0])
    assert (tmp_path / "shards.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    found = table.load(tmp_path / "shards.h5")
    assert found.peaks.tobytes() == expected.peaks.tobytes()
    assert np.array_equal(found.crops, expected.crops)
    assert (found.scans, found.size, found.shift) == (("a", "b"), 5, 1)


def test_a_table_that_fails_leaves_no_file(tmp_path) -> None:
    part = _random_table(3)

    def write() -> None:
        with table.writing(tmp_path / "peaks.h5", ("a",), 5, 1, np.uint16) as append:
            append(part.peaks, part.crops)
            append(part.peaks, part.crops[:2])

    with pytest.raises(ValueError, match="do not fit"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_the_file_says_what_its_columns_are(tmp_path) -> None:
    table.save(_random_table(3), tmp_path / "peaks.h5")
    with h5py.File(tmp_path / "peaks.h5") as file:
        attributes = dict(file["peaks"].attrs)
    units = dict(zip(PEAK.names, attributes["units"], strict=True))
    assert (units["voigt_row"], units["voigt_tilt"], units["bound_var_row"]) == ("px", "rad", "px**2")
    meanings = attributes["flag_meanings"].split()
    assert {name: int(mask) for name, mask in zip(meanings, attributes["flag_masks"], strict=True)} == {
        flag.name: flag.value for flag in Flag
    }


def test_tables_of_the_first_version_are_read(tmp_path) -> None:
    written = _random_table(5)
    added = ("component", "masked", "flags", "voigt_covariance", "voigt_dof", "voigt_iterations")
    old = [name for name in PEAK.names if name not in added]
    table.save(written, tmp_path / "peaks.h5")
    with h5py.File(tmp_path / "peaks.h5", "a") as file:
        del file["peaks"]
        peaks = np.empty(5, [(name, PEAK[name]) for name in old])
        for name in old:
            peaks[name] = written.peaks[name]
        file["peaks"] = peaks
    found = table.load(tmp_path / "peaks.h5").peaks
    assert all(np.array_equal(found[name], written.peaks[name]) for name in old)
    assert (found["component"] == -1).all()
    assert (found["flags"] == 0).all()
    assert np.isnan(found["voigt_covariance"]).all()
    assert is_lone(found).tolist() == ((found["maxima"] == 1) & (found["neighbours"] == 0)).tolist()


def test_a_saturated_peak_is_not_lone(tmp_path) -> None:
    spots = spots_at([(20.2, 20.1), (20.2, 60.1)])
    frame = frame_of(spots, (40, 90))
    frame[20, 60], mask = 65534, np.zeros(frame.shape, bool)
    rows, _ = rows_of(tmp_path, frame, None, mask, 60000.0)
    assert rows["saturated"].tolist() == [False, True]
    assert is_lone(rows).tolist() == [True, False]

"""The rotation of every frame: from files, from two keys, and what is said where it is missing or odd."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.omega import around, centres, frame_omega
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.label.acquisition import open_spec
from braggnn_edge.label.spec import ScanSpec

FRAMES = np.arange(3 * 6 * 5, dtype=np.uint16).reshape(3, 6, 5)
OF_FILE = np.array([[0.0, 0.5], [0.5, 1.0], [1.0, 1.5]])


def test_keys_win_over_the_file_and_their_frames_touch() -> None:
    omega, remark = frame_omega(OF_FILE, -180.0, 0.1, 3)
    assert omega is not None
    assert np.allclose(omega, [[-180.0, -179.9], [-179.9, -179.8], [-179.8, -179.7]], atol=1e-12)
    assert remark == ""
    assert np.array_equal(omega[1:, 0], omega[:-1, 1])  # to the bit, however long the scan
    assert np.allclose(centres(omega), [-179.95, -179.85, -179.75], atol=1e-12)
    found, remark = frame_omega(OF_FILE.astype(np.float32), None, None, 3)
    assert found is not None
    assert np.array_equal(found, OF_FILE)
    assert (found.dtype, remark) == (np.float64, "")


def test_missing_is_said() -> None:
    assert frame_omega(None, None, None, 3)[0] is None
    assert "give omega_start and omega_step" in frame_omega(None, None, None, 3)[1]


@pytest.mark.parametrize(
    ("source", "step", "message"),
    [
        (OF_FILE[::-1], None, "from frame 0 (1.25 degrees) to frame 1 (0.75 degrees), and at 2 of 2 steps"),
        (OF_FILE[[0, 1, 1]], None, "from frame 1 (0.75 degrees) to frame 2 (0.75 degrees), and at 1 of 2 steps"),
        (np.add(OF_FILE, [[359.0], [359.0], [0.0]]), None, "from frame 1 (359.75 degrees) to frame 2 (1.25 degrees)"),
        (OF_FILE[:, ::-1], None, "frame 0 ends at 0 degrees, before it starts at 0.5"),
        (None, -0.5, "from frame 0 (-0.25 degrees) to frame 1 (-0.75 degrees), and at 2 of 2 steps"),
    ],
)
def test_what_does_not_increase_is_said_and_passed_on(
    source: np.ndarray | None, step: float | None, message: str
) -> None:
    omega, remark = frame_omega(source, None if step is None else 0.0, step, 3)
    assert message in remark
    assert source is None or np.array_equal(omega, source)


@pytest.mark.parametrize(
    ("source", "start", "step", "message"),
    [
        (OF_FILE[:2], None, None, "has shape (2, 2); expected (3, 2)"),
        (OF_FILE[:, 0], None, None, "has shape (3,); expected (3, 2)"),
        (OF_FILE * [[1], [np.nan], [1]], None, None, "NaN or infinite for 1 frames, the first is 1"),
        (None, 1.0, None, "omega_start is given without omega_step"),
        (None, None, 1.0, "omega_step is given without omega_start"),
        (None, 1.0, 0.0, "a step that is not 0"),
        (None, np.inf, 1.0, "expected finite numbers"),
    ],
)
def test_nonsense_is_refused(source: np.ndarray | None, start: float | None, step: float | None, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        frame_omega(source, start, step, 3)


def test_centres_alone_get_half_the_step() -> None:
    assert np.allclose(around(np.array([0.0, 1.0, 3.0])), [[-0.5, 0.5], [0, 2], [2, 4]])
    # The scan goes on behind a jump of the angle: the frame before it is as wide as the others.
    jump = around(np.array([358.0, 359.0, 0.0, 1.0]))
    assert np.allclose(jump, [[357.5, 358.5], [358.5, 359.5], [-0.5, 0.5], [0.5, 1.5]])
    assert np.allclose(around(np.array([2.0]), 0.5), [[1.75, 2.25]])
    assert around(np.array([2.0])) is None


def test_scans_have_it_by_keys_and_by_configuration(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["d"] = FRAMES
    scan = open_scan("hdf5", tmp_path / "s.h5")
    assert scan.omega is None
    assert "not known" in scan.omega_remark
    expected = np.array([[10.0, 10.5], [10.5, 11.0], [11.0, 11.5]])
    scan = open_scan("hdf5", tmp_path / "s.h5", omega_start=10.0, omega_step=0.5)
    assert np.array_equal(scan.omega, expected)
    assert scan.omega_remark == ""
    spec = ScanSpec("s", "hdf5", "s.h5", omega_start=10.0, omega_step=0.5)
    assert np.array_equal(open_spec(spec, tmp_path, tmp_path).omega, expected)
    with pytest.raises(UserError, match="give both in degrees"):
        ScanSpec("s", "hdf5", "s.h5", omega_start=10.0)
    with pytest.raises(UserError, match=r"omega_start = 10\.0 has no effect on a simulated scan"):
        ScanSpec("s", omega_start=10.0, omega_step=0.5)
    (tmp_path / "sim.h5").hardlink_to(tmp_path / "s.h5")
    with h5py.File(tmp_path / "sim.h5", "a") as file:
        file["frames"] = FRAMES
    simulated = open_spec(ScanSpec("sim"), tmp_path, None)  # frames of 0.25 degrees, from 0 on
    assert np.array_equal(simulated.omega, [[0, 0.25], [0.25, 0.5], [0.5, 0.75]])

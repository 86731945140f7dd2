"""Bad input at the front door: one clear line, exit status 2, and nothing that looks finished."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from braggnn_edge import cli
from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context
from braggnn_edge.label.acquisition import external_files
from braggnn_edge.label.spec import DetectorSpec, ScanSpec, check_scans
from braggnn_edge.peaks.table import PEAK, PeakTable
from braggnn_edge.simulation.spec import SimulationSpec
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec, TrainSpec
from braggnn_edge.training.train import files_full, spec_of, train_network
from braggnn_edge.training.upstream import load_checkpoint, save_checkpoint
from firmware_sim.forms.projects import self_check

MEASURED = """
[[scan]]
name = "mine"
format = "{format}"
path = "{path}"
threshold = 45.0
[split]
block = 5
guard = 1
"""


def refused(folder: Path, text: str, capsys: pytest.CaptureFixture, command: str = "label") -> str:
    """The one line on standard error with which the command refuses a configuration."""
    (folder / "bad.toml").write_text(text)
    arguments = [command, "--config", str(folder / "bad.toml"), "--runs", str(folder / "runs"), "--workers", "1"]
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    finished = {path.parent.name for path in folder.glob("runs/*/*/manifest.json")}
    assert finished <= {"data"}  # describing the scan may have succeeded, labelling it has not
    return lines[0]


def frames_file(path: Path, frames: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["frames"] = frames
    return path


def test_nan_in_a_frame(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    frames = np.zeros((40, 32, 32), np.float32)
    frames[7, 3, 4] = np.nan
    path = frames_file(tmp_path / "nan.h5", frames)
    line = refused(tmp_path, MEASURED.format(format="braggnn", path=path), capsys)
    assert "frame 7 holds 1 pixels that are NaN" in line


def test_truncated_hdf5(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = frames_file(tmp_path / "cut.h5", np.zeros((40, 32, 32), np.uint16))
    path.write_bytes(path.read_bytes()[:-1000])
    line = refused(tmp_path, MEASURED.format(format="hdf5", path=path), capsys)
    assert re.search(r"cut\.h5.*truncated", line)


def test_empty_cache(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.savez(tmp_path / "none.npz")
    line = refused(tmp_path, MEASURED.format(format="hexrd", path=tmp_path / "none.npz"), capsys)
    assert "has no shape, nframes, dtype" in line
    (tmp_path / "none.npz").write_bytes(b"")
    line = refused(tmp_path, MEASURED.format(format="hexrd", path=tmp_path / "none.npz"), capsys)
    assert "empty (0 bytes)" in line


SIMULATED = '[[scan]]\nname = "scan"\n[compact]\nnetwork = { attention = false, slope = 0.0 }\n'


@pytest.mark.parametrize(
    ("command", "extra", "message"),
    [
        ("train", "shift = 2\n", r"compact: shift 2 is out of range; expected 0 to 1 px"),
        ("train", "shift = -1\n", "shift -1"),
        ("train", "huber = -0.1\n", "huber -0.1"),
        ("qat", '[qat]\nnetwork = "compact"\nshift = 2\n', r"qat: shift 2 is out of range"),
        ("qat", '[qat]\nnetwork = "compact"\n[peaks]\nsize = 5\n', "patch size 5 does not fit"),
        ("qat", '[qat]\nnetwork = "compact"\n[quant]\ninput_bits = 16\n', "count_bits 18 is out of range"),
        ("qat", "[full]\n[qat]\nhuber = -1.0\n", "huber -1.0"),
        ("data", '[hls]\nio_types = ["io_paralel"]\n', "io type 'io_paralel' is unknown"),
        ("data", '[hls]\ntarget = "zcu1"\n', "target 'zcu1' is unknown"),
        ("data", '[hls]\nbackend = "Quartus"\n', "back end 'Quartus' is not offered"),
        ("data", "[hls]\nclock_mhz = 0.0\n", "clock of 0.0 MHz"),
    ],
)
def test_settings_that_fail_late_fail_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture, command: str, extra: str, message: str
) -> None:
    assert re.search(message, refused(tmp_path, SIMULATED + extra, capsys, command))
    assert not (tmp_path / "runs").exists()


def test_labelling_needs_no_networks(tmp_path: Path) -> None:
    (tmp_path / "scan.toml").write_text('[[scan]]\nname = "scan"\n[peaks]\nsize = 5\n')
    cfg = config.load(tmp_path / "scan.toml", stages.tables())
    context = Context(cfg, tmp_path / "scan.toml", tmp_path / "runs/scan", 1, print)
    stages.check("label", context)
    with pytest.raises(UserError, match="patch size 5"):
        stages.check("train", context)


def test_runs_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "runs").write_text("a file")
    line = refused(tmp_path, SIMULATED, capsys, "data")
    assert "cannot be written" in line


def test_message_with_line_breaks_is_one_line(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise UserError("g++ failed:\n  a.cpp:1: error: no\n  more")

    monkeypatch.setattr(cli, "_run", fails)
    assert cli.main(["data"]) == 2
    assert capsys.readouterr().err == "braggnn-edge: error: g++ failed: a.cpp:1: error: no more\n"


def test_files_of_dark_and_mask_are_found_behind_their_data_sets(tmp_path: Path) -> None:
    spec = ScanSpec("mine", "hdf5", path="scan.h5", dark="dark.h5:entry/dark", mask="sub/mask.npy")
    found = external_files((spec,), tmp_path)
    assert found == (tmp_path / "scan.h5", tmp_path / "dark.h5", tmp_path / "sub/mask.npy")


def test_scan_of_the_docs_is_valid(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs/how_to/own_frames.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, flags=re.S)
    assert blocks
    (tmp_path / "own.toml").write_text(blocks[0])
    cfg = config.load(tmp_path / "own.toml", stages.tables())
    check_scans(cfg["scan"], training=False)


@pytest.mark.parametrize(
    "scans",
    [(ScanSpec("a"), ScanSpec("a_truth")), (ScanSpec("a"), ScanSpec("a"))],
)
def test_scans_that_would_share_a_file_are_refused(scans: tuple[ScanSpec, ...]) -> None:
    with pytest.raises(UserError, match="scan name"):
        check_scans(scans)


def test_part_named_twice_is_refused() -> None:
    with pytest.raises(UserError, match="each once"):
        ScanSpec("a", use=("test", "test"))


def test_initial_checkpoint_is_found_from_the_configuration_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKPOINTS", "kept")
    (tmp_path / "a.toml").write_text('[[scan]]\nname = "scan"\n[full]\ninitial = "$CHECKPOINTS/net.pt"\n')
    cfg = config.load(tmp_path / "a.toml", stages.tables())
    context = Context(cfg, tmp_path / "a.toml", tmp_path / "runs/a", 1, print)
    assert files_full(context) == (tmp_path / "kept/net.pt",)
    assert Path(spec_of(context, "full").initial) == tmp_path / "kept/net.pt"
    assert spec_of(context, "compact") == cfg["compact"]


def test_checkpoint_of_another_patch_size_is_refused(tmp_path: Path) -> None:
    spec = NetworkSpec((4, 2), (4,), False)
    save_checkpoint(BraggNN(spec, 9), tmp_path / "nine.pt")
    peaks = np.zeros(8, PEAK)
    peaks["split"] = np.arange(8) % 2
    table = PeakTable(peaks, np.zeros((8, 13, 13), np.uint16), ("a",), 11, 1)
    with pytest.raises(UserError, match=r"nine\.pt is for patches of 9 px, those of this run have 11"):
        train_network(TrainSpec(spec, initial=str(tmp_path / "nine.pt")), table, 1, tmp_path, "full", print)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({0: torch.zeros(2)}, "plain state dict"),
        ({"cnn_layers.first.weight": torch.zeros(4, 1, 3, 3)}, "not a layer"),
        ({"cnn_layers.0.weight": torch.tensor(1.0)}, "not a layer"),
        (
            {"cnn_layers.0.weight": torch.zeros(4, 1, 3, 3), "dense_layers.1.weight": torch.zeros(2, 4)},
            "numbered from 0",
        ),
    ],
)
def test_odd_state_dicts_are_refused(tmp_path: Path, state: dict, message: str) -> None:
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / "odd.pt")


def test_missing_make_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match="make is not on the PATH"):
        self_check(tmp_path / "project", tmp_path / "copy")


def test_detector_of_a_simulated_scan_is_the_one_that_makes_it() -> None:
    made = SimulationSpec(gain=2.0, read_noise=3.0, saturation=4000, threshold=150.0)
    assert ScanSpec("a", simulate=made).detector == DetectorSpec(2.0, 3.0, 4000.0, 150.5)
    with pytest.raises(UserError, match=r"detector gain = 1\.0 but simulate gain = 2\.0"):
        check_scans((ScanSpec("a", detector=DetectorSpec(1.0, 3.0, 4000.0), simulate=made),))

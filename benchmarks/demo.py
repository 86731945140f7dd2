"""Where `make demo` spends its time: every stage in a process of its own, its cost by function.

    python benchmarks/demo.py --name after --output benchmarks/demo.json

Each stage runs twice from the same state: plainly, for its wall and processor time (with what it starts: compilers,
simulators, workers), and again with `--profile` under cProfile, whose functions are given by their own time and by the
time with what they call. `--name` is the key of this measurement in the file, which keeps others. `--runs` is a folder
that is made anew.
"""

import argparse
import cProfile
import json
import os
import pstats
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "demo.toml"
STAGES = ("data", "label", "qat", "hls", "csim", "report")
#: Functions in a table.
_MOST = 15


def command(stage: str, runs: Path, config: Path) -> list[str]:
    return [stage, "--config", str(config), "--runs", str(runs), "--run", "demo"]


def timed(words: list[str]) -> dict[str, float]:
    """Seconds of one process and of those that it waited for: wall, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_s": round(wall, 2),
        "user_s": round(after.ru_utime - before.ru_utime, 2),
        "system_s": round(after.ru_stime - before.ru_stime, 2),
    }


def profiled(words: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Functions of a stage, in this process: the costliest by their own time, and by the time with what they call."""
    from braggnn_edge import cli  # noqa: PLC0415  # in a process of its own

    profile = cProfile.Profile()
    profile.runcall(cli.main, words)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows = [
        {"function": _name(*where), "calls": calls, "own_s": round(own, 2), "total_s": round(total, 2)}
        for where, (_, calls, own, total, _) in stats.items()
    ]
    ours = [row for row in rows if row["function"].startswith(("braggnn_edge", "quant", "hls", "firmware_sim"))]
    return {
        "own": sorted(rows, key=lambda row: -row["own_s"])[:_MOST],
        "total": sorted(ours, key=lambda row: -row["total_s"])[: 2 * _MOST],
    }


def _name(file: str, line: int, function: str) -> str:
    """A function by the file it is in, from the package's folder on."""
    path = Path(file)
    if path.is_relative_to(ROOT):
        return f"{path.relative_to(ROOT)}:{line} {function}"
    inside = file.partition("site-packages/")[2] or path.name
    return f"{inside}:{line} {function}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--runs", type=Path, help="folder of the runs, made anew (default: a temporary one)")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--name", default="now")
    parser.add_argument("--conditions", default="", help="what else the machine did, for the file")
    parser.add_argument("--no-functions", action="store_true", help="times alone")
    parser.add_argument("--profile", choices=STAGES, help="this stage's functions alone, as the last line of output")
    arguments = parser.parse_args()
    if arguments.profile:
        print(json.dumps(profiled(command(arguments.profile, arguments.runs, arguments.config))))
        return
    from processors import processor  # noqa: PLC0415  # beside this file

    runs = arguments.runs or Path(tempfile.mkdtemp(prefix="demo-"))
    found: dict[str, Any] = {"processor": processor(), "load_average": list(os.getloadavg())}
    found |= {"conditions": arguments.conditions, "stages": {}}
    for stage in STAGES:
        again = runs.with_name(f"{runs.name}-again")
        shutil.rmtree(again, ignore_errors=True)
        if runs.exists() and not arguments.no_functions:
            shutil.copytree(runs, again)
        entry: dict[str, Any] = timed(["-m", "braggnn_edge.cli", *command(stage, runs, arguments.config)])
        print(stage, entry, flush=True)
        if not arguments.no_functions:
            words = [__file__, "--profile", stage, "--runs", str(again), "--config", str(arguments.config)]
            done = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
            entry |= json.loads(done.stdout.splitlines()[-1])
            shutil.rmtree(again)
        found["stages"][stage] = entry
    for key in ("wall_s", "user_s", "system_s"):
        found[key] = round(sum(entry[key] for entry in found["stages"].values()), 1)
    if arguments.output:
        document = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
        arguments.output.write_text(json.dumps(document | {arguments.name: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

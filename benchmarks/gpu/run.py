"""Run the steps of the GPU benchmark one after the other, each in a process of its own with a time limit.

After each step OUT/gpu.json is written: what was measured, what failed or was left out and why. A step that fails,
hangs or has no time left does not keep the others from running. Nothing here imports torch: a driver that hangs takes
down the first step alone.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Seconds in all, under 8 minutes with what it takes to end; and by step, in the order in which they run.
TOTAL = 465.0
STEPS = {"device": 75, "inference": 150, "fits": 70, "precision": 60, "frames": 50, "training": 40, "torchrun": 45}
#: Less than this is not worth a start.
LEAST = 10.0
#: Exit status of a step that wants to go on in a new process, as in common.py, and how many processes it gets.
AGAIN, ATTEMPTS = 75, 4
#: Where libraries' compilers keep what they make: nothing is left behind, and no home has to be writable.
FOLDERS = {
    "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "CUPY_CACHE_DIR": "cupy", "TORCH_EXTENSIONS_DIR": "extensions", "MPLCONFIGDIR": "mpl",
}  # fmt: skip
#: Figures that the summary shows.
SHOWN = ("skipped", "ms", "of_the_limit", "fits_per_s", "frames_per_s", "iterations_per_s", "wrong", "p50")
#: Seconds between the request to end and the end by force.
GRACE = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for gpu.json and the steps' logs")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--rehearsal", action="store_true", help="tiny sizes: shows that every step works, measures nothing"
    )
    parser.add_argument("--steps", nargs="+", choices=tuple(STEPS), default=tuple(STEPS), help="(default: all)")
    parser.add_argument("--seconds", type=float, default=TOTAL, help="for all steps together (default: %(default)s)")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    out = writable(arguments.out)
    caches = Path(tempfile.mkdtemp(prefix="braggnn-gpu-"))
    document: dict[str, Any] = {
        "schema": "braggnn-edge gpu", "version": 1, "device": arguments.device, "rehearsal": arguments.rehearsal,
        "commit": commit(), "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "steps": {},
    }  # fmt: skip
    try:
        for name in arguments.steps:
            limit = min(STEPS[name], until - time.monotonic() - GRACE)
            if limit < LEAST:
                found: dict[str, Any] = {"status": "skipped", "reason": "no time was left"}
            elif reason := useless(document, arguments.device):
                found = {"status": "skipped", "reason": reason}
            else:
                found = run(name, limit, out, caches, arguments)
            document["steps"][name] = found
            try:
                write(out / "gpu.json", document)
            except OSError as error:  # a full disk: what is printed below is left
                print(f"gpu.json cannot be written: {error}", flush=True)
            print(
                f"{name:10s} {found['status']:9s} {found.get('seconds', 0):6.1f} s  {found.get('reason', '')}",
                flush=True,
            )
    finally:
        shutil.rmtree(caches, ignore_errors=True)
    print("\n".join(summary(document)))
    print(f"written: {out / 'gpu.json'}")
    return 0 if all(step["status"] == "done" for step in document["steps"].values()) else 1


def summary(document: dict[str, Any]) -> list[str]:
    """The figures that count, a line each, for whoever sees the output alone."""
    lines = []
    for name, step in document["steps"].items():
        for key, value in step.items():
            if isinstance(value, dict):
                figures = [
                    f"{k} {value[k]:.4g}" if not isinstance(value[k], str) else value[k] for k in SHOWN if k in value
                ]
                lines += [f"{name}: {key}: {', '.join(figures)}"] if figures else []
    return lines


def useless(document: dict[str, Any], device: str) -> str:
    """Why no other step can work; empty when one might."""
    first = document["steps"].get("device", {})
    return first["no_device"] if device == "cuda" and first.get("no_device") else ""


def run(name: str, limit: float, out: Path, caches: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One step: what it has written, how it ended, and the seconds that it took.

    A step whose device was spoiled by an error goes on in a new process, without what failed.
    """
    part, log = caches / f"{name}.json", out / f"{name}.log"
    log.unlink(missing_ok=True)
    began = time.monotonic()
    for attempt in range(ATTEMPTS):
        left = limit - (time.monotonic() - began)
        command = command_of(name, left, part, arguments) + (["--resume"] if attempt else [])
        ended = ended_of(command, left, log, caches)
        if ended["status"] != "again" or left < LEAST:
            break
    written: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        written = json.loads(part.read_text(encoding="utf-8"))
    if ended["status"] == "again":
        ended = {"status": "failed", "reason": "one error after the other spoiled the device"}
    return {**ended, "seconds": round(time.monotonic() - began, 1), **written}


def command_of(name: str, left: float, part: Path, arguments: argparse.Namespace) -> list[str]:
    command = [sys.executable]
    if name == "torchrun":
        command += ["-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "1"]
        command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command += [str(HERE / f"{name}.py"), "--device", arguments.device, "--output", str(part)]
    return command + ["--seconds", f"{left:.0f}"] + (["--rehearsal"] if arguments.rehearsal else [])


def ended_of(command: list[str], left: float, log: Path, caches: Path) -> dict[str, Any]:
    """Run a command, its words in ``log``, for ``left`` seconds at most, and say how it ended."""
    environment = (
        os.environ | {key: str(caches / folder) for key, folder in FOLDERS.items()} | {"PYTHONUNBUFFERED": "1"}
    )
    with log.open("a", encoding="utf-8") as stream:
        started = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            status = started.wait(left)
        except subprocess.TimeoutExpired:
            return {"status": "timed out", "reason": f"it took longer than its {left:.0f} s"}
        finally:
            end(started)
    if status in (0, AGAIN):
        return {"status": "again" if status else "done"}
    return {"status": "failed", "reason": last_line(log, status)}


def end(started: subprocess.Popen[bytes]) -> None:
    """End a step and all that it started, whatever it does."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(started.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(GRACE)
            if kind is signal.SIGKILL or started.poll() == 0:
                return


def last_line(log: Path, status: int) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if "Error" in line or "error" in line]
    return f"exit {status}: {(said or lines or ['it said nothing'])[-1][:300]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def writable(out: Path) -> Path:
    """The folder, or a temporary one where it cannot be written: a measurement is not to be lost for that."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".probe"
        probe.write_text("")
        probe.unlink()
        return out.resolve()
    except OSError as error:
        other = Path(tempfile.mkdtemp(prefix="braggnn-gpu-out-"))
        print(f"{out} cannot be written ({error}); the results go to {other}", flush=True)
        return other


def write(path: Path, document: dict[str, Any]) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def commit() -> str:
    """Of the repository, where git is there to say it."""
    try:
        found = subprocess.run(
            ["git", "-C", str(HERE), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
        return found.stdout.strip() or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())

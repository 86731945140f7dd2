"""Kill workers, the scheduler and the client while they label; the peak table must equal that of a serial run.

    python benchmarks/kill_workers.py --runs 20 --output benchmarks/kill_workers.json

One small scan is simulated and labelled serially. Then it is labelled again and again, every other time on a local
cluster, every other time on a scheduler and workers that were started on their own. In each run a few victims get
SIGKILL, each when a random number of shards is done: a worker process, the scheduler (of a local cluster that is the
client), or the client. A dead scheduler is started again at once or after the client gave up, dead workers and clients
are started again. At the end the sha256 of peaks.h5 and of every other file of the stage is compared with that of the
serial run.
"""

import argparse
import contextlib
import importlib.metadata
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

CONFIG = """
name = "kill"
[[scan]]
name = "scan"
threshold = 45.0
detector = {{ gain = 1.0, read_noise = 2.0, saturation = 65535.0 }}
[scan.simulate]
rows = 384
cols = 384
frames = {frames}
reflections = {reflections}
heights = [300.0, 20000.0]
window = 27
[split]
block = 16
guard = 1
"""
#: The command itself, with a cluster even for a short scan, and 10 s for a dead scheduler to come back.
CLIENT = """
import sys
from braggnn_edge import cli
from braggnn_edge.shards import distribute, run
run.CLUSTER_PAYS, distribute.ANSWER = -1.0, 10.0
sys.exit(cli.main(sys.argv[1:]))
"""
DASK = [sys.executable, "-m", "dask"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def label(folder: Path, name: str, *options: str) -> subprocess.Popen[str]:
    command = ["label", "--config", str(folder / "kill.toml"), "--runs", str(folder), "--run", name, "--threads", "1"]
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def digests(stage: Path) -> dict[str, str]:
    return json.loads((stage / "manifest.json").read_text())["outputs"]


def worker_processes(parent: int) -> list[psutil.Process]:
    """The processes that work for ``parent``: those that a nanny spawned."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(parent).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(process.cmdline()):
                    found.append(process)
    return found


class Cluster:
    """A scheduler and two workers on the loopback interface."""

    def __init__(self, scratch: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address, self.scratch = f"tcp://127.0.0.1:{self.port}", scratch
        self.start_scheduler()
        self.start_workers()

    def start_scheduler(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard", "--dashboard-address", ":0"]
        self.scheduler = subprocess.Popen([*DASK, "scheduler", *options], **QUIET)

    def start_workers(self) -> None:
        options = ["--nworkers", "2", "--nthreads", "1", "--no-dashboard", "--local-directory", str(self.scratch)]
        self.workers = subprocess.Popen([*DASK, "worker", self.address, *options], **QUIET)

    def repair(self) -> None:
        if self.scheduler.poll() is not None:
            self.start_scheduler()
        if self.workers.poll() is not None:
            self.start_workers()

    def close(self) -> None:
        for process in (*worker_processes(self.workers.pid), self.workers, self.scheduler):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in (self.workers, self.scheduler):
            process.wait()


def done(run: Path) -> int:
    return len(list(run.glob("label.partial/shards-*/[!.]*.npz")))


def one_run(folder: Path, number: int, shards: int, cluster: Cluster | None, rng: random.Random) -> dict:
    """Label to the end with one to three kills: what was killed when, how often the command was started, digests."""
    run = folder / f"run{number}"
    shutil.copytree(folder / "serial/data", run / "data")
    options = ("--workers", "2", "--scheduler", cluster.address if cluster else "")
    moments = sorted(rng.randrange(1, shards - 1) for _ in range(rng.randint(1, 3)))
    kinds = ["worker", "worker", "client"] + (["scheduler", "scheduler"] if cluster else [])
    plan = [(moment, rng.choice(kinds), rng.random() < 0.5) for moment in moments]
    kills: list[str] = []
    messages: list[str] = []
    starts, began, late = 1, time.monotonic(), False
    client = label(folder, run.name, *options)
    while True:
        if client.poll() is not None:
            if client.returncode == 0:
                break
            if client.returncode > 0:
                messages.append((client.stderr.read() if client.stderr else "").strip()[-300:])
            late = False
            starts += 1
            client = label(folder, run.name, *options)
        if cluster and not late:
            cluster.repair()
        if plan and done(run) >= plan[0][0]:
            victim, late = plan[0][1:] if plan[0][1] == "scheduler" else (plan[0][1], late)
            if victim == "worker":
                processes = worker_processes(cluster.workers.pid if cluster else client.pid)
                if not processes:  # none has started yet: look again
                    time.sleep(0.05)
                    continue
                with contextlib.suppress(psutil.NoSuchProcess):
                    rng.choice(processes).kill()
            elif victim == "scheduler" and cluster:
                cluster.scheduler.kill()
                cluster.scheduler.wait()
            else:
                client.kill()
                client.wait()
            kills.append(f"{victim} at {plan.pop(0)[0]} of {shards} shards")
        time.sleep(0.05)
    return {
        "cluster": "scheduler and workers of their own" if cluster else "local",
        "kills": kills, "not_reached": len(plan), "starts": starts, "messages": messages,
        "seconds": round(time.monotonic() - began, 1), "digests": digests(run / "label"),
    }  # fmt: skip


@contextlib.contextmanager
def own_cluster(scratch: Path) -> Iterator[Cluster]:
    cluster = Cluster(scratch)
    try:
        yield cluster
    finally:
        cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--frames", type=int, default=320)
    parser.add_argument("--reflections", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    results: list[dict] = []
    with tempfile.TemporaryDirectory() as name, own_cluster(Path(name) / "scratch") as cluster:
        folder = Path(name)
        (folder / "kill.toml").write_text(CONFIG.format(frames=arguments.frames, reflections=arguments.reflections))
        began = time.monotonic()
        serial = label(folder, "serial", "--workers", "1")
        _, errors = serial.communicate()
        if serial.returncode:
            print(errors, file=sys.stderr)
            return 1
        manifest = json.loads((folder / "serial/label/manifest.json").read_text())
        print(
            f"serial: {time.monotonic() - began:.1f} s with the simulation, {manifest['wall_seconds']} s of labelling"
        )
        reference = manifest["outputs"]
        for number in range(arguments.runs):
            result = one_run(folder, number, -(-arguments.frames // 16), cluster if number % 2 else None, rng)
            result["identical"] = result.pop("digests") == reference
            results.append(result)
            print(json.dumps(result), flush=True)
            shutil.rmtree(folder / f"run{number}")
            document = {
                "seed": arguments.seed, "frames": arguments.frames, "peaks_h5_sha256": reference["peaks.h5"],
                "peaks": json.loads((folder / "serial/label/summary.json").read_text())["scan"],
                "serial_seconds": manifest["wall_seconds"], "git_commit": manifest["git_commit"],
                "distributed": importlib.metadata.version("distributed"),
                "identical": sum(run["identical"] for run in results), "runs": results,
            }  # fmt: skip
            arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{document['identical']} of {len(results)} runs identical to the serial one")
    return 0 if document["identical"] == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())

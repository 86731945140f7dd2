"""``locate`` on the ruby scan: time and memory of the command, its rate against a plain program, and its positions.

    python benchmarks/locate.py --data FOLDER [--labels RUNS/chess_ruby] [--output benchmarks/locate.json]

- *command*: ``braggnn-edge locate`` on one panel of 1,440 frames of 12 Mpx, with the network that ships and two
  workers, as a process of its own: wall time with start-up, processor time, largest resident set.
- *rates*: finding, measuring and locating the peaks of frames in memory, against the loop of ``detection.py`` over
  components with scipy.ndimage and the published network in eager torch on all patches of a frame at once. (The loop
  neither measures intensities nor knows sigma.) Frames: ruby's, as its sparse file gives them; and simulated, 2048 x
  2048. Processor seconds of one thread, the best of some repetitions, the two in turn. The published network's weights
  are random, on which its time does not depend.
- *positions*: with a labelled run, those of ``locate`` at the rows of the label stage against the network on the crops
  of the label stage: how many differ in any bit.

FOLDER is that which holds chess_ruby/.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detection import RUBY, loop, seconds, simulated

from braggnn_edge.frames.scan import open_scan
from braggnn_edge.locate.float_forms import float_locator
from braggnn_edge.locate.frames import locate_frames
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.networks import open_network
from braggnn_edge.peaks import peak_file, table
from braggnn_edge.peaks.rules import component_rule, window_rule
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec

REPEAT, RUBY_FRAMES = 5, 24
DETECTOR = {"saturation": 15800.0, "gain": 2.0, "read_noise": 8.0}


@dataclass
class InMemory:
    """Frames as a :class:`braggnn_edge.frames.scan.Scan` gives them."""

    frames: list[tuple[np.ndarray, np.ndarray | None]]
    omega: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        rows, cols = self.frames[0][0].shape
        return len(self.frames), rows, cols

    def frames_with_stored(self, *_: Any) -> Iterator[tuple]:
        return ((index, frame, None, stored) for index, (frame, stored) in enumerate(self.frames))


def command(scan: Path, output: Path) -> dict[str, Any]:
    """Time and memory of the command in a process of its own."""
    words = [sys.executable, "-m", "braggnn_edge.cli", "locate", str(scan), "--threshold", "150", "--workers", "2"]
    words += [word for name, value in DETECTOR.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    load = os.getloadavg()[0]  # of all that runs on this machine: where it is above the cores, wall time is not ours
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    said = subprocess.run([*words, "-o", str(output)], capture_output=True, text=True, check=True).stdout
    wall, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    rows, about = peak_file.load(output)
    return {
        "frames": about.shape[0], "rows": about.shape[1], "cols": about.shape[2], "peaks": len(rows),
        "wall_s": round(wall, 1), "load_average": round(load, 1),
        "processor_s": round(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 1),
        "largest_resident_mib": round(used.ru_maxrss / 1024), "said": said.splitlines()[-6:-1],
    }  # fmt: skip


def rates(frames: InMemory, threshold: int, ours: Locator, theirs: Locator, rule: Callable = component_rule) -> dict:
    """Milliseconds a frame of both, and their ratio."""
    find = rule(float(threshold), **DETECTOR)
    peaks = sum(len(rows) for rows in locate_frames(ours, frames, find))
    components = sum(len(loop(frame, threshold)[0]) for frame, _ in frames.frames)

    def plain() -> None:
        for frame, _ in frames.frames:
            patches = loop(frame, threshold)[1]
            if len(patches):
                theirs.locate(patches)

    best = slow = np.inf
    for _ in range(REPEAT):
        best = seconds(lambda: list(locate_frames(ours, frames, find)), best)
        slow = seconds(plain, slow)
    count = len(frames.frames)
    return {
        "shape": list(frames.shape), "peaks_per_frame": round(peaks / count, 1),
        "components_per_frame": round(components / count, 1), "locate_ms": round(best / count * 1e3, 2),
        "loop_and_eager_ms": round(slow / count * 1e3, 2), "ratio": round(slow / best, 1),
        "frames_per_second": round(count / best, 1),
    }  # fmt: skip


def positions(output: Path, run: Path, locator: Locator) -> dict[str, int]:
    """Rows of the label stage, how many of them the list lacks, and whose position or sigma differs in a bit."""
    rows, _ = peak_file.load(output)
    labelled = table.load(run / "label/peaks.h5")
    labelled = labelled.where(labelled.peaks["scan"] == labelled.scans.index("ff1"))
    offsets, sigma = locator.locate_with_sigma(labelled.patches())
    at = {key: i for i, key in enumerate(zip(*(rows[n].tolist() for n in ("frame", "pixel_row", "pixel_col")),
                                             strict=True))}  # fmt: skip
    p = labelled.peaks
    where = np.array([at.get(key, -1) for key in zip(*(p[n].tolist() for n in ("frame", "row", "col")), strict=True)])
    there = where >= 0
    mine = rows[where[there]]
    wanted = np.stack([p["row"] + offsets[:, 0], p["col"] + offsets[:, 1], *sigma.T], 1)[there]
    given = np.stack([mine[name] for name in ("row", "col", "sigma_row", "sigma_col")], 1)
    return {
        "labelled_peaks": len(p), "not_in_the_list": int((~there).sum()),
        "differ_in_a_bit": int((wanted != given).any(axis=1).sum()),
    }  # fmt: skip


def machine() -> dict[str, Any]:
    lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    flags = [flag for flag in lines.get("flags", "").split() if flag.startswith(("avx", "amx", "fma"))]
    return {"processor": lines.get("model name", platform.processor()), "instruction_sets": flags,
            "torch": torch.__version__, "python": platform.python_version()}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds chess_ruby/")
    parser.add_argument("--labels", type=Path, help="run of configs/chess_ruby.toml, labelled")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    scan = arguments.data / RUBY
    document: dict[str, Any] = {"machine": machine()}
    torch.set_num_threads(1)
    locator = open_network("universal")
    torch.manual_seed(1)
    published = float_locator(BraggNN(NetworkSpec(), locator.size).eval(), "eager")
    with tempfile.TemporaryDirectory() as folder:
        document["command"] = command(scan, Path(folder) / "peaks.h5")
        print(document["command"], flush=True)
        if arguments.labels:
            document["positions"] = positions(Path(folder) / "peaks.h5", arguments.labels, locator)
            print(document["positions"], flush=True)
    sparse = [(frame, stored) for _, frame, _, stored in open_scan("hexrd", scan).frames_with_stored(0, RUBY_FRAMES)]
    results = document["rates"] = {"baseline": "scipy.ndimage loop and the published network in eager torch"}
    cases = {"ruby": (InMemory(sparse), 150)}
    for spots in (100, 1000, 10_000):
        cases[f"simulated_{spots}"] = InMemory([(simulated(spots), None)]), 60
    for name, (frames, threshold) in cases.items():
        results[name] = rates(frames, threshold, locator, published)
        print(name, results[name], flush=True)
    results["ruby_window"] = rates(*cases["ruby"], locator, published, window_rule)
    print("ruby_window", results["ruby_window"], flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Whole scans through the shipped circuit's front end, or through one behind which the shipped layers are, for
front_end.py.

What is done lies in a folder, a line of JSON a frame and pace and a file a part. So parts can run beside each other,
and one that was ended goes on behind its last frame. It is kept only for the same Verilog, driver and compiler's
options: with others the comparison begins anew.
"""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from front_end_runs import LEVELS, ROOT, about, written

from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.background import threshold_of
from braggnn_edge.frames.scan import Scan, open_scan
from braggnn_edge.label.acquisition import located, open_spec
from braggnn_edge.label.spec import ScanSpec
from firmware_sim.forms import csim, csim_circuit
from firmware_sim.front_end import cases
from firmware_sim.front_end.compare import as_records, differences
from firmware_sim.front_end.simulate import Script, Simulator, build, run
from hls.rtl.front_end.external import beats, largest_count
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.project import sources
from quant.contract.locator import IntegerLocator, load
from quant.front_end.correct import correct
from quant.front_end.pipeline import Pipeline, Shot
from quant.front_end.records import END, END_RECORD
from quant.front_end.rule import find
from quant.front_end.spec import FrontEnd
from quant.shipped import path_of

#: Clocks that the layers are taken to need, from a patch's last count to the answer and between two answers: about the
#: reuse factors of what ships, 137 + 256 + 2, and the largest of them. What synthesis makes of it is not known.
LAYERS = (400, 256)

PACES = {"none": (0, 0), "gaps and stalls": (20, 60)}


@dataclass(frozen=True)
class Given:
    """A scan to run: every ``step``-th frame, ``most`` at most."""

    name: str
    spec: ScanSpec
    scan: Scan
    step: int
    most: int

    @property
    def indices(self) -> range:
        """The frames that are asked for."""
        return range(0, min(self.scan.shape[0], self.step * self.most), self.step)

    def shot(self, index: int) -> Shot:
        """A frame padded with zeros to a multiple of 16 columns; bad pixels are 0 counts."""
        _, frame, valid, stored = next(self.scan.frames_with_stored(index, index + 1))
        counts = np.asarray(frame).clip(0, 65535).astype(np.uint16)
        if valid is not None:
            counts[~valid] = 0
        padding = -counts.shape[1] % 16
        return Shot(np.pad(counts, ((0, 0), (0, padding))), stored=None if padding else stored)


def scenario(name: str) -> dict[str, ScanSpec]:
    """The scans of a scenario by name."""
    cfg = config.load(ROOT / f"configs/{name}.toml", stages.tables(), stages.RENAMED_TABLES)
    return {scan.name: located(scan, cfg.folder) for scan in cfg["scan"]}


def part_of(text: str) -> tuple[int, int]:
    """K and N of ``--part K/N``."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UserError(f"--part {text}: expected K/N with K from 1 to N")
    return int(part), int(parts)


def scans(args: argparse.Namespace, scratch: Path) -> None:
    """Whole frames through a front end, those of this part that are not done yet."""
    os.environ["BRAGGNN_EDGE_DATA"] = str(args.folder.resolve())
    locator = load(path_of("shipped" if args.layers else "shipped_circuit"))
    geometry = Geometry(16, 16, 4096, window=locator.window, external=bool(args.layers))
    executable = csim.build(args.layers, scratch) if args.layers else None
    simulator = build(sources(locator, geometry, logic_levels=LEVELS), geometry, scratch, optimize="-O2")
    part, parts = part_of(args.part)
    key = simulator.path.parent.name
    state = State(args.state, key, f"{part}_of_{parts}")
    clocks = None if args.layers else latency(simulator, locator)
    print(f"latency {clocks} clocks; {len(state.done)} frames and paces are done", flush=True)
    ruby, thaumatin = scenario("chess_ruby")["ff1"], scenario("dls_thaumatin")["thaumatin"]
    simulated = scenario("simulated")["scan"]
    given = [
        Given("simulated", simulated, open_scan("braggnn", args.runs / "simulated/data/scan.h5"), 1, args.frames),
        Given("thaumatin", thaumatin, open_spec(thaumatin, Path(), None), 1, 10**9),
        Given("ruby ff1", ruby, open_spec(ruby, Path(), None), args.step, 10**9),
    ]
    # All frames without stalls first: they are the ones to have where time runs out.
    work = [(pace, one, index) for pace in PACES for one in given for index in one.indices][part - 1 :: parts]
    begun, did = time.monotonic(), 0
    for number, (pace, one, index) in enumerate(work):
        if (one.name, pace, index) in state.done:
            continue
        if time.monotonic() - begun > 60 * args.minutes:
            break
        row = one_frame(one, index, pace, simulator, locator, executable)
        state.add(row)
        if row["differences"]:
            print(json.dumps(row), flush=True)
        did += 1
        each = (time.monotonic() - begun) / did
        print(
            f"part {args.part}: {number + 1} of {len(work)}, {one.name} {index}, {pace}, {each:.1f} s each, "
            f"{each * (len(work) - number - 1) / 60:.0f} minutes left", flush=True,
        )  # fmt: skip
    # Whichever part ends last has all of them.
    rows = state.all()
    found = [
        told for one in given for pace in PACES if (told := summary(one, pace, [r for r in rows if _is(r, one, pace)]))
    ]
    head = {"pixels": 16, "bits": 16, "window": locator.window, "locator": locator.digest, "latency_clocks": clocks}
    more = {"locator_clocks": LAYERS} if args.layers else {}
    written(
        args.output, "scans layers" if args.layers else "scans", {**head, **more, "key": key, "scans": found, **about()}
    )
    for row in found:
        print(json.dumps(row), flush=True)


class State:
    """Lines of JSON in a folder, one for each value of some fields, of runs with the same key; a file a part."""

    def __init__(
        self,
        folder: Path,
        key: str,
        part: str,
        stem: str = "scans",
        fields: Sequence[str] = ("scan", "stalls", "frame"),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._key, self._stem, self._fields = folder, key, stem, fields
        self._path = folder / f"{stem}_{part}.jsonl"
        self.done = {tuple(row[name] for name in fields) for row in self.all()}

    def all(self) -> list[dict[str, Any]]:
        """The rows of every part, one for each value; a line that was cut off is not there."""
        found = {}
        for path in sorted(self._folder.glob(f"{self._stem}_*.jsonl")):
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if row["key"] == self._key:
                    found[tuple(row[name] for name in self._fields)] = row
        return list(found.values())

    def add(self, row: dict[str, Any]) -> None:
        """Write a row; it is on the disk when this returns."""
        with self._path.open("a") as file:
            # A line that was cut off before stays alone.
            file.write("\n" * (file.tell() > 0) + json.dumps({"key": self._key, **row}))
            file.flush()
            os.fsync(file.fileno())


def one_frame(
    one: Given, index: int, pace: str, simulator: Simulator, locator: IntegerLocator, layers: csim.Executable | None
) -> dict[str, Any]:
    """The row of a frame at a pace: peaks, drops, differences, clocks, and seconds of the simulation.

    layers: the compiled HLS project that answers what leaves, where the locator is external.
    """
    shot = one.shot(index)
    level = int(np.max(threshold_of(shot.counts, None, one.spec)))
    front = FrontEnd(*shot.counts.shape, threshold=level, window=locator.window)
    expected = list(Pipeline(front, locator).records([shot]))
    script = Script(16)
    if layers is not None:
        windows = find(front, correct(front, shot.counts), shot.stored).windows
        windows = np.minimum(windows, largest_count(locator))
        if len(windows):
            codes = csim_circuit.steps(layers, locator, windows).outputs
            script.locator(windows, beats(codes, locator)).locator_pace(*LAYERS, 30 if any(PACES[pace]) else 0)
    script = cases.settings(front, script).pace(*PACES[pace]).frame(shot.counts).pace(0, 0)
    found = run(simulator, script.until(len(expected[0])).wait(100), seed=index)
    records = as_records(found.raw)
    ends = records[records["kind"] == END].view(END_RECORD)
    return {
        "scan": one.name, "stalls": pace, "frame": index, "peaks": int(ends["peaks"].sum()),
        "dropped": int(ends["dropped"].sum()), "differences": len(differences(records, expected)),
        "clocks": found.cycles, "throttled": found.throttled, "pixels": shot.counts.size,
        "most_waiting": int(ends["lane_high_water"].max(initial=0)),
        "most_records": int(ends["record_high_water"].max(initial=0)), "threshold": level,
        "seconds": found.seconds, "records": hashlib.sha256(found.raw.tobytes()).hexdigest()[:16],
    }  # fmt: skip


def _is(row: dict[str, Any], one: Given, pace: str) -> bool:
    return row["scan"] == one.name and row["stalls"] == pace and row["frame"] in one.indices


def summary(one: Given, pace: str, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of a scan and pace: what its frames add up to; None where none was run."""
    if not rows:
        return None
    rows.sort(key=lambda row: row["frame"])
    total = {
        name: sum(row[name] for row in rows)
        for name in ("peaks", "dropped", "differences", "clocks", "throttled", "pixels")
    }
    seconds = sum(row["seconds"] for row in rows)
    return {
        "scan": one.name, "stalls": pace, "step": one.step, "frames": len(rows), "of": len(one.indices), **total,
        "most_waiting": max(row["most_waiting"] for row in rows),
        "most_records": max(row["most_records"] for row in rows),
        "threshold": sorted({row["threshold"] for row in rows}),
        "frames_of_1_megapixel_a_minute": round(60 * total["pixels"] / 2**20 / seconds, 1),
        "digest": hashlib.sha256("".join(row["records"] for row in rows).encode()).hexdigest(),
    }  # fmt: skip


def latency(simulator: Simulator, locator: IntegerLocator) -> int:
    """Clocks from the edge that takes the last pixel a peak needs to the one that takes its record."""
    frame = np.zeros((9, 64), np.uint16)
    frame[2:5, 42:45] = [[9, 20, 9], [30, 200, 40], [9, 50, 9]]
    front = FrontEnd(9, 64, threshold=5, window=locator.window)
    stop = 6 * 4 + 3  # words until row 6, column 47, which has the window's last pixel
    script = cases.settings(front, Script(16)).wait(3000).part(frame, 0, stop + 1)
    found = run(simulator, script.until(1, 1000))
    # The word behind the last that is needed pushes it on; in a stream it comes one clock later.
    return int(found.clocks[0]) - found.last_word + 2

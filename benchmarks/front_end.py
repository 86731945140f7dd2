"""The front end's RTL against its contract on whole scans and random small frames; its cells, its clock, and mutations.

    python benchmarks/front_end.py scans FOLDER --runs runs [--step 60] [--frames 200]
    python benchmarks/front_end.py cases [--number 1000000] [--minutes 600]
    python benchmarks/front_end.py cells --pixels 16
    python benchmarks/front_end.py place [--pixels 4] [--bits 16] [--cols 2048]
    python benchmarks/front_end.py mutations

Each writes its own part of `front_end.json` (or --output). FOLDER holds chess_ruby/ and dls_thaumatin/, `runs` the run
`simulated` that `make data CFG=configs/simulated.toml` makes.

scans: the shipped circuit behind 16 pixels of 16 bits a clock; every --step-th frame of ruby's ff1, the thaumatin
frames, and --frames simulated ones, without stalls and with gaps and stalls; every record is compared. Bad pixels are 0
counts here, on both sides, and columns are padded with zeros to a multiple of 16. Frames a minute are of one core.

cases: small frames of ties, plateaus, saturated noise, densest lattices and spots, half of them in streams with faults,
in front of the small circuit of circuits_family/, 8 pixels of 16 bits a clock, up to 64 columns.

place: the whole on an ECP5-85F with the small circuit behind it, the clock searched (`front_end_place.py`).

mutations: changes of one place in the sources, of each of which the random cases or the tests of registers, drops and
throughput must fail (`firmware_sim/front_end/mutations.py`).
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from front_end_place import place_arguments, placed

from braggnn_edge.core import config, stages
from braggnn_edge.frames.background import threshold_of
from braggnn_edge.frames.scan import Scan, open_scan
from braggnn_edge.label.acquisition import located, open_spec
from braggnn_edge.label.spec import ScanSpec
from firmware_sim.front_end import cases, mutations
from firmware_sim.front_end.compare import as_records, differences
from firmware_sim.front_end.simulate import Script, Simulator, build, run
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.project import NAME, sources
from hls.rtl.synthesis import synthesize
from quant.contract.locator import load
from quant.front_end.pipeline import Pipeline
from quant.front_end.records import END, END_RECORD
from quant.front_end.spec import FrontEnd
from quant.shipped import path_of

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SMALL = Path(__file__).with_name("circuits_family") / "small_7px.json"
PACES = {"none": (0, 0), "gaps and stalls": (20, 60)}
#: Logic levels between two registers of the locator.
LEVELS = 2.0


def scenario(name: str) -> dict[str, ScanSpec]:
    """The scans of a scenario by name."""
    cfg = config.load(CONFIGS / f"{name}.toml", stages.tables(), stages.RENAMED_TABLES)
    return {scan.name: located(scan, cfg.folder) for scan in cfg["scan"]}


def frames(scan: Scan, step: int, most: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Every ``step``-th frame of a scan, ``most`` at most, padded to a multiple of 16 columns, and its valid pixels."""
    for index in range(0, min(scan.shape[0], step * most), step):
        _, frame, valid, _ = next(scan.frames_with_stored(index, index + 1))
        counts = np.asarray(frame).clip(0, 65535).astype(np.uint16)
        if valid is not None:
            counts[~valid] = 0
        yield np.pad(counts, ((0, 0), (0, -counts.shape[1] % 16))), valid


def scans(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Whole frames through the shipped circuit's front end."""
    os.environ["BRAGGNN_EDGE_DATA"] = str(args.folder.resolve())
    locator = load(path_of("shipped_circuit"))
    geometry = Geometry(16, 16, 4096, window=locator.window)
    simulator = build(sources(locator, geometry, logic_levels=LEVELS), geometry, scratch, optimize="-O2")
    ruby, thaumatin = scenario("chess_ruby")["ff1"], scenario("dls_thaumatin")["thaumatin"]
    simulated = scenario("simulated")["scan"]
    given = {
        "simulated": (simulated, open_scan("braggnn", args.runs / "simulated/data/scan.h5"), 1, args.frames),
        "thaumatin": (thaumatin, open_spec(thaumatin, Path(), None), 1, 10),
        "ruby ff1": (ruby, open_spec(ruby, Path(), None), args.step, 10**9),
    }
    clocks = latency(simulator, locator)
    print(f"latency {clocks} clocks", flush=True)
    rows = []
    for name, (spec, scan, step, most) in given.items():
        for pace in PACES:
            rows.append(one_scan(name, spec, frames(scan, step, most), simulator, locator, pace))
            print(json.dumps(rows[-1]), flush=True)
    return {
        "pixels": 16,
        "bits": 16,
        "window": locator.window,
        "locator": locator.digest,
        "latency_clocks": clocks,
        "scans": rows,
    }


def latency(simulator: Simulator, locator: Any) -> int:
    """Clocks from the edge that takes the last pixel a peak needs to the one that takes its record."""
    frame = np.zeros((9, 64), np.uint16)
    frame[2:5, 42:45] = [[9, 20, 9], [30, 200, 40], [9, 50, 9]]
    front = FrontEnd(9, 64, threshold=5, window=locator.window)
    stop = 6 * 4 + 3  # words until row 6, column 47, which has the window's last pixel
    script = cases.settings(front, Script(16)).wait(3000).part(frame, 0, stop + 1)
    found = run(simulator, script.until(1, 1000))
    # The word behind the last that is needed pushes it on; in a stream it comes one clock later.
    return int(found.clocks[0]) - found.last_word + 2


def one_scan(
    name: str, spec: ScanSpec, given: Iterator[tuple[np.ndarray, np.ndarray | None]], simulator: Simulator,
    locator: Any, pace: str,
) -> dict[str, Any]:  # fmt: skip
    """The row of a scan: frames, peaks, drops, differences, clocks and speed."""
    total = dict.fromkeys(("frames", "peaks", "dropped", "differences", "clocks", "throttled", "pixels"), 0)
    seconds, highest = 0.0, [0, 0]
    for number, (frame, _) in enumerate(given):
        level = int(np.max(threshold_of(frame, None, spec)))
        front = FrontEnd(*frame.shape, threshold=level, window=locator.window)
        expected = list(Pipeline(front, locator).records([frame]))
        script = cases.settings(front, Script(16)).pace(*PACES[pace]).frame(frame).pace(0, 0)
        found = run(simulator, script.until(len(expected[0])).wait(100), seed=number)
        seconds += found.seconds
        records = as_records(found.raw)
        ends = records[records["kind"] == END].view(END_RECORD)
        total["frames"] += 1
        total["peaks"] += int(ends["peaks"].sum())
        total["dropped"] += int(ends["dropped"].sum())
        total["differences"] += len(differences(records, expected))
        total["clocks"] += found.cycles
        total["throttled"] += found.throttled
        total["pixels"] += frame.size
        highest = [
            max(highest[0], int(ends["lane_high_water"].max())),
            max(highest[1], int(ends["record_high_water"].max())),
        ]
    return {
        "scan": name, "stalls": pace, **total, "most_waiting": highest[0], "most_records": highest[1],
        "threshold": level, "frames_of_1_megapixel_a_minute": round(60 * total["pixels"] / 2**20 / seconds, 1),
    }  # fmt: skip


def random_frames(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Random small frames, compared record for record."""
    locator = load(SMALL)
    geometry = Geometry(8, 16, 64, 4096, window=locator.window, places=64)
    simulator = build(sources(locator, geometry, logic_levels=6.0), geometry, scratch)
    total = dict.fromkeys(("frames", "records", "dropped", "differences"), 0)
    seed, until = 0, time.monotonic() + 60 * args.minutes
    while total["frames"] < args.number and time.monotonic() < until:
        found = mutations.batch(simulator, locator, seed, 50)
        for key in total:
            total[key] += found[key]
        seed += 1
        if seed % 20 == 0:
            print(json.dumps(total), flush=True)
    return {"pixels": geometry.pixels, "bits": geometry.bits, **total}


def cells(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Cells on UltraScale+, the front end alone (its locator a black box) and whole."""
    locator = load(path_of("shipped_circuit"))
    geometry = Geometry(args.pixels, 16, 2048, window=locator.window)
    text = sources(locator, geometry, logic_levels=LEVELS)
    found = {}
    for name, files in (("front end", alone(text)), ("whole", text)):
        folder = scratch / name.replace(" ", "_")
        folder.mkdir()
        mapped = synthesize(files, NAME, folder, blocks=True)
        brams = mapped.cells.get("RAMB36E2", 0) + mapped.cells.get("RAMB18E2", 0) / 2
        found[name] = {
            "luts": mapped.luts, "flip_flops": mapped.flip_flops, "dsps": mapped.dsps, "bram36": brams,
        }  # fmt: skip
        print(name, found[name], flush=True)
    return found


def alone(text: dict[str, str]) -> dict[str, str]:
    """The sources with the locator's core a black box."""
    head = text["braggnn_rtl_core.v"].split(";")[0]
    found = {name: one for name, one in text.items() if not name.startswith("braggnn_rtl_core")}
    return found | {"braggnn_rtl_core.v": f"(* blackbox *)\n{head};\nendmodule\n"}


def mutated(_: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Each mutation, and whether it was noticed."""
    found = mutations.survey(scratch, lambda line: print(line, flush=True))
    return {"mutations": found, "noticed": sum(one["noticed"] for one in found), "of": len(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    works = {"scans": scans, "cases": random_frames, "cells": cells, "mutations": mutated}
    # They write what is done as they go on.
    runs = {"place": placed}
    for name in (*runs, *works):
        one = commands.add_parser(name)
        one.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
        one.add_argument("--scratch", type=Path)
        if name == "scans":
            one.add_argument("folder", type=Path)
            one.add_argument("--runs", type=Path, required=True)
            one.add_argument("--step", type=int, default=60)
            one.add_argument("--frames", type=int, default=200)
        if name == "cases":
            one.add_argument("--number", type=int, default=100_000)
            one.add_argument("--minutes", type=float, default=600.0)
        if name == "cells":
            one.add_argument("--pixels", type=int, default=16)
        if name == "place":
            place_arguments(one)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = args.scratch or Path(name)
        scratch.mkdir(parents=True, exist_ok=True)
        if args.command in runs:
            runs[args.command](args, scratch)
            return
        found = works[args.command](args, scratch)
    document = json.loads(args.output.read_text()) if args.output.exists() else {}
    key = f"{args.command} {args.pixels}" if args.command == "cells" else args.command
    args.output.write_text(json.dumps(document | {key: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

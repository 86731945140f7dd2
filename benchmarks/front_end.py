"""The front end's RTL against its contract on whole scans and random small frames; its cells, its clock, and mutations.

    python benchmarks/front_end.py scans FOLDER --runs runs [--step 1] [--frames 200] [--part 1/2] [--state FOLDER]
    python benchmarks/front_end.py cases [--number 1000000] [--minutes 600]
    python benchmarks/front_end.py netlist [--number 5000] [--minutes 600]
    python benchmarks/front_end.py cells --pixels 16 [--significance] [--bad-words 512] [--maps] [--external]
    python benchmarks/front_end.py place [--pixels 4] [--bits 16] [--cols 2048]
    python benchmarks/front_end.py mutations [--only 3,17] [--part 1/2] [--state FOLDER] [--minutes 600]

Each writes its own part of `front_end.json` (or --output). FOLDER holds chess_ruby/ and dls_thaumatin/, `runs` the run
`simulated` that `make data CFG=configs/simulated.toml` makes.

scans: the shipped circuit behind 16 pixels of 16 bits a clock; every --step-th frame of ruby's ff1, the thaumatin
frames, and --frames simulated ones, without stalls and with gaps and stalls; every record is compared. Bad pixels are 0
counts here, on both sides, and columns are padded with zeros to a multiple of 16. Frames a minute are of one core.
--part K/N runs every N-th frame: N of them may run beside each other, each takes one core. With --layers FOLDER, where
the shipped layers' project in io_stream lies (`make hls`), the locator is outside: the compiled project answers.

cases: small frames of ties, plateaus, saturated noise, densest lattices and spots, half of them in streams with faults,
through front ends of 1, 2, 4, 8, 16 and 32 pixels a clock and windows of 7, 9 and 11 px, up to 96 columns.

Both tell how far they are, and go on where they stopped when they are called again, after --minutes or an interruption.
--scratch keeps what Verilator compiled.

place: the whole on an ECP5-85F with the small circuit behind it, the clock searched (`front_end_place.py`).

netlist: the same frames through the mapped netlist of a small front end (2 pixels of 8 bits a clock), UltraScale+ cells
with the memories in look-up tables.

mutations: changes of one place in the sources, of each of which the random cases or the tests of registers, drops and
throughput must fail (`firmware_sim/front_end/mutations.py`). A run goes on where the last one stopped, as long as
sources, list, bench and tests are the same. --part K/N runs every N-th; with --scratch all of them share what was
compiled.
"""

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from front_end_place import place_arguments, placed
from front_end_runs import LEVELS, about, netlist, random_frames, written
from front_end_scans import State, part_of, scans

from firmware_sim.front_end import mutations
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.project import NAME, sources
from hls.rtl.synthesis import synthesize
from quant.contract.locator import load
from quant.shipped import path_of


def cells(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Cells on UltraScale+, the front end alone (its locator a black box) and whole; of one whose locator, the layers
    that ship, is external, the front end is the whole."""
    locator = load(path_of("shipped" if args.external else "shipped_circuit"))
    geometry = Geometry(
        args.pixels, 16, 2048, window=locator.window, significance=args.significance, bad_words=args.bad_words,
        dark=args.maps, thresholds=args.maps, external=args.external,
    )  # fmt: skip
    text = sources(locator, geometry, logic_levels=LEVELS)
    found: dict[str, Any] = {
        **asdict(geometry), "locator": locator.digest, "logic_levels": LEVELS, "device": "UltraScale+ cells of Yosys",
    }  # fmt: skip
    for name, files in (("front end", text),) if args.external else (("front end", alone(text)), ("whole", text)):
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


def mutated(args: argparse.Namespace, scratch: Path) -> None:
    """Each mutation of this part that is not done yet, and whether it was noticed."""
    part, parts = part_of(args.part)
    key = mutations.key()
    state = State(args.state, key, f"{part}_of_{parts}", "mutations", ("number",))
    asked = [int(one) for one in args.only.split(",")] if args.only else range(1, len(mutations.MUTATIONS) + 1)
    numbers = [one for one in asked[part - 1 :: parts] if (one,) not in state.done]
    begun = time.monotonic()
    # None is begun when the time is over.
    in_time = (one for one in numbers if time.monotonic() - begun <= 60 * args.minutes)
    for did, row in enumerate(mutations.survey(scratch, in_time), 1):
        state.add(row)
        left = (time.monotonic() - begun) / did * (len(numbers) - did) / 60
        told = row["first_failure"] or "NOT NOTICED"
        print(f"{row['number']:2d} {row['mutation']}: {told}, {row['seconds']} s; {left:.0f} minutes left", flush=True)
    # Whichever part ends last has all of them.
    rows = sorted(state.all(), key=lambda row: row["number"])
    found = {
        "key": key, "mutations": [{name: row[name] for name in row if name != "key"} for row in rows],
        "noticed": sum(row["noticed"] for row in rows), "tried": len(rows), "of": len(mutations.MUTATIONS),
    }  # fmt: skip
    written(args.output, "mutations", {**found, **about()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    works = {"cells": cells, "netlist": netlist}
    # They write what is done as they go on.
    runs = {"scans": scans, "cases": random_frames, "place": placed, "mutations": mutated}
    for name in (*runs, *works):
        one = commands.add_parser(name)
        one.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
        one.add_argument("--scratch", type=Path)
        if name == "scans":
            one.add_argument("folder", type=Path)
            one.add_argument("--runs", type=Path, required=True)
            one.add_argument("--step", type=int, default=1)
            one.add_argument("--frames", type=int, default=200)
            one.add_argument("--layers", type=Path)
        if name in ("scans", "mutations"):
            one.add_argument("--part", default="1/1")
            one.add_argument("--state", type=Path, default=Path(f"front_end_{name}"))
        if name == "mutations":
            one.add_argument("--only", help="numbers of mutations, from 1 on, with commas between them")
        if name == "cases":
            one.add_argument("--number", type=int, default=1_000_000)
        if name == "netlist":
            one.add_argument("--number", type=int, default=5_000)
        if name in ("scans", "cases", "netlist", "mutations"):
            one.add_argument("--minutes", type=float, default=600.0)
        if name == "cells":
            one.add_argument("--pixels", type=int, default=16)
            one.add_argument("--significance", action="store_true")
            one.add_argument("--bad-words", type=int, default=0)
            one.add_argument("--maps", action="store_true")
            one.add_argument("--external", action="store_true")
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
    key = args.command
    if args.command == "cells":
        parts = {
            "significance": args.significance, f"{args.bad_words} bad words": args.bad_words, "maps": args.maps,
            "external": args.external,
        }  # fmt: skip
        key = ", ".join([f"cells {args.pixels}", *(name for name, there in parts.items() if there)])
    written(args.output, key, {**found, **about()})


if __name__ == "__main__":
    main()

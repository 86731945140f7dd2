"""An io_stream project under random back-pressure: no schedule may deadlock or change a code; depths of its FIFOs.

    python benchmarks/back_pressure.py runs/full/hls/io_stream --output benchmarks/back_pressure.json

The patches are random and sparse input codes; what they must become is computed by the emulator from the project's
locator.json. docs/explanation/back_pressure.md says what is simulated. Seconds are those of this machine, other work
included.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge.core.errors import UserError
from firmware_sim.stream import simulate as stream
from firmware_sim.stream.result import STALLS, Schedule, StreamResult
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.vectors import random_codes

#: Patches of a search for the least depths: two fill the arrays of the block, a third waits for them.
SEARCHED = 3


def measure(project: Path, build_dir: Path, patches: int, seeds: int, in_flight: int, workers: int) -> dict[str, Any]:
    """Simulate, compare, search; raises UserError if a schedule deadlocks or a code differs."""
    net = locators.load(project / "locator.json").network
    codes = random_codes(net.size, net.input, patches, np.random.default_rng(0))
    expected = emulate.run(net, codes).outputs
    seconds = {}

    started = time.perf_counter()
    program = stream.build(project, build_dir)
    seconds["compile"] = time.perf_counter() - started

    def run(name: str, schedules: list[Schedule]) -> StreamResult:
        started = time.perf_counter()
        found = stream.run(program, codes, schedules, workers=workers)
        seconds[name] = time.perf_counter() - started
        wrong = found.wrong(expected)
        print(f"{name}: {len(schedules)} schedules, {wrong} wrong, {seconds[name]:.1f} s", flush=True)
        if found.deadlock or wrong:
            raise UserError(f"{name}: {wrong} schedules differ from the emulator; {found.deadlock or 'no deadlock'}")
        return found

    def search(name: str, chosen: range, in_flight: int) -> dict[str, int]:
        started = time.perf_counter()
        found = stream.least_depths(program, codes[:SEARCHED], seeds=chosen, in_flight=in_flight, workers=workers)
        seconds[name] = time.perf_counter() - started
        print(f"{name}: {seconds[name]:.1f} s", flush=True)
        return found

    random = run("random", [Schedule(seed, stall) for seed in range(seeds) for stall in STALLS])
    pipelined = run("in flight", [Schedule(seed, in_flight=in_flight) for seed in range(4 * seeds)])
    starved = run("starved", stream.starving(program, codes))
    least = search("least", range(1), 0)
    least_in_flight = search("least in flight", range(4), in_flight)
    together = stream.run(program, codes[:SEARCHED], [Schedule(0, depths=least)])
    schedules = {"random": len(random.outcomes), "in_flight": len(pipelined.outcomes), "starved": len(starved.outcomes)}
    return {
        "patches": patches,
        "size": net.size,
        "keys_per_cycle": program.project.keys_per_cycle,
        "stalls": list(STALLS),
        "schedules": schedules,
        "in_flight": in_flight,
        "wrong": 0,
        "deadlocks": 0,
        "least_together_ends": together.deadlock is None,
        "channels": [
            {
                "name": name, "what": "array, copies" if channel.array else "FIFO", "writer": channel.writer,
                "reader": channel.reader, "declared": channel.declared, "high_water": channel.high,
                "high_water_random": random.high_water[name], "least": least[name],
                "least_in_flight": least_in_flight[name],
            }
            for name, channel in starved.channels.items()
        ],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }  # fmt: skip


def main() -> int:
    """Measure one project and print or write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="directory of an io_stream project, with its locator.json")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--build", type=Path, default=Path("runs/back_pressure"), help="where to compile")
    parser.add_argument("--patches", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--in-flight", type=int, default=12, help="stages of each process's pipeline")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    try:
        document = measure(
            arguments.project, arguments.build, arguments.patches, arguments.seeds, arguments.in_flight,
            arguments.workers,
        )  # fmt: skip
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    text = json.dumps(document, indent=1) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

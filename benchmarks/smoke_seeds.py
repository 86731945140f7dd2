"""Do the smallest scenarios end in a report whatever the seed? Both of them, from seed to report.

    python benchmarks/smoke_seeds.py FOLDER

runs configs/smoke.toml and configs/smoke_circuit.toml with seeds 0 to 9 in FOLDER, and writes smoke_seeds.json
after each run. A run that is in the output is not made again; the folder of a finished run is removed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from braggnn_edge.core.rundir import write_json

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ("smoke", "smoke_circuit")


def one(scenario: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run to its report: whether it ended in one, what it said last, its errors."""
    name = f"{scenario}_{seed}"
    configuration = folder / f"{name}.toml"
    configuration.write_text(f'extends = "{ROOT / "configs" / scenario}.toml"\nname = "{name}"\nseed = {seed}\n')
    command = [sys.executable, "-m", "braggnn_edge.cli", "report", "--config", str(configuration)]
    started = time.monotonic()
    found = subprocess.run(
        [*command, "--runs", str(folder / "runs")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    row: dict[str, Any] = {"scenario": scenario, "seed": seed, "status": found.returncode}
    row |= {"seconds": round(time.monotonic() - started), "trained_again": found.stdout.count("begins again")}
    report = folder / "runs" / name / "report" / "report.json"
    if found.returncode or not report.exists():
        return row | {"message": (found.stderr.strip().splitlines() or ["no message"])[-1]}
    document = json.loads(report.read_text())
    errors = document["errors_px"]
    firmware = next(key for key in errors if key.startswith("csim"))
    row["wrong_codes"] = sum(entry["wrong"] for entry in document["bit_exact"].values())
    row |= {key: {q: errors[key][q] for q in ("p50", "p75", "p95")} for key in (firmware, "centre_of_mass_squared")}
    shutil.rmtree(folder / "runs" / name)
    return row


def main() -> None:
    """Every run that the output lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = json.loads(arguments.output.read_text())["runs"] if arguments.output.exists() else []
    known = {(row["scenario"], row["seed"]) for row in rows}
    for seed in arguments.seeds:
        for scenario in SCENARIOS:
            if (scenario, seed) in known:
                continue
            row = one(scenario, seed, arguments.folder.resolve())
            print(f"{scenario} {seed}: {'report' if not row['status'] else row['message']}", flush=True)
            rows.append(row)
            reports = sum(not row["status"] for row in rows)
            write_json(arguments.output, {"reports": reports, "of": len(rows), "runs": rows})


if __name__ == "__main__":
    main()

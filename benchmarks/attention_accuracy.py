"""What the quantized networks of finished `qat` stages lose: float and integer network on every test peak.

The integer network stands for the firmware: every form of it is the same, code for code (attention_matrix.py, and the
csim stage of each run). Errors are to truth where it is known and to the fit; "difference" is the integer network's
percentile less the float one's. Rows of the output that are not measured again stay as they are.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from attention_matrix import commit, versions

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation.metrics import PERCENTILES, distances, summary
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import load
from braggnn_edge.training.train import load_network, predict
from quant.exchange.locators import load_integer_locator

OUTPUT = Path(__file__).with_suffix(".json")


def measure(run: Path) -> dict[str, Any]:
    """One run: errors of both networks to truth and fit, and the distance between the two."""
    test = load(run / "label" / "peaks.h5").of(TEST)
    patches = test.patches()
    path = run / "qat" / "locator.json"
    before = predict(load_network(run / "train", "full"), patches)
    after = load_integer_locator(path).locate(patches)
    found: dict[str, Any] = {"peaks": len(patches), "commit": commit()}
    for reference in ("truth", "voigt"):
        known = test.has(reference)
        if known.any():
            aim = test.offsets(reference)[known]
            entry = {
                "float": summary(before[known], aim, reference),
                "quantized": summary(after[known], aim, reference),
            }
            entry["difference"] = {key: entry["quantized"][key] - entry["float"][key] for key in PERCENTILES}
            found[reference] = entry
    between = distances(after, before)
    found["to_float"] = {f"p{q}": float(np.percentile(between, q)) for q in (50, 75, 95)} | {
        "max": float(between.max())
    }
    return found


def markdown(document: dict[str, Any]) -> str:
    """The rows of docs/explanation/attention_accuracy.md."""
    lines = ["| run | peaks | reference | float p50 / p75 / p95 | quantized | difference | distance of the two |"]
    lines.append("|---|---|---|---|---|---|---|")
    keys = ("p50", "p75", "p95")

    def cell(entry: dict[str, float]) -> str:
        return " / ".join(f"{entry[key]:.4f}" for key in keys)

    for name, run in document["runs"].items():
        for reference in ("truth", "voigt"):
            if reference in run:
                e = run[reference]
                lines.append(
                    f"| {name} | {e['float']['n']} | {reference} | {cell(e['float'])} | {cell(e['quantized'])} | "
                    f"{cell(e['difference'])} | {cell(run['to_float'])} |"
                )
    return "\n".join(lines)


def main() -> int:
    """0 when every run was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="append", required=True, metavar="NAME=PATH", help="a run with a qat stage")
    arguments = parser.parse_args()
    document: dict[str, Any] = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {"runs": {}}
    document["versions"] = versions()
    for text in arguments.run:
        name, _, path = text.partition("=")
        try:
            document["runs"][name] = measure(Path(path))
        except UserError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(f"{name}: {json.dumps(document['runs'][name]['to_float'])}", flush=True)
        write_json(OUTPUT, document)
    print(markdown(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Errors and look-up tables of circuits side by side, with the estimators they must beat.

    python benchmarks/circuits.py runs/circuit runs/circuit_ruby ... --output benchmarks/circuits.json

Each run needs its label and circuit stages. Look-up tables are Yosys' for UltraScale+ of the combinational core: no
registers, no stream interface; its parts are mapped by themselves as well. The errors are those of the integer circuit
on all test peaks, to the truth where they are simulated, else to the pseudo-Voigt fit.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from braggnn_edge.core.rundir import manifest_of, write_json
from braggnn_edge.evaluation.estimators import ESTIMATORS
from braggnn_edge.evaluation.evaluate import reference_of
from braggnn_edge.evaluation.metrics import summary
from braggnn_edge.peaks import table
from braggnn_edge.peaks.splits import TEST
from hls.rtl.core import pipelined
from hls.rtl.spec import DEFAULT_LEVELS
from hls.rtl.synthesis import mapped_luts
from hls.rtl.trace import PARTS, trace
from quant.contract import locator as locators
from quant.contract.lut_model import predicted_luts


def row(run: Path) -> dict[str, Any]:
    """Everything of one run."""
    made = locators.load(run / "qat/locator.json")
    test = table.load(run / "label/peaks.h5").of(TEST)
    kind = reference_of(test)
    test = test.where(test.has(kind))
    patches, reference = test.patches(), test.offsets(kind)
    estimates = {name: estimator(patches) for name, estimator in ESTIMATORS.items()}
    if kind == "truth":
        fitted = test.has("voigt")
        estimates["voigt"] = test.offsets("voigt")
    estimates["circuit"] = made.locate(patches)
    errors = {
        name: summary(offsets[fitted], reference[fitted], kind)
        if name == "voigt"
        else summary(offsets, reference, kind)
        for name, offsets in estimates.items()
    }
    mapped = mapped_luts(made)
    return {
        "run": run.name,
        "digest": made.digest,
        "git_commit": manifest_of(run, "circuit")["git_commit"],
        "errors_px": errors,
        "luts": mapped["luts"],
        "luts_by_model": round(predicted_luts(made)),
        "luts_of_parts": {part: mapped_luts(made, parts=(part,))["luts"] for part in PARTS},
        "cells": mapped,
        "stages": len(pipelined(trace(made), DEFAULT_LEVELS).solutions),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    rows = []
    for run in options.runs:
        rows.append(row(run))
        for name in ("centre_of_mass_squared", "circuit"):
            e = rows[-1]["errors_px"][name]
            print(f"{run.name} {name}: {e['p50']:.4f} / {e['p75']:.4f} / {e['p95']:.4f} px", flush=True)
        print(f"{run.name}: {rows[-1]['luts']} LUTs, {rows[-1]['luts_by_model']} by the model", flush=True)
        write_json(options.output, {"circuits": rows})
    print(json.dumps([(r["run"], r["luts"], r["stages"]) for r in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

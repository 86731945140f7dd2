"""The model of look-up tables fitted to circuits mapped by Yosys, and its error on circuits that it has not seen.

    python benchmarks/lut_model.py runs/braggnn_full/label/peaks.h5 --output benchmarks/lut_model.json

Small networks of random shapes, widths, sparsity and budgets are trained for a few hundred iterations, their circuits
mapped, and the coefficients of quant.contract.lut_model fitted to three quarters of them. The last quarter, and
circuits given with --circuit, are only predicted. What is in the output is not made again.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.peaks import table
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.training.spec import LoopSpec
from hls.rtl.synthesis import mapped_luts
from quant.contract import locator as locators
from quant.contract import lut_model
from quant.contract.locator import IntegerLocator
from quant.training.circuit_spec import CircuitNetworkSpec, CircuitSpec, FrontEndSpec
from quant.training.compress import fit

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FITTED = 0.75


def drawn(rng: np.random.Generator) -> CircuitSpec:
    """A random circuit, trained briefly."""
    window = int(rng.choice([5, 7, 7]))
    bits = int(rng.integers(4, 9))
    front_end = FrontEndSpec(
        window=window,
        bits=bits,
        count_bits=int(rng.choice([12, 14, 16])),
        centroid=str(rng.choice(["squared", "squared", "intensity", "none"])),  # type: ignore[arg-type]
        discarded_bits=int(rng.integers(0, bits)),
    )
    dense = tuple(sorted((int(w) for w in rng.integers(4, 64, int(rng.integers(1, 4)))), reverse=True))
    network = CircuitNetworkSpec(
        dense=dense,
        weight_bits=int(rng.integers(3, 8)),
        activation_bits=int(rng.integers(4, 9)),
        widths=str(rng.choice(["channel", "channel", "layer"])),  # type: ignore[arg-type]
    )
    return CircuitSpec(
        front_end,
        network,
        LoopSpec(256, 3e-3, "one_cycle", 300, 300, 0),
        LoopSpec(256, 1e-3, "one_cycle", 500, 500, 0),
        sparsity=float(rng.choice([0.0, 0.0, 0.4, 0.7])),
        lut_budget=int(rng.choice([400, 800, 1500, 3000, 6000])),
    )


def entry(made: IntegerLocator, **more: Any) -> dict[str, Any]:
    """What the model knows of a circuit, and its look-up tables mapped: the network alone, and all."""
    features = {"network": lut_model.network_features(made.network), "front_end": lut_model.front_end_features(made)}
    mapped = {"network": mapped_luts(made, parts=("network",))["luts"], "all": mapped_luts(made)["luts"]}
    return {**more, "features": {key: [float(v) for v in value] for key, value in features.items()}, "luts": mapped}


def fitted(entries: list[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """Coefficients of the network by least squares of logarithms, of the rest by least squares, none below 0."""
    network = np.array([e["features"]["network"] for e in entries])
    front_end = np.array([e["features"]["front_end"] for e in entries])
    luts = {key: np.array([e["luts"][key] for e in entries], dtype=float) for key in ("network", "all")}
    return {
        "network": np.linalg.lstsq(network, np.log(luts["network"]), rcond=None)[0],
        "front_end": nnls(front_end, luts["all"] - luts["network"])[0],
    }


def predicted(e: dict[str, Any], coefficients: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Look-up tables by the model."""
    network = float(np.exp(np.dot(coefficients["network"], e["features"]["network"])))
    return {"network": network, "all": network + float(np.dot(coefficients["front_end"], e["features"]["front_end"]))}


def evaluate(document: dict[str, Any]) -> None:
    """Fit, and put coefficients, predictions and errors into the document."""
    entries = document["circuits"]
    own = [e for e in entries if e["kind"] == "drawn"]
    training = own[: int(FITTED * len(own))]
    coefficients = fitted(training)
    for e in entries:
        e["fitted"] = e in training
        e["predicted"] = {key: round(value, 1) for key, value in predicted(e, coefficients).items()}
    document["coefficients"] = {part: [float(v) for v in values] for part, values in coefficients.items()}
    document["errors"] = {}
    for name, chosen in (
        ("fitted", [e for e in entries if e["fitted"]]),
        ("unseen", [e for e in entries if not e["fitted"]]),
    ):
        for key in ("network", "all"):
            error = np.array([e["predicted"][key] / e["luts"][key] - 1 for e in chosen])
            if len(error):
                document["errors"][f"{name}, {key}"] = {
                    "n": len(error),
                    "mean": float(error.mean()),
                    "rms": float(np.sqrt((error**2).mean())),
                    "worst": float(np.abs(error).max()),
                }


def draw(document: dict[str, Any], path: Path) -> None:
    """Mapped against predicted, and the relative residuals."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.5))
    for fit_, colour, label in ((True, "tab:blue", "fitted"), (False, "tab:red", "not seen by the fit")):
        chosen = [e for e in document["circuits"] if e["fitted"] == fit_]
        x, y = [e["luts"]["all"] for e in chosen], [e["predicted"]["all"] for e in chosen]
        axes[0].plot(x, y, "o", color=colour, label=label, ms=5)
        axes[1].plot(x, [100 * (b / a - 1) for a, b in zip(x, y, strict=True)], "o", color=colour, ms=5)
    ends = [min(e["luts"]["all"] for e in document["circuits"]), max(e["luts"]["all"] for e in document["circuits"])]
    axes[0].plot(ends, ends, color="grey", lw=1)
    axes[0].set(xscale="log", yscale="log", xlabel="LUTs, mapped by Yosys", ylabel="LUTs, by the model")
    axes[0].legend()
    for level in (-15, 0, 15):
        axes[1].axhline(level, color="grey", lw=1, ls="--" if level else "-")
    axes[1].set(xscale="log", xlabel="LUTs, mapped by Yosys", ylabel="model - mapped, %")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def run(peaks: PeakTable, wanted: int, seed: int, given: list[Path], output: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {"circuits": []}
    have = {e["name"] for e in document["circuits"]}
    for number in range(wanted):
        if (name := f"drawn {number}") in have:
            continue
        spec = drawn(np.random.default_rng((seed, number)))
        with tempfile.TemporaryDirectory() as folder:
            made, _, _ = fit(replace(spec, seed=number), peaks, None, seed, Path(folder), lambda _: None)
        document["circuits"].append(entry(made, name=name, kind="drawn", spec=asdict(spec)))
        write_json(output, document)
        print(f"{name}: {document['circuits'][-1]['luts']}", flush=True)
    for path in given:
        name = path.parents[1].name if path.stem == "circuit" else path.stem  # that of its run
        if name not in have:
            document["circuits"].append(entry(locators.load(path), name=name, kind="given"))
    evaluate(document)
    write_json(output, document)
    draw(document, output.with_suffix(".png"))
    return document


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peaks", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--circuits", type=int, default=24, help="random circuits (default: %(default)s)")
    parser.add_argument(
        "--circuit", type=Path, action="append", default=[], help="a locator.json of a circuit, to predict"
    )
    parser.add_argument("--seed", type=int, default=20261125)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        found = run(table.load(options.peaks), options.circuits, options.seed, options.circuit, options.output)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(json.dumps({"coefficients": found["coefficients"], "errors": found["errors"]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

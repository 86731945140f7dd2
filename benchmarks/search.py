"""The search against random search with the same number of trials, and against plans by hand.

    python benchmarks/search.py --run runs/braggnn_full --work FOLDER [--seeds 1 2] [--samplers tpe random] [--write]

Every training is as long as every other, on the same peaks, and every circuit is measured alike: the mean error of its
integer answers on the validation peaks, the look-up tables and the latency of its trace. The plans by hand are what one
writes without a search: uniform 6-bit networks of the usual shape and of half of it, with and without the centroid,
seven sparsities each. What they take for known the search does too: 7 px, no convolution. The one in their middle is
the first trial of every study, random ones included. Of a study with more trials than there are plans by hand, what it
had found after as many stands beside what it found in the end. Continues where it was interrupted. Prints; --write:
search.json, search.png.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation.figures import BLUE, GREEN, MUTED, ORANGE, PURPLE, drawn, log_ticks
from braggnn_edge.peaks.table import load
from braggnn_edge.training.spec import LoopSpec
from firmware_sim.search import figures as search_figures
from firmware_sim.search import pareto
from firmware_sim.search import storage as search_storage
from firmware_sim.search import trials as search
from firmware_sim.search.material import Material
from firmware_sim.search.space import ORDERS
from firmware_sim.search.spec import SearchSpec
from quant.training.circuit_spec import CircuitNetworkSpec, CircuitSpec

BUDGETS = (2500, 5000, 10_000)
#: The hypervolume is taken from here up to the error of the squared centroid, over the logarithm of the tables.
FEWEST, MOST = 1000, 20_000
HAND = tuple(
    (dense, centroid, sparsity)
    for sparsity in (0.4, 0.6, 0.75, 0.85, 0.9, 0.94, 0.97)
    for dense in ((32, 16), (16, 8))
    for centroid in ("squared", "none")
)
FIRST = ((32, 16), "squared", 0.75)


def by_hand(base: CircuitSpec, dense: tuple[int, ...], centroid: str, sparsity: float) -> CircuitSpec:
    front_end = dataclasses.replace(base.front_end, window=7, centroid=centroid, bits=6)
    network = CircuitNetworkSpec((), 3, dense, 6, 6, "fixed")
    return dataclasses.replace(base, front_end=front_end, network=network, sparsity=sparsity)


def volume(values: np.ndarray, reference: float) -> float:
    """Of (error, luts) pairs: the area between the best error for so many tables and the reference error, over the
    logarithm of the tables from FEWEST to MOST, as a share of the whole: 0 no better than the centroid, 1 no error.
    """
    edges = np.log(np.clip(np.sort(values[:, 1]), FEWEST, MOST))
    best = np.minimum.accumulate(values[np.argsort(values[:, 1], kind="stable"), 0])
    gain = np.clip(1 - best / reference, 0, None)
    widths = np.diff(np.append(edges, np.log(MOST)))
    return float((gain * widths).sum() / np.log(MOST / FEWEST))


def figures(values: Sequence[Sequence[float]], reference: float, seconds: float) -> dict[str, Any]:
    """values: (error, luts, latency) of each trial."""
    found = np.array(values, float)
    best = {str(budget): found[found[:, 1] <= budget, 0] for budget in BUDGETS}
    return {
        "trials": len(found),
        "hypervolume": round(volume(found[:, :2], reference), 4),
        "front": int(pareto.non_dominated(found).sum()),
        "error_px_at": {
            budget: round(float(errors.min()), 5) if len(errors) else None for budget, errors in best.items()
        },
        "seconds": round(seconds),
        "points": [[round(v, 5) for v in value] for value in values],
    }


def picture(results: dict[str, dict[str, Any]], reference: float, path: Path) -> None:
    """What each method found, and the best of it for its look-up tables."""
    colors = {"tpe": BLUE, "random": ORANGE, "hand": GREEN, "nsga2": PURPLE}
    with drawn(path, 7.6, 5.0) as figure:
        axis = figure.subplots()
        for name, result in results.items():
            if " at " in name:
                continue
            rows = [{"error": error, "luts": luts} for error, luts, _ in result["points"]]
            best = search_figures.lower_envelope(rows)
            color = colors[name.partition("-")[0]]
            axis.plot([r["luts"] for r in rows], [r["error"] for r in rows], ".", color=color, alpha=0.35)
            steps = [r["luts"] for r in best] + [MOST]
            errors = [r["error"] for r in best] + [best[-1]["error"]]
            text = f"{name}: {result['trials']} trials, hypervolume {result['hypervolume']:.3f}"
            axis.plot(steps, errors, drawstyle="steps-post", color=color, label=text)
        axis.axhline(reference, color=MUTED, linestyle="--", label=f"squared centroid {reference:.3f}")
        axis.set(xscale="log", xlim=(FEWEST, MOST), ylim=(0.085, 0.175), ylabel="mean validation error (px)")
        axis.set_xlabel("look-up tables of the traced circuit (counted, not synthesized)")
        log_ticks(axis.xaxis)
        axis.legend(fontsize=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory with its label stage")
    parser.add_argument("--work", type=Path, required=True, help="folder of the storage, to continue from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--samplers", nargs="+", default=["tpe", "random"])
    parser.add_argument("--trials", type=int, default=len(HAND))
    parser.add_argument("--iterations", type=int, nargs=2, default=[1500, 2500], help="float, rounded")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    table = load(arguments.run / "label" / "peaks.h5")
    base = by_hand(CircuitSpec(), *FIRST)
    loops = {
        name: LoopSpec(256, rate, "one_cycle", max_iterations=count, evaluate_every=every, patience=0)
        for name, rate, count, every in (
            ("float_loop", 3e-3, arguments.iterations[0], arguments.iterations[0]),
            ("loop", 2e-3, arguments.iterations[1], max(1, arguments.iterations[1] // 10)),
        )
    }
    material = Material.of_table(table)
    held = material.held
    reference = held.bar
    print(f"squared centroid: {reference:.4f} px on {len(held.patches)} validation peaks", flush=True)
    results: dict[str, Any] = {}
    where = search_storage.address("", arguments.work, arguments.work)
    for seed in arguments.seeds:
        for sampler in arguments.samplers:
            spec = SearchSpec(
                trials=arguments.trials, study=f"{sampler}-{seed}", sampler=sampler, seed=seed, startup=4,
                limit=60_000, windows=(7,), centroids=("squared", "none"), convolutions=(0, 0), layers=(1, 2), **loops,
            )  # fmt: skip
            search.run(spec, base, material, 1, where, lambda line: print(line, flush=True))
            points = pareto.points(search_storage.read_study(where, spec.study))
            counts = {f"{spec.study} at {len(HAND)}": len(HAND)} if arguments.trials > len(HAND) else {}
            for name, count in {**counts, spec.study: arguments.trials}.items():
                some = [point for point in points if point.trial < count]
                seconds = sum(point.figures["seconds"] for point in some)
                results[name] = figures([point.values for point in some], reference, seconds)
                results[name]["trials"] = count
                results[name]["circuits"] = [search.described(point.circuit) for point in some]
    path = arguments.work / "hand.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    for dense, centroid, sparsity in HAND[len(rows) :]:
        began = time.monotonic()
        chosen = dataclasses.replace(by_hand(base, dense, centroid, sparsity), **loops)
        row: dict[str, Any] = {"circuit": f"{search.described(chosen)}, sparsity {sparsity}"}
        try:
            _, row["values"], _ = search.measure(chosen, material, 1, 200_000)
        except UserError as error:
            row["refused"] = str(error)
        row["seconds"] = round(time.monotonic() - began, 1)
        rows.append(row)
        write_json(path, rows)
        print(row, flush=True)
    done = [row for row in rows if "values" in row]
    results["hand"] = figures([row["values"] for row in done], reference, sum(row["seconds"] for row in rows))
    results["hand"]["circuits"] = [row["circuit"] for row in done]
    document = {
        "peaks": {"validation": len(held.patches), "digest": held.data},
        "iterations": arguments.iterations, "batch": 256, "hand": len(HAND), "orders": ORDERS,
        "squared_centroid_px": round(reference, 5), "hypervolume_luts": [FEWEST, MOST], "methods": results,
    }  # fmt: skip
    for name, result in results.items():
        print(f"{name:10s} hypervolume {result['hypervolume']:.4f}  {result['error_px_at']}  {result['trials']} trials")
    if arguments.write:
        write_json(Path(__file__).with_suffix(".json"), document)
        picture(results, reference, Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()

"""What the positions of every estimator make of 400 simulated grains, beside what was aimed at.

    python benchmarks/grains.py [--config configs/grains_large.toml] [--runs runs] [--output benchmarks/grains.json]

Runs the stage ``grains`` of a scenario with simulated grains, after those that it needs; what is finished is kept. The
result has the document of the stage (docs/reference/artifacts.md, grains.json) and *aims*: for the integers that ship,
in layers and as a circuit, which are the firmware's,

- the share of the grains above 30 um that are found, at least 0.97, and no false grain;
- the p50 of the distance to the truth over that of the fit, at most 1.2;
- the mean distance to the grains of the fit, from the same spots, at most 2 um, and that of the diameter, 0.1 um;
- the mean vector from the truth and from the fit, below 0.3 um in each direction;

and what weighting by sigma is worth. ``met`` says whether an aim is reached; an aim that is missed stays in the file.
Pictures of the stage are copied beside the result.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from braggnn_edge import cli
from braggnn_edge.core import config, stages
from braggnn_edge.core.rundir import manifest_of, write_json

FIRMWARE = ("universal_layers", "universal_circuit")
PICTURES = ("balls", "histograms", "theory", "mean_vector")


def aims(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One entry for each aim and form of the firmware: what, value, the aim, and whether it is met."""
    estimators, true = document["estimators"], document["truth"]

    def entry(name: str, what: str, value: float, aim: float, at_least: bool = False) -> dict[str, Any]:
        met = value >= aim if at_least else value <= aim
        return {"estimator": name, "what": what, "value": round(value, 4), "aim": aim, "met": met}

    for name in ("voigt", *FIRMWARE):
        run = estimators[name]["free"]
        share = run["found_above_least_size"] / true["above_least_size"]
        yield entry(name, f"share of the grains above {true['least_size_um']:g} um found", share, 0.97, at_least=True)
        yield entry(name, "false grains", run["false"], 0)
    for name in FIRMWARE:
        free, fixed = (estimators[name][kind] for kind in ("free", "fixed"))
        ratio = free["to_truth"]["position_um"]["p50"] / estimators["voigt"]["free"]["to_truth"]["position_um"]["p50"]
        yield entry(name, "p50 of the distance to the truth over the fit's", ratio, 1.2)
        yield entry(
            name, "mean distance to the fit's grains, same spots, um", fixed["to_fit"]["position_um"]["mean"], 2.0
        )
        yield entry(
            name, "mean distance to the fit's grains, found anew, um", free["to_fit"]["position_um"]["mean"], 2.0
        )
        yield entry(
            name, "mean difference of the diameter to the fit's, found anew, um", free["to_fit"]["size_um"]["mean"], 0.1
        )
        for to in ("to_truth", "to_fit"):
            largest = max(map(abs, free[to]["mean_vector_um"]))
            yield entry(name, f"largest element of the mean vector, {to.replace('_', ' ')}, um", largest, 0.3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/grains_large.toml"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/grains.json"))
    arguments = parser.parse_args()
    words = ["--config", str(arguments.config), "--runs", str(arguments.runs), "--workers", str(arguments.workers)]
    if status := cli.main(["grains", *words]):
        return status
    cfg = config.load(arguments.config, stages.tables(), stages.RENAMED_TABLES)
    run = arguments.runs / cfg.name
    document = json.loads((run / "grains/grains.json").read_text(encoding="utf-8"))
    reached = list(aims(document))
    manifests = {name: manifest_of(run, name) for name in ("data", "label", "grains")}
    write_json(arguments.output, {
        "scenario": arguments.config.name,
        "aims": reached,
        **document,
        "wall_seconds": {name: manifest["wall_seconds"] for name, manifest in manifests.items()},
        "git_commit": manifests["grains"]["git_commit"],
    })  # fmt: skip
    for name in PICTURES:
        shutil.copyfile(
            run / f"grains/figures/{name}.png", arguments.output.with_name(f"{arguments.output.stem}_{name}.png")
        )
    for aim in reached:
        verdict = "met   " if aim["met"] else "MISSED"
        print(f"{verdict} {aim['estimator']:18s} {aim['what']}: {aim['value']:g} ({aim['aim']:g})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

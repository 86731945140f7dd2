"""What a larger circuit buys in grains: look-up tables against px, um and strain, on a simulated scan of known truth.

    python benchmarks/grains_curve.py RUNS [--output benchmarks/grains_curve.json]

The scan of configs/grains.toml (20 gold grains on 1024 x 1024 px of 200 um at 0.5 m), which is simulated and labelled
in RUNS where that is not done yet. The stage `grains` refines its grains from the positions of the three circuits of
benchmarks/circuits_family, one of which ships, of the layers that ship (integers), of the float network that ships, of
the fit and of the squared centroid: found anew with and without each estimator's own sigma, and from the very spots
that the fit's grains have. The picture has the last, in which all estimators have the same grains and the same spots.

- px: random error of a reflection along an axis, to the truth, without the far outliers, and the bias.
- um: distance of a grain to the truth; strain: largest difference of a component.
- look-up tables: Yosys' count for UltraScale+ cells, from circuits_family.json. The layers have no count without a
  vendor's tool; the float network and the fit are no firmware.

Errors are those of this scan: gold spots, no powder, no saturation, a perfect geometry. With 20 grains a mean has a
standard error of some 15 %; errors of the estimators on the same spots are alike, so that differences are better known.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from braggnn_edge import cli

HERE = Path(__file__).parent
FAMILY = HERE / "circuits_family"
CIRCUITS = ("small_7px", "shipped_7px", "wide_9px")
#: The key of grains that are refined from the spots of the fit's.
FIXED = "the fit's spots"
#: Names of the other estimators in the stage, and here.
OTHERS = {
    "universal_layers": "layers that ship, integers", "universal": "float network that ships", "voigt": "fit",
    "centre_of_mass_squared": "squared centroid", "truth": "true positions",
}  # fmt: skip


def scenario(folder: Path) -> Path:
    """The scenario of the grains with the estimators of this benchmark."""
    names = ["voigt", "universal", "universal_layers", "centre_of_mass_squared"]
    names += [str((FAMILY / f"{name}.json").absolute()) for name in CIRCUITS]
    text = (HERE.parent / "configs/grains.toml").read_text(encoding="utf-8").split("\n[grains]")[0]
    path = folder / "grains_curve.toml"
    path.write_text(text + f"\n[grains]\nestimators = {json.dumps(names)}\nown = false\n", encoding="utf-8")
    return path


def entry(found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of an estimator's entry in the stage's document."""
    said: dict[str, Any] = {}
    if about := found.get("bias"):
        said |= {"random_px": about["random_px"], "bias_px": about["bias_px"]}
    for kind, name in (("plain", "equal weights, found anew"), ("fixed", FIXED), ("free", "own sigma")):
        if (run := found.get(kind)) and "to_truth" in run and "position_um" in run["to_truth"]:
            true = run["to_truth"]
            said[name] = {"found": run["found"], "false": run["false"], "position_um": true["position_um"],
                          "degrees": true["degrees"], "strain": true["strain"]}  # fmt: skip
    return said


def draw(document: dict[str, Any], path: Path) -> None:
    """Three panels over the number of look-up tables; estimators without a count are horizontal lines."""
    entries = {name: one for name, one in document["estimators"].items() if "random_px" in one}
    known = sorted(((name, one) for name, one in entries.items() if one["luts"]), key=lambda pair: pair[1]["luts"])

    def grain(one: dict[str, Any], what: str) -> float:
        return float((one.get(FIXED) or one["own sigma"])[what]["mean"])

    panels = (
        ("random error of a reflection, px", lambda one: (sum(v**2 for v in one["random_px"]) / 2) ** 0.5),
        ("distance of a grain to the truth, um (mean)", lambda one: grain(one, "position_um")),
        ("largest error of a strain, 1e-5 (mean)", lambda one: 1e5 * grain(one, "strain")),
    )
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    for axis, (label, value) in zip(axes, panels, strict=True):
        axis.plot([one["luts"] for _, one in known], [value(one) for _, one in known], "o-", color="black")
        for name, one in known:
            axis.annotate(name, (one["luts"], value(one)), xytext=(4, 6), textcoords="offset points", fontsize=8)
        for number, (name, one) in enumerate((n, o) for n, o in entries.items() if not o["luts"]):
            axis.axhline(
                value(one), color=f"C{number}", linestyle=("--", ":", "-.", (0, (5, 1)))[number % 4], label=name
            )
        axis.set(xscale="log", xlabel="look-up tables (Yosys)", title=label, xlim=(3000, 40000))
        axis.set_xticks([4000, 8000, 16000, 32000], ["4,000", "8,000", "16,000", "32,000"])
        axis.minorticks_off()
        axis.set_ylim(0, 1.25 * max(value(one) for one in entries.values()))
    axes[0].legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--output", type=Path, default=HERE / "grains_curve.json")
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    words = ["grains", "--config", str(scenario(arguments.runs)), "--runs", str(arguments.runs)]
    if status := cli.main(words):
        return status
    stage = json.loads((arguments.runs / "grains/grains/grains.json").read_text(encoding="utf-8"))
    luts = {
        name: one["luts"] for name, one in json.loads((FAMILY.with_suffix(".json")).read_text())["circuits"].items()
    }
    document: dict[str, Any] = {"truth": stage["truth"], "pixel_um": stage["pixel_um"], "peaks": stage["peaks"],
                                "reflections": stage["reflections"], "estimators": {}}  # fmt: skip
    for name, found in stage["estimators"].items():
        circuit = name.rpartition("/")[2]
        if circuit in luts:
            document["estimators"][circuit] = {"luts": luts[circuit]} | entry(found)
        elif name in OTHERS:
            document["estimators"][OTHERS[name]] = {"luts": None} | entry(found)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draw(document, arguments.output.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

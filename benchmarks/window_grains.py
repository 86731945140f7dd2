"""What the way of finding peaks does to grains: component rule and window rule, with and without significance.

    python benchmarks/window_grains.py RUNS [--output benchmarks/window_grains.json]

The scan of configs/grains.toml (20 gold grains, 720 frames of 1024 x 1024 px), simulated in RUNS where that is not
done yet; and 240 frames of it, 120 degrees, without zero suppression, with a threshold three standard deviations of
the noise above the brightest background, and one and a half above it. Each is located by the circuit that ships, the
first by the layers too, with the peaks of each rule. The peaks are merged into reflections, and grains are found and
refined from these by the commands' defaults.

A list is compared with the truth: spots that stand above the threshold and have a peak, peaks that no spot explains
(:func:`braggnn_edge.simulation.truth.spot_of`), grains found and false, and p50 and p95 of what grains differ from the
true ones. Then the grains of the window rule are compared with those of the component rule, of the same network.
Seconds are of the processor, of one worker.
"""

import argparse
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from braggnn_edge import cli
from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.grains import grain_file
from braggnn_edge.grains.compare import differences, summary
from braggnn_edge.grains.crystal import lattice_of
from braggnn_edge.label.spec import ScanSpec
from braggnn_edge.peaks import peak_file
from braggnn_edge.simulation.truth import of_frame, read_truth, spot_of

HERE = Path(__file__).resolve().parent
NETWORKS = {"layers": "universal_layers", "circuit": "universal_circuit"}
RULES = ("component", "window")
#: Scans by name: what is replaced in configs/grains.toml; the threshold for finding, counts; networks with the test.
NOISY = (
    ('name = "grains"', 'name = "grains_noisy"'),
    ("background = 10.0\nthreshold = 30.0", "background = 10.0"),
    ("frames = 720", "frames = 240"),
)
SCANS: dict[str, tuple[tuple[tuple[str, str], ...], float, tuple[tuple[str, float], ...]]] = {
    "zeros up to 30 counts": ((), 30.0, (("circuit", 0.0), ("circuit", 4.0), ("layers", 0.0))),
    "no zero suppression": (NOISY, 27.0, (("circuit", 0.0), ("circuit", 4.0))),
    "threshold in the noise": (NOISY, 21.0, (("circuit", 0.0), ("circuit", 4.0))),
}


def scenario(folder: Path, replaced: tuple[tuple[str, str], ...]) -> Path:
    """A copy of the scenario with some of its text replaced."""
    text = (HERE.parent / "configs/grains.toml").read_text(encoding="utf-8")
    for old, new in replaced:
        if old not in text:
            raise ValueError(f"configs/grains.toml has no {old!r}")
        text = text.replace(old, new)
    name = re.findall(r'^name = "(.*)"', text, flags=re.MULTILINE)[0]
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def command(*words: object) -> float:
    """Run a command; its seconds of the processor."""
    begun = sum(os.times()[:4])
    if status := cli.main([str(word) for word in words]):
        raise SystemExit(status)
    return round(sum(os.times()[:4]) - begun, 1)


def peaks_of(path: Path, truth: np.ndarray, spec: ScanSpec, threshold: float) -> dict[str, int]:
    """How many peaks, and what the truth says of them."""
    rows = peak_file.load(path)[0]
    found: dict[str, int] = {"peaks": len(rows), "spots": 0, "spots_found": 0, "peaks_without_a_spot": 0}
    for index in range(spec.simulate.frames):
        spots, own = of_frame(truth, index), rows[rows["frame"] == index]
        of = spot_of(own["pixel_row"], own["pixel_col"], spots)
        visible = spots["amplitude"] + spots["background"] > threshold
        found["spots"] += int(visible.sum())
        found["spots_found"] += int(visible[np.unique(of[of >= 0])].sum())
        found["peaks_without_a_spot"] += int((of < 0).sum())
    return found


def measure(runs: Path, name: str, entry: dict[str, Any], save: Callable[[], None]) -> None:
    """Fill the entry of one scan with its lists, and save behind each network."""
    replaced, threshold, asked = SCANS[name]
    path = scenario(runs, replaced)
    command("data", "--config", path, "--runs", runs)
    cfg = config.load(path, stages.tables(), stages.RENAMED_TABLES)
    spec: ScanSpec = cfg["scan"][0]
    data = runs / path.stem / "data"
    true = grain_file.load(data / "scan_grains.h5").grains
    truth = read_truth(data / "scan_truth.h5")
    made = spec.simulate.grains
    if made is None:
        raise UserError(f"{path}: expected [scan.simulate.grains]")
    lattice = lattice_of(made.lattice, made.centring)
    cell = ("--lattice", *made.lattice, "--centring", made.centring, "--median-size", float(np.median(true["size"])))
    entry |= {"threshold": threshold, "grains": len(true), "lists": {}, "window_to_component": {}}
    for network, deviations in asked:
        grains = {}
        test = f"{deviations:g} deviations" if deviations else "no test"
        for rule in RULES:
            at = data / f"{rule}_{network}_{threshold:g}_{deviations:g}"
            peaks, reflections, out = (at.with_name(f"{at.name}_{what}.h5") for what in ("peaks", "refl", "grains"))
            seconds = [
                command(
                    "locate", data / "scan.h5", "--threshold", threshold, "--find", rule, "--network",
                    NETWORKS[network], "--significance", deviations, "--gain", spec.simulate.gain, "--read-noise",
                    spec.simulate.read_noise, "--omega-start", 0, "--omega-step", spec.simulate.omega_step,
                    "--workers", 1, "--no-check", "-o", peaks,
                ),
                command("merge", peaks, "-o", reflections),
                command(
                    "grains", reflections, "--instrument", data / "scan_instrument.toml", *cell,
                    "--sample", 1.02 * made.reach, "-o", out,
                ),
            ]  # fmt: skip
            grains[rule] = grain_file.load(out).grains
            pairs = differences(lattice, grains[rule], true)
            entry["lists"][f"{network}, {rule} rule, {test}"] = {
                **peaks_of(peaks, truth, spec, threshold),
                "reflections": len(peak_file.load(reflections, "reflections")[0]), "found": len(pairs.pairs),
                "false": len(grains[rule]) - len(pairs.pairs),
                "spots_of_a_grain": float(np.median(grains[rule]["spots"])), **summary(pairs),
                "cpu_seconds": dict(zip(("locate", "merge", "grains"), seconds, strict=True)),
            }  # fmt: skip
        entry["window_to_component"][f"{network}, {test}"] = summary(
            differences(lattice, grains["window"], grains["component"])
        )
        save()


def table(document: dict[str, Any]) -> str:
    """The lists in Markdown."""
    lines = [
        "| scan | list | peaks | spots found | peaks without a spot | reflections | grains found, false | um | "
        "1e-3 degrees | strain, 1e-6 | size, um |",
        "|---" * 11 + "|",
    ]
    for scan, entry in document.items():
        for name, one in entry["lists"].items():
            near = [
                " / ".join(f"{scale * one[key][p]:.{digits}f}" for p in ("p50", "p95"))
                for key, scale, digits in (("position_um", 1, 2), ("degrees", 1e3, 2), ("strain", 1e6, 1),
                                           ("size_um", 1, 2))
            ]  # fmt: skip
            lines.append(
                f"| {scan} | {name} | {one['peaks']:,} | {one['spots_found']:,} of {one['spots']:,} | "
                f"{one['peaks_without_a_spot']:,} | {one['reflections']:,} | {one['found']}, {one['false']} | "
                + " | ".join(near) + " |"
            )  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the runs grains and grains_noisy, made where they are not")
    parser.add_argument("--output", type=Path, default=HERE / "window_grains.json")
    parser.add_argument(
        "--only", choices=list(SCANS), help="one of the scans; the others stay as they are in the output"
    )
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    before = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.only else {}
    document: dict[str, Any] = {name: before.get(name, {}) for name in SCANS}

    def save() -> None:
        done = {name: entry for name, entry in document.items() if entry}
        arguments.output.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")

    for name, entry in document.items():
        if arguments.only in (None, name):
            entry.clear()
            measure(arguments.runs, name, entry, save)
    print(table(document))


if __name__ == "__main__":
    main()

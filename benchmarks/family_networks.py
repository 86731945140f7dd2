"""Networks compared on equal terms: error against multiplications and weights.

    BRAGGNN_EDGE_DATA=FOLDER python benchmarks/family_networks.py RUNS --scratch FOLDER

trains float networks of the kinds of family_kinds.py on the same patches of the family, which are drawn once and kept
in the scratch folder: the same loss, batches, learning rate, schedule and number of patches seen. PLAN says which kinds
are trained on how many patches, with how many seeds. Errors are those of one look at a patch, and of the mean of eight
looks, as the network that ships answers: on other held-out patches of the family, and on the scans of travels.py in
RUNS, which choose nothing. The results are written after every network, and a second start goes on.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from family_kinds import KINDS, SIZE, begun, cost
from numpy.typing import NDArray
from torch import Tensor, nn
from travels import SETS, selected

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation.estimators import centre_of_mass_squared
from braggnn_edge.evaluation.evaluate import reference_of
from braggnn_edge.evaluation.figures import BLUE, GREEN, INK, ORANGE, PURPLE, RED, SKY, drawn, log_ticks
from braggnn_edge.evaluation.metrics import PERCENTILES, distances, validation_figures
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.simulation.family import draw
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.training.dataset import Batches, Peaks
from braggnn_edge.training.optimize import optimize
from braggnn_edge.training.spec import LoopSpec
from braggnn_edge.universal.network import CentroidCorrection, laplace_loss
from braggnn_edge.universal.spec import UniversalSpec
from braggnn_edge.universal.train import VALIDATION_SHARD, Drawn, answers

#: What all networks have alike; a second start with other values is refused.
SETTINGS: dict[str, Any] = {
    "size": SIZE, "drawn": 524_288, "drawn_with_seed": 14, "batch": 128,
    "schedule": "one_cycle", "learning_rate": 3e-3, "beta": UniversalSpec().beta, "validation": 8192,
    "held_out": 24_576, "held_out_drawn_with_seed": 20_000_000,
}  # fmt: skip
DENSE = tuple(kind for kind in KINDS if kind.startswith("dense"))
#: Kinds that take seconds to a minute; the published networks take minutes.
QUICK = ("compact", *DENSE)
#: The comparison's budget, and the one that quick kinds have besides: patches seen.
EQUAL, LONGER = 524_288, 2_097_152
#: Patches seen, kinds, number of seeds, in the order of work; what comes up twice is trained once.
PLAN: tuple[tuple[int, tuple[str, ...], int], ...] = (
    (EQUAL, tuple(KINDS), 1),
    (EQUAL, QUICK, 2),
    (EQUAL, ("wide_head_without_attention", "without_attention"), 2),
    (EQUAL, QUICK, 5),
    (EQUAL, tuple(KINDS), 5),
    (LONGER, QUICK, 3),
)
COLORS = dict(zip(KINDS, (RED, ORANGE, "#8c1d18", "#8a6d00", PURPLE, SKY, BLUE, GREEN), strict=True))

LOOKS = ("one_look", "eight_looks")

#: Patches (n, size, size) in counts and offsets (n, 2) px.
Set = tuple[NDArray[np.float32], NDArray[np.float32]]


def planned() -> list[tuple[int, str, int]]:
    """Patches seen, kind and seed of every training, in the order of work."""
    runs = [(seen, kind, seed) for seen, kinds, seeds in PLAN for seed in range(seeds) for kind in kinds]
    return list(dict.fromkeys(runs))


def kept(path: Path, make: Any) -> dict[str, Set]:
    """The sets of a file in the scratch folder, which ``make()`` fills the first time."""
    if not path.exists():
        found: dict[str, Set] = make()
        arrays = {f"{name}/{part}": one for name, pair in found.items() for part, one in zip("po", pair, strict=True)}
        with written_aside(path) as aside, aside.open("wb") as stream:
            np.savez(stream, **arrays)
    with np.load(path) as file:
        names = dict.fromkeys(key.rpartition("/")[0] for key in file.files)
        return {name: (file[f"{name}/p"], file[f"{name}/o"]) for name in names}


def family_sets() -> dict[str, Set]:
    """Patches to train on, to choose rates with, and to measure errors on."""
    say = Drawn(lambda text: print(text, flush=True))
    seed = SETTINGS["drawn_with_seed"]
    sets = {
        "train": draw(FamilySpec(), seed, SETTINGS["drawn"], progress=say),
        "validation": draw(FamilySpec(), seed, SETTINGS["validation"], VALIDATION_SHARD),
        "family": draw(FamilySpec(), SETTINGS["held_out_drawn_with_seed"], SETTINGS["held_out"]),
    }
    return {name: (one.counts, one.offsets) for name, one in sets.items()}


def scans(runs: Path) -> dict[str, Set]:
    """The scans of travels.py: middle pixels of the patches; offsets to the truth, or to the fit where measured."""
    sets = {}
    for name, about in SETS.items():
        test = selected(runs, *about).of(TEST)
        used = test.where(test.has(reference_of(test)))
        edge = (used.size - SIZE) // 2
        patches = used.patches()[:, edge : edge + SIZE, edge : edge + SIZE].astype(np.float32)
        sets[name] = (np.ascontiguousarray(patches), used.offsets(reference_of(test)).astype(np.float32))
    return sets


def trained(
    kind: str, seed: int, seen: int, sets: Mapping[str, Set], checkpoint: Path
) -> tuple[CentroidCorrection, dict[str, float]]:
    """A network of a kind that has seen so many patches; its validation, and the CPU seconds of this start."""
    loop = LoopSpec(
        SETTINGS["batch"], SETTINGS["learning_rate"], SETTINGS["schedule"], max_iterations=seen // SETTINGS["batch"],
        evaluate_every=-(-seen // SETTINGS["batch"] // 4), patience=0,
    )  # fmt: skip
    crops, offsets = (torch.from_numpy(one[:seen]) for one in sets["train"])
    batches = Batches(Peaks(crops, offsets, SIZE, 0), loop.batch, 0, seed, dihedral=True)
    network = begun(kind, seed, batches(0)[0])
    held, truth = sets["validation"]

    def loss(module: nn.Module, iteration: int) -> Tensor:
        counts, wanted = batches(iteration)
        return laplace_loss(module(counts), wanted, SETTINGS["beta"])

    def evaluate() -> dict[str, float]:
        return validation_figures(distances(answers(network, held, eight=False)[:, :2], truth))

    began = time.process_time()
    history = optimize(network, loss, evaluate, loop, checkpoint, lambda _: None)
    return network, {"score": min(one["score"] for one in history), "cpu_s": round(time.process_time() - began, 1)}


def errors(estimates: NDArray[np.floating], truth: NDArray[np.floating]) -> dict[str, float]:
    """Mean and percentiles of the distance, px."""
    distance = distances(estimates, truth)
    found = {"mean": distance.mean()} | {key: np.percentile(distance, q) for key, q in PERCENTILES.items()}
    return {key: round(float(value), 5) for key, value in found.items()}


def measured(network: CentroidCorrection, sets: Mapping[str, Set], eight: bool) -> dict[str, Any]:
    """Errors by set; of the family the negative log-likelihood too, which tells of ln b."""
    found: dict[str, Any] = {}
    for name, (patches, truth) in sets.items():
        answer = answers(network, patches, eight)
        found[name] = errors(answer[:, :2], truth)
        if name == "family":
            likelihood = laplace_loss(torch.from_numpy(answer), torch.from_numpy(truth), 0.0)
            found[name]["negative_log_likelihood"] = round(float(likelihood), 5)
    return found


def spread(runs: Mapping[str, Mapping[str, Any]], looks: str) -> dict[str, Any]:
    """By set and figure: mean, least and largest over seeds."""
    given = [run[looks] for run in runs.values() if looks in run]
    if not given:
        return {}
    table: dict[str, Any] = {}
    for name, figures in given[0].items():
        values = {key: [one[name][key] for one in given] for key in figures}
        table[name] = {
            key: {"mean": round(float(np.mean(v)), 5), "least": min(v), "largest": max(v)} for key, v in values.items()
        }
    return table


class Comparison:
    """The document of results, in a file that is written after every network."""

    def __init__(self, output: Path, scratch: Path, runs: Path) -> None:
        self.path, self.scratch = output, scratch
        document = json.loads(output.read_text()) if output.exists() else {}
        if document and document["settings"] != SETTINGS:
            raise UserError(
                f"{output}: made with other settings than this script's; give another --output, or delete it"
            )
        self.document: dict[str, Any] = {"settings": SETTINGS, "kinds": {}, "patches_seen": {}} | document
        first = torch.from_numpy(np.zeros((2, SIZE, SIZE), np.float32))
        self.document["kinds"] = {
            kind: {"label": about.label, **cost(begun(kind, 0, first))} for kind, about in KINDS.items()
        }
        sets = kept(scratch / "family.npz", family_sets)
        self.train = {name: sets[name] for name in ("train", "validation")}
        self.test = {"family": sets["family"]} | kept(scratch / "scans.npz", lambda: scans(runs))
        self.document["peaks"] = {name: len(patches) for name, (patches, _) in self.test.items()}
        self.document["squared_centroid"] = {
            name: errors(centre_of_mass_squared(patches), truth) for name, (patches, truth) in self.test.items()
        }

    def write(self) -> None:
        """The document, with the spread over seeds and what the plan has left to do."""
        for kinds in self.document["patches_seen"].values():
            for entry in kinds.values():
                for looks in LOOKS:
                    entry[f"spread_{looks}"] = spread(entry["seeds"], looks)
        done = self.document["patches_seen"]
        left = [
            run for run in planned() if str(run[2]) not in done.get(str(run[0]), {}).get(run[1], {"seeds": {}})["seeds"]
        ]
        self.document["left_to_do"] = [f"{kind}, seed {seed}, {seen:,} patches" for seen, kind, seed in left]
        write_json(self.path, self.document)

    def network(self, seen: int, kind: str, seed: int) -> None:
        """Train one network, or skip what is done."""
        entry = self.document["patches_seen"].setdefault(str(seen), {}).setdefault(kind, {"seeds": {}})
        if str(seed) in entry["seeds"]:
            return
        checkpoint = self._weights(seen, kind, seed).with_suffix(".checkpoint")
        network, found = trained(kind, seed, seen, self.train, checkpoint)
        torch.save(network.state_dict(), self._weights(seen, kind, seed))
        checkpoint.unlink()
        entry["seeds"][str(seed)] = found | {"one_look": measured(network, self.test, eight=False)}
        self.write()
        print(seen, kind, seed, found, entry["seeds"][str(seed)]["one_look"]["family"], flush=True)

    def look_again(self, seen: int, kind: str, seed: int) -> None:
        """Errors of the mean of eight looks."""
        run = self.document["patches_seen"][str(seen)][kind]["seeds"][str(seed)]
        if "eight_looks" in run:
            return
        if not self._weights(seen, kind, seed).exists():
            raise UserError(f"{self._weights(seen, kind, seed)} is missing; give its --scratch, or another --output")
        network = KINDS[kind].build(SIZE)
        network.load_state_dict(torch.load(self._weights(seen, kind, seed), weights_only=True))
        run["eight_looks"] = measured(network.eval(), self.test, eight=True)
        self.write()
        print(seen, kind, seed, "eight looks", run["eight_looks"]["family"], flush=True)

    def _weights(self, seen: int, kind: str, seed: int) -> Path:
        return self.scratch / f"{kind}_{seen}_{seed}.pt"


def draw_figure(document: Mapping[str, Any], path: Path) -> None:
    """p50 and p95 on the family against multiplications and weights: every seed a dot; longer trainings hollow."""
    with drawn(path, 9.5, 7.5) as figure:
        axes = figure.subplots(2, 2, sharex="col", sharey="row")
        for row, key in zip(axes, ("p50", "p95"), strict=True):
            for axis, against in zip(row, ("multiplications", "weights"), strict=True):
                _panel(axis, document, key, against)
        for axis, against in zip(axes[1], ("multiplications a patch", "weights"), strict=True):
            axis.set_xlabel(against)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)


def _panel(axis: Any, document: Mapping[str, Any], key: str, against: str) -> None:
    centroid = document["squared_centroid"]["family"][key]
    axis.axhline(centroid, color=INK, linestyle=":", linewidth=1.2, label="squared centroid")
    for seen, fill in ((EQUAL, True), (LONGER, False)):
        for kind in KINDS:
            runs = document["patches_seen"].get(str(seen), {}).get(kind, {"seeds": {}})["seeds"].values()
            about = document["kinds"][kind]
            axis.plot(
                [about[against]] * len(runs), [run["one_look"]["family"][key] for run in runs], "o",
                markeredgecolor=COLORS[kind], markerfacecolor=COLORS[kind] if fill else "none", markersize=6,
                label=(about["label"] + ("" if fill else f", {seen / 1e6:.1f} M patches seen")) if runs else None,
            )  # fmt: skip
    axis.set(xscale="log", yscale="log", title=f"{key} on the family, px")
    log_ticks(axis.xaxis)
    log_ticks(axis.yaxis)


def table(document: Mapping[str, Any], looks: str = "one_look") -> str:
    """The tables of docs/explanation/networks_compared.md: means over seeds, p50 / p75 / p95 / p99.5."""
    lines = []
    for seen, kinds in document["patches_seen"].items():
        for kind in (one for one in KINDS if one in kinds):
            about, entry = document["kinds"][kind], kinds[kind]
            if not (found := entry.get(f"spread_{looks}")):
                continue
            cells = [about["label"], f"{int(seen):,}", f"{len(entry['seeds'])}"]
            cells += [f"{about['weights']:,}", f"{about['multiplications']:,}"]
            cells += [" / ".join(f"{found[name][key]['mean']:.4f}" for key in PERCENTILES) for name in found]
            lines.append("| " + " | ".join(cells) + " |")
    cells = [" / ".join(f"{one[key]:.4f}" for key in PERCENTILES) for one in document["squared_centroid"].values()]
    return "\n".join([*lines, "| squared centroid | | | 0 | | " + " | ".join(cells) + " |"])


def compare(comparison: Comparison) -> None:
    """All networks of the plan, then all again with eight looks."""
    for run in planned():
        comparison.network(*run)
    for run in planned():
        comparison.look_again(*run)


def main() -> int:
    """Train what is missing, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for patches and weights")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--so-far", action="store_true", help="train nothing: draw and print what the output holds")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    try:
        if not arguments.so_far:
            compare(Comparison(arguments.output, arguments.scratch, arguments.runs))
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    document = json.loads(arguments.output.read_text())
    draw_figure(document, arguments.output.with_suffix(".png"))
    for looks in LOOKS:
        print(looks, table(document, looks), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

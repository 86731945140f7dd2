"""Stage "ablation": the full network with and without its non-local block and its random shifts, over several seeds.

Every network of the grid is a file of its own, so that an interrupted stage goes on with the next one (and within one,
from its last checkpoint). ``python -m braggnn_edge.ablation.grid RUN OUTPUT`` draws the results of the networks that
are finished in a run directory, be the stage finished or not.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.ablation import figures as ablation_figures
from braggnn_edge.ablation.effects import paired_change
from braggnn_edge.ablation.spec import AblationSpec
from braggnn_edge.ablation.summary import summary_page
from braggnn_edge.core import config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation.estimators import ESTIMATORS
from braggnn_edge.evaluation.evaluate import reference_of
from braggnn_edge.evaluation.metrics import distances, summary
from braggnn_edge.peaks.splits import TEST, TRAIN, VALIDATION
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.training.dataset import Peaks
from braggnn_edge.training.spec import LoopSpec, TrainSpec
from braggnn_edge.training.train import load_network, predict, train_network

#: The paper's own figures as far as a source was at hand: its abstract. Distance in px of BraggNN from the
#: pseudo-Voigt fit on its measured test set, which is not ours. Its figures 4, 7, 8 and 9 are not quoted.
PAPER = {
    "source": "Liu et al., IUCrJ 9 (2022) 104-113, abstract (also arXiv:2008.08198, abstract)",
    "reference": "voigt",
    "p75": 0.29,
    "p95": 0.57,
}
EFFECTS_AT = ("p50", "p75", "p95", "mean")


@dataclass(frozen=True)
class Variant:
    """One kind of network: with or without the non-local block, trained with shifts of up to ``shift`` px."""

    attention: bool
    shift: int

    def __str__(self) -> str:
        return f"{'attention' if self.attention else 'plain'}-m{self.shift}"

    def member(self, seed: int) -> str:
        """Name of the network of one seed, and of its files."""
        return f"{self}-seed{seed}"


def variants(spec: AblationSpec) -> tuple[Variant, ...]:
    """The kinds of the grid: first those with attention."""
    return (*(Variant(True, m) for m in spec.shifts), *(Variant(False, m) for m in spec.without_attention))


def run(table: PeakTable, spec: AblationSpec, seed: int, directory: Path, say: Callable[[str], None]) -> None:
    """The stage: train what is not yet trained in ``directory``; write ``ablation.json``, its page and pictures there.

    Seeds come one after the other, each through all variants, so that what is finished early can be compared.
    """
    spec.check(table.size, table.shift)
    write_json(directory / "grid.json", {"seed": seed, "ablation": dataclasses.asdict(spec)})
    for network_seed in spec.seeds:
        for variant in variants(spec):
            train_member(table, spec, variant, network_seed, directory, say)
    report(table, spec, seed, directory, directory, say)


def train_member(
    table: PeakTable, spec: AblationSpec, variant: Variant, seed: int, directory: Path, say: Callable[[str], None]
) -> None:
    """Train one network unless its file is there. One that has not learned by the end is a result too, and kept so."""
    name = variant.member(seed)
    described, checkpoint = directory / f"{name}.json", directory / f"{name}.checkpoint"
    if described.exists():
        say(f"{name}: was done before")
        return
    network = dataclasses.replace(spec.network, attention=variant.attention)
    training = TrainSpec(network=network, loop=spec.loop, shift=variant.shift)
    try:
        train_network(training, table, seed, directory, name, say, trainings=1, directions=False)
    except UserError as error:
        if not _trained_through(checkpoint, spec.loop):
            raise
        say(str(error))
        write_json(described, {"collapsed": str(error)})
    checkpoint.unlink(missing_ok=True)


def _trained_through(checkpoint: Path, loop: LoopSpec) -> bool:
    """Whether training went to its end, so that only the result was refused."""
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many types for a missing or damaged file; none of them is a finished training
        return False
    stalled = bool(loop.patience) and state["iteration"] - state["best"]["iteration"] >= (
        loop.patience * loop.evaluate_every
    )
    return state["iteration"] >= loop.max_iterations or stalled


def report(
    table: PeakTable, spec: AblationSpec, seed: int, directory: Path, output: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the finished networks of ``directory`` on the test peaks; write ``ablation.json``, its page, pictures.

    Raises UserError when no network is finished.
    """
    test = table.of(TEST)
    kind = reference_of(test)
    peaks = Peaks.of(test, kind)
    crops = {m: _crops(peaks, m, seed) for m in spec.shifts}
    errors: dict[tuple[Variant, int, int], NDArray[np.float64]] = {}
    rows, collapsed = [], []
    for variant in variants(spec):
        for network_seed in spec.seeds:
            name = variant.member(network_seed)
            path = directory / f"{name}.json"
            if not path.exists():
                continue
            if "collapsed" in json.loads(path.read_text()):
                collapsed.append(name)
                continue
            net = load_network(directory, name)
            for m, (patches, offsets) in crops.items():
                predicted = predict(net, patches)
                errors[variant, network_seed, m] = distances(predicted, offsets)
                about = {"variant": str(variant), "attention": variant.attention, "shift": variant.shift}
                rows.append({**about, "seed": network_seed, "crop": m, **summary(predicted, offsets, kind)})
    if not rows:
        raise UserError(f"no network of the ablation is finished in {directory.name}; run `braggnn-edge ablation`")
    effects = effects_of(rows, spec)
    trained_on = {name: table.of(part) for name, part in (("train", TRAIN), ("validation", VALIDATION))}
    document = {
        "peaks": {**{name: int(part.has("best").sum()) for name, part in trained_on.items()}, "test": len(peaks)},
        "ablation": dataclasses.asdict(spec),
        "interval": "95 %, Student t over seeds on log ratios paired by seed; one training set, one test set",
        "collapsed": collapsed,
        "effects": effects,
        "errors_px": rows,
        "trivial_px": _trivial(crops, kind),
        "paper": PAPER,
    }
    write_json(output / "ablation.json", document)
    with written_aside(output / "ablation.md") as aside:
        aside.write_text(summary_page(document), encoding="utf-8")
    ablation_figures.draw(errors, effects, spec.shifts, kind, PAPER, output)
    for effect in effects:
        if effect["percentile"] == "p50":
            say("  " + ablation_figures.sentence(effect))
    if collapsed:
        say(f"  not learned, and so in no effect: {', '.join(collapsed)}")
    return document


def _crops(peaks: Peaks, shift: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Test patches (n, size, size) shifted at random by up to ``shift`` px in row and col, and their labels (n, 2)."""
    shifts = np.random.default_rng((seed, 21, shift)).integers(-shift, shift + 1, (len(peaks), 2))
    patches, offsets = peaks.shifted(torch.arange(len(peaks)), torch.from_numpy(shifts))
    return patches.numpy(), offsets.numpy()


def _trivial(crops: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]], kind: str) -> list[dict[str, Any]]:
    return [
        {"estimator": name, "crop": m, **summary(estimate(patches), offsets, kind)}
        for name, estimate in ESTIMATORS.items()
        for m, (patches, offsets) in crops.items()
    ]


def effects_of(rows: Sequence[dict[str, Any]], spec: AblationSpec) -> list[dict[str, Any]]:
    """The change by attention (at the shifts trained both ways) and by shifts (against none), on every test crop.

    rows: ``errors_px`` entries. An effect with no common seed is absent.
    """
    effects = []

    def add(factor: str, with_it: Variant, without: Variant) -> None:
        for crop in spec.shifts:
            for key in EFFECTS_AT:
                with_errors, without_errors = (
                    {row["seed"]: row[key] for row in rows if row["variant"] == str(v) and row["crop"] == crop}
                    for v in (with_it, without)
                )
                if set(with_errors) & set(without_errors):
                    change = paired_change(with_errors, without_errors)
                    about = {"factor": factor, "with": str(with_it), "without": str(without), "crop": crop}
                    effects.append({**about, "percentile": key, **dataclasses.asdict(change)})

    for m in spec.without_attention:
        add("attention", Variant(True, m), Variant(False, m))
    for m in sorted(set(spec.shifts) - {0}):
        add("augmentation", Variant(True, m), Variant(True, 0))
    return effects


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the results of a run directory into another folder: 0 when done, 2 with one line for bad input."""
    parser = argparse.ArgumentParser(prog="braggnn_edge.ablation.grid", description=main.__doc__)
    parser.add_argument("run", type=Path, help="run directory, with its label and ablation stages")
    parser.add_argument("output", type=Path, help="folder for ablation.json and the pictures")
    arguments = parser.parse_args(argv)
    try:
        table = load_table(arguments.run / "label" / "peaks.h5")
        found = [arguments.run / name for name in ("ablation", "ablation.partial")]
        directory = next((path for path in found if (path / "grid.json").exists()), None)
        if directory is None:
            raise UserError(f"{arguments.run} has no ablation; run `braggnn-edge ablation` first")
        grid = json.loads((directory / "grid.json").read_text())
        spec = config.parse(AblationSpec, grid["ablation"], "grid.json")
        arguments.output.mkdir(parents=True, exist_ok=True)
        report(table, spec, grid["seed"], directory, arguments.output, print)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())


def work(context: Context, directory: Path) -> None:
    """The stage: :func:`run` on the peaks of the run directory."""
    table = load_table(context.run / "label" / "peaks.h5")
    run(table, context.cfg["ablation"], context.cfg.seed, directory, context.say)

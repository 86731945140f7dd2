"""Stage "tune": a short fit of a universal network to an experiment, kept only where it helps."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from braggnn_edge.core.checkout import maker
from braggnn_edge.core.config import resolve_path
from braggnn_edge.core.digests import sha256
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation.metrics import PERCENTILES, distances, summary, validation_figures
from braggnn_edge.evaluation.paired import differences
from braggnn_edge.locate.calibration import Calibration
from braggnn_edge.locate.stage import SHIPPED as SHIPPED_NAME
from braggnn_edge.peaks.splits import SPLITS, TEST, TRAIN, VALIDATION
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.simulation import family
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.training.optimize import optimize
from braggnn_edge.training.train import choose_device
from braggnn_edge.universal.labelled import FEWEST, Labelled, Mixed, labelled, require_enough
from braggnn_edge.universal.locator import SHIPPED
from braggnn_edge.universal.network import UniversalNetwork, laplace_loss, load, save
from braggnn_edge.universal.train import Drawn, answers, calibrated
from braggnn_edge.universal.tune_figure import picture
from braggnn_edge.universal.tune_spec import TuneSpec

#: Shards of the family that a universal network was neither trained nor validated on: for training, and held out.
_TRAIN_SHARD, _HELD_SHARD = 1 << 21, 1 << 22
#: Patches of the family that are held out.
_HELD = 4096
#: Errors in a node of the calibration, at least.
_IN_A_NODE = 200
#: A network that is kept has at most this share of the constant predictor's mean error: else it follows no labels.
_LEARNED = 0.9

#: What errors are measured from, in words.
_TO = {"truth": "truth", "voigt": "fit", "best": "truth, or to the fit of measured peaks"}


@dataclass(frozen=True)
class _Answered:
    """What a network answers to some peaks: distances (n,) px from the labels, and a summary of them and of sigma."""

    errors: NDArray[np.float64]
    entry: dict[str, Any]

    @staticmethod
    def of(network: UniversalNetwork, calibration: Calibration, peaks: Labelled) -> "_Answered":
        found = answers(network, peaks.patches).astype(np.float64)
        entry = summary(found[:, :2], peaks.offsets, peaks.reference)
        sigma, wide = calibration.half_widths(found[:, 2:])
        off = np.abs(found[:, :2] - peaks.offsets)
        entry |= {"within_one_sigma": float((off <= sigma).mean()), "within_wide": float((off <= wide).mean())}
        return _Answered(distances(found[:, :2], peaks.offsets), entry)


def tune(
    spec: TuneSpec,
    drawn: FamilySpec,
    table: PeakTable,
    parent: Path,
    seed: int,
    directory: Path,
    workers: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Fit the network of the file ``parent`` to a peak table; write ``universal.npz``, ``tune.json``, ``tune.png``.

    Whether the result is kept is decided on the validation peaks alone; if it is not, ``universal.npz`` is the network
    of ``parent``. Returns what ``tune.json`` holds. Raises UserError for too few labelled peaks, and for patches that
    do not suit.
    """
    made_by = maker()
    network, calibration, origin = load(parent)
    _check_size(parent.name, network.size, table.size, drawn.size)
    splits = {split: labelled(table, split, spec.labels, network.size) for split in (TRAIN, VALIDATION)}
    splits[TEST] = labelled(table, TEST, "best", network.size)
    require_enough(splits)
    held = family.draw(drawn, seed, _HELD, _HELD_SHARD)
    sets = {"validation": splits[VALIDATION], "test": splits[TEST]}
    sets["test_fit_on_a_bound"] = labelled(table, TEST, "best", network.size, firm=False)
    sets["family"] = Labelled(held.counts, held.offsets, np.arange(_HELD), np.ones(_HELD, bool))
    sets = {name: peaks for name, peaks in sets.items() if peaks.independent >= FEWEST[TEST]}
    network = network.to(choose_device())
    before = {name: _Answered.of(network, calibration, peaks) for name, peaks in sets.items()}
    say(
        f"tune: {parent.name}, "
        + ", ".join(f"{len(peaks)} {SPLITS[split]}" for split, peaks in splits.items())
        + f" peaks, {sum(peaks.left_out for peaks in splits.values())} left out whose fit ended on a bound"
    )
    history = _fit(spec, drawn, network, splits[TRAIN], sets, seed, directory, workers, say)
    tuned = _calibrated(network, splits[VALIDATION], sets["family"])
    after = {name: _Answered.of(network, tuned, peaks) for name, peaks in sets.items()}
    document: dict[str, Any] = {"peaks": {SPLITS[split]: _counted(peaks) for split, peaks in splits.items()}}
    for name, peaks in sets.items():
        change = differences(before[name].errors, after[name].errors, peaks.reflections, seed)
        document[name] = {"before": before[name].entry, "after": after[name].entry, "difference": change}
    document["kept"], document["why"] = _verdict(document["validation"], splits[VALIDATION].offsets)
    _write(document, made_by, spec, drawn, parent, origin, table, seed, (network, tuned), directory)
    write_json(directory / "tune.json", {**document, "history": history})
    errors = {"before": before["test"].errors, "after": after["test"].errors}
    picture(history, errors, document["test"], directory / "tune.png")
    for line in lines(document):
        say(line)
    (directory / "tune.checkpoint").unlink(missing_ok=True)
    return document


def _fit(
    spec: TuneSpec,
    drawn: FamilySpec,
    network: UniversalNetwork,
    train: Labelled,
    sets: dict[str, Labelled],
    seed: int,
    directory: Path,
    workers: int,
    say: Callable[[str], None],
) -> list[dict[str, float]]:
    """Train a network; leave it at its best validation, and return the learning curve from iteration 0 on."""
    device = choose_device()
    patches = family.draw(drawn, seed, spec.patches, _TRAIN_SHARD, workers, Drawn(say)) if spec.share else None
    batches = Mixed(train, patches, spec.loop.batch, spec.share, seed, device)
    validation, spots = sets["validation"], sets["family"]

    def loss(module: nn.Module, iteration: int) -> Tensor:
        counts, offsets, true = batches(iteration)
        found = module(counts)
        # A fit has errors of its own, and shares the noise of the patch: it teaches positions, and not their errors.
        log_b = torch.where(true, found[:, 2:], found[:, 2:].detach())
        return laplace_loss(torch.cat([found[:, :2], log_b], 1), offsets, spec.beta)

    def evaluate() -> dict[str, float]:
        errors = distances(answers(network, validation.patches)[:, :2], validation.offsets)
        forgotten = distances(answers(network, spots.patches, eight=False)[:, :2], spots.offsets)
        return {**validation_figures(errors), "family": float(forgotten.mean())}

    start = {"iteration": 0, **evaluate()}
    return [start, *optimize(network, loss, evaluate, spec.loop, directory / "tune.checkpoint", say)]


def _calibrated(network: UniversalNetwork, validation: Labelled, spots: Labelled) -> Calibration:
    """sigma by the validation peaks whose truth is known or, where these are too few, by patches of the family."""
    known = validation.where(validation.true)
    if 2 * len(known) < _IN_A_NODE:
        known = spots
    return calibrated(answers(network, known.patches), known.offsets, 2 * len(known) // _IN_A_NODE)


def _counted(peaks: Labelled) -> dict[str, int]:
    return {"used": len(peaks), "reflections": peaks.independent, "fit_on_a_bound": peaks.left_out}


def _verdict(validation: dict[str, Any], offsets: NDArray[np.float32]) -> tuple[bool, str]:
    """Whether a network is kept, and why; offsets (n, 2) px of the validation labels."""
    change, after = validation["difference"]["mean"], validation["after"]["mean"]
    interval = f"{change['px']:+.4f} px ({change['low']:+.4f} to {change['high']:+.4f})"
    if not change["high"] < 0:
        return False, f"the mean validation error changed by {interval}, which is no clear gain"
    constant = float(np.linalg.norm(offsets, axis=1).mean())
    if not after < _LEARNED * constant:
        return False, (
            f"its mean validation error, {after:.3f} px, is that of the constant predictor ({constant:.3f} px): "
            "patches and labels do not belong together"
        )
    return True, f"the mean validation error changed by {interval}"


def _write(
    document: dict[str, Any],
    made_by: dict[str, str],
    spec: TuneSpec,
    drawn: FamilySpec,
    parent: Path,
    origin: dict[str, Any],
    table: PeakTable,
    seed: int,
    tuned: tuple[UniversalNetwork, Calibration],
    directory: Path,
) -> None:
    """Write the network that is kept: the tuned one, or the parent as it is; either says how it came about."""
    kept = document["kept"]
    training = {**asdict(spec), "initial": parent.name}
    provenance = {
        **made_by, "seed": seed, "kept": "tuned" if kept else "parent",
        "why": document["why"], "training": training, "family": asdict(drawn), "scans": list(table.scans),
        "peaks": document["peaks"], "validation": document["validation"], "test": document["test"],
        "parent": {"sha256": sha256(parent), "provenance": origin},
    }  # fmt: skip
    network, calibration = tuned if kept else load(parent)[:2]
    save(network, calibration, provenance, directory / "universal.npz")


def lines(document: dict[str, Any]) -> list[str]:
    """The result as lines of text."""
    test = document["test"]
    to = _TO[test["before"]["reference"]]
    said = [f"  {test['before']['n']} test peaks, errors in px to the {to}, and the change with its 95 % interval:"]
    for key in ("mean", *PERCENTILES):
        change = test["difference"][key]
        said.append(
            f"    {key.replace('_', '.'):6s} {test['before'][key]:.4f} -> {test['after'][key]:.4f}  "
            f"{change['px']:+.4f} ({change['low']:+.4f} to {change['high']:+.4f})"
        )
    said.append(
        f"    within one sigma {test['before']['within_one_sigma']:.1%} -> {test['after']['within_one_sigma']:.1%}"
    )
    spots = document["family"]
    said.append(f"  family, mean error: {spots['before']['mean']:.4f} -> {spots['after']['mean']:.4f} px")
    if (reference := document["validation"]["before"]["reference"]) != "truth":
        some = "some labels are fits" if reference == "best" else "labels are fits"
        said.append(f"  {some}: what is gained is agreement with the fit, which may be farther from the truth")
    if document["kept"]:
        said.append(f"  it helps, and is kept: {document['why']}")
    else:
        said.append(f"  it does not help: {document['why']}. universal.npz is the network that it started from")
    return said


def parent_of(context: Context) -> Path:
    """The file of the network that tuning starts from."""
    initial = context.cfg["tune"].initial
    return SHIPPED if initial == SHIPPED_NAME else resolve_path(initial, context.cfg.folder)


def check(context: Context) -> None:
    """Refuse a network that cannot be read or that suits neither the patches nor the family, before any work."""
    parent = parent_of(context)
    if not parent.is_file():
        raise UserError(f"tune: network {parent} does not exist; correct initial in [tune], or leave it out")
    _check_size(parent.name, load(parent)[0].size, context.cfg["peaks"].size, context.cfg["family"].size)


def _check_size(name: str, size: int, patches: int, drawn: int) -> None:
    """Refuse patches of ``patches`` px that are smaller than a network's ``size``, and a family of another size."""
    if patches < size:
        raise UserError(
            f"tune: {name} takes patches of {size} px, those of this scan have {patches} px, and no smaller network "
            f"ships; set size in [peaks] to {size}, or make a network for {patches} px with `braggnn-edge universal` "
            "(size in [family]) and name it in initial of [tune]"
        )
    if drawn != size:
        raise UserError(f"tune: size in [family] is {drawn} px, {name} takes patches of {size} px; set it to {size}")


def files(context: Context) -> tuple[Path, ...]:
    """What is read outside the run directory."""
    return (parent_of(context),)


def work(context: Context, directory: Path) -> None:
    """The stage: :func:`tune` with the tables of the configuration."""
    cfg = context.cfg
    table = load_table(context.run / "label" / "peaks.h5")
    tune(cfg["tune"], cfg["family"], table, parent_of(context), cfg.seed, directory, context.workers, context.say)

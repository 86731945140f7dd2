"""Stages "train" and "compact": the full float BraggNN by the paper's recipe, the compact one for the firmware."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from braggnn_edge.core.config import resolve_path
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation import figures
from braggnn_edge.evaluation.metrics import distances, validation_figures
from braggnn_edge.evaluation.provenance import TRAINING_PEAKS, ranges_of_peaks
from braggnn_edge.peaks.splits import TRAIN, VALIDATION
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.training import upstream
from braggnn_edge.training.centroid import squared_centroid
from braggnn_edge.training.dataset import Batches, Peaks, min_max
from braggnn_edge.training.initialize import begin_linear
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.optimize import optimize, position_loss
from braggnn_edge.training.spec import NetworkSpec, TrainSpec
from braggnn_edge.training.stage import float_networks
from braggnn_edge.training.team import agreed, ranks, together

#: A direction along which more than this share of the labels' variance is left in the errors counts as lost, on at
#: least so many peaks.
_LOST, _FEW = 0.8, 50

#: Trainings that a network gets before it is refused, each from other initial weights.
TRAININGS = 3


def choose_device() -> str:
    """The GPU of this process when there is one, else the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def predict(net: BraggNN, patches: NDArray[np.generic], device: str = "cpu", chunk: int = 4096) -> NDArray[np.float64]:
    """Offsets (n, 2) in px from the centre pixel for patches (n, size, size) in counts."""
    net = net.to(device).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(patches), chunk):
            block = np.ascontiguousarray(patches[start : start + chunk], dtype=np.float32)
            parts.append(located(net, torch.from_numpy(block).to(device)).double().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 2))


def located(net: BraggNN, patches: Tensor) -> Tensor:
    """Offsets (n, 2) px of patches (n, size, size) in counts by a network, with the centroid where it corrects that."""
    size = patches.shape[-1]
    images = min_max(patches)
    answer = upstream.to_offset(net(images[:, None].contiguous(memory_format=torch.channels_last)), size)
    return answer + squared_centroid(images) if net.spec.centroid else answer


def train_network(
    spec: TrainSpec,
    table: PeakTable,
    seed: int,
    directory: Path,
    name: str,
    say: Callable[[str], None],
    trainings: int = TRAININGS,
    directions: bool = True,
) -> BraggNN:
    """Train one network on the table's train split, validated on its validation split; write ``<name>.pt``.

    A network that ends no better than the constant predictor, or (``directions``) follows the labels along one
    direction only, is trained again from other initial weights, ``trainings`` times in all; the batches stay the same.
    Raises UserError when there is nothing to train on, or when the last of these trainings ends so too.
    """
    device, seed = choose_device(), seed + spec.seed
    train, validation = (Peaks.of(table.of(part), spec.labels, device) for part in (TRAIN, VALIDATION))
    for part, peaks in (("train", train), ("validation", validation)):
        if len(peaks) == 0:
            raise UserError(
                f"no {part} peaks with a {spec.labels} label; label/summary.json says why peaks are excluded"
            )
    if spec.shift > table.shift:
        raise UserError(f"{name}: shift {spec.shift} exceeds the margin of {table.shift} px kept around the patches")
    loop = replace(spec.loop, batch=min(spec.loop.batch, len(train)))
    batches = Batches(train, loop.batch, spec.shift, seed, spec.dihedral)
    rank, world = ranks()
    patches, offsets = (tensor.cpu().numpy() for tensor in validation.centred())

    def loss(module: nn.Module, iteration: int) -> Tensor:
        drawn, wanted = batches(iteration, rank, world)
        images = min_max(drawn)
        if spec.network.centroid:
            wanted = wanted - squared_centroid(images)
        images = images[:, None].contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=spec.precision == "bfloat16"):
            output = module(images)
        if spec.huber:
            return position_loss(upstream.to_offset(output.float(), table.size), wanted, spec.huber)
        return nn.functional.mse_loss(output.float(), upstream.from_offset(wanted, table.size))

    last = 1 if spec.initial or not spec.loop.max_iterations else trainings  # another training would end the same
    for training in range(1, last + 1):
        net = _initialized(spec, batches, table.size, seed, training, name).to(device)
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
        if training == 1:
            weights = sum(p.numel() for p in net.parameters())
            say(f"{name}: {weights} parameters, {len(train)} peaks, {len(validation)} held out")

        def evaluate(net: BraggNN = net) -> dict[str, float]:
            return validation_figures(distances(predict(net, patches, device), offsets))

        history = optimize(net, loss, evaluate, loop, checkpoint_of(directory, name, training), say)
        problem = agreed(_problem(predict(net, patches, device), offsets, name, directions))
        if not problem:
            break
        if training == last:
            raise UserError(problem + (f" ({last} trainings from other initial weights ended so)" if last > 1 else ""))
        say(f"  {problem}\n  begins again from other initial weights: training {training + 1} of at most {last}")
    if rank == 0:
        upstream.save_checkpoint(net, directory / f"{name}.pt")
        described = {"history": history, "spec": _describe(spec), "size": table.size, "training": training}
        if not spec.initial:  # what an initial checkpoint was trained on is not known
            described |= _trained_on(table.of(TRAIN), spec.labels)
        write_json(directory / f"{name}.json", described)
    return net


def checkpoint_of(directory: Path, name: str, training: int = 1) -> Path:
    """Where one training of a network keeps its state: each has a file of its own, so that a killed stage goes on."""
    return directory / (f"{name}.checkpoint" if training == 1 else f"{name}.{training}.checkpoint")


def _initialized(spec: TrainSpec, batches: Batches, size: int, seed: int, training: int, name: str) -> BraggNN:
    """The network as a training begins, on the CPU."""
    if (given := check_initial(spec, size, name)) is not None:
        return given
    torch.manual_seed(seed if training == 1 else int(np.random.SeedSequence((seed, training)).generate_state(1)[0]))
    net = BraggNN(spec.network, size)
    if spec.initialize == "linear":
        begin_linear(net, batches(0)[0].cpu())  # the whole batch, whatever this process's share of it
    return net


def _problem(predicted: NDArray[np.float64], offsets: NDArray[np.float64], name: str, directions: bool) -> str:
    """Why answers (n, 2) px are refused; empty when they are not."""
    try:
        check_learned(predicted, offsets, name)
        if directions:
            check_directions(predicted, offsets, name)
    except UserError as error:
        return str(error)
    return ""


def check_initial(spec: TrainSpec, size: int, name: str) -> BraggNN | None:
    """The checkpoint that ``initial`` names, a path that can be opened; None where there is none.

    Raises UserError when it is missing, is no checkpoint, or is of other layers or of other patches than ``size`` px.
    """
    if not spec.initial:
        return None
    path = Path(spec.initial)
    if not path.is_file():
        raise UserError(f"{name}: checkpoint {path} does not exist; correct initial, or leave it out")
    net = upstream.load_checkpoint(path, spec.network)
    if net.size != size:
        raise UserError(
            f"{name}: checkpoint {path.name} is for patches of {net.size} px, those of this run have {size}; set size "
            "in [peaks] or leave out initial"
        )
    return net


def check_learned(predicted: NDArray[np.float64], offsets: NDArray[np.float64], name: str) -> None:
    """Refuse answers (n, 2) px that are no better than the centre pixel: dead units, a diverged run."""
    got, trivial = float(np.mean(distances(predicted, offsets))), float(np.mean(np.linalg.norm(offsets, axis=1)))
    if not got < 0.9 * trivial:
        raise UserError(
            f"{name}: mean validation error {got:.3f} px is that of the constant predictor ({trivial:.3f} px): the "
            "network has not learned; train longer or lower the learning rate"
        )


def check_directions(predicted: NDArray[np.float64], offsets: NDArray[np.float64], name: str) -> None:
    """Refuse answers (n, 2) px that follow the labels along one direction only.

    A narrow head such as the published 16-8-4-2 can pass on a single number (see docs/explanation/ablation.md).
    """
    if (lost := unexplained(predicted, offsets)) > _LOST:
        raise UserError(
            f"{name}: along one direction {lost:.0%} of the labels' variance is left in the errors: the network "
            'answers a single number; train longer, set initialize = "linear", or wider layers in dense'
        )


def unexplained(predicted: NDArray[np.float64], offsets: NDArray[np.float64]) -> float:
    """The errors' share of the labels' variance (n, 2) along the direction where it is largest; 0 for few peaks."""
    if len(offsets) < _FEW:
        return 0.0
    errors, labels = np.cov((predicted - offsets).T), np.cov(offsets.T)
    return float(np.linalg.eigvals(np.linalg.solve(labels, errors)).real.max())


def _trained_on(train: PeakTable, labels: str) -> dict[str, Any]:
    """The ranges of the training peaks that have a label, for the description of a network."""
    ranges = ranges_of_peaks(train.where(train.has(labels)))
    return {} if ranges is None else {TRAINING_PEAKS: asdict(ranges)}


def _describe(spec: TrainSpec) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec.network).items()}


def load_network(directory: Path, name: str) -> BraggNN:
    """A network that :func:`train_network` wrote, with its activation slope."""
    try:
        described = json.loads((directory / f"{name}.json").read_text())["spec"]
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in described.items()
        }
        spec = NetworkSpec(**fields)  # what an older file does not name has its default
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name}.json of the train stage cannot be read ({error}); run `braggnn-edge train`") from error
    return upstream.load_checkpoint(directory / f"{name}.pt", spec)


def run(table: PeakTable, name: str, spec: TrainSpec, seed: int, directory: Path, say: Callable[[str], None]) -> None:
    """The stage: train one network; write ``<name>.pt``, ``<name>.json`` and ``curves.png``.

    Under torchrun the other processes follow through :func:`assist`.
    """
    with together(name, choose_device()):
        train_network(spec, table, seed, directory, name, say)
    history = json.loads((directory / f"{name}.json").read_text())["history"]
    figures.learning_curves({name: history}, directory / "curves.png")
    for training in range(1, TRAININGS + 1):
        checkpoint_of(directory, name, training).unlink(missing_ok=True)


def assist(context: Context, name: str) -> None:
    """In torchrun's processes beyond the first: compute gradients of the float network that it trains now."""
    stage = {"full": "train", "compact": "compact"}[name]
    table = load_table(context.run / "label" / "peaks.h5")
    spec, directory = spec_of(context, name), context.run / f"{stage}.partial"
    train_network(spec, table, context.cfg.seed, directory, name, lambda _: None)


def spec_of(context: Context, name: str) -> TrainSpec:
    """The table of a float network, its initial checkpoint a path that can be opened."""
    spec: TrainSpec = context.cfg[name]
    return replace(spec, initial=str(resolve_path(spec.initial, context.cfg.folder))) if spec.initial else spec


def check(context: Context, name: str) -> None:
    """Refuse an initial checkpoint that does not fit, before hours are spent on labels."""
    check_initial(spec_of(context, name), context.cfg["peaks"].size, name)


def _work(context: Context, directory: Path, name: str) -> None:
    table = load_table(context.run / "label" / "peaks.h5")
    run(table, name, spec_of(context, name), context.cfg.seed, directory, context.say)
    if name == "full" and "compact" not in float_networks(context.cfg):
        why = (
            f"the firmware's network is {context.cfg['qat'].network!r}"
            if context.cfg.given & {"compact", "qat"}
            else "the configuration has no [compact] table"
        )
        context.say(f"  the compact network is not trained here: {why}")


def _files(context: Context, name: str) -> tuple[Path, ...]:
    spec = spec_of(context, name)
    return (Path(spec.initial),) if spec.initial else ()


#: What the declarations of the two stages name.
work_full, work_compact = (partial(_work, name=name) for name in ("full", "compact"))
files_full, files_compact = (partial(_files, name=name) for name in ("full", "compact"))

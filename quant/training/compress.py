"""A small network of mixed precision: trained in float, then rounded, pruned and held to a LUT budget."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation import figures
from braggnn_edge.evaluation.metrics import distances, validation_figures
from braggnn_edge.peaks.splits import TRAIN, VALIDATION
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.training import train
from braggnn_edge.training.dataset import Batches, Peaks
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.optimize import optimize, position_loss
from braggnn_edge.training.tensors import save_tensors
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.locator import IntegerLocator
from quant.contract.lut_model import LUTS_PER_EBOP, predicted_luts
from quant.contract.vectors import corner_case_codes
from quant.exchange.circuit_qonnx import export_network
from quant.training.circuit_spec import CircuitSpec
from quant.training.mixed_precision import MixedPrecisionNetwork, prune
from quant.training.mixed_precision_integers import exact_outputs, integers

#: Iterations between two steps of the pruning schedule.
_PRUNE_EVERY = 50


#: Share of the rounded training after which widths and zeros stay as they are; only then does a network count.
_FROZEN = 0.6


class Task:
    """Batches of a table as a circuit's network sees them: input values, and what is left to correct."""

    def __init__(self, spec: CircuitSpec, table: PeakTable, seed: int, teacher: BraggNN | None) -> None:
        self.normalizer, self.base, self.output = spec.front_end.made()
        self.window, self.size = spec.front_end.window, table.size
        spec.check_patch_size(table.size)
        if spec.shift > table.shift:
            raise UserError(f"circuit: shift {spec.shift} exceeds the margin of {table.shift} px kept around patches")
        data, held_out = (Peaks.of(table.of(part), "best") for part in (TRAIN, VALIDATION))
        for part, peaks in (("train", data), ("validation", held_out)):
            if len(peaks) == 0:
                raise UserError(f"no {part} peaks with a label; lower the thresholds or change the split")
        self.batches, self.rounded_batches = (
            Batches(data, min(loop.batch, len(data)), spec.shift, seed, spec.dihedral)
            for loop in (spec.float_loop, spec.loop)
        )
        self.float_iterations = spec.float_loop.max_iterations
        self.teacher, self.share = teacher, spec.teacher if teacher is not None else 0.0
        self.input = Format(self.normalizer.bits, self.normalizer.bits, signed=False)
        patches, offsets = held_out.centred()
        self.held_codes, self.held_offsets = self.codes(patches), offsets.numpy().astype(np.float64)
        self.sample = self.values(self.codes(data.centred(stop=4096)[0]))

    def codes(self, patches: Tensor) -> NDArray[np.int64]:
        """Patches (n, size, size) in counts to input codes (n, window, window)."""
        edge = (self.size - self.window) // 2
        inner = slice(edge, self.size - edge)
        return self.normalizer.codes(patches[:, inner, inner].numpy())

    def values(self, codes: NDArray[np.int64]) -> Tensor:
        """Codes to the network's input values (n, 1, window, window)."""
        return torch.from_numpy(self.input.values(codes).astype(np.float32))[:, None]

    def base_of(self, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """The centroid's answers (n, 2) in px, 0 without one."""
        return np.zeros((len(codes), 2)) if self.base is None else self.output.values(self.base.codes(codes))

    def batch(self, iteration: int, rounded: bool) -> tuple[Tensor, Tensor]:
        """Input values of a batch of the float or the rounded loop, and the correction (n, 2) px that would be right.

        The rounded loop goes on where the float one ended, so that it does not see the same batches again.
        """
        patches, target = (
            self.rounded_batches(iteration + self.float_iterations) if rounded else self.batches(iteration)
        )
        if self.teacher is not None:
            with torch.no_grad():
                target = torch.lerp(target, train.located(self.teacher, patches), self.share)
        codes = self.codes(patches)
        return self.values(codes), target - torch.from_numpy(self.base_of(codes).astype(np.float32))

    def circuit(self, net: MixedPrecisionNetwork) -> IntegerLocator:
        """The circuit of a trained network."""
        return IntegerLocator(self.size, self.window, self.normalizer, integers(net), self.base, self.output)


def fit(
    spec: CircuitSpec,
    table: PeakTable,
    teacher: BraggNN | None,
    seed: int,
    directory: Path,
    say: Callable[[str], None],
) -> tuple[IntegerLocator, MixedPrecisionNetwork, dict[str, list[dict[str, float]]]]:
    """Train a circuit; checkpoints in ``directory``. Returns it, its trainable form, and the two learning curves.

    Raises UserError where there is nothing to train on.
    """
    seed += spec.seed
    task = Task(spec, table, seed, teacher)
    torch.manual_seed(seed)
    net = MixedPrecisionNetwork(spec.network, spec.front_end.window, task.input, task.output)
    held, base = task.values(task.held_codes), task.base_of(task.held_codes)

    def evaluate() -> dict[str, float]:
        with torch.inference_mode():
            answers = np.concatenate([net(part).double().numpy() for part in held.split(4096)])
            spent = {"luts": float(luts(net.priced(held[:1])[1]))} if net.quantized else {}
        return validation_figures(distances(answers + base, task.held_offsets)) | spent

    def loss(module: nn.Module, iteration: int) -> Tensor:
        values, target = task.batch(iteration, rounded=False)
        return position_loss(module(values), target, spec.huber)

    def penalized(_: nn.Module, iteration: int) -> Tensor:
        net.learn_widths(iteration < frozen)
        values, target = task.batch(iteration, rounded=True)
        answers, costs = net.priced(values)
        found = position_loss(answers, target, spec.huber)
        if not spec.lut_budget:
            return found
        spent = luts(costs)
        bound = spec.lut_budget * (full / spec.lut_budget) ** (1 - spec.risen(iteration))
        return found + spec.lut_penalty * torch.relu(torch.log2(spent / bound))

    def step(iteration: int) -> None:
        if iteration >= frozen:
            return
        if iteration == frozen - 1:
            net.mask_zeros()
        for layer in net.stack:
            layer.hold()
        if (spec.sparsity or spec.channel_sparsity) and iteration % _PRUNE_EVERY == 0:
            risen = spec.risen(iteration + _PRUNE_EVERY)
            prune(net, spec.sparsity * risen, spec.channel_sparsity * risen)

    frozen = int(_FROZEN * spec.loop.max_iterations)
    say(f"circuit: {sum(layer.weight.numel() for layer in net.stack)} weights")
    histories = {"float": optimize(net, loss, evaluate, spec.float_loop, directory / "float.checkpoint", say)}
    net.initialize(task.sample)
    before = evaluate()
    full = max(before["luts"], float(spec.lut_budget))
    say("  rounded: " + "  ".join(f"{k} {v:.4f}" for k, v in before.items()))
    histories["circuit"] = optimize(
        net, penalized, evaluate, spec.loop, directory / "circuit.checkpoint", say, step, frozen
    )
    return task.circuit(net), net, histories


def luts(costs: list[Tensor]) -> Tensor:
    """Look-up tables of a network by the model, from the effective bit operations of its layers."""
    return LUTS_PER_EBOP * torch.stack(costs).sum()


def run(
    table: PeakTable,
    spec: CircuitSpec,
    teacher: BraggNN | None,
    seed: int,
    directory: Path,
    say: Callable[[str], None],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """The stage for a circuit: write ``locator.json``, ``model.onnx``, ``mixed_precision.pt`` and the learning curves.

    Raises UserError when the result is no better than the constant predictor or than the centroid alone, and when the
    integer circuit differs from the trained network on any held-out, corner-case or random patch.
    """
    made, net, histories = fit(spec, table, teacher, seed, directory, say)
    task = Task(spec, table, seed, None)
    codes = np.concatenate([task.held_codes, corner_case_codes(made.window, made.network.input)])
    answers = made.output.values(made.run(task.held_codes))
    for check in (train.check_learned, train.check_directions):
        check(answers, task.held_offsets, "circuit")
    wrong = int((exact_outputs(net, codes) != emulate.run(made.network, codes).outputs).any(axis=1).sum())
    if wrong:
        raise UserError(f"circuit: the integer network differs from the trained one on {wrong} of {len(codes)} patches")
    validation = validation_figures(distances(answers, task.held_offsets))
    alone = validation_figures(distances(task.base_of(task.held_codes), task.held_offsets))
    say("  centroid alone " + "  ".join(f"{k} {v:.4f}" for k, v in alone.items()))
    say("  circuit        " + "  ".join(f"{k} {v:.4f}" for k, v in validation.items()))
    if spec.front_end.normalizer == "block_shift" and not spec.front_end.subtract:  # what the model was fitted to
        say(f"  about {predicted_luts(made):,.0f} look-up tables in all, by the model")
    if made.centroid is not None and not validation["score"] < alone["score"]:
        raise UserError(
            f"circuit: its mean error of {validation['score']:.4f} px is not below the centroid's {alone['score']:.4f} "
            "px: the network has not learned; raise lut_budget, or lower the learning rate"
        )
    export_network(made.network, directory / "model.onnx")
    locators.save(dataclasses.replace(made, provenance=provenance or {}), directory / "locator.json")
    with written_aside(directory / "mixed_precision.pt") as aside:
        save_tensors(net.state_dict(), aside)
    figures.learning_curves(histories, directory / "curves.png")
    described = {"history": histories["circuit"], "float": histories["float"], "centroid": alone, "circuit": validation}
    write_json(directory / "circuit_training.json", described)
    for name in ("float", "circuit"):
        (directory / f"{name}.checkpoint").unlink(missing_ok=True)


def load_mixed_precision(directory: Path, spec: CircuitSpec) -> MixedPrecisionNetwork:
    """The trainable network that :func:`run` wrote, rounding on."""
    normalizer, _, output = spec.front_end.made()
    input = Format(normalizer.bits, normalizer.bits, signed=False)
    net = MixedPrecisionNetwork(spec.network, spec.front_end.window, input, output)
    try:
        net.load_state_dict(torch.load(directory / "mixed_precision.pt", map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"mixed_precision.pt of the qat stage cannot be read ({error}); run `braggnn-edge qat`"
        ) from error
    net.quantized = True
    return net.eval()

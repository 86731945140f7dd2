"""A small network of mixed precision: trained in float, then rounded, pruned and held to a LUT budget."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation import figures
from braggnn_edge.evaluation.metrics import distances, validation_figures
from braggnn_edge.training import train
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.optimize import optimize
from braggnn_edge.training.tensors import save_tensors
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.locator import IntegerLocator
from quant.contract.lut_model import LUTS_PER_EBOP, predicted_luts
from quant.exchange.circuit_qonnx import export_network
from quant.training.circuit_spec import CircuitSpec
from quant.training.examples import Examples
from quant.training.mixed_precision import MixedPrecisionNetwork, prune
from quant.training.mixed_precision_integers import exact_outputs, integers
from quant.training.task import Task, calibrated_locator, require_same_codes

#: Iterations between two steps of the pruning schedule.
_PRUNE_EVERY = 50


#: Share of the rounded training after which widths and zeros stay as they are; only then does a network count.
_FROZEN = 0.6


def task_of(spec: CircuitSpec, examples: Examples, seed: int, teacher: BraggNN | None = None) -> Task:
    """What a circuit is trained for; ``teacher``: the full float network, where it learns from it."""
    spec.check_patch_size(examples.size)
    return Task(
        spec.front_end, examples, spec.float_loop.batch, seed, shift=spec.shift, dihedral=spec.dihedral,
        sigma=spec.sigma, huber=spec.huber, beta=spec.beta, share=spec.teacher,
        teacher=None if teacher is None else lambda patches: train.located(teacher, patches),
    )  # fmt: skip


def fit(
    spec: CircuitSpec,
    examples: Examples,
    teacher: BraggNN | None,
    seed: int,
    directory: Path,
    say: Callable[[str], None],
) -> tuple[IntegerLocator, MixedPrecisionNetwork, dict[str, list[dict[str, float]]]]:
    """Train a circuit; checkpoints in ``directory``. Returns it, its trainable form, and the two learning curves."""
    seed += spec.seed
    task = task_of(spec, examples, seed, teacher)
    rounded = task.of(spec.loop.batch)
    torch.manual_seed(seed)
    net = network_of(spec)
    held = task.held_values

    def evaluate() -> dict[str, float]:
        with torch.inference_mode():
            answers = np.concatenate([net(part).double().numpy() for part in held.split(4096)])
            spent = {"luts": float(luts(net.priced(held[:1])[1]))} if net.quantized else {}
        return task.figures(answers) | spent

    def loss(module: nn.Module, iteration: int) -> Tensor:
        values, corrections = task.batch(iteration)
        return task.loss(module(values), corrections)

    def penalized(_: nn.Module, iteration: int) -> Tensor:
        net.learn_widths(iteration < frozen)
        # It goes on where the float loop ended, so that it does not see the same batches again.
        values, corrections = task.batch(iteration + spec.float_loop.max_iterations, rounded)
        answers, costs = net.priced(values)
        found = task.loss(answers, corrections)
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
    net.initialize(task.sample(4096))
    before = evaluate()
    full = max(before["luts"], float(spec.lut_budget))
    say("  rounded: " + "  ".join(f"{k} {v:.4f}" for k, v in before.items()))
    histories["circuit"] = optimize(
        net, penalized, evaluate, spec.loop, directory / "circuit.checkpoint", say, step, frozen
    )
    return calibrated_locator(task, integers(net)), net, histories


def network_of(spec: CircuitSpec) -> MixedPrecisionNetwork:
    """The trainable network that a spec describes."""
    normalizer, _, output = spec.front_end.made()
    exponent = normalizer.count_bits if spec.front_end.exponent else 0
    input = Format(normalizer.bits, normalizer.bits, signed=False)
    return MixedPrecisionNetwork(
        spec.network, spec.front_end.window, input, output, exponent=exponent, outputs=4 if spec.sigma else 2
    )


def luts(costs: list[Tensor]) -> Tensor:
    """Look-up tables of a network by the model, from the effective bit operations of its layers."""
    return LUTS_PER_EBOP * torch.stack(costs).sum()


def run(
    examples: Examples,
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
    made, net, histories = fit(spec, examples, teacher, seed, directory, say)
    task = task_of(spec, examples, seed)
    answers = made.positions(made.run(task.held_inputs))
    for check in (train.check_learned, train.check_directions):
        check(answers, task.held_offsets, "circuit")
    require_same_codes(made, task.held_inputs, lambda codes: exact_outputs(net, codes))
    validation = validation_figures(distances(answers, task.held_offsets))
    alone = validation_figures(distances(task.held_base, task.held_offsets))
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
    net = network_of(spec)
    try:
        net.load_state_dict(torch.load(directory / "mixed_precision.pt", map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"mixed_precision.pt of the qat stage cannot be read ({error}); run `braggnn-edge qat`"
        ) from error
    net.quantized = True
    return net.eval()

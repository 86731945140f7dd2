"""Stage "qat" for the universal network: dense layers in integers, which correct the centroid and know their error."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation import figures
from braggnn_edge.training.optimize import optimize
from braggnn_edge.training.tensors import save_tensors
from braggnn_edge.training.train import check_learned
from braggnn_edge.universal.network import UniversalNetwork
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.locator import IntegerLocator
from quant.exchange.circuit_qonnx import export_network
from quant.training.examples import Examples
from quant.training.qdense import DensePlan, QuantDense, exact_outputs, integers
from quant.training.task import SIGMA_OVER_B, Task, calibrated_locator, require_same_codes
from quant.training.universal_spec import UniversalLayersSpec

#: Training patches that set the scales.
_SAMPLE = 4096


def plan_of(spec: UniversalLayersSpec, dense: tuple[int, ...]) -> DensePlan:
    """The quantized form of a universal network whose hidden layers have the widths ``dense``."""
    normalizer, _, output = spec.front_end.made()
    input = Format(normalizer.bits, normalizer.bits, signed=False)
    window, bits = spec.front_end.window, (spec.weight_bits, spec.activation_bits)
    return DensePlan(window, normalizer.count_bits, dense, 4, *bits, input, output)


@torch.no_grad()
def rewritten(network: UniversalNetwork, exponents: int) -> list[nn.Linear]:
    """The layers of a universal network for inputs as integers have them, and with ln sigma for ln b.

    Each of the exponent's codes is worth one half, and the universal network is given ``(exponent - 8) / 4``.
    """
    layers = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    first, last = layers[0], layers[-1]
    pixels, exponent = first.weight[:, :-1], first.weight[:, -1:]
    begins = nn.Linear(pixels.shape[1] + exponents, len(pixels))
    begins.weight.copy_(torch.cat([pixels, (exponent / 2).expand(-1, exponents)], 1))
    begins.bias.copy_(first.bias - 2 * exponent[:, 0])
    ends = copy.deepcopy(last)
    ends.bias[2:] += math.log(SIGMA_OVER_B)
    return [begins, *layers[1:-1], ends]


def fit(
    spec: UniversalLayersSpec,
    network: UniversalNetwork,
    examples: Examples,
    seed: int,
    directory: Path,
    say: Callable[[str], None],
) -> tuple[IntegerLocator, QuantDense, list[dict[str, float]]]:
    """Quantize, then train; a checkpoint in ``directory``. Returns the locator, its trainable form, and its curve."""
    if not spec.front_end.window == network.size == examples.size:
        raise UserError(
            f"universal_layers: front_end.window {spec.front_end.window} px, a universal network of {network.size} px "
            f"and patches of {examples.size} px; expected the same of all three"
        )
    task = Task(spec.front_end, examples, spec.loop.batch, seed, sigma=True, beta=spec.beta, share=spec.teacher)
    torch.manual_seed(seed)
    net = QuantDense(plan_of(spec, network.dense))
    net.initialize(rewritten(network, net.plan.exponent), task.sample(_SAMPLE))
    net.eval()
    say(f"universal layers: {sum(parameter.numel() for parameter in net.parameters())} parameters")

    def evaluate() -> dict[str, float]:
        with torch.inference_mode():
            found = [net(part).double().numpy() for part in task.held_values.split(4096)]
        return task.figures(np.concatenate(found))

    def loss(module: nn.Module, iteration: int) -> Tensor:
        values, corrections = task.batch(iteration)
        return task.loss(module(values), corrections)

    say("  quantized, before training: " + "  ".join(f"{key} {value:.4f}" for key, value in evaluate().items()))
    history = optimize(net, loss, evaluate, spec.loop, directory / "quantized.checkpoint", say)
    return calibrated_locator(task, integers(net)), net, history


def run(
    spec: UniversalLayersSpec,
    network: UniversalNetwork,
    examples: Examples,
    seed: int,
    directory: Path,
    say: Callable[[str], None],
    provenance: Mapping[str, Any],
) -> None:
    """The stage: write ``locator.json``, ``model.onnx``, ``quantized.pt``, ``qat.json`` and ``curves.png``.

    Raises UserError when the network has not learned, and when its integers differ from the trained network on any
    held-out, corner-case or random patch.
    """
    made, net, history = fit(spec, network, examples, seed, directory, say)
    task = Task(spec.front_end, examples, spec.loop.batch, seed, sigma=True)
    positions = made.positions(made.run(task.held_inputs))
    check_learned(positions, task.held_offsets, "universal layers")
    require_same_codes(made, task.held_inputs, lambda codes: exact_outputs(net, codes))
    errors = task.figures(positions - task.held_base)
    say("  integers, held out: " + "  ".join(f"{key} {value:.4f}" for key, value in errors.items()))
    export_network(made.network, directory / "model.onnx")
    made = replace(made, provenance={**provenance, "validation_px": errors})
    locators.save(made, directory / "locator.json")
    with written_aside(directory / "quantized.pt") as aside:
        save_tensors(net.state_dict(), aside)
    figures.learning_curves({"quantized": history}, directory / "curves.png")
    write_json(directory / "qat.json", {"history": history, "validation": errors})
    (directory / "quantized.checkpoint").unlink(missing_ok=True)


def load_quantized(directory: Path, spec: UniversalLayersSpec, dense: tuple[int, ...]) -> QuantDense:
    """The network that :func:`run` wrote, whose hidden layers have the widths ``dense``."""
    net = QuantDense(plan_of(spec, dense))
    try:
        net.load_state_dict(torch.load(directory / "quantized.pt", map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise UserError(f"quantized.pt of the qat stage cannot be read ({error}); run `braggnn-edge qat`") from error
    return net.eval()

"""Stage "qat": quantization-aware training of the firmware's network, and its export to QONNX and integers."""

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
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes
from quant.contract.centroid import Centroid
from quant.contract.locator import IntegerLocator
from quant.contract.normalize import Normalizer
from quant.training.export import export_qonnx
from quant.training.initialize import initialize
from quant.training.plan import BitPlan
from quant.training.qnet import QuantBraggNN, prune, sparsity, train_scales
from quant.training.spec import QatSpec

#: Iterations between two steps of the pruning schedule.
_PRUNE_EVERY = 50


def run(
    table: PeakTable,
    spec: QatSpec,
    plan: BitPlan,
    float_net: BraggNN,
    full: BraggNN | None,
    seed: int,
    directory: Path,
    say: Callable[[str], None],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """The stage for layers: write ``quantized.pt``, ``model.onnx``, ``locator.json``, ``qat.json`` and ``curves.png``.

    float_net: the trained network that goes to the firmware; full: the teacher, needed when ``spec.teacher`` is not 0.
    Raises UserError for a float network that cannot be quantized, and when the result is no better than the constant.
    """
    teacher = full if spec.teacher else None
    normalizer = Normalizer(bits=plan.input_bits)
    data, held_out = Peaks.of(table.of(TRAIN), "best"), Peaks.of(table.of(VALIDATION), "best")
    batches = Batches(data, min(spec.loop.batch, len(data)), spec.shift, seed, spec.dihedral)
    torch.manual_seed(seed)
    qnet = QuantBraggNN(float_net.spec, float_net.size, plan)
    sample = values_of(normalizer.codes(table.of(TRAIN).patches()[: spec.calibration]), plan)
    initialize(qnet, float_net, sample, say)
    train_scales(qnet, spec.learn_scales)

    patches, offsets = (tensor.numpy() for tensor in held_out.centred())
    base = plan.centroid(float_net.spec, float_net.size)
    held_out_codes = normalizer.codes(patches)
    held_out_values, held_out_base = values_of(held_out_codes, plan), base_of(held_out_codes, base)

    def loss(module: nn.Module, iteration: int) -> Tensor:
        counts, target = batches(iteration)
        if teacher is not None:
            with torch.no_grad():
                target = torch.lerp(target, train.located(teacher, counts), spec.teacher)
        codes = normalizer.codes(counts.numpy())
        target = target - torch.from_numpy(base_of(codes, base).astype(np.float32))
        return position_loss(module(values_of(codes, plan)), target, spec.huber)

    def predicted() -> NDArray[np.float64]:
        with torch.inference_mode():
            answers = [qnet(block).double().numpy() for block in held_out_values.split(4096)]
        return np.concatenate(answers) + held_out_base

    def evaluate() -> dict[str, float]:
        return validation_figures(distances(predicted(), offsets))

    def prune_step(iteration: int) -> None:
        if spec.sparsity and iteration % _PRUNE_EVERY == 0:
            prune(qnet, spec.pruned(iteration + _PRUNE_EVERY))

    before = evaluate()
    say("  quantized, before training: " + "  ".join(f"{k} {v:.4f}" for k, v in before.items()))
    settled = spec.loop.max_iterations // 2 if spec.sparsity else 0
    checkpoint = directory / "qat.checkpoint"
    history = optimize(qnet, loss, evaluate, spec.loop, checkpoint, say, prune_step, settled)
    for check in (train.check_learned, train.check_directions):
        check(predicted(), offsets, "quantized network")
    integer = export_qonnx(qnet, directory / "model.onnx")
    made = IntegerLocator(
        integer.size, integer.size, normalizer, integer, base, integer.output, provenance=provenance or {}
    )
    locators.save(made, directory / "locator.json")
    with written_aside(directory / "quantized.pt") as aside:
        save_tensors(qnet.state_dict(), aside)
    figures.learning_curves({"quantized": history}, directory / "curves.png")
    write_json(directory / "qat.json", {"history": history, "before": before, "sparsity": list(sparsity(qnet))})
    checkpoint.unlink(missing_ok=True)


def values_of(codes: Codes, plan: BitPlan) -> Tensor:
    """Input codes (n, size, size) to the network's input values (n, 1, size, size)."""
    return torch.from_numpy(plan.input.values(codes).astype(np.float32))[:, None]


def base_of(codes: Codes, base: Centroid | None) -> NDArray[np.float64]:
    """What a network corrects, (n, 2) px, for input codes (n, size, size): the centroid, or 0 without one."""
    return np.zeros((len(codes), 2)) if base is None else np.ldexp(base.codes(codes), -base.frac)


def load_quantized(directory: Path, float_net: BraggNN, plan: BitPlan) -> QuantBraggNN:
    """The network that :func:`run` wrote; ``float_net`` gives its description."""
    qnet = QuantBraggNN(float_net.spec, float_net.size, plan)
    try:
        qnet.load_state_dict(torch.load(directory / "quantized.pt", map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise UserError(f"quantized.pt of the qat stage cannot be read ({error}); run `braggnn-edge qat`") from error
    return qnet.eval()

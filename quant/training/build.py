"""The work of stage "qat": a locator in integers, of layers or of a circuit, as the configuration asks for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from braggnn_edge import __version__
from braggnn_edge.core.stages import Context
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.training import train
from braggnn_edge.training.model import BraggNN
from quant.contract.arithmetic import Codes
from quant.training import compress, qat
from quant.training.mixed_precision_integers import exact_outputs
from quant.training.qnet import eval_exact
from quant.training.spec import FLOAT_NETWORKS


def work(context: Context, directory: Path) -> None:
    """The stage: write ``locator.json``, ``model.onnx``, the trained network and its learning curves."""
    cfg, table = context.cfg, load_table(context.run / "label" / "peaks.h5")
    origin = provenance(context, table)
    if cfg["qat"].is_circuit:
        compress.run(table, cfg["circuit"], teacher(context), cfg.seed, directory, context.say, origin)
        return
    full = train.load_network(context.run / "train", "full") if cfg["qat"].teacher else None
    qat.run(table, cfg["qat"], cfg["quant"], float_network(context), full, cfg.seed, directory, context.say, origin)


def provenance(context: Context, table: PeakTable) -> dict[str, Any]:
    """What a locator file says of its origin: who made it, of which scans and patches, from which seed."""
    return {
        "made_by": f"braggnn-edge {__version__}",
        "kind": "circuit" if context.cfg["qat"].is_circuit else "layers",
        "scans": [scan.name for scan in context.cfg["scan"]],
        "patches": {"size": table.size, "centred_on": "brightest pixel"},
        "seed": context.cfg.seed,
    }


def float_network(context: Context) -> BraggNN:
    """The float network whose quantized form goes to the firmware; layers only."""
    stage, name = FLOAT_NETWORKS[context.cfg["qat"].network]
    return train.load_network(context.run / stage, name)


def teacher(context: Context) -> BraggNN | None:
    """The full float network, where a circuit learns from it."""
    return train.load_network(context.run / "train", "full") if context.cfg["circuit"].teacher else None


def trained_outputs(context: Context) -> Callable[[Codes], Codes]:
    """The trained network of the stage, in float64: input codes (n, window, window) to its output codes (n, 2)."""
    directory, cfg = context.run / "qat", context.cfg
    if cfg["qat"].is_circuit:
        net = compress.load_mixed_precision(directory, cfg["circuit"])
        return lambda codes: exact_outputs(net, codes)
    quantized = qat.load_quantized(directory, float_network(context), cfg["quant"])
    return lambda codes: eval_exact(quantized, codes)

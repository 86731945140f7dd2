"""The work of stage "qat": a locator in integers, trained as the configuration asks for, or the one that ships."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from braggnn_edge.core.checkout import maker
from braggnn_edge.core.stages import Context
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.training import train
from braggnn_edge.training.model import BraggNN
from braggnn_edge.universal.locator import SHIPPED as UNIVERSAL
from braggnn_edge.universal.network import load as load_universal
from braggnn_edge.universal.train import Drawn
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes
from quant.exchange.circuit_qonnx import export_network
from quant.shipped import path_of
from quant.training import compress, qat, qdense, universal
from quant.training.circuit_spec import CircuitSpec
from quant.training.examples import Examples
from quant.training.mixed_precision_integers import exact_outputs
from quant.training.qnet import eval_exact
from quant.training.spec import FLOAT_NETWORKS
from quant.training.universal_spec import UniversalLayersSpec


def work(context: Context, directory: Path) -> None:
    """The stage: write ``locator.json``, ``model.onnx``, and what was trained with its learning curves."""
    cfg, spec = context.cfg, context.cfg["qat"]
    if spec.is_shipped:
        made = locators.load(path_of(spec.network))
        locators.save(made, directory / "locator.json")
        export_network(made.network, directory / "model.onnx")
        context.say(f"  what ships: {made.provenance.get('made_by')}, digest {made.digest[:12]}")
    elif spec.network == "universal":
        layers = cfg["universal_layers"]
        taught_by = context.run / "universal" / "universal.npz"
        examples, origin = family_examples(context, layers, taught_by), family_provenance(context, layers)
        seed = cfg.seed + layers.seed
        universal.run(layers, load_universal(taught_by)[0], examples, seed, directory, context.say, origin)
    elif spec.network == "circuit":
        circuit = cfg["circuit"]
        if circuit.source == "family":
            examples, origin = family_examples(context, circuit, UNIVERSAL), family_provenance(context, circuit)
        else:
            table = load_table(context.run / "label" / "peaks.h5")
            examples, origin = Examples.of_table(table), provenance(context, table)
        compress.run(examples, circuit, teacher(context), cfg.seed, directory, context.say, origin)
    else:
        table = load_table(context.run / "label" / "peaks.h5")
        full = train.load_network(context.run / "train", "full") if spec.teacher else None
        origin = provenance(context, table)
        qat.run(table, spec, cfg["quant"], float_network(context), full, cfg.seed, directory, context.say, origin)


def family_examples(context: Context, spec: UniversalLayersSpec | CircuitSpec, taught_by: Path) -> Examples:
    """Patches of the family, with the answers of the universal network of a file where it teaches."""
    network = load_universal(taught_by)[0] if spec.teacher else None
    return Examples.of_family(
        context.cfg["family"], context.cfg.seed + spec.seed, spec.patches, spec.validation, context.workers, network,
        Drawn(context.say),
    )  # fmt: skip


def _origin(context: Context, size: int) -> dict[str, Any]:
    return maker() | {
        "kind": "circuit" if context.cfg["qat"].is_circuit else "layers",
        "patches": {"size": size, "centred_on": "brightest pixel"},
        "seed": context.cfg.seed,
    }


def provenance(context: Context, table: PeakTable) -> dict[str, Any]:
    """What a locator file says of its origin: who made it, of which scans and patches, from which seed."""
    return _origin(context, table.size) | {"scans": [scan.name for scan in context.cfg["scan"]]}


def family_provenance(context: Context, spec: UniversalLayersSpec | CircuitSpec) -> dict[str, Any]:
    """The same for a network that was trained on the family, with the family's ranges."""
    drawn = context.cfg["family"]
    return _origin(context, drawn.size) | {"family": asdict(drawn), "training": asdict(spec)}


def float_network(context: Context) -> BraggNN:
    """The float network whose quantized form goes to the firmware; of the scan's own layers only."""
    stage, name = FLOAT_NETWORKS[context.cfg["qat"].network]
    return train.load_network(context.run / stage, name)


def teacher(context: Context) -> BraggNN | None:
    """The full float network, where a circuit learns from it."""
    spec = context.cfg["circuit"]
    return train.load_network(context.run / "train", "full") if spec.teacher and spec.source == "labels" else None


def trained_outputs(context: Context) -> Callable[[Codes], Codes] | None:
    """The trained network of the stage, in float64: input codes (n, ...) to its output codes (n, 2 or 4).

    None where nothing was trained: what ships was compared with its trained network when it was made.
    """
    directory, cfg = context.run / "qat", context.cfg
    spec = cfg["qat"]
    if spec.is_shipped:
        return None
    if spec.network == "circuit":
        mixed = compress.load_mixed_precision(directory, cfg["circuit"])
        return lambda codes: exact_outputs(mixed, codes)
    if spec.network == "universal":
        dense = universal.load_quantized(directory, cfg["universal_layers"], cfg["universal"].dense)
        return lambda codes: qdense.exact_outputs(dense, codes)
    quantized = qat.load_quantized(directory, float_network(context), cfg["quant"])
    return lambda codes: eval_exact(quantized, codes)


def files(context: Context) -> tuple[Path, ...]:
    """What the stage reads outside the run directory."""
    spec, circuit = context.cfg["qat"], context.cfg["circuit"]
    if spec.is_shipped:
        return (path_of(spec.network),)
    taught = spec.network == "circuit" and circuit.source == "family" and circuit.teacher
    return (UNIVERSAL,) if taught else ()

"""Float checkpoints as locators: those of a run, and the upstream project's."""

import json
from pathlib import Path

from braggnn_edge.evaluation.provenance import ranges_of
from braggnn_edge.locate.float_forms import float_locator
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.stage import AUTO
from braggnn_edge.training.train import load_network
from braggnn_edge.training.upstream import load_checkpoint


def checkpoint_locator(path: Path, backend: str = AUTO, threads: int = 0) -> Locator:
    """``full.pt`` or ``compact.pt`` of a run, or an upstream checkpoint, in float32 on the CPU.

    backend, threads: see :func:`braggnn_edge.locate.float_forms.float_locator`.
    """
    if not path.with_suffix(".json").exists():
        return float_locator(load_checkpoint(path), backend, threads=threads)
    locator = float_locator(load_network(path.parent, path.stem), backend, threads=threads)
    described = path.with_suffix(".json")
    locator.trained_on = ranges_of(json.loads(described.read_text()), described)
    return locator

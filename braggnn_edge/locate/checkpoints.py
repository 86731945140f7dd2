"""Float checkpoints as locators: those of a run, and the upstream project's."""

import json
from pathlib import Path

from braggnn_edge.evaluation.provenance import ranges_of
from braggnn_edge.locate.locator import Locator, float_locator
from braggnn_edge.training.train import load_network
from braggnn_edge.training.upstream import load_checkpoint


def checkpoint_locator(path: Path) -> Locator:
    """``full.pt`` or ``compact.pt`` of a run, or an upstream checkpoint, in float32 on the CPU."""
    if not path.with_suffix(".json").exists():
        return float_locator(load_checkpoint(path))
    locator = float_locator(load_network(path.parent, path.stem))
    described = path.with_suffix(".json")
    locator.trained_on = ranges_of(json.loads(described.read_text()), described)
    return locator

"""One way to open any network, by its file: float checkpoints, integers of a run, universal networks."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import resolve
from braggnn_edge.evaluation.provenance import ranges_of
from braggnn_edge.locate.locator import Locator, float_locator
from braggnn_edge.locate.stage import SHIPPED
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.training.train import load_network
from braggnn_edge.training.upstream import load_checkpoint

#: What opens a file, by its suffix: dotted names, since some of it lies in packages above this one.
OPENERS = {
    ".npz": "braggnn_edge.universal.locator:universal_locator",
    ".json": "quant.exchange.locators:load_integer_locator",
    ".pt": "braggnn_edge.locate.networks:checkpoint_locator",
}


def open_network(name: str | Path) -> Locator:
    """A network as a locator: "universal", the one that ships, or a file.

    The file is ``universal.npz``, ``locator.json`` of a run, ``full.pt`` or ``compact.pt`` of a run, or a checkpoint of
    the upstream project. Raises UserError for anything else.
    """
    if str(name) == SHIPPED:
        return resolve(OPENERS[".npz"])()
    path = Path(name)
    if path.suffix not in OPENERS:
        raise UserError(
            f"network {str(name)!r}: expected {SHIPPED!r} (the one that ships), or a file of {', '.join(OPENERS)}"
        )
    if not path.is_file():
        raise UserError(f"network {path} does not exist; correct its path, or train it first")
    return resolve(OPENERS[path.suffix])(path)


def margin(network: Locator, size: int) -> int | None:
    """Pixels at each side of patches of ``size`` px that a network does not see; None where the patches do not suit."""
    found, odd = divmod(size - network.size, 2)
    return None if found < 0 or odd else found


def patches_for(network: Locator, table: PeakTable) -> NDArray[np.generic]:
    """Patches (n, size, size) of a table as a network of that size sees them; it must not need larger ones."""
    edge = margin(network, table.size) or 0
    inner = slice(edge, table.size - edge)
    return np.ascontiguousarray(table.patches()[:, inner, inner])


def checkpoint_locator(path: Path) -> Locator:
    """``full.pt`` or ``compact.pt`` of a run, or an upstream checkpoint, in float32 on the CPU."""
    if not path.with_suffix(".json").exists():
        return float_locator(load_checkpoint(path))
    locator = float_locator(load_network(path.parent, path.stem))
    described = path.with_suffix(".json")
    locator.trained_on = ranges_of(json.loads(described.read_text()), described)
    return locator

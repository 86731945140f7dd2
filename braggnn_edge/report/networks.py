"""Networks that a report asks itself, and what the networks of a run were trained on."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.evaluation.provenance import Ranges, ranges_of_peaks
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.networks import margin, open_network
from braggnn_edge.locate.stage import SHIPPED
from braggnn_edge.peaks.splits import TRAIN
from braggnn_edge.peaks.table import PeakTable


def networks_for(size: int) -> dict[str, Locator]:
    """The network that ships; nothing where patches of ``size`` px are smaller than its own."""
    shipped = open_network(SHIPPED)
    return {} if margin(shipped, size) is None else {SHIPPED: shipped}


def located(network: Locator, table: PeakTable) -> NDArray[np.float64]:
    """Offsets (n, 2) px of the table's peaks by a network of patches that are no larger than the table's."""
    edge = margin(network, table.size) or 0
    return network.locate(table.patches()[:, edge : table.size - edge, edge : table.size - edge])


def trained_on(
    table: PeakTable, names: Iterable[str], networks: Mapping[str, Locator], config: Mapping[str, Any]
) -> dict[str, Ranges | None]:
    """What networks were trained on: as they say themselves, else the training peaks of the table.

    config: plain; an initial checkpoint in it was trained on other peaks, which are not known.
    """
    train = table.of(TRAIN)
    here = ranges_of_peaks(train.where(train.has("best")))
    if any(config.get(name, {}).get("initial") for name in ("full", "compact")):
        here = None
    own = {name: network.trained_on for name, network in networks.items()}
    return {name: own.get(name, here) for name in names}

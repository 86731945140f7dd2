"""Networks that a report asks itself, and what the networks of a run were trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from braggnn_edge.evaluation.evaluate import estimates_without_network
from braggnn_edge.evaluation.groups import FEWEST, crowded, crowds, errors_by_group
from braggnn_edge.evaluation.provenance import Ranges, outside, ranges_of_peaks
from braggnn_edge.evaluation.sigma import Intervals, flag_groups
from braggnn_edge.locate.float_forms import float_locator
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.networks import margin, open_network, patches_for
from braggnn_edge.locate.stage import SHIPPED
from braggnn_edge.peaks.splits import TRAIN
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.training.train import load_network

#: Float networks of a run: how the report calls them, their stage and their name there.
_FLOAT = {"float": ("train", "full"), "float_compact": ("compact", "compact")}


def networks_of(run: Path, size: int) -> dict[str, Locator]:
    """The network that ships, unless patches of ``size`` px are too small for it, and those that a run trained.

    The quantized one answers in its integers, which every form of the firmware equals.
    """
    shipped = open_network(SHIPPED)
    found = {} if margin(shipped, size) is None else {SHIPPED: shipped}
    for name, (stage, network) in _FLOAT.items():
        if (run / stage / f"{network}.pt").is_file():
            found[name] = float_locator(load_network(run / stage, network), "torch")
    if (path := run / "qat" / "locator.json").is_file():
        found["quantized"] = open_network(path)
    return found


def left_out(networks: Mapping[str, Locator], size: int) -> tuple[str, ...]:
    """A note for the reader where patches of ``size`` px keep the network that ships out of the report."""
    if SHIPPED in networks:
        return ()
    needed = open_network(SHIPPED).size
    return (
        f"The universal network is left out: it takes patches of {needed} px, those of this run have {size} px. To see "
        f"it, set size in [peaks] to {needed}.",
    )


def errors_of_crowds(
    table: PeakTable,
    kind: str,
    networks: Mapping[str, Locator],
    known: Mapping[str, Ranges | None],
    seed: int,
    sigma: Mapping[str, Any],
) -> dict[str, Any]:
    """Errors in px over the groups of peaks with company, by the estimators and by the networks that can be asked.

    known: what networks were trained on. To ``sigma`` of the report it adds what the flags do to these peaks.
    """
    near = crowded(table, kind)
    if len(near.peaks) < FEWEST:
        return {}
    estimates = estimates_without_network(near, kind, near.offsets(kind), seed)
    intervals: dict[str, Intervals] = {}
    for name, network in networks.items():
        if network.sigma:
            estimates[name], *found = network.locate_with_intervals(patches_for(network, near))
            intervals[name] = Intervals(*found)
        else:
            estimates[name] = network.locate(patches_for(network, near))
    own = (SHIPPED, *_FLOAT)
    answers = {name: name if name in own else "quantized" for name in sigma}  # all other forms are the same integers
    asked = {name: answer for name, answer in answers.items() if answer in intervals}
    flag_groups(
        sigma,
        crowds(near),
        {name: estimates[answer] for name, answer in asked.items()},
        {name: intervals[answer] for name, answer in asked.items()},
        near.offsets(kind),
    )
    beyond = {name: outside(ranges, near) for name, ranges in known.items()}
    return errors_by_group(crowds(near), estimates, near.offsets(kind), kind, beyond)


def trained_on(
    table: PeakTable, names: Sequence[str], networks: Mapping[str, Locator], config: Mapping[str, Any]
) -> dict[str, Ranges | None]:
    """What networks were trained on: their files say it of what was not trained here, else the table's training peaks.

    config: plain; an initial checkpoint in it was trained on other peaks, which are not known.
    """
    train = table.of(TRAIN)
    here = ranges_of_peaks(train.where(train.has("best")))
    if any(config.get(name, {}).get("initial") for name in ("full", "compact")):
        here = None
    own = {SHIPPED: networks[SHIPPED].trained_on} if SHIPPED in networks else {}
    if "quantized" in networks and (ranges := networks["quantized"].trained_on) is not None:
        # All forms of the firmware are the same integers.
        own |= {name: ranges for name in names if name not in (SHIPPED, *_FLOAT)}
    return {name: own.get(name, here) for name in names}

"""Reuse factors and keys per cycle for an initiation interval, or for a number of DSP slices, by the cost model."""

from dataclasses import dataclass

import numpy as np

from braggnn_edge.core.errors import UserError
from hls.cost.network import NetworkCost, multiplier_counts, network_cost
from hls.cost.nonlocal_block import nonlocal_interval
from hls.project.reuse import linear_layers
from quant.contract.attention import NonLocal
from quant.contract.network import IntegerNetwork, Linear


@dataclass(frozen=True)
class Plan:
    """reuse: one factor for each convolution and dense layer; keys_per_cycle: keys a cycle; cost: what it comes to."""

    reuse: tuple[int, ...]
    keys_per_cycle: int
    cost: NetworkCost


def plan(network: IntegerNetwork, interval: int, io_type: str) -> Plan:
    """The fewest multipliers with which no layer takes more than ``interval`` cycles a patch.

    Of equally many the smallest reuse factor, which costs the least latency. Raises UserError, naming the layer and the
    least it can do, when the initiation interval is too short.
    """
    blocks = [layer for layer in network.layers if isinstance(layer, NonLocal)]
    keys_per_cycle = max((_keys_per_cycle(block, interval) for block in blocks), default=1)
    least = network_cost(network, io_type=io_type, reuse=1, keys_per_cycle=keys_per_cycle)
    fastest = {layer.name: layer for layer in least.layers}
    reuse = []
    for layer in linear_layers(network):
        # All but the reuse factor's share of the interval: steps without a product, the pipeline's depth.
        row = fastest[layer.name]
        steps = sum(step.cycles for process in row.processes for step in process.steps)
        passes = steps if layer.kind == "conv2d" else 1
        reuse.append(_reuse(layer, (interval - (row.interval - passes)) // passes))
    found = network_cost(network, io_type=io_type, reuse=tuple(reuse), keys_per_cycle=keys_per_cycle)
    slow = max(found.layers, key=lambda layer: layer.interval)
    if slow.interval > interval:
        raise UserError(
            f"layer {slow.name} takes {slow.interval} cycles a patch, even without reuse; an interval of {interval} "
            "cycles is too short"
        )
    return Plan(tuple(reuse), keys_per_cycle, found)


def fastest(network: IntegerNetwork, dsps: int, io_type: str, part: str) -> Plan:
    """The plan with the shortest initiation interval that needs no more than ``dsps`` DSP slices of ``part``."""
    slowest = network_cost(network, io_type=io_type, reuse=1, keys_per_cycle=1)
    low = 1
    high = max(
        sum(step.cycles for process in layer.processes for step in process.steps) * (layer.multiplier_count + 1)
        for layer in slowest.layers
    )
    best = None
    while low <= high:
        middle = (low + high) // 2
        try:
            found = plan(network, middle, io_type)
        except UserError:
            low = middle + 1
            continue
        if found.cost.dsps(part) <= dsps:
            best, high = found, min(middle, found.cost.interval_cycles) - 1
        else:
            low = middle + 1
    if best is None:
        raise UserError(
            f"no reuse factors fit the network into {dsps} DSP slices; use fewer channels or another target"
        )
    return best


def _reuse(layer: Linear, most: int) -> int:
    """The factor up to ``most`` with the fewest multipliers; 1 where there is no room for any."""
    factors = np.arange(1, max(1, min(most, layer.weight.size)) + 1)
    return int(factors[np.argmin(multiplier_counts(layer, factors))])


def _keys_per_cycle(block: NonLocal, interval: int) -> int:
    """The fewest keys a cycle that keep the interval; all of them where none does."""
    for keys_per_cycle in range(1, block.keys):
        if nonlocal_interval(block, keys_per_cycle) <= interval:
            return keys_per_cycle
    return block.keys

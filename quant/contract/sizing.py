"""Accumulators of an integer network, sized by interval arithmetic from its weights and formats alone."""

from dataclasses import replace

import numpy as np

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Format, linear_bounds
from quant.contract.attention import NonLocal, block_bounds, resized_block, size_block
from quant.contract.emulate import activate
from quant.contract.layers import Linear, Requantize
from quant.contract.network import IntegerNetwork, Layer

#: What a user does about a network whose numbers do not fit together.
_REMEDY = "the file was changed or is damaged; make it again with `make qat`"


def size_accumulators(network: IntegerNetwork) -> IntegerNetwork:
    """The network with each accumulator the narrowest that holds every sum of every possible input.

    Accumulators' fracs are kept, their bits replaced. The range of each layer's input follows from the one before it.
    """
    low, high, frac = network.input.low, network.input.high, network.input.frac
    layers: list[Layer] = []
    for layer in network.layers:
        found: Layer = layer
        if isinstance(layer, Linear):
            frac = layer.accumulator.frac
            low, high = linear_bounds(layer.weight.reshape(len(layer.weight), -1), layer.bias, low, high)
            found = replace(layer, accumulator=Format.holding(low, high, frac))
        elif isinstance(layer, NonLocal):
            found = resized_block(layer, low, high)
            frac = found.accumulator.frac
            low, high = block_bounds(found, low, high)
        elif isinstance(layer, Requantize):
            ends, _ = activate(layer, np.array([low, high]), frac)  # every kind is monotone
            low, high, frac = int(ends[0]), int(ends[1]), layer.output.frac
        layers.append(found)
    return replace(network, layers=tuple(layers))


def check_accumulators(network: IntegerNetwork) -> None:
    """Refuse accumulators that cannot hold every sum of every possible input, or not with the fraction of the sums."""
    for layer in network.layers:  # first: with biases that are too large the bounds of the sums are no 64-bit numbers
        for part in (layer.theta, layer.phi, layer.g, layer.out) if isinstance(layer, NonLocal) else (layer,):
            if isinstance(part, Linear):
                _check_biases(part)
    frac = network.input.frac
    for layer, needed in zip(network.layers, size_accumulators(network).layers, strict=True):
        if isinstance(layer, Linear) and isinstance(needed, Linear):
            _check_linear(layer, needed.accumulator, frac)
            frac = layer.accumulator.frac
        elif isinstance(layer, NonLocal) and isinstance(needed, NonLocal):
            _check_block(layer, needed)
            frac = layer.accumulator.frac
        elif isinstance(layer, Requantize):
            frac = layer.output.frac


def _check_biases(layer: Linear) -> None:
    low, high, has = int(layer.bias.min(initial=0)), int(layer.bias.max(initial=0)), layer.accumulator
    if low < has.low or high > has.high:
        raise UserError(
            f"layer {layer.name}: biases span {low} to {high}, its accumulator holds {has.low} to {has.high}: {_REMEDY}"
        )


def _check_linear(layer: Linear, needed: Format, frac: int) -> None:
    """frac: of its input."""
    sums, has = frac + layer.weight_format.frac, layer.accumulator
    if has.frac != sums:
        raise UserError(
            f"layer {layer.name}: its accumulator has {has.frac} fraction bits, its sums have {sums}: {_REMEDY}"
        )
    _check_wide(layer.name, has, needed)


def _check_block(layer: NonLocal, needed: NonLocal) -> None:
    for part in ("theta", "phi", "g", "out"):
        source = layer.mixed if part == "out" else layer.input
        _check_linear(getattr(layer, part), getattr(needed, part).accumulator, source.frac)
    for name in ("score", "total", "weighted"):
        _check_wide(f"{layer.name}, {name}", getattr(layer, name), getattr(_resized_sums(layer), name))
    _check_wide(layer.name, layer.accumulator, needed.accumulator)


def _resized_sums(layer: NonLocal) -> NonLocal:
    """The block with the formats of the sums inside made again from those of what is summed."""
    formats = {
        name: getattr(layer, name)
        for name in ("query", "key", "value", "difference", "exponential", "reciprocal", "mixed")
    }
    parts = {name: getattr(layer, name) for name in ("theta", "phi", "g", "out")}
    source, tables = (layer.input, layer.input.low, layer.input.high), (layer.exp_table, layer.reciprocal_table)
    return size_block(layer.name, layer.positions, source, parts, formats, tables, layer.pool)


def _check_wide(name: str, has: Format, needed: Format) -> None:
    if has.low > needed.low or has.high < needed.high:
        raise UserError(
            f"layer {name}: its accumulator holds {has.low} to {has.high}, but its sums need {needed.bits} bits, "
            f"{'signed' if needed.signed else 'unsigned'}: {_REMEDY}"
        )

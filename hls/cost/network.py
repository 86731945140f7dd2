"""Analytic cycles and resources of the generated design, by counting in its source; nothing here is a synthesis result.

Formulas and their sources are in docs/reference/cost_model.md. Cycles suppose that every loop reaches the initiation
interval that its pragma asks for, at the project's clock; the depths of pipelines are assumed (:mod:`hls.cost.parts`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from hls.cost.cycles import Fifo, Process, Step, simulate
from hls.cost.nonlocal_block import nonlocal_cost
from hls.cost.parts import (
    ARRAY,
    PRODUCT_DEPTH,
    LayerCost,
    Multipliers,
    Stream,
    needs_multiplier,
    passes,
    signed_bits,
    sum_depth,
)
from hls.project.reuse import check_reuse, spread
from quant.contract.arithmetic import Format
from quant.contract.attention import NonLocal
from quant.contract.network import Flatten, IntegerNetwork, Leaky, Linear, Requantize

#: Operands (wide, narrow) of the signed multiplier in a DSP slice: of 7-series parts (DSP48E1, UG479) and of UltraScale
#: ones (DSP48E2, UG579).
SEVEN_SERIES, ULTRASCALE = (25, 18), (27, 18)


@dataclass(frozen=True)
class NetworkCost:
    """The layers in order, and the whole: cycles of a patch at steady state and alone, multipliers, bits of memory.

    pipelined: the top function is one pipeline, all layers one behind the other, and no dataflow region.
    """

    io_type: str
    layers: tuple[LayerCost, ...]
    pipelined: bool = False

    @property
    def interval_cycles(self) -> int:
        """Cycles between two patches: the slowest layer's."""
        return max(layer.interval for layer in self.layers)

    @property
    def latency_cycles(self) -> int:
        """Cycles from a patch's first value in to its last out, by :func:`hls.cost.cycles.simulate`.

        Of one pipeline: the initiation interval and all depths, those of what stands side by side as well.
        """
        if self.pipelined:
            return self.interval_cycles + sum(layer.depth for layer in self.layers)
        return simulate(self.processes, self.fifos, 1)[self.processes[-1].name][0]

    @property
    def processes(self) -> tuple[Process, ...]:
        """The dataflow region, for :func:`hls.cost.cycles.simulate`."""
        return tuple(process for layer in self.layers for process in layer.processes)

    @property
    def fifos(self) -> dict[str, Fifo]:
        """The streams between and inside layers, as generated."""
        return {name: fifo for layer in self.layers for stream in layer.streams for name, fifo in stream.fifos.items()}

    @property
    def multipliers(self) -> int:
        """Multipliers of all layers: an upper bound, see :class:`Multipliers`."""
        return sum(layer.multiplier_count for layer in self.layers)

    @property
    def memory_bits(self) -> int:
        """Bits of tables, buffers and streams of all layers; weights are constants in logic."""
        return sum(layer.memory_bits for layer in self.layers)

    def dsps(self, part: str) -> int:
        """DSP slices if no multiplier is built from look-up tables: an upper bound, two or more for wide products."""
        operands = SEVEN_SERIES if part.startswith("xc7") else ULTRASCALE
        return sum(entry.dsps(operands) for layer in self.layers for entry in layer.multipliers)


def network_cost(
    network: IntegerNetwork,
    *,
    io_type: str,
    reuse: int | Sequence[int] = 1,
    keys_per_cycle: int = 1,
    strategy: str = "Latency",
    source: str = "",
    sink: str = "",
) -> NetworkCost:
    """Count the project that :func:`hls.project.layered.write_project` writes with the same options.

    reuse: one for all convolutions and dense layers, or one for each in order. source, sink: streams before and behind
    the network, endless unless named. An io_parallel network without convolutions is one pipeline, whose initiation
    interval is the largest reuse factor, as hls4ml's top function says. Raises UserError for what is not
    counted: another strategy, a reuse factor beyond a layer's products, another layer.
    """
    if io_type not in ("io_parallel", "io_stream"):
        raise UserError(f"no cycle model for io type {io_type!r}; expected io_parallel or io_stream")
    if strategy != "Latency":
        raise UserError(
            f"no cycle model for strategy {strategy!r}, only for Latency: the depth that a Resource loop adds at every "
            "position is not in its source"
        )
    spent = spread(reuse if isinstance(reuse, int) else tuple(reuse), network)
    check_reuse(network, spent, strategy, io_type)
    factors = iter(spent)
    at = _Place(io_type, source, network.size, 1, network.input)
    if network.exponent:  # all inputs in one beat
        at = at.after(source, 1, network.size**2 + network.exponent, network.input)
    last = [layer for layer in network.layers if not isinstance(layer, Flatten)][-1]
    found: list[LayerCost] = []
    for layer in network.layers:
        if isinstance(layer, Flatten):
            continue  # a stream is read as it is, an array is the same array
        to = sink if layer is last else layer.name
        if isinstance(layer, Linear):
            counted, at = _linear(layer, next(factors), at, to)
        elif isinstance(layer, NonLocal):
            counted = nonlocal_cost(layer, keys_per_cycle, io_type, at.name, to)
            at = at.after(to, at.side, at.channels, layer.accumulator)
        elif isinstance(layer, Requantize):
            counted, at = _activation(layer, at, to)
        else:
            raise UserError(
                f"layer {layer!r} has no cycle model; expected a convolution, a dense layer, an activation "
                "or a non-local block"
            )
        if layer is not last:
            counted = replace(counted, streams=(at.stream(), *counted.streams))
        found.append(counted)
    if io_type == "io_stream" or any(row.kind in ("conv2d", "nonlocal") for row in found):
        return NetworkCost(io_type, tuple(found))
    interval = max(row.reuse or 1 for row in found)
    # What lies between two layers are the pipeline's registers, and no array that is buffered twice.
    return NetworkCost(io_type, tuple(replace(row, interval=interval, streams=()) for row in found), pipelined=True)


def linear_multipliers(layer: Linear, reuse: int) -> int:
    """Multipliers of a convolution or dense layer: hls4ml's limit for the reuse factor, or fewer if fewer products."""
    return int(multiplier_counts(layer, np.array([reuse]))[0])


def multiplier_counts(layer: Linear, reuse: NDArray[np.integer]) -> NDArray[np.integer]:
    """The same for many reuse factors."""
    zeros = int(np.count_nonzero(layer.weight == 0))
    limit = -(-layer.weight.size // reuse) - zeros // reuse  # multiplier_limit of hls4ml's configuration
    return np.minimum(limit, needs_multiplier(layer.weight))


@dataclass(frozen=True)
class _Place:
    """What lies between two layers: side x side positions of ``channels`` codes (a vector: side 1) of a format."""

    io_type: str
    name: str
    side: int
    channels: int
    format: Format

    @property
    def positions(self) -> int:
        return self.side * self.side

    def after(self, name: str, side: int, channels: int, to: Format) -> "_Place":
        return _Place(self.io_type, name, side, channels, to)

    def stream(self) -> Stream:
        """As hls4ml makes it: a FIFO of one patch's positions, or an array that the dataflow region holds twice."""
        beat = self.channels * self.format.bits
        if self.io_type == "io_stream":
            return Stream(self.name, self.positions, 1, beat)
        return Stream(self.name, 2, 1, self.positions * beat, ARRAY)


def _linear(layer: Linear, reuse: int, at: _Place, sink: str) -> tuple[LayerCost, _Place]:
    outputs, inputs = layer.weight.shape[:2]
    terms = layer.weight[0].size
    depth = sum_depth(terms)
    bits = (layer.weight_format.bits, signed_bits(at.format))
    window, lines = terms * at.format.bits, 0
    if layer.kind == "conv2d":
        rows, cols = layer.weight.shape[2:]
        beyond = at.after(sink, at.side - rows + 1, outputs, layer.accumulator)
        steps = at.positions if at.io_type == "io_stream" else beyond.positions
        interval = steps * reuse + depth
        lines = (rows - 1) * at.side * inputs * at.format.bits if at.io_type == "io_stream" else 0
        if at.io_type == "io_stream":
            valid = [i // at.side >= rows - 1 and i % at.side >= cols - 1 for i in range(steps)]
            beats = tuple(Step(reuse, (at.name,), (sink,) if whole else ()) for whole in valid)
            process = Process(layer.name, beats, depth)
        else:
            process = passes(layer.name, [reuse] * steps, depth, at.name, sink)
    else:
        beyond = at.after(sink, 1, outputs, layer.accumulator)
        if at.io_type == "io_stream":  # beats are gathered, then multiplied: one after the other, not overlapped
            interval = at.positions + reuse + depth
            gather = (Step(1, (at.name,)),) * at.positions
            process = Process(layer.name, (*gather, Step(reuse, (), (sink,))), depth)
        else:
            interval, window = reuse + depth, 0  # the array before it is what it reads
            process = passes(layer.name, [reuse], depth, at.name, sink)
    counted = LayerCost(
        name=layer.name, kind=layer.kind, reuse=reuse, interval=interval,
        multipliers=(Multipliers(linear_multipliers(layer, reuse), bits),),
        constant_bits=layer.weight.size * layer.weight_format.bits + layer.bias.size * layer.accumulator.bits,
        buffer_bits=window + lines, processes=(process,),
    )  # fmt: skip
    return counted, beyond


def _activation(layer: Requantize, at: _Place, sink: str) -> tuple[LayerCost, _Place]:
    """One position a cycle (io_stream), or all in one (io_parallel), a multiplier for each code in hand if leaky."""
    slope = layer.slope_code if isinstance(layer, Leaky) else 1
    at_once = at.channels * (1 if at.io_type == "io_stream" else at.positions)
    count = 0 if slope & (slope - 1) == 0 else at_once
    depth = PRODUCT_DEPTH + 1 if count else 1
    if at.io_type == "io_stream":
        process = Process(layer.name, (Step(1, (at.name,), (sink,)),) * at.positions, depth)
    else:
        process = passes(layer.name, [1], depth, at.name, sink)
    counted = LayerCost(
        name=layer.name, kind=layer.kind, interval=len(process.steps) + depth,
        multipliers=(Multipliers(count, (slope.bit_length() + 1, signed_bits(at.format))),) if count else (),
        processes=(process,),
    )  # fmt: skip
    return counted, at.after(sink, at.side, at.channels, layer.output)

"""What the cost of a layer is made of: multipliers, streams, processes, bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hls.cost.cycles import Fifo, Process, Step
from quant.contract.arithmetic import Format

#: Kinds of streams: a FIFO of tokens, or an array that a dataflow region buffers twice, one token a patch.
FIFO, ARRAY = "fifo", "array"

#: Assumed depth of a product: the input, multiplier and output registers of a DSP slice.
PRODUCT_DEPTH = 3


@dataclass(frozen=True)
class Multipliers:
    """``count`` multipliers of two signed operands of ``bits`` at most: an upper bound of what is built.

    A product with a constant that is 0 or a power of two needs none and is not counted. A tool may build others from
    look-up tables (narrow ones above all), from shifts and additions (constants), or share a DSP slice.
    """

    count: int
    bits: tuple[int, int]

    def dsps(self, operands: tuple[int, int]) -> int:
        """DSP slices with operands (wide, narrow) if every multiplier is built from them."""
        wide, narrow = operands
        one, two = self.bits

        def pieces(bits: int, most: int) -> int:  # all but the highest piece are unsigned: one bit fewer
            return max(1, -(-(bits - 1) // (most - 1)))

        each = min(pieces(one, wide) * pieces(two, narrow), pieces(two, wide) * pieces(one, narrow))
        return self.count * each


@dataclass(frozen=True)
class Stream:
    """depth: tokens it holds as generated; least: below which the design stops for good; token_bits: of one token."""

    name: str
    depth: int
    least: int
    token_bits: int
    kind: str = FIFO

    @property
    def bits(self) -> int:
        return self.depth * self.token_bits

    @property
    def fifos(self) -> dict[str, Fifo]:
        """The same for :func:`hls.cost.cycles.simulate`: an array also hands its free buffers back."""
        found = {self.name: Fifo(self.depth)}
        return found | {f"{self.name}.free": Fifo(self.depth, self.depth)} if self.kind == ARRAY else found


@dataclass(frozen=True)
class LayerCost:
    """One layer, for one patch.

    interval: cycles between two patches, the assumed depth of its pipelines included, since they drain in between;
    constant_bits: weights and biases, which are logic; streams: the one behind it, and those inside.
    """

    name: str
    kind: str
    interval: int
    processes: tuple[Process, ...]
    reuse: int | None = None
    multipliers: tuple[Multipliers, ...] = ()
    constant_bits: int = 0
    table_bits: int = 0
    buffer_bits: int = 0
    streams: tuple[Stream, ...] = ()

    @property
    def depth(self) -> int:
        """Assumed cycles in pipelines from a value in to its result out."""
        return sum(process.depth for process in self.processes)

    @property
    def multiplier_count(self) -> int:
        return sum(entry.count for entry in self.multipliers)

    @property
    def stream_bits(self) -> int:
        return sum(stream.bits for stream in self.streams)

    @property
    def memory_bits(self) -> int:
        return self.table_bits + self.buffer_bits + self.stream_bits

    def row(self) -> dict[str, Any]:
        """As in ``report.json``."""
        reuse = {} if self.reuse is None else {"reuse": self.reuse}
        return {
            "name": self.name, "kind": self.kind, **reuse, "interval_cycles": self.interval, "depth_cycles": self.depth,
            "multipliers": self.multiplier_count, "constant_bits": self.constant_bits, "table_bits": self.table_bits,
            "buffer_bits": self.buffer_bits, "stream_bits": self.stream_bits,
            "streams": [
                {"name": s.name, "kind": s.kind, "depth": s.depth, "least": s.least, "token_bits": s.token_bits}
                for s in self.streams
            ],
        }  # fmt: skip


def passes(name: str, cycles: Sequence[int], depth: int, source: str, sink: str) -> Process:
    """A process from array to array, step after step: the first takes both buffers, the last hands them on."""
    last = len(cycles) - 1
    first_reads, last_writes = (source, f"{sink}.free"), (sink, f"{source}.free")
    steps = (Step(c, first_reads if i == 0 else (), last_writes if i == last else ()) for i, c in enumerate(cycles))
    return Process(name, tuple(steps), depth)


def needs_multiplier(constants: NDArray[np.integer]) -> int:
    """How many constants are neither 0 nor a power of two (of either sign)."""
    size = np.abs(constants)
    return int(np.count_nonzero(size & (size - 1)))


def limited(constants: NDArray[np.integer], limit: int, others: int = 0) -> int:
    """Multipliers for products with ``constants`` and ``others`` of two variables when at most ``limit`` are built."""
    return min(limit, needs_multiplier(constants) + others)


def sum_depth(products: int) -> int:
    """Assumed depth of a sum of products and a constant: a product, a cycle a level of a tree of additions, a cast."""
    return PRODUCT_DEPTH + levels(products + 1) + 1


def levels(terms: int) -> int:
    """Levels of a tree of two-input operations."""
    return (terms - 1).bit_length()


def signed_bits(format_: Format) -> int:
    """Bits of the format's codes as a signed operand."""
    return format_.bits + (not format_.signed)

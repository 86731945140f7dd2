"""The kernel's structs as dataclasses: the same fields in the same order, 64-bit integers all.

What they mean stands beside the structs in front_end.h, layers.h and attention.h.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Op(IntEnum):
    """What a step does."""

    LINEAR = 0
    ATTENTION = 1
    RESIDUAL = 2


class Sums(IntEnum):
    """Types of a layer's inputs, products and sums."""

    PAIRS = 0  # two inputs of 16 bits in a lane, sums of 32 bits
    SINGLE = 1  # 32 bits all
    LONG = 2  # inputs of 32 bits, products and sums of 64
    QUADS = 3  # four inputs of 0 to 255 in a lane, weights of 8 bits, sums of 32

    @property
    def each(self) -> int:
        """Inputs in a lane."""
        return {Sums.PAIRS: 2, Sums.QUADS: 4}.get(self, 1)


class _Record:
    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the fields."""
        return tuple(entry.name for entry in fields(cls))  # type: ignore[arg-type]

    def values(self) -> list[int]:
        return [int(getattr(self, name)) for name in self.names()]


def table(records: Sequence[_Record]) -> NDArray[np.int64]:
    """Records as the kernel reads them, one behind the other; one of zeros where there are none."""
    return np.array([record.values() for record in records] or [[0]], np.int64)


@dataclass
class Layer(_Record):
    """A linear layer, an attention or a residual."""

    op: int = Op.LINEAR
    source: int = 0
    other: int = 0
    target: int = 0
    sums: int = Sums.SINGLE
    rows: int = 1
    cols: int = 1
    row_stride: int = 1
    outputs: int = 0
    each: int = 1
    blocks: int = 0
    taps: int = 0
    weights: int = 0
    biases: int = 0
    kind: int = 0
    up: int = 0
    half: int = 0
    down: int = 0
    slope: int = 0
    below_up: int = 0
    below_half: int = 0
    below_down: int = 0
    low: int = 0
    high: int = 0
    own_up: int = 0
    other_up: int = 0
    other_each: int = 1


@dataclass
class Attention(_Record):
    """The inside of a non-local block."""

    side: int
    pool: int
    inner: int
    key: int
    value: int
    up: int
    down: int
    most: int
    index_bits: int
    shift: int
    low: int
    high: int
    exponentials: int
    reciprocals: int


@dataclass
class Model(_Record):
    """The locator as a whole."""

    size: int
    window: int
    min_max: int
    bits: int
    count_bits: int
    subtract: int
    table_bits: int
    mantissa_bits: int
    each: int
    columns: int
    exponent: int
    layers: int
    buffers: int
    outputs: int
    low: int
    high: int
    centroid: int = 0
    power: int = 0
    discarded: int = 0
    narrow: int = 1
    index_bits: int = 1
    sum_bits: int = 2
    numerator_shift: int = 0
    result_shift: int = 0

"""Weights as the kernel reads them: blocks of outputs, taps that are not all 0, two or four weights in one number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.contract.arithmetic import Codes
from quant.contract.layers import Linear

Taps = NDArray[np.int64]


@dataclass
class Packed:
    """What all layers have put down so far, for vectors in ``groups`` and outputs in blocks of ``block``."""

    groups: int
    block: int
    blocks: list[int] = field(default_factory=list)
    taps: list[NDArray[np.int32]] = field(default_factory=list)
    weights: list[NDArray[np.int32]] = field(default_factory=list)
    biases: list[NDArray[np.int64]] = field(default_factory=list)

    def begins(self) -> dict[str, int]:
        """Where the next layer's own begin, by the field of its record."""
        parts: dict[str, Sequence[NDArray[Any]]] = {"taps": self.taps, "weights": self.weights, "biases": self.biases}
        return {"blocks": len(self.blocks)} | {name: sum(len(one) for one in part) for name, part in parts.items()}

    def put(self, layer: Linear, taps: Taps, weights: Codes, multiple: int) -> int:
        """Put a layer down: taps (T,), weights (outputs, T, each), see :func:`taps_of`.

        Returns the number of its outputs, which was made a multiple of ``multiple`` by some that are 0.
        """
        outputs = len(weights) + -len(weights) % multiple
        weights = np.pad(weights, ((0, outputs - len(weights)), (0, 0), (0, 0)))
        for start, stop in self._blocks(outputs):
            some = weights[start:stop]
            used = some.any(axis=(0, 2))
            self.blocks.append(int(used.sum()))
            self.taps.append((taps[used] * self.groups).astype(np.int32))
            self.weights.append(_joined(some[:, used]))
        self.biases.append(np.pad(layer.bias, (0, outputs - len(layer.bias))))
        return outputs

    def tables(self) -> tuple[NDArray[Any], ...]:
        """Of the kernel's Weights, in order."""
        parts: tuple[list[NDArray[Any]], ...] = (self.taps, self.weights, self.biases)
        return np.array(self.blocks, np.int64), *(np.concatenate(part) for part in parts)

    def _blocks(self, outputs: int) -> Iterator[tuple[int, int]]:
        """Outputs that are computed together, as the kernel takes them: by ``block``, then by 2."""
        done = 0
        while done < outputs:
            size = self.block if outputs - done >= self.block else 2
            yield done, done + size
            done += size


def _joined(weights: Codes) -> NDArray[np.int32]:
    """Weights (outputs, taps, each) tap after tap, all of a tap and an output in one number of 32 bits."""
    found = weights.transpose(1, 0, 2)
    bits = 32 // found.shape[2]
    parts = (found & ((1 << bits) - 1)) << (bits * np.arange(found.shape[2]))
    return parts.sum(axis=2).astype(np.uint32).view(np.int32).ravel()


def taps_of(layer: Linear, source: int, each: int, first: bool) -> tuple[Taps, Codes]:
    """Vectors that a layer multiplies, from the first one of its position (T,), and its weights (outputs, T, each).

    source: rows and columns of its input; each: codes in a lane, 1, 2 or 4; first: whether these are the input codes,
    which lie in an order of their own.
    """
    if layer.kind == "dense":
        return _dense_taps(layer.weight, 1 if first else source**2, each)
    outputs, inputs, height, width = layer.weight.shape
    row, col = np.indices((height, width))
    at = row * source + col
    if first:  # one channel; each pixel lies beside its neighbours
        wide = np.pad(layer.weight[:, 0], ((0, 0), (0, 0), (0, -width % each)))
        offsets = at[:, ::each].ravel()
        return offsets, wide.reshape(outputs, len(offsets), each)
    weight = np.pad(layer.weight, ((0, 0), (0, -inputs % each), (0, 0), (0, 0)))
    channels = weight.shape[1] // each
    vectors = np.arange(channels)[:, None] * source**2 + at.ravel()
    weight = weight.reshape(outputs, channels, each, height * width).transpose(0, 1, 3, 2)
    return vectors.ravel(), weight.reshape(outputs, vectors.size, each)


def _dense_taps(weight: Codes, area: int, each: int) -> tuple[Taps, Codes]:
    """Input i is channel i // area at position i % area; of flat inputs every one is a channel."""
    channel, at = np.divmod(np.arange(weight.shape[1]), area)
    vector = channel // each * area + at
    found = np.zeros((len(weight), int(vector.max()) + 1, each), np.int64)
    found[:, vector, channel % each] = weight
    return np.arange(found.shape[1]), found

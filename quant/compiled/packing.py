"""Weights as the kernel reads them: blocks of outputs, taps that are not all 0, two weights in one number."""

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

    def put(self, layer: Linear, taps: Taps, weights: Codes) -> int:
        """Put a layer down: taps (T,), weights (outputs, T, 1 or 2), see :func:`taps_of`. Its outputs, made even."""
        outputs = len(weights) + len(weights) % 2
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
    """Weights (outputs, taps, 1 or 2) tap after tap, two in one where there are two."""
    found = weights.transpose(1, 0, 2)
    if found.shape[2] == 2:
        found = (found[:, :, :1] & 0xFFFF) | (found[:, :, 1:] << 16)
    return found.astype(np.int32).ravel()


def taps_of(layer: Linear, source: int, pairs: bool, first: bool) -> tuple[Taps, Codes]:
    """Vectors that a layer multiplies, from the first one of its position (T,), and its weights (outputs, T, 1 or 2).

    source: rows and columns of its input; pairs: whether a vector has two of its codes; first: whether these are the
    input codes, which lie in an order of their own.
    """
    if layer.kind == "dense":
        return _dense_taps(layer.weight, 1 if first else source**2, pairs)
    outputs, inputs, height, width = layer.weight.shape
    row, col = np.indices((height, width))
    at = row * source + col
    if first and pairs:  # one channel; each pixel lies beside its neighbour
        even = np.pad(layer.weight[:, 0], ((0, 0), (0, 0), (0, width % 2)))
        offsets = at[:, ::2].ravel()
        return offsets, even.reshape(outputs, len(offsets), 2)
    each = 2 if pairs else 1
    weight = np.pad(layer.weight, ((0, 0), (0, inputs % each), (0, 0), (0, 0)))
    channels = weight.shape[1] // each
    vectors = np.arange(channels)[:, None] * source**2 + at.ravel()
    weight = weight.reshape(outputs, channels, each, height * width).transpose(0, 1, 3, 2)
    return vectors.ravel(), weight.reshape(outputs, vectors.size, each)


def _dense_taps(weight: Codes, area: int, pairs: bool) -> tuple[Taps, Codes]:
    """Input i is channel i // area at position i % area; of flat inputs every one is a channel."""
    channel, at = np.divmod(np.arange(weight.shape[1]), area)
    each = 2 if pairs else 1
    vector = channel // each * area + at
    found = np.zeros((len(weight), int(vector.max()) + 1, each), np.int64)
    found[:, vector, channel % each] = weight
    return np.arange(found.shape[1]), found

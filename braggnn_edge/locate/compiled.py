"""The compiled network on a CPU: compiled.cpp through ctypes, built by g++ at the first use (a few seconds)."""

import ctypes
import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from braggnn_edge.core.compiler import loaded_library
from braggnn_edge.locate.fused import multiplied_out
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.upstream import fold_offset

_SOURCE = Path(__file__).with_name("compiled.cpp")
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi",
    "-pthread",
)  # fmt: skip
#: Output channels that the kernel computes together.
_BLOCKS = (8, 4, 2, 1)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernel; UserError when there is no g++."""
    loaded = loaded_library(_SOURCE, FLAGS)
    i, p = ctypes.c_int, ctypes.c_void_p
    loaded.braggnn_locate.argtypes = [p, ctypes.c_int64, i, i, i, i, p, p, ctypes.c_float, i, p]
    loaded.braggnn_locate.restype = i
    return loaded


class CompiledNetwork:
    """Patches (n, size, size) float32, C order, in counts to offsets (n, 2) float32 px, of one trained network.

    threads: of each call; the result does not depend on it. Raises MemoryError when memory is short.
    """

    def __init__(self, net: BraggNN, threads: int = 1) -> None:
        self.size, self.threads, self._slope = net.size, threads, net.spec.slope
        self._attention = net.spec.attention
        convolutions = [m for m in net.cnn_layers if isinstance(m, nn.Conv2d)]
        dense = [m for m in net.dense_layers if isinstance(m, nn.Linear)]
        parts: list[NDArray[np.floating]] = []
        for i, layer in enumerate(convolutions):
            if i == 0 and self._attention:
                parts += [tensor.numpy().ravel() for tensor in multiplied_out(net)]
            else:
                parts += _packed(layer.weight.detach(), layer.bias)
        for i, fully in enumerate(dense):
            last = i == len(dense) - 1
            weight, bias = fold_offset(fully, net.size) if last else (fully.weight.detach(), fully.bias)
            parts += _packed(weight, bias)
        self._weights = np.concatenate(parts).astype(np.float32)
        widths = [m.out_channels for m in convolutions] + [m.out_features for m in dense]
        self._widths = np.array(widths, np.int32)
        self._depth = (len(convolutions), len(dense))

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        offsets = np.empty((len(patches), 2), np.float32)
        if library().braggnn_locate(
            patches.ctypes.data, len(patches), self.size, int(self._attention), *self._depth,
            self._widths.ctypes.data, self._weights.ctypes.data, self._slope, self.threads, offsets.ctypes.data,
        ):  # fmt: skip
            raise MemoryError("the compiled network found no memory for its activations")
        return offsets


def _packed(weight: torch.Tensor, bias: torch.Tensor | None) -> list[NDArray[np.floating]]:
    """Weights (outputs, ...) and biases in the kernel's order: for each block of outputs [...][block], then biases."""
    flat = weight.double().cpu().reshape(len(weight), -1).numpy()
    added = np.zeros(len(flat)) if bias is None else bias.detach().double().cpu().numpy()
    parts, done = [], 0
    while done < len(flat):
        block = next(b for b in _BLOCKS if b <= len(flat) - done)
        parts += [flat[done : done + block].T.ravel(), added[done : done + block]]
        done += block
    return parts

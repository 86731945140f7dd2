"""Patches from host memory through a network on a GPU, copies and computation at the same time."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

#: Streams that take turns: while one computes, another one's patches are on their way.
_STREAMS = 3


class CudaPipeline:
    """Patches (n, size, size) on the host to offsets (n, 2) float32 on the host; not tested on a GPU so far.

    A call is cut into ``pieces``, each copied, computed and copied back on the next stream. Counts travel in the type
    they have (uint16: half of float32) and become float on the device. Patches in pinned memory are used in place;
    others are pinned first, which costs a copy.
    """

    def __init__(self, module: Any, device: torch.device, pieces: int = 8) -> None:
        self.module, self.device, self.pieces = module, device, pieces
        self._streams = [torch.cuda.Stream(device) for _ in range(_STREAMS)]

    @torch.inference_mode()
    def __call__(self, patches: NDArray[np.generic]) -> NDArray[np.float32]:
        source = torch.from_numpy(patches)
        if not source.is_pinned():
            source = source.pin_memory()
        offsets = torch.empty((len(source), 2)).pin_memory()
        step = -(-len(source) // self.pieces)
        for turn, start in enumerate(range(0, len(source), step)):
            piece = slice(start, start + step)
            with torch.cuda.stream(self._streams[turn % _STREAMS]):
                there = source[piece].to(self.device, non_blocking=True)
                offsets[piece].copy_(self.module(there), non_blocking=True)
        torch.cuda.synchronize(self.device)
        return offsets.numpy()

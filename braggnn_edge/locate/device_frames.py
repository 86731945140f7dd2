"""Frames from host memory to a list of peaks with every step on the device: threshold, find, crop, locate."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braggnn_edge.peaks.device import crops_on_device, find_on_device


@dataclass(frozen=True)
class FramePeaks:
    """Peaks of a block of frames: frame (m,), counted over all blocks; pixel (m, 2), the brightest; answers (m, k).

    answers: what the network says of each patch, the offset (row, col) px and, of a network that knows it, its sigma.
    """

    frame: NDArray[np.int64]
    pixel: NDArray[np.int64]
    answers: NDArray[np.float32]

    @property
    def position(self) -> NDArray[np.float64]:
        """(m, 2) px in the frame."""
        return self.pixel.astype(np.float64) + self.answers[:, :2]


class FramePipeline:
    """Blocks of frames (f, rows, cols) on the host to :class:`FramePeaks`, by the window rule.

    module: patches (m, size, size) of counts on the device to (m, outputs) float32, such as
    :class:`UniversalOnDevice`. threshold, valid and min_area: as in :func:`find_on_device`. While a block is computed
    on, the next one is copied, as long as blocks lie in pinned memory. Patches go through the network ``batch`` at a
    time.
    """

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        size: int,
        device: str | torch.device,
        threshold: float | Tensor,
        valid: Tensor | None = None,
        min_area: int = 4,
        batch: int = 32_768,
        outputs: int = 2,
    ) -> None:
        self.module, self.size, self.device = module, size, torch.device(device)
        self.threshold, self.valid, self.min_area = threshold, valid, min_area
        self.batch, self.outputs = batch, outputs

    @torch.inference_mode()
    def __call__(self, blocks: Iterable[NDArray[Any]]) -> Iterator[FramePeaks]:
        start = 0
        for frames in self._ahead(blocks):
            frame, row, col = find_on_device(
                frames, threshold=self.threshold, valid=self.valid, min_area=self.min_area, size=self.size
            )
            answers = [torch.zeros((0, self.outputs), device=self.device)]
            for first in range(0, len(frame), self.batch):
                piece = slice(first, first + self.batch)
                answers.append(self.module(crops_on_device(frames, frame[piece], row[piece], col[piece], self.size)))
            found = torch.stack((frame + start, row, col)).cpu().numpy()
            yield FramePeaks(found[0], found[1:].T.copy(), torch.cat(answers).cpu().numpy())
            start += len(frames)

    def _ahead(self, blocks: Iterable[NDArray[Any]]) -> Iterator[Tensor]:
        """Blocks on the device, each asked for before the one in front of it is worked on."""
        if self.device.type == "cpu":
            yield from (torch.from_numpy(block) for block in blocks)
            return
        stream, waiting = torch.cuda.Stream(self.device), None
        for block in blocks:
            with torch.cuda.stream(stream):
                coming = torch.from_numpy(block).to(self.device, non_blocking=True)
                arrived = torch.cuda.Event()
                arrived.record(stream)
            if waiting is not None:
                yield self._arrived(*waiting)
            waiting = coming, arrived
        if waiting is not None:
            yield self._arrived(*waiting)

    def _arrived(self, frames: Tensor, arrived: Any) -> Tensor:
        current = torch.cuda.current_stream(self.device)
        current.wait_event(arrived)
        frames.record_stream(current)
        return frames

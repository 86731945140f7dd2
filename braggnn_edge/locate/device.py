"""Patches from host memory through a network on a device and back; on a GPU copies and computation at the same time."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Pieces in flight: while one is computed, another one comes and a third one's answers leave.
_SLOTS = 3
#: Patches a piece at most: torch's attention kernels count these in one dimension of a grid, which ends at 65,535.
STEP = 32_768
#: Pieces of a locator's batch: enough of them that copies and computation overlap.
_PIECES = 8
#: Patches of such a batch.
BATCH = _PIECES * STEP


@dataclass
class _Slot:
    """One piece in flight: its stream, its patches and answers on the device, and the captured computation."""

    stream: Any
    given: Tensor
    found: Tensor
    graph: Any


class DevicePipeline:
    """Patches (n, size, size) on the host to answers (n, outputs) float32 on the host.

    module: patches (m, size, size) of counts on the device to answers (m, outputs). A call is cut into pieces of
    ``step`` patches, which travel in the type they have (uint16: half of float32). On a GPU each is copied, computed
    and copied back on the next of three streams; with ``graphs`` the kernels of a full piece are captured once and
    launched together. Patches in pinned memory are used in place; others are pinned first, which costs a copy.
    ``captured`` says, after the first call, whether that worked, and ``problem`` why not.
    """

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        device: str | torch.device,
        outputs: int = 2,
        step: int = STEP,
        graphs: bool = True,
    ) -> None:
        self.module, self.device, self.outputs = module, torch.device(device), outputs
        self.step, self.graphs = step, graphs
        self.captured, self.problem = False, ""
        self._slots: dict[tuple[torch.dtype, int], list[_Slot]] = {}

    def fit_into(self, batch: int) -> None:
        """Take pieces of an eighth of ``batch`` patches at most, so that halving it frees memory of the device."""
        step = min(self.step, max(batch // _PIECES, 1))
        if step < self.step:
            self.step = step
            self._slots.clear()

    @torch.inference_mode()
    def __call__(self, patches: NDArray[np.generic]) -> NDArray[np.float32]:
        source = torch.from_numpy(patches)
        if self.device.type == "cpu":
            pieces = [self.module(piece).float() for piece in source.split(self.step)] if len(source) else []
            return torch.cat(pieces).numpy() if pieces else np.zeros((0, self.outputs), np.float32)
        if not source.is_pinned():
            source = source.pin_memory()
        answers = torch.empty((len(source), self.outputs), pin_memory=True)
        with torch.cuda.device(self.device):
            self._flow(source, answers)
            torch.cuda.synchronize()
        return answers.numpy()

    def _flow(self, source: Tensor, answers: Tensor) -> None:
        slots = self._opened(source) if len(source) >= self.step else []
        for turn, start in enumerate(range(0, len(source), self.step)):
            there = slice(start, min(start + self.step, len(source)))
            piece, out = source[there], answers[there]
            slot = slots[turn % _SLOTS] if len(piece) == self.step else None
            if slot is None:  # the last one is shorter
                found = self.module(piece.to(self.device, non_blocking=True))
                out.copy_(found, non_blocking=True)
                continue
            with torch.cuda.stream(slot.stream):
                slot.given.copy_(piece, non_blocking=True)
                if slot.graph is None:
                    slot.found = self.module(slot.given)
                else:
                    slot.graph.replay()
                out.copy_(slot.found, non_blocking=True)

    def _opened(self, source: Tensor) -> list[_Slot]:
        """The slots for patches of this type and size; the first time they are made, which runs the module."""
        key = (source.dtype, source.shape[1])
        if key not in self._slots:
            slots = []
            for _ in range(_SLOTS):
                stream = torch.cuda.Stream()
                given = torch.empty_like(source[: self.step], device=self.device)
                given.copy_(source[: self.step])
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    for _ in range(2):  # compilers and libraries set themselves up
                        found = self.module(given)
                torch.cuda.synchronize()
                slot = _Slot(stream, given, found, None)
                if self.graphs:
                    self._capture(slot)
                slots.append(slot)
            self._slots = {key: slots}  # one kind at a time: each holds the activations of three pieces
        return self._slots[key]

    def _capture(self, slot: _Slot) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=slot.stream):
                slot.found = self.module(slot.given)
            slot.graph, self.captured = graph, True
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # an operation that cannot be captured is launched as it was written
            self.graphs, self.captured, self.problem = False, False, str(error).splitlines()[0][:300]
            with contextlib.suppress(RuntimeError):
                torch.cuda.synchronize()
            with torch.cuda.stream(slot.stream):
                slot.found = self.module(slot.given)

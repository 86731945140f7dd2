"""From crops to network inputs: random shifts, cropping and min-max normalization, as tensors on a device."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braggnn_edge.peaks.table import PeakTable


def min_max(patches: Tensor) -> Tensor:
    """(n, s, s) counts to [0, 1] by the patch's own minimum and maximum; a flat patch becomes zeros."""
    low = patches.amin((1, 2), keepdim=True)
    span = patches.amax((1, 2), keepdim=True) - low
    return (patches - low) / torch.where(span > 0, span, torch.ones_like(span))


@dataclass(frozen=True)
class Peaks:
    """Crops (n, size + 2 shift, size + 2 shift) in counts and offsets (n, 2) px of the label from the crop's centre.

    Of k labels, side by side, the offsets are (n, 2 k).
    """

    crops: Tensor
    offsets: Tensor
    size: int
    shift: int

    @staticmethod
    def of(table: PeakTable, reference: str, device: str | torch.device = "cpu") -> "Peaks":
        """The rows of a table that have a label of that reference."""
        table = table.where(table.has(reference))
        crops = torch.from_numpy(np.ascontiguousarray(table.crops, dtype=np.float32)).to(device)
        offsets = torch.from_numpy(table.offsets(reference).astype(np.float32)).to(device)
        return Peaks(crops, offsets, table.size, table.shift)

    def __len__(self) -> int:
        return len(self.crops)

    def shifted(self, index: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (b, size, size) of rows ``index`` moved by ``shifts`` (b, 2) px in [-shift, shift], and labels."""
        windows = self.crops.unfold(1, self.size, 1).unfold(2, self.size, 1)
        corner = shifts + self.shift
        return windows[index, corner[:, 0], corner[:, 1]], self.offsets[index] - shifts.repeat(
            1, self.offsets.shape[1] // 2
        )

    def centred(self, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """Patches and labels as in use, without shift."""
        m = self.shift
        return self.crops[start:stop, m : m + self.size, m : m + self.size], self.offsets[start:stop]


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, 1, epoch)).permutation(n)


@dataclass(frozen=True)
class Batches:
    """The training batches of iteration i, a pure function of (seed, i): a resumed run sees the same ones.

    Every epoch is a fresh permutation; with ``dihedral`` the patch and its label are also flipped and transposed at
    random, since a detector's rows and columns are interchangeable.
    """

    peaks: Peaks
    batch: int
    shift: int
    seed: int
    dihedral: bool = False

    def __call__(self, iteration: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """Patches (b, size, size) in counts and offsets (b, 2 k) px of k labels, the slice of ``rank`` of ``world``."""
        n = len(self.peaks)
        per_epoch = max(1, n // self.batch)
        epoch, step = divmod(iteration, per_epoch)
        order = _permutation(self.seed, epoch, n)
        rng = np.random.default_rng((self.seed, 2, iteration))
        index = order[step * self.batch : (step + 1) * self.batch]
        shifts = rng.integers(-self.shift, self.shift + 1, (len(index), 2))
        flips = rng.integers(0, 2, (len(index), 3))
        mine = slice(rank, None, world)
        device = self.peaks.crops.device
        as_tensor = lambda array: torch.from_numpy(np.ascontiguousarray(array[mine])).to(device)  # noqa: E731
        patches, offsets = self.peaks.shifted(as_tensor(index), as_tensor(shifts))
        return _reflect(patches, offsets, as_tensor(flips).bool()) if self.dihedral else (patches, offsets)


def _reflect(patches: Tensor, offsets: Tensor, flips: Tensor) -> tuple[Tensor, Tensor]:
    """Reflect rows, reflect columns and transpose where ``flips`` (b, 3) says so."""
    for axis in (0, 1):
        chosen = flips[:, axis]
        patches = torch.where(chosen[:, None, None], patches.flip(axis + 1), patches)
        sign = torch.ones_like(offsets)
        sign[:, axis::2] = (1 - 2 * chosen.to(offsets.dtype))[:, None]
        offsets = offsets * sign
    transposed = flips[:, 2]
    patches = torch.where(transposed[:, None, None], patches.transpose(1, 2), patches)
    return patches, torch.where(transposed[:, None], offsets.unflatten(1, (-1, 2)).flip(2).flatten(1), offsets)

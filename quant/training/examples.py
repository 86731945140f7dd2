"""What the integers' networks learn from: peaks of a labelled scan, or patches drawn from the family."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.splits import TRAIN, VALIDATION
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.simulation import family
from braggnn_edge.simulation.family_spec import FamilySpec
from braggnn_edge.training.dataset import Peaks
from braggnn_edge.universal.network import UniversalNetwork
from braggnn_edge.universal.train import VALIDATION_SHARD, answers

#: Of the family's patches so many are followed by one without counts, whose spot may be anywhere: of it nothing is
#: known, and a network that knows its uncertainty has to learn that it says so.
_EMPTY_EVERY = 500


@dataclass(frozen=True)
class Examples:
    """Patches to train on and held-out ones, with their labels; a second label of those is a teacher's answer."""

    data: Peaks
    held_out: Peaks

    @staticmethod
    def of_table(table: PeakTable) -> "Examples":
        """The training and validation peaks of a labelled scan. Raises UserError where there are none."""
        data, held_out = (Peaks.of(table.of(part), "best") for part in (TRAIN, VALIDATION))
        for part, peaks in (("train", data), ("validation", held_out)):
            if len(peaks) == 0:
                raise UserError(f"no {part} peaks with a label; label/summary.json says why peaks are excluded")
        return Examples(data, held_out)

    @staticmethod
    def of_family(
        spec: FamilySpec,
        seed: int,
        patches: int,
        validation: int,
        workers: int,
        teacher: UniversalNetwork | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> "Examples":
        """Patches drawn from the family, the same for the same spec and seed, whatever the number of processes."""
        drawn = family.draw(spec, seed, patches, 0, workers, progress)
        held = held_out_of_family(spec, seed, validation, workers)
        labels = drawn.offsets
        if teacher is not None:
            labels = np.concatenate([labels, answers(teacher, drawn.counts)[:, :2]], axis=1)
        empty = patches // _EMPTY_EVERY
        rng = np.random.default_rng((seed, 5))
        anywhere = rng.uniform(-spec.size / 2, spec.size / 2, (empty, 2)).astype(np.float32)
        counts = np.concatenate([drawn.counts, np.zeros((empty, spec.size, spec.size), np.float32)])
        labels = np.concatenate([labels, np.tile(anywhere, labels.shape[1] // 2)])
        return Examples(Peaks(torch.from_numpy(counts), torch.from_numpy(labels), spec.size, 0), held)

    @property
    def size(self) -> int:
        """Side of the patches, px."""
        return self.data.size


def held_out_of_family(spec: FamilySpec, seed: int, validation: int, workers: int) -> Peaks:
    """Patches of the family for validation, of shards that no training draws."""
    held = family.draw(spec, seed, validation, VALIDATION_SHARD, workers)
    return Peaks(torch.from_numpy(held.counts), torch.from_numpy(held.offsets), spec.size, 0)

"""The labelled peaks of a scan as a universal network takes them: centre patches, firm labels, batches with others."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.paired import reflections
from braggnn_edge.peaks.splits import SPLITS, TEST, TRAIN, VALIDATION
from braggnn_edge.peaks.table import Flag, PeakTable
from braggnn_edge.simulation.family import Patches
from braggnn_edge.training.dataset import Batches, Peaks

#: The fewest reflections of each split that say something.
FEWEST = {TRAIN: 200, VALIDATION: 50, TEST: 50}
#: Parameters of the fit in the order of its covariance that tell of a wrong position when they end on a bound: all but
#: the tilt, which has none, and the background, which is on its bound of 0 in every zero-suppressed scan.
_TELLING = [0, 1, 2, 3, 4, 6]
_BACKGROUND = 7


@dataclass(frozen=True)
class Labelled:
    """Peaks of one split: patches (n, size, size) counts, offsets (n, 2) px of the label, reflections (n,) of each.

    true: (n,) whether the label is the truth, else it is a fit; left_out: peaks that are not among these, since their
    label is a fit that ended on a bound.
    """

    patches: NDArray[np.float32]
    offsets: NDArray[np.float32]
    reflections: NDArray[np.int64]
    true: NDArray[np.bool_]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def independent(self) -> int:
        """Number of reflections."""
        return len(np.unique(self.reflections))

    @property
    def reference(self) -> str:
        """What the labels are: "truth", "voigt" or, of several scans, "best"."""
        return "truth" if self.true.all() else "best" if self.true.any() else "voigt"

    def where(self, mask: NDArray[np.bool_]) -> "Labelled":
        """The peaks where ``mask`` (n,) holds."""
        return Labelled(self.patches[mask], self.offsets[mask], self.reflections[mask], self.true[mask], self.left_out)


def soft(table: PeakTable) -> NDArray[np.bool_]:
    """(n,) whether the fit ended on a bound that a good fit keeps away from.

    A background of 0 is none of them. Where the covariance is not known, every bound counts.
    """
    variances = np.diagonal(table.peaks["voigt_covariance"], axis1=1, axis2=2)
    background_alone = (variances[:, _BACKGROUND] == 0) & (variances[:, _TELLING] != 0).all(1)
    return ((table.peaks["flags"] & Flag.AT_BOUND) != 0) & ~background_alone


def labelled(table: PeakTable, split: int, labels: str, size: int, firm: bool = True) -> Labelled:
    """The peaks of a split with a firm label ("best" or "voigt"), cut to the middle ``size`` px of their patches.

    firm: False takes those that :func:`soft` leaves out.
    """
    known = table.of(split)
    known = known.where(known.has(labels))
    fitted = np.ones(len(known.peaks), bool) if labels == "voigt" else ~known.has("truth")
    chosen = (fitted & soft(known)) != firm
    used = known.where(chosen)
    edge = (table.size - size) // 2
    patches = np.ascontiguousarray(used.patches()[:, edge : edge + size, edge : edge + size], np.float32)
    true = used.has("truth") & (labels == "best")
    offsets = used.offsets(labels).astype(np.float32)
    return Labelled(patches, offsets, reflections(used), true, int((~chosen).sum()))


def require_enough(splits: dict[int, Labelled]) -> None:
    """Refuse splits of too few reflections; UserError says how many there are and how many are expected."""
    if any(found.independent < FEWEST[split] for split, found in splits.items()):
        counted = ", ".join(
            f"{found.independent} for {SPLITS[split]} (expected {FEWEST[split]})" for split, found in splits.items()
        )
        without = sum(found.left_out for found in splits.values())
        raise UserError(
            f"tune: too few labelled reflections: {counted}; {without} peaks were left out because their fit ended on "
            "a bound, and label/summary.json says why others are excluded. Change [split], label more frames, or add a "
            "simulated [[scan]]"
        )


class Mixed:
    """Batches of labelled peaks and drawn patches, a pure function of the iteration, mirrored and transposed at random.

    share: of the drawn patches in a batch, 0 to below 1. With fewer labelled peaks than a batch wants of them, batches
    are smaller, and their share is the same.
    """

    def __init__(
        self, peaks: Labelled, drawn: Patches | None, batch: int, share: float, seed: int, device: str
    ) -> None:
        self._parts: list[tuple[Batches, bool]] = []

        def add(patches: NDArray[np.float32], offsets: NDArray[np.float32], wanted: int, true: bool) -> None:
            if wanted:
                tensors = torch.from_numpy(patches).to(device), torch.from_numpy(offsets).to(device)
                shuffled = Peaks(*tensors, patches.shape[-1], 0)
                batches = Batches(shuffled, min(wanted, len(patches)), 0, seed + len(self._parts), dihedral=True)
                self._parts.append((batches, true))

        wanted = min(max(round(batch * (1 - share)), 1), len(peaks))
        fitted = -(-wanted * int((~peaks.true).sum()) // len(peaks))
        for true, number in ((True, wanted - fitted), (False, fitted)):
            some = peaks.where(peaks.true == true)
            add(some.patches, some.offsets, number, true)
        if drawn is not None:
            add(drawn.counts, drawn.offsets, round(wanted * share / (1 - share)), True)

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor, Tensor]:
        """Patches (b, size, size) in counts, offsets (b, 2) px, and (b, 1) whether these are the truth."""
        found = [(*part(iteration), true) for part, true in self._parts]
        true = [torch.full((len(patches), 1), true, device=patches.device) for patches, _, true in found]
        return torch.cat([one for one, _, _ in found]), torch.cat([one for _, one, _ in found]), torch.cat(true)

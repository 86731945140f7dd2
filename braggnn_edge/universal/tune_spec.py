"""The table ``[tune]``: a short fit of a universal network to an experiment."""

from dataclasses import dataclass, field
from typing import Literal

from braggnn_edge.core.config import FilePath, refuse_unused
from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import LoopSpec


@dataclass(frozen=True)
class TuneSpec:
    """A short fit of a universal network to the labelled peaks of this configuration's scans.

    Patches that are drawn from `[family]` are mixed in, so that the network does not forget other spots.
    """

    initial: FilePath = "universal"  # network to start from: `"universal"`, which ships, or a `universal.npz`
    # training: `batch = 512`, `learning_rate = 0.002`, `schedule = "one_cycle"`, `max_iterations = 1500`,
    # `evaluate_every = 100`, `patience = 5`
    loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(512, 2e-3, "one_cycle", max_iterations=1500, evaluate_every=100, patience=5)
    )
    share: float = 0.5  # of the patches of a batch that come from `[family]`; the others are labelled peaks
    patches: int = 65_536  # drawn from `[family]` for training
    # `"best"`: truth of simulated peaks, fit of measured ones; `"voigt"`: fit of all. The test is always by `"best"`
    labels: Literal["best", "voigt"] = "best"
    beta: float = 0.5  # weight of a patch in the loss, as in `[universal]`

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise UserError(
                f"tune: share {self.share} is out of range; expected 0 to below 1: labelled peaks are the rest"
            )
        if not self.share:
            refuse_unused(self, ("patches",), "with share = 0")
        if self.patches < self.loop.batch:
            raise UserError(f"tune: patches {self.patches}; expected at least a batch ({self.loop.batch})")
        if not 0 <= self.beta <= 1:
            raise UserError(f"tune: beta {self.beta} is out of range; expected 0 to 1")

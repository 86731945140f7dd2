"""The table ``[universal]``: a float network that corrects the squared centroid, and how it is trained."""

from dataclasses import dataclass, field

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import LoopSpec


@dataclass(frozen=True)
class UniversalSpec:
    """The universal network: dense layers that correct the squared centroid and say how sure they are.

    It is trained on patches of `[family]`, which are drawn for it, and on no measured pixel.
    """

    dense: tuple[int, ...] = (512, 256)  # widths of the hidden dense layers
    # training: `batch = 512`, `learning_rate = 0.002`, `schedule = "one_cycle"`, `max_iterations = 60_000`,
    # `evaluate_every = 2000`, `patience = 0`
    loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(512, 2e-3, "one_cycle", max_iterations=60_000, evaluate_every=2000, patience=0)
    )
    patches: int = 1_474_560  # drawn for training
    validation: int = 24_576  # drawn for validation and for the calibration of sigma, others than for training
    # weight of a patch in the loss: its own sigma to this power; 0: the likelihood as it is, in which bright peaks
    # count most; 1: errors in px, in which faint peaks count most
    beta: float = 0.5

    def __post_init__(self) -> None:
        if not self.dense or min(self.dense) < 1:
            raise UserError(f"universal: dense {self.dense} needs at least one layer, all of positive widths")
        if self.patches < self.loop.batch or self.validation < 1000:
            raise UserError(
                f"universal: patches {self.patches} and validation {self.validation}; expected at least a batch "
                f"({self.loop.batch}), and 1000 for the calibration"
            )
        if not 0 <= self.beta <= 1:
            raise UserError(f"universal: beta {self.beta} is out of range; expected 0 to 1")

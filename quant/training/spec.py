"""The table ``[qat]``: what goes to the firmware, and how it is trained for that."""

from dataclasses import dataclass, field
from typing import Literal

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import LoopSpec, cubic_rise


@dataclass(frozen=True)
class QatSpec:
    """Fine-tuning of the quantized network.

    network: what goes to the firmware, the float network "compact" or "full" (then no compact one is trained), or the
    "circuit" of its own stage, which takes the place of this one; teacher:
    weight in [0, 1] of the full float network's answer in the target (0: labels only); sparsity: final fraction of
    pruned weights in each layer, reached over the first half of the iterations on the cubic schedule of Zhu and Gupta
    (arXiv:1710.01878); learn_scales: let the power-of-two exponents move in training; calibration: patches that set
    the activation scales; shift, dihedral, huber, loop: as in float training.
    """

    network: Literal["compact", "full", "circuit"] = "compact"
    loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(
            learning_rate=1e-3, schedule="one_cycle", max_iterations=4000, evaluate_every=250, patience=0
        )
    )
    shift: int = 1
    dihedral: bool = False
    huber: float = 0.0
    teacher: float = 0.0
    sparsity: float = 0.0
    learn_scales: bool = False
    calibration: int = 2048

    def __post_init__(self) -> None:
        if not 0 <= self.teacher <= 1 or not 0 <= self.sparsity < 1 or self.calibration < 1:
            raise UserError("qat: teacher must be in [0, 1], sparsity in [0, 1), calibration at least 1")
        if self.shift < 0 or self.huber < 0:
            raise UserError(f"qat: shift {self.shift} and huber {self.huber} must be 0 or more")

    def pruned(self, iteration: int) -> float:
        """Pruned fraction after ``iteration``."""
        return self.sparsity * cubic_rise(iteration, self.loop.max_iterations // 2)


#: Stage and name of each float network.
FLOAT_NETWORKS = {"full": ("train", "full"), "compact": ("compact", "compact")}

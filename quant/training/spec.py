"""The table ``[qat]``: what goes to the firmware, and how it is trained for that."""

from dataclasses import dataclass, field
from typing import Literal

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import LoopSpec, cubic_rise


@dataclass(frozen=True)
class QatSpec:
    """What goes to the firmware, and how it is trained for that."""

    # what goes to the firmware: what ships with the project and needs no training, `"shipped"` in layers or
    # `"shipped_circuit"`; the scan's own float network, `"compact"` or `"full"` (then no compact one is trained); the
    # `"circuit"` of its own table; or `"universal"`, the universal network quantized anew
    network: Literal["shipped", "shipped_circuit", "compact", "full", "circuit", "universal"] = "shipped"
    # as above, with its own defaults
    loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(
            learning_rate=1e-3, schedule="one_cycle", max_iterations=4000, evaluate_every=250, patience=0
        )
    )
    shift: int = 1  # as in `[full]`
    dihedral: bool = False  # as in `[full]`
    huber: float = 0.0  # as in `[full]`
    teacher: float = 0.0  # weight of the full network's answer in the target, 0 to 1
    sparsity: float = 0.0  # final share of pruned weights a layer
    learn_scales: bool = False  # let the power-of-two exponents train
    calibration: int = 2048  # patches that set the activation scales

    def __post_init__(self) -> None:
        if not 0 <= self.teacher <= 1 or not 0 <= self.sparsity < 1 or self.calibration < 1:
            raise UserError("qat: teacher must be in [0, 1], sparsity in [0, 1), calibration at least 1")
        if self.shift < 0 or self.huber < 0:
            raise UserError(f"qat: shift {self.shift} and huber {self.huber} must be 0 or more")

    @property
    def is_circuit(self) -> bool:
        """Whether the network is unrolled into a circuit, and not one of layers."""
        return self.network in ("circuit", "shipped_circuit")

    @property
    def is_shipped(self) -> bool:
        """Whether it comes with the project and is not trained."""
        return self.network in ("shipped", "shipped_circuit")

    @property
    def quantizes(self) -> bool:
        """Whether it is the scan's own float network, compact or full, quantized."""
        return self.network in FLOAT_NETWORKS

    def pruned(self, iteration: int) -> float:
        """Pruned fraction after ``iteration``."""
        return self.sparsity * cubic_rise(iteration, self.loop.max_iterations // 2)


#: Stage and name of each float network.
FLOAT_NETWORKS = {"full": ("train", "full"), "compact": ("compact", "compact")}

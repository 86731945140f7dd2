"""The table ``[universal_layers]``: the universal network quantized, in layers, and how it is trained."""

from dataclasses import dataclass, field

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import LoopSpec
from quant.training.circuit_spec import FrontEndSpec


@dataclass(frozen=True)
class UniversalLayersSpec:
    """The universal network quantized, with `qat.network = "universal"`.

    It begins with the float network's weights and is trained with rounding on patches of `[family]`. It takes the
    patch's exponent, corrects the integer centroid, and knows its uncertainty.
    """

    # what stands around the network, keys as in `[circuit.front_end]`; here `window = 11`, `bits = 8`, `exponent =
    # true`, `discarded_bits = 2`, `index_bits = 9`, `reciprocal_bits = 12`, `numerator_bits = 16`, `output_bits = 14`,
    # `output_frac = 10`
    front_end: FrontEndSpec = field(
        default_factory=lambda: FrontEndSpec(
            window=11, bits=8, exponent=True, discarded_bits=2, index_bits=9, reciprocal_bits=12, numerator_bits=16,
            output_bits=14, output_frac=10,
        )
    )  # fmt: skip
    weight_bits: int = 8  # of all layers
    activation_bits: int = 8  # of all hidden layers
    # training with rounding: `batch = 512`, `learning_rate = 0.0003`, `schedule = "one_cycle"`, `max_iterations =
    # 20_000`, `evaluate_every = 1000`, `patience = 0`
    loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(512, 3e-4, "one_cycle", max_iterations=20_000, evaluate_every=1000, patience=0)
    )
    patches: int = 983_040  # drawn for training
    validation: int = 24_576  # drawn for validation and for the calibration of sigma, others than for training
    teacher: float = 1.0  # weight of the universal network's answer in the target, 0 to 1
    beta: float = 0.5  # as in `[universal]`
    seed: int = 1  # added to the run's, so that its patches are others than those of the float network

    def __post_init__(self) -> None:
        if not 2 <= self.weight_bits <= 8 or not 2 <= self.activation_bits <= 8:
            raise UserError(
                f"universal_layers: weight_bits {self.weight_bits} and activation_bits {self.activation_bits}; "
                "expected 2 to 8 of each"
            )
        if self.patches < self.loop.batch or self.validation < 1000:
            raise UserError(
                f"universal_layers: patches {self.patches} and validation {self.validation}; expected at least a batch "
                f"({self.loop.batch}), and 1000 for the calibration"
            )
        if not self.front_end.exponent:
            raise UserError("universal_layers: front_end.exponent must be true: the universal network takes it")
        if not 0 <= self.teacher <= 1 or not 0 <= self.beta <= 1:
            raise UserError(f"universal_layers: teacher {self.teacher} and beta {self.beta}; expected 0 to 1 of each")

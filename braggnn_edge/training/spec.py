"""The tables ``[full]`` and ``[compact]``: a float network, and how it is trained."""

import math
from dataclasses import dataclass, field
from typing import Literal

from braggnn_edge.core.config import FilePath, refuse_unused
from braggnn_edge.core.errors import UserError

PATCH_SIZES = tuple(range(9, 25, 2))


@dataclass(frozen=True)
class NetworkSpec:
    """The layers of a float network. The defaults are the published BraggNN.

    In the firmware the slope must be 0.0, 0.01 or a power of two; `quant.power_of_two_slope` rounds any other. For the
    compact network the scenarios set `attention = false` and `slope = 0.0`, which is the smallest.
    """

    conv: tuple[int, ...] = (64, 32, 8)  # channels of the 3 x 3 convolutions
    dense: tuple[int, ...] = (16, 8, 4, 2)  # widths of the hidden dense layers
    attention: bool = True  # non-local block
    slope: float = 0.01  # of LeakyReLU; 0.0 is a ReLU
    attention_channels: int = 0  # inside the non-local block; 0: half of the first convolution's, as published
    # side of the windows whose maxima are the block's keys and values; 1: every position, as published. Divides
    # the patch's side - 2: 1, 3 or 9 for 11 px
    attention_pool: int = 1
    # the network corrects the centroid of the squared pixels, min-max normalized; false, as published: it is the whole
    # estimate
    centroid: bool = False

    def __post_init__(self) -> None:
        if not self.conv or min((*self.conv, *self.dense)) < 1:
            raise UserError(f"network: conv {self.conv} and dense {self.dense} need positive widths, at least one conv")
        if self.attention_channels < 0 or self.attention_pool < 1:
            raise UserError(
                f"network: attention_channels {self.attention_channels} and attention_pool {self.attention_pool} are "
                "out of range; expected at least 0 (half of the first convolution's) and at least 1 (every pixel)"
            )
        if self.attention and self.inner < 1:
            raise UserError(
                "network: attention needs at least 2 channels in the first convolution, or attention_channels"
            )
        # One network has one description.
        if not self.attention or self.attention_channels == self.conv[0] // 2:
            object.__setattr__(self, "attention_channels", 0)
        if not self.attention:
            object.__setattr__(self, "attention_pool", 1)

    @property
    def inner(self) -> int:
        """Channels inside the non-local block."""
        return self.attention_channels or self.conv[0] // 2

    def keys(self, size: int) -> int:
        """Keys of the non-local block for patches of a size that :meth:`check_patch_size` takes."""
        return ((size - 2) // self.attention_pool) ** 2

    def check_patch_size(self, size: int) -> None:
        """Refuse a size that is even, too small for the valid convolutions, or no multiple of the block's windows."""
        if size % 2 == 0 or size - 2 * len(self.conv) < 1:
            raise UserError(
                f"patch size {size} does not fit the network; expected an odd size of at least "
                f"{2 * len(self.conv) + 1} (the published sizes are {PATCH_SIZES[0]} to {PATCH_SIZES[-1]})"
            )
        side = size - 2
        if self.attention and side % self.attention_pool:
            fitting = ", ".join(str(pool) for pool in range(1, side + 1) if side % pool == 0)
            raise UserError(
                f"network: attention_pool {self.attention_pool} does not divide the {side} x {side} positions of a "
                f"patch of {size} px; expected one of {fitting}"
            )


@dataclass(frozen=True)
class LoopSpec:
    """How long and how fast to train."""

    batch: int = 512  # patches an iteration, over all devices
    learning_rate: float = 3e-4  # of Adam; the peak of a one-cycle schedule
    schedule: Literal["constant", "one_cycle"] = "constant"  # `"constant"` or `"one_cycle"`
    max_iterations: int = 80_000  # upper limit; 0 takes the network as it is begun, such as an `initial` checkpoint
    evaluate_every: int = 500  # iterations between validations, which are also checkpoints
    patience: int = 20  # validations without improvement before stopping; 0: never stops early

    def __post_init__(self) -> None:
        if (
            min(self.batch, self.evaluate_every) < 1
            or min(self.max_iterations, self.patience) < 0
            or self.learning_rate <= 0
        ):
            raise UserError(
                "batch, evaluate_every and learning_rate must be positive, max_iterations and patience 0 or more"
            )

    def rate(self, iteration: int) -> float:
        """Learning rate of one iteration: a pure function, so that a resumed run follows the same curve."""
        if self.schedule == "constant":
            return self.learning_rate
        warm = max(1, self.max_iterations // 20)
        if iteration < warm:
            return self.learning_rate * (iteration + 1) / warm
        progress = (iteration - warm) / max(1, self.max_iterations - warm)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class TrainSpec:
    """A float network and how it is trained. The defaults are the paper's recipe: Adam, 3e-4, batches of 512, squared
    error.

    The compact network goes to the firmware with `qat.network = "compact"`, the full one with `qat.network = "full"`.
    The published head of 16, 8, 4 and 2 units can lose one of the two directions in training ([how
    often](../explanation/ablation.md)). Such a network is trained again from other initial weights, three times in all.
    """

    network: NetworkSpec = field(default_factory=NetworkSpec)  # table below
    loop: LoopSpec = field(default_factory=LoopSpec)  # table below
    shift: int = 1  # largest random shift, px; at most that of `[peaks]`
    dihedral: bool = False  # random reflections and transpositions besides
    huber: float = 0.0  # corner of Huber's loss, px; 0: squared error
    precision: Literal["float32", "bfloat16"] = "float32"  # `"float32"`, or `"bfloat16"` for autocast
    initial: FilePath = ""  # checkpoint in the upstream form to start from
    # biases of the dense layers at the start: `"published"`, which is 0, or `"linear"`, so that no unit is dead and the
    # answer is the centre pixel
    initialize: Literal["published", "linear"] = "published"
    # `"best"`: truth of simulated peaks, fit of measured ones; `"voigt"`: fit of all
    labels: Literal["best", "voigt"] = "best"
    seed: int = 0  # added to the run's for the initial weights and the batches of this network alone

    def __post_init__(self) -> None:
        if min(self.shift, self.huber, self.seed) < 0:
            raise UserError(f"shift {self.shift}, huber {self.huber} and seed {self.seed} must be 0 or more")
        if self.initial:
            refuse_unused(self, ("initialize",), "beside initial")


def cubic_rise(iteration: int, over: int) -> float:
    """From 0 to 1 over the first ``over`` iterations, fast at first: the pruning schedule of Zhu and Gupta.

    Source: arXiv:1710.01878.
    """
    progress = min(1.0, iteration / max(1, over))
    return 1 - (1 - progress) ** 3

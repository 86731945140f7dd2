"""The tables ``[full]`` and ``[compact]``: a float network, and how it is trained."""

import math
from dataclasses import dataclass, field
from typing import Literal

from braggnn_edge.core.errors import UserError

PATCH_SIZES = tuple(range(9, 25, 2))


@dataclass(frozen=True)
class NetworkSpec:
    """Description of a network.

    conv: output channels of the 3 x 3 valid convolutions; dense: widths of the hidden dense layers (a last
    layer of 2 outputs is always added); attention: non-local block after the first convolution; slope: negative
    slope of every activation (0.01 in the paper, 0.0 is a plain ReLU). Two ways to make the block cheaper, reset where
    there is none: attention_channels: inside it (0: half of the first convolution's, as published); attention_pool:
    side of the square windows, side by side, whose maxima its keys and values are (1: every pixel, as published).
    """

    conv: tuple[int, ...] = (64, 32, 8)
    dense: tuple[int, ...] = (16, 8, 4, 2)
    attention: bool = True
    slope: float = 0.01
    attention_channels: int = 0
    attention_pool: int = 1

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
    """How long and how fast to train.

    max_iterations: upper limit, 0 to take the network as it is begun; evaluate_every: iterations between validations
    (and checkpoints); patience: validations without improvement before stopping early (0: never); learning_rate: of
    Adam, the peak of it for "one_cycle" (5 % warm-up, cosine to 1 % of the peak); batch: patches an iteration, over all
    devices.
    """

    batch: int = 512
    learning_rate: float = 3e-4
    schedule: Literal["constant", "one_cycle"] = "constant"
    max_iterations: int = 80_000
    evaluate_every: int = 500
    patience: int = 20

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
    """One float network and how it is trained.

    shift: largest random shift in px (the paper's m); dihedral: random reflections and transpositions besides; huber:
    corner in px of Huber's loss, which lets crowded peaks weigh less (0: the paper's squared error);
    precision: "float32", or "bfloat16" for autocast on a GPU; initial: a checkpoint in the upstream form to start
    from; labels: "best" (the truth of simulated peaks, the fit of measured ones) or "voigt" (the fit of all); seed:
    added to the run's for the initial weights and the batches alone; loop: see LoopSpec, whose defaults with these are
    the paper's recipe (Adam 3e-4, batch 512, MSE).
    """

    network: NetworkSpec = field(default_factory=NetworkSpec)
    loop: LoopSpec = field(default_factory=LoopSpec)
    shift: int = 1
    dihedral: bool = False
    huber: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    initial: str = ""
    labels: Literal["best", "voigt"] = "best"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.shift, self.huber, self.seed) < 0:
            raise UserError(f"shift {self.shift}, huber {self.huber} and seed {self.seed} must be 0 or more")


def cubic_rise(iteration: int, over: int) -> float:
    """From 0 to 1 over the first ``over`` iterations, fast at first: the pruning schedule of Zhu and Gupta.

    Source: arXiv:1710.01878.
    """
    progress = min(1.0, iteration / max(1, over))
    return 1 - (1 - progress) ** 3

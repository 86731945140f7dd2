"""A circuit and its training as configuration: the tables ``[circuit]`` and ``[circuit.front]``."""

from dataclasses import dataclass, field
from typing import Literal

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import LoopSpec, cubic_rise
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.normalize import Normalizer


@dataclass(frozen=True)
class CircuitNetworkSpec:
    """The network of a circuit.

    conv: channels of the convolutions (stride 1, no padding), which come first; kernel: their side, odd; dense: widths
    of the hidden dense layers; 2 outputs follow. weight_bits, activation_bits: largest widths, from which learning
    starts; widths: what has a width of its own, each "channel" or each "layer", or "fixed" for no learning.
    """

    conv: tuple[int, ...] = ()
    kernel: int = 3
    dense: tuple[int, ...] = (32, 16)
    weight_bits: int = 6
    activation_bits: int = 6
    widths: Literal["channel", "layer", "fixed"] = "channel"

    def __post_init__(self) -> None:
        if min((*self.conv, *self.dense, 1)) < 1:
            raise UserError(f"circuit network: conv {self.conv} and dense {self.dense} need positive widths")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UserError(f"circuit network: kernel {self.kernel} must be odd")
        if not 2 <= self.weight_bits <= 8 or not 2 <= self.activation_bits <= 8:
            raise UserError(
                f"circuit network: weight_bits {self.weight_bits} and activation_bits {self.activation_bits}; expected "
                "2 to 8 of each"
            )

    def side(self, window: int) -> int:
        """Side of the last convolution's result for a window, px; a window that is too small is refused."""
        side = window - (self.kernel - 1) * len(self.conv)
        if side < 1:
            raise UserError(
                f"circuit network: {len(self.conv)} convolutions of {self.kernel} px do not fit a window of {window} px"
            )
        return side


@dataclass(frozen=True)
class FrontSpec:
    """What stands around a circuit's network.

    window: side of the part of the patch that is used, px; normalizer: "block_shift" or "min_max"; bits: of a code;
    count_bits: of a count (unsigned for the shift, signed for min-max); subtract: the window's minimum, before the
    shift; centroid: "squared", "intensity" or "none", what the network corrects; drop: low bits of a weight of the
    centroid that are left out; index_bits, reciprocal_bits, numerator_bits: of its division
    (:mod:`quant.contract.centroid`); output_bits, output_frac: of the result, px.
    """

    window: int = 7
    normalizer: Literal["block_shift", "min_max"] = "block_shift"
    bits: int = 6
    count_bits: int = 16
    subtract: bool = False
    centroid: Literal["squared", "intensity", "none"] = "squared"
    drop: int = 4
    index_bits: int = 6
    reciprocal_bits: int = 9
    numerator_bits: int = 12
    output_bits: int = 13
    output_frac: int = 9

    def __post_init__(self) -> None:
        self.made()

    def made(self) -> tuple[Normalizer | BlockShift, Centroid | None, Format]:
        """The normalizer, the centroid and the format of the result; UserError for what cannot be."""
        if not 1 <= self.output_frac <= 16 or not self.output_frac + 2 <= self.output_bits <= 24:
            raise UserError(
                f"circuit: output_bits {self.output_bits} and output_frac {self.output_frac}; expected 1 to 16 "
                "fraction bits, and at least 2 bits more in all, at most 24"
            )
        normalizer: Normalizer | BlockShift
        if self.normalizer == "min_max":
            if self.subtract:
                raise UserError("circuit: the min_max normalizer subtracts the minimum anyway; leave out subtract")
            normalizer = Normalizer(self.bits, self.count_bits)
        else:
            normalizer = BlockShift(self.bits, self.count_bits, self.subtract)
        output = Format(self.output_bits, self.output_frac, signed=True)
        if self.centroid == "none":
            return normalizer, None, output
        power = 2 if self.centroid == "squared" else 1
        drop = self.drop if power == 2 else 0
        widths = {name: getattr(self, name) for name in ("index_bits", "reciprocal_bits", "numerator_bits")}
        base = Centroid.of_power(self.window, self.bits, power, drop, frac=self.output_frac, **widths)
        return normalizer, base, output


@dataclass(frozen=True)
class CircuitSpec:
    """A circuit and how it is trained.

    front, network: what it is; float_loop: training without rounding; loop: with rounding, pruning and the budget;
    shift, dihedral, huber: as in float training; teacher: weight in [0, 1] of the full float network's answer in the
    target; sparsity, channel_sparsity: final shares of masked weights of a layer and of masked hidden dense channels,
    on the cubic schedule of Zhu and Gupta (arXiv:1710.01878) over the first half; lut_budget: look-up tables of the
    network by :mod:`quant.contract.lut_model`, 0 for none: the loss grows by ``pressure`` for each doubling above a
    bound that falls to it over the first half.
    """

    front: FrontSpec = field(default_factory=FrontSpec)
    network: CircuitNetworkSpec = field(default_factory=CircuitNetworkSpec)
    float_loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(512, 3e-3, "one_cycle", max_iterations=6000, evaluate_every=1000, patience=0)
    )
    loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(512, 1e-3, "one_cycle", max_iterations=10_000, evaluate_every=500, patience=0)
    )
    shift: int = 0
    dihedral: bool = True
    huber: float = 0.1
    teacher: float = 0.0
    sparsity: float = 0.0
    channel_sparsity: float = 0.0
    lut_budget: int = 0
    pressure: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.teacher <= 1 or not 0 <= self.sparsity < 1 or not 0 <= self.channel_sparsity < 1:
            raise UserError("circuit: teacher must be in [0, 1], sparsity and channel_sparsity in [0, 1)")
        if min(self.shift, self.huber, self.lut_budget, self.pressure, self.seed) < 0:
            raise UserError("circuit: shift, huber, lut_budget, pressure and seed must be 0 or more")
        self.network.side(self.front.window)

    def check_patch_size(self, size: int) -> None:
        """Refuse patches of ``size`` px that do not hold the window."""
        if self.front.window > size:
            raise UserError(f"circuit: a window of {self.front.window} px does not fit patches of {size} px")

    def risen(self, iteration: int) -> float:
        """From 0 to 1 over the first half of the rounded training, fast at first."""
        return cubic_rise(iteration, self.loop.max_iterations // 2)

"""A circuit and its training as configuration: the tables ``[circuit]`` and ``[circuit.front_end]``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from braggnn_edge.core.config import refuse_unused
from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import LoopSpec, cubic_rise
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.normalize import Normalizer


@dataclass(frozen=True)
class CircuitNetworkSpec:
    """The network of a circuit. Two outputs follow its last layer, with sigma four."""

    conv: tuple[int, ...] = ()  # channels of the convolutions, which come first
    kernel: int = 3  # their side, odd
    dense: tuple[int, ...] = (32, 16)  # widths of the hidden dense layers
    weight_bits: int = 6  # widest weight of a channel, 2 to 8
    activation_bits: int = 6  # widest activation, 2 to 8
    # what learns a width of its own: each `"channel"`, each `"layer"`, or nothing: `"fixed"`
    widths: Literal["channel", "layer", "fixed"] = "channel"

    def __post_init__(self) -> None:
        if min((*self.conv, *self.dense, 1)) < 1:
            raise UserError(f"circuit network: conv {self.conv} and dense {self.dense} need positive widths")
        if not self.conv:
            refuse_unused(self, ("kernel",), "without convolutions")
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


#: Keys of the front end that have no effect with each centroid.
UNUSED_KEYS: dict[str, tuple[str, ...]] = {
    "squared": (),
    "intensity": ("discarded_bits",),
    "none": ("discarded_bits", "index_bits", "reciprocal_bits", "numerator_bits"),
}


@dataclass(frozen=True)
class FrontEndSpec:
    """What stands around the network of a circuit or of the layers that ship: window, normalizer and centroid."""

    RENAMED: ClassVar[Mapping[str, str]] = {"drop": "discarded_bits"}

    window: int = 7  # side of the part of the patch that is used, px
    # `"block_shift"`, or `"min_max"` with a table of reciprocals
    normalizer: Literal["block_shift", "min_max"] = "block_shift"
    bits: int = 6  # of an input code
    count_bits: int = 16  # of a count: unsigned for `"block_shift"`, signed for `"min_max"`
    subtract: bool = False  # the window's minimum, before the shift
    exponent: bool = False  # how far the shift goes, which says how bright the patch is, is an input of the network too
    # what the network corrects: `"squared"`, `"intensity"`, or `"none"`
    centroid: Literal["squared", "intensity", "none"] = "squared"
    discarded_bits: int = 4  # low bits of a squared code that the centroid leaves out
    index_bits: int = 6  # log2 of the entries of the division's table
    reciprocal_bits: int = 9  # of one entry
    numerator_bits: int = 12  # of the numerator that is multiplied by it
    output_bits: int = 13  # of the result, signed
    output_frac: int = 9  # fraction bits of the result, px

    def __post_init__(self) -> None:
        refuse_unused(self, UNUSED_KEYS[self.centroid], f"with centroid = {self.centroid!r}")
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
            if self.subtract or self.exponent:
                raise UserError(
                    "circuit: the min_max normalizer subtracts the minimum anyway, and has no exponent; leave out "
                    "subtract and exponent"
                )
            normalizer = Normalizer(self.bits, self.count_bits)
        else:
            normalizer = BlockShift(self.bits, self.count_bits, self.subtract)
        output = Format(self.output_bits, self.output_frac, signed=True)
        if self.centroid == "none":
            return normalizer, None, output
        power, discarded_bits = (2, self.discarded_bits) if self.centroid == "squared" else (1, 0)
        widths = {name: getattr(self, name) for name in ("index_bits", "reciprocal_bits", "numerator_bits")}
        base = Centroid.of_power(self.window, self.bits, power, discarded_bits, frac=self.output_frac, **widths)
        return normalizer, base, output


@dataclass(frozen=True)
class CircuitSpec:
    """A circuit and how it is trained, with `qat.network = "circuit"` ([circuits](../explanation/circuits.md)).

    Pruning, LUT budget and learned widths settle in the first 60 % of `loop`; then widths and zeros stay as they are.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"front": "front_end", "pressure": "lut_penalty"}

    front_end: FrontEndSpec = field(default_factory=FrontEndSpec)  # what stands around the network, table below
    network: CircuitNetworkSpec = field(default_factory=CircuitNetworkSpec)  # table below
    # training without rounding: `batch = 512`, `learning_rate = 0.003`, `schedule = "one_cycle"`, `max_iterations
    # = 6000`, `evaluate_every = 1000`, `patience = 0`
    float_loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(512, 3e-3, "one_cycle", max_iterations=6000, evaluate_every=1000, patience=0)
    )
    # training with rounding: as before, but `learning_rate = 0.001`, `max_iterations = 10_000`, `evaluate_every =
    # 500`
    loop: LoopSpec = field(
        default_factory=lambda: LoopSpec(512, 1e-3, "one_cycle", max_iterations=10_000, evaluate_every=500, patience=0)
    )
    shift: int = 0  # as in `[full]`
    dihedral: bool = True  # as in `[full]`
    huber: float = 0.1  # as in `[full]`
    # what it learns from: `"labels"`, the scan's training peaks, or `"family"`, patches drawn from `[family]`
    source: Literal["labels", "family"] = "labels"
    patches: int = 737_280  # drawn for training, of the family
    validation: int = 24_576  # drawn for validation, of the family
    # two more outputs, ln sigma (row, col); then the loss is a likelihood and `huber` has no effect
    sigma: bool = False
    beta: float = 0.5  # as in `[universal]`, with sigma
    # weight of a teacher's answer in the target, 0 to 1: of the full network with labels, of the universal one with the
    # family
    teacher: float = 0.0
    sparsity: float = 0.0  # final share of masked weights a layer
    channel_sparsity: float = 0.0  # final share of masked channels of a hidden dense layer
    lut_budget: int = 0  # look-up tables of the network by the model, 0: no budget
    lut_penalty: float = 0.01  # what the loss grows by for each doubling of the budget, this one or a search's
    seed: int = 0  # added to the run's

    def __post_init__(self) -> None:
        if not 0 <= self.teacher <= 1 or not 0 <= self.sparsity < 1 or not 0 <= self.channel_sparsity < 1:
            raise UserError("circuit: teacher must be in [0, 1], sparsity and channel_sparsity in [0, 1)")
        if min(self.shift, self.huber, self.lut_budget, self.lut_penalty, self.seed) < 0:
            raise UserError("circuit: shift, huber, lut_budget, lut_penalty and seed must be 0 or more")
        if not 0 <= self.beta <= 1 or self.patches < 1 or self.validation < 1000:
            raise UserError("circuit: beta must be in [0, 1], patches at least 1, validation at least 1000")
        if self.source == "labels":
            refuse_unused(self, ("patches", "validation"), 'with source = "labels"')
        else:
            refuse_unused(self, ("shift",), 'with source = "family"')
        refuse_unused(self, ("huber",) if self.sigma else ("beta",), f"with sigma = {str(self.sigma).lower()}")
        self.network.side(self.front_end.window)
        if self.front_end.exponent and self.network.conv:
            raise UserError("circuit: an exponent has no place among convolutions; leave conv or exponent out")

    def check_patch_size(self, size: int) -> None:
        """Refuse patches of ``size`` px that do not hold the window."""
        if self.front_end.window > size:
            raise UserError(f"circuit: a window of {self.front_end.window} px does not fit patches of {size} px")

    def risen(self, iteration: int) -> float:
        """From 0 to 1 over the first half of the rounded training, fast at first."""
        return cubic_rise(iteration, self.loop.max_iterations // 2)

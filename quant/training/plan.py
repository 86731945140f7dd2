"""The bit-width plan of a quantized network: the ``[quant]`` table of a configuration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import NetworkSpec
from quant.contract.arithmetic import Codes, Format
from quant.contract.centroid import Centroid
from quant.contract.tables import difference_frac, exp_table, reciprocal_table

#: Widest weight and activation: 16 + 16 bits and a fan-in up to 2**16 stay below the 53 bits of float64, in
#: which the quantized PyTorch network is evaluated.
MAX_BITS = 16

#: Widest code in the non-local block: a weight of the softmax times a value, summed over 441 pixels, has
#: 12 + 16 + 12 + 9 bits, below the 53 of float64; and its tables have at most 2**12 entries.
MAX_ATTENTION_BITS = 12

#: Widest weight of a pixel in the centroid that a network may correct.
_CENTROID_BITS = 12

#: The slope of the paper as an integer multiplier: 164 / 2**14 = 0.01000977.
_EXACT_SLOPES = {0.01: (164, 14)}


@dataclass(frozen=True)
class AttentionPlan:
    """Bit widths of the non-local block, where the network has one. All codes are signed but those of the tables.

    The steps are those of the [integer contract](numerics.md#the-non-local-block).
    """

    weight_bits: int = 8  # theta, phi, g and out
    input_bits: int = 8  # result of the first convolution, which the residual carries too
    query_bits: int = 8  # queries
    key_bits: int = 8  # keys
    value_bits: int = 8  # values
    difference_bits: int = 8  # log2 of the entries of the exponential's table
    exponential_bits: int = 8  # of one entry
    reciprocal_index_bits: int = 8  # log2 of the entries of the reciprocal's table
    reciprocal_bits: int = 12  # of one entry
    mixed_bits: int = 8  # weighted mean of the values

    def __post_init__(self) -> None:
        for key in fields(self):
            if key.name != "reciprocal_bits":
                _check(f"quant.attention.{key.name}", getattr(self, key.name), 2, MAX_ATTENTION_BITS)
        _check("quant.attention.reciprocal_bits", self.reciprocal_bits, self.reciprocal_index_bits + 1, MAX_BITS)

    def check_keys(self, keys: int) -> None:
        """Refuse an index of the reciprocal's table that has more bits than sums have below their leading one.

        The exponentials of ``keys`` keys sum to ``keys * (2**E - 1)`` at most, whose bits are those of the widest sum.
        """
        most = (keys * self.exponential.high).bit_length() - 1
        if self.reciprocal_index_bits > most:
            raise UserError(
                f"quant.attention.reciprocal_index_bits {self.reciprocal_index_bits} is more than the sums of {keys} "
                f"exponentials of {self.exponential_bits} bits have below their leading one; expected at most {most}"
            )

    @property
    def exponential(self) -> Format:
        """Format of the exponentials: unsigned, below 1."""
        return Format(self.exponential_bits, self.exponential_bits, signed=False)

    @property
    def difference(self) -> Format:
        """Format of the exponential table's index: the finest that reaches where the exponential rounds to 0."""
        return Format(self.difference_bits, difference_frac(self.difference_bits, self.exponential), signed=False)

    @property
    def reciprocal(self) -> Format:
        """Format of the reciprocals: unsigned, below 1."""
        return Format(self.reciprocal_bits, self.reciprocal_bits, signed=False)

    def tables(self) -> tuple[Codes, Codes]:
        """The exponential's and the reciprocal's table."""
        return (
            exp_table(self.difference, self.exponential),
            reciprocal_table(self.reciprocal_index_bits, self.reciprocal_bits),
        )


@dataclass(frozen=True)
class BitPlan:
    """Bit widths of a network of layers."""

    input_bits: int = 8  # unsigned input codes
    weight_bits: int | tuple[int, ...] = 6  # one number, or one a layer
    activation_bits: int | tuple[int, ...] = 8  # one number, or one a hidden layer
    output_bits: int = 16  # signed result
    output_frac: int = 11  # fraction bits of the result, px
    rounding: str = "floor"  # `"floor"` only
    power_of_two_slope: bool = False  # round the negative slope to the nearest power of two
    attention: AttentionPlan = field(default_factory=AttentionPlan)  # widths of the non-local block, table below

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):  # a TOML array arrives as a list
                value = tuple(value)
                object.__setattr__(self, name, value)
            if value == ():
                raise UserError(f"quant.{name} is empty; give one number for all layers or one per layer")
            for bits in value if isinstance(value, tuple) else (value,):
                _check(f"quant.{name}", bits, 2, MAX_BITS)  # 1 bit means bipolar weights in QONNX
        _check("quant.input_bits", self.input_bits, 2, MAX_BITS)
        _check("quant.output_bits", self.output_bits, 2, 24)  # QONNX carries values in float32: 24 bits exactly
        _check("quant.output_frac", self.output_frac, 0, 24)
        if self.rounding != "floor":
            raise UserError(f"quant.rounding {self.rounding!r} is not available; expected 'floor'")

    @property
    def input(self) -> Format:
        """Format of the input codes."""
        return Format(self.input_bits, self.input_bits, signed=False)

    @property
    def output(self) -> Format:
        """Format of the output codes: offsets in pixels."""
        return Format(self.output_bits, self.output_frac, signed=True)

    def centroid(self, spec: NetworkSpec, size: int) -> Centroid | None:
        """The centroid in integers that the network ``spec`` corrects in patches of ``size`` px, if it does.

        Raises UserError for input and output widths that it cannot have.
        """
        if not spec.centroid:
            return None
        discarded_bits = max(0, 2 * self.input_bits - _CENTROID_BITS)
        return Centroid.of_power(size, self.input_bits, 2, discarded_bits, frac=self.output_frac)

    def weights(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Weight bits of each layer of ``spec``, the block's four after the first; another length is refused."""
        first, *others = _spread("weight_bits", self.weight_bits, len(spec.conv) + len(spec.dense) + 1, spec)
        return (first, *((self.attention.weight_bits,) * 4 if spec.attention else ()), *others)

    def activations(self, spec: NetworkSpec) -> tuple[int, ...]:
        """Activation bits after each hidden layer of ``spec``; a plan of another length is refused."""
        return _spread("activation_bits", self.activation_bits, len(spec.conv) + len(spec.dense), spec)

    def check(self, spec: NetworkSpec, size: int | None = None) -> None:
        """Refuse a network that this plan does not describe, or that has no quantized form for patches of ``size``."""
        self.slope(spec)
        self.weights(spec)
        self.activations(spec)
        if size is not None:
            self.centroid(spec, size)
            if spec.attention:
                self.attention.check_keys(spec.keys(size))

    def slope(self, spec: NetworkSpec) -> tuple[int, int] | None:
        """``spec``'s negative slope as (code, frac), worth ``code * 2**-frac``; None for a plain ReLU.

        A slope that is neither a power of two below 1 nor 0.01 is refused, unless it is rounded to one.
        """
        if spec.slope == 0:
            return None
        mantissa, _ = math.frexp(spec.slope)
        if 0 < spec.slope < 1 and (self.power_of_two_slope or mantissa == 0.5):
            return 1, max(-round(math.log2(spec.slope)), 1)
        if spec.slope not in _EXACT_SLOPES:
            raise UserError(
                f"network.slope {spec.slope} has no quantized form; expected 0.0 (a plain ReLU), 0.01, a power of two "
                "such as 0.0078125, or quant.power_of_two_slope = true"
            )
        return _EXACT_SLOPES[spec.slope]


def _check(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{name} {value!r} is out of range; expected whole numbers from {low} to {high}")


def _spread(name: str, value: int | tuple[int, ...], count: int, spec: NetworkSpec) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * count
    if len(value) != count:
        raise UserError(
            f"quant.{name} has {len(value)} entries, but the network conv {spec.conv} dense {spec.dense} "
            f"needs {count}; give one number for all layers or one per layer"
        )
    return value

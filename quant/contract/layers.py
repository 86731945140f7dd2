"""The plain layers of the integer network: sums of products, requantizations, flattening."""

from dataclasses import dataclass

from quant.contract.arithmetic import Codes, Format


@dataclass(frozen=True)
class Linear:
    """A convolution or a dense layer: ``accumulator = sum(weight * input) + bias``, exact and never rounded.

    kind is "conv2d" (weight (out, in, kh, kw), stride 1, no padding) or "dense" (weight (out, in)). Bias codes are
    at the accumulator's fraction, ``input.frac + weight.frac``. The accumulator format is sized from the actual
    weights by interval arithmetic (:func:`quant.contract.arithmetic.linear_bounds`).
    """

    name: str
    kind: str
    weight: Codes
    weight_format: Format
    bias: Codes
    accumulator: Format


@dataclass(frozen=True)
class Requantize:
    """kind "relu" or "identity": max(0, x) if relu, then shift with rounding, then saturation to ``output``."""

    name: str
    kind: str
    output: Format
    rounding: str = "floor"


@dataclass(frozen=True)
class Leaky(Requantize):
    """kind "leaky": codes a below 0 are multiplied by the slope ``slope_code * 2**-slope_frac``, with one rounding.

    With s = frac(a) - output.frac: sat(round(a / 2**s)) for a >= 0, sat(round(a * slope_code / 2**(s + slope_frac)))
    below. A slope of 2**-k has slope_code 1 and slope_frac k.
    """

    slope_code: int = 1
    slope_frac: int = 7


@dataclass(frozen=True)
class Flatten:
    """(channels, rows, cols) to a vector, in that order (channel slowest)."""

    name: str
    kind: str = "flatten"

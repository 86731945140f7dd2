"""Formats as hls4ml's types."""

from quant.contract.arithmetic import Format
from quant.contract.layers import Linear

#: hls4ml's rounding mode of each of ours.
ROUNDING_MODES = {"floor": "TRN", "half_up": "RND"}


def precision(format_: Format, rounding: str = "floor", saturate: bool = False) -> str:
    """hls4ml's text of a format: the plain (truncating, wrapping) type, or the one that requantizes."""
    kind = "fixed" if format_.signed else "ufixed"
    modes = f"{ROUNDING_MODES[rounding]},{'SAT' if saturate else 'WRAP'}"
    return f"{kind}<{format_.bits},{format_.bits - format_.frac},{modes},0>"


def bias_format(layer: Linear) -> Format:
    """The narrowest format of the bias, at the accumulator's fraction."""
    return Format.holding(int(layer.bias.min()), int(layer.bias.max()), layer.accumulator.frac)


def slope_format(code: int, frac: int) -> Format:
    """The narrowest format of a leaky activation's slope, ``code * 2**-frac``."""
    return Format.holding(0, code, frac)

"""The arithmetic of the integer contract: fixed-point formats, requantization, interval bounds.

A tensor is integer codes and a :class:`Format`; ``value = code * 2**-frac``. This module is the only place where
a value becomes a code and where a code changes its format; every other form (Brevitas, QONNX, HLS, RTL) is
compared with what is written here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError

Codes = NDArray[np.int64]

#: Rounding modes by name, as ap_fixed calls them: floor is AP_TRN, half_up is AP_RND.
ROUNDINGS = ("floor", "half_up")


@dataclass(frozen=True)
class Format:
    """A fixed-point format: ``bits`` in all (sign included), ``frac`` of them (may be negative) after the point."""

    bits: int
    frac: int
    signed: bool

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 62:
            raise UserError(f"a format of {self.bits} bits cannot be simulated exactly; use 1 to 62 bits")

    @property
    def low(self) -> int:
        """Smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def ap_type(self) -> str:
        """The HLS type that holds exactly these codes, wrapping and truncating (never exercised when correct)."""
        return f"ap_{'' if self.signed else 'u'}fixed<{self.bits},{self.bits - self.frac}>"

    def values(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Codes to real values, exact in float64 up to 53 bits."""
        return np.ldexp(np.asarray(codes, dtype=np.float64), -self.frac)

    @staticmethod
    def holding(low: int, high: int, frac: int) -> "Format":
        """The narrowest format at ``frac`` that holds every integer code of ``[low, high]``."""
        signed = low < 0
        bits = max(int(max(high, 0)).bit_length(), int(~low).bit_length() if signed else 0) + (1 if signed else 0)
        return Format(max(bits, 1), frac, signed)


def shift_round(codes: NDArray[np.integer], shift: int, rounding: str = "floor") -> Codes:
    """Divide codes by ``2**shift`` with the named rounding; a negative shift multiplies, exactly."""
    if rounding not in ROUNDINGS:
        raise UserError(f"rounding {rounding!r} is unknown; expected one of {', '.join(ROUNDINGS)}")
    wide = np.asarray(codes, dtype=np.int64)
    if shift <= 0:
        return np.left_shift(wide, -shift)
    if rounding == "half_up":
        wide = wide + (1 << (shift - 1))
    return np.right_shift(wide, shift)


def requantize(codes: NDArray[np.integer], frac: int, to: Format, rounding: str = "floor") -> tuple[Codes, int]:
    """Codes at ``frac`` to codes of format ``to``: shift with rounding, then saturate.

    Returns the codes and the number of elements that saturated.
    """
    rounded = shift_round(codes, frac - to.frac, rounding)
    clipped = np.clip(rounded, to.low, to.high)
    return clipped, int(np.count_nonzero(clipped != rounded))


def quantize(values: NDArray[np.floating], to: Format, rounding: str = "floor") -> tuple[Codes, int]:
    """Real values to codes of format ``to``, with the number that saturated. NaN is refused."""
    scaled = np.ldexp(np.asarray(values, dtype=np.float64), to.frac)
    if not np.isfinite(scaled).all():
        raise UserError("a value to quantize is NaN or infinite; clean the input before it is quantized")
    rounded = np.floor(scaled + 0.5) if rounding == "half_up" else np.floor(scaled)
    clipped = np.clip(rounded, to.low, to.high)
    return clipped.astype(np.int64), int(np.count_nonzero(clipped != rounded))


def exact_codes(values: NDArray[np.floating], frac: int, name: str) -> Codes:
    """Real values that are already multiples of ``2**-frac`` to codes; anything else is an error naming ``name``."""
    scaled = np.ldexp(np.asarray(values, dtype=np.float64), frac)
    codes = np.rint(scaled)
    if not np.array_equal(codes, scaled):
        raise UserError(f"{name}: values are not multiples of 2**-{frac}; the tensor is not on its declared grid")
    return codes.astype(np.int64)


def power_of_two_exponent(scale: float, name: str) -> int:
    """The integer ``e`` with ``scale == 2**e``; any other scale is refused by an error that names ``name``."""
    mantissa, exponent = np.frexp(float(scale))
    if mantissa != 0.5:
        raise UserError(
            f"{name}: scale {float(scale)!r} is not a power of two; export it with a power-of-two scaling "
            "(restrict_scaling_type POWER_OF_TWO in Brevitas)"
        )
    return int(exponent) - 1


def linear_bounds(weight: Codes, bias: Codes, low: int, high: int) -> tuple[int, int]:
    """Exact bounds of ``weight @ x + bias`` over all ``x`` with codes in ``[low, high]``.

    ``weight`` is (outputs, inputs), ``bias`` (outputs,). Every partial sum, in any order, lies within the bounds
    widened to include 0, which is what is returned: an accumulator of that range cannot overflow at any step.
    """
    positive = np.where(weight > 0, weight, 0).sum(axis=1)
    negative = np.where(weight < 0, weight, 0).sum(axis=1)
    upper = positive * max(high, 0) + negative * min(low, 0) + np.maximum(bias, 0)
    lower = positive * min(low, 0) + negative * max(high, 0) + np.minimum(bias, 0)
    return min(int(lower.min()), 0), max(int(upper.max()), 0)


def checked(
    values: NDArray[np.generic], shape: tuple[int, ...], low: int, high: int, what: str, remedy: str
) -> NDArray[np.integer]:
    """Codes or counts (n, *shape) as they are; UserError for another shape, no integers, or values out of range.

    what: they are called so in messages; remedy: how right ones are made.
    """
    found = np.asarray(values)
    if found.shape[1:] != shape or found.dtype.kind not in "iu":
        raise UserError(
            f"{what} are {found.dtype} of shape {found.shape}, expected integers (n, {', '.join(map(str, shape))})"
        )
    if found.size and not low <= int(found.min()) <= int(found.max()) <= high:
        raise UserError(f"{what} span {found.min()} to {found.max()}, expected {low} to {high}; {remedy}")
    return found

"""The two tables of the non-local block's softmax, computed once and stored as data in the artifact."""

import numpy as np
from numpy.typing import NDArray

from quant.contract.arithmetic import Codes, Format


def exp_table(difference: Format, exponential: Format) -> Codes:
    """exp(-t * 2**-difference.frac) for each t, at the scale where exp(0) is the largest code; the last entry is 0.

    The last index stands for every difference beyond the table.
    """
    arguments = difference.values(np.arange(1 << difference.bits))
    table = np.rint(exponential.high * np.exp(-arguments)).astype(np.int64)
    table[-1] = 0
    return table


def difference_frac(bits: int, exponential: Format) -> int:
    """The finest fraction at which ``bits`` bits reach the differences whose exponential rounds to 0."""
    reach = np.log(2.0 * exponential.high)
    return int(np.floor(np.log2(((1 << bits) - 1) / reach)))


def reciprocal_table(index_bits: int, bits: int) -> Codes:
    """2**(bits + T) / (2**T + r + 1/2) for each r below 2**T, rounded to the nearest integer, at most 2**bits - 1."""
    r = np.arange(1 << index_bits, dtype=np.int64)
    denominator = (2 << index_bits) + 2 * r + 1
    nearest = ((4 << (bits + index_bits)) + denominator) // (2 * denominator)
    return np.minimum(nearest, (1 << bits) - 1)


def leading_bits(sums: Codes, index_bits: int) -> tuple[Codes, Codes]:
    """Of sums of at least 1: the ``index_bits`` bits below the leading one (zeros beyond the last), and bit_length."""
    mantissa, length = np.frexp(sums.astype(np.float64))  # exact below 2**53; the mantissa is in [1/2, 1)
    index = np.floor(np.ldexp(mantissa, index_bits + 1)).astype(np.int64) - (1 << index_bits)
    return index, length.astype(np.int64)


def sum_tables(most: int, index_bits: int, bits: int) -> tuple[Codes, NDArray[np.float64]]:
    """For each sum S up to ``most``: the reciprocal's index r, and 2**-(bits - 1 + L), so that 1 / S is about R * that.

    Sum 0, which no row of exponentials has, is given the entries of 1.
    """
    index, length = leading_bits(np.maximum(np.arange(most + 1), 1), index_bits)
    return index, np.ldexp(1.0, -(bits - 1 + length))

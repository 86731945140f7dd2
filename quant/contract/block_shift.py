"""The block-floating normalizer: one shift for all pixels of a patch, part of the integer contract.

A code means ``code * 2**-bits`` and is a pixel's count over the power of two above the brightest pixel, from below.
It costs a shifter a pixel, min-max normalization (:mod:`quant.contract.normalize`) a multiplier a pixel and two
searches.

Let B = ``bits``, W = ``count_bits``. For one patch:

 1. count = floor(value), saturated to unsigned W bits, [0, 2**W - 1]
 2. with ``subtract``: count -= min(count)
 3. m = bitwise OR of all counts; bit_length(m) is that of the largest count
 4. z = W - bit_length(m): the leading zeros that all counts share              (0 <= z <= W)
 5. code = (count << z) >> (W - B)                                              (unsigned, B bits)

So with q = 2**B * count / 2**bit_length(max): q - 1 < code <= q, the brightest pixel's code is at least 2**(B-1), and
all codes are 0 where all counts are. Doubling all counts changes no code as long as none saturates.

What the shift takes away, how bright the patch is, can be an input too: the exponent e = bit_length(m) = W - z, from 0
to W, as a thermometer of W codes. Code k is 2**(B-1), which means one half, where m has a bit at k or above, and 0
elsewhere: the first e codes are set. Such inputs cost no multiplier in a circuit, and each size has weights of its own.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Codes
from quant.contract.normalize import whole_counts


@dataclass(frozen=True)
class BlockShift:
    """bits: of a code; count_bits: unsigned counts, saturated beyond; subtract: the patch's minimum first."""

    bits: int = 6
    count_bits: int = 16
    subtract: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise UserError(f"block shift: bits {self.bits} is out of range; expected 2 to 16")
        if not self.bits <= self.count_bits <= 32:
            raise UserError(
                f"block shift: count_bits {self.count_bits} is out of range; expected {self.bits} to 32 here"
            )

    @property
    def count_range(self) -> tuple[int, int]:
        """Smallest and largest count that the hardware receives."""
        return 0, (1 << self.count_bits) - 1

    def counts(self, patches: NDArray[np.generic]) -> tuple[Codes, int]:
        """Step 1: values (N, S, S) to saturated counts, and how many saturated; NaN, infinity are refused."""
        return whole_counts(patches, *self.count_range)

    def codes(self, patches: NDArray[np.generic]) -> Codes:
        """Detector values (N, S, S), integers or floats, to codes (N, S, S) in [0, 2**bits - 1]."""
        counts, _ = self.counts(patches)
        if not counts.size:
            return counts
        if self.subtract:
            counts = counts - counts.min(axis=(1, 2), keepdims=True)
        top = counts.max(axis=(1, 2), keepdims=True)
        length = np.frexp(top.astype(np.float64))[1].astype(np.int64)  # bit_length: exact, for counts < 2**53
        return (counts << (self.count_bits - length)) >> (self.count_bits - self.bits)

    def exponents(self, patches: NDArray[np.generic]) -> Codes:
        """Detector values (N, S, S) to the thermometer codes (N, count_bits) of their exponents."""
        counts, _ = self.counts(patches)
        if not counts.size:
            return np.zeros((len(counts), self.count_bits), np.int64)
        top = counts.max(axis=(1, 2))
        if self.subtract:
            top = top - counts.min(axis=(1, 2))
        reached = top[:, None] >> np.arange(self.count_bits) > 0
        return reached.astype(np.int64) << (self.bits - 1)

    def document(self) -> dict[str, Any]:
        """As plain data for ``locator.json``."""
        return {"kind": "block_shift", **asdict(self)}

"""The integer normalizer: detector counts to input codes, part of the integer contract.

A code means ``code * 2**-bits`` and approximates min-max normalization, ``(x - min) / (max - min)``, from below.
Every step is integer arithmetic with the widths given here, so that software and hardware agree on every code.

Let B = ``bits``, W = ``count_bits``, T = ``table_bits``, M = B + 4 (``mantissa_bits``). For one patch:

 1. count = floor(value), saturated to signed W bits, [-2**(W-1), 2**(W-1) - 1]   (signed, W bits)
 2. low = min(count), r = max(count) - low, D = count - low                        (unsigned, W bits)
 3. if r == 0 every code is 0; the steps below are for r > 0
 4. z = W - bit_length(r): the number of leading zeros of r in W bits              (0 <= z <= W-1)
 5. ra = r << z, Da = D << z: r's leading one is at bit W-1; Da <= ra < 2**W       (unsigned, W bits, no bit lost)
 6. t = Da >> (W - M)                                                              (unsigned, M bits)
 7. i = (ra >> (W - 1 - T)) & (2**T - 1): the T bits after the leading one         (unsigned, T bits)
 8. code = (t * table[i]) >> S, with S = 2 * M - 1 - B                             (product 2M bits, code B bits)

The table has 2**T entries of M bits, made by integer division and stored as data in the artifact:

    table[i] = floor(2**(T + M) / (2**T + i + 1))

2**T + i + 1 is the top of bucket i, so the reciprocal is never too large. Two facts follow, with q = 2**B * D / r:

 - code <= q, and code <= 2**B - 1. For ra < (2**T + i + 1) * 2**(W-1-T) and t <= Da * 2**(M-W), so
   t * table[i] * 2**-S <= Da * 2**(M-W) * 2**(T+M-S) / (2**T + i + 1) < 2**B * Da / ra = q <= 2**B
   (for D > 0; both sides are 0 for D = 0). The first strict sign gives code < 2**B.
 - q - code < 1 + 2**(B-T) + 2**-2, which is 2.25 codes with T = B: the last floor loses less than 1; the width of a
   bucket at most q / (2**T + 1) < 2**(B-T); dropping W - M bits of Da less than one unit of t, worth
   table[i] * 2**-S < 2**(B+1-M) = 2**-3; flooring the table less than t * 2**-S < 2**-3.

Without saturation in step 1, adding a whole number to all values changes no code.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Codes


def whole_counts(patches: NDArray[np.generic], low: int, high: int) -> tuple[Codes, int]:
    """Values (N, S, S) to whole counts in [low, high], by floor and saturation, and how many saturated.

    Raises UserError for another shape, for what is no number, and for NaN and infinity.
    """
    values = np.asarray(patches)
    if values.ndim != 3 or values.dtype.kind not in "iuf":
        raise UserError(
            f"patches are {values.dtype} of shape {values.shape}, expected numbers (n, size, size); "
            "cut patches from the frames first"
        )
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values).all(axis=(1, 2))
        if bad.any():
            raise UserError(
                f"patch {int(np.argmax(bad))} holds NaN or infinity (as do {int(bad.sum()) - 1} others); "
                "mask dead pixels before patches are normalized"
            )
    # float64 holds every count that is not saturated, so the conversion is exact where it matters.
    floored = np.floor(values.astype(np.float64))
    clipped = np.clip(floored, low, high)
    return clipped.astype(np.int64), int(np.count_nonzero(clipped != floored))


@dataclass(frozen=True)
class Normalizer:
    """Widths of the normalizer; see the module's text for the steps.

    bits: of a code. count_bits: signed counts, saturated beyond; 18 holds -131072 to 131071. table_bits: log2 of the
    number of reciprocals.
    """

    bits: int = 8
    count_bits: int = 18
    table_bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise UserError(f"normalizer bits {self.bits} is out of range; expected 2 to 16")
        if not 1 <= self.table_bits <= 12:
            raise UserError(f"normalizer table_bits {self.table_bits} is out of range; expected 1 to 12")
        least = max(self.bits + 4, self.table_bits + 1)
        if not least <= self.count_bits <= 32:
            raise UserError(f"normalizer count_bits {self.count_bits} is out of range; expected {least} to 32 here")

    @property
    def count_range(self) -> tuple[int, int]:
        """Smallest and largest count that the hardware receives."""
        half = 1 << (self.count_bits - 1)
        return -half, half - 1

    @property
    def mantissa_bits(self) -> int:
        """M: bits of the aligned difference and of a table entry that enter the product."""
        return self.bits + 4

    @property
    def shift(self) -> int:
        """S: the right shift of the product."""
        return 2 * self.mantissa_bits - 1 - self.bits

    @property
    def table(self) -> Codes:
        """The reciprocals, 2**table_bits entries of mantissa_bits bits."""
        size = 1 << self.table_bits
        return (1 << (self.table_bits + self.mantissa_bits)) // (size + 1 + np.arange(size, dtype=np.int64))

    @property
    def deviation(self) -> float:
        """Upper bound, never reached, of ``2**bits * (x - min) / (max - min) - code``, which is never negative."""
        return 1.0 + 2.0 ** (self.bits - self.table_bits) + 0.25

    def counts(self, patches: NDArray[np.generic]) -> tuple[Codes, int]:
        """Step 1: values (N, S, S) to saturated counts, and how many saturated; NaN, infinity are refused."""
        return whole_counts(patches, *self.count_range)

    def codes(self, patches: NDArray[np.generic]) -> Codes:
        """Detector values (N, S, S), integers or floats, to codes (N, S, S) in [0, 2**bits - 1]."""
        counts, _ = self.counts(patches)
        if not counts.size:
            return counts
        low = counts.min(axis=(1, 2), keepdims=True)
        r = counts.max(axis=(1, 2), keepdims=True) - low
        length = np.frexp(r.astype(np.float64))[1].astype(np.int64)  # bit_length: exact, for r < 2**53
        zeros = self.count_bits - length
        aligned, t = r << zeros, ((counts - low) << zeros) >> (self.count_bits - self.mantissa_bits)
        index = (aligned >> (self.count_bits - 1 - self.table_bits)) & ((1 << self.table_bits) - 1)
        # r == 0 leaves t == 0 everywhere, hence code 0, whatever the index.
        return (t * self.table[index]) >> self.shift

    def document(self) -> dict[str, Any]:
        """The normalizer as plain data for ``locator.json``, the table included."""
        return {**asdict(self), "shift": self.shift, "table": self.table.tolist()}

    @staticmethod
    def from_document(document: dict[str, Any]) -> "Normalizer":
        """Read :meth:`document`; a table or shift that is not the one of these widths is refused."""
        try:
            found = Normalizer(*(int(document[key]) for key in ("bits", "count_bits", "table_bits")))
            same = found.document() == document
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"normalizer entry is not readable ({error}); make it again with `make qat`") from error
        if not same:
            raise UserError("normalizer entry: its table is not the one of its widths; make it again with `make qat`")
        return found

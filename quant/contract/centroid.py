"""The integer centroid: the estimate that a network may correct, part of the integer contract.

Input codes are weighted through a table, their square for one, and the weights' centroid is divided out with a table of
reciprocals. Let h = window // 2, T = ``index_bits``, M = ``reciprocal_bits``, K = ``numerator_bits``, F = ``frac``:

 1. w = weights[code]
 2. S = sum(w), R = sum(pos * w) for pos = row - h and for pos = col - h        (exact; |R| <= h * S)
 3. S == 0: both results are 0
 4. z = D - bit_length(S), D bits holding the largest possible S
 5. t = floor((R << z) / 2**(D + H - K)), H = bit_length(h)                     (signed, K + 1 bits)
 6. i = ((S << z) >> (D - 1 - T)) & (2**T - 1): the T bits below S's leading one
 7. result = floor(t * reciprocal[i] / 2**(M + K - H - 1 - F))                  (at frac F, px)

reciprocal[i] is 2**(M + T) / (2**T + i + 1/2) rounded (:func:`quant.contract.tables.reciprocal_table`), so that with
the two floors left out the result is 2**F * R / S within a relative 2**-(T + 1) + 2**-M: S lies within half a bucket of
its bucket's centre. The floors lower it by less than 1 + 2**(F + H + 1 - K) * (1 + 2**-M) codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Codes, shift_round
from quant.contract.tables import reciprocal_table


@dataclass(frozen=True)
class Centroid:
    """window: side of the codes' window, px, odd; weights: one a code; the widths of the division; frac: of the result.

    :meth:`of_power` makes the usual ones. Entries of ``weights`` are not negative.
    """

    window: int
    weights: tuple[int, ...]
    index_bits: int = 7
    reciprocal_bits: int = 10
    numerator_bits: int = 13
    frac: int = 9

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(int(w) for w in self.weights))
        size = len(self.weights)
        if self.window < 3 or self.window % 2 == 0:
            raise UserError(f"centroid: window {self.window} must be odd and at least 3")
        if size < 2 or size & (size - 1) or min(self.weights) < 0 or max(self.weights) == 0:
            raise UserError(f"centroid: {size} weights; expected one of at least 0 for each code, not all of them 0")
        if not 1 <= self.index_bits <= min(12, self.sum_bits - 1):
            raise UserError(
                f"centroid: index_bits {self.index_bits} is out of range; expected 1 to {min(12, self.sum_bits - 1)}"
            )
        if not 2 <= self.reciprocal_bits <= 16 or not 4 <= self.numerator_bits <= 24:
            raise UserError(
                f"centroid: reciprocal_bits {self.reciprocal_bits} or numerator_bits {self.numerator_bits} is out of "
                "range; expected 2 to 16 and 4 to 24"
            )
        if not 0 <= self.frac <= self.reciprocal_bits + self.numerator_bits - self.reach_bits - 1:
            raise UserError(f"centroid: frac {self.frac} is out of range for these widths")

    @staticmethod
    def of_power(window: int, bits: int, power: int, discarded_bits: int = 0, **widths: int) -> "Centroid":
        """Weights ``code**power >> discarded_bits`` for codes of ``bits`` bits; power 1 or 2."""
        if power not in (1, 2):
            raise UserError(f"centroid: power {power} is not offered; expected 1 (intensity) or 2 (its square)")
        if not 0 <= discarded_bits < power * bits:
            raise UserError(
                f"centroid: discarded_bits {discarded_bits} leaves no weight; expected 0 to {power * bits - 1}"
            )
        return Centroid(window, tuple(code**power >> discarded_bits for code in range(1 << bits)), **widths)

    @property
    def bits(self) -> int:
        """Of a code."""
        return len(self.weights).bit_length() - 1

    @property
    def reach(self) -> int:
        """h: the largest distance of a pixel from the centre, px."""
        return self.window // 2

    @property
    def reach_bits(self) -> int:
        """H."""
        return self.reach.bit_length()

    @property
    def sum_bits(self) -> int:
        """D: bits of the largest possible S."""
        return (self.window**2 * max(self.weights)).bit_length()

    @property
    def numerator_shift(self) -> int:
        """The right shift of step 5; a negative one multiplies."""
        return self.sum_bits + self.reach_bits - self.numerator_bits

    @property
    def result_shift(self) -> int:
        """The right shift of step 7."""
        return self.reciprocal_bits + self.numerator_bits - self.reach_bits - 1 - self.frac

    @property
    def table(self) -> Codes:
        """The reciprocals, 2**index_bits entries of reciprocal_bits bits."""
        return reciprocal_table(self.index_bits, self.reciprocal_bits)

    def codes(self, codes: NDArray[np.integer]) -> Codes:
        """Input codes (N, window, window) to results (N, 2): (row, col) at ``frac``, from the centre pixel."""
        w = np.asarray(self.weights, dtype=np.int64)[codes]
        position = np.arange(self.window) - self.reach
        sums = w.sum(axis=(1, 2))
        moments = np.stack([w.sum(axis=2) @ position, w.sum(axis=1) @ position], axis=1)
        zeros = self.sum_bits - np.frexp(sums.astype(np.float64))[1].astype(np.int64)
        t = shift_round(moments << zeros[:, None], self.numerator_shift)
        i = ((sums << zeros) >> (self.sum_bits - 1 - self.index_bits)) & ((1 << self.index_bits) - 1)
        return shift_round(t * self.table[i][:, None], self.result_shift)  # sums of 0 have moments of 0

    def document(self) -> dict[str, Any]:
        """As plain data for ``locator.json``, the tables included."""
        fields = ("window", "weights", "index_bits", "reciprocal_bits", "numerator_bits", "frac")
        return {name: _plain(getattr(self, name)) for name in fields} | {"table": self.table.tolist()}

    @staticmethod
    def from_document(document: dict[str, Any]) -> "Centroid":
        """Read :meth:`document`; a table that is not the one of these widths is refused."""
        found = Centroid(**{key: value for key, value in document.items() if key != "table"})
        if found.document() != document:
            raise UserError("centroid: its table of reciprocals is not the one of its widths; make it again")
        return found


def _plain(value: int | Sequence[int]) -> int | list[int]:
    return value if isinstance(value, int) else list(value)

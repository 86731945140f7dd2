"""The test of significance of both rules: whether a maximum stands out from the pixels around it, in integers.

test = Significance.of(4.0, gain=1.0, read_noise=2.0)
kept = test.at(frame, valid, row, col)      # (m,) of the maxima at the pixels (row, col) (m,)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError

#: How far from a maximum the test looks, px.
SIGHT = 3


@dataclass(frozen=True)
class Significance:
    """The test of a maximum against its surroundings, in the integers that the hardware has.

    With s the sum of the 3 x 3 px around the maximum and r that of the 24 px of the 7 x 7 square's outermost ring, a
    maximum is significant when D = 8 s - 3 r is positive and D**2 > slope * r + offset. D is 72 times the excess of a
    pixel of the 3 x 3 over one of the ring, and the right side is the variance that D has where there is no peak, times
    the square of the deviations that are asked for: see :meth:`of`. D of 2**19 and more is always significant, so a
    square of 19 bits is enough.
    """

    slope: int  # 0 to 2**16 - 1
    offset: int  # 0 to 2**32 - 1

    def __post_init__(self) -> None:
        for name, value, bits in (("slope", self.slope, 16), ("offset", self.offset, 32)):
            if not 0 <= value < 1 << bits:
                raise UserError(
                    f"significance {name} {value}: expected 0 to {(1 << bits) - 1}, a register of {bits} bits; "
                    "ask for fewer deviations, or shift the counts down"
                )

    @staticmethod
    def of(deviations: float, gain: float = 1.0, read_noise: float = 0.0) -> "Significance":
        """The registers for a number of standard deviations of a detector's noise.

        gain: counts a photon, behind the gain shift; read_noise: its standard deviation, counts. Without a peak every
        pixel has the mean r / 24 and the variance v = gain * r / 24 + read_noise**2, and D the variance (64 * 9 + 9 *
        24) * v = 33 * gain * r + 792 * read_noise**2.

            >>> Significance.of(4.0, gain=1.0, read_noise=2.0)
            Significance(slope=528, offset=50688)
        """
        if not (deviations > 0 and gain > 0 and read_noise >= 0):
            raise UserError(
                f"significance of {deviations} deviations, gain {gain}, read noise {read_noise}: expected positive "
                "numbers; the read noise may be 0"
            )
        square = deviations**2
        return Significance(round(33.0 * square * gain), round(792.0 * square * read_noise**2))

    def holds(self, around: NDArray[Any]) -> NDArray[np.bool_]:
        """(m,) which maxima are significant; around: (m, 7, 7) counts, 0 where there is none, negative ones taken as 0.

        It is computed in float64, where the sums and products of 16-bit counts are exact: D**2 has 46 bits.
        """
        counts = np.maximum(around.astype(np.float64), 0.0)
        core = counts[:, 2:5, 2:5].sum(axis=(1, 2))
        ring = counts.sum(axis=(1, 2)) - counts[:, 1:6, 1:6].sum(axis=(1, 2))
        excess = 8.0 * core - 3.0 * ring
        found: NDArray[np.bool_] = (excess > 0) & (excess**2 > self.slope * ring + self.offset)
        return found

    def at(
        self, frame: NDArray[Any], valid: NDArray[np.bool_] | None, row: NDArray[np.int64], col: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """(m,) which maxima of a frame (rows, cols), at the pixels (row, col) (m,), are significant.

        Pixels where ``valid`` (rows, cols) is False, and those outside of the frame, count as 0.
        """
        around = squares(frame, row, col, SIGHT)
        if valid is not None:
            around = np.where(squares(valid, row, col, SIGHT), around, frame.dtype.type(0))
        return self.holds(around)


def significance_of(deviations: float, gain: float, read_noise: float) -> Significance | None:
    """:meth:`Significance.of`; None for 0 deviations, which is no test."""
    return None if deviations == 0 else Significance.of(deviations, gain, read_noise)


def squares(image: NDArray[Any], row: NDArray[np.int64], col: NDArray[np.int64], half: int) -> NDArray[Any]:
    """(m, 2 half + 1, 2 half + 1) what an image (rows, cols) holds around pixels (m,), in its type; 0 outside of it."""
    steps = np.arange(-half, half + 1)
    down, right = row[:, None] + steps, col[:, None] + steps
    inside = ((down >= 0) & (down < image.shape[0]))[:, :, None] & ((right >= 0) & (right < image.shape[1]))[:, None, :]
    down, right = down.clip(0, image.shape[0] - 1), right.clip(0, image.shape[1] - 1)
    return np.where(inside, image[down[:, :, None], right[:, None, :]], image.dtype.type(0))

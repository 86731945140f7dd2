"""What a network says of its own errors, made right on held-out patches: the scale it predicts to intervals, px."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError


@dataclass(frozen=True)
class Calibration:
    """Half-widths of intervals around a position, by the scale b of its axis: what held on validation patches.

    log_b: ln b (px) of nodes, ascending; sigma: ln of the half-width there that holds 68.27 % of the errors (as one
    standard deviation of a normal distribution does); wide: 95.45 % (two). Between nodes both are linear in ln b.
    """

    log_b: tuple[float, ...] = (0.0,)
    sigma: tuple[float, ...] = (0.0,)
    wide: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        lists = (self.log_b, self.sigma, self.wide)
        alike = len({len(values) for values in lists}) == 1 and len(self.log_b) > 0
        if (
            not alike
            or not all(np.isfinite(values).all() for values in lists)
            or sorted(self.log_b) != list(self.log_b)
        ):
            raise UserError(
                f"calibration: {len(self.log_b)} nodes; expected one or more, in ascending order, with as many "
                "half-widths, all finite: train the network again"
            )

    def half_widths(self, log_b: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Half-widths in px of the two intervals, for ln b of any shape."""
        return np.exp(np.interp(log_b, self.log_b, self.sigma)), np.exp(np.interp(log_b, self.log_b, self.wide))

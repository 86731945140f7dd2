"""How a scan turns, as far as the frames of its peaks tell: step, full turns, jumps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError

TURN = 360.0


@dataclass(frozen=True)
class Frames:
    """What is known of a scan's frames: omega (frames,), the middle of each in degrees, NaN where it is not known.

    bad: numbers of the frames that were left out, ascending.
    """

    omega: NDArray[np.float64]
    bad: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rotation:
    """Of one scan, in degrees.

    step: rotation from one frame to the next, negative when omega decreases, NaN when omega is not known; turn: frames
    after which the first orientation comes again; 0 for a scan of more than one turn or with jumps; frames and omega
    (k,): the frames that are known, ascending, and the middle of each, without the steps of 360 degrees that a file
    may make; piece (k,): number of the piece of the scan between two jumps of omega.
    """

    step: float
    turn: int
    frames: NDArray[np.int64]
    omega: NDArray[np.float64]
    piece: NDArray[np.int64]

    @property
    def known(self) -> bool:
        """Whether omega is known, of all frames."""
        return bool(np.isfinite(self.omega).all())


def rotation_of(frames: NDArray[np.int64], omega: NDArray[np.float64]) -> Rotation:
    """The rotation of a scan from frames and omegas (n,) of its peaks, in any order; omega NaN where not known.

    Frames before the first and after the last of these are taken for none. Raises UserError when a frame has two
    omegas, and when all have the same.
    """
    order = np.lexsort((omega, frames))
    frames, omega = frames[order], omega[order]
    one, start = np.unique(frames, return_index=True)
    low, high = omega[start], omega[np.append(start[1:], len(frames)) - 1]
    twice = (low != high) & ~(np.isnan(low) & np.isnan(high))
    if twice.any():
        at = int(np.flatnonzero(twice)[0])
        raise UserError(f"frame {one[at]} has peaks at omega {low[at]:g} and {high[at]:g}; expected one omega a frame")
    none = np.zeros(len(one), np.int64)
    if len(one) < 2 or not np.isfinite(low).all():
        return Rotation(np.nan, 0, one, low, none)
    away, moved = np.diff(one), np.diff(low)
    nearest = away == away.min()
    step = float(np.median(moved[nearest] / away[nearest]))  # a step of 360 degrees in the file is one among many
    if step == 0:
        raise UserError("omega is the same in all frames; expected the middle of each frame's rotation")
    moved += TURN * np.round((step * away - moved) / TURN)
    jump = np.abs(moved - step * away) > 0.5 * abs(step)
    piece = np.concatenate([[0], np.cumsum(jump)])
    unwrapped = low[0] + np.concatenate([[0.0], np.cumsum(moved)])
    turn = round(TURN / abs(step))
    whole = not jump.any() and turn > 1 and one[-1] - one[0] < turn
    return Rotation(step, turn if whole else 0, one, unwrapped, piece)

"""The rotation of every frame: from the scan's file, or from the two numbers that a user gives in its place."""

import math

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError

_REMEDY = "give omega_start and omega_step"


def frame_omega(
    source_omega: NDArray[np.floating] | None, start: float | None, step: float | None, frames: int
) -> tuple[NDArray[np.float64] | None, str]:
    """Start and end (frames, 2) of every frame in degrees, or None where nobody says them; and a remark.

    source_omega: what the file says, (frames, 2), or None. start, step: the start of the first frame and the rotation
    of each, in degrees; they win over the file, and are needed together. The remark is one sentence that says what is
    odd: no rotation is known, or it does not increase from frame to frame (it is passed on as it is); else "".

        >>> frame_omega(None, -10.0, 0.25, 2)[0].tolist()
        [[-10.0, -9.75], [-9.75, -9.5]]

    Raises UserError for one number without the other, a step of 0, and a file's rotation that has another shape or
    values that are not finite.
    """
    if (start is None) != (step is None):
        given, missing = ("omega_start", "omega_step") if step is None else ("omega_step", "omega_start")
        raise UserError(f"{given} is given without {missing}; give both (degrees), or neither")
    if start is not None and step is not None:
        if not (math.isfinite(start) and math.isfinite(step)) or step == 0:
            raise UserError(
                f"omega_start {start} and omega_step {step}: expected finite numbers in degrees, and a step that is "
                "not 0"
            )
        edges = start + step * np.arange(frames + 1, dtype=np.float64)
        return np.stack([edges[:-1], edges[1:]], axis=1), _remark(edges[:-1], edges[1:])
    if source_omega is None:
        return None, f"the rotation of its frames is not known; {_REMEDY} where it is needed, as for grains"
    if source_omega.shape != (frames, 2):
        raise UserError(
            f"omega in the file has shape {source_omega.shape}; expected ({frames}, 2), start and end of every frame "
            f"in degrees; {_REMEDY} instead"
        )
    bad = ~np.isfinite(source_omega).all(axis=1)
    if bad.any():
        raise UserError(
            f"omega in the file is NaN or infinite for {bad.sum()} frames, the first is {int(bad.argmax())}; {_REMEDY} "
            "instead"
        )
    omega = np.ascontiguousarray(source_omega, np.float64)
    return omega, _remark(omega[:, 0], omega[:, 1])


def _remark(start: NDArray[np.float64], end: NDArray[np.float64]) -> str:
    centre = (start + end) / 2
    wrong = np.flatnonzero(np.diff(centre) <= 0)
    if wrong.size:
        first = int(wrong[0])
        return (
            f"its rotation does not increase from frame {first} ({centre[first]:g} degrees) to frame {first + 1} "
            f"({centre[first + 1]:g} degrees), and at {wrong.size} of {len(centre) - 1} steps in all; it is passed on "
            "as it is"
        )
    if (end < start).any():
        first = int((end < start).argmax())
        return (
            f"its frame {first} ends at {end[first]:g} degrees, before it starts at {start[first]:g}; it is passed on "
            "as it is"
        )
    return ""


def centres(omega: NDArray[np.floating]) -> NDArray[np.float64]:
    """The centre (frames,) of every frame in degrees, from start and end (frames, 2)."""
    return np.asarray(omega, np.float64).mean(axis=1)


def around(
    centre: NDArray[np.floating], width: NDArray[np.floating] | float | None = None
) -> NDArray[np.float64] | None:
    """Start and end (frames, 2) of frames of which the centres (frames,) are known: half of ``width`` to each side.

    Without a width it is the step to the next centre, of the last frame that to the one before; the step of a frame
    behind which the rotation jumps (by more than twice the median step) is the median. None where a single centre has
    no width.
    """
    centre = np.asarray(centre, np.float64)
    if width is None:
        if len(centre) < 2:
            return None
        step = np.diff(centre)
        median = float(np.median(step))
        step = np.where(np.abs(step - median) > abs(median), median, step)
        width = np.append(step, step[-1])
    half = np.broadcast_to(np.asarray(width, np.float64) / 2, centre.shape)
    return np.stack([centre - half, centre + half], axis=1)

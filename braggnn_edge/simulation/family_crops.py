"""Where patches of the family are cut, and what is wrong with their pixels.

Both rules centre a patch on a bright pixel. By the component rule it is the brightest one near the spot. By the window
rule it is any local maximum: of the pixels within :data:`WINDOW_STEPS` of it, up and down and sideways, each other one
is dimmer, or equal and later in raster order. A brighter spot may then lie elsewhere in the patch.
"""

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.simulation.family_spec import FamilySpec

Float = NDArray[np.float64]
Pixels = NDArray[np.int64]

#: Farthest centre of a patch from the middle of the counts it is cut from, px, each way.
REACH = 4
#: Chebyshev distance in px within which a local maximum has no brighter pixel.
WINDOW_STEPS = 3


def reachable(counts: Float, row: int = 0, col: int = 0) -> Float:
    """(n, 2 REACH + 1, 2 REACH + 1): the pixels of counts (n, w, w) on which a patch may be centred, or others near.

    row, col: px by which they are moved.
    """
    first = counts.shape[1] // 2 - REACH
    stop = first + 2 * REACH + 1
    return counts[:, first + row : stop + row, first + col : stop + col]


def brightest(counts: Float) -> Pixels:
    """The component rule: pixels (n, 2) of counts (n, w, w), the brightest that are reachable."""
    return _pixel(reachable(counts).reshape(len(counts), -1).argmax(1), counts)


def local_maxima(counts: Float) -> NDArray[np.bool_]:
    """Which of the reachable pixels (n, 2 REACH + 1, 2 REACH + 1) of counts (n, w, w) the window rule finds."""
    centre = reachable(counts)
    found = np.ones(centre.shape, bool)
    steps = range(-WINDOW_STEPS, WINDOW_STEPS + 1)
    for step in ((row, col) for row in steps for col in steps if (row, col) != (0, 0)):
        other = reachable(counts, *step)
        found &= centre >= other if step > (0, 0) else centre > other
    return found


def by_window_rule(rng: np.random.Generator, counts: Float, above: Float) -> tuple[Pixels, NDArray[np.bool_]]:
    """The window rule: pixels (n, 2) of counts (n, w, w), and whether there is one.

    above: counts (n,); of several local maxima above it one is taken at random.
    """
    found = local_maxima(counts) & (reachable(counts) > above[:, None, None])
    lots = np.where(found, rng.random(found.shape), -1.0).reshape(len(counts), -1)
    return _pixel(lots.argmax(1), counts), lots.max(1) >= 0


def _pixel(index: Pixels, counts: Float) -> Pixels:
    return np.stack(np.divmod(index, 2 * REACH + 1), 1) + counts.shape[1] // 2 - REACH


def with_bad_pixels(spec: FamilySpec, rng: np.random.Generator, patches: Float) -> Float:
    """Some patches with one to three pixels that read zero, beside the centre."""
    patches = patches.copy()
    some = np.flatnonzero(rng.random(len(patches)) < spec.bad_pixels)
    middle = spec.size**2 // 2
    flat = patches.reshape(len(patches), -1)
    for _ in range(3):
        where = rng.integers(0, spec.size**2, len(some))
        chosen = (where != middle) & (rng.random(len(some)) < 0.6)
        flat[some[chosen], where[chosen]] = 0.0
    return patches


def with_bad_lines(spec: FamilySpec, rng: np.random.Generator, patches: Float) -> Float:
    """Some patches with a whole row or column that reads zero, beside the centre; no random numbers without a share."""
    if not spec.bad_lines:
        return patches
    patches = patches.copy()
    some = np.flatnonzero(rng.random(len(patches)) < spec.bad_lines)
    line = rng.integers(0, spec.size - 1, len(some))
    line += line >= spec.size // 2  # never the centre's
    rows = rng.random(len(some)) < 0.5
    patches[some[rows], line[rows]] = 0.0
    patches[some[~rows], :, line[~rows]] = 0.0
    return patches

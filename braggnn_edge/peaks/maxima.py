"""Local maxima in components of pixels, and which of them stand out from the noise."""

import numpy as np

from braggnn_edge.peaks.components import connected

#: A maximum is compared with this many brighter ones of its component,
_COMPARED = 6
#: or with the brightest alone when so many are left after that.
_CROWD = 64
#: Pixels of the line between two maxima that are looked at, from the lesser on.
FAR = 64
#: Steps (row, col) to the neighbours in other rows.
_STEPS = ((-1, -1), (-1, 0), (-1, 1), (1, -1), (1, 0), (1, 1))


def local_maxima(image: np.ndarray, shape: tuple[int, ...], flat: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    """Positions in ``flat`` of the local maxima, a plateau by its first pixel; ``inside`` (pixels,), None for all."""
    rows, cols = shape
    value = image[flat]
    fallen, level = np.zeros(len(flat), bool), np.zeros(len(flat), bool)  # a brighter, an equal pixel is beside it
    # Along a row neighbours follow each other; that leaves few to look up the others for.
    beside = (flat[1:] - flat[:-1] == 1) & (flat[1:] % cols != 0)
    fallen[:-1] |= beside & (value[:-1] < value[1:])
    fallen[1:] |= beside & (value[1:] < value[:-1])
    equal = beside & (value[:-1] == value[1:])
    level[:-1] |= equal
    level[1:] |= equal
    top = np.flatnonzero(~fallen)
    for step in _STEPS:
        near = _beside(flat[top], step, rows, cols)
        other, mine = image[near], value[top]
        here = near != flat[top] if inside is None else inside[near] & (near != flat[top])
        level[top[here & (other == mine)]] = True
        top = top[(other <= mine) | ~here]
    single = top[~level[top]]
    tied = top[level[top]]
    if not len(tied):
        return single
    # A plateau is a maximum when all its pixels are in ``tied``.
    spoiled = np.zeros(len(tied), bool)
    first, second = [], []
    for step in (*_STEPS, (0, -1), (0, 1)):
        near = _beside(flat[tied], step, rows, cols)
        equal = (image[near] == value[tied]) & (True if inside is None else inside[near])
        place = np.minimum(np.searchsorted(flat[tied], near), len(tied) - 1)
        member = flat[tied][place] == near
        spoiled |= equal & ~member
        first.append(np.flatnonzero(equal & member))
        second.append(place[equal & member])
    order = np.argsort(np.concatenate(first), kind="stable")
    plateau = connected(len(tied), np.concatenate(first)[order], np.concatenate(second)[order])
    bad = np.zeros(plateau.max() + 1, bool)
    bad[plateau[spoiled]] = True
    head = np.unique(plateau, return_index=True)[1]
    return np.sort(np.concatenate([single, tied[head[~bad]]]))


def _beside(flat: np.ndarray, step: tuple[int, int], rows: int, cols: int) -> np.ndarray:
    """The pixels a step away; beyond the border another neighbour, or the pixel itself."""
    row, col = np.divmod(flat, cols)
    return np.clip(row + step[0], 0, rows - 1) * cols + np.clip(col + step[1], 0, cols - 1)


def significant(
    frame: np.ndarray,
    valid: np.ndarray | None,
    tops: np.ndarray,
    of: np.ndarray,
    value: np.ndarray,
    least: np.ndarray,
    first: np.ndarray,
) -> np.ndarray:
    """(n,) whether a maximum rises by more than ``least`` (n,) above the valleys to the brighter ones that count.

    ``tops`` (n,) are flat indices, by component ``of`` (n,) and descending value; ``first``, the brightest of each.
    """
    counts = first.copy()
    winner = np.flatnonzero(first)  # of each component, the one that counts last
    rest = np.flatnonzero(~first)
    for _ in range(_COMPARED):
        low = _lowest_between(frame, valid, tops[rest], tops[winner[of[rest]]])
        rest = rest[value[rest] - low > least[rest]]
        if not len(rest):
            break
        best = rest[np.r_[True, of[rest][1:] != of[rest][:-1]]]
        counts[best] = True
        winner[of[best]] = best
        crowd = np.bincount(of[rest])[of[rest]] > _CROWD
        counts[rest[crowd]] = True
        rest = rest[~counts[rest]]
    counts[rest] = True
    return counts


def _lowest_between(frame: np.ndarray, valid: np.ndarray | None, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Lowest valid pixel (n,) on the first FAR px of the line from ``start`` to ``stop``, flat indices (n,)."""
    cols = frame.shape[1]
    row, col = start // cols, start % cols
    down, right = stop // cols - row, stop % cols - col
    length = np.maximum(np.abs(down), np.abs(right))
    lowest = np.full(len(start), np.inf)
    here = np.arange(len(start))
    for step in range(int(length.max(initial=0).clip(max=FAR)) + 1):
        here = here[length[here] >= step]
        t = step / np.maximum(length[here], 1)
        at_row = np.rint(row[here] + t * down[here]).astype(np.int64)
        at_col = np.rint(col[here] + t * right[here]).astype(np.int64)
        value = frame[at_row, at_col].astype(np.float64)
        if valid is not None:
            value[~valid[at_row, at_col]] = np.inf
        lowest[here] = np.minimum(lowest[here], value)
    return lowest

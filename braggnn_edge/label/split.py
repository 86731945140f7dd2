"""Train, validation and test by blocks of frames, so that no reflection is in two of them."""

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.label.spec import SplitSpec
from braggnn_edge.peaks.splits import EXCLUDED, SPLITS, TEST, TRAIN, VALIDATION


def frame_splits(frames: int, spec: SplitSpec, use: tuple[str, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    """(frames,) the split of every frame: TRAIN, VALIDATION, TEST, or EXCLUDED for guards and unused parts.

    Parts are dealt to blocks at random in the proportions asked for among the parts in ``use``; when only one
    part is used, all frames are its.
    """
    wanted = [SPLITS.index(name) for name in use]
    if len(wanted) == 1:
        return np.full(frames, wanted[0], np.uint8)
    blocks = -(-frames // spec.block)
    n_test = max(1, round(blocks * spec.test)) if spec.test else 0
    n_validation = max(1, round(blocks * spec.validation))
    if blocks < n_test + n_validation + 1:
        raise UserError(
            f"split: {frames} frames make {blocks} blocks of {spec.block}, too few for three parts; shrink block"
        )
    parts = np.full(blocks, TRAIN, np.uint8)
    order = rng.permutation(blocks)
    parts[order[:n_test]] = TEST
    parts[order[n_test : n_test + n_validation]] = VALIDATION
    of_frame = np.repeat(parts, spec.block)[:frames]
    result = of_frame.copy()
    for border in np.flatnonzero(np.diff(of_frame)):
        result[max(0, border + 1 - spec.guard) : border + 1 + spec.guard] = EXCLUDED
    result[~np.isin(result, wanted)] = EXCLUDED
    return result

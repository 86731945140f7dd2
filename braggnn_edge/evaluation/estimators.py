"""The trivial estimators that every error table carries beside the networks.

Each takes patches (n, h, w) of counts and returns offsets (n, 2) float64: (row, col) in px from the
patch's centre pixel (h // 2, w // 2). They raise UserError for another number of dimensions or values that
are not finite.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError

Offsets = NDArray[np.float64]


def _checked(patches: NDArray) -> NDArray[np.float64]:
    patches = np.asarray(patches, dtype=np.float64)
    if patches.ndim != 3 or 0 in patches.shape[1:]:
        raise UserError(f"patches of shape {patches.shape}: expected (n, height, width); add the missing dimension")
    finite = np.isfinite(patches).all(axis=(1, 2))
    if not finite.all():
        raise UserError(f"patch {int(np.argmin(finite))} holds NaN or infinity; mask or replace such pixels first")
    return patches


def _centroid(weights: NDArray[np.float64]) -> Offsets:
    """Centroid of weights (n, h, w) >= 0 as offsets; 0 where all weights are zero."""
    height, width = weights.shape[1:]
    rows = weights.sum(axis=2) @ (np.arange(height) - height // 2)
    cols = weights.sum(axis=1) @ (np.arange(width) - width // 2)
    total = weights.sum(axis=(1, 2))
    return np.stack((rows, cols), axis=1) / np.where(total > 0, total, 1.0)[:, None]


def constant(patches: NDArray) -> Offsets:
    """The centre of the centre pixel, whatever the patch holds."""
    return np.zeros((len(_checked(patches)), 2))


def maximum(patches: NDArray) -> Offsets:
    """The brightest pixel; the first in row-major order among equals."""
    patches = _checked(patches)
    height, width = patches.shape[1:]
    row, col = np.divmod(patches.reshape(len(patches), height * width).argmax(axis=1), width)
    return np.stack((row - height // 2, col - width // 2), axis=1).astype(np.float64)


def centre_of_mass(patches: NDArray) -> Offsets:
    """Centroid of the intensity above the patch's minimum; an all-equal patch gives 0."""
    patches = _checked(patches)
    return _centroid(patches - patches.min(axis=(1, 2), keepdims=True))


def centre_of_mass_squared(patches: NDArray) -> Offsets:
    """Centroid of the squared intensity above the patch's minimum; an all-equal patch gives 0."""
    patches = _checked(patches)
    weights = patches - patches.min(axis=(1, 2), keepdims=True)
    # Scaled to one before squaring, so that neither huge nor tiny counts leave the range of a double.
    top = weights.max(axis=(1, 2), keepdims=True)
    return _centroid((weights / np.where(top > 0, top, 1.0)) ** 2)


ESTIMATORS: dict[str, Callable[[NDArray], Offsets]] = {
    "constant": constant,
    "maximum": maximum,
    "centre_of_mass": centre_of_mass,
    "centre_of_mass_squared": centre_of_mass_squared,
}

"""Photon transfer: the variance of pixels against their mean, from the background and from the residuals of fits.

A pixel that counts photons has variance = gain * mean + read_noise^2. Neighbouring frames are compared, so that a
background that varies over the panel does not count as noise, and pixels near a peak are left out: a sample turns, and
its peaks come and go.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from braggnn_edge.fit.pseudo_voigt import FWHM_MAJOR, FWHM_MINOR, render_with_jacobian
from braggnn_edge.fit.single import FitResult

Array = NDArray[np.float64]
#: Pixels beyond so many standard deviations of the background are of a peak.
_CUT = 6.0
#: Fits alone know a gain no better than this share: their model is not exact.
MODEL_ERROR = 0.02


@dataclass(frozen=True)
class Tiles:
    """Boxes of a pair of frames, (boxes,) each: good pixels, mean, variance of a pixel, share of zeros."""

    number: Array
    mean: Array
    variance: Array
    zeros: Array
    box: int


@dataclass(frozen=True)
class Points:
    """mean, variance and its error (n,) in counts."""

    mean: Array
    variance: Array
    error: Array

    def __len__(self) -> int:
        return len(self.mean)

    def __add__(self, other: "Points") -> "Points":
        return Points(*(np.concatenate([getattr(self, k), getattr(other, k)]) for k in ("mean", "variance", "error")))

    def where(self, mask: NDArray[np.bool_]) -> "Points":
        """The points at ``mask``."""
        return Points(self.mean[mask], self.variance[mask], self.error[mask])


NO_POINTS = Points(np.zeros(0), np.zeros(0), np.zeros(0))


def box_of(shape: tuple[int, int]) -> int:
    """Side of the boxes for frames of a size: 32 px, less where there would be few, and most of them with spots."""
    return 32 if min(shape) > 1024 else max(4, min(16, min(shape) // 4))


def _tiled(image: NDArray, box: int) -> NDArray:
    """(boxes, box * box); what is left at the lower and right border does not count."""
    rows, cols = image.shape[0] // box, image.shape[1] // box
    cut = image[: rows * box, : cols * box].reshape(rows, box, cols, box).swapaxes(1, 2)
    return cut.reshape(rows * cols, box * box)


def tiles_of_pair(
    first: NDArray[np.generic], second: NDArray[np.generic], good: NDArray[np.bool_], unit: float
) -> tuple[Tiles, NDArray[np.bool_]]:
    """Mean and variance in boxes of two neighbouring frames; and (rows, cols) the pixels that are background.

    good: pixels to be used; unit: the step between counts, which a cut must not fall below.
    """
    box = box_of((first.shape[0], first.shape[1]))
    a, b = first.astype(np.float32), second.astype(np.float32)
    use = good & background_pixels(a, b, good, box, unit)
    rows, cols = a.shape[0] // box * box, a.shape[1] // box * box
    weight = _tiled(use, box)
    number = weight.sum(axis=1).astype(np.float64)
    divisor = np.maximum(number, 2.0)
    one, two = _tiled(a[:rows, :cols], box), _tiled(b[:rows, :cols], box)
    mean = np.where(weight, one + two, 0).sum(axis=1, dtype=np.float64) / (2.0 * divisor)
    difference = np.where(weight, one - two, 0)
    shift = difference.sum(axis=1, dtype=np.float64) / divisor
    square = np.square(difference).sum(axis=1, dtype=np.float64)
    variance = (square - divisor * shift**2) / (2.0 * (divisor - 1.0))
    zeros = (weight & (one == 0)).sum(axis=1) / divisor
    return Tiles(number, mean, variance, zeros, box), use


def background_pixels(a: NDArray, b: NDArray, good: NDArray[np.bool_], box: int, unit: float) -> NDArray[np.bool_]:
    """Pixels (rows, cols) that are not within 3 px of one far above the background, in neither of two frames."""
    tiles = np.where(_tiled(good, box), _tiled(a, box), np.nan)
    difference = np.where(_tiled(good, box), tiles - _tiled(b, box), np.nan)
    tiles.sort(axis=1)
    number = np.isfinite(tiles).sum(axis=1)
    known = number > 0
    if not known.any():
        return np.zeros(a.shape, bool)
    each = np.arange(len(tiles))
    last = np.maximum(number - 1, 0)
    middle = tiles[each, last // 2]
    spread = tiles[each, np.rint(0.8413 * last).astype(int)] - middle
    floor = np.sqrt(np.nanmean(np.square(difference[known]), axis=1) / 2.0)
    spread = np.maximum(spread, np.percentile(floor, 25) if len(floor) else 0.0)
    middle = np.where(known, middle, np.nanmedian(middle[known]))
    spread = np.where(known, spread, np.nanmedian(spread[known]))
    limit = middle + _CUT * spread + 3.0 * unit
    rows, cols = a.shape[0] // box, a.shape[1] // box
    level = limit.reshape(rows, cols).astype(np.float32)
    down, right = np.minimum(np.arange(a.shape[0]) // box, rows - 1), np.minimum(np.arange(a.shape[1]) // box, cols - 1)
    whole = level[down[:, None], right[None, :]]
    peak = ((a > whole) | (b > whole)) & good
    # Faint tails show in means of 5 x 5 px.
    faint = (middle + 4.0 / 5.0 * spread + 0.2 * unit).reshape(rows, cols).astype(np.float32)
    faint = faint[down[:, None], right[None, :]]
    for image in (a, b):
        peak |= (ndimage.uniform_filter(image, 5) > faint) & good
    if peak.any():
        peak = ndimage.maximum_filter(peak.view(np.uint8), 7).view(bool)
    return ~peak


def points_of_background(pairs: list[Tiles]) -> tuple[Points, Array, Array]:
    """Points of boxes of equal background, and mean and variance (boxes,) of every box that was seen."""
    need = 0.25 * pairs[0].box ** 2
    number = np.stack([tiles.number for tiles in pairs])
    with np.errstate(all="ignore"):
        mean = np.ma.median(np.ma.masked_where(number < need, np.stack([t.mean for t in pairs])), axis=0)
        variance = np.ma.median(np.ma.masked_where(number < need, np.stack([t.variance for t in pairs])), axis=0)
    seen = ~(np.ma.getmaskarray(mean) | np.ma.getmaskarray(variance))
    level, noise = np.asarray(mean[seen], float), np.asarray(variance[seen], float)
    if len(level) < 4:
        return NO_POINTS, level, noise
    order = np.argsort(level)
    groups = np.array_split(order, int(np.clip(len(order) // 16, 1, 24)))
    x = np.array([np.median(level[group]) for group in groups])
    y = np.array([np.median(noise[group]) for group in groups])
    spread = np.array([1.4826 * np.median(np.abs(noise[g] - np.median(noise[g]))) for g in groups])
    least = y * np.sqrt(2.0 / np.array([need * 4 * len(g) * len(pairs) for g in groups]))
    error = 1.25 * np.maximum(spread / np.sqrt([len(group) for group in groups]), least)
    return Points(x, y, np.maximum(error, 1e-9)), level, noise


def points_of_fits(
    patches: NDArray, used: NDArray[np.bool_], fitted: FitResult, gain: float, read_noise: float, least: float
) -> Points:
    """Points of the squared residuals of fits, by the fitted expectation of the pixel.

    patches, used: (n, h, w); least: pixels with a smaller expectation are left out. A residual is smaller than the
    noise, as the fit has followed it; its leverage says by how much. Spots whose residuals are larger than noise can
    make them are left out: they do not have the fitted shape.
    """
    if len(fitted) < 8:
        return NO_POINTS
    n, height, width = patches.shape
    model, jacobian = render_with_jacobian(torch.from_numpy(fitted.parameters), (height, width))
    mean, slopes = model.numpy().reshape(n, -1), jacobian.numpy()
    keep = used.reshape(n, -1)
    weight = np.where(keep, 1.0 / np.maximum(gain * mean + read_noise**2, 1e-6 * gain**2 + 1e-9), 0.0)
    normal = np.einsum("npi,np,npj->nij", slopes, weight, slopes)
    scale = np.sqrt(np.maximum(np.einsum("nii->ni", normal), 1e-300))
    inverse = np.linalg.pinv(normal / scale[:, :, None] / scale[:, None, :], rcond=1e-10, hermitian=True)
    scaled = slopes / scale[:, None, :]
    leverage = weight * np.einsum("npi,nij,npj->np", scaled, inverse, scaled)
    residual = patches.reshape(n, -1) - mean
    chosen = keep & (mean > least) & (leverage < 0.7)
    free = 1.0 - leverage
    ratio = np.where(chosen, residual**2 * weight / np.maximum(free, 0.1), 0.0).sum(1) / np.maximum(chosen.sum(1), 1)
    # Spots of another shape than a pseudo-Voigt would count as noise; chi-square of so many pixels spreads by itself.
    number = np.maximum(chosen.sum(axis=1), 1)
    good = ratio <= np.median(ratio[number > 4] if (number > 4).any() else ratio) * (1.0 + 2.5 * np.sqrt(2.0 / number))
    chosen &= good[:, None]
    expected, squared = mean[chosen], (residual**2 / np.maximum(free, 0.3))[chosen]
    if len(expected) < 200:
        return NO_POINTS
    order = np.argsort(expected)
    groups = np.array_split(order, int(np.clip(len(order) // 150, 4, 24)))
    x, y, error = [], [], []
    for group in groups:
        m, r = expected[group], squared[group]
        within = r < 25.0 * np.mean(np.sort(r)[: int(0.95 * len(r)) + 1]) * 1.2
        x.append(m[within].mean())
        y.append(r[within].mean())
        error.append(max(r[within].std() / np.sqrt(within.sum()), MODEL_ERROR * y[-1]))
    return Points(np.array(x), np.array(y), np.maximum(np.array(error), 1e-9))


def widths_of(fitted: FitResult) -> tuple[Array, Array]:
    """Major and minor width (n,), the longer one first."""
    pair = np.sort(fitted.parameters[:, [FWHM_MAJOR, FWHM_MINOR]], axis=1)
    return pair[:, 1], pair[:, 0]


@dataclass(frozen=True)
class Line:
    """variance = intercept + gain * mean + (shape * mean)^2, with errors."""

    gain: float
    gain_error: float
    intercept: float
    intercept_error: float
    shape: float


def line(background: Points, fits: Points) -> Line | None:
    """The line through the points; None where they do not span enough to have a slope.

    Points of fits have a term of their own, quadratic in the mean, for spots that are no pseudo-Voigt.
    """
    together = background + fits
    if len(together) < 3:
        return None
    quadratic = np.r_[np.zeros(len(background)), fits.mean**2]
    columns = [np.ones(len(together)), together.mean]
    use = len(fits) >= 5
    error = together.error
    for attempt in range(3):
        matrix = np.stack([*columns, quadratic] if use else columns, axis=1) / error[:, None]
        size = np.linalg.norm(matrix, axis=0)
        if (size == 0).any():
            return None
        inverse = np.linalg.pinv((matrix / size).T @ (matrix / size), rcond=1e-12)
        solution = inverse @ ((matrix / size).T @ (together.variance / error)) / size
        deviation = np.sqrt(np.maximum(np.diag(inverse), 0.0)) / size
        misfit = together.variance / error - matrix @ solution
        if use and solution[2] < 2.0 * deviation[2]:
            use = False
            continue
        if attempt == 2:
            break
        # Points that do not fit count less.
        error = together.error * np.maximum(1.0, np.abs(misfit) / 3.0)
    free = max(len(together) - matrix.shape[1], 1)
    factor = np.sqrt(max(1.0, float(np.sum(misfit**2)) / free))
    return Line(
        float(solution[1]), float(deviation[1] * factor), float(solution[0]), float(deviation[0] * factor),
        float(np.sqrt(max(solution[2], 0.0))) if matrix.shape[1] > 2 else 0.0,
    )  # fmt: skip

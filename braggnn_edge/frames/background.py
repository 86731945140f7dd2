"""The local background of a raw frame: a sigma-clipped mean in boxes, interpolated between their centres.

The scheme is that of SExtractor (Bertin & Arnouts, Astron. Astrophys. Suppl. 117 (1996) 393-404) with one change. Where
a pixel counts a few photons, its median is a whole number and off by up to half a count, so the clipped mean is kept.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggnn_edge.core.errors import UserError

#: Pixels farther than this from the mean, in standard deviations, are no background.
_CLIP = 3.0
_ROUNDS = 6
#: A box with a smaller share of good pixels than this takes its value from the nearest box.
_LEAST_SHARE = 0.2
#: Boxes are compared with the median of so many by so many, so that one filled by a large spot does not stand out.
_SMOOTH = 3


class Rule(Protocol):
    """What decides which pixels belong to a peak: the keys of a ``[[scan]]`` with their meaning there."""

    @property
    def threshold(self) -> float: ...
    @property
    def sigma(self) -> float: ...
    @property
    def background_box(self) -> int: ...
    @property
    def detector(self) -> "Noise": ...


class Noise(Protocol):
    """gain: counts a photon; read_noise: standard deviation in counts."""

    @property
    def gain(self) -> float: ...
    @property
    def read_noise(self) -> float: ...


def threshold_of(
    frame: NDArray[np.generic], valid: NDArray[np.bool_] | None, rule: Rule
) -> float | NDArray[np.float32]:
    """Counts above which a pixel of ``frame`` (rows, cols) belongs to a peak: one number, or (rows, cols) float32.

    Without a background box it is ``threshold``. With one it is the local background plus ``threshold`` counts, or
    plus ``sigma`` standard deviations (:func:`noise`) if sigma is not 0. Pixels where ``valid`` is False have one too,
    which means nothing.
    """
    if not rule.background_box:
        return rule.threshold
    gain, read_noise = rule.detector.gain, rule.detector.read_noise
    level = estimate(frame, valid, box=rule.background_box, gain=gain, read_noise=read_noise)
    if rule.sigma:
        above = noise(level, gain, read_noise)
        above *= np.float32(rule.sigma)
        level += above
    else:
        level += np.float32(rule.threshold)
    return level


def noise(background: NDArray[np.float32], gain: float, read_noise: float) -> NDArray[np.float32]:
    """Standard deviation in counts of pixels with this background: sqrt(gain * background + read_noise^2).

    A background below one photon (``gain`` counts) is taken as one: counts of so few photons have a longer tail than
    a normal distribution of their variance.
    """
    variance = np.maximum(background, np.float32(gain))
    variance *= np.float32(gain)
    variance += np.float32(read_noise**2)
    return np.sqrt(variance, out=variance)


def estimate(
    frame: NDArray[np.generic],
    valid: NDArray[np.bool_] | None = None,
    *,
    box: int,
    gain: float = 1.0,
    read_noise: float = 0.0,
) -> NDArray[np.float32]:
    """Background (rows, cols) float32 in counts of ``frame`` (rows, cols); pixels where ``valid`` is False count not.

    In every box of ``box`` x ``box`` px the mean of the pixels within 3 standard deviations is found by repetition,
    from the median on; the deviation is the larger of the box's own and the one that gain and read_noise give. Boxes
    with under a fifth of good pixels take the value of the nearest, a median over 3 x 3 boxes takes out single ones
    that a large spot fills, and between centres the value is interpolated along both axes (beyond the outer ones
    it is theirs). A box is to be several times as wide as a peak, and smaller than the structure of the background.

    Raises UserError for a frame that is not 2-D, a box that is not positive, and a frame without a good pixel.
    """
    if frame.ndim != 2 or box < 1:
        raise UserError(
            f"background of a frame of shape {frame.shape} in boxes of {box} px: expected 2-D and 1 or more"
        )
    shape = frame.shape[0], frame.shape[1]
    sorted_boxes, count = _boxes(frame, valid, box)
    level = _clipped_mean(sorted_boxes, count, gain, read_noise).reshape(_grid(shape, box))
    whole = np.minimum(box, shape[0]) * np.minimum(box, shape[1])
    poor = (count < max(1.0, _LEAST_SHARE * whole)).reshape(level.shape)
    if poor.all():  # small frames, or hardly a good pixel: take what there is
        poor = (count == 0).reshape(level.shape)
    if poor.all():
        raise UserError("a frame has no good pixel; check the mask and the options negative and overflow_value")
    if poor.any():
        nearest = ndimage.distance_transform_edt(poor, return_distances=False, return_indices=True)
        level = level[tuple(nearest)]
    level = ndimage.median_filter(level, _SMOOTH, mode="nearest")
    return _weights(shape[0], box) @ level @ _weights(shape[1], box).T


def _grid(shape: tuple[int, int], box: int) -> tuple[int, int]:
    return -(-shape[0] // box), -(-shape[1] // box)


def _boxes(
    frame: NDArray[np.generic], valid: NDArray[np.bool_] | None, box: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(boxes, box * box) pixels of every box in ascending order, NaN at the end for bad ones; (boxes,) good ones."""
    rows, cols = _grid((frame.shape[0], frame.shape[1]), box)
    padded = np.full((rows * box, cols * box), np.nan, np.float32)
    inside = padded[: frame.shape[0], : frame.shape[1]]
    inside[...] = frame
    if valid is not None:
        inside[~valid] = np.nan
    boxes = np.ascontiguousarray(padded.reshape(rows, box, cols, box).swapaxes(1, 2)).reshape(rows * cols, box * box)
    boxes.sort(axis=1)
    return boxes, boxes.shape[1] - np.isnan(boxes).sum(axis=1)


def _clipped_mean(
    boxes: NDArray[np.float32], count: NDArray[np.int64], gain: float, read_noise: float
) -> NDArray[np.float32]:
    """(boxes,) the sigma-clipped mean of ascending pixels, of which the first ``count`` are good; 0 where none is.

    In ascending order the pixels that are kept are a run, and sums over it are differences of running sums.
    """
    each = np.arange(len(boxes))
    centre = np.where(count > 0, boxes[each, np.maximum(count - 1, 0) // 2], 0.0).astype(np.float64)
    # Sums are of deviations from the median, so that their squares keep their digits.
    deviation = np.nan_to_num(boxes - centre[:, None].astype(np.float32), copy=False, nan=0.0)
    first = np.zeros((len(boxes), boxes.shape[1] + 1))
    np.cumsum(deviation, axis=1, dtype=np.float64, out=first[:, 1:])
    second = np.zeros_like(first)
    np.cumsum(np.square(deviation, out=deviation), axis=1, dtype=np.float64, out=second[:, 1:])
    mean = centre.copy()
    quarter, three = boxes[each, count // 4], boxes[each, np.minimum(3 * count // 4, np.maximum(count - 1, 0))]
    spread = np.nan_to_num((three - quarter).astype(np.float64)) / 1.349  # of a normal distribution
    for _ in range(_ROUNDS):
        width = _CLIP * np.maximum(spread, np.sqrt(gain * np.maximum(mean, 0.0) + read_noise**2))
        # NaN sorts last, so that no search goes beyond the good pixels.
        low = np.array([row.searchsorted(limit) for row, limit in zip(boxes, mean - width, strict=True)])
        high = np.array([row.searchsorted(limit, "right") for row, limit in zip(boxes, mean + width, strict=True)])
        number = np.maximum(high - low, 1)
        shift = (first[each, high] - first[each, low]) / number
        square = (second[each, high] - second[each, low]) / number
        moved, mean = mean, centre + shift
        spread = np.sqrt(np.maximum(square - shift**2, 0.0))
        if np.abs(mean - moved).max() < 1e-3:
            break
    return mean.astype(np.float32)


def _weights(pixels: int, box: int) -> NDArray[np.float32]:
    """(pixels, boxes) weights of linear interpolation between the centres of boxes, constant beyond the outer two."""
    boxes = -(-pixels // box)
    centres = (np.arange(boxes) * box + np.minimum((np.arange(boxes) + 1) * box, pixels) - 1) / 2
    weights = [np.interp(np.arange(pixels), centres, row) for row in np.eye(boxes)]
    return np.stack(weights, axis=1).astype(np.float32)

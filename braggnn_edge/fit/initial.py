"""Bounds and start values of the pseudo-Voigt fit, from moments around the brightest pixel."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit.pseudo_voigt import (
    AMPLITUDE,
    BACKGROUND,
    COL,
    ETA,
    FWHM_MAJOR,
    FWHM_MINOR,
    PARAMETERS,
    ROW,
    TILT,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
MIN_FWHM = 0.5
# Widths and tilt turn into each other as the axes cross; none can be held alone.
FIXABLE = ("amplitude", "eta", "background")
# Pixels this far from the brightest one, each way, give the start moments; neighbours further out do not disturb them.
REACH = 3


def bounds(data: Array, keep: Mask, gain: float, read_noise: float, fixed: Mapping[str, float]) -> tuple[Array, Array]:
    """Lower and upper bounds (n, 8) of PARAMETERS for data (n, h, w); equal where ``fixed``."""
    count, height, width = data.shape
    top = np.where(keep, data, 0.0).max(axis=(1, 2))
    scale = np.maximum(top, gain)
    low, high = np.zeros((count, 8)), np.zeros((count, 8))
    low[:, [ROW, COL]] = -0.5
    high[:, ROW], high[:, COL] = height - 0.5, width - 0.5
    low[:, AMPLITUDE], high[:, AMPLITUDE] = 1e-3 * gain, 100.0 * scale
    low[:, [FWHM_MAJOR, FWHM_MINOR]], high[:, [FWHM_MAJOR, FWHM_MINOR]] = MIN_FWHM, 2.0 * max(height, width)
    # Never reached: the tilt wraps.
    low[:, TILT], high[:, TILT] = -math.pi, math.pi
    high[:, ETA] = 1.0
    # The expected variance gain * background + read_noise^2 stays positive.
    low[:, BACKGROUND], high[:, BACKGROUND] = 1e-3 * gain - 0.9 * read_noise**2 / gain, 2.0 * scale
    for name, value in fixed.items():
        if name not in FIXABLE:
            raise UserError(f"fixed parameter {name!r}: expected one of {', '.join(FIXABLE)}")
        place = PARAMETERS.index(name)
        least = low[:, place].min() if place != BACKGROUND else -0.999 * read_noise**2 / gain
        if not (math.isfinite(value) and least <= value):
            raise UserError(f"fixed {name} = {value}: expected {least:g} or more")
        low[:, place] = high[:, place] = value
    return low, high


def starts(data: Array, keep: Mask, below: Mask, *, zero_suppression: float | None, low: Array, high: Array) -> Array:
    """Start values (n, 8) for data (n, h, w), of which ``keep`` are measured and ``below`` suppressed to zero.

    The background is the median of the border (a quarter of the level of zero suppression, if any), the position the
    centroid of the intensity above 20 % of the maximum, the area that above half of it, shape and tilt the
    second moments.
    """
    count, height, width = data.shape
    border = np.ones((height, width), dtype=bool)
    border[1:-1, 1:-1] = False
    flat = np.where(keep, data, np.nan).reshape(count, height * width)
    values = np.sort(flat[:, border.ravel()], axis=1)  # NaN last
    number = np.isfinite(values).sum(axis=1)
    rows = np.arange(count)
    background = np.where(number > 0, values[rows, np.maximum(number - 1, 0) // 2], 0.0)
    if zero_suppression is not None:
        background = np.full(count, 0.25 * zero_suppression)
    # Saturated pixels, left out of the fit, still show where the peak is.
    flat = data.reshape(count, height * width)
    brightest = flat.argmax(axis=1)
    top = flat[rows, brightest]
    height_above = np.maximum(top - background, 1e-3 * np.maximum(np.abs(top), 1.0))
    row0, col0 = np.divmod(brightest, width)
    dr = np.arange(height)[None, :, None] - row0[:, None, None]
    dc = np.arange(width)[None, None, :] - col0[:, None, None]
    near = (np.abs(dr) <= REACH) & (np.abs(dc) <= REACH)
    relative = (data - background[:, None, None]) / height_above[:, None, None]
    weight = np.where(near & ~below, np.maximum(relative - 0.2, 0.0), 0.0)
    total = np.maximum(weight.sum(axis=(1, 2)), 1e-300)

    def moment(values: Array) -> Array:
        return (weight * values).sum(axis=(1, 2)) / total

    row, col = moment(dr), moment(dc)
    rr, cc = moment(dr * dr) - row * row, moment(dc * dc) - col * col
    rc = moment(dr * dc) - row * col
    # Area of the half-height ellipse is pi / 4 * major * minor.
    area = np.maximum((near & (relative > 0.5)).sum(axis=(1, 2)), 1)
    size = np.sqrt(area * 4.0 / math.pi)
    spread = np.sqrt((0.5 * (cc - rr)) ** 2 + rc * rc)
    middle = np.maximum(0.5 * (cc + rr), 0.05)
    ratio = np.sqrt(np.clip((middle + spread) / np.maximum(middle - spread, 0.05 * middle), 1.0, 16.0))
    # Half the elongation that the moments say: a start too long falls into a neighbour.
    stretch = np.sqrt(np.sqrt(ratio))
    out = np.empty((count, 8))
    out[:, ROW], out[:, COL] = row0 + row, col0 + col
    out[:, AMPLITUDE] = 1.2 * height_above
    out[:, FWHM_MAJOR], out[:, FWHM_MINOR] = size * stretch, size / stretch
    out[:, TILT] = 0.5 * np.arctan2(2.0 * rc, cc - rr)
    out[:, ETA] = 0.4
    out[:, BACKGROUND] = background
    return np.clip(out, low, high)

"""Raw counts of a frame to what the rule and the locator work with: dark, gain shift and mask, in integers.

For a raw count d of B bits, in this order:

 1. saturated: d >= the first saturated count
 2. c = max(d - dark, 0) >> gain_shift                (B bits)
 3. a masked pixel has c = 0; it is neither saturated nor above the threshold
 4. above: c > threshold
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from quant.front_end.spec import FrontEnd


@dataclass(frozen=True, eq=False)
class Corrected:
    """A frame behind the corrections; it may have fewer rows than are set, where it was cut off.

    counts: (rows, cols) c, unsigned, 0 where masked; raw: (rows, cols) d; valid: (rows, cols) bool, None: all are;
    threshold: one, or of (rows, cols).
    """

    counts: NDArray[np.integer]
    raw: NDArray[np.integer]
    valid: NDArray[np.bool_] | None
    threshold: int | NDArray[np.integer]


def correct(front: FrontEnd, frame: NDArray[np.integer], bad: NDArray[np.bool_] | None = None) -> Corrected:
    """Raw counts (rows, cols) of a frame, whole numbers of ``front.bits`` bits, through the corrections.

    bad: (rows, cols), pixels that are masked in this frame alone. Masked pixels may hold anything. Rows may be fewer
    than ``front.rows``, at least one: the frame ends behind them. Raises UserError for another shape or type, and for a
    good pixel whose count has not so many bits.
    """
    rows = len(frame) if frame.ndim else 0
    if frame.dtype.kind not in "iu" or frame.shape[1:] != (front.cols,) or not 1 <= rows <= front.rows:
        raise UserError(
            f"frame is {frame.dtype} {frame.shape}; expected whole counts {front.shape}, as the front end is set"
        )
    mask = None if front.mask is None else front.mask[:rows]
    if bad is not None:
        if bad.dtype != bool or bad.shape != frame.shape:
            raise UserError(f"bad pixels are {bad.dtype} {bad.shape}; expected bool {frame.shape}, as the frame")
        mask = bad if mask is None else mask | bad
    valid = None if mask is None or not mask.any() else ~mask
    if np.iinfo(frame.dtype).max >= 1 << front.bits or frame.dtype.kind == "i":
        good = frame if valid is None else frame[valid]
        if good.size and (good.min() < 0 or good.max() >= 1 << front.bits):
            raise UserError(
                f"frame spans {good.min()} to {good.max()} counts in good pixels; expected 0 to "
                f"{(1 << front.bits) - 1}, {front.bits} bits: mask bad pixels, or set more bits"
            )
    raw = frame if valid is None else np.where(valid, frame, frame.dtype.type(0))
    raw = raw.astype(np.uint16, copy=False)
    counts = raw
    if front.dark is not None:
        dark = front.dark[:rows].astype(np.uint16, copy=False)
        counts = np.maximum(raw, dark) - dark
    if front.gain_shift:
        counts = counts >> front.gain_shift
    threshold = np.asarray(front.threshold)
    return Corrected(counts, raw, valid, threshold[:rows].astype(np.uint16) if threshold.ndim else int(threshold))

"""What the pixels of many frames hold: a histogram of their values, and what every pixel does from frame to frame."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggnn_edge.inspection.sample import Frame

#: Integers outside this range count as its ends in the histogram.
_LOW, _HIGH = -4096, 1 << 20
#: Pixels of a frame of floats that are kept for the histogram.
_KEPT = 100_000


class Values:
    """A histogram of counts: exact for integers, of a sample for floats."""

    def __init__(self) -> None:
        self._counts = np.zeros(_HIGH - _LOW + 1, np.int64)
        self._floats: list[NDArray[np.float64]] = []

    def add(self, values: NDArray[Any]) -> None:
        """Add the values (n,)."""
        if values.dtype.kind == "f":
            step = max(1, len(values) // _KEPT)
            self._floats.append(values[::step].astype(np.float64))
            return
        shifted = np.clip(values, max(_LOW, _least(values)), min(_HIGH, _most(values))).astype(np.int64) - _LOW
        found = np.bincount(shifted)
        self._counts[: len(found)] += found

    def merge(self, other: "Values") -> None:
        """Add what another histogram holds."""
        self._counts += other._counts
        self._floats += other._floats

    def table(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Ascending distinct values, and how often each was seen."""
        if self._floats:
            value, number = np.unique(np.concatenate(self._floats), return_counts=True)
            return value, number
        place = np.flatnonzero(self._counts)
        return (place + _LOW).astype(np.float64), self._counts[place]


def _least(values: NDArray[Any]) -> int:
    return int(np.iinfo(values.dtype).min)


def _most(values: NDArray[Any]) -> int:
    return int(np.iinfo(values.dtype).max)


def quantile(table: tuple[NDArray[np.float64], NDArray[np.int64]], share: float) -> float:
    """The value below which ``share`` of a histogram lies."""
    value, number = table
    total = np.cumsum(number)
    return float(value[np.searchsorted(total, share * total[-1]).clip(max=len(value) - 1)])


@dataclass
class Survey:
    """What every pixel of the sampled frames was: smallest, largest and summed counts, and how often it was good."""

    shape: tuple[int, int]
    least: Any = None  # (rows, cols) of the frames' type, None before the first
    most: Any = None
    total: NDArray[np.float32] = field(init=False)
    zeros: NDArray[np.uint8] = field(init=False)
    bad: NDArray[np.bool_] = field(init=False)
    frames: int = 0

    def __post_init__(self) -> None:
        self.total = np.zeros(self.shape, np.float32)
        self.zeros = np.zeros(self.shape, np.uint8)
        self.bad = np.zeros(self.shape, bool)

    def add(self, frame: Frame) -> None:
        """Take one frame into account."""
        counts = frame.counts
        if self.least is None or self.most is None:
            self.least, self.most = counts.copy(), counts.copy()
        np.minimum(self.least, counts, out=self.least)
        np.maximum(self.most, counts, out=self.most)
        self.total += counts.astype(np.float32)
        self.zeros += counts == 0
        if frame.valid is not None:
            self.bad |= ~frame.valid
        self.frames += 1

    def faults(self, suppressed: bool) -> dict[str, Any]:
        """Masked, dead and hot pixels, as far as the frames can tell.

        A dead pixel has one value in all frames while the pixels around it change; a hot one is far above the pixels
        around it in every frame. suppressed: faint pixels are stored as zero, so that zeros say nothing.
        """
        if self.least is None or self.most is None or self.frames < 8:
            return {"masked": int(self.bad.sum()), "dead": None, "hot": None}
        good = ~self.bad
        constant = (self.least == self.most) & good
        mean = self.total / self.frames
        around = _local(np.where(good, mean, np.nan))
        if suppressed:
            hot = good & (self.least > 0)
            dead = None
        else:
            # The deviation of one frame, from that of the mean of all.
            spread = 1.4826 * _local(np.where(good, np.abs(mean - around), np.nan)) * np.sqrt(self.frames)
            hot = good & (self.least > around + 5.0 * np.maximum(spread, 1.0))
            # A pixel that counts few photons may be zero in all frames by chance.
            share = _local(np.where(good, self.zeros / self.frames, np.nan))
            chance = np.power(np.clip(share, 1e-12, 1.0), self.frames)
            dead = constant & (chance * good.sum() < 0.01) & ~hot
        return {
            "masked": int(self.bad.sum()),
            "dead": None if dead is None else int(dead.sum()),
            "hot": int(hot.sum()),
            "map": (np.zeros(self.shape, bool) if dead is None else dead) | hot,
        }


def _local(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Median in boxes of 16 px, spread over their pixels; NaN counts not."""
    rows, cols = image.shape
    box = 16
    padded = np.full((-(-rows // box) * box, -(-cols // box) * box), np.nan, np.float32)
    padded[:rows, :cols] = image
    tiles = padded.reshape(padded.shape[0] // box, box, padded.shape[1] // box, box).swapaxes(1, 2)
    flat = np.sort(tiles.reshape(*tiles.shape[:2], box * box), axis=2)
    number = np.isfinite(flat).sum(axis=2)
    middle = np.take_along_axis(flat, np.maximum(number - 1, 0)[:, :, None] // 2, axis=2)[:, :, 0]
    if (number == 0).any():
        where = tuple(ndimage.distance_transform_edt(number == 0, return_distances=False, return_indices=True))
        middle = middle[where] if (number > 0).any() else np.zeros_like(middle)
    return np.repeat(np.repeat(middle, box, axis=0), box, axis=1)[:rows, :cols].astype(np.float64)


def raw_marks(raw: NDArray[Any]) -> dict[str, int]:
    """How many pixels of a raw frame have a value that detectors use as a mark."""
    found: dict[str, int] = {}
    if raw.dtype.kind in "if":
        found |= {"-1": int((raw == -1).sum()), "-2": int((raw == -2).sum())}
        found["other negative"] = int((raw < 0).sum()) - found["-1"] - found["-2"]
    if raw.dtype.kind in "iu":
        found["largest of the type"] = int((raw == np.iinfo(raw.dtype).max).sum())
    if raw.dtype.kind == "f":
        found["NaN or infinite"] = int(raw.size - np.isfinite(raw).sum())
    return {name: number for name, number in found.items() if number}


@dataclass(frozen=True)
class Suppression:
    """smallest: the smallest count that is stored (0: pixels were not zero-suppressed); step: to the next count."""

    smallest: float
    step: float
    zeros: float  # share of pixels that are zero


def zero_suppression(table: tuple[NDArray[np.float64], NDArray[np.int64]]) -> Suppression:
    """Whether faint pixels were stored as zero: no counts between zero and a level, and a steep start there."""
    value, number = table
    total = int(number.sum())
    zeros = int(number[value == 0].sum())
    positive = value > 0
    v, n = value[positive], number[positive]
    if not len(v) or not total:
        return Suppression(0.0, 1.0, zeros / max(total, 1))
    # The lowest value that is not one of a few stray pixels (dead ones that leak, edges of a module).
    inside = np.searchsorted(v, 2.0 * v, side="right")
    sums = np.r_[0, np.cumsum(n)]
    begins = np.flatnonzero(sums[:-1] < 1e-3 * (sums[inside] - sums[:-1]) + 0.5)
    first = int(begins[-1]) if len(begins) else 0
    first = next((int(i) for i in begins if sums[i] == 0 and n[i] >= 1e-3 * (sums[inside[i]] - sums[i])), first)
    smallest = float(v[first])
    after = v[first : first + 8]
    step = float(np.median(np.diff(after))) if len(after) > 2 else 1.0
    negative = int(number[value < 0].sum())
    suppressed = zeros > 0 and negative < 1e-3 * zeros and smallest >= 1.6 * max(step, 1.0)
    return Suppression(smallest if suppressed else 0.0, max(step, 0.0), zeros / total)


def saturation(table: tuple[NDArray[np.float64], NDArray[np.int64]], limit: float) -> tuple[float | None, str]:
    """Counts from which on pixels are saturated, where values pile up at the top of a histogram, and why.

    limit: the largest value of the type.
    """
    value, number = table
    keep = value > 0
    value, number = value[keep], number[keep]
    if not len(value):
        return None, "no pixel has counts"
    top = float(value[-1])
    # Values fall off steadily towards the top; a pile is many more in 2 % than in the 15 % below.
    best, found = 0.0, None
    for edge in np.unique(np.geomspace(max(top * 0.9, 1.0), top, 12)):
        inside = int(number[(value >= edge * 0.99) & (value <= edge * 1.01)].sum())
        below = int(number[(value >= edge * 0.82) & (value < edge * 0.97)].sum())
        excess = inside / max(below / 7.5, 0.3)
        if inside >= 5 and excess > max(best, 4.0):
            best, found = excess, float(edge)
    if found is None:
        return None, f"no pile-up of pixels at one value; the largest is {top:,.0f} of {limit:,.0f}"
    near = (value >= found * 0.985) & (value <= found * 1.015)
    spread, weight = value[near], number[near]
    many = int(weight.sum())
    if weight.max() > 0.6 * many:
        level = float(spread[weight.argmax()])
        return level, f"{int(weight.max()):,} pixels have the value {level:,.0f}"
    total = np.cumsum(weight)
    level = float(spread[np.searchsorted(total, 0.02 * total[-1])])
    high = float(spread[np.searchsorted(total, 0.98 * total[-1]).clip(max=len(spread) - 1)])
    return level, f"{many:,} pixels pile up from {level:,.0f} to {high:,.0f} counts"

"""How the peaks of a frame are found: the component rule of the paper, or the window rule of the firmware.

    find = component_rule(threshold=150.0)
    found = find(frame, size=11)                 # found.row, found.col (m,), found.flags, ...

Both give one peak a row in the same form, so that what comes after does not know which one it was.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from braggnn_edge.frames.background import Noise, Rule, threshold_of
from braggnn_edge.peaks import find as components
from braggnn_edge.peaks.peak_list import PeakFlag
from braggnn_edge.peaks.significance import Significance, significance_of
from braggnn_edge.peaks.window import STEPS, window_peaks

Valid = NDArray[np.bool_] | None


@dataclass(frozen=True)
class Found:
    """The peaks of one frame, m of them, in row-major order.

    row, col: the brightest pixel, px; maximum: its counts; area: pixels of its component; flags: those of
    :class:`PeakFlag` that finding knows. pixels: (p,) flat indices, ascending, of the pixels of all components that
    are large enough; owner: (p,) the peak that each belongs to, a nearest one of its component, -1 for none.
    """

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    maximum: NDArray[np.float64]
    area: NDArray[np.int32]
    flags: NDArray[np.uint32]
    pixels: NDArray[np.int64]
    owner: NDArray[np.int64]


class Find(Protocol):
    """How peaks are found in a frame (rows, cols).

    valid: which pixels are good, None: all; stored: flat indices of the pixels that may differ from 0, None: any may;
    size: side of the patch around a peak, px, odd.
    """

    def __call__(
        self, frame: NDArray[Any], valid: Valid = None, stored: NDArray[np.int64] | None = None, *, size: int
    ) -> Found: ...


@dataclass(frozen=True)
class _Detector:
    gain: float
    read_noise: float


@dataclass(frozen=True)
class _Rule:
    """What both rules need: what is above the threshold, what of it is a component, which maxima are noise."""

    threshold: float = 150.0
    min_area: int = 4
    sigma: float = 0.0
    background_box: int = 0
    saturation: float = 0.0
    gain: float = 1.0
    read_noise: float = 1.0
    significance: float = 0.0

    @property
    def detector(self) -> Noise:
        return _Detector(self.gain, self.read_noise)

    def _threshold(self, frame: NDArray[Any], valid: Valid) -> float | NDArray[np.float32]:
        rule: Rule = self
        return threshold_of(frame, valid, rule)

    @property
    def _test(self) -> Significance | None:
        return significance_of(self.significance, self.gain, self.read_noise)


@dataclass(frozen=True)
class ComponentRule(_Rule):
    """The rule of the labels (:func:`braggnn_edge.peaks.find.detect`): a peak is a maximum of a component.

    threshold: counts above which a pixel belongs to a component, above the local background if background_box (px) is
    not 0; sigma: the same in standard deviations of the noise; min_area: pixels of the smallest component; saturation:
    counts from which on a pixel is saturated, 0: none is; gain: counts a photon; read_noise: counts; significance: by
    how many standard deviations of the noise a peak stands out from the ring around it, 0: by any number. A component
    with several maxima that stand out from the noise gives as many peaks, with the flag DOUBLE.
    """

    def __call__(
        self, frame: NDArray[Any], valid: Valid = None, stored: NDArray[np.int64] | None = None, *, size: int
    ) -> Found:
        """The peaks of a frame: see :class:`Find`."""
        found = components.detect(
            frame, threshold=self._threshold(frame, valid), valid=valid, stored=stored, min_area=self.min_area,
            size=size, saturation=self.saturation or np.inf, gain=self.gain, read_noise=self.read_noise,
        )  # fmt: skip
        maxima, number = found.maxima, found.maxima["maxima"]
        if (test := self._test) is not None:
            maxima = maxima[test.at(frame, valid, maxima["row"].astype(np.int64), maxima["col"].astype(np.int64))]
            number = _companions(maxima["component"])
        flags = _flags(
            saturated=maxima["saturated"], edge=maxima["edge"], neighbours=maxima["neighbours"],
            maxima=number, masked=maxima["masked"],
        )  # fmt: skip
        row, col = maxima["row"].astype(np.int64), maxima["col"].astype(np.int64)
        owner = _owners(row, col, maxima["component"], found.pixels, found.component, frame.shape[1])
        return Found(row, col, maxima["maximum"], maxima["area"], flags, found.pixels, owner)


@dataclass(frozen=True)
class WindowRule(_Rule):
    """The rule of the firmware (:func:`braggnn_edge.peaks.window.window_peaks`), with the fields of
    :class:`ComponentRule`; and reach, how far a peak outshines all others, px.

    Peaks of one component carry the flag DOUBLE. SATURATED says that a pixel within reach is.
    """

    reach: int = STEPS

    def __call__(
        self, frame: NDArray[Any], valid: Valid = None, stored: NDArray[np.int64] | None = None, *, size: int
    ) -> Found:
        """The peaks of a frame: see :class:`Find`."""
        found = window_peaks(
            frame, threshold=self._threshold(frame, valid), valid=valid, stored=stored, reach=self.reach,
            min_area=self.min_area, size=size, saturation=self.saturation or np.inf,
            significance=self._test,
        )  # fmt: skip
        maxima = _companions(found.component)
        flags = _flags(
            saturated=found.saturated, edge=found.edge, neighbours=found.neighbours, maxima=maxima, masked=found.masked
        )
        owner = _owners(found.row, found.col, found.component, found.pixels, found.of, frame.shape[1])
        return Found(found.row, found.col, found.maximum, found.area, flags, found.pixels, owner)


#: The rules by the name that a command line has for them.
RULES: Mapping[str, Callable[..., Find]] = {"component": ComponentRule, "window": WindowRule}


def component_rule(threshold: float, **options: Any) -> ComponentRule:
    """A :class:`ComponentRule` by its threshold in counts; options: its other fields."""
    return ComponentRule(threshold, **options)


def window_rule(threshold: float, **options: Any) -> WindowRule:
    """A :class:`WindowRule` by its threshold in counts; options: its other fields."""
    return WindowRule(threshold, **options)


def _companions(component: NDArray[np.integer]) -> NDArray[np.integer]:
    """(m,) how many of the peaks (m,) are of the component of each."""
    return np.bincount(component)[component] if len(component) else component


def _flags(*, saturated: NDArray, edge: NDArray, neighbours: NDArray, maxima: NDArray, masked: NDArray) -> NDArray:
    flags = np.zeros(len(edge), np.uint32)
    for flag, holds in (
        (PeakFlag.SATURATED, saturated),
        (PeakFlag.EDGE, edge),
        (PeakFlag.NEIGHBOUR, neighbours > 0),
        (PeakFlag.DOUBLE, maxima > 1),
        (PeakFlag.BAD_PIXEL, masked > 0),
    ):
        flags[holds] |= np.uint32(flag)
    return flags


def _owners(row: NDArray, col: NDArray, component: NDArray, pixels: NDArray, of: NDArray, cols: int) -> NDArray:
    """(p,) the peak that owns each of the pixels (p,): of those of its component ``of`` (p,) a nearest one; -1 where
    the component has none. row, col, component: (m,) of the peaks."""
    if not len(component):
        return np.full(len(pixels), -1, np.int64)
    count = max(int(component.max()), int(of.max())) + 1
    peaks = np.bincount(component, minlength=count)
    only = np.full(count, -1, np.int64)
    only[component] = np.arange(len(component))  # where there are several, the tree decides
    owner = only[of]
    shared = np.flatnonzero(peaks[of] > 1)
    if len(shared):
        # Components are set apart by more than any distance in a frame: the nearest peak is of the same one.
        apart = 4.0 * (pixels[-1] + cols)
        several = np.flatnonzero(peaks[component] > 1)
        tree = cKDTree(np.stack([row[several], col[several], apart * component[several]], axis=1))
        at = pixels[shared]
        owner[shared] = several[tree.query(np.stack([at // cols, at % cols, apart * of[shared]], axis=1))[1]]
    return owner

"""What a first look at a scan found: every figure with the reason for it, or with the reason why there is none."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.fit.single import FitResult
from braggnn_edge.inspection.spots import Finding, Rocking, Spots
from braggnn_edge.inspection.transfer import NO_POINTS, Line, Points


@dataclass(frozen=True)
class Fact:
    """A figure; value: None where it could not be found; why: how it was found, or why not; limit: it is below that."""

    value: float | None
    why: str
    error: float | None = None
    limit: float | None = None

    def or_else(self, other: float) -> float:
        """The value, or what stands for one that is not known."""
        return other if self.value is None else self.value

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {key: value for key, value in vars(self).items() if value is not None or key == "value"}


@dataclass
class PixelFacts:
    """Of the frames whose pixels were looked at one by one."""

    frames: list[int]
    counts: dict[str, float]
    zeros: float  # share
    marks: dict[str, int]
    faults: dict[str, Any]
    zero_suppression: Fact  # smallest count stored
    background: Fact  # median over the panel, counts
    background_range: tuple[float, float] | None  # 2 and 98 % of its boxes
    noise: float | None  # standard deviation of background pixels, counts
    histogram: tuple[NDArray[np.float64], NDArray[np.int64]]
    ignored: NDArray[np.bool_] | None = None


@dataclass
class DetectorFacts:
    """Of the detector; the points and the line through them are for the picture."""

    gain: Fact
    read_noise: Fact
    saturation: Fact
    background: Points = NO_POINTS
    fits: Points = NO_POINTS
    line: Line | None = None


@dataclass
class SpotFacts:
    """Of the spots; size: side of the patches in which they were fitted, px; good: (m,) which fits count."""

    rule: Finding
    reason: str
    spots: Spots
    fitted: FitResult
    good: NDArray[np.bool_]
    size: int
    rocking: Rocking
    extent: Fact  # 90 % of the spots are no longer than that, px


@dataclass
class Look:
    """A scan seen for the first time."""

    name: str
    shape: tuple[int, int, int]
    dtype: str
    omega_step: Fact
    pixels: PixelFacts
    detector: DetectorFacts
    spots: SpotFacts | None
    bad_frames: dict[int, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

"""Lists of peaks and of reflections: the columns, their units, and their flags.

A *peak* is what one frame shows of a reflection. A *reflection* is seen in several frames while the sample turns, and
is merged from their peaks. Positions are (row, col) in px, the centre of pixel (0, 0) being (0.0, 0.0); omega is in
degrees, that of a frame the middle of its rotation. What is not known is NaN.
"""

import enum
from typing import NamedTuple

import numpy as np


class PeakFlag(enum.IntFlag):
    """The bits of the column ``flags``."""

    SATURATED = 1 << 0  #: a pixel of the component, or of the window, is saturated
    EDGE = 1 << 1  #: the patch does not fit in the frame: the position is the brightest pixel's, and sigma is not known
    NEIGHBOUR = 1 << 2  #: another component is in the patch
    DOUBLE = 1 << 3  #: the component has further maxima, each of which is a peak of its own
    BAD_PIXEL = 1 << 4  #: the patch holds bad pixels
    OUTSIDE = 1 << 5  #: outside of what the network was trained on, in brightness or size, as far as that is known
    NOT_TRUSTED = 1 << 6  #: sigma is above the limit that was asked for
    CUT = 1 << 7  #: of a reflection: seen in the first or last frame, so that it may go on outside the scan


class Column(NamedTuple):
    """One column: its name, its type as numpy has it, its unit, and what it means."""

    name: str
    kind: str
    unit: str
    meaning: str


#: The columns of a list of peaks.
PEAK_COLUMNS: tuple[Column, ...] = (
    Column("scan", "i4", "1", "number of the scan, from 0; its name is an attribute of the file"),
    Column("frame", "i8", "1", "number of the frame, from 0"),
    Column("omega", "f8", "deg", "centre of the frame's rotation"),
    Column("row", "f8", "px", "position"),
    Column("col", "f8", "px", "position"),
    Column("sigma_row", "f8", "px", "standard deviation of the position"),
    Column("sigma_col", "f8", "px", "standard deviation of the position"),
    Column("wide_row", "f8", "px", "half-width of the interval that holds 95 % of the errors of the position"),
    Column("wide_col", "f8", "px", "half-width of the interval that holds 95 % of the errors of the position"),
    Column("intensity", "f8", "counts", "integrated, above the local background"),
    Column("background", "f8", "counts", "local background of a pixel"),
    Column("maximum", "f8", "counts", "of the brightest pixel, with its background"),
    Column("area", "i4", "px", "pixels of the component above the threshold"),
    Column("pixel_row", "i4", "px", "the brightest pixel, the centre of the patch"),
    Column("pixel_col", "i4", "px", "the brightest pixel, the centre of the patch"),
    Column("width_row", "f8", "px", "standard deviation of the spot, not of its position"),
    Column("width_col", "f8", "px", "standard deviation of the spot, not of its position"),
    Column("flags", "u4", "1", "bits: what is special about the peak"),
)

#: The columns of a list of reflections.
REFLECTION_COLUMNS: tuple[Column, ...] = (
    Column("scan", "i4", "1", "number of the scan, from 0; its name is an attribute of the file"),
    Column("omega", "f8", "deg", "mean over the peaks, weighted by intensity"),
    Column("row", "f8", "px", "mean over the peaks, weighted by intensity"),
    Column("col", "f8", "px", "mean over the peaks, weighted by intensity"),
    Column("sigma_row", "f8", "px", "standard deviation of that mean; NaN where the sigma of a peak is not known"),
    Column("sigma_col", "f8", "px", "standard deviation of that mean; NaN where the sigma of a peak is not known"),
    Column("weighted_row", "f8", "px", "mean over the peaks whose sigma is known, weighted by 1 / sigma**2"),
    Column("weighted_col", "f8", "px", "mean over the peaks whose sigma is known, weighted by 1 / sigma**2"),
    Column("weighted_sigma_row", "f8", "px", "standard deviation of that mean"),
    Column("weighted_sigma_col", "f8", "px", "standard deviation of that mean"),
    Column("intensity", "f8", "counts", "sum over the peaks"),
    Column("background", "f8", "counts", "mean over the peaks, weighted by intensity"),
    Column("maximum", "f8", "counts", "largest of the peaks, with its background"),
    Column("area", "i8", "px", "sum over the peaks"),
    Column("frames", "i4", "1", "in how many frames it is seen"),
    Column("peaks", "i4", "1", "of how many peaks it is merged"),
    Column(
        "first_frame",
        "i8",
        "1",
        "the first that shows it; above last_frame where it goes on from the last frames to the first",
    ),
    Column("last_frame", "i8", "1", "the last that shows it"),
    Column("spread_omega", "f8", "deg", "standard deviation over the peaks, weighted by intensity"),
    Column("spread_row", "f8", "px", "standard deviation over the peaks, weighted by intensity"),
    Column("spread_col", "f8", "px", "standard deviation over the peaks, weighted by intensity"),
    Column("width_row", "f8", "px", "mean over the peaks, weighted by intensity"),
    Column("width_col", "f8", "px", "mean over the peaks, weighted by intensity"),
    Column("flags", "u4", "1", "bits: those of all its peaks together"),
)

#: Columns by the kind of list.
COLUMNS = {"peaks": PEAK_COLUMNS, "reflections": REFLECTION_COLUMNS}
PEAKS = np.dtype([(column.name, column.kind) for column in PEAK_COLUMNS])
REFLECTIONS = np.dtype([(column.name, column.kind) for column in REFLECTION_COLUMNS])

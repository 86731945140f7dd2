"""Lists of peaks and of reflections: the columns, their units, and their flags.

A *peak* is what one frame shows of a reflection. A *reflection* is seen in several frames while the sample turns, and
is merged from their peaks. Positions are (row, col) in px, the centre of pixel (0, 0) being (0.0, 0.0); omega is in
degrees, that of a frame the middle of its rotation. What is not known is NaN.
"""

import enum

import numpy as np


class PeakFlag(enum.IntFlag):
    """The bits of the column ``flags``."""

    SATURATED = 1 << 0  #: a pixel of the component, or of the window, is saturated
    EDGE = 1 << 1  #: the patch does not fit in the frame: the position is the brightest pixel's, and sigma is not known
    NEIGHBOUR = 1 << 2  #: another component is in the patch
    DOUBLE = 1 << 3  #: the component has further maxima
    BAD_PIXEL = 1 << 4  #: the patch holds bad pixels
    OUTSIDE = 1 << 5  #: fainter, brighter or larger than what the network was trained on, as far as that is known
    NOT_TRUSTED = 1 << 6  #: sigma is above the limit that was asked for


#: Name, type and unit of every column of a list of peaks.
PEAK_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("scan", "i4", "1"),  # number of the scan, from 0; its name is an attribute of the file
    ("frame", "i8", "1"),
    ("omega", "f8", "deg"),
    ("row", "f8", "px"),
    ("col", "f8", "px"),
    ("sigma_row", "f8", "px"),
    ("sigma_col", "f8", "px"),
    ("intensity", "f8", "counts"),  # integrated, above the local background
    ("maximum", "f8", "counts"),  # of the brightest pixel, with its background
    ("area", "i4", "px"),  # pixels above the threshold
    ("pixel_row", "i4", "px"),  # the brightest pixel
    ("pixel_col", "i4", "px"),
    ("flags", "u4", "1"),
)

#: Name, type and unit of every column of a list of reflections.
REFLECTION_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("scan", "i4", "1"),
    ("omega", "f8", "deg"),  # mean over the frames, weighted by intensity
    ("row", "f8", "px"),  # mean over the peaks, weighted by intensity
    ("col", "f8", "px"),
    ("sigma_row", "f8", "px"),
    ("sigma_col", "f8", "px"),
    ("weighted_row", "f8", "px"),  # mean over the peaks, weighted by 1 / sigma**2; NaN where a sigma is not known
    ("weighted_col", "f8", "px"),
    ("intensity", "f8", "counts"),  # sum
    ("maximum", "f8", "counts"),  # largest
    ("area", "i8", "px"),  # sum
    ("frames", "i4", "1"),  # in which it is seen
    ("peaks", "i4", "1"),
    ("first_frame", "i8", "1"),
    ("last_frame", "i8", "1"),
    ("spread_omega", "f8", "deg"),  # standard deviations over the peaks, weighted by intensity
    ("spread_row", "f8", "px"),
    ("spread_col", "f8", "px"),
    ("flags", "u4", "1"),  # those of all its peaks together
)

PEAKS = np.dtype([(name, kind) for name, kind, _ in PEAK_COLUMNS])
REFLECTIONS = np.dtype([(name, kind) for name, kind, _ in REFLECTION_COLUMNS])

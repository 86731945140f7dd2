"""The table ``[rtl.front_end]``."""

import dataclasses
from dataclasses import dataclass

from braggnn_edge.core.config import refuse_unused
from hls.rtl.front_end.geometry import Geometry


@dataclass(frozen=True)
class FrontEndSpec:
    """The front end of a circuit, pixels in and records out (`docs/reference/front_end.md`), beside its RTL project."""

    pixels: int = 0  # a clock: 1, 2, 4, 8, 16 or 32; 0: no front end is written
    bits: int = 16  # of a count, 8 to 16
    max_cols: int = 2048  # columns of the largest frame, a multiple of `pixels`
    max_rows: int = 65535  # rows of the largest frame
    min_area: int = 4  # pixels of the smallest peak, 1 to 4
    # records that wait for the output, a power of two from 32 to 4096; the least follows from the stages
    places: int = 512
    significance: bool = False  # with the test of significance
    # entries of the list of bad pixels, a power of two from 16 to 32768; 0: no pixel can be masked
    bad_words: int = 0
    dark: bool = False  # dark counts of each pixel are subtracted; they come by a stream of maps
    thresholds: bool = False  # a threshold a pixel; they come by the same stream
    # the locator stays outside, behind two AXI4-Streams: the `io_stream` project of `make hls`, for layers the only way
    external: bool = False

    def __post_init__(self) -> None:
        if self.pixels:
            self.geometry(7)
            return
        keys = tuple(one.name for one in dataclasses.fields(self)[1:])
        refuse_unused(self, keys, "without pixels")

    def geometry(self, window: int) -> Geometry:
        """The sizes for a locator's window; UserError for what cannot be built."""
        return Geometry(
            self.pixels, self.bits, self.max_cols, self.max_rows, window, self.min_area, self.places, self.significance,
            self.bad_words, self.dark, self.thresholds, self.external,
        )  # fmt: skip

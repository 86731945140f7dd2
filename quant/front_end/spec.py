"""What a front end is set to: the sizes of its frames, its registers and its memories of one value a pixel.

    front = FrontEnd(rows=512, cols=1024, threshold=45, window=9)

How many pixels come at a clock is not among them: the records do not depend on it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.significance import Significance
from braggnn_edge.peaks.window import STEPS
from quant.contract.locator import IntegerLocator

#: Largest number of rows and of columns: those of a peak are 16 bits of its record.
LARGEST = 1 << 16
#: Sides of the windows that a front end cuts, px: those of the locators that there are.
WINDOWS = (7, 9, 11)


@dataclass(frozen=True, eq=False)
class FrontEnd:
    """A front end's settings. Raises UserError for what the hardware has no bits for.

    rows, cols: of a frame, px. bits: of a count, 8 to 16. threshold: counts above which a pixel may belong to a
    peak, 0 to 2**bits - 1; or one a pixel, (rows, cols). reach: px; min_area: px, of the smallest peak. window:
    side of what the locator is given, px. saturation: raw count from which on a pixel is saturated; 0: 2**bits - 1.
    gain_shift: bits that every count is shifted down by, 0 to 15; from ``bits`` on every count is 0. dark: (rows,
    cols) counts that are subtracted; mask: (rows, cols) bool, True where a pixel is bad. sigma_limit: code of ln
    sigma above which a position is not trusted, signed 16 bits. significance: the test that leaves out maxima of
    noise; None: there is none.
    """

    rows: int
    cols: int
    bits: int = 16
    threshold: int | NDArray[np.integer] = 0
    reach: int = STEPS
    min_area: int = 4
    window: int = 11
    saturation: int = 0
    gain_shift: int = 0
    dark: NDArray[np.integer] | None = None
    mask: NDArray[np.bool_] | None = None
    sigma_limit: int = (1 << 15) - 1
    significance: Significance | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.rows < LARGEST and 1 <= self.cols < LARGEST):
            raise UserError(f"front end: frames of {self.rows} x {self.cols} px; expected 1 to {LARGEST - 1} each way")
        if not 8 <= self.bits <= 16:
            raise UserError(f"front end: counts of {self.bits} bits; expected 8 to 16")
        if self.reach < 1 or self.reach > 7:
            raise UserError(f"front end: reach {self.reach}; expected 1 to 7 px")
        if not 1 <= self.min_area <= self.reach + 1:
            raise UserError(
                f"front end: min_area {self.min_area}; expected 1 to {self.reach + 1}: the area test takes "
                f"min_area - 1 steps, and sees {self.reach} px each way"
            )
        if self.window not in WINDOWS:
            raise UserError(
                f"front end: a window of {self.window} px; expected {', '.join(map(str, WINDOWS))}: choose a locator "
                "with such a window"
            )
        self._counts("threshold", self.threshold)
        self._counts("saturation", self.saturation)
        if not 0 <= self.gain_shift < 16:
            raise UserError(f"front end: gain_shift {self.gain_shift}; expected 0 to 15, as the register takes")
        if self.dark is not None:
            self._counts("dark", self.dark)
        if self.mask is not None and (self.mask.dtype != bool or self.mask.shape != self.shape):
            raise UserError(
                f"front end: mask is {self.mask.dtype} {self.mask.shape}; expected bool {self.shape}, as the frames"
            )
        if not -(1 << 15) <= self.sigma_limit < 1 << 15:
            raise UserError(f"front end: sigma_limit {self.sigma_limit}; expected a code of 16 bits, signed")
        if self.significance is not None and self.reach != STEPS:
            raise UserError(f"front end: the test of significance is for a reach of {STEPS} px, not {self.reach}")

    def _counts(self, name: str, values: int | NDArray[np.integer]) -> None:
        found = np.asarray(values)
        if found.dtype.kind not in "iu" or found.shape not in ((), self.shape):
            raise UserError(
                f"front end: {name} is {found.dtype} {found.shape}; expected whole counts, one or {self.shape}; round "
                "what has a fraction"
            )
        if found.min() < 0 or found.max() >= 1 << self.bits:
            raise UserError(
                f"front end: {name} spans {found.min()} to {found.max()}; expected 0 to {(1 << self.bits) - 1}, counts "
                f"of {self.bits} bits"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols

    @property
    def first_saturated(self) -> int:
        """The raw count from which on a pixel is saturated."""
        return self.saturation or (1 << self.bits) - 1

    @property
    def most_in_a_row(self) -> int:
        """The largest number of peaks in a row, and in any ``reach + 1`` rows that follow each other.

        Take any block of (reach + 1) x (reach + 1) px. Two of its pixels are within ``reach`` of each other. If both
        were peaks, each would be dimmer than the other, or equal and later in raster order, which cannot be. So a block
        holds at most one peak, and ``reach + 1`` rows are covered by ceil(cols / (reach + 1)) blocks.
        """
        return -(-self.cols // (self.reach + 1))

    @property
    def most_in_a_frame(self) -> int:
        """The largest number of peaks in a frame: that of blocks that cover it; see :attr:`most_in_a_row`."""
        return -(-self.rows // (self.reach + 1)) * self.most_in_a_row

    def check(self, locator: IntegerLocator) -> None:
        """Raise UserError unless the front end feeds a locator and its record holds what the locator answers."""
        if locator.window != self.window:
            raise UserError(
                f"front end: its window is {self.window} px, the locator's {locator.window}; build the front end for "
                "this locator"
            )
        if locator.output.bits > 16 or not 0 <= locator.output.frac <= 15:
            raise UserError(
                f"front end: the locator's outputs have {locator.output.bits} bits, {locator.output.frac} of them "
                "after the point; a record holds 16, of which at most 15 after the point"
            )

"""Sizes of a front end: what is asked for, and the widths and depths that follow from it."""

from dataclasses import dataclass

from braggnn_edge.core.errors import UserError
from hls.rtl.front_end.registers import OPTIONS

#: Pixels a clock that can be built.
WIDTHS = (1, 2, 4, 8, 16, 32)

#: Windows of a locator that can be read out.
WINDOWS = (7, 9, 11)

#: Pixels within which two maxima exclude each other; the comparisons are built for this one.
REACH = 3


def least_places(stages: int, later: int = 0) -> int:
    """Places of records with which no peak is dropped while the output is ready, of a locator of so many stages.

    In a row of the densest lattice one maximum leaves the queue a clock, from two groups a word on for the whole row.
    Its place is taken when its features are known, and free eight clocks after the locator's result has followed.
    Fewer groups bring maxima at a lower rate; the same number is asked for. The frame's end has one place more.
    later: clocks from the features to the test of significance, 0 without one; the place is taken behind it.
    """
    return max(1, stages - 5 - later) + 9


@dataclass(frozen=True)
class Geometry:
    """What a front end is built for; every number below it follows.

    pixels: a clock; bits: of a count; max_cols, max_rows: of the largest frame; window: side of the locator's patch;
    min_area: pixels of the smallest peak; places: records that wait for the network, a power of two. significance: it
    has a test of significance; bad_words: entries of its list of bad pixels, a power of two, 0: it has none.
    dark, thresholds: it takes one of each a pixel, from a stream of maps. external: the locator is outside, behind two
    streams.
    """

    pixels: int = 4
    bits: int = 16
    max_cols: int = 2048
    max_rows: int = 65535
    window: int = 7
    min_area: int = 4
    places: int = 512
    significance: bool = False
    bad_words: int = 0
    dark: bool = False
    thresholds: bool = False
    external: bool = False

    def __post_init__(self) -> None:
        if self.pixels not in WIDTHS:
            raise UserError(
                f"front end: {self.pixels} pixels a clock cannot be built; expected one of "
                f"{', '.join(map(str, WIDTHS))}"
            )
        if not 8 <= self.bits <= 16:
            raise UserError(f"front end: counts of {self.bits} bits cannot be built; expected 8 to 16 bits")
        if self.window not in WINDOWS:
            raise UserError(
                f"front end: a locator's window of {self.window} px cannot be read out; expected one of "
                f"{', '.join(map(str, WINDOWS))}"
            )
        if self.max_cols % self.pixels or not self.window <= self.max_cols <= 32768:
            raise UserError(
                f"front end: rows of up to {self.max_cols} columns; expected a multiple of the {self.pixels} pixels a "
                f"clock, from {self.window} to 32768"
            )
        if not self.window <= self.max_rows <= 65535:
            raise UserError(f"front end: up to {self.max_rows} rows; expected {self.window} to 65535")
        if not 1 <= self.min_area <= 4:
            raise UserError(f"front end: peaks of {self.min_area} pixels or more; the area test is built for 1 to 4")
        if self.places not in (1 << k for k in range(5, 13)):
            raise UserError(f"front end: {self.places} places for records; expected a power of two from 32 to 4096")
        if self.bad_words and self.bad_words not in (1 << k for k in range(4, 16)):
            raise UserError(
                f"front end: a list of {self.bad_words} words with bad pixels; expected 0, or a power of two from 16 "
                "to 32768"
            )

    def check_places(self, stages: int) -> None:
        """Refuse fewer places than a locator of so many stages keeps taken; UserError with the least that can be."""
        least = least_places(stages, self.later)
        if self.places < least:
            raise UserError(
                f"front end: {self.places} places for records, but a locator of {stages} stages needs {least} or peaks "
                f"are dropped while the output is ready; set places to {1 << (least - 1).bit_length()} or more"
            )

    @property
    def options(self) -> tuple[str, ...]:
        """What it is built with, of :data:`hls.rtl.front_end.registers.OPTIONS`."""
        return tuple(name for name in OPTIONS if getattr(self, name))

    @property
    def maps(self) -> tuple[str, ...]:
        """What a beat of maps holds of each pixel, in this order: "dark", "thresholds", both or neither."""
        return tuple(name for name in ("dark", "thresholds") if getattr(self, name))

    @property
    def map_bits(self) -> int:
        """Bits of a beat of maps: whole bytes."""
        return -(-len(self.maps) * self.pixels * self.bits // 8) * 8

    @property
    def later(self) -> int:
        """Clocks from the features of a maximum to whether it is significant."""
        return 3 if self.significance else 0

    @property
    def half(self) -> int:
        """Pixels that a window reaches beyond its centre."""
        return self.window // 2

    @property
    def group(self) -> int:
        """Neighbouring pixels of a word that share a lane: they hold one maximum at most."""
        return min(REACH + 1, self.pixels)

    @property
    def context(self) -> int:
        """Words on either side of a word that its windows reach."""
        return -(-self.half // self.pixels)

    @property
    def words(self) -> int:
        """Words of the longest row."""
        return self.max_cols // self.pixels

    @property
    def word_bits(self) -> int:
        """Bits of the index of a word in its row."""
        return max(1, (self.words - 1).bit_length())

    @property
    def time_bits(self) -> int:
        """The history holds 2**time_bits words, and the queue as many maxima's.

        At most one maximum lies in 4 x 4 pixels, so four rows have at most one for each group of a row, and up to 16
        pixels a clock four rows take at least as many clocks. Whatever the arrangement, the maxima that wait are at
        most those of one row's time less what leaves in it: (groups of a word - 1) * words. With 32 pixels a clock
        there is no such bound; the stream waits for the queue there.
        """
        lanes = min(self.pixels, 16) // self.group
        return ((lanes - 1) * self.words + 64 - 1).bit_length()

    @property
    def slots(self) -> int:
        """Groups that a window lies in, at most."""
        return -(-(self.window + self.group - 1) // self.group)

    @property
    def banks(self) -> int:
        """Memories of the history, a group of pixels wide."""
        return max(self.pixels // self.group, 1 << (self.slots - 1).bit_length())

    @property
    def stored_words(self) -> int:
        """Words of a row of the stored frame."""
        return -(-self.window // self.pixels)

    @property
    def data_bits(self) -> int:
        """Bits of a beat of the input stream: whole bytes."""
        return -(-self.pixels * self.bits // 8) * 8

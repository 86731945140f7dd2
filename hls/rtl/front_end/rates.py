"""What a detector asks of a front end: clocks of a frame, the lowest clock, pixels a clock, a queue in front.

    python -m hls.rtl.front_end.rates --rows 2167 --cols 2070 --frames-per-second 750
    python -m hls.rtl.front_end.rates --rows 2167 --cols 2070 --frames-per-second 750 --pixels 16
    python -m hls.rtl.front_end.rates                                                   # the detectors below

All of it is counted from the RTL, and a test compares the count with a simulation. Which clock a device reaches, only
place and route can say.
"""

import argparse
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from braggnn_edge.core.errors import UserError
from hls.rtl.front_end.geometry import WIDTHS, Geometry

#: Hz: clocks that the table is made for.
CLOCKS = (150e6, 250e6, 300e6)

#: Stages of the circuit that ships, at two logic levels a stage.
STAGES = 16

#: Clocks from a word to the one below it, at least; shorter rows wait (PERIOD of the sequencer).
_PERIOD = 3

#: Clocks of a frame that depend on nothing: from its last word to the next frame's start.
_FIXED = 42


@dataclass(frozen=True)
class Detector:
    """Frames (rows, cols), px, that come at a rate, 1/s; bits: of a count on the link."""

    name: str
    rows: int
    cols: int
    frames: float
    bits: int

    def __post_init__(self) -> None:
        if not (self.rows > 0 and self.cols > 0 and 0 < self.frames < math.inf):
            raise UserError(
                f"detector {self.name!r}: {self.rows} x {self.cols} px at {self.frames:g} frames a second; expected "
                "positive numbers"
            )

    @property
    def pixels(self) -> float:
        """A second."""
        return self.rows * self.cols * self.frames


#: Sizes and rates as their makers' data sheets give them, and two that stand for a class.
DETECTORS = (
    Detector("GE-type flat panel", 2048, 2048, 8, 14),
    Detector("GE-type flat panel", 2048, 2048, 15, 14),
    Detector("Pilatus3 6M", 2527, 2463, 100, 20),
    Detector("Pilatus3 2M", 1679, 1475, 250, 20),
    Detector("Eiger 4M", 2167, 2070, 500, 16),
    Detector("Eiger 4M", 2167, 2070, 750, 12),
    Detector("Eiger 16M", 4371, 4150, 133, 12),
    Detector("2k x 2k, 1 kHz", 2048, 2048, 1000, 16),
    Detector("half a megapixel, 10 kHz", 512, 1024, 10000, 12),
)


@dataclass(frozen=True)
class Need:
    """What one front end of so many pixels a clock needs for a detector's frames.

    pixels: a clock; words: of a frame; pause: clocks between two frames in which no word is taken; clocks: of a frame,
    pause included; hertz: the lowest clock at which no frame has to wait, if the source has a pause between frames or a
    queue in front.
    """

    pixels: int
    words: int
    pause: int
    clocks: int
    hertz: float

    def margin(self, clock: float) -> float:
        """Share of a clock (Hz) that is to spare; negative: the clock is too low."""
        return 1 - self.hertz / clock

    def queue(self, clock: float) -> int:
        """Words of a queue in front with which a source that never pauses is not stopped.

        The source sends evenly over the whole time of a frame. While nothing is taken, pause * (words a clock) come in.
        """
        a_clock = self.words * self.hertz / self.clocks / clock
        return math.ceil(self.pause * a_clock) + 1


def need(
    rows: int, cols: int, frames: float, pixels: int, *, window: int = 7, stages: int = STAGES, later: int = 0,
    maps: bool = False,
) -> Need:  # fmt: skip
    """What frames (rows, cols), ``frames`` of them a second, need of a front end of ``pixels`` a clock.

    window: of the locator, px; stages: of its pipeline. later: clocks of a test of significance
    (:attr:`Geometry.later`), 0 without one; maps: with dark counts or thresholds a pixel.

    Columns are padded to a multiple of ``pixels``. Behind its words a frame has (window - 1) / 2 rows and the words of
    a window's right half; then the pipelines run empty. Raises UserError for what cannot be built.
    """
    if stages < 1:
        raise UserError(f"stages {stages}: a locator's pipeline has at least 1")
    padded = -(-cols // pixels) * pixels
    geometry = Geometry(
        pixels, max_cols=max(padded, -(-window // pixels) * pixels), max_rows=max(rows, window), window=window
    )
    of_row = padded // pixels
    each = 1 if of_row >= _PERIOD else _PERIOD
    delay = max(stages - 5, later + 1)
    behind = geometry.half * of_row + geometry.context
    clocks = (rows * of_row + behind - 1) * each + 1 + geometry.context + delay + maps + _FIXED
    return Need(pixels, rows * of_row, clocks - rows * of_row * each, clocks, clocks * frames)


def least(detector: Detector, clock: float, *, window: int = 7, stages: int = STAGES) -> tuple[int, Need]:
    """How many front ends side by side a detector needs at a clock (Hz), and what each of them needs.

    The fewest pixels a clock that are enough; where 32 are not, the frame is cut into equal bands of rows, which
    overlap by the window less one row so that no peak is at an edge between them.
    """
    for pixels in WIDTHS:
        found = need(detector.rows, detector.cols, detector.frames, pixels, window=window, stages=stages)
        if found.hertz <= clock:
            return 1, found
    for bands in range(2, detector.rows + 1):
        rows = -(-detector.rows // bands) + window - 1
        found = need(rows, detector.cols, detector.frames, WIDTHS[-1], window=window, stages=stages)
        if found.hertz <= clock:
            return bands, found
    raise UserError(
        f"detector {detector.name!r}: {detector.pixels:.3g} pixels a second are too many for front ends at "
        f"{clock / 1e6:g} MHz, one a row; expected a higher clock"
    )


def table(
    detectors: Iterable[Detector] = DETECTORS, clocks: Iterable[float] = CLOCKS, *, window: int = 7,
    stages: int = STAGES,
) -> str:  # fmt: skip
    """A table in Markdown: for each detector and clock pixels a clock, margin, and words of a queue in front."""
    clocks = tuple(clocks)
    heads = " | ".join(f"{clock / 1e6:g} MHz" for clock in clocks)
    lines = [
        f"| detector | frame, px | frames/s | bits | Mpx/s | {heads} |",
        "|---" * (5 + len(clocks)) + "|",
    ]
    for one in detectors:
        cells = []
        for clock in clocks:
            bands, found = least(one, clock, window=window, stages=stages)
            several = f"{bands} x " if bands > 1 else ""
            cells.append(f"{several}{found.pixels} px, {found.margin(clock):.0%}, {found.queue(clock):,}")
        bits = f"{one.bits}" if one.bits <= 16 else f"{one.bits} (16 are taken)"
        lines.append(
            f"| {one.name} | {one.rows} x {one.cols} | {one.frames:g} | {bits} | {one.pixels / 1e6:,.0f} | "
            + " | ".join(cells) + " |"
        )  # fmt: skip
    return "\n".join(lines) + "\n"


def lowest(one: Detector, pixels: int, clocks: Iterable[float], *, window: int = 7, stages: int = STAGES) -> str:
    """What a detector needs of a front end of so many pixels a clock, in words: the lowest clock, and at each of the
    clocks (Hz) what is to spare."""
    found = need(one.rows, one.cols, one.frames, pixels, window=window, stages=stages)
    lines = [f"{pixels} pixels a clock: {found.clocks:,} clocks a frame, so at least {found.hertz / 1e6:.1f} MHz"]
    for clock in clocks:
        enough = f"{found.margin(clock):.0%} to spare, a queue of {found.queue(clock):,} words"
        lines.append(
            f"at {clock / 1e6:g} MHz: {enough if found.hertz <= clock else f'too slow, {found.margin(clock):.0%}'}"
        )
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m hls.rtl.front_end.rates",
        description="Pixels a clock that a detector needs: for each clock the pixels a clock of the front end, the "
        "share of the clock that is to spare, and the words of a queue in front of it for a source that never pauses.",
    )
    parser.add_argument("--rows", type=int, help="of a frame (default: a list of detectors)")
    parser.add_argument("--cols", type=int, help="of a frame")
    parser.add_argument("--frames-per-second", type=float, metavar="RATE")
    parser.add_argument("--bits", type=int, default=16, help="of a count on the link (default: %(default)s)")
    parser.add_argument(
        "--clock", type=float, action="append", metavar="MHZ", help="may be repeated (default: 150, 250 and 300)"
    )
    parser.add_argument("--pixels", type=int, help="a clock: say what these need, and not the fewest that are enough")
    parser.add_argument("--window", type=int, default=7, help="of the locator, px (default: %(default)s)")
    parser.add_argument("--stages", type=int, default=STAGES, help="of the locator's pipeline (default: %(default)s)")
    given = parser.parse_args(words)
    asked = (given.rows, given.cols, given.frames_per_second)
    try:
        detectors: tuple[Detector, ...] = DETECTORS
        if any(one is not None for one in asked):
            if None in asked:
                raise UserError("--rows, --cols and --frames-per-second belong together; give all three or none")
            detectors = (Detector("yours", *asked, given.bits),)
        clocks = [1e6 * clock for clock in given.clock or ()] or CLOCKS
        if not all(0 < clock < math.inf for clock in clocks):
            raise UserError(f"--clock {', '.join(f'{c / 1e6:g}' for c in clocks)}: expected positive numbers of MHz")
        if given.pixels is None:
            text = table(detectors, clocks, window=given.window, stages=given.stages)
        elif None in asked:
            raise UserError("--pixels needs --rows, --cols and --frames-per-second")
        else:
            text = lowest(detectors[0], given.pixels, clocks, window=given.window, stages=given.stages)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

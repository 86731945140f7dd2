"""Pixels in, records out: the contract that the firmware of a detector keeps, in software.

    pipeline = Pipeline(FrontEnd(rows=512, cols=1024, threshold=45, window=9), locator)
    for records in pipeline.records(frames):     # frames: an iterable of (rows, cols) raw counts
        ...                                      # (n + 1,) of RECORD: the frame's peaks, then its end

Records leave in the order of frames, and in a frame in raster order of the peaks' pixels. The record that ends a frame
has the same size; :func:`quant.front_end.records.decode` tells them apart.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.contract.locator import IntegerLocator
from quant.front_end.correct import correct
from quant.front_end.records import RECORD, VERSION, EndFlag, RecordFlag, Records, end_record
from quant.front_end.rule import Peaks, find
from quant.front_end.spec import FrontEnd
from quant.front_end.stream import Row, arrived

#: Windows that are located at a time, and frames that wait for it at most: memory is bounded by them.
_BATCH, _FRAMES = 4096, 256
_FLAWLESS = EndFlag(0)


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame as it comes: raw counts (rows, cols), at most as many rows as are set; bad: (rows, cols), pixels that
    are masked in this frame alone; stored: flat indices, ascending, of the pixels that may differ from 0; flags: of the
    stream that it came in; number: None: one more than the frame before."""

    counts: NDArray[np.integer]
    bad: NDArray[np.bool_] | None = None
    stored: NDArray[np.int64] | None = None
    flags: EndFlag = _FLAWLESS
    number: int | None = None


@dataclass(frozen=True, eq=False)
class _Held:
    """What is kept of a frame until its windows are located."""

    number: int
    rows: int
    flags: EndFlag
    peaks: Peaks


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A front end with the locator behind it. Raises UserError where they do not fit."""

    front: FrontEnd
    locator: IntegerLocator

    def __post_init__(self) -> None:
        self.front.check(self.locator)

    def records(self, frames: Iterable[NDArray[np.integer] | Shot], first: int = 0) -> Iterator[Records]:
        """The records (n + 1,) of :data:`RECORD` of each frame in turn: its n peaks and its end.

        frames: raw counts (rows, cols), or these with more that is known; first: the number of the first. A bounded
        number of frames' peaks is in memory. Raises UserError for a frame that does not fit
        (:func:`quant.front_end.correct.correct`).
        """
        held: list[_Held] = []
        waiting = 0
        number = first - 1
        for item in frames:
            shot = item if isinstance(item, Shot) else Shot(item)
            number = number + 1 if shot.number is None else shot.number
            corrected = correct(self.front, shot.counts, shot.bad)
            stored = shot.stored if self.front.dark is None else None
            found = find(self.front, corrected, stored)
            held.append(_Held(number, len(shot.counts), shot.flags, found))
            waiting += len(found.windows)
            if waiting >= _BATCH or len(held) >= _FRAMES:
                yield from self._sent(held)
                held, waiting = [], 0
        yield from self._sent(held)

    def stream(self, rows: Iterable[Row], first: int = 0) -> Iterator[Records]:
        """:meth:`records` of a stream of rows that may have faults (:mod:`quant.front_end.stream`)."""
        shots = (Shot(found.counts, found.bad, flags=found.flags) for found in arrived(self.front, rows))
        return self.records(shots, first)

    def _sent(self, held: list["_Held"]) -> Iterator[Records]:
        if not held:
            return
        windows = [one.peaks.windows for one in held]
        codes = self._codes(np.concatenate(windows))
        ends = np.cumsum([len(piece) for piece in windows])
        for one, own in zip(held, np.split(codes, ends[:-1]), strict=True):
            peaks = self._peaks(one.number, one.peaks, own)
            end = end_record(
                peaks,
                frame=one.number,
                rows=one.rows,
                cols=self.front.cols,
                above=one.peaks.above,
                flags=int(one.flags),
            )
            yield np.concatenate([peaks, end.view(RECORD)])

    def _codes(self, windows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Windows (n, window, window) to codes (n, 4): offset (row, col), ln sigma (row, col), 0 where not known."""
        codes = np.zeros((len(windows), 4), np.int64)
        if len(windows):
            found = self.locator.run(self.locator.inputs(windows))
            codes[:, : found.shape[1]] = found
        return codes

    def _peaks(self, number: int, found: Peaks, codes: NDArray[np.int64]) -> Records:
        whole = (found.flags & RecordFlag.EDGE) == 0
        answers = np.zeros((len(whole), 4), np.int64)
        answers[whole] = codes
        frac = self.locator.output.frac
        flags = found.flags.copy()
        flags[(answers[:, 2:] > self.front.sigma_limit).any(axis=1)] |= int(RecordFlag.NOT_TRUSTED)
        records = np.zeros(len(whole), RECORD)
        records["frame"] = number % (1 << 32)
        records["row"], records["col"] = (found.row << frac) + answers[:, 0], (found.col << frac) + answers[:, 1]
        records["ln_sigma_row"], records["ln_sigma_col"] = answers[:, 2], answers[:, 3]
        records["brightest"], records["total"], records["flags"] = found.brightest, found.total, flags
        records["peak_row"], records["peak_col"], records["version"] = found.row, found.col, VERSION
        return records

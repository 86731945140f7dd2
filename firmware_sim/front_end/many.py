"""Many small frames at once: the contract's records of all of them, and one run of a simulation for all of them.

A frame of some hundred pixels is one call of the contract and one process of the simulator otherwise, which take far
longer than its pixels do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.front_end import cases
from firmware_sim.front_end.compare import as_records, differences
from firmware_sim.front_end.simulate import Script, Simulator, run
from quant.contract.locator import IntegerLocator
from quant.front_end.correct import correct
from quant.front_end.pipeline import Pipeline, Shot
from quant.front_end.records import END, END_RECORD, RECORD, VERSION, RecordFlag, Records
from quant.front_end.spec import FrontEnd
from quant.front_end.stream import Arrived, arrived

#: Rows of a tall frame, at most: a peak's row has 16 bits, and 31 with the fraction.
_TALL = 20_000


def records_of(front: FrontEnd, locator: IntegerLocator, frames: Sequence[Arrived], first: int = 0) -> Records:
    """The records (n,) of :data:`RECORD` that :class:`Pipeline` has of frames, one after the other; first: the number
    of the first."""
    most = max(1, _TALL // (front.rows + _gap(front)))
    pieces = [
        _of_tall(front, locator, frames[start : start + most], first + start) for start in range(0, len(frames), most)
    ]
    return np.concatenate([np.empty(0, RECORD), *pieces])


def _gap(front: FrontEnd) -> int:
    return max(front.window // 2, front.reach)


def _of_tall(front: FrontEnd, locator: IntegerLocator, frames: Sequence[Arrived], first: int) -> Records:
    """Records of frames that lie above each other in a tall one.

    Between them are rows of zeros, good pixels that are above no threshold: as many as a window or a comparison
    reaches, so that no frame sees another. That a window leaves its own frame is seen from the peak's row.
    """
    gap = _gap(front)
    rows = np.array([len(one.counts) for one in frames])
    tops = np.cumsum(rows + gap) - rows
    counts = np.zeros((int(tops[-1] + rows[-1]) + gap, front.cols), np.uint16)
    bad = np.zeros(counts.shape, bool)
    for top, one in zip(tops.tolist(), frames, strict=True):
        counts[top : top + len(one.counts)] = one.counts
        if one.bad is not None:
            bad[top : top + len(one.counts)] = one.bad
    tall = _tall_settings(front, rows, tops, len(counts))
    (found,) = Pipeline(tall, locator).records([Shot(counts, bad)])
    peaks = found[:-1].copy()
    of = np.searchsorted(tops, peaks["peak_row"].astype(np.int64), side="right") - 1
    frac = locator.output.frac
    peaks["frame"] = first + of
    peaks["row"] -= (tops[of] << frac).astype(np.int32)
    peaks["peak_row"] -= tops[of].astype(np.uint16)
    half = front.window // 2
    edge = (peaks["peak_row"] < half) | (peaks["peak_row"] >= rows[of] - half)
    peaks["flags"][edge] |= int(RecordFlag.EDGE | RecordFlag.NOT_TRUSTED)
    for name in ("row", "col"):
        at = peaks[f"peak_{name}"].astype(np.int32) << frac
        peaks[name] = np.where(edge, at, peaks[name])
        peaks[f"ln_sigma_{name}"][edge] = 0
    return _with_ends(peaks, of, _ends(front, frames, first, _above(tall, counts, bad, tops)))


def _tall_settings(front: FrontEnd, rows: NDArray[np.int64], tops: NDArray[np.int64], tall: int) -> FrontEnd:
    """The settings of the tall frame: memories of one value a pixel once for every frame, 0 between them."""
    of_row = np.concatenate([np.arange(number) for number in rows])
    at = of_row + np.repeat(tops, rows)

    def stacked(memory: NDArray[np.generic]) -> NDArray[np.generic]:
        found = np.zeros((tall, front.cols), memory.dtype)
        found[at] = memory[of_row]
        return found

    memories: dict[str, Any] = {
        name: stacked(value) for name in ("threshold", "dark", "mask") if np.ndim(value := getattr(front, name)) == 2
    }
    return replace(front, rows=tall, **memories)


def _above(
    tall: FrontEnd, counts: NDArray[np.uint16], bad: NDArray[np.bool_], tops: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(frames,) pixels of each above the threshold; a masked one has 0 counts."""
    corrected = correct(tall, counts, bad)
    return np.add.reduceat((corrected.counts > corrected.threshold).sum(axis=1), tops)


def _ends(front: FrontEnd, frames: Sequence[Arrived], first: int, above: NDArray[np.int64]) -> Records:
    """The end records (frames,) without what is of their peaks."""
    ends = np.zeros(len(frames), END_RECORD)
    ends["frame"] = first + np.arange(len(frames))
    ends["rows"], ends["cols"] = [len(one.counts) for one in frames], front.cols
    ends["flags"], ends["above"] = [int(one.flags) for one in frames], above
    ends["kind"], ends["version"] = END, VERSION
    return ends


def _with_ends(peaks: Records, of: NDArray[np.int64], ends: Records) -> Records:
    """Peaks (n,), which are in the frames ``of`` (n,), and behind those of each frame its end, with their sum."""
    number = np.bincount(of, minlength=len(ends))
    sums = np.zeros(len(ends), np.uint64)
    np.add.at(sums, of, peaks.view("<u4").reshape(-1, 8).sum(axis=1, dtype=np.uint64))
    ends["peaks"], ends["checksum"] = number, sums % (1 << 32)
    found = np.empty(len(peaks) + len(ends), RECORD)
    found[np.arange(len(peaks)) + of] = peaks
    found[np.cumsum(number) + np.arange(len(ends))] = ends.view(RECORD)
    return found


def frames_of(records: Records) -> Iterator[Records]:
    """Records (n,) frame by frame, each with its end."""
    stops = np.flatnonzero(records["kind"] == END) + 1
    yield from np.split(records, stops)[:-1]


@dataclass(frozen=True)
class Checked:
    """What a run of many cases was compared in; digest: of the script and the expected records, by SHA-256.

    differences: what differs, in words, at most ten.
    """

    frames: int
    records: int
    dropped: int
    clocks: int
    seconds: float
    digest: str
    differences: list[str]


def check(simulator: Simulator, locator: IntegerLocator, seed: int, number: int, frames: int) -> Checked:
    """Random cases of some frames each, one after the other in one simulation, compared record for record.

    The registers are written anew for every case, while the frame before may be in hand: what it started with holds.
    Where the front end has more than registers (a list of bad pixels, maps), or a frame is one beat, which may wait
    inside before it starts, the case before ends first, and a reset follows.
    """
    geometry = simulator.geometry
    script = Script(geometry.pixels)
    expected: list[Records] = []
    first = total = 0
    for case, pace in cases.random_cases(seed, geometry, number, frames):
        came = list(arrived(case.front, case.rows))
        expected.append(records_of(case.front, locator, came, first))
        total += len(came)
        cases.settings(case.front, script, geometry.maps).pace(*pace).rows(case.rows)
        first += len(came)
        if geometry.bad_words or geometry.maps or case.front.rows * case.front.cols == script.pixels:
            script.pace(0, 0).until(sum(map(len, expected)), 2000)
            if geometry.maps:
                script.map_beats(np.empty((0, len(geometry.maps), script.pixels), np.uint16), np.empty(0, np.uint32))
            script.reset()
            first = 0
        elif geometry.significance:
            script.write("significance", 0)  # of the frame that starts next
    wanted = np.concatenate(expected)
    script.pace(0, 0).until(len(wanted), 20_000).wait(200)
    found = run(simulator, script, seed=seed)
    records = as_records(found.raw)
    ends = records[records["kind"] == END].view(END_RECORD)
    refused = [f"access {k} was answered with {answer}" for k, (_, answer) in enumerate(found.answers) if answer]
    digest = sha256(b"".join(word.tobytes() for word in script.words) + wanted.tobytes()).hexdigest()
    return Checked(
        total, len(records), int(ends["dropped"].sum()), found.cycles, found.seconds, digest,
        refused + differences(records, frames_of(wanted)),
    )  # fmt: skip

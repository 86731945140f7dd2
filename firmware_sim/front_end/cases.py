"""Random cases that look for trouble: settings, streams of rows with and without faults, and benches for them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.peaks.significance import Significance
from firmware_sim.front_end.simulate import Script
from hls.rtl.front_end.bad_pixels import bad_pixels, writes
from hls.rtl.front_end.geometry import Geometry
from quant.contract.locator import IntegerLocator
from quant.front_end.pipeline import Pipeline
from quant.front_end.records import Records
from quant.front_end.spec import FrontEnd
from quant.front_end.stream import Row, rows_of

#: Chances of 256 of a gap before a beat, and of an output that is not ready.
PACES = ((0, 0), (0, 0), (30, 0), (0, 60), (200, 30), (30, 200))


@dataclass(frozen=True)
class Case:
    """Settings and a stream of rows."""

    front: FrontEnd
    rows: list[Row]

    def expected(self, locator: IntegerLocator) -> list[Records]:
        """The contract's records of each frame."""
        return list(Pipeline(self.front, locator).stream(self.rows))


def settings(front: FrontEnd, script: Script, built: tuple[str, ...] = ("dark", "thresholds")) -> Script:
    """Write the registers of a front end, load its mask and offer its maps, if it has any, and enable it.

    built: the maps that the simulated one takes (:attr:`Geometry.maps`).
    """
    if front.mask is not None:
        script.write("bad_clear", 1)  # columns cannot change under a mask
    one_threshold = front.threshold if isinstance(front.threshold, int) else 0
    for name, number in (
        ("rows", front.rows), ("cols", front.cols), ("threshold", one_threshold), ("saturation", front.saturation),
        ("gain_shift", front.gain_shift),
    ):  # fmt: skip
        script.write(name, number)
    if front.dark is not None or not isinstance(front.threshold, int):
        whole = {"dark": 0 if front.dark is None else front.dark, "thresholds": front.threshold}
        script.write("maps", 1).maps(*(np.broadcast_to(whole[name], front.shape) for name in built))
    for register, value in writes(front.mask, script.pixels) if front.mask is not None else ():
        script.write(register, value)
    if front.significance is not None:
        script.write("significance", 1).write("significance_slope", front.significance.slope)
        script.write("significance_offset", front.significance.offset)
    return script.write("sigma_limit", front.sigma_limit).write("enable", 1)


def setting(rng: np.random.Generator, geometry: Geometry, most_rows: int = 20) -> FrontEnd:
    """Settings at random: mostly small thresholds, so that small random counts have ties and plateaus."""
    top = (1 << geometry.bits) - 1
    rows, cols = int(rng.integers(1, most_rows + 1)), int(rng.integers(1, geometry.words + 1)) * geometry.pixels
    return FrontEnd(
        rows=rows, cols=cols, mask=_mask(rng, geometry, rows, cols), significance=_significance(rng, geometry),
        bits=geometry.bits, threshold=_threshold(rng, geometry, rows, cols), window=geometry.window,
        dark=_dark(rng, geometry, rows, cols),
        min_area=geometry.min_area, saturation=int(rng.choice([0, 0, 5, 30, top])),
        gain_shift=int(rng.choice([0, 0, 0, 1, 3])), sigma_limit=int(rng.choice([32767, 32767, -5, 0, 10])),
    )  # fmt: skip


def _threshold(rng: np.random.Generator, geometry: Geometry, rows: int, cols: int) -> int | NDArray[np.int64]:
    """One, or one a pixel where there are maps of them."""
    one = int(rng.choice([0, 1, 2, 3, 5, (1 << geometry.bits) // 3]))
    if not geometry.thresholds or rng.random() < 0.4:
        return one
    return rng.integers(max(0, one - 2), one + 3, (rows, cols))


def _dark(rng: np.random.Generator, geometry: Geometry, rows: int, cols: int) -> NDArray[np.int64] | None:
    """Dark counts, some of them as large as counts can be, or none."""
    if not geometry.dark or rng.random() < 0.4:
        return None
    dark = rng.integers(0, 6, (rows, cols))
    dark[rng.random((rows, cols)) < 0.05] = int(rng.integers(0, 1 << geometry.bits))
    return dark


def _mask(rng: np.random.Generator, geometry: Geometry, rows: int, cols: int) -> NDArray[np.bool_] | None:
    """Lone pixels, gaps between modules, or both, where there is a list and they fit into it; or none."""
    if not geometry.bad_words or rng.random() < 0.2:
        return None
    mask = rng.random((rows, cols)) < float(rng.choice([0.0, 0.01, 0.1, 0.6]))
    if rng.random() < 0.3:
        at = int(rng.integers(0, cols))
        mask[:, at : at + int(rng.integers(1, 20))] = True
    if rng.random() < 0.3:
        at = int(rng.integers(0, rows))
        mask[at : at + int(rng.integers(1, 3))] = True
    return mask if len(bad_pixels(mask, geometry.pixels).row) <= geometry.bad_words else None


def _significance(rng: np.random.Generator, geometry: Geometry) -> Significance | None:
    """A test that random frames pass and fail, or none."""
    if not geometry.significance or rng.random() < 0.3:
        return None
    return Significance(int(rng.choice([0, 1, 40, 700, 65535])), int(rng.choice([0, 1, 900, 50_688, (1 << 32) - 1])))


def counts(rng: np.random.Generator, rows: int, cols: int, bits: int) -> NDArray[np.uint16]:
    """A small frame at random: noise of any height, ties, plateaus, a lattice as dense as maxima can lie, or spots."""
    top = (1 << bits) - 1
    kind = int(rng.integers(0, 7))
    if kind == 0:
        found = rng.integers(0, int(rng.choice([2, 3, 8, 40])), (rows, cols))
    elif kind == 1:
        found = rng.integers(0, top + 1, (rows, cols))
    elif kind == 2:
        found = np.minimum(rng.integers(0, 3 * top, (rows, cols)), top)
    elif kind == 3:
        found = np.full((rows, cols), int(rng.integers(0, 60)))
    elif kind == 4:
        found = np.full((rows, cols), int(rng.integers(0, 9)))
        found[int(rng.integers(0, 4)) :: 4, int(rng.integers(0, 4)) :: 4] = int(rng.integers(9, top + 1))
    else:
        found = rng.poisson(rng.uniform(0, 4), (rows, cols))
        down, right = np.mgrid[:rows, :cols]
        for _ in range(int(rng.integers(1, 6))):
            away = (down - rng.uniform(0, rows)) ** 2 + (right - rng.uniform(0, cols)) ** 2
            found = found + rng.poisson(rng.uniform(5, top / 2) * np.exp(-away / rng.uniform(0.5, 6)))
    return np.minimum(found, top).astype(np.uint16)


def whole_frames(rng: np.random.Generator, geometry: Geometry, frames: int, most_rows: int = 20) -> Case:
    """Frames without faults of the stream."""
    front = setting(rng, geometry, most_rows)
    return Case(
        front,
        [row for _ in range(frames) for row in rows_of(counts(rng, front.rows, front.cols, geometry.bits))],
    )


def faulty(rng: np.random.Generator, geometry: Geometry, frames: int) -> Case:
    """Frames with rows missing, too many, too short, too long, starts that are missing or early, ends that are missing.

    The last frame is whole, so that none is left open.
    """
    front = setting(rng, geometry, 12)
    rows: list[Row] = []
    for _ in range(frames):
        number = front.rows if rng.random() < 0.6 else int(rng.integers(0, front.rows + 2))
        frame = counts(rng, max(number, 1), front.cols + 4 * geometry.pixels, geometry.bits)
        for at in range(number):
            words = front.cols // geometry.pixels
            if rng.random() < 0.06:
                words = int(rng.integers(1, words + 4))
            rows.append(Row(frame[at, : words * geometry.pixels], start=at == 0 and rng.random() < 0.9))
    for at in range(len(rows) - 1):
        if rows[at + 1].start and rng.random() < 0.3:
            rows[at] = Row(rows[at].counts, rows[at].start, ended=False)
    return Case(front, [*rows, *rows_of(counts(rng, front.rows, front.cols, geometry.bits))])


def random_cases(seed: int, geometry: Geometry, number: int, frames: int = 3) -> Iterator[tuple[Case, tuple[int, int]]]:
    """Cases of some frames each and the pace of each case, every second one with faults."""
    rng = np.random.default_rng(seed)
    for k in range(number):
        case = faulty(rng, geometry, frames + 1) if k % 2 else whole_frames(rng, geometry, frames)
        yield case, PACES[int(rng.integers(0, len(PACES)))]


def script_of(case: Case, pace: tuple[int, int], geometry: Geometry, records: int) -> Script:
    """A bench for a case: registers, the stream at the pace, then a ready output until so many records came."""
    script = settings(case.front, Script(geometry.pixels), geometry.maps).pace(*pace).rows(case.rows)
    return script.pace(0, 0).until(records, 20_000).wait(200)

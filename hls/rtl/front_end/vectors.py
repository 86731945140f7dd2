"""Vectors of a front end's project: registers, beats of a stream and the records of the contract, as hexadecimal text.

A vector has files in ``vectors/``, a line an entry, as ``$readmemh`` reads them:

- ``NAME.registers.hex``: offset << 32 | value, written in order; the last one enables the front end.
- ``NAME.beats.hex``: tlast, tuser, and below them tdata.
- ``NAME.maps.hex``, where maps are asked for: tlast, tuser, and below them tdata of ``s_map``, of one frame; they come
  over and over.
- ``NAME.patches.hex``, ``NAME.positions.hex``, where the locator is external: the counts of each patch that leaves by
  ``m_patch``, the first count lowest, and tdata of the beat of ``s_position`` that answers it.
- ``NAME.records.hex``: tdata of each record; the high-water marks, which are of the hardware alone, are 0.

The streams are random, always the same for the same sizes; what is expected is of
:class:`quant.front_end.pipeline.Pipeline`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.peaks.significance import Significance
from hls.rtl.front_end import external
from hls.rtl.front_end.bad_pixels import writes
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.registers import REGISTERS
from quant.contract.locator import IntegerLocator
from quant.front_end.pipeline import Pipeline
from quant.front_end.records import Records
from quant.front_end.spec import FrontEnd
from quant.front_end.stream import Row, rows_of

_SEED = 20260
#: Columns of the widest rows in a vector.
_WIDEST = 4096
_OFFSETS = {one.name: one.offset for one in REGISTERS}


@dataclass(frozen=True)
class Vector:
    """A stream and what must leave for it.

    name: of its files; text: what it is about, one line; registers: (name, value) in the order they are written; rows:
    of the stream, each a whole number of beats; records: (n,) of :data:`quant.front_end.records.RECORD`; streams: maps,
    and what passes to an external locator and from it, a file's text by its kind.
    """

    name: str
    text: str
    registers: list[tuple[str, int]]
    rows: list[Row]
    records: Records
    streams: Mapping[str, str] = field(default_factory=dict)

    def files(self, geometry: Geometry) -> dict[str, str]:
        """Its files' texts by name."""
        written = [
            f"{_OFFSETS[name] << 32 | value & 0xFFFFFFFF:010x} // {name} = {value}\n" for name, value in self.registers
        ]
        raw = np.ascontiguousarray(self.records).view(np.uint8).reshape(-1, 32)
        return {
            f"{self.name}.registers.hex": "".join(written),
            f"{self.name}.beats.hex": "".join(beats(self.rows, geometry)),
            f"{self.name}.records.hex": "".join(f"{bytes(row[::-1]).hex()}\n" for row in raw),
            **{f"{self.name}.{kind}.hex": text for kind, text in self.streams.items()},
        }


def beats(rows: list[Row], geometry: Geometry) -> Iterator[str]:
    """The beats of rows, a line each: tlast and tuser above the ``geometry.data_bits`` bits of tdata."""
    digits = -(-(geometry.data_bits + 2) // 4)
    for row in rows:
        words = np.asarray(row.counts).reshape(-1, geometry.pixels).tolist()
        for at, counts in enumerate(words):
            word = 0
            for count in reversed(counts):
                word = word << geometry.bits | count
            word |= (row.start and at == 0) << geometry.data_bits
            word |= (row.ended and at == len(words) - 1) << geometry.data_bits + 1
            yield f"{word:0{digits}x}\n"


def vectors(locator: IntegerLocator, geometry: Geometry) -> list[Vector]:
    """The vectors of a project: whole frames, faults of the stream, and one of the options, where there are any."""
    rng = np.random.default_rng(_SEED)
    cols = min(geometry.max_cols, max(2 * geometry.pixels, 48 // geometry.pixels * geometry.pixels))
    rows = min(geometry.max_rows, 24)
    top = (1 << geometry.bits) - 1
    settings = {
        "rows": rows, "cols": cols, "bits": geometry.bits, "window": geometry.window, "min_area": geometry.min_area,
        "threshold": top // 16, "saturation": top - top // 8, "sigma_limit": 0,
    }  # fmt: skip

    frames = [_frame(rng, rows, cols, top) for _ in range(7)]
    found = []

    def add(name: str, text: str, given: list[Row], **more: object) -> None:
        front = FrontEnd(**(settings | more))  # type: ignore[arg-type]
        records = np.concatenate(list(Pipeline(front, locator).stream(given)))
        streams = external.texts(front, given, locator) if geometry.external else {}
        if front.dark is not None or not isinstance(front.threshold, int):
            streams |= {"maps": "".join(_map_beats(front, geometry))}
        found.append(Vector(name, text, _registers(front, geometry), given, records, streams))

    whole = [row for frame in frames[:3] for row in rows_of(frame)]
    add("whole", "three whole frames, with peaks at the edges, saturated pixels and double maxima", whole)
    add("shifted", "two whole frames with a gain shift of 2", whole[: 2 * rows], gain_shift=2, threshold=top // 64)
    add(
        "faults", "a frame without its start, a short row and a long one, a start that comes early",
        _faulty(frames[3:], geometry.pixels),
    )  # fmt: skip
    more: dict[str, object] = {}
    if geometry.bad_words:
        mask = np.zeros((rows, cols), bool)
        mask[:, cols // 2] = mask[rows // 3] = mask[1, 1] = True
        more["mask"] = mask
    if geometry.significance:
        more["significance"] = Significance(min(100 * top, (1 << 16) - 1), min((10 * top) ** 2, (1 << 32) - 1))
    other = np.random.default_rng(_SEED + 1)
    if geometry.dark:
        dark = other.integers(0, top // 32 + 1, (rows, cols))
        dark[other.random((rows, cols)) < 0.02] = top
        more["dark"] = dark
    if geometry.thresholds:
        more["threshold"] = other.integers(top // 20, top // 12 + 1, (rows, cols))
    if more:
        add("options", f"two whole frames with {' and '.join(more)}", whole[: 2 * rows], **more)
    wide = min(geometry.max_cols, _WIDEST // geometry.pixels * geometry.pixels)
    shape = min(geometry.max_rows, geometry.window + 2), wide
    words = shape[0] * wide // geometry.pixels
    least: dict[str, object] = {"rows": shape[0], "cols": wide}
    if 0 < geometry.bad_words <= words // 2:
        least["mask"] = _full(other, shape, geometry)
    add(
        "wide",
        "the widest rows" + " and a full list of bad pixels" * ("mask" in least),
        rows_of(_frame(other, *shape, top)),
        **least,
    )
    return found


def _full(rng: np.random.Generator, shape: tuple[int, int], geometry: Geometry) -> NDArray[np.bool_]:
    """A mask that fills the list: a bad pixel in every second word, as many as there are entries."""
    words = np.zeros((shape[0] * shape[1] // geometry.pixels, geometry.pixels), bool)
    # The last entries are in the last rows.
    at = np.arange(len(words) - 2 * geometry.bad_words, len(words), 2)
    words[at, rng.integers(0, geometry.pixels, len(at))] = True
    return words.reshape(shape)


def _map_beats(front: FrontEnd, geometry: Geometry) -> Iterator[str]:
    """The beats of the maps of a frame, a line each: tlast and tuser above the ``geometry.map_bits`` bits of tdata."""
    planes: dict[str, object] = {"dark": 0 if front.dark is None else front.dark, "thresholds": front.threshold}
    shape = (front.rows * front.cols // geometry.pixels, geometry.pixels)
    counts = [np.broadcast_to(np.asarray(planes[name]), front.shape).reshape(shape).tolist() for name in geometry.maps]
    words = front.cols // geometry.pixels
    for at, beat in enumerate(zip(*counts, strict=True)):
        word = 0
        for count in reversed([count for plane in beat for count in plane]):
            word = word << geometry.bits | count
        word |= (at == 0) << geometry.map_bits | (at % words == words - 1) << geometry.map_bits + 1
        yield f"{word:0{-(-(geometry.map_bits + 2) // 4)}x}\n"


def _faulty(frames: list[NDArray[np.uint16]], pixels: int) -> list[Row]:
    """A frame without its start; one with a short and a long row; one that the next start cuts off in the middle of a
    row; and a whole one. frames: four."""
    lost, uneven, early, last = (rows_of(frame) for frame in frames)
    lost[0] = Row(lost[0].counts)
    first = uneven[0].counts
    short = max(1, len(first) // pixels // 2) * pixels
    at = len(uneven) // 2
    uneven[at - 2] = Row(uneven[at - 2].counts[:short])
    uneven[at + 2] = Row(np.concatenate([uneven[at + 2].counts, first[:pixels]]))
    early = [*early[:at], Row(early[at].counts[:short], ended=False)]
    return [*lost, *uneven, *early, *last]


def _registers(front: FrontEnd, geometry: Geometry) -> list[tuple[str, int]]:
    """What is written for settings, the mask before it is enabled and behind the columns."""
    found: list[tuple[str, int]] = [("enable", 0)]
    if geometry.bad_words:
        found.append(("bad_clear", 1))
    found += [
        (name, int(getattr(front, name)) if np.ndim(getattr(front, name)) == 0 else 0)
        for name in ("rows", "cols", "threshold", "saturation", "gain_shift", "sigma_limit")
    ]
    if geometry.maps:
        found.append(("maps", int(front.dark is not None or np.ndim(front.threshold) > 0)))
    if front.mask is not None:
        found += writes(front.mask, geometry.pixels, geometry.bad_words)
    if geometry.significance:
        found.append(("significance", int(front.significance is not None)))
    if front.significance is not None:
        found += [
            ("significance_slope", front.significance.slope), ("significance_offset", front.significance.offset)
        ]  # fmt: skip
    return [*found, ("enable", 1)]


def _frame(rng: np.random.Generator, rows: int, cols: int, top: int) -> NDArray[np.uint16]:
    """A frame with some spots on a low background; two of them are a peak with a second maximum."""
    row, col = np.arange(rows)[:, None], np.arange(cols)[None, :]
    counts = rng.poisson(top / 64, (rows, cols)).astype(np.float64)
    spots = [(rows / 2, cols / 2, 0.8, 0.6), (rows / 2, cols / 2 + 2, 0.7, 0.6)]
    spots += [
        (rng.uniform(0, rows), rng.uniform(0, cols), rng.uniform(0.2, 1.3), rng.uniform(0.8, 4.0)) for _ in range(5)
    ]
    for at_row, at_col, height, width in spots:
        counts += height * top * np.exp(-((row - at_row) ** 2 + (col - at_col) ** 2) / width)
    return np.minimum(counts, top).astype(np.uint16)

"""What leaves a front end: one record of 32 bytes a peak, and one that ends every frame.

    found = decode(path.read_bytes())
    positions(found.peaks, frac=10)             # (n, 2) px, absolute

A record is one beat of a stream of 256 bits, its first byte in the lowest bits; integers are little-endian.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError

#: Version of the layout.
VERSION = 1
#: Values of the field ``kind``.
PEAK, END = 0, 1


class RecordFlag(enum.IntFlag):
    """The bits of a peak's ``flags``; :data:`PEAK_FLAGS` has what they say."""

    EDGE = 1 << 0
    SECOND_MAXIMUM = 1 << 1
    SATURATED = 1 << 2
    BAD_PIXEL = 1 << 3
    NOT_TRUSTED = 1 << 4


class EndFlag(enum.IntFlag):
    """The bits of an end record's ``flags``; :data:`END_FLAGS` has what they say."""

    RESYNCHRONIZED = 1 << 0
    SHORT = 1 << 1
    ROW_LENGTH = 1 << 2
    MAPS = 1 << 3


PEAK_FLAGS: Mapping[RecordFlag, str] = {
    RecordFlag.EDGE: "the window does not fit in the frame: the position is the peak's pixel, and sigma is not known",
    RecordFlag.SECOND_MAXIMUM: "within reach - 1 lies another maximum of a 3 x 3 square, at least half as bright",
    RecordFlag.SATURATED: "a pixel within reach is saturated",
    RecordFlag.BAD_PIXEL: "a pixel of the window is masked",
    RecordFlag.NOT_TRUSTED: "`EDGE`, or a code of ln sigma is above the limit",
}
END_FLAGS: Mapping[EndFlag, str] = {
    EndFlag.RESYNCHRONIZED: "the next start came before the frame was whole, or data without a start came before it",
    EndFlag.SHORT: "rows are missing; the frame ends behind those that came",
    EndFlag.ROW_LENGTH: "a row was too short, and its rest is masked; or too long, and its rest is not used",
    EndFlag.MAPS: "dark counts or thresholds had another shape than the frame, whose rest is masked; not from software",
}


class Field(NamedTuple):
    """One field of a record: its name, its type as numpy has it, its unit, and what it means."""

    name: str
    kind: str
    unit: str
    meaning: str


_COMMON = (
    Field("kind", "u1", "", "0: a peak; 1: the end of a frame"),
    Field("version", "u1", "", "of the layout: 1"),
)
#: The fields of a peak's record, in order, without gaps.
PEAK_FIELDS = (
    Field("frame", "u4", "", "number of the frame since the front end was enabled, modulo 2**32"),
    Field("row", "i4", "2**-frac px", "position in the frame, of the locator's `output_frac`"),
    Field("col", "i4", "2**-frac px", "position in the frame, of the locator's `output_frac`"),
    Field("ln_sigma_row", "i2", "2**-frac", "code of ln sigma; 0 from a locator without sigma, and with `EDGE`"),
    Field("ln_sigma_col", "i2", "2**-frac", "code of ln sigma; 0 from a locator without sigma, and with `EDGE`"),
    Field("brightest", "u4", "counts", "of the peak's pixel"),
    Field("total", "u4", "counts", "sum of the pixels above threshold within reach"),
    Field("peak_row", "u2", "px", "the peak's pixel"),
    Field("peak_col", "u2", "px", "the peak's pixel"),
    Field("flags", "u2", "", "bits, below"),
    *_COMMON,
)
#: The fields of an end record, in order, without gaps.
END_FIELDS = (
    Field("frame", "u4", "", "number of the frame"),
    Field("peaks", "u4", "", "records of peaks that were sent of it"),
    Field("dropped", "u4", "", "peaks that found no place while the output stalled"),
    Field("lane_high_water", "u2", "", "most places in use in a lane; 0 from software"),
    Field("record_high_water", "u2", "", "most places in use for records; 0 from software"),
    Field("checksum", "u4", "", "sum of the eight 32-bit words of each of its peaks, modulo 2**32"),
    Field("rows", "u2", "px", "rows that came"),
    Field("cols", "u2", "px", "columns, as set"),
    Field("above", "u4", "px", "pixels above threshold"),
    Field("flags", "u2", "", "bits, below"),
    *_COMMON,
)
#: The record of a peak, which has the size of an end record: an array of one type holds both, told apart by ``kind``.
RECORD = np.dtype([(field.name, "<" + field.kind) for field in PEAK_FIELDS])
END_RECORD = np.dtype([(field.name, "<" + field.kind) for field in END_FIELDS])

Records = NDArray[np.void]


def end_record(
    peaks: Records, *, frame: int, rows: int, cols: int, above: int, flags: int = 0, dropped: int = 0
) -> Records:
    """The end record (1,) of :data:`END_RECORD` of a frame whose records (n,) of :data:`RECORD` are ``peaks``."""
    end = np.zeros(1, END_RECORD)
    end["frame"], end["peaks"], end["dropped"] = frame % (1 << 32), len(peaks), dropped
    end["checksum"], end["rows"], end["cols"], end["above"] = checksum(peaks), rows, cols, above
    end["flags"], end["kind"], end["version"] = flags, END, VERSION
    return end


def checksum(peaks: Records) -> int:
    """The sum of the 32-bit words of records (n,), modulo 2**32."""
    return int(np.ascontiguousarray(peaks).view("<u4").sum(dtype=np.uint64)) % (1 << 32)


@dataclass(frozen=True)
class Decoded:
    """Records by their kind: peaks (n,) of :data:`RECORD`, ends (m,) of :data:`END_RECORD`, in the order they came."""

    peaks: Records
    ends: Records


def decode(data: bytes | Records) -> Decoded:
    """Bytes of records, or an array of them, to peaks and ends.

    Raises UserError for a length that is no multiple of 32 bytes, another kind or version, records of peaks behind
    which no end of their frame follows, and for a frame whose number of peaks or checksum is not that of its end.
    """
    raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
    if len(raw) % RECORD.itemsize:
        raise UserError(
            f"records: {len(raw)} bytes are no multiple of {RECORD.itemsize}; the file is cut off, or holds no records"
        )
    found = np.frombuffer(raw, RECORD)
    odd = (found["version"] != VERSION) | (found["kind"] > END)
    if odd.any():
        first = int(np.argmax(odd))
        raise UserError(
            f"record {first} has kind {found['kind'][first]} and version {found['version'][first]}; expected 0 or 1, "
            f"and {VERSION}"
        )
    is_end = found["kind"] == END
    stops = np.flatnonzero(is_end)
    starts = np.r_[0, stops[:-1] + 1] if len(stops) else stops
    behind = len(found) - (int(stops[-1]) + 1 if len(stops) else 0)
    if behind:
        raise UserError(f"records: the last {behind} are of a frame without an end record; the file is cut off")
    ends = found[is_end].view(END_RECORD)
    for start, stop, end in zip(starts.tolist(), stops.tolist(), ends, strict=True):
        own = found[start:stop]
        same = len(own) == end["peaks"] and checksum(own) == end["checksum"] and (own["frame"] == end["frame"]).all()
        if not same:
            raise UserError(
                f"records of frame {end['frame']}: {len(own)} peaks with checksum {checksum(own)}; its end says "
                f"{end['peaks']} and {end['checksum']}; records were lost or changed on their way"
            )
    return Decoded(found[~is_end], ends)


def positions(peaks: Records, frac: int) -> NDArray[np.float64]:
    """(n, 2) positions (row, col) in px of records (n,); frac: the locator's ``output_frac``."""
    return np.ldexp(np.stack([peaks["row"], peaks["col"]], axis=1).astype(np.float64), -frac)


def without_marks(records: Records) -> Records:
    """A copy of records (n,) of :data:`RECORD`, of both kinds, whose high-water marks are 0: what firmware and software
    must have in common."""
    found = records.copy()
    ends = found.view(END_RECORD)
    for name in ("lane_high_water", "record_high_water"):
        ends[name][found["kind"] == END] = 0
    return found


def tables() -> str:
    """The layout of both records and their flags, in Markdown, for the docs."""
    parts = [
        "The record of a peak:", _fields(PEAK_FIELDS), _flags(PEAK_FLAGS),
        "The record at the end of a frame:", _fields(END_FIELDS), _flags(END_FLAGS),
    ]  # fmt: skip
    return "\n" + "\n\n".join(parts) + "\n\n"


def _fields(fields: tuple[Field, ...]) -> str:
    lines = ["| offset | field | type | unit | meaning |", "|---|---|---|---|---|"]
    offset = 0
    for name, kind, unit, meaning in fields:
        lines.append(f"| {offset} | `{name}` | {np.dtype(kind)} | {unit} | {meaning} |")
        offset += np.dtype(kind).itemsize
    return "\n".join(lines)


def _flags(meanings: Mapping[Any, str]) -> str:
    rows = [f"| {flag.value} | `{flag.name}` | {meaning} |" for flag, meaning in meanings.items()]
    return "\n".join(["| bit | flag | meaning |", "|---|---|---|", *rows])

"""Records of a simulation against those of the contract: equal in every field but the high-water marks of memories."""

from collections.abc import Iterable

import numpy as np

from quant.front_end.records import END, END_RECORD, RECORD, Records, checksum

#: Fields of an end record that are of the hardware alone.
HARDWARE = ("lane_high_water", "record_high_water")


def comparable(records: Records) -> Records:
    """A copy of records (n,) of :data:`RECORD` without what is of the hardware alone."""
    found = np.array(records)
    ends = found.view(END_RECORD)
    for name in HARDWARE:
        ends[name][found["kind"] == END] = 0
    return found


def differences(found: Records, expected: Iterable[Records]) -> list[str]:
    """What differs between the records (n,) that a front end sent and the contract's of each frame, in words.

    Where an end record counts dropped peaks, the others of its frame must be the contract's in the same order, as many
    as the end says, with their checksum. At most ten differences are named.
    """
    frames = list(expected)
    if frames and np.array_equal(comparable(found), np.concatenate(frames)):
        return []
    words: list[str] = []
    at = 0
    for frame in frames:
        stop = at + int(np.argmax(found["kind"][at:] == END)) + 1 if (found["kind"][at:] == END).any() else len(found)
        own, at = comparable(found[at:stop]), stop
        words += _of_frame(own, frame)
        if len(words) >= 10:
            return words[:10]
    if at != len(found):
        words.append(f"{len(found) - at} records more than the contract's")
    return words


def _of_frame(own: Records, frame: Records) -> list[str]:
    peaks, number = frame[:-1], int(frame["frame"][-1])
    if not len(own) or own["kind"][-1] != END:
        return [f"frame {number}: no end record"]
    dropped = int(own.view(END_RECORD)["dropped"][-1])
    if dropped:
        kept = _kept(own[:-1], peaks)
        if kept is None or len(kept) + dropped != len(peaks):
            return [f"frame {number}: {len(own) - 1} records, {dropped} dropped of {len(peaks)}, not in their order"]
        end = np.array(frame[-1:])
        as_end = end.view(END_RECORD)
        as_end["peaks"], as_end["dropped"], as_end["checksum"] = len(kept), dropped, checksum(kept)
        frame = np.concatenate([kept, end])
    if len(own) != len(frame):
        return [f"frame {number}: {len(own)} records, {len(frame)} expected"]
    wrong = np.nonzero(own != frame)[0]
    return [f"frame {number}, record {k}: {own[k]}, expected {frame[k]}" for k in wrong[:3].tolist()]


def _kept(own: Records, peaks: Records) -> Records | None:
    """Those of ``peaks`` at the pixels of ``own``; None where these are not in the same order."""
    key = own["peak_row"].astype(np.int64) << 16 | own["peak_col"]
    all_keys = peaks["peak_row"].astype(np.int64) << 16 | peaks["peak_col"]
    where = np.searchsorted(all_keys, key)
    if (where >= len(all_keys)).any() or (np.diff(where) <= 0).any() or (all_keys[where] != key).any():
        return None
    kept: Records = peaks[where]
    return kept


def as_records(raw: np.ndarray) -> Records:
    """The bytes (n, 32) of a simulation as records (n,) of :data:`RECORD`."""
    return np.ascontiguousarray(raw).view(RECORD)[:, 0]

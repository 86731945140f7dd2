"""The rotation of every frame from the headers of image files: CBF and Pilatus, MarCCD, SMV, EDF.

Names as the detectors write them: ``Start_angle`` and ``Angle_increment`` (Pilatus, Eiger), start and end of the axis
that moved (MarCCD), ``OSC_START`` and ``OSC_RANGE`` (SMV), ``Omega`` and ``OmegaStep`` (ImageD11), and the positions of
motors (EDF of the ESRF: ``motor_mne``, ``motor_pos``). The last two are the centre of a frame.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats.image_file import first_bytes, opened
from braggnn_edge.frames.formats.packing import packed_as
from braggnn_edge.frames.formats.tiff import MAGIC as TIFF_MAGIC
from braggnn_edge.frames.omega import around

#: What a header says of a frame by the name of the axis: start and end in degrees, or one position.
Angles = dict[str, tuple[float, float] | float]

_HEAD = 1 << 16
_CBF, _CBF_PIXELS = b"###CBF", b"\x0c\x1a\x04\xd5"
#: Pairs of a start and an increment in texts, in the order in which they are looked for.
_TEXT = (("Start_angle", "Angle_increment"), ("Omega", "Omega_increment"), ("Phi", "Phi_increment"))
_NUMBER = r"[ \t]*[=:]?[ \t]*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)[ \t]*(mrad|rad)?"
#: Motors that turn the sample, by their short names.
_MOTORS = ("omega", "om", "ome", "phi", "rot", "srot", "diffrz")
#: MarCCD: a header of 3,072 bytes at 1,024. Places in it: byte order, start angles, end angles, axis; 1000 * degrees.
_MAR_START, _MAR_ORDER, _MAR_ANGLES, _MAR_ENDS, _MAR_AXIS = 1024, 28, 668, 700, 732
_MAR_AXES = ("twotheta", "omega", "chi", "kappa", "phi", "delta", "gamma")
#: A bzip2 file costs some 0.05 s to look into: of a longer series a sample is read, if it lies on one line.
_FEW = 24
#: So many files without a word of the rotation at the start of a series, and one more, are enough.
_TRIED = 2


def omega_of(files: tuple[Path, ...], per_file: int, frames: int) -> NDArray[np.float64] | None:
    """Start and end (frames, 2) in degrees of the frames of a series; None where the headers do not say them.

    Where a header cannot be read and all others lie on one line, its frame does too.
    """
    states = tuple((status.st_size, status.st_mtime_ns) for status in (file.stat() for file in files))
    return _omega_of(files, states, per_file, frames)


@lru_cache(maxsize=8)
def _omega_of(
    files: tuple[Path, ...], _: tuple[tuple[int, int], ...], per_file: int, frames: int
) -> NDArray[np.float64] | None:
    """The second argument says which state of the files an answer is for."""
    if len(files) > _FEW and packed_as(files[0]) == ".bz2":
        sample = sorted({0, 1, len(files) // 2, len(files) - 1})
        found = _combined(files, sample, per_file, frames)
        if found is not None and _on_a_line(found):
            return _filled(found)
    found = _combined(files, range(len(files)), per_file, frames)
    if found is None or np.isfinite(found).all():
        return found
    return _filled(found) if _on_a_line(found) else None


def _combined(files: tuple[Path, ...], wanted: Iterable[int], per_file: int, frames: int) -> NDArray[np.float64] | None:
    """(frames, 2) from the headers of some files, NaN elsewhere; None where they have no rotation."""
    angles: list[Angles | None] = [None] * frames
    for tried, number in enumerate(wanted):
        try:
            found = header_angles(files[number])
        except UserError:  # a bad frame, which reading it will say
            continue
        if not any(found) and not any(angles) and tried >= _TRIED:
            return None
        for index, one in enumerate(found[: frames - number * per_file]):
            angles[number * per_file + index] = one
    return _chosen(angles)


def _chosen(angles: list[Angles | None]) -> NDArray[np.float64] | None:
    known = [i for i, one in enumerate(angles) if one]
    names = set.intersection(*(set(angles[i] or ()) for i in known)) if known else set()
    found = np.full((len(angles), 2), np.nan)
    pairs, single = [], []
    for name in sorted(names):
        values = [(angles[i] or {})[name] for i in known]
        if all(isinstance(value, tuple) for value in values):
            pairs.append(np.array(values))
        elif not any(isinstance(value, tuple) for value in values):
            single.append(np.array(values, np.float64))
    moving = [values for values in pairs if np.ptp(values) > 0]
    if len(moving) == 1 or (len(pairs) == 1 and not moving):
        found[known] = (moving or pairs)[0]
        return found
    centres = [values for values in single if np.ptp(values) > 0]
    if moving or len(centres) != 1:
        return None
    spread = around(np.interp(np.arange(len(angles)), known, centres[0]))
    if spread is None:
        return None
    found[known] = spread[known]
    return found


def _on_a_line(omega: NDArray[np.float64]) -> bool:
    """Whether the starts and ends that are known, at least three, are linear in the number of the frame."""
    known = np.flatnonzero(np.isfinite(omega).all(axis=1))
    if len(known) < 3:
        return False
    slope, start = np.polyfit(known, omega[known], 1)
    off = np.abs(slope * known[:, None] + start - omega[known]).max()
    return bool(off <= 1e-3 * max(np.abs(slope).max(), 1e-9))


def _filled(omega: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.flatnonzero(np.isfinite(omega).all(axis=1))
    slope, start = np.polyfit(known, omega[known], 1)
    line = slope * np.arange(len(omega))[:, None] + start
    return np.where(np.isfinite(omega), omega, line)


def header_angles(path: Path) -> list[Angles]:
    """What the header of every frame of a file says; raises BadFrame for a file that cannot be opened."""
    start = first_bytes(path, _HEAD)
    if start.startswith(_CBF):
        return [_of_text(start.partition(_CBF_PIXELS)[0].decode("latin-1"))]
    if start.startswith(TIFF_MAGIC):
        mar = _of_mar(start, ".mccd" in path.suffixes)
        if mar:
            return [mar]
    with opened(path) as image:
        return [_of_header(header) for header in image.headers()]


def _of_header(header: Mapping[str, str]) -> Angles:
    values = {key.strip().lower(): value for key, value in header.items()}
    text = values.get("description") or values.get("_array_data.header_contents")
    if text:
        return _of_text(text)
    for start, width in (("osc_start", "osc_range"), ("start_angle", "angle_increment")):
        first, step = _number(values.get(start)), _number(values.get(width))
        if first is not None and step is not None:
            return {start: (first, first + step)}
    centre, step = _number(values.get("omega")), _number(values.get("omegastep"))
    if centre is not None and step is not None:
        return {"omega": (centre - step / 2, centre + step / 2)}
    names, places = values.get("motor_mne", "").split(), values.get("motor_pos", "").split()
    motors = {name.lower(): value for name, value in zip(names, places, strict=False)}
    if len(names) != len(places):
        motors = {}
    found = {name: _number(motors.get(name, values.get(name))) for name in _MOTORS}
    return {name: value for name, value in found.items() if value is not None}


def _number(text: str | None) -> float | None:
    match = re.match(_NUMBER, text or "")
    return None if match is None else _degrees(match)


def _degrees(match: re.Match[str]) -> float:
    factor = {"rad": 180 / np.pi, "mrad": 0.18 / np.pi}.get(match[2], 1.0)
    return float(match[1]) * factor


def _of_text(text: str) -> Angles:
    for first, width in _TEXT:
        start, step = (re.search(rf"\b{name}\b{_NUMBER}", text) for name in (first, width))
        if start and step:
            angle = _degrees(start)
            return {first: (angle, angle + _degrees(step))}
    return {}


def _of_mar(start: bytes, named: bool) -> Angles:
    """The axis of a MarCCD's header that moved, or that it names; nothing for another TIFF file."""
    head = start[_MAR_START : _MAR_START + 3072]
    if len(head) < 3072:
        return {}
    orders = {"<": struct.unpack_from("<I", head, _MAR_ORDER)[0] == 1234}
    orders[">"] = struct.unpack_from(">I", head, _MAR_ORDER)[0] == 4321
    if not (named or any(orders.values())):
        return {}
    order = ">" if orders[">"] else "<"
    starts = struct.unpack_from(f"{order}7i", head, _MAR_ANGLES)
    ends = struct.unpack_from(f"{order}7i", head, _MAR_ENDS)
    (axis,) = struct.unpack_from(f"{order}i", head, _MAR_AXIS)
    moved = [i for i, name in enumerate(_MAR_AXES) if name != "twotheta" and starts[i] != ends[i]]
    if not moved and 0 < axis < len(_MAR_AXES):
        moved = [axis]
    if len(moved) > 1:
        moved = [i for i in moved if i == axis]
    return {_MAR_AXES[i]: (starts[i] / 1000, ends[i] / 1000) for i in moved}

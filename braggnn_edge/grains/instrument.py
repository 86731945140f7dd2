"""Instruments from files: HEXRD's ``instrument.yml``, ImageD11's ``.par``, and a ``.toml`` with the keys of the latter.

ImageD11's lengths are taken for micrometres, as that program does by custom; HEXRD's are millimetres.
"""

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from braggnn_edge.core.errors import UserError
from braggnn_edge.grains.geometry import Floats, Instrument, Panel

#: HEXRD's axes to ours: x = -z, y = -x, z = y.
FROM_HEXRD = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
#: keV times angstrom.
ENERGY_WAVELENGTH = 12.398419843320026

#: Keys of ImageD11, and their values where a file leaves them out; None: it must not.
_KEYS: Mapping[str, float | None] = {
    "distance": None, "y_center": None, "z_center": None, "y_size": None, "z_size": None, "wavelength": None,
    "tilt_x": 0.0, "tilt_y": 0.0, "tilt_z": 0.0, "o11": 1.0, "o12": 0.0, "o21": 0.0, "o22": -1.0,
    "wedge": 0.0, "chi": 0.0, "omegasign": 1.0,
}  # fmt: skip


def read(path: Path) -> Instrument:
    """The instrument that a file describes, by its suffix; UserError where it does not."""
    readers = {".yml": _hexrd, ".yaml": _hexrd, ".par": _par, ".toml": _toml}
    reader = readers.get(path.suffix)
    if reader is None:
        raise UserError(f"instrument {path}: expected .yml (HEXRD), .par (ImageD11) or .toml (keys of ImageD11)")
    try:
        return reader(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"instrument {path}: {error.strerror}") from error
    except UserError as error:
        raise UserError(f"instrument {path}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"instrument {path}: not such a file, or a key is missing ({error!r})") from error


def _vector(values: Any, length: int, what: str) -> Floats:
    found = np.array(values, float)
    if found.shape != (length,) or not np.isfinite(found).all():
        raise UserError(f"{what} {values}: expected {length} numbers")
    return found


def _hexrd(text: str) -> Instrument:
    """Panels of HEXRD: origin in the middle of the panel, X along the columns, Y against the rows."""
    about = yaml.safe_load(text)
    stage = about.get("oscillation_stage", {})
    offset = _vector(stage.get("translation", (0, 0, 0)), 3, "oscillation_stage.translation")
    panels = []
    for name, detector in about["detectors"].items():
        if detector.get("distortion"):
            raise UserError(f"detector {name} has a distortion, which is not supported; expected none")
        turn = Rotation.from_rotvec(_vector(detector["transform"]["tilt"], 3, "tilt")).as_matrix()
        rows, cols = int(detector["pixels"]["rows"]), int(detector["pixels"]["columns"])
        tall, wide = _vector(detector["pixels"]["size"], 2, "pixels.size")
        corner = turn @ [-(cols - 1) / 2 * wide, (rows - 1) / 2 * tall, 0.0]
        # The stage's own place becomes the origin: the beam is a plane wave, so nothing else changes.
        translation = _vector(detector["transform"]["translation"], 3, "translation")
        corner += translation - offset
        (top, _), (left, _) = detector.get("roi") or ((0, 0), (0, 0))
        panels.append(
            Panel(
                str(name),
                FROM_HEXRD @ corner,
                FROM_HEXRD @ turn @ [wide, 0, 0],
                FROM_HEXRD @ turn @ [0, -tall, 0],
                rows,
                cols,
                str(detector.get("group", "")),
                int(top),
                int(left),
                tuple(translation.tolist()),
            )
        )
    if not panels:
        raise UserError("no detectors; expected one or more")
    chi = Rotation.from_rotvec([float(stage.get("chi", 0.0)), 0, 0]).as_matrix()
    azimuth, polar = (np.radians(float(about["beam"]["vector"][key])) for key in ("azimuth", "polar_angle"))
    beam = -np.array([np.sin(polar) * np.cos(azimuth), np.cos(polar), np.sin(polar) * np.sin(azimuth)])
    wavelength = ENERGY_WAVELENGTH / float(about["beam"]["energy"])
    return Instrument(wavelength, _tiled(panels), FROM_HEXRD @ chi @ FROM_HEXRD.T, FROM_HEXRD @ beam)


def _tiled(panels: list[Panel]) -> tuple[Panel, ...]:
    """Panels NAME_i_j without a group are tiles (i, j) of the detector NAME, if they fill a rectangle."""
    tiles: dict[str, dict[tuple[int, int], Panel]] = {}
    for panel in panels:
        name, *place = panel.name.rsplit("_", 2)
        if panel.group == panel.name and len(place) == 2 and all(part.isdecimal() for part in place):
            tiles.setdefault(name, {})[int(place[0]), int(place[1])] = panel
    known: dict[str, tuple[str, int, int]] = {}
    for name, found in tiles.items():
        down, right = (max(place[axis] for place in found) + 1 for axis in (0, 1))
        same = {(panel.rows, panel.cols) for panel in found.values()}
        if len(found) == down * right and len(found) > 1 and len(same) == 1:
            known |= {panel.name: (name, *place) for place, panel in found.items()}
    done = []
    for panel in panels:
        group, i, j = known.get(panel.name, (panel.group, 0, 0))
        down, right = panel.first_row + i * panel.rows, panel.first_col + j * panel.cols
        done.append(replace(panel, group=group, first_row=down, first_col=right))
    return tuple(done)


def _par(text: str) -> Instrument:
    values = {}
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(None, 1)
        if len(words) == 2:
            values[words[0]] = words[1].strip()
    return from_keys({key: value for key, value in values.items() if key in _KEYS})


def _toml(text: str) -> Instrument:
    values = tomllib.loads(text)
    if unknown := set(values) - set(_KEYS):
        raise UserError(f"unknown key {min(unknown)!r}; expected {', '.join(_KEYS)}")
    return from_keys(values)


def from_keys(values: Mapping[str, Any]) -> Instrument:
    """One panel from keys of ImageD11: lengths in micrometres, tilts in radians, wedge and chi in degrees.

    y_center, z_center: (col, row) in px of the pixel at which the beam would meet the panel without its tilts; y_size,
    z_size: sides of a pixel; o11 to o22: how (row, col) become (z, y); distance, wavelength, omegasign.
    """
    missing = [key for key, value in _KEYS.items() if value is None and key not in values]
    if missing:
        raise UserError(
            f"key {missing[0]} is missing; expected all of {', '.join(k for k in _KEYS if _KEYS[k] is None)}"
        )
    try:
        v = {key: float(values.get(key, default)) for key, default in _KEYS.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"a key is not a number: {error}") from error
    for key in ("distance", "y_size", "z_size", "wavelength"):
        if not 0 < abs(v[key]) < np.inf:
            raise UserError(f"{key} {v[key]:g}: expected a number other than 0")
    if abs(v["omegasign"]) != 1:
        raise UserError(f"omegasign {v['omegasign']:g}: expected 1 or -1")
    turn = (
        Rotation.from_rotvec([v["tilt_x"], 0, 0])
        * Rotation.from_rotvec([0, v["tilt_y"], 0])
        * Rotation.from_rotvec([0, 0, v["tilt_z"]])
    ).as_matrix()
    slow = turn @ [0.0, v["o21"] * v["z_size"], v["o11"] * v["z_size"]] / 1e3
    fast = turn @ [0.0, v["o22"] * v["y_size"], v["o12"] * v["y_size"]] / 1e3
    if np.linalg.norm(np.cross(fast, slow)) <= 1e-9 * np.linalg.norm(fast) * np.linalg.norm(slow):
        raise UserError("o11, o12, o21 and o22 turn rows and columns into one direction; expected a flip or a rotation")
    origin = np.array([v["distance"] / 1e3, 0, 0]) - v["y_center"] * fast - v["z_center"] * slow
    # ImageD11's wedge turns about -y, and its chi about x, which comes first.
    tilt = Rotation.from_rotvec([0, -np.radians(v["wedge"]), 0]) * Rotation.from_rotvec([np.radians(v["chi"]), 0, 0])
    panel = Panel("panel", origin, fast, slow)
    return Instrument(v["wavelength"], (panel,), tilt.as_matrix(), omega_sign=v["omegasign"])


#: Where a number counts as another when an instrument is written with keys of ImageD11, relative to 1.
_EXACT = 1e-9


def to_keys(instrument: Instrument) -> dict[str, float]:
    """Keys of ImageD11 with which :func:`from_keys` gives this instrument.

    Raises UserError where they cannot describe it: several panels, pixels that are no rectangles, a beam that is not
    along x, or a stage that is more than a wedge and chi. Of the ways to write a panel, that with the smallest tilts is
    taken; tilts about y stay below 90 degrees.
    """
    if len(instrument.panels) != 1:
        raise UserError(f"keys of ImageD11 describe one panel, the instrument has {len(instrument.panels)}")
    if not np.allclose(instrument.beam, [1, 0, 0], rtol=0, atol=_EXACT):
        raise UserError(f"keys of ImageD11 have the beam along x; expected that, not {instrument.beam.tolist()}")
    panel = instrument.panels[0]
    y_size, z_size = float(np.linalg.norm(panel.fast)), float(np.linalg.norm(panel.slow))
    fast, slow = panel.fast / y_size, panel.slow / z_size
    if abs(float(fast @ slow)) > _EXACT:
        raise UserError("keys of ImageD11 describe rectangular pixels; those of the panel are oblique")
    axes = np.stack([fast, slow, np.cross(fast, slow)], 1)
    ways = []
    for swapped, one, two in itertools.product((False, True), (-1.0, 1.0), (-1.0, 1.0)):
        o11, o12, o21, o22 = (0.0, one, two, 0.0) if swapped else (one, 0.0, 0.0, two)
        plain = np.array([[0.0, o22, o12], [0.0, o21, o11]])
        turn = Rotation.from_matrix(axes @ np.stack([*plain, np.cross(*plain)], 1).T)
        ways.append((turn.magnitude(), (o11, o12, o21, o22), turn))
    _, flips, turn = min(ways, key=lambda way: way[0])
    tilts = turn.as_euler("XYZ")
    distance, y_center, z_center = np.linalg.solve(
        np.stack([[1.0, 0.0, 0.0], -panel.fast, -panel.slow], 1), panel.origin
    )
    # The stage is Ry(-wedge) Rx(chi): a rotation about z that is left over would turn the sample's axes.
    wedge, chi, rest = Rotation.from_matrix(instrument.stage).as_euler("YXZ")
    if abs(rest) > _EXACT:
        raise UserError(
            "keys of ImageD11 describe a stage with a wedge and chi; that of the instrument turns otherwise"
        )
    names = ("o11", "o12", "o21", "o22")
    return {
        "distance": 1e3 * float(distance), "y_center": float(y_center), "z_center": float(z_center),
        "y_size": 1e3 * y_size, "z_size": 1e3 * z_size, "wavelength": float(instrument.wavelength),
        **{f"tilt_{axis}": float(tilt) for axis, tilt in zip("xyz", tilts, strict=True)},
        **dict(zip(names, flips, strict=True)),
        "wedge": float(-np.degrees(wedge)), "chi": float(np.degrees(chi)), "omegasign": float(instrument.omega_sign),
    }  # fmt: skip

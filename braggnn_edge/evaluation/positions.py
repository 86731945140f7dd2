"""``predictions.npz``: positions of the test peaks by every network and form, with intervals where these are known.

A form has an array of its name, offsets (n, 2) px in the order of the table. One that knows sigma also has
``<form>/sigma`` and ``<form>/wide``, (n, 2) px each: standard deviations, and half-widths that hold 95.45 % of errors.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.evaluation.sigma import Intervals

Pixels = NDArray[np.float64]

_SIGMA, _WIDE = "/sigma", "/wide"


def save_positions(offsets: Mapping[str, Pixels], intervals: Mapping[str, Intervals], path: Path) -> None:
    """Write both, by form; the same contents give the same bytes. The file appears whole or not at all."""
    arrays: dict[str, Pixels] = {}
    for name, found in offsets.items():
        arrays[name] = found
        if name in intervals:
            arrays |= {f"{name}{_SIGMA}": intervals[name].sigma, f"{name}{_WIDE}": intervals[name].wide}
    with written_aside(path) as aside, aside.open("wb") as stream:  # by name, savez would add a suffix
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def load_positions(path: Path) -> tuple[dict[str, Pixels], dict[str, Intervals]]:
    """Read :func:`save_positions` of the stage "csim". Raises UserError for a file that is none."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name].astype(np.float64) for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"predictions of the csim stage cannot be read ({error}); run `braggnn-edge csim`") from error
    forms = [name for name in arrays if not name.endswith((_SIGMA, _WIDE))]
    known = [name for name in forms if {f"{name}{_SIGMA}", f"{name}{_WIDE}"} <= set(arrays)]
    return (
        {name: arrays[name] for name in forms},
        {name: Intervals(arrays[f"{name}{_SIGMA}"], arrays[f"{name}{_WIDE}"]) for name in known},
    )

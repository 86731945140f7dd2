"""The peak table: one row a peak, with its crop, its fit, its truth and its split. File ``peaks.h5``."""

import contextlib
import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.hdf5 import writing_hdf5


class Flag(enum.IntFlag):
    """The bits of the column ``flags``."""

    JOINT = 1 << 0  #: fitted together with the other maxima of its component
    SATURATED = 1 << 1  #: a pixel of the component is saturated
    MASKED = 1 << 2  #: the patch holds bad pixels; the fit leaves them out
    CROWDED = 1 << 3  #: another component is in the patch; the fit leaves its pixels out
    EDGE = 1 << 4  #: another maximum of the component is too near the edge to have a row
    TOO_MANY_MAXIMA = 1 << 5  #: the component has too many maxima for a joint fit: not fitted
    TOO_FAR = 1 << 6  #: the maxima of the component are too far apart for a joint fit: not fitted
    AT_BOUND = 1 << 7  #: a fitted parameter ended on a bound
    NOT_CONVERGED = 1 << 8  #: no converged fit; the other voigt columns mean nothing
    POSITION_AT_BOUND = 1 << 9  #: the fitted row or col ended on a bound
    WIDTH_AT_BOUND = 1 << 10  #: a fitted width ended on a bound


def mark(rows: NDArray[np.void], where: NDArray, flag: Flag) -> None:
    """Set a bit of ``flags`` in the rows of :data:`PEAK` at ``where`` (integers or a mask)."""
    rows["flags"][where] |= rows["flags"].dtype.type(flag)


_FIT = (
    ("row", "px"), ("col", "px"), ("amplitude", "counts"), ("fwhm_major", "px"), ("fwhm_minor", "px"),
    ("tilt", "rad"), ("eta", "1"), ("background", "counts"), ("var_row", "px**2"), ("cov_row_col", "px**2"),
    ("var_col", "px**2"), ("chi2", "1"), ("residual", "1"),
)  # fmt: skip
#: Name, type and unit of every column; docs/reference/artifacts.md says what each holds.
COLUMNS: tuple[tuple, ...] = (
    ("scan", "u2", "1"), ("frame", "i4", "1"), ("row", "i4", "px"), ("col", "i4", "px"), ("area", "i4", "px"),
    ("maximum", "f8", "counts"), ("saturated", "?", "1"), ("neighbours", "i4", "1"), ("maxima", "i4", "1"),
    ("component", "i4", "1"), ("masked", "i4", "px"), ("flags", "u2", "1"),
    *((f"voigt_{name}", "f8", unit) for name, unit in _FIT),
    ("voigt_covariance", ("f4", (8, 8)), "products of the units of the parameters"),
    ("voigt_dof", "i4", "1"), ("voigt_iterations", "i4", "1"), ("voigt_converged", "?", "1"),
    ("truth_row", "f8", "px"), ("truth_col", "f8", "px"), ("truth_reflection", "i8", "1"),
    ("bound_var_row", "f8", "px**2"), ("bound_cov_row_col", "f8", "px**2"), ("bound_var_col", "f8", "px**2"),
    ("split", "u1", "1"),
)  # fmt: skip
PEAK = np.dtype([(name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind, _ in COLUMNS])
#: Columns that tables of the first version lack, and what is read in their place.
_ADDED = {"component": -1, "masked": 0, "flags": 0, "voigt_covariance": np.nan, "voigt_dof": -1, "voigt_iterations": -1}
#: Rows in one chunk of the file.
_CHUNK = 1024


@dataclass(frozen=True)
class PeakTable:
    """peaks: (n,) of :data:`PEAK`; crops: (n, size + 2 shift, size + 2 shift) counts around the pixel (row, col).

    scans: names, indexed by ``peaks["scan"]``; size: patch size; shift: largest augmentation shift in px.
    """

    peaks: NDArray[np.void]
    crops: NDArray[np.generic]
    scans: tuple[str, ...]
    size: int
    shift: int

    def of(self, split: int) -> "PeakTable":
        """The rows of one split, in table order."""
        return self.where(self.peaks["split"] == split)

    def where(self, mask: NDArray[np.bool_]) -> "PeakTable":
        """The rows where ``mask`` (n,) holds."""
        return PeakTable(self.peaks[mask], self.crops[mask], self.scans, self.size, self.shift)

    def patches(self) -> NDArray[np.generic]:
        """(n, size, size): the crops as used, centred on the pixel (row, col)."""
        m = self.shift
        return self.crops[:, m : m + self.size, m : m + self.size]

    def offsets(self, reference: str) -> NDArray[np.float64]:
        """(n, 2) offsets (row, col) in px from the pixel (row, col): of "truth", of "voigt", or the "best" known.

        "best" is the truth where it is known (simulated scans) and the fit elsewhere (measured ones).
        """
        p = self.peaks
        if reference == "best":
            return np.where(self.has("truth")[:, None], self.offsets("truth"), self.offsets("voigt"))
        return np.stack([p[f"{reference}_row"] - p["row"], p[f"{reference}_col"] - p["col"]], axis=1)

    def has(self, reference: str) -> NDArray[np.bool_]:
        """(n,) whether the reference position is known: truth is finite, or the fit converged."""
        if reference == "best":
            # In a simulated scan a peak without truth is a hot pixel or a clump: nothing to learn from.
            simulated = np.isin(self.peaks["scan"], np.unique(self.peaks["scan"][self.has("truth")]))
            return self.has("truth") | (self.has("voigt") & ~simulated)
        if reference == "voigt":
            return self.peaks["voigt_converged"] & np.isfinite(self.peaks["voigt_row"])
        return np.isfinite(self.peaks["truth_row"])


Append = Callable[[NDArray[np.void], NDArray[np.generic]], None]


@contextlib.contextmanager
def writing(path: Path, scans: tuple[str, ...], size: int, shift: int, crop_dtype: DTypeLike) -> Iterator[Append]:
    """Write ``peaks.h5`` part by part: yields ``append(rows, crops)``; the file appears when the block succeeds.

    rows (n,) of :data:`PEAK`, crops (n, size + 2 shift, size + 2 shift), cast to ``crop_dtype``. At most one chunk and
    one part are held in memory. The bytes depend on the rows and crops alone, not on how they were cut into parts.
    """
    with writing_hdf5(path, track_order=True) as (file, check):
        file.attrs["scans"], file.attrs["size"], file.attrs["shift"] = list(scans), size, shift
        side = size + 2 * shift
        types = {"peaks": (PEAK, ()), "crops": (np.dtype(crop_dtype), (side, side))}
        data, waiting = {}, {}
        for name, (dtype, shape) in types.items():
            data[name] = file.create_dataset(
                name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(_CHUNK, *shape), shuffle=True,
                compression="gzip", compression_opts=1,
            )  # fmt: skip
            waiting[name] = np.empty((0, *shape), dtype)
        attributes = data["peaks"].attrs
        attributes["units"] = [unit for _, _, unit in COLUMNS]
        # As in the CF conventions for metadata, section 3.5.
        attributes["flag_masks"] = np.array([flag.value for flag in Flag], PEAK["flags"])
        attributes["flag_meanings"] = " ".join(str(flag.name) for flag in Flag)

        def write(count: int) -> None:
            for name, rows in waiting.items():
                start = len(data[name])
                data[name].resize(start + count, axis=0)
                data[name][start:] = rows[:count]
                waiting[name] = rows[count:].copy()
            check()

        def append(rows: NDArray[np.void], crops: NDArray[np.generic]) -> None:
            if rows.dtype != PEAK or crops.shape != (len(rows), side, side):
                raise ValueError(f"rows {rows.dtype} {rows.shape} and crops {crops.shape} do not fit the table")
            for start in range(0, len(rows), _CHUNK):
                part = slice(start, start + _CHUNK)
                waiting["peaks"] = np.concatenate([waiting["peaks"], rows[part]])
                waiting["crops"] = np.concatenate([waiting["crops"], crops[part].astype(crop_dtype)])
                # Whole chunks only: a chunk written twice would lie elsewhere in the file.
                if len(waiting["peaks"]) >= _CHUNK:
                    write(_CHUNK)

        yield append
        if len(waiting["peaks"]):
            write(len(waiting["peaks"]))


def save(table: PeakTable, path: Path) -> None:
    """Write a table that is in memory as ``peaks.h5``; see :func:`writing`."""
    with writing(path, table.scans, table.size, table.shift, table.crops.dtype) as append:
        append(table.peaks, table.crops)


def load(path: Path) -> PeakTable:
    """Read ``peaks.h5``; UserError when it is missing or is something else.

    In a table of the first version ``masked`` and ``flags`` read as 0, the other new columns as -1 or NaN (unknown).
    """
    try:
        with h5py.File(path) as file:
            peaks, crops = file["peaks"][:], file["crops"][:]
            names = tuple(str(name) for name in file.attrs["scans"])
            size, shift = int(file.attrs["size"]), int(file.attrs["shift"])
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: not a peak table ({error}); make it with `braggnn-edge label`") from error
    peaks = _upgraded(peaks)
    if peaks.dtype != PEAK or len(peaks) != len(crops):
        raise UserError(f"{path}: the peak table is of another version; make it again with `braggnn-edge label`")
    return PeakTable(peaks, crops, names, size, shift)


def _upgraded(peaks: NDArray[np.void]) -> NDArray[np.void]:
    """A table of the first version as one of this version; any other as it is."""
    if set(peaks.dtype.names or ()) != set(PEAK.names or ()) - set(_ADDED):
        return peaks
    upgraded = np.empty(len(peaks), PEAK)
    for name in peaks.dtype.names or ():
        upgraded[name] = peaks[name]
    for name, unknown in _ADDED.items():
        upgraded[name] = unknown
    return upgraded

"""The peak table: one row a peak, with its crop, its fit, its truth and its split. File ``peaks.h5``."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from braggnn_edge.errors import UserError
from braggnn_edge.rundir import written_aside

TRAIN, VALIDATION, TEST, EXCLUDED = 0, 1, 2, 3
SPLITS = ("train", "validation", "test", "excluded")

#: Positions are in frame pixels, widths are FWHM in px, intensities in detector counts, variances in px**2.
#: ``row, col``: brightest pixel. ``maxima``: local maxima of the component; ``neighbours``: other components in the
#: patch. ``voigt_*``: the pseudo-Voigt fit; ``voigt_residual``: rms residual over the patch / amplitude.
#: ``truth_*``, ``bound_*``: simulated scans only (NaN, -1 elsewhere); ``bound_*``: Cramer-Rao covariance.
PEAK = np.dtype(
    [("scan", "u2"), ("frame", "i4"), ("row", "i4"), ("col", "i4"), ("area", "i4"), ("maximum", "f8")]
    + [("saturated", "?"), ("neighbours", "i4"), ("maxima", "i4")]
    + [(f"voigt_{name}", "f8") for name in ("row", "col", "amplitude", "fwhm_major", "fwhm_minor", "tilt", "eta")]
    + [(f"voigt_{name}", "f8") for name in ("background", "var_row", "cov_row_col", "var_col", "chi2", "residual")]
    + [("voigt_converged", "?"), ("truth_row", "f8"), ("truth_col", "f8"), ("truth_reflection", "i8")]
    + [("bound_var_row", "f8"), ("bound_cov_row_col", "f8"), ("bound_var_col", "f8"), ("split", "u1")]
)  # fmt: skip


@dataclass(frozen=True)
class PeakTable:
    """peaks: (n,) of :data:`PEAK`; crops: (n, size + 2 shift, size + 2 shift) counts around the brightest pixel.

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
        """(n, size, size): the crops as used, centred on the brightest pixel."""
        m = self.shift
        return self.crops[:, m : m + self.size, m : m + self.size]

    def offsets(self, reference: str) -> NDArray[np.float64]:
        """(n, 2) offsets (row, col) in px from the brightest pixel: of "truth", of "voigt", or the "best" known.

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


def save(table: PeakTable, path: Path) -> None:
    """Write ``peaks.h5`` aside, then rename. The same table gives the same bytes."""
    with written_aside(path) as aside, h5py.File(aside, "w", track_order=True) as file:
        file.attrs["scans"], file.attrs["size"], file.attrs["shift"] = (
            list(table.scans),
            table.size,
            table.shift,
        )
        file.create_dataset("peaks", data=table.peaks, compression="gzip", compression_opts=1, shuffle=True)
        file.create_dataset("crops", data=table.crops, compression="gzip", compression_opts=1, shuffle=True)


def load(path: Path) -> PeakTable:
    """Read ``peaks.h5``; UserError when it is missing or is something else."""
    try:
        with h5py.File(path) as file:
            peaks, crops = file["peaks"][:], file["crops"][:]
            names = tuple(str(name) for name in file.attrs["scans"])
            table = PeakTable(peaks, crops, names, int(file.attrs["size"]), int(file.attrs["shift"]))
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: not a peak table ({error}); make it with `braggnn-edge label`") from error
    if table.peaks.dtype != PEAK or len(table.peaks) != len(table.crops):
        raise UserError(f"{path}: the peak table is of another version; make it again with `braggnn-edge label`")
    return table

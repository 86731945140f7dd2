"""The peaks of a table merged into reflections once, and those reflections with the positions of any estimator."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.grains.estimates import BLOCK, Estimate
from braggnn_edge.grains.spec import FIT
from braggnn_edge.grains.spots import Listed
from braggnn_edge.peaks.measure import clipped_mean
from braggnn_edge.peaks.merge import MergeSpec, averaged, merge, shares
from braggnn_edge.peaks.peak_file import About
from braggnn_edge.peaks.peak_list import PEAKS, PeakFlag
from braggnn_edge.peaks.rotation import Frames
from braggnn_edge.peaks.table import PeakTable

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Merged:
    """Reflections of one scan.

    rows: (m,) of REFLECTIONS, at the positions by which they were merged; about: where they come from; peaks: (n,) the
    rows of the table; of: (n,) the reflection of each; weight: (n,) its intensity, 0 or more; path: the list's file.
    """

    rows: NDArray[np.void]
    about: About
    peaks: Index
    of: Index
    weight: Floats
    path: Path

    def at(self, estimate: Estimate, weighted: bool) -> Listed:
        """The same reflections at other positions; NaN where none of their peaks has one.

        Positions of a reflection's peaks are averaged by intensity. With ``weighted`` also by 1 / sigma**2, where the
        estimator knows sigma, and the refinement then takes that mean and weighs it by its own sigma; without, the
        refinement takes the mean by intensity, and all reflections weigh alike.
        """
        rows = self.rows.copy()
        for number, axis in enumerate(("row", "col")):
            near = self.rows[axis]
            values = estimate.position[self.peaks, number]
            known = np.isfinite(values)
            sigma = np.full(len(values), np.nan)
            if weighted and estimate.sigma is not None:
                sigma = np.where(known, estimate.sigma[self.peaks, number], np.nan)
            found = averaged(np.where(known, values, near[self.of]), sigma, self.weight * known, self.of, near)
            names = (axis, f"sigma_{axis}", f"weighted_{axis}", f"weighted_sigma_{axis}")
            for name, value in zip(names, found, strict=True):
                rows[name] = value
        return Listed(rows, self.about, self.path)


def places(rows: NDArray[np.void]) -> Floats:
    """(m, 2) px: the positions that a refinement takes, see :meth:`Merged.at`."""
    weighted = np.stack([rows["weighted_row"], rows["weighted_col"]], 1)
    return np.where(np.isfinite(weighted), weighted, np.stack([rows["row"], rows["col"]], 1))


def merged(table: PeakTable, scan: int, about: About, path: Path) -> Merged:
    """Merge the peaks of a scan of the table; about: with the omega of all its frames; path: of the list to be.

    Peaks are merged by the positions of their fits, or of their brightest pixels where a fit has not converged.
    """
    peaks = np.flatnonzero(table.peaks["scan"] == scan)
    rows = listed(table, peaks, about.omega.mean(axis=1))
    found = merge(rows, MergeSpec(), {0: Frames(about.omega.mean(axis=1))})
    weight = shares(rows, found.of, len(found.reflections))
    return Merged(found.reflections, about, peaks, found.of, weight, path)


def listed(table: PeakTable, peaks: Index, omega: Floats) -> NDArray[np.void]:
    """Rows (n,) of PEAKS of the rows ``peaks`` of a table; omega: degrees, of every frame.

    Background and intensity are those of the patch: a mean of its outermost ring, and the sum of what is above.
    """
    p, rows = table.peaks[peaks], np.zeros(len(peaks), PEAKS)
    rows["frame"], rows["omega"] = p["frame"], omega[p["frame"]]
    rows["pixel_row"], rows["pixel_col"] = p["row"], p["col"]
    offset = table.offsets(FIT)[peaks]
    fitted = table.has(FIT)[peaks] & (np.abs(np.nan_to_num(offset, nan=np.inf)).max(1) <= table.size / 2)
    for number, axis in enumerate(("row", "col")):
        rows[axis] = p[axis] + np.where(fitted, offset[:, number], 0.0)
        for name in ("sigma", "wide", "width"):
            rows[f"{name}_{axis}"] = np.nan
    rows["maximum"], rows["area"] = p["maximum"], p["area"]
    for start in range(0, len(peaks), BLOCK):
        block = slice(start, start + BLOCK)
        patches = table.patches()[peaks[block]].astype(np.float64)
        ring = np.zeros(patches.shape[1:], bool)
        ring[[0, -1]] = ring[:, [0, -1]] = True
        background = clipped_mean(patches[:, ring])
        rows["background"][block] = background
        rows["intensity"][block] = patches.sum(axis=(1, 2)) - background * ring.size
    for flag, which in (
        (PeakFlag.SATURATED, p["saturated"]), (PeakFlag.NEIGHBOUR, p["neighbours"] > 0),
        (PeakFlag.DOUBLE, p["maxima"] > 1), (PeakFlag.BAD_PIXEL, p["masked"] > 0),
    ):  # fmt: skip
        rows["flags"][which] |= np.uint32(flag)
    return rows

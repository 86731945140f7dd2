"""Fits of the peaks of many frames: a component with one maximum by itself, one with two to six maxima jointly.

Pixels that are bad, and those of other components (with a margin of one pixel), are left out of every fit.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from braggnn_edge.fit.joint import MAX_PEAKS, JointFit, fit_joint
from braggnn_edge.fit.pseudo_voigt import COL, FWHM_MAJOR, FWHM_MINOR, PARAMETERS, ROW
from braggnn_edge.fit.single import FitResult, fit
from braggnn_edge.label.spec import DetectorSpec
from braggnn_edge.peaks.find import Detection, crops
from braggnn_edge.peaks.table import Flag, mark

#: Sides of the regions in which peaks are fitted jointly, px. A region reaches half a patch beyond the outer maxima;
#: a component whose maxima are too far apart for the largest is not fitted.
REGIONS = (11, 15, 21, 31)


@dataclass
class _Work:
    """Fits of one kind: what :meth:`Fits.add` collects for them, an array a frame.

    patches, usable: (n, h, w); maxima: (n, K, 2) px of the patch; corner: (n, 2) pixel (0, 0) of the patch in the
    frame; row: (n, K) rows of the peak table that the fitted peaks fill, -1 for none.
    """

    patches: list[NDArray] = field(default_factory=list)
    usable: list[NDArray[np.bool_]] = field(default_factory=list)
    maxima: list[NDArray[np.int64]] = field(default_factory=list)
    corner: list[NDArray[np.int64]] = field(default_factory=list)
    row: list[NDArray[np.int64]] = field(default_factory=list)


class Fits:
    """Collects fits frame by frame, and does those of one kind together."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._alone = _Work()
        self._joint: dict[tuple[int, int], _Work] = {}  # by number of maxima and side of the region

    def add(
        self,
        frame: NDArray,
        valid: NDArray[np.bool_] | None,
        found: Detection,
        chosen: NDArray[np.int64],
        first: int,
    ) -> NDArray[np.bool_]:
        """Note the fits for the maxima ``chosen`` (n,) of a frame, which fill the table from row ``first`` on.

        All maxima of their components take part in a fit, chosen or not. Returns (n,), True where the maxima
        of the component are too far apart for any region.
        """
        maxima = found.maxima
        row = np.full(len(maxima), -1)
        row[chosen] = first + np.arange(len(chosen))
        number = maxima["maxima"][chosen]
        owner: NDArray[np.int32] | None = None
        if ((number > 1) | (maxima["neighbours"][chosen] > 0)).any():
            owner = np.full(frame.shape, -1, np.int32)
            owner.reshape(-1)[found.pixels] = found.component
        self._add_alone(frame, valid, owner, maxima, chosen[number == 1], row)
        wanted = np.zeros(len(found.components), bool)
        wanted[maxima["component"][chosen[(number > 1) & (number <= MAX_PEAKS)]]] = True
        if owner is None or not wanted.any():
            return np.zeros(len(chosen), bool)
        too_far = np.zeros(len(wanted), bool)
        for count in range(2, MAX_PEAKS + 1):
            # A row a component, of its maxima in row-major order.
            of = maxima["component"]
            members = np.flatnonzero(wanted[of] & (maxima["maxima"] == count))
            group = members[np.argsort(of[members], kind="stable")].reshape(-1, count)
            place = np.stack([maxima["row"][group], maxima["col"][group]], axis=2).astype(np.int64)
            low, high = place.min(axis=1, initial=frame.size), place.max(axis=1, initial=0)
            kind = np.searchsorted(REGIONS, (high - low).max(axis=1) + self.size)
            too_far[of[group[kind == len(REGIONS), 0]]] = True
            for index, side in enumerate(REGIONS):
                mine = kind == index
                if mine.any():
                    corner = (low + high)[mine] // 2 - side // 2
                    patches, usable = _region(frame, valid, owner, of[group[mine, 0]], corner, side)
                    work = self._joint.setdefault((count, side), _Work())
                    work.patches.append(patches)
                    work.usable.append(usable)
                    work.maxima.append(place[mine] - corner[:, None])
                    work.corner.append(corner)
                    work.row.append(row[group[mine]])
        return too_far[maxima["component"][chosen]]

    def _add_alone(
        self,
        frame: NDArray,
        valid: NDArray[np.bool_] | None,
        owner: NDArray[np.int32] | None,
        maxima: NDArray[np.void],
        alone: NDArray[np.int64],
        row: NDArray[np.int64],
    ) -> None:
        rows, cols = maxima["row"][alone], maxima["col"][alone]
        usable = np.ones((len(alone), self.size, self.size), bool)
        if valid is not None:
            usable &= crops(valid, rows, cols, self.size)
        crowded = maxima["neighbours"][alone] > 0
        if owner is not None and crowded.any():
            around = crops(owner, rows[crowded], cols[crowded], self.size)
            usable[crowded] &= ~_foreign(around, maxima["component"][alone[crowded]])
        half = self.size // 2
        self._alone.patches.append(crops(frame, rows, cols, self.size))
        self._alone.usable.append(usable)
        self._alone.corner.append(np.stack([rows, cols], axis=1) - half)
        self._alone.row.append(row[alone][:, None])

    def fill(self, rows: NDArray[np.void], detector: DetectorSpec) -> None:
        """Do the fits, and fill the voigt_* columns and flags of the peak table's rows; rows without fit have NaN."""
        for name in rows.dtype.names or ():
            if name.startswith("voigt_") and rows[name].dtype.kind == "f":
                rows[name] = np.nan
        rows["voigt_dof"] = -1
        if sum(map(len, self._alone.patches)):
            patches, usable = np.concatenate(self._alone.patches), np.concatenate(self._alone.usable)
            single = fit(
                patches, valid=None if usable.all() else usable, gain=detector.gain, read_noise=detector.read_noise,
                saturation=detector.saturation or None, zero_suppression=detector.zero_suppression or None,
            )  # fmt: skip
            _store(rows, self._alone, single)
        for _, work in sorted(self._joint.items()):
            patches, usable = np.concatenate(work.patches), np.concatenate(work.usable)
            result = fit_joint(
                patches, np.concatenate(work.maxima), valid=usable, gain=detector.gain, read_noise=detector.read_noise,
                saturation=detector.saturation or None, zero_suppression=detector.zero_suppression or None,
            )  # fmt: skip
            _store(rows, work, result)
            fitted = np.concatenate(work.row).ravel()
            mark(rows, fitted[fitted >= 0], Flag.JOINT)
        mark(rows, ~rows["voigt_converged"], Flag.NOT_CONVERGED)


def _store(rows: NDArray[np.void], work: _Work, result: FitResult | JointFit) -> None:
    target, corner = np.concatenate(work.row), np.concatenate(work.corner)
    count, peaks = target.shape
    known = target.ravel() >= 0
    target = target.ravel()[known]
    parameters = result.parameters.reshape(count, peaks, 8).copy()
    parameters[:, :, :2] += corner[:, None]
    parameters = parameters.reshape(-1, 8)[known]
    for i, name in enumerate(PARAMETERS):
        rows[f"voigt_{name}"][target] = parameters[:, i]
    covariance = result.covariance.reshape(-1, 8, 8)[known]
    with np.errstate(over="ignore"):  # what exceeds float32 is not known: infinite
        rows["voigt_covariance"][target] = covariance
    rows["voigt_var_row"][target] = covariance[:, 0, 0]
    rows["voigt_cov_row_col"][target] = covariance[:, 0, 1]
    rows["voigt_var_col"][target] = covariance[:, 1, 1]
    for name in ("chi2", "dof", "residual", "iterations", "converged"):
        rows[f"voigt_{name}"][target] = np.repeat(getattr(result, name), peaks)[known]
    bounded = result.at_bound.reshape(-1, 8)[known]
    for flag, some in (
        (Flag.AT_BOUND, slice(None)),
        (Flag.POSITION_AT_BOUND, [ROW, COL]),
        (Flag.WIDTH_AT_BOUND, [FWHM_MAJOR, FWHM_MINOR]),
    ):
        mark(rows, target[bounded[:, some].any(axis=1)], flag)


def _region(
    frame: NDArray,
    valid: NDArray[np.bool_] | None,
    owner: NDArray[np.int32],
    component: NDArray[np.int64],
    corner: NDArray[np.int64],
    side: int,
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Squares (n, side, side) of the frame from the pixels ``corner`` (n, 2) on, and which of their pixels to use."""
    row, col = (corner[:, axis, None] + np.arange(side) for axis in (0, 1))
    inside = ((row >= 0) & (row < frame.shape[0]))[:, :, None] & ((col >= 0) & (col < frame.shape[1]))[:, None, :]
    place = row.clip(0, frame.shape[0] - 1)[:, :, None], col.clip(0, frame.shape[1] - 1)[:, None, :]
    usable = inside & ~_foreign(owner[place], component)
    return frame[place], usable if valid is None else usable & valid[place]


def _foreign(owner: NDArray[np.int32], component: NDArray) -> NDArray[np.bool_]:
    """Pixels (n, h, w) of other components than ``component`` (n,), or beside them and of none; -1 is of none."""
    mine = owner == component[:, None, None]
    others = (owner >= 0) & ~mine
    return ndimage.binary_dilation(others, np.ones((1, 3, 3), bool)) & ~mine

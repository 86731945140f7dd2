"""From frames to a list of peaks: find, measure, locate, frame by frame.

locator, scan = open_network("universal"), open_scan("hdf5", "scan.h5")
for peaks in locate_frames(locator, scan, component_rule(threshold=150.0)):
    ...                                    # (m,) rows of PEAKS: peaks["row"], peaks["col"], peaks["omega"], ...
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.evaluation.provenance import Ranges, reasons_of
from braggnn_edge.frames.omega import centres
from braggnn_edge.frames.scan import OnBad, Scan
from braggnn_edge.locate.locator import Locator, Patches
from braggnn_edge.peaks.find import crops
from braggnn_edge.peaks.measure import FWHM, measure
from braggnn_edge.peaks.peak_list import PEAKS, PeakFlag
from braggnn_edge.peaks.rules import Find

Rows = NDArray[np.void]

#: Columns that a network without sigma leaves unknown.
_KNOWN_BY_NETWORK = ("sigma_row", "sigma_col", "wide_row", "wide_col")


def locate_frames(
    locator: Locator,
    scan: Scan,
    find: Find,
    start: int = 0,
    stop: int | None = None,
    on_bad: OnBad | None = None,
    gain: float = 1.0,
) -> Iterator[Rows]:
    """Rows (m,) of :data:`PEAKS` of all peaks of frames ``start`` to ``stop``, in order, in pieces.

    One frame and the patches of about one batch are in memory at a time, whatever the length of the scan. ``on_bad`` is
    called with a frame that cannot be read, which is left out; without it BadFrame is raised and the scan ends there.
    gain: counts a photon. A network whose sigma supposes photons (``locator.photons``) is given counts divided by it.
    The patch that EDGE, NEIGHBOUR and BAD_PIXEL speak of is what the network looks at (``locator.window``).
    """
    gain = gain if locator.photons else 1.0
    seen = locator.window or locator.size
    unseen = (locator.size - seen) // 2  # px at each side of a patch, whatever they hold
    omega = np.full(scan.shape[0], np.nan) if scan.omega is None else centres(scan.omega)
    rows: list[Rows] = []
    patches: list[Patches] = []
    waiting = 0
    for index, frame, valid, stored in scan.frames_with_stored(start, stop, on_bad):
        found = find(frame, valid, stored, size=seen)
        if not len(found.row):
            continue
        row = np.zeros(len(found.row), PEAKS)
        row["frame"], row["omega"] = index, omega[index]
        row["pixel_row"], row["pixel_col"] = found.row, found.col
        row["row"], row["col"] = found.row, found.col
        for name in _KNOWN_BY_NETWORK:
            row[name] = np.nan
        row["maximum"], row["area"], row["flags"] = found.maximum, found.area, found.flags
        measured = measure(frame, valid, found, locator.size)
        row["background"], row["intensity"] = measured.background, measured.intensity
        row["width_row"], row["width_col"] = measured.width.T
        whole = ~flagged(row, PeakFlag.EDGE)
        rows.append(row)
        cut = crops(frame, found.row[whole], found.col[whole], seen)
        if unseen:
            cut = np.pad(cut, ((0, 0), (unseen, unseen), (unseen, unseen)))
        patches.append(cut if gain == 1.0 else (cut / gain).astype(np.float32))
        waiting += len(row)
        if waiting >= locator.batch:
            yield _located(locator, rows, patches, gain)
            rows, patches, waiting = [], [], 0
    if waiting:
        yield _located(locator, rows, patches, gain)


def _located(locator: Locator, pieces: list[Rows], patches: list[Patches], gain: float) -> Rows:
    """The rows with the positions of those whose patches fit in the frame, and what the network was not trained on."""
    rows = np.concatenate(pieces)
    whole = np.flatnonzero(~flagged(rows, PeakFlag.EDGE))
    if locator.sigma:
        offsets, sigma, wide = locator.locate_with_intervals(np.concatenate(patches))
        for name, values in zip(_KNOWN_BY_NETWORK, (*sigma.T, *wide.T), strict=True):
            rows[name][whole] = values
    else:
        offsets = locator.locate(np.concatenate(patches))
    rows["row"][whole] += offsets[:, 0]
    rows["col"][whole] += offsets[:, 1]
    if locator.trained_on is not None:
        for mask in outside(rows, locator.trained_on, gain).values():
            mark(rows, mask, PeakFlag.OUTSIDE)
    return rows


def outside(rows: Rows, ranges: Ranges, gain: float = 1.0) -> dict[str, NDArray[np.bool_]]:
    """Why rows (n,) are outside of what a network was trained on: a mask for every reason that some row has, in words.

    Compared are the counts of the brightest pixel, the smaller of the two widths as a full width at half maximum, and
    where the network's file says them area and saturation. gain: by which the network was given counts divided.
    """
    fwhm = FWHM * np.fmin(rows["width_row"], rows["width_col"])
    return reasons_of(ranges, fwhm, rows["maximum"] / gain, rows["area"], flagged(rows, PeakFlag.SATURATED))


def flagged(rows: Rows, flag: PeakFlag) -> NDArray[np.bool_]:
    """(n,) which rows have a flag."""
    return (rows["flags"] & np.uint32(flag)) != 0


def mark(rows: Rows, where: NDArray[np.bool_], flag: PeakFlag) -> None:
    """Give a flag to the rows at ``where`` (n,)."""
    rows["flags"][where] |= np.uint32(flag)

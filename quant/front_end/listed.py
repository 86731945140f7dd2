"""Records to a list of peaks, as ``locate`` writes it: for programs that read such lists.

found = decode(Path("a.records").read_bytes())
rows = peak_rows(found.peaks, load(Path("locator.json")))
peak_file.save(Path("peaks.h5"), rows, About(("scan",), (frames, rows, cols)))
"""

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.peaks.peak_list import PEAKS, PeakFlag
from quant.contract.arithmetic import Codes
from quant.contract.locator import IntegerLocator
from quant.front_end.records import RecordFlag, Records, positions

#: Flags that mean the same in both. SECOND_MAXIMUM is none of them: DOUBLE is about whole components.
_SAME = (
    (RecordFlag.EDGE, PeakFlag.EDGE),
    (RecordFlag.SATURATED, PeakFlag.SATURATED),
    (RecordFlag.BAD_PIXEL, PeakFlag.BAD_PIXEL),
    (RecordFlag.NOT_TRUSTED, PeakFlag.NOT_TRUSTED),
)


def peak_rows(peaks: Records, locator: IntegerLocator, omega: NDArray[np.float64] | None = None) -> NDArray[np.void]:
    """Rows (n,) of :data:`PEAKS` of records of peaks (n,), in their order.

    locator: that of the firmware; omega: (frames,) degrees, centres of the frames, None: not known. What a record does
    not say is NaN: intensity, background, widths; area is 0. For intensities that weigh the peaks of a merge,
    ``peaks["total"]`` may stand in, which has the background in it.
    """
    rows = np.zeros(len(peaks), PEAKS)
    for name in ("omega", "intensity", "background", "width_row", "width_col"):
        rows[name] = np.nan
    rows["frame"] = peaks["frame"]
    if omega is not None:
        rows["omega"] = omega[rows["frame"]]
    rows["row"], rows["col"] = positions(peaks, locator.output.frac).T
    rows["maximum"], rows["pixel_row"], rows["pixel_col"] = peaks["brightest"], peaks["peak_row"], peaks["peak_col"]
    edge = (peaks["flags"] & RecordFlag.EDGE) > 0
    known = ("sigma_row", "sigma_col", "wide_row", "wide_col")
    widths = np.full((len(peaks), 4), np.nan)
    if locator.calibration is not None:
        widths[~edge] = np.concatenate(locator.intervals(_codes(peaks[~edge])), axis=1)
    for name, values in zip(known, widths.T, strict=True):
        rows[name] = values
    for own, listed in _SAME:
        rows["flags"][(peaks["flags"] & own) > 0] |= np.uint32(listed)
    # Of a peak without a position the list says EDGE alone.
    rows["flags"][edge] &= ~np.uint32(PeakFlag.NOT_TRUSTED)
    return rows


def _codes(peaks: Records) -> Codes:
    """(n, 4) output codes, of which the last two are ln sigma; a record has no others."""
    codes = np.zeros((len(peaks), 4), np.int64)
    codes[:, 2], codes[:, 3] = peaks["ln_sigma_row"], peaks["ln_sigma_col"]
    return codes

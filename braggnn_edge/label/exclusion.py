"""Which peaks of the table are used, and why the others are not."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.label.spec import PeakSpec, ScanSpec
from braggnn_edge.peaks.find import company
from braggnn_edge.peaks.splits import EXCLUDED, SPLITS, TEST
from braggnn_edge.peaks.table import Flag

Rows = NDArray[np.void]
Mask = NDArray[np.bool_]

#: Why a peak is excluded, with what makes more peaks of that kind usable. A peak counts for the first that holds.
REASONS = {
    "frame in no part": "shorten the guards or enlarge the parts in [split], and see the scan's `use`",
    "saturated": "attenuate the beam, or see whether the detector's saturation is right",
    "several maxima": "raise the threshold if this scan is not crowded; lone = false takes them",
    "another component in the patch": "raise the threshold if this scan is not crowded; lone = false takes them",
    "bad pixel in the patch": "see whether the mask is right; lone = false takes them",
    "fit not converged": "see whether gain, read_noise and the threshold are right",
    "residual too large": "raise max_residual",
    "fit on a bound, or wider than the patch": "bounded_fits = true trains on them; larger patches suit wide peaks",
}


def exclude(rows: Rows, scan: ScanSpec, spec: PeakSpec) -> NDArray[np.int64]:
    """Set the split of unusable rows (n,) of the peak table to EXCLUDED; how many of which split, and why.

    rows have the split of their frames. The result is (reasons, splits), of REASONS and SPLITS. A soft label, a fit
    that ended on a bound of position or width or that is wider than the patch, is not trained on unless
    ``bounded_fits`` asks for it. It is tested on: there it is reported apart. The label of a simulated scan is its
    truth, however its fit ended.
    """
    none = np.zeros(len(rows), bool)
    bounded = (rows["flags"] & (Flag.POSITION_AT_BOUND | Flag.WIDTH_AT_BOUND)) != 0
    soft = rows["voigt_converged"] & (bounded | (rows["voigt_fwhm_major"] > spec.size))
    fitted = scan.format != "simulated" and not spec.bounded_fits
    holds: dict[str, Mask] = {
        "frame in no part": rows["split"] == EXCLUDED,
        **(company(rows) if spec.lone else {}),
        "fit not converged": ~rows["voigt_converged"] if scan.max_residual else none,
        "residual too large": ~(rows["voigt_residual"] < scan.max_residual) if scan.max_residual else none,
        "fit on a bound, or wider than the patch": soft & (rows["split"] != TEST) if fitted else none,
    }
    masks = [holds.get(reason, none) for reason in REASONS]
    first = np.argmax([*masks, ~none], axis=0)
    counts = np.zeros((len(REASONS) + 1, len(SPLITS)), np.int64)
    np.add.at(counts, (first, rows["split"]), 1)
    rows["split"][first < len(REASONS)] = EXCLUDED
    return counts[:-1]


def listed(counts: NDArray[np.int64]) -> dict[str, int]:
    """Of counts (reasons,) those that are not 0, by reason, the largest first."""
    ranked = sorted(zip(REASONS, counts.tolist(), strict=True), key=lambda pair: -pair[1])
    return {reason: count for reason, count in ranked if count}


def report(name: str, counts: NDArray[np.int64], say: Callable[[str], None]) -> None:
    """Say why peaks of a scan are excluded."""
    if counts.any():
        say(f"  {name}: excluded: " + ", ".join(f"{count} {reason}" for reason, count in listed(counts).items()))


def remedy(counts: NDArray[np.int64]) -> str:
    """What helps a part that has no peaks: counts (reasons,) of those that were excluded from it."""
    found = listed(counts)
    if not found:
        return "its frames show no peak; raise its share in [split], or label more frames"
    reason, count = next(iter(found.items()))
    return f"{count} peaks of it are excluded as {reason!r}: {REASONS[reason]}"

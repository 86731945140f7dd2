"""What a network was trained on, and which labelled peaks are outside of it.

Compared are properties that a labelled peak has and that a network's file names: the narrower FWHM of its fit, the
counts of its brightest pixel, whether it is saturated, and, for networks trained on a scan, its area. A family of
simulated patches (``[family]``) has heights in photons and a gain: its counts go from the lowest height at the lowest
gain to the greatest height at the greatest gain. It has no area, which depends on the threshold of a scan. The size of
patches is not compared: patches of another size are cut or refused before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.table import PeakTable

Mask = NDArray[np.bool_]

#: Keys of a file's provenance that name ranges: of the family that was drawn, or of the training peaks of a scan.
FAMILY, TRAINING_PEAKS = "family", "training_peaks"
#: How the names of groups of such peaks begin.
OUTSIDE = "outside provenance of"


@dataclass(frozen=True)
class Ranges:
    """Lowest and highest values of what a network was trained on.

    fwhm: of the narrower axis, px; counts: of the brightest pixel; area: pixels above the threshold, None where it is
    not known; saturated: whether saturated peaks were among them. Raises UserError for a range that holds nothing.
    """

    fwhm: tuple[float, float]
    counts: tuple[float, float]
    area: tuple[float, float] | None = None
    saturated: bool = False

    def __post_init__(self) -> None:
        for name in ("fwhm", "counts", "area"):
            if (bounds := getattr(self, name)) is not None and not bounds[0] <= bounds[1]:
                raise UserError(f"provenance: {name} = {bounds}; expected (low, high), ascending")

    def has_counts(self, brightest: NDArray[Any]) -> Mask:
        """(n,) whether counts (n,) of brightest pixels are within."""
        return (brightest >= self.counts[0]) & (brightest <= self.counts[1])


def ranges_of(provenance: Mapping[str, Any], file: Path) -> Ranges | None:
    """The ranges that the provenance of a network's ``file`` names; None where it names none.

    Raises UserError for ranges that are incomplete or hold nothing.
    """
    try:
        if FAMILY in provenance:
            drawn = provenance[FAMILY]
            (faintest, brightest), (least, most) = _pair(drawn["heights"]), _pair(drawn["gain"])
            return Ranges(_pair(drawn["fwhm"]), (faintest * least, brightest * most), None, drawn["saturated"] > 0)
        if TRAINING_PEAKS in provenance:
            peaks = provenance[TRAINING_PEAKS]
            fwhm, counts, area = (_pair(peaks[name]) for name in ("fwhm", "counts", "area"))
            return Ranges(fwhm, counts, area, bool(peaks["saturated"]))
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(
            f"{file}: the ranges of what this network was trained on cannot be read ({error!r}); make the file again"
        ) from error
    return None


def _pair(values: Sequence[float]) -> tuple[float, float]:
    low, high = map(float, values)
    return low, high


def ranges_of_peaks(table: PeakTable) -> Ranges | None:
    """The ranges of training peaks; None when none of them has a fit that converged."""
    p = table.peaks
    width = p["voigt_fwhm_minor"][p["voigt_converged"]]
    if not len(width):
        return None
    fwhm, counts, area = ((float(v.min()), float(v.max())) for v in (width, p["maximum"], p["area"]))
    return Ranges(fwhm, counts, area, bool(p["saturated"].any()))


def reasons(ranges: Ranges, table: PeakTable) -> dict[str, Mask]:
    """Why peaks (n,) of a table are outside: a mask for each reason that some peak has, in words.

    Where the fit did not converge, the width is not known and is no reason.
    """
    p = table.peaks
    width = np.where(p["voigt_converged"], p["voigt_fwhm_minor"], np.nan)
    return reasons_of(ranges, width, p["maximum"], p["area"], p["saturated"])


def reasons_of(
    ranges: Ranges, fwhm: NDArray[Any], counts: NDArray[Any], area: NDArray[Any], saturated: Mask
) -> dict[str, Mask]:
    """The same of peaks (n,) by their properties, as :class:`Ranges` has them; NaN, not known, is no reason."""
    found = {
        **_beyond(fwhm, ranges.fwhm, "narrower", "wider", "px"),
        **_beyond(counts, ranges.counts, "fainter", "brighter", "counts"),
    }
    if ranges.area is not None:
        found |= _beyond(area, ranges.area, "smaller", "larger", "pixels")
    if not ranges.saturated:
        found["saturated"] = saturated
    return {name: mask for name, mask in found.items() if mask.any()}


def _beyond(values: NDArray[Any], bounds: tuple[float, float], less: str, more: str, unit: str) -> dict[str, Mask]:
    low, high = (f"{bound:.3f}".rstrip("0").rstrip(".") for bound in bounds)
    return {f"{less} than {low} {unit}": values < bounds[0], f"{more} than {high} {unit}": values > bounds[1]}


def outside(ranges: Ranges | None, table: PeakTable) -> Mask:
    """(n,) whether a peak is outside; none is where the ranges are not known."""
    found = np.zeros(len(table.peaks), bool)
    for mask in reasons(ranges, table).values() if ranges else ():
        found |= mask
    return found


def described(ranges: Ranges | None, table: PeakTable) -> dict[str, Any]:
    """An entry of ``provenance`` in JSON: the ranges, how many peaks are outside, and why; empty when not known."""
    if ranges is None:
        return {}
    known = {"fwhm_px": list(ranges.fwhm), "counts": list(ranges.counts), "saturated": ranges.saturated}
    return {
        "trained_on": known | ({} if ranges.area is None else {"area_px": list(ranges.area)}),
        "peaks": len(table.peaks),
        "outside": int(outside(ranges, table).sum()),
        "reasons": {name: int(mask.sum()) for name, mask in reasons(ranges, table).items()},
        "without_width": int((~table.peaks["voigt_converged"]).sum()),
    }


def sentence(names: Sequence[str], entry: Mapping[str, Any]) -> str:
    """One of :func:`described` in words; names: of the networks that it is true of."""
    who = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    what = f"what {who} {'were' if len(names) > 1 else 'was'} trained on"
    if not entry:
        return f"{what} is not known, so no peak is marked as outside"
    unknown = entry["without_width"]
    hint = f" (the width of {unknown:,}, whose fit did not converge, is not known)" if unknown else ""
    if not entry["outside"]:
        return f"all {entry['peaks']:,} peaks are within {what}{hint}"
    why = ", ".join(f"{count:,} {reason}" for reason, count in entry["reasons"].items())
    return f"{entry['outside']:,} of {entry['peaks']:,} peaks are outside {what}: {why}{hint}"


def groups_outside(known: Mapping[str, Ranges | None], table: PeakTable) -> dict[str, Mask]:
    """Peaks outside by the name of their group; networks with the same ranges share one."""
    alike: dict[Ranges, list[str]] = {}
    for name, ranges in known.items():
        if ranges is not None:
            alike.setdefault(ranges, []).append(name)
    return {f"{OUTSIDE} {', '.join(names)}": outside(ranges, table) for ranges, names in alike.items()}

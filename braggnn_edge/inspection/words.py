"""The first look in plain words."""

from typing import Any

import numpy as np

from braggnn_edge.fit.pseudo_voigt import AMPLITUDE, ETA
from braggnn_edge.inspection.advice import coverage, patch_size
from braggnn_edge.inspection.facts import Fact, Look, SpotFacts
from braggnn_edge.inspection.spots import good_fits
from braggnn_edge.inspection.transfer import widths_of


def percentiles(values: np.ndarray) -> dict[str, float] | None:
    """10, 50 and 90 % of values; None where there are none."""
    if not len(values):
        return None
    return dict(zip(("p10", "median", "p90"), np.percentile(values, (10, 50, 90)).tolist(), strict=True))


def numbers_of(spots: SpotFacts, gain: float | None) -> dict[str, Any]:
    """The figures of the spots, for JSON and for the sentences."""
    table, good = spots.spots.spots, spots.good
    major, minor = (width[good] for width in widths_of(spots.fitted))
    # Widths are of the fits that know them well, which are of bright spots; heights are of faint ones too.
    height = spots.fitted.parameters[good_fits(spots.fitted, spots.size), AMPLITUDE]
    components = table[table["brightest"]]
    return {
        "frames": spots.spots.searched,
        "found": len(components),
        "a_frame": len(components) / max(spots.spots.searched, 1),
        "share_of_pixels": spots.spots.above,
        "fits": int(good.sum()),
        "fwhm_major_px": percentiles(major),
        "fwhm_minor_px": percentiles(minor),
        "aspect": percentiles(major / minor),
        "eta": percentiles(spots.fitted.parameters[good, ETA]),
        "height_counts": percentiles(height),
        "height_photons": percentiles(height / gain) if gain else None,
        "maximum_counts": percentiles(table["maximum"]),
        "lasting_frames": spots.rocking.frames,
        "lasting_seen_whole": percentiles(spots.rocking.lasting),
        "rocking_fwhm_frames": percentiles(spots.rocking.width),
        "neighbours": float((components["neighbours"] > 0).mean()),
        "double_maxima": float((components["maxima"] > 1).mean()),
        "saturated": float(components["saturated"].mean()),
        "extent_px": spots.extent.plain(),
    }  # fmt: skip


def _said(name: str, fact: Fact, unit: str) -> str:
    if fact.value is None:
        return f"{name}: not found; {fact.why}"
    error = "" if not fact.error else f" +- {fact.error:.2g}"
    return f"{name}: {fact.value:,.4g}{error} {unit} ({fact.why})"


def _range(values: dict[str, float] | None, digits: str = ".2f") -> str:
    if values is None:
        return "not known"
    return f"{values['median']:{digits}} ({values['p10']:{digits}} to {values['p90']:{digits}})"


def rule_of(spots: SpotFacts) -> str:
    """The threshold as keys of a ``[[scan]]``."""
    rule = spots.rule
    if rule.background_box:
        return f"background_box = {rule.background_box}, sigma = {rule.sigma:g}"
    return f"threshold = {rule.threshold:,.6g} counts"


def pixel_lines(found: Look) -> list[str]:
    """What the pixels say."""
    pixels, counts = found.pixels, found.pixels.counts
    lines = [
        f"{found.shape[0]} frames of {found.shape[1]} x {found.shape[2]} px, {found.dtype}; single pixels of "
        f"{len(pixels.frames)} frames were looked at ({_listed(pixels.frames)})",
        f"counts from {counts['minimum']:,.6g} to {counts['maximum']:,.6g}, median {counts['median']:,.4g}, "
        f"1 % below {counts['p01']:,.4g}, 1 % above {counts['p99']:,.4g}, 0.1 % above {counts['p99.9']:,.5g}",
    ]
    if pixels.marks:
        marks = ", ".join(f"{number:,} of {name}" for name, number in pixels.marks.items())
        lines.append(f"raw pixels with values that detectors use as marks, in the first frame: {marks}")
    faults = pixels.faults
    bad = [f"{faults[key]:,} {key}" for key in ("masked", "dead", "hot") if faults.get(key) is not None]
    lines.append(f"bad pixels: {', '.join(bad)}")
    if pixels.zero_suppression.value:
        lines.append(f"zero suppression: {pixels.zero_suppression.why}")
    else:
        lines.append(f"zero suppression: none; {pixels.zero_suppression.why}")
    background = _said("background", pixels.background, "counts a pixel")
    if pixels.background_range is not None and pixels.noise is not None:
        low, high = pixels.background_range
        background += f", {low:,.4g} to {high:,.4g} over the panel, noise {pixels.noise:,.3g}"
    return [*lines, background]


def detector_lines(found: Look) -> list[str]:
    """What is known of the detector."""
    return [
        _said("gain", found.detector.gain, "counts a photon"),
        _said("read noise", found.detector.read_noise, "counts"),
        _said("saturation", found.detector.saturation, "counts"),
    ]


def spot_lines(found: Look) -> list[str]:
    """What the spots are like."""
    if found.spots is None:
        return ["spots: none was found"]
    spots = found.spots
    n = numbers_of(spots, found.detector.gain.value)
    lines = [
        f"threshold: {rule_of(spots)}; {spots.reason}",
        f"spots: {n['a_frame']:,.1f} a frame, {n['found']:,} in {n['frames']} frames; {n['fits']:,} fits know "
        f"their widths well, and are used below; median (10 to 90 %)",
        f"FWHM: major {_range(n['fwhm_major_px'])}, minor {_range(n['fwhm_minor_px'])} px; axis ratio "
        f"{_range(n['aspect'])}; eta {_range(n['eta'])}",
        f"height: {_range(n['height_counts'], ',.0f')} counts"
        + (f", {_range(n['height_photons'], ',.0f')} photons" if n["height_photons"] else ""),
    ]
    lasting = n["lasting_frames"]
    if lasting is not None:
        step = found.omega_step.value
        degrees = f" of {step:g} degrees" if step else " (degrees are not known)"
        lines.append(f"a reflection is seen in {lasting:.1f} frames{degrees} on average")
    lines.append(
        f"{n['neighbours']:.0%} have a neighbour within 5 px, {n['double_maxima']:.0%} have more than one maximum, "
        f"{n['saturated']:.0%} are saturated"
    )
    return lines


def advice_lines(found: Look) -> list[str]:
    """Advice."""
    size, why = patch_size(found)
    lines = [f"patch size: {size if size else 'not known'}; {why}"]
    if found.spots is not None and found.spots.rule.background_box:
        lines.append(
            f"background boxes: {found.spots.rule.background_box} px, at least eight spots wide; larger ones suit a "
            "smooth background"
        )
    return lines + [entry["says"] for entry in coverage(found)]


def _listed(numbers: list[int], most: int = 10) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    return shown + (f", ... {numbers[-1]}" if len(numbers) > most else "")

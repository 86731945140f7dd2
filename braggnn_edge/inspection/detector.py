"""Gain and read noise, from the background and from fits, with the reason where one of them is not known."""

import numpy as np

from braggnn_edge.frames.scan import Scan
from braggnn_edge.inspection.dark import Dark, fit_histogram
from braggnn_edge.inspection.facts import DetectorFacts, Fact, PixelFacts
from braggnn_edge.inspection.spots import Detector
from braggnn_edge.inspection.transfer import MODEL_ERROR, NO_POINTS, Line, Points, line

#: Background below so many standard deviations of its noise is cut by the detector's zero.
_CLEAR = 3.5
#: A gain is known when its error is at most this share of it.
_KNOWN = 0.1
#: The logarithm of a read noise is known when its error is at most this.
_DARK_KNOWN = 0.15
#: Where zero cuts the noise of the background, a pixel that is zero is somewhere below this.
CUT_AT_ZERO = 0.5
#: Whole counts have the variance of rounding.
_ROUNDING = 1 / 12


def noise_without_fits(facts: PixelFacts, points: Points) -> Detector:
    """A first guess that is good enough for a threshold and a first fit."""
    suppressed = facts.zero_suppression.value or None
    if facts.noise is None:
        return Detector(1.0, 1.0, None, suppressed)
    dark = _dark(facts, points, None)
    if dark is not None and _counts_photons(dark):
        return Detector(dark.gain, 0.0, None, None)
    if dark is not None and dark.errors[1] < _DARK_KNOWN:
        # Zeros of the background are any count below: for a fit the same as zero suppression.
        gain = dark.gain if dark.errors[0] < _KNOWN and dark.read_noise < 0.6 * dark.gain else 1.0
        return Detector(gain, dark.read_noise, None, CUT_AT_ZERO)
    background = line(_clear(facts, points), NO_POINTS)
    if background is not None and _is_known(background):
        return Detector(background.gain, float(np.sqrt(max(background.intercept, 0.0))), None, suppressed)
    mean = max(facts.background.or_else(0.0), 0.0)
    gain = float(np.clip(facts.noise**2 / mean, 1e-3, 1.0)) if mean > 0 else 1e-3
    return Detector(gain, float(np.sqrt(max(facts.noise**2 - gain * mean, 0.0))), None, suppressed)


def _clear(facts: PixelFacts, points: Points) -> Points:
    """The points whose pixels are hardly ever cut at zero."""
    if facts.counts["minimum"] < 0:
        return points
    return points.where(points.mean > _CLEAR * np.sqrt(points.variance))


def _is_known(found: Line) -> bool:
    return found.gain > 0 and found.gain_error < _KNOWN * found.gain


def detector_facts(facts: PixelFacts, points: Points, fits: Points, saturation: Fact, scan: Scan) -> DetectorFacts:
    """The detector. points: of the background; fits: of the residuals of spots."""
    clear = _clear(facts, points)
    together = _best_line(clear, fits)
    dark = _dark(facts, points, together)
    if dark is not None and _counts_photons(dark):
        clear = points  # no noise reaches below zero
        together = _best_line(clear, fits) or together
    gain = _gain(together, dark, clear, fits)
    read_noise = _read_noise(facts, together, dark, clear, scan)
    return DetectorFacts(gain, read_noise, saturation, points, fits, together)


def _dark(facts: PixelFacts, points: Points, together: Line | None) -> Dark | None:
    """The detector from a background that zero cuts; None where it does not, or where the model does not fit."""
    if not len(points) or len(_clear(facts, points)) >= max(3, len(points) / 2):
        return None
    value, number = facts.histogram
    keep = (value >= 0) & (value == np.rint(value))
    gain, error = (together.gain, together.gain_error) if together else (None, None)
    found = fit_histogram(value[keep], number[keep], gain, error)
    return found if found is not None and found.misfit <= 0.05 else None


def _best_line(clear: Points, fits: Points) -> Line | None:
    """The line through both kinds of points, or through those of the background where fits spoil it."""
    found = [one for one in (line(clear, fits), line(clear, NO_POINTS)) if one is not None and _is_known(one)]
    return min(found, key=lambda one: one.gain_error / one.gain) if found else None


def _counts_photons(dark: Dark) -> bool:
    return dark.read_noise < max(0.3, 0.02 * dark.gain)


def _gain(together: Line | None, dark: Dark | None, clear: Points, fits: Points) -> Fact:
    if dark is not None and dark.background > 0.02 and dark.read_noise < 0.6 * dark.gain and together is None:
        error = max(dark.errors[0], MODEL_ERROR)
        if error < _KNOWN:
            return Fact(dark.gain, "from the distribution of the few counts of the background", error * dark.gain)
    if together is not None:
        sources = [name for name, there in (("the background", clear), ("residuals of fits", fits)) if len(there)]
        why = f"slope of the variance against the mean, from {' and '.join(sources)}"
        return Fact(together.gain, why, max(together.gain_error, MODEL_ERROR / 2 * together.gain))
    if not len(clear) and not len(fits):
        return Fact(None, "there is neither a background nor are there enough good fits of unsaturated spots")
    if not len(fits):
        return Fact(None, "the background is too even for a slope of the variance, and too few spots could be fitted")
    return Fact(None, "variances do not follow the mean closely enough for a slope to within 10 %")


def _read_noise(facts: PixelFacts, together: Line | None, dark: Dark | None, clear: Points, scan: Scan) -> Fact:
    if facts.zero_suppression.value:
        return Fact(None, "pixels of the background, which would show it, were stored as zero")
    if dark is not None:
        if _counts_photons(dark):
            return Fact(0.0, f"counts of the background are photons alone (below {max(dark.read_noise, 0.3):.2g})")
        if dark.errors[1] < _DARK_KNOWN:
            return Fact(
                dark.read_noise, "from the distribution of the few counts of the background",
                dark.errors[1] * dark.read_noise,
            )  # fmt: skip
        return Fact(None, "the few counts of the background do not tell it from photon noise")
    if not len(clear):
        return Fact(None, "the background is too faint, or there is none, and no model fits its counts")
    if together is None:
        noise = facts.noise or 0.0
        return Fact(None, "without a gain it cannot be told from photon noise", limit=noise)
    rounding = _ROUNDING if scan.source.dtype.kind in "iu" else 0.0
    square = together.intercept - rounding
    error = together.intercept_error
    if square < -5.0 * error and square < -0.02 * float(clear.variance.min()):
        return Fact(
            None, "the variance is below that of as many photons: the frames have an offset (a dark that was not "
            "subtracted), or counts were combined",
        )  # fmt: skip
    limit = float(np.sqrt(max(square, 0.0) + 3.0 * error))
    if square > 4.0 * error and square > 0.02 * float(clear.variance.min()):
        value = float(np.sqrt(square))
        return Fact(value, "variance of the background where its mean is extrapolated to zero", error / (2 * value))
    if limit < 0.1 * together.gain or limit < 0.5:
        return Fact(0.0, f"the noise is that of photons alone (read noise below {limit:.2g} counts)", limit=limit)
    return Fact(None, f"it is hidden under the photon noise of the background: below {limit:.3g} counts", limit=limit)

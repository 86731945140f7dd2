"""A threshold for a scan, and the reason for it."""

from dataclasses import replace

import numpy as np

from braggnn_edge.inspection.facts import PixelFacts
from braggnn_edge.inspection.spots import MIN_AREA, Detector, Finding
from braggnn_edge.inspection.transfer import Points

#: Of MIN_AREA connected pixels there are about so many shapes at a pixel.
_SHAPES = 110
#: Components of noise a frame that are let through.
_FALSE = 0.1
_SMALLEST_BOX, _BOX = 8, 32


def choose(shape: tuple[int, int, int], facts: PixelFacts, points: Points, detector: Detector) -> tuple[Finding, str]:
    """The rule that separates spots from background and its reason in words."""
    value, number = facts.histogram
    pixels = shape[1] * shape[2]
    # Pixels of noise above the threshold that happen to touch make a false spot.
    share = (_FALSE / (_SHAPES * pixels)) ** (1 / MIN_AREA)
    above = 1.0 - np.cumsum(number) / max(number.sum(), 1)
    quiet = float(value[np.argmax(above <= share)])
    suppressed = facts.zero_suppression.value
    if suppressed:
        threshold = max(suppressed - 1.0, quiet)
        why = f"fainter pixels were stored as zero: all that is stored counts, from {suppressed:,.6g} counts on"
        if threshold > suppressed:
            why = (
                f"of the pixels that are stored so many are noise that below {threshold:,.6g} counts groups of "
                f"{MIN_AREA} would touch by chance"
            )
        return Finding(threshold, 0.0, 0, detector), why
    if facts.noise is None or facts.background.value is None:
        threshold = max(quiet, 1.0)
        return Finding(threshold, 0.0, 0, detector), "the background is not known; so few pixels are brighter"
    low, high = facts.background_range or (facts.background.value,) * 2
    noise = max(facts.noise, 1e-9)
    if high - low > 2.0 * noise and min(shape[1:]) >= 4 * _SMALLEST_BOX:
        box = min(_BOX, min(shape[1:]) // 4)
        why = (
            f"the background goes from {low:,.4g} to {high:,.4g} counts over the panel, its noise is {noise:,.3g}: "
            "one threshold in counts does not suit all of it"
        )
        return Finding(0.0, 4.0, max(box, _SMALLEST_BOX), detector), why
    brightest = float(points.variance[np.argmax(points.mean)]) if len(points) else noise**2
    least = high + 5.0 * np.sqrt(max(brightest, noise**2))
    threshold = float(max(np.ceil(least) if least > 3 else least, quiet))
    why = (
        f"the background is {facts.background.value:,.4g} counts ({low:,.4g} to {high:,.4g}) with a noise of "
        f"{noise:,.3g}: this is 5 standard deviations above its brightest boxes"
    )
    return Finding(threshold, 0.0, 0, detector), why


def wider_box(rule: Finding, width: float, shape: tuple[int, int, int]) -> Finding:
    """The rule with boxes at least eight times as wide as a spot (px), as far as the frame has room for four."""
    if not rule.background_box:
        return rule
    wanted = max(_BOX, int(np.ceil(8 * width / 16)) * 16)
    return replace(rule, background_box=max(_SMALLEST_BOX, min(wanted, min(shape[1:]) // 4)))

"""Guards before long work: scans whose first frames show that peaks will not be found are refused, with a remedy.

Every guard is a function of what a few frames show (:class:`braggnn_edge.peaks.first_look.Look`) and says what is wrong
and what helps, or nothing. They err on the side of going on: a scan with few good spots beside much else passes.
"""

from collections.abc import Callable

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.background import Rule
from braggnn_edge.frames.scan import Scan
from braggnn_edge.peaks.first_look import CROWDED, Look, look

#: From this share of bad pixels on, a mask is taken for its opposite.
_MASKED = 0.98
#: Below this share of pixels above the threshold, noise alone makes but some tens of components a megapixel.
_NOISY = 0.02
#: Pixels of noise have neighbours above the threshold as often as any pixel has, and those of spots far more often.
_TOGETHER = 0.25
#: Standard deviations of the background by which a threshold should be above it.
_GOOD = 5.0
#: Where arcs have this share of the signal, a scan is one of rings. Spots on a ring, however dense, make none.
_RINGS = 0.2
#: An area wider than this share of the frame is no spot, nor is one without relief that is so many patches wide.
_AREA, _EVEN = 0.25, 3.0


def check(
    scan: Scan,
    rule: Rule,
    *,
    min_area: int,
    size: int,
    anyway: str,
    say: Callable[[str], None],
    frames: tuple[int, int] | None = None,
    skip: bool = True,
) -> None:
    """Say what the first frames of ``scan`` show; UserError, with a remedy, where it makes no sense to go on.

    The frames are a handful, spread over the scan: a second or two of work. rule, min_area: as in a ``[[scan]]``;
    size: side of a patch, px; anyway: what a user sets to go on all the same, for the message; frames: (start, stop)
    of those that will be worked on, by default all; skip: whether bad frames are left out, or raise BadFrame.
    """
    seen = look(scan, rule, min_area, size, frames, skip)
    if not seen.seen:  # nothing but bad frames, which the work itself reports
        return
    say(f"  {scan.name}: {described(seen)}")
    wrong = nonsense(seen, rule, size)
    if wrong:
        wrong += _marked(seen, scan)
        raise UserError(f"scan {scan.name!r}: {wrong}. To go on all the same: {anyway}")
    if seen.middle("masked") > 0.5:
        say(f"  {scan.name}: more than half of the pixels are bad; see whether the mask is the right way round")
    width = seen.shape_figure("width")
    if width > size / 2:
        say(
            f"  {scan.name}: spots are {width:.0f} px wide at half maximum; patches of {size} px leave little beside "
            f"them, {_patch(width)} px would suit them"
        )


def described(seen: Look) -> str:
    """One line on what the frames show."""
    number = len(seen.seen)
    text = (
        f"first look at {number} of {seen.frames} frames: {_percent(seen.middle('above'))} of the pixels above the "
        f"threshold, {seen.middle('components'):.0f} components a frame, {_percent(seen.middle('masked'))} bad"
    )
    return text + (f", spots {seen.shape_figure('width'):.1f} px wide" if seen.shape_figure("width") else "")


def nonsense(seen: Look, rule: Rule, size: int) -> str:
    """What is wrong with frames in which no peaks will be found, and what helps; "" where nothing is."""
    if not seen.seen:
        return ""
    guards = (_masked, _nothing, _background, _noise, _rings, _areas, _spots)
    return next(filter(None, (guard(seen, rule, size) for guard in guards)), "")


def _masked(seen: Look, rule: Rule, size: int) -> str:
    share = seen.middle("masked")
    if share < _MASKED:
        return ""
    return (
        f"{share:.1%} of the pixels are bad; see whether the mask is the right way round (true or 1 where a pixel is "
        "bad), and what negative and overflow_value say"
    )


def _nothing(seen: Look, rule: Rule, size: int) -> str:
    if not seen.nothing:
        return ""
    brightest = max(one.brightest for one in seen.seen)
    if brightest <= 0:
        return (
            f"no pixel of {len(seen.seen)} frames is above 0; see whether the file and data set are the right ones, "
            "and whether the dark belongs to them"
        )
    return (
        f"no pixel of {len(seen.seen)} frames is above {_level(seen, rule)}, the brightest has {brightest:g}; the "
        f"background is about {seen.middle('level'):g}, so lower {_key(rule)}: {_advised(seen, rule)}"
    )


def _marked(seen: Look, scan: Scan) -> str:
    """What else may be wrong where pixels have the largest value of their type."""
    largest = np.iinfo(scan.dtype).max if scan.dtype.kind in "ui" else np.inf
    if not any(frame.brightest >= largest for frame in seen.seen):
        return ""
    return (
        f". Some pixels hold {largest}, the largest value of {scan.dtype}: if these are bad, give the mask (an HDF5 "
        'file may hold a pixel_mask), or overflow_value = "bad"'
    )


def _background(seen: Look, rule: Rule, size: int) -> str:
    if seen.middle("above") <= CROWDED:
        return ""
    return (
        f"{seen.middle('above'):.0%} of the pixels are above {_level(seen, rule)}: that is the background, of about "
        f"{seen.middle('level'):g} counts; {_remedies(seen, rule)}"
    )


def _noise(seen: Look, rule: Rule, size: int) -> str:
    share = seen.middle("above")
    if share < _NOISY or seen.middle("together") >= share + _TOGETHER:
        return ""
    return (
        f"{share:.1%} of the pixels are above {_level(seen, rule)}, and most of them are noise of the background "
        f"({seen.middle('level'):g} counts, which vary by {seen.middle('spread'):g}); {_remedies(seen, rule)}"
    )


def _rings(seen: Look, rule: Rule, size: int) -> str:
    share = seen.shape_figure("arcs")
    if share < _RINGS:
        return ""
    return (
        f"{share:.0%} of what is above the threshold is in arcs much longer than a patch of {size} px, "
        f"{_where(seen)}: these are powder rings, in which there are no separate peaks; raise {_key(rule)} if spots "
        "stand out of them, mask them, or use a program for powder diffraction"
    )


def _areas(seen: Look, rule: Rule, size: int) -> str:
    wide, even = seen.shape_figure("area"), seen.shape_figure("plateau")
    if wide < _AREA * min(seen.shape) and even < _EVEN * size:
        return ""
    return (
        f"an area {max(wide, even):.0f} px wide is above {_level(seen, rule)}, {_where(seen)}: that is no spot "
        f"but background; {_remedies(seen, rule)}, or mask it if it is the beam"
    )


def _spots(seen: Look, rule: Rule, size: int) -> str:
    width = seen.shape_figure("width")
    if width <= size:
        return ""
    return (
        f"spots are {width:.0f} px wide at half maximum, {_where(seen)}, and do not fit in patches of {size} px; "
        f"bin the frames, or take patches of {_patch(width)} px and a network for them"
    )


def _patch(width: float) -> int:
    """Side of a patch, odd, that covers a peak to a tenth of its height or less and leaves 2 px beside it."""
    return 2 * round(width) + 5


def _key(rule: Rule) -> str:
    return "sigma" if rule.sigma else "the threshold"


def _level(seen: Look, rule: Rule) -> str:
    if rule.sigma:
        return f"{rule.sigma:g} standard deviations of the local background"
    beyond = " above the local background" if rule.background_box else ""
    return f"the threshold of {rule.threshold:g} counts{beyond}"


def _advised(seen: Look, rule: Rule) -> str:
    if rule.sigma:
        return f"{_GOOD:g} is usual"
    level = 0.0 if rule.background_box else seen.middle("level")
    return f"about {level + _GOOD * max(seen.middle('spread'), 1.0):.0f} counts would be above its noise"


def _remedies(seen: Look, rule: Rule) -> str:
    """What helps against a threshold in the background."""
    if rule.sigma:
        return "raise sigma, and see whether gain and read_noise are those of the detector"
    if rule.background_box:
        return f"raise the threshold ({_advised(seen, rule)})"
    return (
        f"subtract the dark if it is still in the frames, raise the threshold ({_advised(seen, rule)}), or count it "
        "from the local background (background_box = 32 and sigma = 5)"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _where(seen: Look) -> str:
    widest = max(seen.seen, key=lambda one: one.width)
    return f"such as in frame {widest.frame} at ({widest.place[0]}, {widest.place[1]})"

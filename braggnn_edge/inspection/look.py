"""The first look: pixels of a few frames, noise of their background, a threshold, spots, and from both the detector.

Pixels are looked at one by one in a few pairs of neighbouring frames, spots are searched in more frames. Memory holds
one frame, a few images of its size, and the patches of at most 3,000 spots.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit.single import FitResult
from braggnn_edge.frames.formats import BadFrame
from braggnn_edge.frames.scan import Scan
from braggnn_edge.inspection import pixels as px
from braggnn_edge.inspection import sample
from braggnn_edge.inspection.detector import CUT_AT_ZERO, detector_facts, noise_without_fits
from braggnn_edge.inspection.facts import DetectorFacts, Fact, Look, PixelFacts, SpotFacts
from braggnn_edge.inspection.rule import choose, wider_box
from braggnn_edge.inspection.spots import (
    ENOUGH,
    Detector,
    Finding,
    Spots,
    best_fits,
    find_spots,
    fit_spots,
    good_fits,
    patch_for,
    rocking,
)
from braggnn_edge.inspection.transfer import (
    NO_POINTS,
    Points,
    Tiles,
    line,
    points_of_background,
    points_of_fits,
    tiles_of_pair,
    widths_of,
)

Say = Callable[[str], None]
_PERCENTILES = {"p01": 0.01, "median": 0.5, "p99": 0.99, "p99.9": 0.999}


def look(scan: Scan, say: Say) -> Look:
    """Look at a scan. Raises UserError where no frame can be used."""
    frames, rows, cols = scan.shape
    if frames < 1 or min(rows, cols) < 16:
        raise UserError(
            f"scan {scan.name!r} has {frames} frames of {rows} x {cols} px; expected one or more, of at least "
            "16 x 16 px"
        )
    reader = sample.Reader(scan)
    facts, points = _pixels(scan, reader, say)
    step = _omega_step(scan)
    detector, found = _spots_and_detector(scan, reader, facts, points, say)
    result = Look(scan.name, scan.shape, str(scan.source.dtype), step, facts, detector, found, dict(reader.bad))
    result.missing = _missing(result)
    return result


def _pixels(scan: Scan, reader: sample.Reader, say: Say) -> tuple[PixelFacts, Points]:
    """What single pixels hold, and the noise of the background."""
    frames, rows, cols = scan.shape
    chosen = sample.pairs(frames, rows * cols)
    say(f"  pixels of {sum(map(len, chosen))} of {frames} frames")
    survey, values = px.Survey((rows, cols)), px.Values()
    seen: list[int] = []
    raw = _raw(scan, chosen[0].start)
    for run, pair in enumerate(chosen):
        for frame in reader.read(pair, run):
            survey.add(frame)
            values.add(frame.counts[frame.valid] if frame.valid is not None else frame.counts.reshape(-1))
            seen.append(frame.index)
    if not seen:
        reader.refuse()
    table = values.table()
    suppressed = px.zero_suppression(table)
    faults = survey.faults(suppressed.smallest > 0)
    ignored = faults.pop("map", None)
    level = suppressed.smallest
    unit = level or min(max(suppressed.step, 1.0), 100.0) if scan.dtype.kind != "f" else 0.0
    tiles, background = [], px.Values()
    for run, pair in enumerate(chosen):
        read = list(reader.read(pair, run))
        for found, use, counts in _pair_tiles(read, survey.bad | (False if ignored is None else ignored), unit):
            tiles.append(found)
            middle = np.median(found.mean[found.number > 0]) if (found.number > 0).any() else 0.0
            _add_like(background, found, use, counts, float(middle))
    still = background.table()
    points, means, variances = points_of_background(tiles) if tiles else (NO_POINTS, np.zeros(0), np.zeros(0))
    facts = PixelFacts(
        frames=seen,
        counts={
            "minimum": float(table[0][0]),
            **{name: px.quantile(table, share) for name, share in _PERCENTILES.items()},
            "maximum": float(table[0][-1]),
        },
        zeros=suppressed.zeros,
        marks={} if raw is None else px.raw_marks(raw),
        faults=faults,
        zero_suppression=_suppression_fact(suppressed),
        background=_background_fact(suppressed, means),
        background_range=None if level or not len(means) else tuple(np.percentile(means, (2, 98)).tolist()),
        noise=None if level or not len(variances) else float(np.sqrt(np.median(variances))),
        histogram=still if len(still[0]) else table,  # no box of background that is as still as most
        ignored=ignored,
    )
    return facts, NO_POINTS if level else points


def _raw(scan: Scan, index: int) -> NDArray[np.generic] | None:
    """A frame as the file has it; None where it cannot be read, which the reader says by itself."""
    try:
        return next(iter(scan.source.read(index, index + 1)))
    except BadFrame:
        return None


def _pair_tiles(
    read: list[sample.Frame], bad: NDArray[np.bool_], unit: float
) -> Iterator[tuple[Tiles, NDArray[np.bool_], NDArray[np.generic]]]:
    if len(read) == 2:
        found, use = tiles_of_pair(read[0].counts, read[1].counts, ~bad, unit)
        yield found, use, read[0].counts
    elif len(read) == 1 and read[0].counts.shape[1] >= 32:  # neighbouring columns instead of neighbouring frames
        even = read[0].counts.shape[1] // 2 * 2
        counts, good = read[0].counts[:, :even], ~bad[:, :even]
        found, use = tiles_of_pair(counts[:, ::2], counts[:, 1::2], good[:, ::2] & good[:, 1::2], unit)
        yield found, use, counts[:, ::2]


def _add_like(into: px.Values, tiles: Tiles, use: NDArray[np.bool_], counts: NDArray, middle: float) -> None:
    """Add the background pixels of boxes whose mean is that of most, so that the histogram is of one background."""
    noise = float(np.sqrt(np.median(tiles.variance[tiles.number > 0]))) if (tiles.number > 0).any() else 1.0
    near = (np.abs(tiles.mean - middle) <= max(0.05 * abs(middle), 0.05 * noise)) & (tiles.number > 0)
    rows, cols = counts.shape[0] // tiles.box, counts.shape[1] // tiles.box
    inside = np.repeat(np.repeat(near.reshape(rows, cols), tiles.box, 0), tiles.box, 1)
    part = slice(0, rows * tiles.box), slice(0, cols * tiles.box)
    into.add(counts[part][use[part] & inside])


def _suppression_fact(found: px.Suppression) -> Fact:
    if found.smallest:
        return Fact(
            found.smallest,
            f"{found.zeros:.1%} of the pixels are zero, and none has 1 to {found.smallest - 1:,.0f} counts: "
            f"pixels below {found.smallest:,.0f} were stored as zero",
        )
    return Fact(0.0, "counts start at the lowest values without a gap: no pixels were stored as zero")


def _background_fact(found: px.Suppression, means: NDArray[np.float64]) -> Fact:
    if found.smallest:
        return Fact(
            None, f"pixels below {found.smallest:,.0f} counts were stored as zero, and the background with them"
        )
    if not len(means):
        return Fact(None, "no box of pixels is free of spots and bad pixels")
    return Fact(float(np.median(means)), "median of boxes without spots")


def _omega_step(scan: Scan) -> Fact:
    if scan.omega is None:
        return Fact(None, "the file does not say the rotation of its frames")
    step = np.diff(np.asarray(scan.omega, float), axis=1)[:, 0] if np.ndim(scan.omega) == 2 else np.zeros(0)
    step = step[np.isfinite(step)]
    if not len(step) or not np.median(np.abs(step)) > 0:
        return Fact(None, "the rotation that the file has does not change within a frame")
    return Fact(float(np.median(np.abs(step))), "from the file")


def _search(
    scan: Scan, reader: sample.Reader, rule: Finding, ignored: NDArray | None, enough: int, most: float
) -> Spots:
    """Spots of runs spread over the scan, until there are ``enough`` or ``most`` pixels were searched."""
    frames, rows, cols = scan.shape
    chosen = sample.runs(frames, rows * cols, most)
    number = 0
    by_run: list[Spots] = []
    for run in sample.spread(chosen):
        if number >= enough and len(by_run) >= min(3, len(chosen)):
            break
        by_run.append(find_spots(reader.read(chosen[run], run), rule, ignored))
        number += len(by_run[-1].owner)
    return Spots.joined(by_run)


def _spots_and_detector(
    scan: Scan, reader: sample.Reader, facts: PixelFacts, points: Points, say: Say
) -> tuple[DetectorFacts, SpotFacts | None]:
    """A threshold, the spots above it, and what their fits and the background say of the detector."""
    limit = float(np.iinfo(scan.source.dtype).max) if scan.source.dtype.kind in "iu" else float("inf")
    guess = noise_without_fits(facts, points)
    rule, reason = choose(scan.shape, facts, points, guess)
    budget = sample.SPOT_BUDGET_LOCAL if rule.background_box else sample.SPOT_BUDGET
    say(f"  spots, first with {_words_of(rule)}")
    found = _search(scan, reader, rule, facts.ignored, 400, budget / 4)
    level, why = px.saturation(found.values.table(), limit)
    known = replace(guess, saturation=level)
    fitted, good, fits, size, known = _fits(found, known, facts)
    detector = detector_facts(facts, points, fits, Fact(level, why), scan)
    known = _updated(known, detector)
    rule, reason = choose(scan.shape, facts, points, known)
    if good.any():
        rule = wider_box(rule, float(np.median(widths_of(fitted)[0][good])), scan.shape)
    say(f"  spots, now with {_words_of(rule)}")
    found = _search(scan, reader, rule, facts.ignored, ENOUGH, budget)
    level, why = px.saturation(found.values.table(), limit)
    known = replace(known, saturation=level)
    rule = replace(rule, detector=known)
    if not len(found.spots):
        detector.saturation = Fact(level, why)
        return detector, None
    fitted, good, fits, size, known = _fits(found, known, facts)
    detector = detector_facts(facts, points, fits, Fact(level, why), scan)
    rule = replace(rule, detector=_updated(known, detector))
    turning = rocking(found) if scan.shape[0] > 2 else rocking(replace(found, frames={}))
    # Of a bright spot only faint tails are farther out than twice its width.
    longest = np.minimum(np.maximum(found.fitted["height"], found.fitted["width"]), 2.0 * widths_of(fitted)[0])[good]
    extent = (
        Fact(float(np.percentile(longest, 90)), "90 % of the spots are no longer, to the threshold or twice the FWHM")
        if len(longest) >= 10
        else Fact(None, f"{len(longest)} lone spots are too few to say")
    )
    return detector, SpotFacts(rule, reason, found, fitted, good, size, turning, extent)


def _updated(known: Detector, found: DetectorFacts) -> Detector:
    """The detector with the gain and read noise that were found, or what did for fits."""
    noise = found.read_noise
    return replace(known, gain=found.gain.or_else(known.gain), read_noise=noise.or_else(known.read_noise))


def _fits(
    found: Spots, known: Detector, facts: PixelFacts
) -> tuple[FitResult, NDArray[np.bool_], Points, int, Detector]:
    """Fits of the lone spots in patches that suit them; which are good; the points of photon transfer; the side of the
    patches; and the noise that the fits were weighted with."""
    size = 11
    fitted, patches, used = fit_spots(found, known, size)
    wide = widths_of(fitted)[0][fitted.converged]
    if len(wide) >= 5 and (better := patch_for(float(np.percentile(wide, 75)))) != size:
        size = better
        fitted, patches, used = fit_spots(found, known, size)
    points = NO_POINTS
    for _ in range(4):  # the weights of a fit need the noise that is looked for
        good = good_fits(fitted, size)
        least = 0.0
        if known.zero_suppression:
            level = known.zero_suppression
            least = level + 4.0 * np.sqrt(known.gain * level + known.read_noise**2)
        chosen = good & ~found.fitted["saturated"]
        points = points_of_fits(
            patches[chosen], used[chosen], fitted.select(chosen), known.gain, known.read_noise, float(least)
        )
        new = line(NO_POINTS, points)
        if new is None or not 0 < new.gain_error < 0.5 * new.gain:
            break
        changed = replace(known, gain=new.gain)
        # Without a background, the fits alone show the read noise.
        square = new.intercept if facts.noise is None else facts.noise**2 - new.gain * facts.background.or_else(0.0)
        if known.zero_suppression != CUT_AT_ZERO:
            changed = replace(changed, read_noise=float(np.sqrt(max(square, 0.0))))
        same = abs(changed.gain / known.gain - 1) < 0.05 and abs(changed.read_noise - known.read_noise) < 0.1 * (
            known.read_noise + known.gain
        )
        known = changed
        if same:
            break
        fitted, patches, used = fit_spots(found, known, size)
    return fitted, best_fits(fitted, size), points, size, known


def _words_of(rule: Finding) -> str:
    if rule.background_box:
        return f"{rule.sigma:g} standard deviations above the background in boxes of {rule.background_box} px"
    return f"more than {rule.threshold:,.6g} counts"


def _missing(found: Look) -> list[str]:
    """What could not be found, and why, in sentences."""
    facts = {
        "rotation of a frame": found.omega_step,
        "background": found.pixels.background,
        "gain": found.detector.gain,
        "read noise": found.detector.read_noise,
        "saturation": found.detector.saturation,
    }
    lines = [f"{name}: {fact.why}" for name, fact in facts.items() if fact.value is None]
    if found.pixels.faults.get("hot") is None:
        lines.append("hot and dead pixels: fewer than 8 frames were looked at")
    elif found.pixels.faults.get("dead") is None:
        lines.append("dead pixels: most pixels are stored as zero")
    if found.spots is None:
        lines.append("spots: no group of 4 or more pixels is above the threshold in the frames looked at")
    elif found.spots.rocking.frames is None:
        lines.append("rocking widths: too few reflections begin within a run of neighbouring frames")
    return lines

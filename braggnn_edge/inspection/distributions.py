"""What a simulation of the scan is drawn from, read off the spots; and the distributions that both are compared by."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.fit.pseudo_voigt import AMPLITUDE, ETA
from braggnn_edge.fit.single import FitResult
from braggnn_edge.inspection.facts import Look, SpotFacts
from braggnn_edge.inspection.sample import Frame
from braggnn_edge.inspection.spots import Spots, best_fits, find_spots, fit_spots, good_fits, window_for
from braggnn_edge.inspection.transfer import widths_of
from braggnn_edge.simulation.reflections import draw_reflections
from braggnn_edge.simulation.simulate import expected_frame, make_panel, measure
from braggnn_edge.simulation.spec import SimulationSpec

Array = NDArray[np.float64]
#: Largest side of a simulated panel, px.
_SIDE = 1024
#: A streak is so many times as long as wide.
_STREAK = 2.0
#: Rotation of a frame that stands for one that is not known, degrees.
STEP = 0.25
FRAMES = 120


def simulation_of(found: Look) -> SimulationSpec | None:
    """The table ``[scan.simulate]`` of a scan like this one; None where fewer than 10 spots could be fitted."""
    spots = found.spots
    if spots is None or spots.good.sum() < 10:
        return None
    detector = spots.rule.detector
    major, minor = (width[spots.good] for width in widths_of(spots.fitted))
    aspect = major / minor
    # Of faint spots the widths are not known well enough, but the heights are.
    height = spots.fitted.parameters[good_fits(spots.fitted, spots.size), AMPLITUDE]
    logs = np.log(minor)
    median = float(np.clip(np.median(minor), 0.6, 20.0))
    narrow, wide = np.clip(np.percentile(minor, (1, 99)), 0.5, 60.0).tolist()
    limits = min(narrow, median), max(wide, median)
    streaks = float((aspect > _STREAK).mean())
    step = found.omega_step.or_else(STEP)
    rocking = spots.rocking.width
    width = np.percentile(rocking, (10, 90)) * step if len(rocking) >= 10 else np.array([0.6, 2.0]) * step
    width = np.maximum(width, 0.3 * step)
    rows, cols = (min(side, _SIDE) for side in found.shape[1:])
    share = rows * cols / (found.shape[1] * found.shape[2])
    a_frame = spots.spots.spots["brightest"].sum() / max(spots.spots.searched, 1) * share
    frames = min(FRAMES, max(found.shape[0], 40))
    lasting = spots.rocking.frames or 2.0
    level = max(found.pixels.background.or_else(0.0), 0.0)
    low, high = found.pixels.background_range or (level, level)
    suppressed = found.pixels.zero_suppression.or_else(0.0)
    top = min(detector.saturation or 65535.0, 65535.0)
    heights = np.clip(np.percentile(height, (2, 98)), 1.0, None)
    streak = np.percentile(aspect[aspect > _STREAK], (5, 95)) if streaks else np.array([2.0, 3.5])
    eta = np.percentile(spots.fitted.parameters[spots.good, ETA], (10, 90)).clip(0.0, 1.0)
    beam = np.hypot(rows, cols) / 2
    return SimulationSpec(
        rows=int(rows),
        cols=int(cols),
        frames=int(frames),
        omega_step=_short(step),
        reflections=int(np.clip(round(a_frame / lasting * (frames + 2 * width[1] / step)), 20, 100_000)),
        rings=tuple(_short(beam * radius) for radius in np.linspace(0.15, 0.9, 6)),
        ring_strain=0.05,
        heights=(_short(heights[0]), _short(max(heights[1], heights[0] * 1.01))),
        least_height=_short(0.3 * heights[0]),
        rocking=(_short(width[0]), _short(max(width[1], width[0]))),
        fwhm_median=_short(median),
        fwhm_spread=_short(1.4826 * np.median(np.abs(logs - np.median(logs)))),
        fwhm_limits=(float(np.floor(limits[0] * 100) / 100) or 0.5, float(np.ceil(limits[1] * 100) / 100)),
        aspect_spread=_short(np.median(np.log(aspect)) / 0.6745),
        streaks=_short(streaks),
        streak_aspect=(_short(max(streak[0], 1.0)), _short(min(max(streak[1], streak[0], 1.0), 100.0))),
        along_ring=0.0,
        eta=(_short(eta[0]), _short(eta[1])),
        neighbours=_short(float((spots.spots.spots["maxima"] > 1).mean())),
        background=_short(level),
        background_slope=_short(float(np.clip((high - low) / max(high + low, 1e-9), 0.0, 1.0))),
        gain=_short(detector.gain),
        read_noise=_short(detector.read_noise),
        saturation=int(max(top, suppressed + 1, 1)),
        threshold=_short(max(suppressed - 1.0, 0.0)),
        dead=0.0,
        hot=0.0,
        window=window_for(float(np.percentile(major, 95))),
    )  # fmt: skip


def _short(value: float) -> float:
    """The value with four digits: what a person can read in a file."""
    return float(f"{float(value):.4g}")


def simulated_spots(spec: SimulationSpec, spots: SpotFacts, frames: int, seed: int = 1) -> tuple[Spots, FitResult]:
    """Spots of a few simulated frames, found and fitted as those of the scan were."""
    few = replace(spec, frames=frames, reflections=max(1, round(spec.reflections * (frames + 2) / (spec.frames + 2))))
    reflections, panel = draw_reflections(few, seed), make_panel(few, seed)

    def made() -> Iterator[Frame]:
        for index in range(frames):
            expected, _ = expected_frame(few, reflections, panel, seed, index)
            yield Frame(index, 0, measure(few, expected, panel, seed, index), None)

    found = find_spots(made(), spots.rule)
    fitted, _, _ = fit_spots(found, spots.rule.detector, spots.size)
    return found, fitted


def distributions(spots: Spots, fitted: FitResult, good: NDArray[np.bool_], gain: float, size: int) -> dict[str, Array]:
    """The distributions that scans are compared by; photons where the gain is known, else counts.

    good: (n,) fits that know their widths well; size: side of the fitted patches, px.
    """
    major, minor = widths_of(fitted)
    brightest = spots.spots[spots.spots["brightest"]]
    return {
        "FWHM, minor axis (px)": minor[good],
        "FWHM, major axis (px)": major[good],
        "axis ratio": (major / minor)[good],
        "Lorentzian share eta": fitted.parameters[good, ETA],
        "height (photons)": fitted.parameters[good_fits(fitted, size), AMPLITUDE] / gain,
        "area (px)": brightest["area"].astype(float),
    }


def of_simulation(spec: SimulationSpec, spots: SpotFacts, frames: int) -> tuple[dict[str, Array], float]:
    """The distributions of a few simulated frames, and the spots that one of them has."""
    found, fitted = simulated_spots(spec, spots, frames)
    good = best_fits(fitted, spots.size)
    a_frame = float(found.spots["brightest"].sum()) / max(found.searched, 1)
    return distributions(found, fitted, good, spots.rule.detector.gain, spots.size), a_frame

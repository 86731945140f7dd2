"""``inspect.png``: one picture of several panels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from numpy.typing import NDArray

from braggnn_edge.evaluation.figures import BLUE, GREEN, INK, MUTED, ORANGE, RED, drawn, log_ticks
from braggnn_edge.inspection.facts import Look

Array = NDArray[np.float64]
_PANELS = ("counts", "transfer", "patches", "lasting")


def picture(found: Look, measured: Mapping[str, Array], simulated: Mapping[str, Array], path: Path) -> None:
    """Draw the counts, the photon transfer, spots, how long reflections last, and the distributions of the spots.

    simulated: the same distributions of simulated frames, empty where none were simulated.
    """
    names = list(measured)
    rows = 1 + -(-len(names) // 3) if names else 1
    with drawn(path, 13.0, 3.7 * rows + 0.3, dpi=100) as figure:
        axes = figure.subplots(rows, 4 if not names else 12, squeeze=False)
        grid = axes[0, 0].get_gridspec()
        for axis in axes.ravel():
            axis.remove()
        width = grid.ncols // 4
        top = [figure.add_subplot(grid[0, i * width : (i + 1) * width]) for i in range(4)]
        _counts(top[0], found)
        _transfer(top[1], found)
        _spots(top[2], found)
        _lasting(top[3], found)
        for i, name in enumerate(names):
            row, col = 1 + i // 3, i % 3
            _distribution(
                figure.add_subplot(grid[row, 4 * col : 4 * col + 4]), name, measured[name], simulated.get(name)
            )


def _counts(axis: Any, found: Look) -> None:
    value, number = found.pixels.histogram
    keep = value >= 0
    value, number = value[keep], number[keep]
    axis.set_title("Background pixels")
    if found.spots is not None:
        in_spots, times = found.spots.spots.values.table()
        edges = np.unique(np.geomspace(1, max(float(in_spots[-1]), 2.0) + 2, 40).round())
        heights, _ = np.histogram(in_spots, edges, weights=times)
        axis.stairs(np.maximum(heights / np.diff(edges), 1e-3), edges, color=RED, label="pixels of spots")
        axis.set_title("Counts of pixels")
        edges = np.unique(np.geomspace(1, max(float(value[-1]) if len(value) else 1.0, 2.0) + 2, 40).round())
        heights, _ = np.histogram(value, edges, weights=number)
        axis.stairs(np.maximum(heights / np.diff(edges), 1e-3), edges, color=BLUE, label="background")
        if found.spots.rule.threshold:
            axis.axvline(found.spots.rule.threshold, color=INK, linewidth=1.0)
    if found.detector.saturation.value is not None:
        axis.axvline(found.detector.saturation.value, color=ORANGE, linewidth=1.0, label="saturation")
    axis.set(xlabel="counts", ylabel="pixels a count", xscale="log", yscale="log")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def _transfer(axis: Any, found: Look) -> None:
    axis.set_title("Photon transfer")
    detector = found.detector
    axis.set(xlabel="mean (counts)", ylabel="variance (counts²)")
    largest = 0.0
    for points, color, name in ((detector.background, BLUE, "background"), (detector.fits, GREEN, "residuals of fits")):
        if len(points):
            style = {"fmt": "o", "color": color, "markersize": 3.5, "linewidth": 1}
            axis.errorbar(points.mean, points.variance, points.error, label=name, **style)
            largest = max(largest, float(points.mean.max()))
    if not largest:
        axis.text(0.5, 0.5, "no background and no fits", ha="center", color=MUTED, transform=axis.transAxes)
        return
    axis.set(xscale="log", yscale="log")
    if detector.line is not None:
        least = max(min(float(p.mean.min()) for p in (detector.background, detector.fits) if len(p)), 1e-2)
        x = np.geomspace(least, largest, 60)
        y = detector.line.intercept + detector.line.gain * x
        axis.plot(x[y > 0], y[y > 0], color=INK, linewidth=1.0, label=f"gain {detector.line.gain:.3g}")
    axis.legend(fontsize=8)


def _spots(axis: Any, found: Look) -> None:
    axis.set_title("Spots: median, faint to bright")
    axis.set_axis_off()
    if found.spots is None or not len(found.spots.spots.patches):
        axis.text(0.5, 0.5, "no spot", ha="center", color=MUTED, transform=axis.transAxes)
        return
    spots = found.spots.spots
    order = np.argsort(spots.fitted["maximum"])
    chosen = order[np.linspace(0, len(order) - 1, min(16, len(order))).astype(int)]
    half = found.spots.size // 2
    side = spots.patches.shape[1] // 2
    cut = slice(side - half, side + half + 1)
    tiles = np.zeros((4 * (2 * half + 2), 4 * (2 * half + 2)))
    for i, place in enumerate(chosen):
        patch = np.where(spots.valid[place], spots.patches[place], 0)[cut, cut].astype(float)
        row, col = divmod(i, 4)
        down, right = row * (2 * half + 2), col * (2 * half + 2)
        tiles[down : down + 2 * half + 1, right : right + 2 * half + 1] = np.maximum(patch, 0) / max(patch.max(), 1.0)
    axis.set_title(f"Lone spots, faint to bright, {2 * half + 1} px")
    axis.imshow(tiles, cmap="Greys", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")


def _lasting(axis: Any, found: Look) -> None:
    axis.set_title("Frames that a reflection lasts")
    axis.set(xlabel="frames", ylabel="reflections seen whole")
    lasting = found.spots.rocking.lasting if found.spots is not None else np.zeros(0, int)
    if not len(lasting):
        axis.text(0.5, 0.5, "no reflection was seen whole", ha="center", color=MUTED, transform=axis.transAxes)
        return
    number = np.bincount(lasting)
    axis.bar(np.arange(1, len(number)), number[1:], color=BLUE)


def _distribution(axis: Any, name: str, measured: Array, simulated: Array | None) -> None:
    axis.set_title(name)
    axis.set_yticks([])
    both = np.concatenate([measured, simulated if simulated is not None else measured[:0]])
    both = both[np.isfinite(both)]
    if not len(measured) or not len(both):
        axis.text(0.5, 0.5, "no spots", ha="center", color=MUTED, transform=axis.transAxes)
        return
    low, high = np.percentile(both, (0.5, 99.5))
    logarithmic = low > 0 and high / low > 30
    if logarithmic:
        edges = np.geomspace(low, high, 32)
        axis.set_xscale("log")
        axis.set_xlim(low, high)
        log_ticks(axis.xaxis)
    else:
        edges = np.linspace(low, max(high, low + 1e-6), 32)
    for values, color, label, filled in (
        (measured, BLUE, f"measured, {len(measured):,}", True), (simulated, RED, "simulated", False)
    ):  # fmt: skip
        if values is not None and len(values):
            heights, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
            shown = f"{label}, {len(values):,}" if values is simulated else label
            axis.stairs(
                heights / len(values), edges, color=color, fill=filled, alpha=0.35 if filled else 1.0, label=shown
            )
    axis.legend(fontsize=8)

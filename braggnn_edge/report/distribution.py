"""Cumulative error distributions, with the name of every curve written beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from braggnn_edge.evaluation.figures import drawn, label, log_ticks, look, merged

_HALO = [withStroke(linewidth=3, foreground="white")]
_Box = tuple[float, float, float, float]


def error_distribution(errors: Mapping[str, NDArray[np.float64]], reference: str, path: Path) -> None:
    """The share of peaks within a distance, and the share beyond it, for every estimator.

    errors: estimator to the distances (n,) px from the reference; reference: what that is, in words.
    """
    with drawn(path, 10.6, 5.0, free=True) as figure:
        whole, tail = figure.subplots(1, 2, width_ratios=(3, 2))
        figure.subplots_adjust(0.055, 0.11, 0.985, 0.935, 0.17)
        draw_distribution(whole, errors, reference)
        most = max((len(e) for e in errors.values()), default=1)
        levels = np.concatenate([np.linspace(0, 0.5, 40), 1 - np.geomspace(0.5, max(1 / max(most, 1), 1e-6), 160)])
        for names, values in merged(errors).items():
            kind = look(names[0])
            if len(values):
                x = np.maximum(np.quantile(values, levels), 1e-5)
                tail.plot(x, 100 * (1 - levels), color=kind.color, linestyle=kind.line)
        tail.set(xscale="log", yscale="log", xlim=whole.get_xlim(), ylim=(100 / max(most, 2), 100))
        tail.set(title="Share beyond that distance", xlabel=f"distance from {reference} (px)")
        log_ticks(tail.xaxis)
        tail.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.10g} %"))


def draw_distribution(axes: Axes, errors: Mapping[str, NDArray[np.float64]], reference: str) -> None:
    """Cumulative distributions with a label on every curve; see :func:`error_distribution`."""
    groups = {names: values for names, values in merged(errors).items() if len(values)}
    levels = np.linspace(0.005, 0.995, 199)
    curves = {names: np.maximum(np.quantile(values, levels), 1e-5) for names, values in groups.items()}
    for names, x in curves.items():
        kind = look(names[0])
        axes.plot(x, 100 * levels, color=kind.color, linestyle=kind.line)
    low = min((x[9] for x in curves.values()), default=0.01)
    high = max((x[-1] for x in curves.values()), default=1.0)
    axes.set(xscale="log", xlim=(max(low * 0.6, 1e-4), max(high * 1.15, low * 4)), ylim=(0, 100))
    axes.set(title="Share of peaks within a distance", xlabel=f"distance from {reference} (px)")
    axes.set_yticks([0, 25, 50, 75, 95])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f} %"))
    log_ticks(axes.xaxis)
    _place_labels(axes, {label(names): (x, 100 * levels, look(names[0]).color) for names, x in curves.items()})


def _place_labels(axes: Axes, curves: Mapping[str, tuple[NDArray[Any], NDArray[Any], str]]) -> None:
    """Write every curve's name beside it, where it covers least of the other curves and names."""
    frame = axes.get_window_extent()
    points = {name: axes.transData.transform(np.stack([x, y], axis=1)) for name, (x, y, _) in curves.items()}
    every = np.concatenate(list(points.values())) if points else np.zeros((0, 2))
    taken: list[_Box] = []
    for name, (_, _, color) in curves.items():
        text = axes.text(0, 0, name, color=color, fontsize=9, fontweight="bold", path_effects=_HALO, zorder=5)
        extent = text.get_window_extent()
        width, height = extent.width, extent.height
        best: tuple[float, float, float, str] | None = None
        for index in range(8, len(points[name]) - 8, 3):
            px, py = points[name][index]
            for side, left in (("left", px + 7), ("right", px - 7 - width)):
                box = (left - 2, py - height / 2 - 1, left + width + 2, py + height / 2 + 1)
                cost = 2.0 * float(_inside(every, box).sum())
                cost += sum(60.0 * _overlap(box, other) / (width * height) for other in taken)
                out = max(0.0, frame.x0 - box[0]) + max(0.0, box[2] - frame.x1)
                out += max(0.0, frame.y0 - box[1]) + max(0.0, box[3] - frame.y1)
                cost += out + abs(index / len(points[name]) - 0.55)
                if best is None or cost < best[0]:
                    best = (cost, px + (7 if side == "left" else -7), py, side)
        if best is None:
            continue
        _, x, y, side = best
        text.set_position(tuple(axes.transData.inverted().transform((x, y))))
        text.set(ha=side, va="center")
        left = x if side == "left" else x - width
        taken.append((left, y - height / 2, left + width, y + height / 2))


def _inside(points: NDArray[Any], box: _Box) -> NDArray[np.bool_]:
    x, y = points[:, 0], points[:, 1]
    return (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])


def _overlap(a: _Box, b: _Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))

"""Pictures of the ablation: distributions of the error of every variant, and the effects with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from braggnn_edge.ablation.summary import percent
from braggnn_edge.evaluation.figures import BLUE, GREEN, INK, MUTED, ORANGE, RED, drawn, log_ticks

#: (variant, seed, crop) to distances (n,) px; a variant has ``attention`` and ``shift``.
Errors = Mapping[tuple[Any, int, int], NDArray[np.float64]]
_COLORS = {0: ORANGE, 1: BLUE, 2: GREEN}
_QUANTILES = (50, 75, 95)


def draw(
    errors: Errors,
    effects: Sequence[Mapping[str, Any]],
    shifts: Sequence[int],
    reference: str,
    paper: Mapping[str, Any],
    output: Path,
) -> None:
    """``distances.png``, ``attention.png``, ``augmentation.png``, ``effects.png`` in ``output``.

    errors: of every network on every test crop; reference: what they are measured from; paper: its published
    percentiles, written below the pictures as those of other data.
    """
    kinds = sorted({variant for variant, _, _ in errors}, key=lambda v: (not v.attention, v.shift))
    base = next((v for v in kinds if v.attention and v.shift == 1), kinds[0])
    pooled = {(v, m): _pooled(errors, v, m) for v in kinds for m in shifts}
    note = (
        f"Paper, BraggNN against its pseudo-Voigt fit on its own measured data: p75 {paper['p75']} px, p95 "
        f"{paper['p95']} px, p50 not quoted ({paper['source']})."
    )
    both = [v.shift for v in kinds if not v.attention and any(w.attention and w.shift == v.shift for w in kinds)]
    trained = [v for v in kinds if v.attention]
    _histograms(
        [(_crop(m), [(_name(base), BLUE, pooled[base, m])]) for m in shifts], reference, note, output / "distances.png"
    )
    panels = []
    for m in both:
        pair = [(v, color) for v, color in zip(_with_and_without(kinds, m), (BLUE, RED), strict=True)]
        panels += [(_crop(crop), [(_name(v), color, pooled[v, crop]) for v, color in pair]) for crop in shifts]
    if panels:
        _histograms(panels, reference, note, output / "attention.png")
    if trained:
        panels = [(_crop(m), [(_name(v), _COLORS.get(v.shift, MUTED), pooled[v, m]) for v in trained]) for m in shifts]
        _histograms(panels, reference, note, output / "augmentation.png")
    _effects(effects, output / "effects.png")


def _with_and_without(kinds: Sequence[Any], shift: int) -> list[Any]:
    return sorted((v for v in kinds if v.shift == shift), key=lambda v: not v.attention)


def _pooled(errors: Errors, variant: Any, crop: int) -> NDArray[np.float64]:
    return np.concatenate([values for (v, _, m), values in errors.items() if (v, m) == (variant, crop)])


def _name(variant: Any) -> str:
    return f"{'attention' if variant.attention else 'no attention'}, m = {variant.shift}"


def _crop(shift: int) -> str:
    return f"test crops shifted by up to {shift} px" if shift else "centred test crops"


_Panel = tuple[str, list[tuple[str, str, NDArray[np.float64]]]]


def _histograms(panels: Sequence[_Panel], reference: str, note: str, path: Path) -> None:
    """Histograms of the distance, all seeds together; p50, p75 and p95 marked. The outer bins hold what is beyond."""
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    with drawn(path, 4.3 * columns, 3.5 * lines + 0.3) as figure:
        axes = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
        everything = np.concatenate([values for _, curves in panels for _, _, values in curves])
        low, high = np.percentile(everything, (0.5, 99.5))
        edges = np.geomspace(max(low, 1e-5), max(high, low * 2, 1e-4), 46)
        for axis, (title, curves) in zip(axes, panels, strict=False):
            _histogram(axis, title, curves, edges)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis in axes[::columns]:
            axis.set_ylabel("share of peaks in a bin")
        figure.supxlabel(f"distance from the {reference} (px); the outer bins hold all beyond\n{note}", fontsize=8.5)


def _histogram(axis: Axes, title: str, curves: list[tuple[str, str, NDArray[np.float64]]], edges: NDArray[Any]) -> None:
    for name, color, values in curves:
        weights = np.full(len(values), 1 / len(values))
        quantiles = np.percentile(values, _QUANTILES)
        text = "  ".join(f"{q:.3f}" for q in quantiles)
        inside = np.clip(values, edges[0], edges[-1])
        axis.hist(inside, edges.tolist(), weights=weights, histtype="step", color=color, linewidth=1.6)
        axis.plot([], [], color=color, label=f"{name}\n{text}")
        for quantile, style in zip(quantiles, ("-", "--", ":"), strict=True):
            axis.axvline(quantile, color=color, linestyle=style, linewidth=1.0, alpha=0.8)
    axis.set(title=title, xscale="log", xlim=(edges[0], edges[-1]))
    axis.margins(y=0.45)
    log_ticks(axis.xaxis)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    axis.legend(fontsize=8, title="p50 (—)  p75 (- -)  p95 (···) in px", title_fontsize=8, loc="upper left")


def sentence(effect: Mapping[str, Any]) -> str:
    """An effect in words: factor, networks, test crops, change with its interval, seeds."""
    what = f"{effect['factor']} ({effect['with']} against {effect['without']})"
    return f"{what}, {_crop(effect['crop'])}: {effect['percentile']} {percent(effect)}, {len(effect['seeds'])} seeds"


def _effects(effects: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Every effect as a ratio of errors with its interval, on a logarithmic axis: left of 1, the ingredient helps."""
    shown = [effect for effect in effects if effect["percentile"] in ("p50", "p95")]
    with drawn(path, 9.0, max(2.0, 0.27 * len(shown) + 1.2)) as figure:
        axis = figure.subplots()
        for place, effect in enumerate(shown):
            color = BLUE if effect["percentile"] == "p50" else RED
            axis.plot(1 + effect["change"], place, "o", color=color, markersize=5)
            if effect["low"] is not None:
                axis.plot([1 + effect["low"], 1 + effect["high"]], [place, place], color=color, linewidth=1.6)
        names = [f"{e['with']} / {e['without']}, {_crop(e['crop'])}, {e['percentile']}" for e in shown]
        axis.set_yticks(range(len(shown)), names, fontsize=8.5)
        axis.axvline(1.0, color=INK, linewidth=1.0)
        axis.set(xscale="log", title="Ratio of errors, 95 % confidence")
        if shown:
            axis.set_ylim(len(shown) - 0.5, -0.5)
        log_ticks(axis.xaxis)
        axis.set_xlabel("error with / error without; left of 1 is better (blue p50, red p95)")

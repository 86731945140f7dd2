"""The pictures of the report as PNG files: the same data give the same bytes.

Figures are made without pyplot, so that no display, no user style and no global state is involved.
Estimators keep colour, line and marker in all of them; those that answer alike on every patch share them.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from braggnn_edge.core.files import written_aside

INK, MUTED, FAINT = "#222222", "#6b6b6b", "#d9d9d9"
#: Okabe and Ito's palette, which colour-blind readers can tell apart; its yellow is too faint for lines.
BLUE, SKY, GREEN, ORANGE, RED, PURPLE = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"

TRIVIAL = ("constant", "maximum", "centre_of_mass", "centre_of_mass_squared")

_RC: Mapping[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.grid": True, "grid.color": "#ececec",
    "grid.linewidth": 0.8, "axes.axisbelow": True, "lines.linewidth": 1.8, "figure.facecolor": "white",
    "legend.frameon": False,
}  # fmt: skip


@dataclass(frozen=True)
class _Look:
    """How an estimator is named and drawn."""

    label: str
    color: str
    line: Any = "-"
    marker: str = "o"
    size: float = 6.0


_LOOKS: Mapping[str, _Look] = {
    "constant": _Look("centre pixel", "#9a9a9a", ":", ".", 4),
    "maximum": _Look("brightest pixel", "#9a9a9a", "-.", ".", 4),
    "centre_of_mass": _Look("centre of mass", GREEN, (0, (5, 1.5)), "^"),
    "centre_of_mass_squared": _Look("squared centroid", PURPLE, (0, (5, 1.5)), "v"),
    "voigt": _Look("pseudo-Voigt fit", INK, "-", "D", 5),
    "cramer_rao_bound": _Look("Cramér-Rao bound", INK, ":"),
    "universal": _Look("universal network", "#d6006c", "-", "p", 8),
    "universal_layers": _Look("shipped layers, integers", ORANGE, (0, (4, 1)), "s", 6),
    "universal_circuit": _Look("shipped circuit, integers", BLUE, "-", "P", 7),
    "truth": _Look("true positions", MUTED, ":"),
    "float": _Look("float BraggNN", BLUE, "-", "o", 8),
    "float_compact": _Look("float compact", SKY, "-", "o", 5),
    "quantized": _Look("quantized", ORANGE, "-", "s", 7),
    "csim": _Look("C simulation", RED, "-", "x", 6),
    "rtl": _Look("RTL simulation", "#8a4b08", "-", "*", 7),
}


def look(name: str) -> _Look:
    """Label, colour, line and marker of an estimator; a variant ("csim:io_stream") looks like its form."""
    form, _, variant = name.partition(":")
    base = _LOOKS.get(form, _Look(form.replace("_", " "), "#7a5195"))
    return replace(base, label=f"{base.label}, {variant}") if variant else base


@contextlib.contextmanager
def drawn(path: Path, width: float, height: float, dpi: int = 120, free: bool = False) -> Iterator[Figure]:
    """Yield an empty figure of ``width`` x ``height`` inches; write it as PNG when the block ends.

    free: axes stay where they are put, which is several times faster than fitting them around their labels.
    """
    with mpl.style.context(["default", dict(_RC)]):
        figure = Figure(figsize=(width, height), dpi=dpi, layout=None if free else "constrained")
        FigureCanvasAgg(figure)
        yield figure
        with written_aside(path) as aside:
            figure.savefig(aside, format="png", metadata={"Software": None})


def merged(values: Mapping[str, NDArray[Any]]) -> dict[tuple[str, ...], NDArray[Any]]:
    """Group the names whose arrays are equal, in order of first appearance."""
    groups: list[tuple[list[str], NDArray[Any]]] = []
    for name, value in values.items():
        for names, array in groups:
            if np.array_equal(array, value, equal_nan=True):
                names.append(name)
                break
        else:
            groups.append(([name], value))
    return {tuple(names): array for names, array in groups}


def label(names: Sequence[str]) -> str:
    """One label for estimators that answer alike; variants of a form go by the form's name."""
    forms = list(dict.fromkeys(name.partition(":")[0] for name in names))
    labels = [look(names[0]).label] if len(names) == 1 else [look(form).label for form in forms]
    return " = ".join(labels)


def log_ticks(axis: Any) -> None:
    """Decades labelled in plain digits, with 2 and 5 between them where there is room."""
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if np.log10(high / low) < 2.2 else (1.0,)
    axis.set_major_locator(LogLocator(10, subs, numticks=30))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Training loss and validation error in px against the iteration, a column of panels a network.

    histories: network name to entries with ``iteration``, ``loss``, ``score`` (mean error), ``p50``,
    ``p75`` and ``p95``; percentiles may be absent.
    """
    shown = {name: history for name, history in histories.items() if history}
    with drawn(path, max(4.5, 4.2 * len(shown)), 5.4 if shown else 1.0) as figure:
        if not shown:
            figure.text(0.5, 0.5, "no iteration was validated", ha="center", color=MUTED)
            return
        axes = figure.subplots(2, len(shown), squeeze=False, sharex="col", height_ratios=(2, 3))
        for (name, history), (loss, error) in zip(shown.items(), axes.T, strict=True):
            x = [entry["iteration"] for entry in history]
            marker = "o" if len(x) < 3 else ""
            loss.plot(x, [max(entry["loss"], 1e-12) for entry in history], color=INK, marker=marker, markersize=4)
            loss.set(title=f"{name}: training loss", yscale="log")
            for key, text, color in (
                ("p95", "p95", RED),
                ("p75", "p75", ORANGE),
                ("score", "mean", INK),
                ("p50", "p50", BLUE),
            ):
                points = [(entry["iteration"], max(entry[key], 1e-6)) for entry in history if key in entry]
                if points:
                    width = 2.4 if key == "score" else 1.5
                    error.plot(*zip(*points, strict=True), color=color, linewidth=width, marker=marker, label=text)
            best = min(history, key=lambda entry: entry["score"])
            error.plot(best["iteration"], best["score"], "o", color=INK, markersize=5)
            error.set(
                title=f"{name}: best mean {best['score']:.4f} px",
                xlabel="iteration",
                yscale="log",
            )
        axes[0, 0].set_ylabel("loss, in its own unit")
        axes[1, 0].set_ylabel("validation error (px)")
        # Errors share a scale; losses do not, since their units differ.
        low, high = min(a.get_ylim()[0] for a in axes[1]), max(a.get_ylim()[1] for a in axes[1])
        for axis in axes[1]:
            axis.set_ylim(low, high * (high / low) ** 0.12)
            log_ticks(axis.yaxis)
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.legend(loc="upper right", ncols=4, fontsize=8.5, handlelength=1.2, columnspacing=1.0)


def error_by_height(
    errors: Mapping[str, NDArray[np.float64]], height: NDArray[np.float64], reference: str, path: Path
) -> None:
    """Median and 95th percentile of the distance against the height of the peak, in equal bins.

    errors: estimator to distances (n,) px, NaN where it has no answer; height: (n,) counts of the brightest
    pixel.
    """
    groups = {names: e for names, e in merged(errors).items() if names[0] not in TRIVIAL[:2]}
    positive = np.maximum(height, 1.0)
    count = int(np.clip(len(height) // 60, 1, 10))
    edges = np.unique(np.quantile(positive, np.linspace(0, 1, count + 1)))
    which = np.searchsorted(edges[1:-1], positive, side="right")
    with drawn(path, 10.6, 4.4) as figure:
        panels = figure.subplots(1, 2, sharex=True)
        for names, values in groups.items():
            kind = look(names[0])
            points = []
            for k in range(max(len(edges) - 1, 1)):
                chosen = values[(which == k) & np.isfinite(values)]
                if len(chosen) >= 5:
                    points.append((np.median(positive[which == k]), *np.percentile(chosen, (50, 95))))
            if points:
                x, *curves = np.array(points).T
                for axes, y in zip(panels, curves, strict=True):
                    style = {"color": kind.color, "linestyle": kind.line, "marker": "o", "markersize": 3}
                    axes.plot(x, np.maximum(y, 1e-5), label=label(names), **style)
        for axes, title in zip(panels, ("Median error", "95th percentile of the error"), strict=True):
            axes.set(xscale="log", yscale="log", title=title, xlabel="counts in the brightest pixel")
            log_ticks(axes.xaxis)
            log_ticks(axes.yaxis)
        panels[0].set_ylabel(f"distance from {reference} (px)")
        lines, labels = panels[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=9, handlelength=2.6)


def bit_widths(layers: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Weight, activation and accumulator bits of every layer; layers as in ``report.json``."""
    kinds = (
        ("weight_bits", "weights", BLUE),
        ("activation_bits", "activations", ORANGE),
        ("accumulator_bits", "accumulator", "#b5b5b5"),
    )
    shown: list[dict[str, Any]] = []
    for layer in layers:
        bits = {key: layer[key] for key, _, _ in kinds if key in layer}
        if shown and list(bits) == ["activation_bits"] and "activation_bits" not in shown[-1]:
            shown[-1] |= bits  # a requantization of its own belongs to the layer before it
        elif bits:
            shown.append({"name": layer["name"]} | bits)
    with drawn(path, min(12.0, max(6.0, 1.4 * len(shown) + 1)), 3.4) as figure:
        axes = figure.subplots()
        for offset, (key, text, color) in enumerate(kinds):
            places = [(i + 0.27 * (offset - 1), layer[key]) for i, layer in enumerate(shown) if key in layer]
            if places:
                x, height = zip(*places, strict=True)
                bars = axes.bar(x, height, 0.25, color=color, label=text)
                axes.bar_label(bars, fontsize=8.5, padding=1)
        axes.set_xticks(range(len(shown)), [str(layer["name"]) for layer in shown])
        axes.set(title="Bits of every layer", ylabel="bits")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(y=0.22)
        axes.grid(visible=False, axis="x")
        if shown:
            axes.legend(loc="upper left", ncols=3, fontsize=9)

"""Pictures of single patches with every estimator's centre, and the one picture that sums a run up."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from braggnn_edge.evaluation.figures import INK, MUTED, TRIVIAL, drawn, label, look, merged
from braggnn_edge.evaluation.metrics import distances
from braggnn_edge.report.distribution import draw_distribution

#: White to middle grey, so that coloured marks stay legible on the brightest pixels.
_PAPER = LinearSegmentedColormap.from_list("paper", ["#ffffff", "#e3e3e3", "#8f8f8f"])


def choose(errors: NDArray[np.float64], count: int) -> dict[str, NDArray[np.int64]]:
    """Rows of the ``count`` smallest, most median and largest errors (n,), each in rising order."""
    order = np.argsort(errors, kind="stable")
    middle = max(0, (len(order) - count) // 2)
    return {"best": order[:count], "median": order[middle : middle + count], "worst": order[-count:]}


@dataclass(frozen=True)
class Centres:
    """Patches with the answers of every estimator.

    patches: (n, size, size) counts; estimates: estimator to offsets (n, 2) (row, col) px from the centre,
    NaN where it has no answer; reference: (n, 2) offsets, and what it is in words (``described``); subject:
    the estimator whose errors order the patches.
    """

    patches: NDArray[np.generic]
    estimates: Mapping[str, NDArray[np.float64]]
    reference: NDArray[np.float64]
    described: str
    subject: str

    def errors(self) -> NDArray[np.float64]:
        """(n,) distances px of the subject from the reference."""
        return distances(self.estimates[self.subject], self.reference)


def gallery(centres: Centres, path: Path, count: int = 6) -> None:
    """Best, median and worst patches of the subject, with every estimator's centre, whole and magnified."""
    chosen = choose(centres.errors(), count)
    width, height = 1.78 * max(min(count, len(centres.patches)), 4) + 0.1, 12.6
    with drawn(path, width, height, free=True) as figure:
        for number, (title, rows) in enumerate(chosen.items()):
            top = height - 4.02 * number
            heading = f"{title.capitalize()} of the {look(centres.subject).label}"
            figure.text(0.1 / width, 1 - (4.02 * number + 0.22) / height, heading, fontsize=11, fontweight="bold")
            for column, row in enumerate(rows):
                left = 0.1 + 1.78 * column
                _patch(_axes(figure, left, top - 2.14, 1.65), centres, row)
                _magnified(_axes(figure, left, top - 3.9, 1.65), centres, row)
        handles = legend_handles(centres)
        figure.legend(handles=handles, loc="lower center", ncols=min(4, len(handles)), fontsize=9.5, borderpad=0)


def _axes(figure: Figure, left: float, bottom: float, size: float) -> Axes:
    """Square axes at a place in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes((left / width, bottom / height, size / width, size / height))


def legend_handles(centres: Centres) -> list[Line2D]:
    """The cross of the reference and every mark once; marks of estimators that answer alike share a name."""
    handles = [Line2D([], [], color=INK, marker="+", markersize=13, linestyle="", label=centres.described)]
    for names in merged(centres.estimates):
        by_mark: dict[str, list[str]] = {}
        for name in names:
            by_mark.setdefault(look(name).marker, []).append(name)
        handles += [Line2D([], [], linestyle="", label=label(same), **_mark(same[0])) for same in by_mark.values()]
    return handles


def _mark(name: str) -> dict[str, Any]:
    kind = look(name)
    face = kind.color if kind.marker in ".x" else "none"
    size = {"marker": kind.marker, "markersize": kind.size, "markeredgewidth": 1.4}
    return {**size, "color": kind.color, "markerfacecolor": face}


def _draw(axes: Axes, centres: Centres, index: int) -> None:
    patch, (row, col) = centres.patches[index], centres.reference[index]
    edge = patch.shape[0] / 2
    axes.imshow(patch, cmap=_PAPER, extent=(-edge, edge, edge, -edge), interpolation="nearest")
    axes.plot(col, row, "+", color=INK, markersize=15, markeredgewidth=1.1)
    for name, offsets in centres.estimates.items():
        axes.plot(offsets[index, 1], offsets[index, 0], linestyle="", **_mark(name))
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#bbbbbb", linewidth=0.8)


def _patch(axes: Axes, centres: Centres, index: int, counts: bool = True) -> None:
    """The whole patch; grey from its smallest to its largest count, which ``counts`` writes above it."""
    patch = centres.patches[index]
    _draw(axes, centres, index)
    half = patch.shape[0] / 2
    axes.set(xlim=(-half, half), ylim=(half, -half))
    error = float(np.linalg.norm(centres.estimates[centres.subject][index] - centres.reference[index]))
    axes.set_title(f"{error:.3f} px", fontsize=9.5, loc="left", pad=3)
    if counts:
        span = f"{patch.min():,.0f}–{patch.max():,.0f} counts"
        axes.set_title(span, fontsize=7.5, loc="right", pad=3, color=MUTED, fontweight="normal")


def _magnified(axes: Axes, centres: Centres, index: int) -> None:
    """The surroundings of the reference, wide enough for the networks and the fit, with a scale bar."""
    _draw(axes, centres, index)
    row, col = centres.reference[index]
    far = [
        float(np.abs(offsets[index] - centres.reference[index]).max())
        for name, offsets in centres.estimates.items()
        if name not in TRIVIAL and np.isfinite(offsets[index]).all()
    ]
    needed = 1.15 * max(far, default=0.1)
    reach = next((r for r in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if r >= needed), centres.patches.shape[1] / 2)
    axes.set(xlim=(col - reach, col + reach), ylim=(row + reach, row - reach))
    right, bar = col + 0.92 * reach, reach / 2
    below = row + 0.9 * reach
    axes.plot([right - bar, right], [below, below], color=INK, linewidth=2, solid_capstyle="butt")
    text = f"{bar:g} px"
    axes.text(right - bar / 2, row + 0.85 * reach, text, ha="center", va="bottom", fontsize=8, color=INK)


def summary_picture(centres: Centres, errors: Mapping[str, NDArray[np.float64]], headline: str, path: Path) -> None:
    """The error distribution beside three best, median and worst patches, 1400 px wide.

    errors: estimator to distances (n,) px, as in :func:`braggnn_edge.report.distribution.error_distribution`.
    """
    with drawn(path, 14.0, 6.3, dpi=100, free=True) as figure:
        figure.text(0.008, 0.957, headline, fontsize=14, fontweight="bold")
        draw_distribution(figure.add_axes((0.038, 0.085, 0.53, 0.8)), errors, centres.described)
        heading = f"Patches by the error of the {look(centres.subject).label}"
        figure.text(0.612, 0.904, heading, fontsize=10.5, fontweight="bold")
        for number, (title, rows) in enumerate(choose(centres.errors(), 3).items()):
            for column, row in enumerate(rows):
                axes = _axes(figure, 8.58 + 1.85 * column, 4.0 - 1.58 * number, 1.37)
                _patch(axes, centres, row, counts=False)
                if column == 0:
                    axes.set_ylabel(title, fontsize=10.5, fontweight="bold")
        style = {"ncols": 3, "fontsize": 8.5, "columnspacing": 1.2, "borderpad": 0}
        figure.legend(handles=legend_handles(centres), loc="lower right", bbox_to_anchor=(0.998, 0.0), **style)

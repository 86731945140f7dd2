"""Pictures of the stage "grains": grains with arrows to their counterparts, histograms, theory, and the mean vector."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from braggnn_edge.evaluation.figures import FAINT, INK, MUTED, drawn, log_ticks, look
from braggnn_edge.grains.compare import Differences
from braggnn_edge.grains.estimates import TRUTH
from braggnn_edge.grains.grain_file import positions
from braggnn_edge.grains.outcome import Outcome, expected, random_term

#: The longest arrows are drawn about so long, as a share of the picture's side.
_ARROW = 0.06
#: Of fewer grains than these a histogram shows chance.
_FEW = 100
#: The axis of differences reaches so far at least, um: what is less is nothing.
_LEAST = 0.05
#: Views of the sample: horizontal and vertical axis.
_VIEWS = ((0, 1, "x along the beam", "y"), (0, 2, "x along the beam", "z along the axis of rotation"))


def draw(outcome: Outcome, document: Mapping[str, Any], folder: Path) -> None:
    """Write ``balls.png``, ``histograms.png``, ``theory.png`` and ``mean_vector.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    balls(outcome, document["subject"], folder / "balls.png")
    histograms(outcome, document["subject"], folder / "histograms.png")
    theory(outcome, document, folder / "theory.png")
    mean_vector(outcome, folder / "mean_vector.png")


def _against(outcome: Outcome, name: str) -> list[tuple[str, Differences, NDArray[np.void]]]:
    """What an estimator's grains are drawn beside: words, the differences, and the other grains."""
    found = []
    to_fit, to_truth = outcome.to_fit(name, "free"), outcome.to_truth(name, "free")
    if to_fit is not None and len(to_fit.pairs):
        found.append(("the fit", to_fit, outcome.fit_of(name, "free")))
    if to_truth is not None and outcome.truth is not None and len(to_truth.pairs):
        found.append(("the truth", to_truth, outcome.truth))
    return found


def balls(outcome: Outcome, name: str, path: Path) -> None:
    """Grains as balls of their size, from above and from the side, with arrows from their counterparts' places."""
    rows = outcome.runs[name]["free"].grains
    shown = _against(outcome, name)
    with drawn(path, 10.6, 0.4 + 4.6 * max(len(shown), 1)) as figure:
        panels = figure.subplots(max(len(shown), 1), 2, squeeze=False)
        for line, (words, found, other) in zip(panels, shown, strict=False):
            _balls(line, rows, other, found, f"{look(name).label}, from {words}", look(name).color)


def _balls(
    axes: NDArray[Any], rows: NDArray[np.void], other: NDArray[np.void], found: Differences, title: str, color: str
) -> None:
    at, start = positions(rows), positions(other)[found.pairs[:, 1]]
    size = np.where(
        np.isfinite(rows["size"]), rows["size"], 60 * np.cbrt(np.nan_to_num(rows["relative_volume"], nan=1))
    )
    whole = np.concatenate([at, start]) if len(start) else at
    side = float(np.ptp(whole, axis=0).max()) + 2 * float(np.max(size, initial=1.0))
    longest = float(np.percentile(found.distance, 90)) if len(found.pairs) else 1.0
    scale = _nice(_ARROW * side / max(longest, 1e-9))
    lost = np.setdiff1d(np.arange(len(rows)), found.pairs[:, 0])
    for panel, (right, up, horizontal, vertical) in zip(axes, _VIEWS, strict=True):
        order = np.argsort(-size)
        faces = np.where(np.isin(order, lost), 1, 0)
        for group, face, edge in ((0, FAINT, MUTED), (1, "none", "#D55E00")):
            chosen = order[faces == group]
            panel.add_collection(
                EllipseCollection(
                    size[chosen], size[chosen], np.zeros(len(chosen)), units="xy",
                    offsets=at[chosen][:, [right, up]], offset_transform=panel.transData,
                    facecolors=face, edgecolors=edge, linewidths=0.6, alpha=0.85,
                )
            )  # fmt: skip
        step = scale * found.position
        panel.quiver(
            start[:, right], start[:, up], step[:, right], step[:, up], angles="xy", scale_units="xy", scale=1.0,
            color=color, width=0.004, zorder=3,
        )  # fmt: skip
        middle = (whole.max(0) + whole.min(0)) / 2
        height = max(float(np.ptp(whole[:, up])) + 2.2 * float(np.max(size, initial=1.0)), 0.35 * side)
        panel.set(
            xlim=(middle[right] - 0.55 * side, middle[right] + 0.55 * side),
            ylim=(middle[up] - 0.55 * height, middle[up] + 0.55 * height),
            aspect="equal", xlabel=f"{horizontal} (um)", ylabel=f"{vertical} (um)",
        )  # fmt: skip
    axes[0].set_title(title)
    axes[1].set_title(f"arrows {scale:g} times as long, {len(found.pairs)} grains")


def _nice(value: float) -> float:
    """The next smaller of 1, 2, 5, 10, ..."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)))


def histograms(outcome: Outcome, name: str, path: Path) -> None:
    """Differences in position and in size, with percentiles of one estimator and lines of the others.

    Of few grains the number that differs by less is drawn, each a step: bars of some grains each show chance.
    """
    shown = [words for words, _, _ in _against(outcome, name)]
    with drawn(path, 10.6, 0.9 + 3.4 * max(len(shown), 1)) as figure:
        panels = figure.subplots(max(len(shown), 1), 2, squeeze=False)
        seen: dict[str, Any] = {}
        for line, words in zip(panels, shown, strict=False):
            every = {
                other: found
                for other in outcome.runs
                if other != TRUTH
                for text, found, _ in _against(outcome, other)
                if text == words
            }
            distances = {other: found.distance for other, found in every.items()}
            changes = {other: np.abs(found.size[np.isfinite(found.size)]) for other, found in every.items()}
            for axes, values, title, horizontal in (
                (line[0], distances, "Position", "distance (um)"),
                (line[1], changes, "Size", "difference in diameter (um)"),
            ):
                axes.set(title=f"{title}, from {words}", xlabel=horizontal)
                known = {other: one for other, one in values.items() if len(one)}
                if name not in known:
                    axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", color=MUTED)
                elif len(known[name]) < _FEW:
                    _steps(axes, known, name, seen)
                else:
                    _histogram(axes, known, name, seen)
        figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=4, fontsize=9)


def _steps(axes: Axes, known: Mapping[str, NDArray[np.float64]], name: str, seen: dict[str, Any]) -> None:
    """How many grains differ by at most so much."""
    ends = [float(np.percentile(one, 95)) for one in known.values()] + [float(known[name].max())]
    top = max(1.05 * max(ends), _LEAST)
    for other, one in known.items():
        kind, own = look(other), other == name
        x = np.concatenate([[0.0], np.sort(one), [top]])
        y = np.concatenate([[0.0], np.arange(1, len(one) + 1), [len(one)]])
        shape: dict[str, Any] = {"color": kind.color, "linewidth": 2.6 if own else 1.3}
        axes.step(x, y, where="post", linestyle="-" if own else kind.line, zorder=3 if own else 2, **shape)
        seen.setdefault(kind.label, Line2D([], [], linestyle="-" if own else kind.line, **shape))
    count = len(known[name])
    axes.set(xlim=(0, top), ylim=(0, 1.08 * max(map(len, known.values()))), ylabel="grains that differ by less")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    for share in (50, 95):
        at = float(np.percentile(known[name], share))
        axes.plot([at, at], [0, share / 100 * count], color=INK, linestyle="--", linewidth=1)
        right = at < 0.7 * top
        axes.annotate(
            f"p{share} {at:.2f} um", (at, 0.04 * count + (0.08 * count if share == 95 else 0)),
            xytext=(3 if right else -3, 0), textcoords="offset points", fontsize=8.5, color=INK,
            ha="left" if right else "right",
        )  # fmt: skip


def _histogram(axes: Axes, known: Mapping[str, NDArray[np.float64]], name: str, seen: dict[str, Any]) -> None:
    """Numbers of grains by their difference; what is beyond the axis is in the last bar."""
    axes.set_ylabel("grains")
    top = max(float(np.percentile(one, 97)) for one in known.values())
    edges = np.linspace(0, max(top, 1e-9), 31).tolist()
    for other, one in known.items():
        kind = look(other)
        inside = np.minimum(one, edges[-1])  # what is beyond is in the last bin
        own = other == name
        shape: dict[str, Any] = (
            {"alpha": 0.45} if own else {"histtype": "step", "linestyle": kind.line, "linewidth": 1.3}
        )
        axes.hist(inside, edges, color=kind.color, **shape)
        line = Patch(color=kind.color, alpha=0.45) if own else Line2D([], [], color=kind.color, linestyle=kind.line)
        seen.setdefault(kind.label, line)
    height = axes.get_ylim()[1]
    axes.set_ylim(0, 1.25 * height)
    for number, share in enumerate((50, 75, 95)):
        at = float(np.percentile(known[name], share))
        axes.plot([at, at], [0, (1.19 - 0.07 * number) * height], color=INK, linestyle="--", linewidth=1)
        right = at < 0.75 * edges[-1]
        axes.annotate(
            f"p{share} {at:.2f} um", (at, (1.19 - 0.07 * number) * height), xytext=(3 if right else -3, 0),
            textcoords="offset points", fontsize=8.5, va="center", ha="left" if right else "right", color=INK,
        )  # fmt: skip


def theory(outcome: Outcome, document: Mapping[str, Any], path: Path) -> None:
    """Distance against the number of spots, all spots weighing alike, with the line of theory (:func:`expected`)."""
    names = [name for name, entry in document["estimators"].items() if entry.get("by_spots")]
    columns = 3
    lines = max(-(-len(names) // columns), 1)
    to = "the truth" if outcome.truth is not None else "the fit"
    with drawn(path, 10.6, 0.4 + 3.2 * lines) as figure:
        panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes in panels.ravel()[len(names) :]:
            axes.set_visible(False)
        for axes, name in zip(panels.ravel(), names, strict=False):
            color, about = look(name).color, document["estimators"][name]["bias"]
            s, at_one = random_term(about), expected(outcome, about)
            found = outcome.by_spots(name)
            for one in found:
                axes.plot(one.spots, np.maximum(one.distance, 1e-3), ".", color=color, markersize=3, alpha=0.35)
            x = [np.median(one.spots) for one in found]
            y = [np.sqrt(np.mean(np.square(one.distance))) for one in found]
            axes.plot(x, y, "o", color=color, markeredgecolor=INK, markersize=7, label="rms of the grains")
            n = np.array([0.8 * min(x), 1.25 * max(x)])
            words = f"theory: {s:.3f} px a spot"
            if outcome.truth is not None:
                words += f",\nomega {outcome.omega_term:.2g} um a spot"
            axes.plot(n, at_one / np.sqrt(n), color=INK, linestyle="--", linewidth=1.3, label=words)
            axes.set(xscale="log", yscale="log", title=look(name).label)
            axes.legend(fontsize=8.5, loc="lower left")
        for axes in panels[:, 0]:
            axes.set_ylabel(f"distance from {to} (um)")
            log_ticks(axes.yaxis)
        for axes in panels.ravel()[max(len(names) - columns, 0) : len(names)]:
            axes.set_xlabel("spots of the grain")
            axes.tick_params(labelbottom=True)
            log_ticks(axes.xaxis)


def mean_vector(outcome: Outcome, path: Path) -> None:
    """The mean difference in x, y and z with its standard error, by estimator."""
    to = [("the truth", outcome.to_truth), ("the fit", outcome.to_fit)]
    shown = [(words, which) for words, which in to if any(which(name, "free") is not None for name in outcome.runs)]
    with drawn(path, 10.6, 0.8 + 0.34 * len(outcome.runs) + 1.0) as figure:
        panels = figure.subplots(1, max(len(shown), 1), squeeze=False)[0]
        for axes, (words, which) in zip(panels, shown, strict=False):
            found = {
                name: one for name in outcome.runs if (one := which(name, "free")) is not None and len(one.pairs) > 1
            }
            for place, (name, one) in enumerate(found.items()):
                mean, error = one.position.mean(0), one.position.std(0, ddof=1) / np.sqrt(len(one.pairs))
                for number, marker in enumerate("osD"):
                    axes.errorbar(
                        mean[number], place + 0.22 * (number - 1), xerr=error[number], fmt=marker, markersize=5,
                        color=look(name).color, elinewidth=1.2, capsize=2.5,
                        markerfacecolor=look(name).color if number != 1 else "white",
                    )  # fmt: skip
            axes.axvline(0, color=MUTED, linewidth=1)
            axes.set_yticks(range(len(found)), [look(name).label for name in found])
            axes.invert_yaxis()
            axes.grid(visible=False, axis="y")
            axes.set(title=f"Mean vector, from {words}", xlabel="mean difference (um)")
        marks = [
            Line2D([], [], linestyle="", marker=marker, color=INK, markerfacecolor="white" if marker == "s" else INK)
            for marker in "osD"
        ]
        axes_words = ("x, along the beam", "y", "z, along the axis of rotation")
        figure.legend(marks, axes_words, loc="outside lower center", ncols=3, fontsize=9)

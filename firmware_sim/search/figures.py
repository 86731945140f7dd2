"""The picture of a search: error against look-up tables, latency as colour."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator

from braggnn_edge.evaluation.figures import FAINT, INK, MUTED, drawn, log_ticks, look

#: A trial with ``error`` in px, ``luts`` and ``latency``; of the front also ``name``.
Row = Mapping[str, Any]


def front(rows: Sequence[Row], dominated: Sequence[Row], references: Mapping[str, float], path: Path) -> None:
    """Write the front of a search, the other trials faintly behind it.

    references: mean error in px of estimators named as in the report, drawn as lines. The line through the front joins
    what is best for its look-up tables; points off it are there for their latency.
    """
    with drawn(path, 8.6, 5.2) as figure:
        axis = figure.subplots()
        axis.plot(
            [r["luts"] for r in dominated], [r["error"] for r in dominated], "o", color=FAINT, markersize=4,
            label=f"dominated ({len(dominated)})",
        )  # fmt: skip
        line = lower_envelope(rows)
        steps: dict[str, Any] = {"color": MUTED, "linewidth": 1.2, "drawstyle": "steps-post"}
        axis.plot([r["luts"] for r in line], [r["error"] for r in line], **steps, label="best for its look-up tables")
        marks = axis.scatter(
            [r["luts"] for r in rows], [r["error"] for r in rows], c=[r["latency"] for r in rows], s=42, zorder=3,
            cmap="viridis_r", edgecolors=INK, linewidths=0.6, label=f"front ({len(rows)})",
        )  # fmt: skip
        figure.colorbar(marks, ax=axis, label="latency: additions one after the other")
        for row in line:
            text = row["name"].removeprefix("point_")
            axis.annotate(text, (row["luts"], row["error"]), (4, 5), textcoords="offset points", fontsize=8)
        for name, error in references.items():
            kind = look(name)
            axis.axhline(error, color=kind.color, linestyle=kind.line, linewidth=1.4, label=f"{kind.label} {error:.4f}")
        axis.set(
            xscale="log", yscale="log", title="Circuits of the search", ylabel="mean validation error (px)",
            xlabel="look-up tables of the traced circuit (counted, not synthesized)",
        )  # fmt: skip
        axis.margins(0.08)
        log_ticks(axis.xaxis)
        log_ticks(axis.yaxis)
        low, high = axis.get_ylim()
        if high < 10 * low:  # so narrow that decades alone would leave one label
            axis.yaxis.set_major_locator(LogLocator(10, (1.0, 1.4, 2.0, 3.0, 5.0, 7.0)))
        lines, labels = axis.get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=3, fontsize=9)


def lower_envelope(rows: Sequence[Row]) -> list[Row]:
    """Of rows with ``luts`` and ``error``, those that no cheaper one beats in error, by their cost."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda r: (r["luts"], r["error"])):
        if not kept or row["error"] < kept[-1]["error"]:
            kept.append(row)
    return kept

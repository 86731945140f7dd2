"""The picture of the section on sigma: what was predicted and what came, and what intervals hold by brightness."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter

from braggnn_edge.evaluation.figures import MUTED, drawn, label, log_ticks, look
from braggnn_edge.evaluation.sigma import ONE, WIDE


def reliability(alike: Mapping[tuple[str, ...], Mapping[str, Any]], path: Path) -> None:
    """Left the errors in bins of sigma, right the shares that intervals hold in bins of brightness.

    alike: networks that have the same figures, to an entry of ``sigma`` as in ``report.json``.
    """
    with drawn(path, 10.6, 4.6) as figure:
        left, right = figure.subplots(1, 2)
        ends = []
        for names, entry in alike.items():
            kind = look(names[0])
            x = [part["sigma_px"] for part in entry["reliability"]]
            style = {"color": kind.color, "markersize": 4}
            left.plot(x, [part["p68_px"] for part in entry["reliability"]], "o-", label=label(names), **style)
            left.plot(x, [part["rms_px"] for part in entry["reliability"]], "x", linestyle=":", linewidth=1, **style)
            ends += x
            x = [(part["from"] * part["to"]) ** 0.5 for part in entry["by_brightness"]]
            for key, marker in (("within_one", "o"), ("within_wide", "s")):
                y = [100 * part[key] for part in entry["by_brightness"] if key in part]
                if y:
                    right.plot(x, y, marker=marker, **style)
        if ends:
            both = [min(ends), max(ends)]
            left.plot(both, both, color=MUTED, linestyle="--", linewidth=1, zorder=0)
            left.set(xscale="log", yscale="log")
            log_ticks(left.xaxis)
            log_ticks(left.yaxis)
        for share in (ONE, WIDE):
            right.axhline(100 * share, color=MUTED, linestyle="--", linewidth=1, zorder=0)
        left.set(title="What came, against what was predicted", xlabel="predicted sigma (px)", ylabel="error (px)")
        right.set(title="Errors within the intervals", xlabel="counts in the brightest pixel", ylim=(0, 103))
        right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f} %"))
        right.set_xscale("log")
        log_ticks(right.xaxis)
        lines, labels = left.get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=3, fontsize=9)

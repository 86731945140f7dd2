"""The picture of a tuning: how it went, and the errors of the test peaks before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.evaluation.figures import BLUE, INK, MUTED, ORANGE, drawn, log_ticks


def picture(
    history: Sequence[Mapping[str, float]],
    before: float,
    errors: Mapping[str, NDArray[np.float64]],
    difference: Mapping[str, Mapping[str, float]],
    path: Path,
) -> None:
    """Three panels: validation, distribution of the test errors, and what changed.

    history: the learning curve; before: mean validation error of the network at the start, px; errors: "before" and
    "after", (n,) px of the test peaks; difference: as :func:`~braggnn_edge.evaluation.paired.differences` gives it.
    """
    with drawn(path, 12.6, 4.0) as figure:
        curve, spread, change = figure.subplots(1, 3)
        x = [entry["iteration"] for entry in history]
        curve.axhline(before, color=MUTED, linestyle=":", label="before")
        curve.plot(x, [entry["score"] for entry in history], color=INK, marker="o", markersize=3, label="this scan")
        curve.plot(x, [entry["family"] for entry in history], color=ORANGE, marker="o", markersize=3, label="family")
        curve.set(title="Validation", xlabel="iteration", ylabel="mean error (px)", ylim=(0, None))
        curve.legend(fontsize=9)
        for name, color in (("before", MUTED), ("after", BLUE)):
            shown = np.sort(np.maximum(errors[name], 1e-4))
            spread.plot(shown, (np.arange(len(shown)) + 0.5) / len(shown), color=color, label=name)
        spread.set(title="Test peaks", xscale="log", xlabel="error (px)", ylabel="share of the peaks", ylim=(0, 1))
        log_ticks(spread.xaxis)
        spread.legend(fontsize=9, loc="upper left")
        _changes(change, difference)


def _changes(axes: Any, difference: Mapping[str, Mapping[str, float]]) -> None:
    names = list(difference)
    middle = np.array([difference[name]["px"] for name in names])
    ends = np.array([[difference[name][end] for name in names] for end in ("low", "high")])
    axes.axvline(0, color=MUTED, linestyle=":")
    axes.errorbar(
        middle, np.arange(len(names)), xerr=np.abs(ends - middle), fmt="o", color=BLUE, capsize=3, markersize=5
    )
    axes.set_yticks(np.arange(len(names)), [name.replace("_", ".") for name in names])
    axes.invert_yaxis()
    axes.set(title="After - before, 95 % interval", xlabel="error (px)")

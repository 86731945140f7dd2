"""The picture of a tuning: how it went, and the errors of the test peaks before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.evaluation.figures import BLUE, INK, MUTED, ORANGE, drawn, log_ticks


def picture(
    history: Sequence[Mapping[str, float]],
    errors: Mapping[str, NDArray[np.float64]],
    compared: Mapping[str, Mapping[str, Any]],
    path: Path,
) -> None:
    """Three panels: validation while training, the distribution of the test errors, and what changed.

    history: the learning curve, from iteration 0 on; errors: "before" and "after", (n,) px of the test peaks; compared:
    their summaries "before" and "after", and their "difference" with its intervals.
    """
    with drawn(path, 12.6, 4.0) as figure:
        curve, spread, change = figure.subplots(1, 3)
        x = [entry["iteration"] for entry in history]
        curve.axhline(1, color=MUTED, linestyle=":")
        for key, name, color in (("score", "this scan", INK), ("family", "family", ORANGE)):
            y = [entry[key] / history[0][key] for entry in history]
            curve.plot(x, y, color=color, marker="o", markersize=3, label=name)
        curve.set(title="Validation", xlabel="iteration", ylabel="mean error, by that at the start")
        curve.legend(fontsize=9)
        for name, color in (("before", MUTED), ("after", BLUE)):
            shown = np.sort(np.maximum(errors[name], 1e-4))
            spread.plot(shown, (np.arange(len(shown)) + 0.5) / len(shown), color=color, label=name)
        spread.set(title="Test peaks", xscale="log", xlabel="error (px)", ylabel="share of the peaks", ylim=(0, 1))
        log_ticks(spread.xaxis)
        spread.legend(fontsize=9, loc="upper left")
        _changes(change, compared)


def _changes(axes: Any, compared: Mapping[str, Mapping[str, Any]]) -> None:
    names = list(compared["difference"])
    middle, low, high = (
        np.array([100 * compared["difference"][name][end] / compared["before"][name] for name in names])
        for end in ("px", "low", "high")
    )
    axes.axvline(0, color=MUTED, linestyle=":")
    spans = np.maximum([middle - low, high - middle], 0)  # an interval may leave its middle out, of few peaks
    axes.errorbar(middle, np.arange(len(names)), xerr=spans, fmt="o", color=BLUE, capsize=3, markersize=5)
    axes.set_yticks(np.arange(len(names)), [name.replace("_", ".") for name in names])
    axes.invert_yaxis()
    axes.set(title="Change, with its 95 % interval", xlabel="change of the test error (%)")

"""The picture of the reference stage: how far the firmware is from the float networks, the labels and the truth."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from braggnn_edge.figures import BLUE, GREEN, INK, RED, SKY, drawn, log_ticks, look

NAMES = {
    "float": "the float BraggNN",
    "float_compact": "the firmware network in float32",
    "voigt": "the pseudo-Voigt labels",
    "truth": "the truth",
}
_COLORS = {"float": BLUE, "float_compact": SKY, "voigt": INK, "truth": GREEN}


def firmware_distances(errors: Mapping[str, NDArray[np.float64]], form: str, path: Path) -> None:
    """Cumulative distributions of the firmware's distance from each reference.

    errors: reference to distances (n,) px; form: of the firmware, such as "csim:io_parallel".
    """
    with drawn(path, 7.6, 4.2) as figure:
        axes = figure.subplots()
        levels = np.linspace(0.005, 0.995, 199)
        for name, values in errors.items():
            x = np.maximum(np.quantile(values, levels), 1e-5)
            axes.plot(
                x, 100 * levels, color=_COLORS.get(name, RED), label=f"{NAMES.get(name, name)}, n = {len(values):,}"
            )
        axes.set(xscale="log", ylim=(0, 100), xlabel="distance (px)")
        axes.set_title(f"Share of peaks where the {look(form).label} is that close to")
        axes.set_yticks([0, 25, 50, 75, 95])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f} %"))
        log_ticks(axes.xaxis)
        axes.legend(loc="lower right")

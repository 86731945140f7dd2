"""Offsets that the spots of a panel have in all grains, and which key of the instrument to change by how much."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.grains.geometry import Floats, Panel
from braggnn_edge.grains.grains import Grains
from braggnn_edge.grains.instrument import FROM_HEXRD
from braggnn_edge.grains.match import Scene

#: Degrees above which a scan is as good as a full turn: x and y of the grains take up little of an offset.
_FULL = 350.0
#: Standard errors by which a mean must differ from nothing before it is said, and the least that is, in px.
_SURE, _LEAST = 5.0, 0.02
#: Px by which an offset may differ from half a pixel to be called so.
_HALF = 0.1
#: What no residual shows.
_HIDDEN = "along the axis of rotation an offset does not show, and moves all grains"


def offsets(scene: Scene, found: Grains) -> Iterator[str]:
    """Sentences on panels whose spots are off by the same in all grains.

    An offset along the axis of rotation moves all grains, and leaves nothing in the residuals of a single panel. An
    offset across it cannot be a grain's place, which turns with the sample, so it stays in a full turn. Over less
    than that x and y of the grains take up much of it.
    """
    if not found.grains:
        return
    spots = np.concatenate([grain.spots for grain in found.grains])
    residual = np.concatenate([grain.residual for grain in found.grains])[:, :2]
    for number, panel in enumerate(scene.instrument.panels):
        own = residual[scene.spots.panel[spots] == number]
        if len(own) < 20:
            continue
        mean = np.median(own, axis=0)
        error = 1.2533 * 1.4826 * np.median(np.abs(own - mean), axis=0) / np.sqrt(len(own))
        sure = np.abs(mean) > np.maximum(_SURE * error, _LEAST)
        if not sure.any():
            continue
        who = "the panel" if panel.name == "panel" else f"panel {panel.name}"
        yield (
            f"{who}: computed minus measured positions are ({mean[0]:+.3f}, {mean[1]:+.3f}) px (row, col) in the "
            f"median, in all grains together: {_remedy(panel, mean, sure, scene.spots.covered)}"
        )


def _remedy(panel: Panel, mean: Floats, sure: NDArray[np.bool_], covered: float) -> str:
    """What is off, which key of the instrument says it, and the value to try. mean: (2,) px."""
    half = (np.abs(np.abs(mean) - 0.5) < _HALF) & sure
    if covered <= _FULL:
        step = np.where(sure, 0.5 * np.sign(mean), 0.0)
        return (
            f"the beam centre is off by more than that, as in {covered:.0f} degrees the places of the grains take up "
            "much of an offset across the axis of rotation, or the network is biased; half a pixel is the most "
            f"frequent, so try it first ({changed(panel, step)}) and see whether this line goes; a full turn would "
            f"show all of it; {_HIDDEN}"
        )
    if half.any():
        step = np.where(half, 0.5 * np.sign(mean), np.where(sure, mean, 0.0))
        both = np.where(sure, step, 0.5 * np.sign(mean[half][0]))
        return (
            "half a pixel, as where its maker counts pixels from their corners; the centre of the first pixel is "
            f"(0.0, 0.0) here; {changed(panel, step)}"
            + (
                ""
                if sure.all()
                else f"; {_HIDDEN}, and such a maker is off by it along both axes: then {changed(panel, both)}"
            )
        )
    return (
        f"the beam centre is off, or the network is biased: if the pseudo-Voigt fit gives the same, "
        f"{changed(panel, np.where(sure, mean, 0.0))}; {_HIDDEN}"
    )


def changed(panel: Panel, off: Floats) -> str:
    """The keys of the instrument with which computed positions are smaller by ``off`` (2,) px: present, and to try."""
    if panel.translation:
        now = np.array(panel.translation)
        then = now + FROM_HEXRD.T @ (off[0] * panel.slow + off[1] * panel.fast)
        return f"transform.translation of detector {panel.name} is {_listed(now)} mm, try {_listed(then)}"
    axes = np.stack([np.array([1.0, 0.0, 0.0]), -panel.slow, -panel.fast], 1)
    centre = np.linalg.solve(axes, panel.origin)[1:]
    return " and ".join(
        f"{key} is {now:.3f}, try {now - by:.3f}"
        for key, now, by in zip(("z_center", "y_center"), centre, off, strict=True)
        if by
    )


def _listed(values: Floats) -> str:
    return "[" + ", ".join(f"{value:.4f}" for value in values) + "]"

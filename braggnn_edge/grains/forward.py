"""Grains to spots: where on the panels, and at which omega, the reflections of a grain appear."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.grains.geometry import Floats, Index, Instrument

#: Reflections with |sin eta| below this lie so near the axis of rotation that they hardly pass their condition.
NEAR_AXIS = 0.08


@dataclass(frozen=True)
class Expected:
    """Spots (n,) of one grain.

    reflection: its number in the list; branch: 0 or 1, which of its two omegas; panel; row, col: px; omega: radians.
    """

    reflection: Index
    branch: Index
    panel: Index
    row: Floats
    col: Floats
    omega: Floats


def spots_of(
    instrument: Instrument,
    ub: Floats,
    position: Floats,
    hkl: NDArray,
    margin: float = 3.0,
    near_axis: float = NEAR_AXIS,
) -> Expected:
    """All spots of a grain in a full turn, omega from -pi to pi.

    ub: (3, 3) 1/angstrom; position: (3,) mm; hkl: (m, 3). A spot counts where it lies ``margin`` px inside a panel
    whose size is known. Those near the axis of rotation are left out.
    """
    vectors = hkl @ ub.T
    reflection, branch = np.divmod(np.arange(2 * len(hkl)), 2)
    omega = instrument.omegas(vectors).ravel()
    ok = np.isfinite(omega)
    ok[ok] = instrument.lorentz(vectors[reflection[ok]], omega[ok]) >= near_axis
    reflection, branch, omega = reflection[ok], branch[ok], (omega[ok] + np.pi) % (2 * np.pi) - np.pi
    parts = []
    for number, panel in enumerate(instrument.panels):
        row, col = instrument.project(vectors[reflection], omega, position, np.full(len(omega), number))
        with np.errstate(invalid="ignore"):
            on = (row >= margin) & (row <= panel.rows - 1 - margin) & (col >= margin) & (col <= panel.cols - 1 - margin)
        parts.append((reflection[on], branch[on], np.full(int(on.sum()), number), row[on], col[on], omega[on]))
    return Expected(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def covered(omega: Floats, ranges: Floats) -> NDArray[np.bool_]:
    """(n,): whether omegas (n,) lie in one of the ranges (m, 2) of a scan, in any turn; radians."""
    inside = np.zeros(len(omega), bool)
    for low, high in ranges:
        inside |= (omega - low) % (2 * np.pi) <= high - low
    return inside

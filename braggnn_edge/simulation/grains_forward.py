"""The forward model of simulated grains: where on the panel, and at which omega, a grain's reflections appear.

It is written apart from the geometry that refines grains (:mod:`braggnn_edge.grains.geometry`), so that an error in one
is not undone by the same error in the other; the tests compare it with ImageD11's. Axes and angles are ImageD11's: the
laboratory has x along the beam, and a vector of the sample becomes ``stage @ turn(omega) @ vector`` there.

A reciprocal vector g diffracts where its tip lies on Ewald's sphere: 2 x.g + wavelength * g.g = 0, with g in the
laboratory. With cos and sin of omega as unknowns that is a straight line, which meets the unit circle twice or never.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.simulation.spec import SimulationSpec

Floats = NDArray[np.float64]

#: Reflections that pass the sphere more slowly than this, relative to the fastest of their length, are left out: they
#: lie so near the axis of rotation that they smear over many degrees.
SLOWEST = 0.05


@dataclass(frozen=True)
class Experiment:
    """The geometry of a scan. Lengths in mm.

    wavelength: angstrom; corner: (3,), the centre of pixel (0, 0); down, right: (3,), from a pixel to the next row and
    column; stage: (3, 3); sign: of omega.
    """

    wavelength: float
    corner: Floats
    down: Floats
    right: Floats
    stage: Floats
    sign: int


def experiment(spec: SimulationSpec) -> Experiment:
    """That of a scan with a table of grains."""
    grains = spec.grains
    if grains is None:
        raise ValueError("the scan has no grains")
    # On the untilted panel: rows and columns from the beam centre to (y, z), by o11 to o22.
    (o11, o12, o21, o22), pixel = grains.axes, spec.pixel
    tilt_x, tilt_y, tilt_z = grains.tilts
    tilted = _about(0, tilt_x) @ _about(1, tilt_y) @ _about(2, tilt_z)
    down, right = tilted @ [0.0, pixel * o21, pixel * o11], tilted @ [0.0, pixel * o22, pixel * o12]
    row, col = spec.beam()
    corner = np.array([spec.distance, 0.0, 0.0]) - row * down - col * right
    # ImageD11's wedge is the other way round about y.
    stage = _about(1, -np.radians(grains.wedge)) @ _about(0, np.radians(grains.chi))
    return Experiment(spec.wavelength, corner, down, right, stage, grains.omega_sign)


@dataclass(frozen=True)
class Diffracted:
    """Reflections (n,) of one grain.

    hkl: (n, 3); row, col: px; omega: degrees, in [0, 360); length: of the reciprocal vector, 1/angstrom; speed: with
    which it passes Ewald's sphere, relative to the fastest of its length: |sin eta| where the stage is not tilted;
    ray: (n, 3) unit vectors of the scattered rays, laboratory.
    """

    hkl: NDArray[np.int64]
    row: Floats
    col: Floats
    omega: Floats
    length: Floats
    speed: Floats
    ray: Floats


def diffracted(about: Experiment, ub: Floats, position: Floats, hkl: NDArray, slowest: float = SLOWEST) -> Diffracted:
    """All reflections of a full turn whose rays go forward to the plane of the panel, on it or not.

    ub: (3, 3) 1/angstrom without 2 pi; position: (3,) mm, of the grain in the sample; hkl: (n, 3); slowest: the least
    speed that counts.
    """
    g = hkl @ ub.T
    towards = about.stage[0]  # the beam, in the axes of the stage
    # towards . turn(omega) g = a cos + b sin + fixed
    a = g[:, 0] * towards[0] + g[:, 1] * towards[1]
    b = g[:, 0] * towards[1] - g[:, 1] * towards[0]
    square = np.einsum("ni,ni->n", g, g)
    wanted = -about.wavelength * square / 2 - g[:, 2] * towards[2]
    radius2 = a * a + b * b
    meets = np.flatnonzero(radius2 > wanted * wanted)
    a, b, wanted, radius2 = a[meets], b[meets], wanted[meets], radius2[meets]
    off = np.sqrt(radius2 - wanted * wanted)
    found = []
    for side in (1.0, -1.0):
        cos, sin = (a * wanted - side * b * off) / radius2, (b * wanted + side * a * off) / radius2
        found.append((meets, cos, sin))
    which, cos, sin = (np.concatenate(part) for part in zip(*found, strict=True))
    turn = np.zeros((len(which), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = cos
    turn[:, 1, 0], turn[:, 0, 1], turn[:, 2, 2] = sin, -sin, 1.0
    to_laboratory = about.stage @ turn
    q = np.einsum("nij,nj->ni", to_laboratory, g[which])
    start = to_laboratory @ position
    ray = about.wavelength * q
    ray[:, 0] += 1.0
    # corner + row * down + col * right = start + far * ray
    system = np.empty((len(which), 3, 3))
    system[:, :, 0], system[:, :, 1], system[:, :, 2] = about.down, about.right, -ray
    meets_plane = np.abs(np.linalg.det(system)) > 1e-9 * np.linalg.norm(about.down) * np.linalg.norm(about.right)
    system[~meets_plane] = np.eye(3)
    row, col, far = np.linalg.solve(system, (start - about.corner)[:, :, None])[:, :, 0].T
    # The speed: how fast x.q changes with omega, over the length of q times cos theta.
    axis = about.stage[:, 2]
    moved = np.cross(axis, q)[:, 0]
    length = np.sqrt(square[which])
    cos_theta = np.sqrt(1 - (about.wavelength * length / 2) ** 2)
    speed = np.abs(moved) / (length * cos_theta)
    kept = meets_plane & (far > 0) & (speed >= slowest)
    omega = np.degrees(about.sign * np.arctan2(sin, cos)) % 360.0
    omega[omega == 360.0] = 0.0  # -1e-20 % 360
    columns = (row, col, omega, length, speed, ray)
    return Diffracted(hkl[which][kept], *(column[kept] for column in columns))


def longest(spec: SimulationSpec, about: Experiment) -> float:
    """Length in 1/angstrom of the longest reciprocal vector whose ray may meet the panel, from the origin."""
    corners = [
        about.corner + row * about.down + col * about.right for row in (0, spec.rows - 1) for col in (0, spec.cols - 1)
    ]
    two_theta = max(np.arccos(corner[0] / np.linalg.norm(corner)) for corner in corners)
    return float(2 * np.sin(two_theta / 2) / spec.wavelength)


def _about(axis: int, angle: float) -> Floats:
    """(3, 3): right-handed rotation about x (0), y (1) or z (2) by an angle in radians."""
    one, two = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[one, one] = turn[two, two] = np.cos(angle)
    turn[two, one], turn[one, two] = np.sin(angle), -np.sin(angle)
    return turn

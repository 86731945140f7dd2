"""Simulated grains, and the list of their reflections on a panel: positions, omega, intensities, rocking widths.

The integrated intensity of a reflection, in counts over all pixels and frames, is

    intensity = V / V0 * F(s) * L * P / (F * L of the first ring a quarter turn from the axis of rotation)

times the key ``intensity``. V is the grain's volume and V0 that of a ball of the median size. F(s) = 1 / (1 + (s /
0.55)^2)^2 falls with the length s of the reciprocal vector, in 1/angstrom, as scattering by atoms does. L is the
Lorentz factor of a rotation, 1 / (sin 2 theta * speed), where speed, |sin eta| without a tilted stage, says how fast
the reflection passes Ewald's sphere. P = 1 - y^2, with y of the unit vector of the scattered ray, is the polarization
factor of a beam that is polarized along y, as a synchrotron's is. Absorption and extinction are left out.

The directions of a grain's lattice spread with the FWHM ``mosaic``, normally and alike in all directions. The rocking
curve then has the FWHM mosaic / speed. What mosaic spread does to the spot on the panel is left out.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from braggnn_edge.core.errors import UserError
from braggnn_edge.simulation.grains_forward import Floats, diffracted, experiment, longest
from braggnn_edge.simulation.grains_spec import GrainsSpec
from braggnn_edge.simulation.spec import SimulationSpec
from braggnn_edge.simulation.streams import GRAINS, stream

#: One row a reflection of a grain; row, col: px; omega, rocking (FWHM): degrees; intensity: counts; length: 1/angstrom.
GRAIN_REFLECTION = np.dtype(
    [
        *((name, "i4") for name in ("grain", "h", "k", "l")),
        *((name, "f8") for name in ("row", "col", "omega", "rocking", "intensity", "length")),
    ]
)

#: Length at which scattering by atoms has fallen to a quarter, 1/angstrom.
_FALL = 0.55
#: A reflection this far outside the panel still lights it, px.
_NEAR = 5.0
#: Rocking widths (FWHM) within which a reflection outside the scan still reaches into it.
_ROCKS = 2.0
#: Highest index of a reflection.
_MOST_INDEX = 100


@dataclass(frozen=True)
class SimulatedGrains:
    """Grains (n,) of a scan, in the axes of the sample.

    position: (n, 3) mm; orientation: (n, 3, 3), crystal to sample, where the crystal has a along x and b in the plane
    of x and y; strain: (n, 3, 3), symmetric; size: (n,) um, of a ball of the same volume; cell: (3, 3) angstrom,
    columns a, b, c of the crystal without strain.
    """

    position: Floats
    orientation: Floats
    strain: Floats
    size: Floats
    cell: Floats

    def __len__(self) -> int:
        return len(self.size)

    @cached_property
    def ub(self) -> Floats:
        """(n, 3, 3) 1/angstrom: reflection hkl to its reciprocal vector, without 2 pi."""
        edges = (np.eye(3) + self.strain) @ self.orientation @ self.cell
        return np.asarray(np.linalg.inv(edges).transpose(0, 2, 1), np.float64)


def draw_grains(spec: GrainsSpec, seed: int) -> SimulatedGrains:
    """The grains of a table: anywhere in the box, in any orientation; the same for the same table and seed."""
    rng, n = stream(seed, GRAINS), spec.number
    position = (rng.random((n, 3)) - 0.5) * spec.box
    orientation = Rotation.from_quat(rng.standard_normal((n, 4))).as_matrix()
    strain = np.zeros((n, 3, 3))
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        strain[:, i, j] = strain[:, j, i] = spec.strain * rng.standard_normal(n)
    size = spec.size * np.exp(spec.size_spread * rng.standard_normal(n))
    return SimulatedGrains(position, orientation, strain, size, cell_of(spec))


def cell_of(spec: GrainsSpec) -> Floats:
    """(3, 3) angstrom: columns a, b, c; a along x, b in the plane of x and y."""
    lengths, cosines = np.array(spec.cell[:3]), np.cos(np.radians(spec.cell[3:]))
    metric = np.diag(lengths**2)
    for (i, j), cosine in zip(((1, 2), (0, 2), (0, 1)), cosines, strict=True):
        metric[i, j] = metric[j, i] = lengths[i] * lengths[j] * cosine
    return np.asarray(np.linalg.cholesky(metric).T, np.float64)


def hkl_of(spec: GrainsSpec, longest_vector: float) -> NDArray[np.int64]:
    """(n, 3): the reflections that the centring allows, with reciprocal vectors up to a length in 1/angstrom."""
    top = np.floor(longest_vector * np.array(spec.cell[:3])).astype(int)
    if top.max() > _MOST_INDEX:
        raise UserError(
            f"simulation of grains: lattice {spec.lattice} gives reflections up to index {top.max()} on this panel; "
            f"expected at most {_MOST_INDEX}: increase wavelength or distance"
        )
    hkl = np.indices(tuple(2 * top + 1)).reshape(3, -1).T - top
    vectors = np.linalg.solve(cell_of(spec).T, hkl.T)
    return hkl[spec.allowed(hkl) & (np.linalg.norm(vectors, axis=0) <= longest_vector)]


def reflections_of(spec: SimulationSpec, grains: SimulatedGrains) -> NDArray[np.void]:
    """The reflections (:data:`GRAIN_REFLECTION`) that light the panel in the scan, by grain and omega.

    omega lies in [0, 360) degrees. Raises UserError where no reflection of the lattice reaches the panel.
    """
    table, about = spec.grains, experiment(spec)
    if table is None:
        raise ValueError("the scan has no grains")
    # Strain, and a grain away from the origin, change what reaches the panel by a little.
    hkl = hkl_of(table, longest(spec, about) * (1 + 0.02 + 5 * table.strain + table.reach / spec.distance))
    first = np.linalg.norm(np.linalg.solve(grains.cell.T, hkl.T), axis=0).min(initial=np.inf)
    factor = table.intensity / strength(spec, first) if len(hkl) else 0.0
    parts = []
    for number, (ub, position) in enumerate(zip(grains.ub, grains.position, strict=True)):
        seen = diffracted(about, ub, position, hkl)
        rocking = table.mosaic / seen.speed
        turn = spec.frames * spec.omega_step
        outside = np.abs((seen.omega - turn / 2 + 180) % 360 - 180) - turn / 2
        lit = (seen.row > -_NEAR) & (seen.row < spec.rows - 1 + _NEAR) & (outside <= _ROCKS * rocking)
        lit &= (seen.col > -_NEAR) & (seen.col < spec.cols - 1 + _NEAR)
        rows = np.zeros(int(lit.sum()), GRAIN_REFLECTION)
        rows["grain"] = number
        rows["h"], rows["k"], rows["l"] = seen.hkl[lit].T
        for name in ("row", "col", "omega", "length"):
            rows[name] = getattr(seen, name)[lit]
        rows["rocking"] = rocking[lit]
        volume = (grains.size[number] / table.size) ** 3
        polarization = 1 - seen.ray[lit, 1] ** 2
        rows["intensity"] = factor * volume * polarization * strength(spec, rows["length"]) / seen.speed[lit]
        parts.append(rows[np.argsort(rows["omega"], kind="stable")])
    found = np.concatenate(parts)
    if not len(found):
        raise UserError(
            f"simulation of grains: no reflection of the lattice {table.lattice}, {table.centring!r}, lies on the "
            f"panel of {spec.rows} x {spec.cols} px in {spec.frames * spec.omega_step:g} degrees; decrease distance or "
            "wavelength, turn further, or move centre"
        )
    return found


def strength(spec: SimulationSpec, length: Any) -> Any:
    """F(s) / sin 2 theta of reciprocal vectors of a length, or of lengths (n,), in 1/angstrom."""
    two_theta = 2 * np.arcsin(spec.wavelength * length / 2)
    return 1 / (1 + (length / _FALL) ** 2) ** 2 / np.sin(two_theta)


def instrument_file(spec: SimulationSpec) -> str:
    """The geometry as a TOML file with the keys of ImageD11, lengths in um, as `braggnn-edge grains` reads it."""
    grains = spec.grains
    if grains is None:
        raise ValueError("the scan has no grains")
    row, col = spec.beam()
    values = {
        "distance": 1e3 * spec.distance, "y_center": col, "z_center": row, "y_size": 1e3 * spec.pixel,
        "z_size": 1e3 * spec.pixel, "wavelength": spec.wavelength,
        **dict(zip(("tilt_x", "tilt_y", "tilt_z"), grains.tilts, strict=True)),
        **dict(zip(("o11", "o12", "o21", "o22"), map(float, grains.axes), strict=True)),
        "wedge": grains.wedge, "chi": grains.chi, "omegasign": float(grains.omega_sign),
    }  # fmt: skip
    return "".join(f"{key} = {value!r}\n" for key, value in values.items())

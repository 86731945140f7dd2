"""What the strain that all grains have in common says of the cell: which of its parameters do not fit."""

from collections.abc import Iterator, Sequence

import numpy as np

from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.geometry import Floats
from braggnn_edge.grains.refine import Grain

#: A parameter is off by at least this share, an angle by as many radians, and by this many standard errors.
_LEAST, _SURE = 5e-4, 5.0
#: Lengths that are off by shares whose spread is below this share of their mean are off together.
_TOGETHER = 0.2
_LENGTHS, _ANGLES = ("a", "b", "c"), ("alpha", "beta", "gamma")


def off_parameters(lattice: Lattice, grains: Sequence[Grain]) -> tuple[Floats, Floats]:
    """(6,) of the mean cell: shares by which a, b, c are longer and radians by which angles are wider; standard errors.

    The strain is meant in the axes of the crystal, over the rotations of the lattice. Lengths that they make equal
    stay equal, and angles that they fix stay so: of a grain any of these orientations may have been found.
    """
    strains = []
    for grain in grains:
        turn, strain = lattice.orientation_and_strain(grain.ub)
        own = turn.T @ strain @ turn
        strains.append((lattice.symmetry @ own @ lattice.symmetry.swapaxes(1, 2)).mean(0))
    cells = np.array([_cell((np.eye(3) + strain) @ lattice.a_matrix) for strain in strains])
    off = cells - _cell(lattice.a_matrix)
    off[:, :3] /= np.array(lattice.cell[:3])
    middle = np.median(off, axis=0)
    spread = 1.4826 * np.median(np.abs(off - middle), axis=0)
    return middle, 1.2533 * spread / np.sqrt(len(off))


def _cell(edges: Floats) -> Floats:
    """(6,): lengths in angstrom and angles in radians of edges in columns."""
    lengths = np.linalg.norm(edges, axis=0)
    a, b, c = (edges / lengths).T
    return np.concatenate([lengths, np.arccos([b @ c, a @ c, a @ b])])


def wrong_cell(lattice: Lattice, grains: Sequence[Grain]) -> Iterator[str]:
    """A sentence on the parameters of the cell that all grains contradict; of fewer than three grains none is sure."""
    if not grains:
        return
    off, error = off_parameters(lattice, grains)
    sure = np.abs(off) > np.maximum(_SURE * error, _LEAST)
    if len(grains) < 3:
        sure &= np.abs(off) > 4 * _LEAST  # some grains may be strained by less
    if not sure.any():
        return
    lengths = off[:3]
    if sure[:3].all() and not sure[3:].any() and np.ptp(lengths) < _TOGETHER * abs(lengths.mean()):
        yield (
            f"the median grain is strained by {lengths.mean():+.4f} in all directions: the cell of --lattice is off by "
            "that share, or the wavelength, or the distance; strains are relative to that cell"
        )
        return
    words = []
    for number in np.flatnonzero(sure):
        given = lattice.cell[number]
        if number < 3:
            words.append(
                f"{_LENGTHS[number]} is {given * (1 + off[number]):.4f}, not {given:g} angstrom ({off[number]:+.2%})"
            )
        else:
            angle = given + np.degrees(off[number])
            words.append(f"{_ANGLES[number - 3]} is {angle:.3f}, not {given:g} degrees")
    fits = [name for name, is_off in zip((*_LENGTHS, *_ANGLES), sure, strict=True) if not is_off]
    yield (
        f"--lattice does not fit in the median grain: {', '.join(words)}"
        + (f"; {', '.join(fits)} fit" if fits else "")
        + "; strains are relative to the cell that was given"
    )

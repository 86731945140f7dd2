"""Why nothing indexes, and what the residuals of grains say of the geometry."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from braggnn_edge.core.errors import UserError
from braggnn_edge.grains.common_strain import wrong_cell
from braggnn_edge.grains.crystal import CENTRINGS, Lattice
from braggnn_edge.grains.geometry import Instrument
from braggnn_edge.grains.grains import Grains
from braggnn_edge.grains.index import IndexSpec, index
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.offsets import offsets
from braggnn_edge.grains.opposite import said_of_omega, wrong_step
from braggnn_edge.grains.spots import load

#: Ways to look at the frames, flips and the sign of omega, the simple ones first, in four sets. Those of a set show the
#: same sample or its mirror image, which index alike if the beam centre is the same in the flipped frames.
_WAYS: tuple[tuple[tuple[str, float], ...], ...] = (
    (("v", 1.0), ("h", -1.0), ("vh", -1.0)),
    (("h", 1.0), ("", -1.0), ("vh", 1.0), ("v", -1.0)),
    (("t", 1.0), ("tv", 1.0), ("th", -1.0), ("tvh", -1.0)),
    (("th", 1.0), ("t", -1.0), ("tvh", 1.0), ("tv", -1.0)),
)
#: Ways whose share of spots on rings is within this of the best of their set are not told apart.
_AS_GOOD = 0.1
#: Rings that are compared with the spots, and scales of the lattice that are tried.
_RINGS = 8
_SCALES = np.linspace(0.85, 1.15, 601)
#: A scale is believed if more than this share of the spots lies on rings then, and of the rings has spots.
_MOST = 0.6
#: Below this share of spots on rings the rings are not said to fit; ways to flip frames are tried above the second.
_FIT, _LEAST_ON_RINGS = 0.5, 0.3
#: Fewest spots that fix a grain; orientations that are drawn to count the spots of one.
_FEWEST, _DRAWN = 8, 8
#: What else to try where the own indexer found nothing, or little.
_ANOTHER = "ImageD11's indexer may find more (--indexer imaged11)"
#: Angstrom below which no edge of a cell is long, and mm below which no far detector is.
_SMALL_CELL, _NEAR = 2.0, 10.0
#: Share of spots in grains above which nothing is said, and below which it is said without a known cause; share of
#: the tolerance within which a spot is on a reflection that is forbidden, and share of the free spots that must be.
_EXPLAINED, _FEW_EXPLAINED, _CLOSE, _FORBIDDEN = 0.7, 0.2, 0.25, 0.3


def why_nothing(scene: Scene, files: Mapping[str, Path], instrument: Instrument, flip: str, spec: IndexSpec) -> str:
    """One sentence or two for the user whose spots make no grain: what was seen, likely causes, and what would help.

    instrument: as it was read, with the omega sign that was asked for.
    """
    count = len(scene.spots)
    if count < spec.least:
        return f"{count} spots can be used; expected at least {spec.least} of a grain (--least)"
    said = f"no grain found among {count:,} spots"
    if doubts := list(doubtful(scene)):
        return f"{said}: {'; '.join(doubts)}"
    each = expected_spots(scene)
    if each < spec.least:
        enough = each >= _FEWEST
        return f"{said}: in the {scene.spots.covered:.0f} degrees of this scan a grain has about {each:.0f}; " + (
            f"--least {spec.least} asks for more, so lower it"
            if enough
            else f"expected {_FEWEST} or more, to fix its 12 numbers: scan farther, or take a larger detector"
        )
    rings, chance, scale = ring_fit(scene)
    share = f"{rings:.0%} of the spots of the first rings lie on rings of the lattice, {chance:.0%} would by chance"
    if abs(scale - 1) > 0.004:
        cell = ", ".join(f"{length / scale:.4g}" for length in scene.lattice.cell[:3])
        return (
            f"{said}: {share}; the rings fit best with lengths of the cell divided by {scale:.3f} ({cell} angstrom); "
            "check --lattice, the wavelength and the distance"
        )
    if step := wrong_step(scene, spec):
        return f"{said}: {step}"
    if other := _other_way(scene, files, instrument, flip, spec):
        return f"{said} as they are, but there are some with {other}; check how the frames lie and turn"
    if rings < max(_FIT, chance + 0.15):
        return (
            f"{said}: {share}; check --lattice, --centring, the wavelength, the distance and the beam centre, and "
            "whether most of the spots are of grains at all"
        )
    return (
        f"{said}, though the rings fit ({share}); {said_of_omega(scene)}; then check --sample (grains are looked for "
        f"up to {scene.sample:g} mm from the axis), the number of spots (a grain should have about {each:.0f}; lower "
        f"--least or --completeness to ask for fewer), and the tilts of the panels; {_ANOTHER}"
    )


def doubtful(scene: Scene) -> Iterator[str]:
    """Parts of sentences on numbers that look like those of another unit, or of another detector."""
    cell, distance, panels = max(scene.lattice.cell[:3]), scene.instrument.distance, scene.instrument.panels
    if cell < _SMALL_CELL:
        yield f"the longest edge of --lattice is {cell:g} angstrom; expected angstrom, are these nanometres?"
    if distance < _NEAR:
        yield (
            f"the detector is {distance:g} mm away; expected a distance in micrometres in a .par or .toml, in mm in a "
            ".yml: is its unit another one?"
        )
    panel = panels[0]
    if len(panels) > 1 or not panel.rows or not panel.cols:
        return
    axes = np.stack([scene.instrument.beam, -panel.fast, -panel.slow], 1)
    if abs(np.linalg.det(axes)) < 1e-9:  # the beam runs along the panel
        return
    _, col, row = np.linalg.solve(axes, panel.origin)
    if not (-0.5 <= row <= panel.rows - 0.5 and -0.5 <= col <= panel.cols - 0.5):
        yield (
            f"the beam centre, ({row:.1f}, {col:.1f}) px (row, col), lies outside the frames of {panel.rows} x "
            f"{panel.cols} px; is this the instrument of another detector, or of frames that are not binned?"
        )


def expected_spots(scene: Scene) -> float:
    """How many spots a grain should have, of all reflections up to the farthest spot, in the mean over orientations."""
    turns = Rotation.random(_DRAWN, random_state=0).as_matrix()
    hkl, b = scene.hkl, scene.lattice.b_matrix
    return float(np.mean([len(scene.expected(turn @ b, np.zeros(3), hkl).row) for turn in turns]))


def _other_way(
    scene: Scene, files: Mapping[str, Path], instrument: Instrument, flip: str, spec: IndexSpec
) -> str | None:
    """Options with which there are grains; None where there are none.

    Of each set of ways that positions cannot tell apart the one whose spots lie best on rings is searched.
    """
    for number, ways in enumerate(_WAYS):
        tried: list[tuple[float, str, Scene]] = []
        for letters, sign in ways:
            try:
                turned, spots = load(
                    files, replace(instrument, omega_sign=instrument.omega_sign * sign), flip + letters
                )
            except UserError:  # a frame that is not square has no room for its transpose
                continue
            there = Scene(turned, spots, scene.lattice, scene.sample)
            tried.append(
                (ring_fit(there, scales=False)[0], _options(flip, letters, turned.omega_sign if sign < 0 else 0), there)
            )
        best = max((share for share, _, _ in tried), default=0.0)
        alike = [(options, there) for share, options, there in tried if share >= best - _AS_GOOD]
        if best < _LEAST_ON_RINGS or not index(alike[0][1], replace(spec, most=1, patience=100)):
            continue
        words = [options for options, _ in alike]
        if number == 1 and "--omega-sign" in words[0] and len(words) == 1:
            words.append("--flip h with the beam centre mirrored")
        return " or ".join(words) + (" (positions cannot tell)" if len(words) > 1 else "")
    return None


def _options(flip: str, letters: str, sign: float) -> str:
    """What to write on the command line: ``letters`` after ``flip``, and the omega sign where it is another one."""
    turned = {"v": False, "h": False, "t": False}  # v and h before t; after it each does what the other does before
    for letter in flip + letters:
        turned[{"v": "h", "h": "v"}.get(letter, letter) if turned["t"] else letter] ^= True
    after = "".join(letter for letter, is_on in turned.items() if is_on)
    words = [f"--flip {after}"] if after else ["no --flip"] if flip else []
    return " and ".join(words + ([f"--omega-sign {sign:.0f}"] if sign else []))


def ring_fit(scene: Scene, scales: bool = True) -> tuple[float, float, float]:
    """Share of the spots of the first rings that lie on a ring, the share by chance, and the scale that fits best.

    The scale multiplies the lengths of the rings. It is 1 unless with another one most spots lie on rings, and most
    rings have spots. Without ``scales`` the last two are not looked for.
    """
    lengths = scene.rings[0][:_RINGS]
    own = np.sort(np.linalg.norm(scene.reciprocal, axis=1))
    if len(lengths) < 3 or len(own) < 10:
        return 0.0, 0.0, 1.0
    width = min(scene.tolerance / 2, 0.02 * lengths[0])

    def fit(scale: float) -> tuple[float, float]:
        """Shares of the spots up to the last ring that are on rings, and of the rings that have spots."""
        low, high = np.searchsorted(own, scale * lengths - width), np.searchsorted(own, scale * lengths + width)
        on = np.zeros(len(own) + 1)
        np.add.at(on, low, 1)
        np.add.at(on, high, -1)
        within = np.cumsum(on)[: high[-1]] > 0
        return float(within.mean()) if len(within) else 0.0, float((high > low).mean())

    if not scales:
        return fit(1.0)[0], 0.0, 1.0
    fits = np.array([fit(scale) for scale in _SCALES])
    here, chance = fit(1.0)[0], float(np.median(fits[:, 0]))
    both = fits.min(1)
    scale = float(_SCALES[both >= both.max() - 1e-9].mean())
    clearly = both.max() > max(_MOST, here + 0.15, chance + 0.2)
    return here, chance, scale if clearly else 1.0


def remarks(scene: Scene, found: Grains, lattice: Lattice) -> Iterator[str]:
    """What the user should know of the grains: offsets that all have in common, and a scan that is too narrow."""
    yield from offsets(scene, found)
    yield from unexplained(scene, found)
    yield from wrong_cell(lattice, found.grains)
    if scene.spots.covered < 90:
        yield (
            f"NARROW: the scan covers {scene.spots.covered:.0f} degrees; positions and strains along some directions "
            "are hardly known, as the sigma columns say; an offset of the beam centre across the axis moves all grains"
        )


def unexplained(scene: Scene, found: Grains) -> Iterator[str]:
    """Sentences on a cell or a centring that does not go with the spots."""
    if not found.grains:
        return
    hkl = scene.hkl[np.concatenate([grain.reflection for grain in found.grains])]
    free = np.ones(len(scene.spots), bool)
    free[np.concatenate([grain.spots for grain in found.grains])] = False
    share = 1 - float(free.mean())
    if share >= _EXPLAINED:
        if (factor := int(np.gcd.reduce(hkl, axis=None))) > 1:
            yield f"all indices are multiples of {factor}: edges of 1 / {factor} of --lattice explain all spots"
        return
    others: list[NDArray[np.int64]] = []
    forbidden = np.zeros(int(free.sum()), bool)
    for grain in found.grains:
        vectors = scene.instrument.reciprocal(scene.xyz[free], scene.spots.omega[free], grain.position)
        near = np.round(vectors @ np.linalg.inv(grain.ub).T).astype(np.int64)
        own = np.linalg.norm(vectors - near @ grain.ub.T, axis=1) < _CLOSE * scene.tolerance
        own &= ~scene.lattice.allowed(near) & near.any(1)
        forbidden |= own
        others.append(near[own])
    if forbidden.mean() > _FORBIDDEN:
        every = np.concatenate([hkl, *others])
        lattices = [Lattice(scene.lattice.cell, name) for name in CENTRINGS]
        # A few reflections are there by chance. Of centrings that allow the rest the one that forbids most is meant.
        fits = [lattice for lattice in lattices if lattice.allowed(every).mean() > 0.95]
        yield (
            f"{forbidden.sum():,} of the {len(forbidden):,} spots without a grain lie on reflections of these grains "
            f"that --centring {scene.lattice.centring} forbids; "
            f"{max(fits, key=lambda lattice: len(lattice.centres)).centring} allows them"
        )
    elif share < _FEW_EXPLAINED:
        step = wrong_step(scene, IndexSpec())
        yield f"NOT EXPLAINED: {share:.0%} of the spots belong to grains; " + (
            step
            or "check --lattice and --centring, or whether "
            "there are other phases, smaller grains or much noise: grains that are marked may be none; "
            f"{_ANOTHER}"
        )

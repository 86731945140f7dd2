"""ImageD11's indexer as an alternative to ours: ``--indexer imaged11``.

ImageD11 is under the GPL and not needed for anything else. It is called in a process of its own, which this module
starts and which is this module too (``python -m braggnn_edge.grains.imaged11``): vectors go there in a file, and
matrices come back in one. They are judged, fitted with a position, and refined as what our own indexer finds.
"""

import contextlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from braggnn_edge.core.errors import UserError
from braggnn_edge.grains.geometry import Floats
from braggnn_edge.grains.index import IndexSpec, Seed, improved
from braggnn_edge.grains.match import Scene

#: Rings of which pairs are made, and orientations drawn to count the spots that a grain should have.
_RINGS, _DRAWN = 4, 8
#: The first time only grains with this share of the expected spots are taken.
_COMPLETE = 0.8
#: Grains are looked for up to this number in one pass.
_MANY = 10_000


def index(scene: Scene, spec: IndexSpec) -> list[Seed]:
    """Grains (unrefined) that ImageD11 finds among the spots of the well-seen low rings.

    Its tolerances follow from that of the scene. Raises UserError where ImageD11 is not installed, or fails.
    """
    require("--indexer", "--indexer own")
    rings = np.unique(scene.rings[1][scene.low])
    inner = np.isin(scene.ring_of_spot, rings)
    if len(scene.spots) < spec.least or not inner.any():
        return []
    expected = _expected(scene)
    shares = sorted({max(_COMPLETE, spec.completeness), spec.completeness}, reverse=True)
    found: list[Seed] = []
    usable = np.ones(len(scene.spots), bool)
    for ub in np.linalg.inv(_called(scene, inner, rings, [max(share * expected, 8.0) for share in shares])):
        reflection, off = scene.assigned(ub, np.zeros(3))
        first = np.flatnonzero((reflection >= 0) & inner & usable & (off < scene.tolerance))
        if len(first) < 8:
            continue
        seed, own = improved(scene, first, reflection[first], usable)
        if seed is None or seed.completeness < spec.completeness or len(own) < spec.least:
            continue
        found.append(seed)
        if len(found) == spec.most:
            break
        usable[own] = False
    return found


def require(option: str, other: str) -> None:
    """UserError where ImageD11 is not installed; option: what asked for it; other: what to write to do without."""
    if importlib.util.find_spec("ImageD11") is None:
        raise UserError(
            f"{option} imaged11: ImageD11 is not installed; install it (`pip install 'braggnn-edge[imaged11]'`, Python "
            f"3.11 to 3.13), or take the indexer that needs nothing ({other})"
        )


def _expected(scene: Scene) -> float:
    """Spots of the low rings that a grain should have, in the mean over orientations drawn at random."""
    turns = Rotation.random(_DRAWN, random_state=0).as_matrix()
    low = scene.hkl[scene.low]
    return float(np.mean([len(scene.expected(u @ scene.lattice.b_matrix, np.zeros(3), low).row) for u in turns]))


def _called(scene: Scene, inner: np.ndarray, rings: np.ndarray, least: Sequence[float]) -> Floats:
    """(m, 3, 3) angstrom: inverses of UB. least: spots of a grain, in the passes that are made."""
    size = np.bincount(scene.rings[1])
    pairs = sorted(rings[:_RINGS].tolist(), key=lambda ring: (size[ring], ring))
    with tempfile.TemporaryDirectory() as name:
        asked, answer = Path(name) / "asked.npz", Path(name) / "answer.npy"
        np.savez(
            asked, vectors=scene.reciprocal[inner], cell=scene.lattice.cell, centring=scene.lattice.centring,
            lengths=scene.rings[0][pairs], tolerance=scene.tolerance, wavelength=scene.instrument.wavelength,
            least=least,
        )  # fmt: skip
        places = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "-m", "braggnn_edge.grains.imaged11", str(asked), str(answer)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(places)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode or not answer.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"--indexer imaged11: ImageD11 failed ({last}); try --indexer own")
        return np.asarray(np.load(answer), np.float64).reshape(-1, 3, 3)


def _in_own_process(asked: Path, answer: Path) -> None:
    """What the other process does: the only place where ImageD11 is used."""
    indexing, unitcell = (importlib.import_module(f"ImageD11.{name}") for name in ("indexing", "unitcell"))

    data: Any = np.load(asked)
    tolerance, longest = float(data["tolerance"]), float(max(data["cell"][:3]))
    cell = unitcell.unitcell(data["cell"].tolist(), str(data["centring"]))
    with contextlib.redirect_stdout(io.StringIO()):
        indexer = indexing.indexer(
            unitcell=cell, gv=np.ascontiguousarray(data["vectors"]), wavelength=float(data["wavelength"]),
            ds_tol=tolerance, hkl_tol=min(tolerance * longest, 0.2), max_grains=_MANY,
        )  # fmt: skip
        indexer.assigntorings()
        known = np.array(indexer.unitcell.ringds)
        rings = [int(np.abs(known - length).argmin()) for length in data["lengths"]]
        for least in data["least"]:
            for number, one in enumerate(rings):
                for two in rings[number:]:
                    # Two vectors that are off by the tolerance, one of them at random, change the angle by this much.
                    angle = 0.7 * tolerance * (1 / known[one] + 1 / known[two])
                    indexer.cosine_tol, indexer.minpks = float(np.sin(angle)), float(least)
                    indexer.ring_1, indexer.ring_2 = one, two
                    indexer.find()
                    if len(indexer.hits):
                        indexer.scorethem()
    np.save(answer, np.array(indexer.ubis, float).reshape(-1, 3, 3))


if __name__ == "__main__":
    _in_own_process(*map(Path, sys.argv[1:]))

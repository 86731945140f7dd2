"""Grains of known truth through the indexer and the refinement: found, false, and errors against theory, by spot error.

    python benchmarks/grains_simulated.py [--output benchmarks/grains_simulated.json]

Grains of gold, drawn at random within 0.5 mm of the axis and 0.1 mm along it, with strains of 2e-4. The forward model
lists their spots on one tilted panel of 200 um pixels in a full turn; normal errors of known size are added to row, col
and omega (0.01 degrees over |sin eta|). In *weights* the errors' sigma differs from spot to spot (log-normal), and the
refinement is told it or not. In *bias* all columns, or all rows, are off by 0.05 px; `said` is what the command says
of it. No frames are made, so this says nothing of a locator. By theory the standard
deviation of a position is pixel * s / sqrt(n) along the axis, and sqrt(2) times that across it.

Times are processor seconds of one thread. Simulation and refinement share the geometry; that it is right is shown by
the tests, against ImageD11.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from braggnn_edge.grains import instrument
from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.diagnose import offsets
from braggnn_edge.grains.forward import spots_of
from braggnn_edge.grains.geometry import Instrument
from braggnn_edge.grains.grains import refined
from braggnn_edge.grains.index import IndexSpec, index
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.spots import Spots

GOLD, PIXEL, WAVELENGTH, STEP = Lattice((4.0782,) * 3 + (90.0,) * 3, "F"), 0.2, 0.172979, np.radians(0.25)
OMEGA_ERROR = np.radians(0.01)


def panel(rows: int, distance: float, tilted: bool = True) -> Instrument:
    tilts = {"tilt_x": 0.005, "tilt_y": 0.01, "tilt_z": -0.007} if tilted else {}
    found = instrument.from_keys({
        "distance": 1e3 * distance, "y_center": rows / 2, "z_center": rows / 2, "y_size": 1e3 * PIXEL,
        "z_size": 1e3 * PIXEL, "o11": -1, "o22": -1, "wavelength": WAVELENGTH, **tilts,
    })  # fmt: skip
    return replace(found, panels=(replace(found.panels[0], rows=rows, cols=rows),))


def grains(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """UB, orientations, and positions in mm."""
    rng = np.random.default_rng(seed)
    turns = Rotation.random(count, random_state=seed).as_matrix()
    strain = 2e-4 * rng.standard_normal((count, 3, 3))
    cells = (np.eye(3) + (strain + strain.swapaxes(1, 2)) / 2) @ turns @ GOLD.a_matrix
    return np.linalg.inv(cells).swapaxes(1, 2), turns, rng.uniform([-0.35, -0.35, -0.1], [0.35, 0.35, 0.1], (count, 3))


def listed(
    geometry: Instrument,
    ub: np.ndarray,
    position: np.ndarray,
    error: float,
    seed: int,
    bias: tuple[float, float] = (0.0, 0.0),
    spread: float = 0.0,
) -> Spots:
    """Spots of all grains with errors; bias: px, of all rows and columns; spread: of the logarithm of the sigma."""
    rng = np.random.default_rng(seed)
    rows = geometry.panels[0].rows
    longest = 2 * np.sin(np.arctan(rows / 2 * PIXEL / geometry.distance) / 2) / WAVELENGTH
    hkl = GOLD.reflections(longest)
    seen = [spots_of(geometry, u, t, hkl) for u, t in zip(ub, position, strict=True)]
    row, col, omega = (np.concatenate([getattr(one, name) for one in seen]) for name in ("row", "col", "omega"))
    lorentz = np.concatenate(
        [geometry.lorentz(hkl[s.reflection] @ u.T, s.omega) for s, u in zip(seen, ub, strict=True)]
    )
    count = len(row)
    zero, sigma = np.zeros(count, np.int64), error * np.exp(spread * rng.standard_normal(count))
    row, col = (at + off + sigma * rng.standard_normal(count) for at, off in zip((row, col), bias, strict=True))
    omega = omega + OMEGA_ERROR * rng.standard_normal(count) / lorentz
    turn = np.array([[-np.pi, np.pi]])
    return Spots(
        zero,
        zero,
        np.arange(count),
        row,
        col,
        sigma,
        sigma,
        omega,
        np.full(count, 0.1 * STEP),
        np.full(count, 3),
        np.ones(count),
        turn,
        STEP,
    )


def measured(
    count: int,
    rows: int,
    distance: float,
    error: float,
    bias: tuple[float, float] = (0.0, 0.0),
    spread: float = 0.0,
    known: bool = True,
) -> dict[str, Any]:
    """known: whether the refinement is told the sigma of each spot, or one for all."""
    seed = 1
    geometry = panel(rows, distance)
    ub, turns, position = grains(count, seed)
    spots = listed(geometry, ub, position, error, seed + 1, bias, spread)
    if not known:
        spots = replace(spots, sigma_row=np.full(len(spots), error), sigma_col=np.full(len(spots), error))
    scene = Scene(geometry, spots, GOLD, 0.5)
    start = time.process_time()
    seeds = index(scene, IndexSpec())
    between = time.process_time()
    found = refined(scene, seeds, 20)
    end = time.process_time()
    angle = np.array([GOLD.misorientation(turns, GOLD.orientation_and_strain(g.ub)[0]) for g in found.grains])
    of, good = angle.argmin(1), angle.min(1) < 0.25
    away = 1e3 * (np.array([g.position for g in found.grains]) - position[of])[good]
    theory = 1e3 * PIXEL * error * np.sqrt(np.mean([1 / len(g.spots) for g in found.grains]))
    distinct = len(set(of[good].tolist()))
    sigma = 1e3 * np.sqrt(np.mean([np.diag(g.covariance)[:3] for g in found.grains], axis=0))
    rms = np.sqrt(np.square(away).mean(0))
    residual = np.median(np.concatenate([g.residual[:, :2] for g in found.grains]), axis=0)
    return {
        "grains": count, "rows": rows, "distance_mm": distance, "error_px": error, "bias_px": bias,
        "sigma_spread": spread, "sigma_known": known,
        "spots": len(spots), "spots_a_grain": float(np.median([len(g.spots) for g in found.grains])),
        "found": distinct, "false": len(good) - distinct,
        "rms_um": rms.round(2).tolist(), "theory_um": (theory * np.array([2**0.5, 2**0.5, 1])).round(2).tolist(),
        "stated_um": sigma.round(2).tolist(),
        "rms_over_theory": round(float(np.linalg.norm(rms)) / (np.sqrt(5) * theory), 3),
        "p50_um": round(float(np.median(np.linalg.norm(away, axis=1))), 2),
        "mean_vector_um": away.mean(0).round(2).tolist(),
        "misorientation_p50_deg": round(float(np.median(angle.min(1))), 5),
        "median_residual_px": residual.round(3).tolist(), "said": list(offsets(scene, found)),
        "completeness_least": round(float(found.completeness.min()), 3),
        "index_s": round(between - start, 1), "refine_s": round(end - between, 1),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/grains_simulated.json"))
    arguments = parser.parse_args()
    document: dict[str, Any] = {"errors": [], "bias": [], "weights": [], "large": []}
    for error in (0.05, 0.1, 0.2, 0.3):
        document["errors"].append(measured(100, 1024, 500.0, error))
    for bias in ((0.0, 0.05), (0.05, 0.0)):
        document["bias"].append(measured(100, 1024, 500.0, 0.1, bias=bias))
    for known in (True, False):
        document["weights"].append(measured(100, 1024, 500.0, 0.1, spread=0.8, known=known))
    document["large"].append(measured(400, 2048, 1000.0, 0.1))
    arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

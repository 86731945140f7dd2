"""Grains: the geometry against ImageD11's, lattices, and simulated grains of known truth through the command."""

import csv
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggnn_edge import cli
from braggnn_edge.core.errors import UserError
from braggnn_edge.grains import grain_file, instrument
from braggnn_edge.grains.crystal import Lattice, lattice_of
from braggnn_edge.grains.forward import covered, spots_of
from braggnn_edge.grains.geometry import Instrument, nearest
from braggnn_edge.grains.index import IndexSpec
from braggnn_edge.grains.match import Scene
from braggnn_edge.grains.opposite import said_of_omega
from braggnn_edge.grains.size import relative_volumes
from braggnn_edge.grains.spots import files_of, flipped, load
from braggnn_edge.grains.table import FLAG_WORDS, GrainFlag
from braggnn_edge.peaks import peak_file
from braggnn_edge.peaks.peak_file import About
from braggnn_edge.peaks.peak_list import PEAKS, REFLECTIONS, PeakFlag

GOLD = Lattice((4.0782,) * 3 + (90.0,) * 3, "F")
ROWS, DISTANCE, PIXEL, WAVELENGTH, STEP = 1024, 500.0, 0.2, 0.172979, 0.25
KEYS = {"distance": 1e3 * DISTANCE, "y_center": 508.3, "z_center": 514.1, "y_size": 200.0, "z_size": 200.0,
        "tilt_x": 0.005, "tilt_y": 0.010, "tilt_z": -0.007, "o11": -1.0, "o22": -1.0,
        "wavelength": WAVELENGTH}  # fmt: skip
CASES = json.loads((Path(__file__).parent / "golden/imaged11_geometry.json").read_text())


def par(path: Path, **changes: float) -> Path:
    """An ImageD11 parameter file."""
    path.write_text("".join(f"{key} {value}\n" for key, value in (KEYS | changes).items()))
    return path


# --- geometry


@pytest.mark.parametrize("case", CASES, ids=["upright", "turned frames, wedge and chi", "wedge"])
def test_geometry_is_imaged11s(case) -> None:
    """Numbers that ImageD11 2.1.3 gave: laboratory, reciprocal space, and back."""
    found = instrument.from_keys(case["keys"])
    row, col, omega = (np.array(case[name]) for name in ("row", "col", "omega"))
    panel, omega, position = np.zeros(len(row), int), np.radians(omega), np.array(case["position"]) / 1e3
    xyz = found.laboratory(panel, row, col)
    np.testing.assert_allclose(1e3 * xyz, case["xyz"], rtol=1e-9, atol=1e-6)
    vectors = found.reciprocal(xyz, omega, position)
    np.testing.assert_allclose(vectors, case["reciprocal"], rtol=1e-9, atol=1e-12)
    back = found.project(np.array(case["reciprocal"]), omega, position, panel)
    np.testing.assert_allclose(back, [row, col], rtol=1e-9)
    np.testing.assert_allclose(nearest(found.omegas(np.array(case["reciprocal"])), omega), omega, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_geometry_against_imaged11_itself(case) -> None:
    transform = pytest.importorskip("ImageD11.transform", reason="ImageD11 is not installed (extra `imaged11`)")
    rng = np.random.default_rng(5)
    row, col, omega = [*rng.uniform(0, 2000, (2, 50)).tolist(), rng.uniform(-400, 400, 50)]
    t = dict(zip(("t_x", "t_y", "t_z"), case["position"], strict=True))
    keys, turned = case["keys"], omega * case["keys"]["omegasign"]
    two_theta, eta = transform.compute_tth_eta([row, col], omega=turned, **t, **keys)
    theirs = transform.compute_g_vectors(two_theta, eta, turned, keys["wavelength"], keys["wedge"], keys["chi"]).T
    found = instrument.from_keys(keys)
    xyz = found.laboratory(np.zeros(50, int), np.array(row), np.array(col))
    ours = found.reciprocal(xyz, np.radians(omega), np.array(case["position"]) / 1e3)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_lorentz_is_sine_of_eta_without_a_tilted_stage() -> None:
    found, case = instrument.from_keys(CASES[0]["keys"]), CASES[0]
    sine = np.abs(np.sin(np.radians(case["eta"])))
    got = found.lorentz(np.array(case["reciprocal"]), np.radians(case["omega"]))
    np.testing.assert_allclose(got, sine, rtol=1e-9)


HEXRD = """
beam: {energy: 41.9906, vector: {azimuth: 90.0, polar_angle: 90.0}}
detectors:
  ff1_0_0: &tile
    pixels: {rows: 10, columns: 20, size: [0.1, 0.2]}
    transform: {tilt: [0.0, 0.0, 0.0], translation: [30.0, 5.0, -600.0]}
  ff1_1_0: *tile
oscillation_stage: {chi: 0.02, translation: [0.0, 0.0, 1.0]}
"""


def test_hexrd_panels(tmp_path: Path) -> None:
    """By hand: x = -z, y = -x, z = y; rows go down, columns to +x of HEXRD, so to -y; the origin is the stage."""
    path = tmp_path / "instrument.yml"
    path.write_text(HEXRD)
    found = instrument.read(path)
    corner = found.laboratory(np.zeros(1, int), np.zeros(1), np.zeros(1))[0]
    np.testing.assert_allclose(corner, [601.0, -(30.0 - 9.5 * 0.2), 5.0 + 4.5 * 0.1])
    np.testing.assert_allclose(found.panels[0].fast, [0, -0.2, 0], atol=1e-12)
    np.testing.assert_allclose(found.panels[0].slow, [0, 0, -0.1], atol=1e-12)
    np.testing.assert_allclose(found.wavelength, 12.39841984 / 41.9906, rtol=1e-8)
    # chi is right-handed about HEXRD's x, which is -y here, as ImageD11's wedge is.
    np.testing.assert_allclose(found.stage, instrument.from_keys(KEYS | {"wedge": np.degrees(0.02)}).stage, atol=1e-12)
    assert [(panel.group, panel.first_row, panel.first_col) for panel in found.panels] == [
        ("ff1", 0, 0),
        ("ff1", 10, 0),
    ]
    assert np.allclose(found.beam, [1, 0, 0])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yml", "beam: {energy: 40}", "key is missing"),
        ("a.yml", HEXRD.replace("transform: {tilt", "distortion: {f: 1}\n    transform: {tilt"), "has a distortion"),
        ("a.yml", "{", "not such a file"),
        ("a.par", "distance 1000\n", "y_center is missing"),
        ("a.par", "\n".join(f"{k} {v}" for k, v in (KEYS | {"o11": 0.0, "o22": 0.0}).items()), "one direction"),
        ("a.par", "\n".join(f"{k} {v}" for k, v in (KEYS | {"distance": "far"}).items()), "not a number"),
        ("a.toml", "distanse = 3", "unknown key 'distanse'"),
        ("a.json", "{}", "expected .yml"),
    ],
)
def test_instruments_that_are_none(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        instrument.read(tmp_path / name)


# --- crystals


@pytest.mark.parametrize(
    ("cell", "centring", "operators"),
    [
        ((4.0, 4.0, 4.0, 90, 90, 90), "F", 24), ((3, 3, 5, 90, 90, 120), "P", 12),
        ((4.76, 4.76, 13, 90, 90, 120), "R", 6),
        ((3, 3, 5, 90, 90, 90), "I", 8), ((3, 4, 5, 90, 90, 90), "C", 4), ((3, 4, 5, 90, 100, 90), "P", 2),
        ((3, 4, 5, 80, 100, 110), "P", 1), ((5, 5, 5, 70, 70, 70), "P", 6),
    ],
)  # fmt: skip
def test_symmetry(cell, centring: str, operators: int) -> None:
    lattice = Lattice(cell, centring)
    assert len(lattice.symmetry) == operators
    np.testing.assert_allclose(np.linalg.det(lattice.symmetry), 1)
    turned = Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix()
    equal = turned @ lattice.symmetry[-1] @ Rotation.from_rotvec([0, 0, np.radians(0.01)]).as_matrix()
    assert lattice.misorientation(turned, equal) == pytest.approx(0.01, rel=1e-6)


def test_reflections_by_centring() -> None:
    """The extinction rules as textbooks have them, and the lengths in a monoclinic cell."""
    rules = {
        "P": lambda h, k, m: True, "A": lambda h, k, m: (k + m) % 2 == 0, "B": lambda h, k, m: (h + m) % 2 == 0,
        "C": lambda h, k, m: (h + k) % 2 == 0, "I": lambda h, k, m: (h + k + m) % 2 == 0,
        "F": lambda h, k, m: h % 2 == k % 2 == m % 2, "R": lambda h, k, m: (-h + k + m) % 3 == 0,
    }  # fmt: skip
    sine, cosine = np.sin(np.radians(105)), np.cos(np.radians(105))
    within = {
        (h, k, m)
        for h, k, m in itertools.product(range(-4, 5), range(-5, 6), range(-6, 7))
        if 0 < ((h / 3) ** 2 + (m / 5) ** 2 - 2 * h * m / 15 * cosine) / sine**2 + (k / 4) ** 2 <= 1
    }
    for centring, rule in rules.items():
        got = Lattice((3.0, 4.0, 5.0, 90.0, 105.0, 90.0), centring).reflections(1.0)
        assert {tuple(hkl) for hkl in got.tolist()} == {hkl for hkl in within if rule(*hkl)}


@pytest.mark.parametrize("values", [[1.0, 2.0], [], [-4.0], [3, 4, 5, 10, 100, 120]])
def test_lattices_that_are_none(values) -> None:
    with pytest.raises(UserError, match="lattice"):
        lattice_of(values, "P")


def test_orientation_and_strain_are_found_again() -> None:
    turn = Rotation.from_rotvec([0.3, 1.0, -0.4]).as_matrix()
    strain = np.array([[1e-3, 2e-4, 0], [2e-4, -5e-4, 1e-4], [0, 1e-4, 3e-4]])
    lattice = Lattice((3, 4, 5, 80, 100, 110))
    cell = (np.eye(3) + strain) @ turn @ lattice.a_matrix
    got_turn, got_strain = lattice.orientation_and_strain(np.linalg.inv(cell).T)
    np.testing.assert_allclose(got_turn, turn, atol=1e-12)
    np.testing.assert_allclose(got_strain, strain, atol=1e-12)


# --- simulated grains


def truth(count: int, seed: int = 1, strain: float = 2e-4, lattice: Lattice = GOLD) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    turns = Rotation.random(count, random_state=seed).as_matrix()
    strains = strain * rng.standard_normal((count, 3, 3))
    strains = (strains + strains.swapaxes(1, 2)) / 2
    return {
        "position": rng.uniform([-0.3, -0.3, -0.1], [0.3, 0.3, 0.1], (count, 3)), "u": turns, "strain": strains,
        "ub": np.linalg.inv((np.eye(3) + strains) @ turns @ lattice.a_matrix).swapaxes(1, 2),
        "size": 60 * np.exp(0.35 * rng.standard_normal(count)),
    }  # fmt: skip


def sized(path: Path) -> Instrument:
    found = instrument.read(path)
    return replace(found, panels=(replace(found.panels[0], rows=ROWS, cols=ROWS),))


def listed(path: Path, geometry: Instrument, grains: dict[str, np.ndarray], turn: float = 360.0, error: float = 0.1,
           bias: tuple[float, float] = (0.0, 0.0), noise: int = 0, seed: int = 3,
           step: float = STEP, lattice: Lattice = GOLD) -> Path:  # fmt: skip
    """Reflections of grains as `merge` would list them, over ``turn`` degrees from 0; errors in px."""
    rng = np.random.default_rng(seed)
    hkl, parts = lattice.reflections(2 * np.sin(0.2 / 2) / WAVELENGTH), []
    for number, (ub, position) in enumerate(zip(grains["ub"], grains["position"], strict=True)):
        seen = spots_of(geometry, ub, position, hkl)
        inside = covered(seen.omega, np.radians([[0.0, turn]]))
        vectors = (hkl @ ub.T)[seen.reflection][inside]
        lorentz = geometry.lorentz(vectors, seen.omega[inside])
        rows = np.zeros(int(inside.sum()), REFLECTIONS)
        rows["row"], rows["col"] = seen.row[inside] + bias[0], seen.col[inside] + bias[1]
        rows["omega"] = np.degrees(seen.omega[inside]) % 360 + 0.01 * rng.standard_normal(len(rows)) / lorentz
        length = np.linalg.norm(vectors, axis=1)
        factor = np.exp(-length) / (np.sin(2 * np.arcsin(WAVELENGTH * length / 2)) * lorentz)
        rows["intensity"] = grains["size"][number] ** 3 * factor
        parts.append(rows)
    rows = np.concatenate(parts) if parts else np.zeros(0, REFLECTIONS)
    extra = np.zeros(noise, REFLECTIONS)
    extra["row"], extra["col"], extra["omega"] = rng.uniform(0, [[ROWS - 1], [ROWS - 1], [turn]], (3, noise))
    rows = np.concatenate([rows, extra])
    rng.shuffle(rows)
    for axis in ("row", "col"):
        rows[axis] += error * rng.standard_normal(len(rows))
        rows[f"sigma_{axis}"] = rows[f"weighted_sigma_{axis}"] = max(error, 0.01)
        rows[f"weighted_{axis}"] = rows[axis]
    rows["frames"] = 3
    start = step * np.arange(round(turn / step))
    peak_file.save(path, rows, About(("scan",), (len(start), ROWS, ROWS), np.stack([start, start + step], 1)))
    return path


def run(*words: object) -> int:
    return cli.main(["grains", *map(str, words)])


def options(tmp_path: Path, **changes: float) -> list[object]:
    return ["--instrument", par(tmp_path / "gold.par", **changes), "--lattice", 4.0782, "--centring", "F"]


def paired(rows: np.ndarray, grains: dict[str, np.ndarray], lattice: Lattice = GOLD) -> np.ndarray:
    """The true grain of each row, within half a degree; -1 for none."""
    angle = np.array([lattice.misorientation(grains["u"], turn) for turn in grain_file.matrices(rows, "u")])
    return np.where(angle.min(1) < 0.5, angle.argmin(1), -1)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Twelve grains among 300 spots of nothing, found by the command."""
    folder, grains = tmp_path_factory.mktemp("grains"), truth(12)
    file = par(folder / "gold.par")
    reflections = listed(folder / "reflections.h5", sized(file), grains, noise=300)
    outputs = [
        word for suffix in ("h5", "csv", "out", "map", "flt", "par") for word in ("-o", folder / f"grains.{suffix}")
    ]
    total = np.pi / 6 * (grains["size"] ** 3).sum() * 1e-9
    assert run(reflections, *options(folder), *outputs, "--total-volume", total) == 0
    return {"folder": folder, "truth": grains, "result": grain_file.load(folder / "grains.h5"), "list": reflections}


def test_all_grains_are_found_and_none_is_false(found) -> None:
    rows = found["result"].grains
    assert sorted(paired(rows, found["truth"]).tolist()) == list(range(12))
    assert rows["completeness"].min() > 0.97
    assert not rows["flags"].any()


@pytest.mark.parametrize(
    "lattice",
    [
        Lattice((2.95, 2.95, 4.68, 90, 90, 120)), Lattice((2.95, 2.95, 4.68, 90, 90, 90)),
        Lattice((4.6, 4.6, 2.96, 90, 90, 90)), Lattice((3.0, 4.1, 7.3, 90, 90, 90)), Lattice((3.9,) * 3 + (90,) * 3),
    ],
    ids=["hexagonal", "long tetragonal", "short tetragonal", "orthorhombic", "cubic"],
)  # fmt: skip
def test_primitive_lattices(tmp_path: Path, lattice: Lattice) -> None:
    """Their smallest rings are of parallel reflections, 001 and 002, which fix no orientation; frames of a degree."""
    file = par(tmp_path / "p.par", distance=3e5)
    grains = truth(5, seed=4, lattice=lattice)
    path = listed(tmp_path / "p.h5", sized(file), grains, turn=90.0, noise=300, step=1.0, lattice=lattice)
    cell = ["--lattice", *lattice.cell, "--centring", lattice.centring]
    assert run(path, "--instrument", file, *cell, "-o", tmp_path / "grains.h5") == 0
    assert sorted(paired(grain_file.load(tmp_path / "grains.h5").grains, grains, lattice)) == list(range(5))


def test_a_grain_without_spots_of_the_smallest_rings(tmp_path: Path) -> None:
    """A quarter of a turn shows some grain none of the rings of six reflections, with which a search begins."""
    lattice = Lattice((2.95, 2.95, 4.68, 90, 90, 120))
    file, grains = par(tmp_path / "ti.par", distance=3e5), truth(3, seed=4, lattice=lattice)
    path = listed(tmp_path / "whole.h5", sized(file), grains, turn=90.0, error=0.05, lattice=lattice)
    rows, about = peak_file.load(path, "reflections")
    hkl = lattice.reflections(2 * np.sin(0.1) / WAVELENGTH)
    ring = lattice.rings(hkl)[1]
    few = hkl[np.bincount(ring)[ring] <= 6]
    seen = spots_of(sized(file), grains["ub"][0], grains["position"][0], few)
    gone = [np.hypot(rows["row"] - row, rows["col"] - col) < 1 for row, col in zip(seen.row, seen.col, strict=True)]
    lost = np.any(gone, axis=0)
    assert 3 < lost.sum() < 30
    peak_file.save(tmp_path / "part.h5", rows[~lost], about)
    cell = ["--lattice", *lattice.cell]
    assert run(tmp_path / "part.h5", "--instrument", file, *cell, "-o", tmp_path / "grains.h5") == 0
    assert sorted(paired(grain_file.load(tmp_path / "grains.h5").grains, grains, lattice)) == [0, 1, 2]


def test_errors_are_those_of_theory(found) -> None:
    """Positions: pixel * s / sqrt(n) along the axis, sqrt(2) times that across it, in the root mean square.

    Of 12 grains the mean square has a relative standard deviation of sqrt(2 / 36) = 0.24, its root 0.12; three such.
    """
    rows, grains = found["result"].grains, found["truth"]
    of = paired(rows, grains)
    away = grain_file.positions(rows) - 1e3 * grains["position"][of]
    theory = np.sqrt(5 / rows["spots"].mean()) * 1e3 * PIXEL * 0.1
    assert np.sqrt(np.square(away).sum(1).mean()) == pytest.approx(theory, rel=0.36)
    sigma = np.stack([rows[f"sigma_position_{axis}"] for axis in "xyz"], 1)
    assert np.sqrt(np.square(away / sigma).mean()) == pytest.approx(1.0, rel=0.36)
    angle = np.array(
        [GOLD.misorientation(grains["u"][i], u) for i, u in zip(of, grain_file.matrices(rows, "u"), strict=True)]
    )
    assert angle.max() < 0.005
    strain = grain_file.stretches(rows) - np.eye(3) - grains["strain"][of]
    assert np.abs(strain).max() < 1e-4
    spread = np.sqrt(np.mean([np.square(rows[f"sigma_strain_{name}"]) for name in ("xx", "yy", "zz")]))
    assert np.sqrt(np.square(strain[:, range(3), range(3)]).mean()) == pytest.approx(spread, rel=0.4)
    assert rows["rms_row"] == pytest.approx(0.1, rel=0.25)


def test_sizes(found) -> None:
    rows = found["result"].grains
    np.testing.assert_allclose(rows["size"], found["truth"]["size"][paired(rows, found["truth"])], rtol=1e-3)
    assert np.median(rows["relative_volume"]) == pytest.approx(1, rel=0.2)


def test_spots_of_the_table_are_rows_of_the_list(found) -> None:
    result = found["result"]
    reflections, _ = peak_file.load(found["list"], "reflections")
    assert (reflections["intensity"][result.spots["reflection"]] > 0).mean() > 0.98  # that of noise is 0
    assert len(np.unique(result.spots["reflection"])) == len(result.spots)
    assert result.lists == ("reflections.h5",)
    with h5py.File(found["folder"] / "grains.h5") as file:
        assert file["entry/grains/position_x"].attrs["units"] == "um"


def test_other_layouts_say_the_same(found) -> None:
    rows, folder = found["result"].grains, found["folder"]
    with (folder / "grains.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["position_y"]) for row in table] == rows["position_y"].tolist()
    theirs = np.loadtxt(folder / "grains.out")
    # HEXRD's axes in ours: x = -z, y = -x, z = y
    position = np.stack([-theirs[:, 8], -theirs[:, 6], theirs[:, 7]], 1)
    np.testing.assert_allclose(1e3 * position, grain_file.positions(rows), atol=1e-9)
    turn = Rotation.from_rotvec(theirs[:, 3:6]).as_matrix()[:, [2, 0, 1]] * np.array([-1, -1, 1])[:, None]
    np.testing.assert_allclose(turn, grain_file.matrices(rows, "u"), atol=1e-9)
    np.testing.assert_allclose(1 / theirs[:, 11] - 1, rows["strain_xx"], atol=1e-6)
    lines = (folder / "grains.map").read_text().split("#UBI:\n")[1].split()[:9]
    np.testing.assert_allclose(
        np.linalg.inv(np.reshape(lines, (3, 3)).astype(float)), grain_file.matrices(rows, "ub")[0]
    )


def test_map_is_read_by_imaged11(found) -> None:
    grain = pytest.importorskip("ImageD11.grain", reason="ImageD11 is not installed (extra `imaged11`)")
    read = grain.read_grain_file(str(found["folder"] / "grains.map"))
    np.testing.assert_allclose(
        [one.translation for one in read], grain_file.positions(found["result"].grains), atol=1e-5
    )


def test_fixed_assignment_refines_the_same_spots(found, tmp_path: Path) -> None:
    """The same list gives the same grains; one with a bias along the axis moves each by it, and by nothing else."""
    before, folder = found["result"], found["folder"]
    bias = 0.05
    rows, about = peak_file.load(found["list"], "reflections")
    rows["weighted_row"] += bias
    peak_file.save(tmp_path / "moved.h5", rows, about)
    words = [*options(tmp_path), "--assignment", folder / "grains.h5"]
    assert run(found["list"], *words, "-o", tmp_path / "same.h5") == 0
    assert run(tmp_path / "moved.h5", *words, "-o", tmp_path / "moved_grains.h5") == 0
    same, moved = (grain_file.load(tmp_path / name) for name in ("same.h5", "moved_grains.h5"))
    assert np.array_equal(same.spots["reflection"], before.spots["reflection"])
    np.testing.assert_allclose(grain_file.positions(same.grains), grain_file.positions(before.grains), atol=0.05)
    shift = grain_file.positions(moved.grains) - grain_file.positions(same.grains)
    np.testing.assert_allclose(shift, np.broadcast_to([0, 0, -1e3 * PIXEL * bias], shift.shape), atol=0.6)


# --- several panels


def test_two_tiles_give_the_grains_of_one_panel(found, tmp_path: Path) -> None:
    """The same frames, described as two tiles of one detector in HEXRD's file."""
    whole = sized(par(tmp_path / "gold.par"))
    back = instrument.FROM_HEXRD.T
    panel = whole.panels[0]
    turn = back @ np.stack([panel.fast / PIXEL, -panel.slow / PIXEL, np.cross(panel.fast, -panel.slow) / PIXEL**2], 1)
    energy = instrument.ENERGY_WAVELENGTH / WAVELENGTH
    text = f"beam: {{energy: {energy!r}, vector: {{azimuth: 90, polar_angle: 90}}}}\ndetectors:\n"
    for tile in (0, 1):
        middle = panel.origin + (ROWS / 2 * tile + (ROWS / 2 - 1) / 2) * panel.slow + (ROWS - 1) / 2 * panel.fast
        tilt, place = Rotation.from_matrix(turn).as_rotvec().tolist(), (back @ middle).tolist()
        text += f"  ge_{tile}_0: {{pixels: {{rows: {ROWS // 2}, columns: {ROWS}, size: [{PIXEL}, {PIXEL}]}},"
        text += f" transform: {{tilt: {tilt}, translation: {place}}}}}\n"
    (tmp_path / "instrument.yml").write_text(text)
    words = ["--instrument", tmp_path / "instrument.yml", "--lattice", 4.0782, "--centring", "F"]
    assert run(f"ge={found['list']}", *words, "-o", tmp_path / "grains.h5") == 0
    result = grain_file.load(tmp_path / "grains.h5")
    assert set(result.spots["panel"]) == {0, 1}
    of, before = paired(result.grains, found["truth"]), paired(found["result"].grains, found["truth"])
    assert sorted(of) == list(range(12))
    order = [int(np.flatnonzero(before == number)[0]) for number in of]
    apart = grain_file.positions(result.grains) - grain_file.positions(found["result"].grains)[order]
    assert np.abs(apart).max() < 0.5  # spots near the seam, and outliers, differ


def test_names_of_lists(tmp_path: Path) -> None:
    (tmp_path / "instrument.yml").write_text(HEXRD)
    geometry = instrument.read(tmp_path / "instrument.yml")
    assert files_of(["a.h5"], geometry) == files_of(["ff1=a.h5"], geometry) == {"ff1": Path("a.h5")}
    for words, said in (
        (["ff3=a.h5"], "no detector 'ff3'"),
        (["a", "b"], "2 lists for the 1"),
        (["ff1=a"] * 2, "already"),
    ):
        with pytest.raises(UserError, match=said):
            files_of(words, geometry)


def test_flips() -> None:
    frame = np.arange(12).reshape(3, 4)
    row, col = np.divmod(np.arange(12), 4)
    for name, image in (("v", frame[::-1]), ("h", frame[:, ::-1]), ("t", frame.T), ("vt", frame[::-1].T), ("", frame)):
        moved = flipped(name, row, col, 3, 4)
        assert np.array_equal(image[moved[0], moved[1]], frame.ravel())
        assert moved[2:] == image.shape


# --- input that is wrong, and geometry that is


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Three grains in a full turn."""
    folder, grains = tmp_path_factory.mktemp("few"), truth(3, seed=7)
    return listed(folder / "few.h5", sized(par(folder / "gold.par")), grains), grains


def refused(few, tmp_path: Path, capsys: pytest.CaptureFixture, *words: object) -> str:
    assert run(few[0], *words, "-o", tmp_path / "grains.h5") == 2
    assert not (tmp_path / "grains.h5").exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_wrong_omega_sign_is_named(few, tmp_path, capsys) -> None:
    words = [*options(tmp_path), "--omega-sign", -1]
    said = refused(few, tmp_path, capsys, *words)
    assert "there are some with --omega-sign 1 or --flip h with the beam centre mirrored" in said
    # What cannot be told from the right one: the mirrored sample in mirrored frames.
    words = [*options(tmp_path, y_center=ROWS - 1 - KEYS["y_center"], tilt_x=-0.005, tilt_z=0.007), "--omega-sign", -1]
    assert run(few[0], *words, "--flip", "h", "-o", tmp_path / "grains.h5") == 0


def with_step(path: Path, rows: np.ndarray, about: About, factor: float) -> Path:
    """The list as a wrong step of omega makes it, which is so many times the right one."""
    rows = rows.copy()
    rows["omega"] *= factor
    peak_file.save(path, rows, replace(about, omega=about.omega * factor))
    return path


@pytest.mark.parametrize("factor", [0.5, 2.0, 0.9])
def test_wrong_step_of_omega_is_named_with_the_right_one(few, tmp_path, capsys, factor: float) -> None:
    """Opposite reflections are half a turn apart, which the lists say otherwise."""
    path = with_step(tmp_path / "list.h5", *peak_file.load(few[0], "reflections"), factor)
    assert run(path, *options(tmp_path), "-o", tmp_path / "grains.h5") == 2
    said = capsys.readouterr().err
    assert f"the step of omega, {STEP * factor:.4g} degrees a frame, is wrong" in said
    assert f"are {180 * factor:.1f} degrees apart by it, and must be 180" in said
    assert float(re.search(r"--omega-step ([\d.]+) \(its sign", said)[1]) == pytest.approx(STEP, rel=2e-3)  # type: ignore[index]
    assert "with which there are grains" in said


def test_suspects_are_in_the_order_of_what_the_spots_say(few, tmp_path, capsys) -> None:
    """Rings fit, and no grain is found: because they are outside of what is called the sample, or by omega."""
    words = [*options(tmp_path), "--sample", 0.01, "--completeness", 1, "-o", tmp_path / "grains.h5"]
    assert run(few[0], *words) == 2
    said = capsys.readouterr().err
    assert "though the rings fit" in said
    assert re.search(
        r"the step of omega is right, as \d+ pairs of opposite reflections are 180.0 degrees apart; then", said
    )
    assert said.index("is right") < said.index("then check --sample")
    # A third of a turn that is said to be two thirds should show opposite reflections, and does not.
    geometry = sized(par(tmp_path / "gold.par"))
    third = listed(tmp_path / "third.h5", geometry, few[1], turn=120.0)
    whole = peak_file.load(third, "reflections")
    for factor, words in (2.0, "a wrong step of omega is the first suspect: by it the scan covers 240 degrees"), (
        0.5, "first check that the step of omega is the degrees of the whole scan over its number of frames; less than"
    ):  # fmt: skip
        path = with_step(tmp_path / "list.h5", *whole, factor)
        assert words in said_of_omega(Scene(*load({"panel": path}, geometry), GOLD, 0.5))
    # Maxima of the noise around two bright spots that are opposite by chance, 60 degrees apart, are not many pairs.
    rng, rows = np.random.default_rng(2), np.zeros(120, REFLECTIONS)
    rows["col"], rows["row"], rows["omega"], rows["frames"] = 700.0, 300.0, 20.0, 1
    rows["row"][60:], rows["omega"][60:] = 2 * KEYS["z_center"] - 300.0, 80.0
    for axis in ("row", "col"):
        rows[axis] += rng.uniform(-8, 8, 120)
        rows[f"weighted_{axis}"], rows[f"weighted_sigma_{axis}"] = rows[axis], 0.1
    both = np.concatenate([whole[0], rows])
    path = with_step(tmp_path / "list.h5", both, whole[1], 2.0)
    assert "is the first suspect" in said_of_omega(Scene(*load({"panel": path}, geometry), GOLD, 0.5))


@pytest.mark.parametrize("flip", ["h", "t", "tv"])
def test_flipped_frames_are_named(few, tmp_path, capsys, flip: str) -> None:
    """The beam is not in the middle of these frames, so that a flip moves it."""
    said = refused(few, tmp_path, capsys, *options(tmp_path), "--flip", flip)
    assert "there are some with no --flip;" in said


def test_frames_that_are_mirrored_look_like_a_stage_that_turns_the_other_way(tmp_path, capsys) -> None:
    """With the beam in the middle positions cannot tell flips from each other; all that do are named."""
    middle = {"y_center": (ROWS - 1) / 2, "z_center": (ROWS - 1) / 2, "tilt_x": 0.0, "tilt_y": 0.0, "tilt_z": 0.0}
    path = listed(tmp_path / "few.h5", sized(par(tmp_path / "gold.par", **middle)), truth(2, seed=7))
    words = [path, *options(tmp_path, **middle), "--flip", "h", "-o", tmp_path / "grains.h5"]
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert "some with no --flip or --flip h and --omega-sign -1 or" in said
    assert "(positions cannot tell)" in said


def test_wrong_lattice_is_named_with_the_one_that_would_fit(few, tmp_path, capsys) -> None:
    words = ["--instrument", par(tmp_path / "gold.par"), "--centring", "F", "--lattice", 3.8]
    said = refused(few, tmp_path, capsys, *words)
    cell = float(said.split("divided by")[1].split("(")[1].split(",")[0])
    assert cell == pytest.approx(4.0782, rel=0.005)


@pytest.mark.parametrize(
    ("changes", "cell", "said"),
    [
        ({}, 0.40782, "are these nanometres?"), ({"distance": 500.0}, 4.0782, "expected a distance in micrometres"),
        ({"y_center": 1500.0}, 4.0782, "1500.0) px (row, col), lies outside the frames of 1024 x 1024 px"),
    ],
)  # fmt: skip
def test_another_unit_or_detector_is_named(few, tmp_path, capsys, changes, cell, said) -> None:
    words = ["--instrument", par(tmp_path / "gold.par", **changes), "--centring", "F", "--lattice", cell]
    assert said in refused(few, tmp_path, capsys, *words)


def test_wrong_centring_is_named(few, tmp_path, capsys) -> None:
    words = ["--instrument", par(tmp_path / "gold.par"), "--centring", "P", "--lattice", 3, 4.4, 5.3]
    assert "check --lattice, --centring" in refused(few, tmp_path, capsys, *words)


def test_a_centring_that_forbids_what_is_there_is_said(few, tmp_path, capsys) -> None:
    words = ["--instrument", par(tmp_path / "gold.par"), "--centring", "I", "--lattice", 4.0782]
    assert run(few[0], *words, "-o", tmp_path / "grains.h5") == 0
    out = capsys.readouterr().out
    of, free = re.search(
        r"([\d,]+) of the ([\d,]+) spots without a grain lie on .* --centring I forbids; F", out
    ).groups()  # type: ignore[union-attr]
    assert 0.9 < int(of.replace(",", "")) / int(free.replace(",", "")) <= 1
    assert "multiples" not in out


def test_a_cell_that_is_twice_too_large_is_said(few, tmp_path, capsys) -> None:
    words = ["--instrument", par(tmp_path / "gold.par"), "--centring", "F", "--lattice", 2 * 4.0782]
    assert run(few[0], *words, "-o", tmp_path / "grains.h5") == 0
    assert "all indices are multiples of 2" in capsys.readouterr().out


def test_grains_that_explain_few_spots_are_said(few, tmp_path, capsys) -> None:
    rows, about = peak_file.load(few[0], "reflections")
    rng = np.random.default_rng(1)
    noise = np.tile(rows, 6)
    noise["row"], noise["col"], noise["omega"] = rng.uniform(0, [[1023], [1023], [360]], (3, len(noise)))
    noise["weighted_row"], noise["weighted_col"] = noise["row"], noise["col"]
    peak_file.save(tmp_path / "list.h5", np.concatenate([rows, noise]), about)
    assert run(tmp_path / "list.h5", *options(tmp_path), "-o", tmp_path / "grains.h5") == 0
    assert "NOT EXPLAINED: 14% of the spots" in capsys.readouterr().out


def test_a_lattice_that_is_a_little_off_is_said(few, tmp_path, capsys) -> None:
    words = ["--instrument", par(tmp_path / "gold.par"), "--centring", "F", "--lattice", 4.05]
    assert run(few[0], *words, "-o", tmp_path / "grains.h5") == 0
    said = capsys.readouterr().out
    assert float(said.split("strained by")[1].split()[0]) == pytest.approx(4.0782 / 4.05 - 1, abs=2e-4)


@pytest.mark.parametrize(
    ("real", "given", "said"),
    [
        ((2.95, 2.95, 4.70, 90, 90, 120), (2.95, 2.95, 4.68, 90, 90, 120),
         "c is 4.7000, not 4.68 angstrom (+0.43%); a, b, alpha, beta, gamma fit"),
        ((3.0, 4.1, 6.3, 90, 95.2, 90), (3.0, 4.12, 6.3, 90, 95, 90),
         "b is 4.1000, not 4.12 angstrom (-0.49%), beta is 95.200, not 95 degrees; a, c, alpha, gamma fit"),
        ((2.95, 2.95, 4.68, 90, 90, 120), (2.95, 2.95, 4.68, 90, 90, 120), None),
    ],
    ids=["c", "b and beta", "right"],
)  # fmt: skip
def test_a_parameter_of_the_cell_that_is_off_is_named(tmp_path, capsys, real, given, said: str | None) -> None:
    """It used to be said as a strain in all directions: a third of that of c."""
    lattice = Lattice(real)
    file, grains = par(tmp_path / "p.par", distance=3e5), truth(6, seed=4, strain=5e-5, lattice=lattice)
    path = listed(tmp_path / "p.h5", sized(file), grains, turn=180.0, error=0.05, lattice=lattice)
    assert run(path, "--instrument", file, "--lattice", *given, "-o", tmp_path / "grains.h5") == 0
    out = capsys.readouterr().out
    if said is None:
        assert "--lattice" not in out
        return
    line = next(line for line in out.splitlines() if "--lattice does not fit" in line)
    found, wanted = (re.findall(r"[a-z]+ is ([\d.]+), not", text) for text in (line, said))
    np.testing.assert_allclose(np.array(found, float), np.array(wanted, float), rtol=3e-4)
    skeleton = [re.sub(r"[\d.]+, not|[-+\d.]+%", "", text) for text in (line, said)]
    assert skeleton[1] in skeleton[0]


def test_grains_without_their_first_ring(few, tmp_path) -> None:
    """As where the bright low rings are saturated and left out."""
    rows, about = peak_file.load(few[0], "reflections")
    ring = DISTANCE / PIXEL * np.tan(2 * np.arcsin(WAVELENGTH * np.sqrt(3) / 4.0782 / 2))
    away = np.hypot(rows["row"] - KEYS["z_center"], rows["col"] - KEYS["y_center"])
    kept = (np.abs(away - ring) > 10) | (np.arange(len(rows)) % 9 == 0)
    assert 30 < (~kept).sum() < 60
    peak_file.save(tmp_path / "few.h5", rows[kept], about)
    assert run(tmp_path / "few.h5", *options(tmp_path), "--completeness", 0.9, "-o", tmp_path / "grains.h5") == 0
    assert sorted(paired(grain_file.load(tmp_path / "grains.h5").grains, few[1])) == [0, 1, 2]


@pytest.mark.parametrize(("bias", "said"), [(0.0, None), (0.5, "half a pixel"), (-0.05, "or the network is biased")])
def test_an_offset_of_all_spots_is_named(few, tmp_path, capsys, bias: float, said: str | None) -> None:
    """A beam centre that is off by a bias moves the computed spots to larger columns by it."""
    assert run(few[0], *options(tmp_path, y_center=KEYS["y_center"] + bias), "-o", tmp_path / "grains.h5") == 0
    out = capsys.readouterr().out
    if said is None:
        assert "panel" not in out
        return
    assert said in out
    _, col = re.search(r"\(([-+.\d]+), ([-+.\d]+)\) px", out).groups()  # type: ignore[union-attr]
    assert float(col) == pytest.approx(bias, abs=0.03)
    # The key across the axis of rotation, its value and the right one; that along the axis by the same reasoning alone.
    now, then = re.search(r"y_center is ([\d.]+), try ([\d.]+)", out).groups()  # type: ignore[union-attr]
    assert float(now) == pytest.approx(KEYS["y_center"] + bias, abs=1e-3)
    assert float(then) == pytest.approx(KEYS["y_center"], abs=1e-3 if bias == 0.5 else 0.03)
    along = "such a maker is off by it along both axes: then z_center is 514.100, try 513.600 and y_center is 508.800"
    assert (along in out) == (bias == 0.5)
    assert out.count("z_center") == (bias == 0.5)


def test_half_a_pixel_names_the_key_of_hexrd(few, tmp_path, capsys) -> None:
    """With the translation to try, in mm of HEXRD's axes; the right one is what the offset was made from."""
    panel = sized(par(tmp_path / "gold.par")).panels[0]
    back = instrument.FROM_HEXRD.T
    turn = np.stack([back @ panel.fast, -back @ panel.slow, back @ np.cross(panel.fast, -panel.slow) / PIXEL], 1)
    turn[:, :2] /= PIXEL
    middle = back @ (panel.origin + (ROWS - 1) / 2 * (panel.slow + panel.fast))
    off = middle - 0.5 * back @ panel.fast
    (tmp_path / "instrument.yml").write_text(
        f"beam: {{energy: {12.39841984 / WAVELENGTH}, vector: {{azimuth: 90.0, polar_angle: 90.0}}}}\ndetectors:\n  ge:"
        f" {{pixels: {{rows: {ROWS}, columns: {ROWS}, size: [{PIXEL}, {PIXEL}]}}, transform: {{"
        f"tilt: {Rotation.from_matrix(turn).as_rotvec().tolist()}, translation: {off.tolist()}}}}}\n"
    )
    words = ["--instrument", tmp_path / "instrument.yml", "--lattice", 4.0782, "--centring", "F"]
    assert run(few[0], *words, "-o", tmp_path / "grains.h5") == 0
    out = capsys.readouterr().out
    said = re.search(r"transform.translation of detector ge is \[(.+?)\] mm, try \[(.+?)\]", out).groups()  # type: ignore[union-attr]
    now, then = (np.array(text.split(", "), float) for text in said)
    np.testing.assert_allclose(now, off, atol=1e-4)
    np.testing.assert_allclose(then, middle, atol=1e-4)


def test_part_of_a_turn_does_not_decide_an_offset(few, tmp_path, capsys) -> None:
    """The places of the grains take up a part of it, so that a value is offered as one to try."""
    path = listed(tmp_path / "part.h5", sized(par(tmp_path / "gold.par")), few[1], turn=270.0)
    assert run(path, *options(tmp_path, y_center=KEYS["y_center"] + 0.5), "-o", tmp_path / "grains.h5") == 0
    out = capsys.readouterr().out
    assert "off by more than that, as in 270 degrees" in out
    assert "try it first (y_center is 508.800, try 508.300) and see whether this line goes" in out
    assert "counts pixels from their corners" not in out


def test_half_a_pixel_is_named_where_spots_are_sharp(tmp_path, capsys) -> None:
    """With errors of 0.02 px a grain could fit one half of its spots, which leaves no offset in their residuals."""
    file = par(tmp_path / "gold.par")
    path = listed(tmp_path / "sharp.h5", sized(file), truth(3), error=0.02)
    assert run(path, *options(tmp_path, y_center=KEYS["y_center"] + 0.5), "-o", tmp_path / "grains.h5") == 0
    out = capsys.readouterr().out
    assert "half a pixel" in out
    assert float(re.search(r", ([-+.\d]+)\) px", out)[1]) == pytest.approx(0.5, abs=0.03)  # type: ignore[index]


def test_marks_are_explained_where_they_appear(few, tmp_path, capsys) -> None:
    """Half of the spots of two of three grains are gone, and a tenth of the third's."""
    rows, about = peak_file.load(few[0], "reflections")
    assert run(few[0], *options(tmp_path), "-o", tmp_path / "grains.h5") == 0
    said = capsys.readouterr().out
    assert not any(flag.name in said for flag in GrainFlag)
    spots = grain_file.load(tmp_path / "grains.h5").spots
    lost = spots["reflection"][(spots["grain"] < 2) & (np.arange(len(spots)) % 2 == 0)]
    peak_file.save(tmp_path / "less.h5", np.delete(rows, lost), about)
    words = ["--completeness", 0.3, "-o", tmp_path / "grains.h5"]
    assert run(tmp_path / "less.h5", *options(tmp_path), *words) == 0
    said = capsys.readouterr().out
    assert "  INCOMPLETE: 2 grains with less than 70% of the spots that they should have: faint spots of small" in said
    assert set(FLAG_WORDS) == set(GrainFlag)


def test_equal_weights_use_no_sigma(few, tmp_path) -> None:
    """Only the means that are weighted by sigma are off here, by 0.3 px of 200 um along the axis of rotation."""
    rows, about = peak_file.load(few[0], "reflections")
    rows["weighted_row"] += 0.3
    peak_file.save(tmp_path / "list.h5", rows, about)
    for words, off in ([], 60.0), (["--equal-weights"], 0.0):
        assert run(tmp_path / "list.h5", *options(tmp_path), *words, "-o", tmp_path / "grains.h5") == 0
        result = grain_file.load(tmp_path / "grains.h5")
        assert result.settings["equal_weights"] == bool(words)
        away = grain_file.positions(result.grains) - 1e3 * few[1]["position"][paired(result.grains, few[1])]
        np.testing.assert_allclose(np.abs(away[:, 2]), off, atol=5)


def test_thirty_degrees_are_marked(tmp_path, capsys) -> None:
    grains = truth(2, seed=9)
    path = listed(tmp_path / "narrow.h5", sized(par(tmp_path / "gold.par")), grains, turn=30.0)
    assert run(path, *options(tmp_path), "-o", tmp_path / "grains.h5", "--least", 12) == 0
    assert "NARROW: the scan covers 30 degrees" in capsys.readouterr().out
    rows = grain_file.load(tmp_path / "grains.h5").grains
    assert len(rows) == 2
    assert (rows["flags"] & GrainFlag.NARROW).all()
    away = grain_file.positions(rows) - 1e3 * grains["position"][paired(rows, grains)]
    sigma = np.stack([rows[f"sigma_position_{axis}"] for axis in "xyz"], 1)
    assert sigma.max() > 20  # um, of about 2 with a full turn
    assert (np.abs(away) < 4 * sigma).all()


@pytest.mark.parametrize(
    ("turn", "least", "said"),
    [(30.0, 25, "a grain has about 18; --least 25 asks for more"), (6.0, 8, "expected 8 or more, to fix its 12")],
)
def test_scans_in_which_a_grain_has_too_few_spots_are_named(tmp_path, capsys, turn, least, said) -> None:
    path = listed(tmp_path / "narrow.h5", sized(par(tmp_path / "gold.par")), truth(8, seed=9), turn=turn)
    assert run(path, *options(tmp_path), "-o", tmp_path / "grains.h5", "--least", least) == 2
    assert said in capsys.readouterr().err


def test_a_missing_list_is_made_by_merge(few, tmp_path, capsys) -> None:
    """And so is one of reflections where peaks are given, and one that is no list."""
    rows, about = peak_file.load(few[0], "reflections")
    peak_file.save(tmp_path / "peaks.h5", np.zeros(3, PEAKS), about)
    h5py.File(tmp_path / "other.h5", "w").close()
    for name, said in (("none", "no such file"), ("peaks", "holds peaks; expected"), ("other", "is no list of peaks")):
        assert run(tmp_path / f"{name}.h5", *options(tmp_path), "-o", tmp_path / "grains.h5") == 2
        error = capsys.readouterr().err
        assert said in error
        assert "merge a list of peaks into one of reflections with `braggnn-edge merge`" in error
    peak_file.save(tmp_path / "reflections.h5", rows, about)
    with pytest.raises(UserError, match="holds reflections; expected peaks: make a list of peaks with `braggnn-edge l"):
        peak_file.load(tmp_path / "reflections.h5")
    with pytest.raises(UserError, match=r"no table of grains; .* make it with `braggnn-edge grains`"):
        grain_file.load(tmp_path / "other.h5")


def test_lists_that_cannot_be_used(few, tmp_path, capsys) -> None:
    rows, about = peak_file.load(few[0], "reflections")
    two_scans, cut = rows.copy(), rows.copy()
    two_scans["scan"][::2] = 1
    cut["flags"] |= np.uint32(PeakFlag.CUT)
    for kept, scan, said in (
        (rows[:0], about, "no reflections that can be used"),
        (cut, about, "no reflections that can be used"),
        (rows[:11], about, "11 spots can be used; expected at least 12"),
        (rows, replace(about, omega=np.full((1440, 2), np.nan)), "braggnn-edge merge peaks.h5 --omega-start DEG"),
        (two_scans, about, "expected one scan a list"),
    ):
        peak_file.save(tmp_path / "list.h5", kept, scan)
        assert run(tmp_path / "list.h5", *options(tmp_path), "-o", tmp_path / "out.h5") == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sample", 0], "--sample 0.0: expected a positive"), (["--completeness", 2], "expected a share"),
        (["--least", 5], "expected 8 or more"), (["--flip", "x"], "expected letters of v"),
        (["--total-volume", 1, "--median-size", 5], "give one of them"), (["-o", "grains.txt"], "no layout"),
    ],
)  # fmt: skip
def test_options_that_are_refused(few, tmp_path, capsys, words, said) -> None:
    assert said in refused(few, tmp_path, capsys, *options(tmp_path), *words)


def test_frames_of_another_size_are_refused(few, tmp_path, capsys) -> None:
    (tmp_path / "instrument.yml").write_text(HEXRD)
    words = ["--instrument", tmp_path / "instrument.yml", "--lattice", 4.0782]
    assert "1024 x 1024 px, the instrument's ff1 20 x 20" in refused(few, tmp_path, capsys, *words)


def test_sizes_do_not_ask_how_well_positions_fit(found, tmp_path: Path) -> None:
    """Grains that are off by some um have the sizes that they have in their place; without grains there are none."""
    geometry, spots = load({"panel": found["list"]}, sized(par(tmp_path / "gold.par")))
    scene, grains = Scene(geometry, spots, GOLD, 0.5), found["truth"]
    places = [list(zip(grains["ub"], grains["position"] + off, strict=True)) for off in (0.0, [0.02, -0.01, 0.02])]
    here, away = (relative_volumes(scene, some) for some in places)
    np.testing.assert_allclose(here, (grains["size"] / np.median(grains["size"])) ** 3, rtol=0.02)
    np.testing.assert_allclose(away, here, rtol=2e-3)
    assert len(relative_volumes(scene, [])) == 0


def test_a_share_of_spots_is_a_share() -> None:
    with pytest.raises(UserError, match="above 0"):
        IndexSpec(completeness=0.0)

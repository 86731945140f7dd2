"""Simulated grains against physics: ImageD11's geometry, intensities, rocking, strain, the seam; and found again."""

import dataclasses
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from braggnn_edge import cli
from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.grains import grain_file, instrument
from braggnn_edge.grains.crystal import lattice_of
from braggnn_edge.grains.simulated import table_of
from braggnn_edge.grains.table import GrainFlag
from braggnn_edge.label.spec import ScanSpec, check_scans
from braggnn_edge.peaks import peak_file
from braggnn_edge.simulation.grains import (
    SimulatedGrains,
    cell_of,
    draw_grains,
    hkl_of,
    instrument_file,
    reflections_of,
)
from braggnn_edge.simulation.grains_forward import SLOWEST, diffracted, experiment, longest
from braggnn_edge.simulation.grains_spec import GrainsSpec
from braggnn_edge.simulation.reflections import draw_reflections
from braggnn_edge.simulation.simulate import expected_frame, make_panel, simulate
from braggnn_edge.simulation.spec import SimulationSpec
from braggnn_edge.simulation.truth import read_reflections, read_truth

#: A panel of 256 px, near enough to see 2 theta = 13 degrees.
SMALL = SimulationSpec(
    rows=256, cols=256, frames=360, omega_step=1.0, wavelength=0.172979, distance=150.0, centre=(125.2, 129.9),
    jitter=0.0, least_height=0.0, eta=(0.0, 0.0), background=5.0, hot=0.0, dead=0.0, streaks=0.0, fwhm_median=1.6,
    grains=GrainsSpec(number=3, mosaic=0.8, box=(0.3, 0.3, 0.1)),
)  # fmt: skip
TURNED = dataclasses.replace(
    SMALL,
    grains=dataclasses.replace(
        SMALL.grains, tilts=(0.01, -0.02, 0.03), axes=(0, 1, -1, 0), wedge=2.0, chi=-3.0, omega_sign=-1,
        lattice=(3.0, 4.0, 5.0, 90.0, 105.0, 90.0), centring="C",
    ),
)  # fmt: skip
CASES = json.loads((Path(__file__).parent / "golden/imaged11_geometry.json").read_text())
_FWHM = 2 * np.sqrt(2 * np.log(2))


def with_grains(spec: SimulationSpec, **changes: object) -> SimulationSpec:
    return dataclasses.replace(spec, grains=dataclasses.replace(spec.grains, **changes))


def one_grain(spec: SimulationSpec, **changes: np.ndarray) -> SimulatedGrains:
    """A grain of median size in the origin, turned somehow."""
    plain = SimulatedGrains(
        np.zeros((1, 3)), Rotation.from_rotvec([0.3, 1.0, -0.4]).as_matrix()[None], np.zeros((1, 3, 3)),
        np.array([spec.grains.size]), cell_of(spec.grains),
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


# --- geometry


@pytest.mark.parametrize("case", CASES, ids=["upright", "turned frames, wedge and chi", "wedge"])
def test_forward_model_is_imaged11s(case) -> None:
    """Numbers that ImageD11 2.1.3 gave: each vector of reciprocal space, back to its pixel and its omega."""
    keys = case["keys"]
    table = GrainsSpec(
        tilts=tuple(keys[f"tilt_{axis}"] for axis in "xyz"), wedge=keys.get("wedge", 0.0), chi=keys.get("chi", 0.0),
        axes=tuple(int(keys[f"o{i}"]) for i in (11, 12, 21, 22)), omega_sign=int(keys.get("omegasign", 1)),
    )  # fmt: skip
    spec = SimulationSpec(
        rows=4000, cols=4000, frames=360, omega_step=1.0, centre=(keys["z_center"], keys["y_center"]), grains=table,
        distance=keys["distance"] / 1e3, pixel=keys["y_size"] / 1e3, wavelength=keys["wavelength"],
    )  # fmt: skip
    about, vectors = experiment(spec), np.array(case["reciprocal"])
    down = about.down * keys["z_size"] / keys["y_size"]  # a detector whose pixels are not square
    corner = about.corner + keys["z_center"] * (about.down - down)
    about = dataclasses.replace(about, down=down, corner=corner)
    seen = diffracted(about, np.eye(3), np.array(case["position"]) / 1e3, vectors, slowest=0.0)
    for vector, row, col, omega in zip(vectors, case["row"], case["col"], case["omega"], strict=True):
        which = np.flatnonzero((seen.hkl == vector).all(1))
        away = np.abs((seen.omega[which] - omega + 180) % 360 - 180)
        best = which[away.argmin()]
        np.testing.assert_allclose(away.min(), 0, atol=1e-7)
        np.testing.assert_allclose([seen.row[best], seen.col[best]], [row, col], rtol=1e-9)


@pytest.mark.parametrize("spec", [SMALL, TURNED], ids=["upright", "turned"])
def test_reflections_against_imaged11_itself(spec: SimulationSpec) -> None:
    """Positions go back to UB @ hkl to 1e-9, and ImageD11 knows no reflection of the panel that we do not have."""
    transform = pytest.importorskip("ImageD11.transform", reason="ImageD11 is not installed (extra `imaged11`)")
    keys, grains = tomllib.loads(instrument_file(spec)), draw_grains(spec.grains, 4)
    rows = reflections_of(spec, grains)
    hkl = hkl_of(spec.grains, longest(spec, experiment(spec)) * 1.05)
    for number, (ub, position) in enumerate(zip(grains.ub, 1e3 * grains.position, strict=True)):
        own = rows[rows["grain"] == number]
        moved, turn = dict(zip(("t_x", "t_y", "t_z"), position, strict=True)), own["omega"] * keys["omegasign"]
        two_theta, eta = transform.compute_tth_eta([own["row"], own["col"]], omega=turn, **moved, **keys)
        back = transform.compute_g_vectors(two_theta, eta, turn, keys["wavelength"], keys["wedge"], keys["chi"]).T
        indices = np.stack([own[name] for name in "hkl"], 1)
        np.testing.assert_allclose(back, indices @ ub.T, rtol=1e-9, atol=1e-12)
        two_theta, etas, omegas = transform.uncompute_g_vectors(
            (hkl @ ub.T).T, keys["wavelength"], keys["wedge"], keys["chi"]
        )
        expected = set()
        for eta, omega in zip(etas, omegas, strict=True):
            col, row = transform.compute_xyz_from_tth_eta(two_theta, eta, omega, **moved, **keys)
            on = (two_theta > 0) & (np.abs(row - 127.5) < 128) & (np.abs(col - 127.5) < 128)
            # Without wedge and chi the speed is |sin eta|; with them it is nearly so, and few are that slow.
            on &= np.abs(np.sin(np.radians(eta))) > (0.2 if keys["wedge"] else SLOWEST)
            turns = np.round(omega[on] * keys["omegasign"] % 360, 6)
            expected |= {(*map(int, index), float(turn)) for index, turn in zip(hkl[on], turns, strict=True)}
        on = inside(own, 0)
        ours = {
            (*map(int, index), float(turn))
            for index, turn in zip(indices[on], np.round(own["omega"][on], 6), strict=True)
        }
        assert expected <= ours
        assert len(expected) > 50
        if not keys["wedge"]:
            assert expected == ours


def test_files_say_what_the_simulation_did(tmp_path: Path) -> None:
    """The instrument as the command reads it, and the grains as its own reader has them."""
    path = tmp_path / "scan_instrument.toml"
    path.write_text(instrument_file(TURNED))
    geometry, about = instrument.read(path), experiment(TURNED)
    np.testing.assert_allclose(geometry.panels[0].origin, about.corner, atol=1e-12)
    np.testing.assert_allclose(geometry.panels[0].slow, about.down, atol=1e-15)
    np.testing.assert_allclose(geometry.panels[0].fast, about.right, atol=1e-15)
    np.testing.assert_allclose(geometry.stage, about.stage, atol=1e-15)
    assert geometry.omega_sign == -1
    grains = draw_grains(TURNED.grains, 2)
    rows = table_of(TURNED, grains, draw_reflections(TURNED, 2))
    lattice = lattice_of(TURNED.grains.lattice, "C")
    for row, ub in zip(rows, grains.ub, strict=True):
        turn, strain = lattice.orientation_and_strain(ub)
        np.testing.assert_allclose([row[f"u{i}{j}"] for i in (1, 2, 3) for j in (1, 2, 3)], turn.ravel(), atol=1e-12)
        np.testing.assert_allclose([row["strain_xx"], row["strain_yz"]], [strain[0, 0], strain[1, 2]], atol=1e-12)
    assert np.median(rows["relative_volume"]) == pytest.approx(1)
    np.testing.assert_allclose(rows["size"] ** 3 / rows["relative_volume"], np.median(rows["size"]) ** 3)


# --- intensities, rocking, strain


def test_intensity_is_proportional_to_volume_and_to_the_lorentz_factor() -> None:
    grain = one_grain(SMALL)
    rows = reflections_of(SMALL, grain)
    larger = reflections_of(SMALL, dataclasses.replace(grain, size=2 * grain.size))
    np.testing.assert_allclose(larger["intensity"], 8 * rows["intensity"], rtol=1e-12)
    # Of one ring: what is left is 1 / |sin eta| and the polarization, from the place on the panel alone.
    ring = rows[np.abs(rows["length"] - rows["length"].min()) < 1e-9]
    y, z = ring["col"] - SMALL.centre[1], ring["row"] - SMALL.centre[0]
    ray_y = y * SMALL.pixel / np.sqrt((y**2 + z**2) * SMALL.pixel**2 + SMALL.distance**2)
    sine = np.abs(y) / np.hypot(y, z)
    np.testing.assert_allclose(ring["intensity"], SMALL.grains.intensity * (1 - ray_y**2) / sine, rtol=1e-9)
    assert len(ring) > 8


@dataclasses.dataclass(frozen=True)
class Counted:
    """Reflections, truth rows of all frames, and the counts above the background."""

    reflections: np.ndarray
    truth: np.ndarray
    counts: float

    @property
    def total(self) -> np.ndarray:
        """Counts of each reflection."""
        return np.bincount(self.truth["reflection"], self.truth["total"], len(self.reflections))


def inside(reflections: np.ndarray, margin: float = 8.0) -> np.ndarray:
    """(n,): whether the centre lies that far inside the panel of 256 px."""
    return np.maximum(np.abs(reflections["row"] - 127.5), np.abs(reflections["col"] - 127.5)) < 128 - margin


def counted(spec: SimulationSpec, seed: int) -> Counted:
    reflections, panel = draw_reflections(spec, seed), make_panel(spec, seed)
    frames = [expected_frame(spec, reflections, panel, seed, frame) for frame in range(spec.frames)]
    counts = sum(float((image - panel.background).sum()) for image, _ in frames)
    return Counted(reflections, np.concatenate([truth for _, truth in frames]), counts)


@pytest.fixture(scope="module")
def turn() -> Counted:
    """One grain in a full turn, with Gaussian spots so bright that what lies below one count does not matter."""
    return counted(dataclasses.replace(with_grains(SMALL, number=1, intensity=1e6), frames=180, omega_step=2.0), 46)


def test_counts_of_all_frames_are_the_integrated_intensity(turn: Counted) -> None:
    reflections = turn.reflections
    whole = inside(reflections)
    # Windows and rocking curves end at a height of 1 count: of an area of some px², in a few frames, that is below 100.
    np.testing.assert_allclose(turn.total[whole], reflections["intensity"][whole], rtol=1e-3, atol=100)
    assert turn.counts == pytest.approx(turn.total.sum(), rel=0.02)  # those near the edge lose some
    seam = np.minimum(reflections["omega"], 360 - reflections["omega"]) < 0.1 * reflections["rocking"]
    assert (seam & whole).any()


def test_lorentzian_spots_keep_their_intensity_within_the_window() -> None:
    """Their integral has no end, and is taken over an ellipse that stands for the largest window."""
    spec = dataclasses.replace(
        with_grains(SMALL, number=1, intensity=1e7), frames=20, omega_step=2.0, eta=(0.5, 0.5), fwhm_spread=0.0
    )
    found = counted(spec, 3)
    reflections = found.reflections
    whole = (np.abs(reflections["omega"] - 20) < 20 - 2 * reflections["rocking"]) & (reflections["intensity"] > 1e6)
    whole &= inside(reflections, 38)
    assert whole.sum() > 1
    np.testing.assert_allclose(found.total[whole], reflections["intensity"][whole], rtol=0.02)


def test_a_reflection_at_the_seam_of_the_turn_is_one(turn: Counted) -> None:
    reflections, truth = turn.reflections, turn.truth
    seam = np.flatnonzero(np.minimum(reflections["omega"], 360 - reflections["omega"]) < 0.1 * reflections["rocking"])
    assert len(seam) > 0
    for number in seam:
        frames = set(truth["frame"][truth["reflection"] == number].tolist())
        assert {0, 179} <= frames
        assert all(frame < 20 or frame > 159 for frame in frames)
    places = np.stack([reflections[name] for name in ("h", "k", "l", "omega")], 1).round(6)
    assert len(np.unique(places, axis=0)) == len(reflections)
    assert (truth["grain"] == 0).all()


def test_mosaic_spread_makes_the_rocking_width(turn: Counted) -> None:
    """The spread of omega of crystallites that are turned by a little, and the width of the curve in the frames."""
    grain, about = one_grain(SMALL), experiment(SMALL)
    rng, width = np.random.default_rng(1), np.radians(0.1) / _FWHM
    turned = Rotation.from_rotvec(width * rng.standard_normal((4000, 3))).as_matrix()
    rows = reflections_of(with_grains(SMALL, mosaic=0.1), grain)
    for row in rows[rows["rocking"] < 0.3][::20]:
        vector = grain.ub[0] @ [row[name] for name in "hkl"]
        omega = diffracted(about, np.eye(3), np.zeros(3), turned @ vector).omega
        away = (omega - row["omega"] + 180) % 360 - 180
        # 4000 crystallites: the standard deviation has a relative error of 1 / sqrt(8000); five of those.
        assert _FWHM * away[np.abs(away) < 2].std() == pytest.approx(row["rocking"], rel=0.056)
    reflections, truth = turn.reflections, turn.truth
    some = (np.abs(reflections["omega"] - 180) < 150) & (reflections["intensity"] > 1e5) & inside(reflections)
    some = np.flatnonzero(some)[:20]
    for number in some:
        own = truth[truth["reflection"] == number]
        omega, weight = 2 * own["frame"] + 1, own["total"] / own["total"].sum()
        variance = (weight * (omega - (weight * omega).sum()) ** 2).sum()
        share = np.diff(
            norm(reflections["omega"][number], reflections["rocking"][number] / _FWHM).cdf(range(0, 362, 2))
        )
        middle = np.arange(1, 361, 2)
        expected = (share * (middle - (share * middle).sum()) ** 2).sum()
        assert variance == pytest.approx(expected, rel=0.02)
    assert (reflections["rocking"][some] > 1.5).sum() > 2


def test_strain_moves_rings_by_the_right_amount() -> None:
    """All lengths by the same share: radii by Bragg's law. Along z alone: by the share of z in the direction."""
    strained, grain = 1e-3, one_grain(SMALL)
    for strain in (strained * np.eye(3), np.diag([0.0, 0.0, strained])):
        rows = reflections_of(SMALL, dataclasses.replace(grain, strain=strain[None]))
        hkl = np.stack([rows[name] for name in "hkl"], 1)
        vector = hkl @ grain.ub[0].T
        direction = vector / np.linalg.norm(vector, axis=1, keepdims=True)
        spacing = (1 + np.einsum("ni,ij,nj->n", direction, strain, direction)) / np.linalg.norm(vector, axis=1)
        radius = SMALL.distance / SMALL.pixel * np.tan(2 * np.arcsin(SMALL.wavelength / 2 / spacing))
        found = np.hypot(rows["row"] - SMALL.centre[0], rows["col"] - SMALL.centre[1])
        # What is left out is of second order in the strain: 1e-6 of 200 px.
        np.testing.assert_allclose(found, radius, atol=1e-3)


def test_the_same_grains_for_the_same_seed_and_others_for_another() -> None:
    first, second = draw_grains(SMALL.grains, 1), draw_grains(SMALL.grains, 1)
    assert np.array_equal(first.ub, second.ub)
    assert not np.array_equal(first.ub, draw_grains(SMALL.grains, 2).ub)
    many = draw_grains(GrainsSpec(number=4000, box=(2.0, 2.0, 0.5)), 1)
    assert (np.abs(many.position) <= np.array([1.0, 1.0, 0.25])).all()
    # 4000 of each: five standard errors
    assert np.median(many.size) == pytest.approx(60, rel=5 * 1.25 * 0.35 / np.sqrt(4000))
    assert many.strain.std(0).max() < 2e-4 * (1 + 5 / np.sqrt(8000))
    # Orientations are alike in all directions: a column of U has mean 0 and mean square 1/3 along each axis.
    assert np.abs(many.orientation.mean(0)).max() < 5 / np.sqrt(3 * 4000)
    assert np.abs((many.orientation**2).mean(0) - 1 / 3).max() < 5 * 0.3 / np.sqrt(4000)


# --- bad input


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GrainsSpec(number=0), "number = 0; expected at least 1"),
        (lambda: GrainsSpec(axes=(1, 1, 0, 1)), r"axes = \(1, 1, 0, 1\); expected o11"),
        (lambda: GrainsSpec(axes=(0, 0, 0, 0)), "expected o11, o12, o21, o22"),
        (lambda: GrainsSpec(centring="X"), "centring = 'X'; expected one of P, A"),
        (lambda: GrainsSpec(lattice=(4.0, 5.0)), "expected a, or a b c"),
        (lambda: GrainsSpec(lattice=(3.0, 4.0, 5.0, 10.0, 100.0, 120.0)), "expected a, or a b c"),
        (lambda: GrainsSpec(lattice=(0.0,)), "expected a, or a b c"),
        (lambda: GrainsSpec(lattice=(3.0, 4.0, 5.0, 90.0, 200.0, 90.0)), "expected a, or a b c"),
        (lambda: GrainsSpec(number=5000), "expected room for grains of"),
        (lambda: GrainsSpec(omega_sign=0), "omega_sign = 0; expected 1 or -1"),
        (lambda: GrainsSpec(mosaic=0.0), "mosaic = 0.0; expected a positive number"),
        (lambda: with_grains(SMALL, box=(20.0, 20.0, 40.0)), "box reaches 24.5 mm from the origin; .* at most 15"),
        (lambda: dataclasses.replace(SMALL, frames=361), "turn grains by 361 degrees; expected at most 360"),
        (lambda: dataclasses.replace(SMALL, rings=(40.0,)), "rings = .* has no effect beside a table of grains"),
        (lambda: dataclasses.replace(SMALL, lattice=(3.0,)), "lattice = .* has no effect beside a table of grains"),
    ],
)  # fmt: skip
def test_grains_that_are_none(make, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize("what", ["truth", "grains"])
def test_no_scan_takes_the_name_of_another_ones_files(what: str) -> None:
    with pytest.raises(UserError, match=f"scan name 's_{what}' is that of the {what} of scan 's'; choose another"):
        check_scans((ScanSpec("s"), ScanSpec(f"s_{what}")))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (with_grains(SMALL, lattice=(0.3,)), "no reflection of the lattice .* lies on the panel of 256 x 256 px"),
        (dataclasses.replace(SMALL, distance=50000.0), "no reflection of the lattice"),
        (with_grains(SMALL, lattice=(200.0,)), "reflections up to index .* expected at most 100"),
    ],
)
def test_lattices_that_do_not_fit_the_panel(tmp_path: Path, spec: SimulationSpec, said: str) -> None:
    with pytest.raises(UserError, match=said):
        simulate(spec, 1, tmp_path / "f.h5", tmp_path / "t.h5", workers=1)
    assert list(tmp_path.iterdir()) == []


# --- from frames to grains

SCENE = """
name = "small"
[[scan]]
name = "scan"
threshold = 25.0
[scan.simulate]
rows = 256
cols = 256
frames = {frames}
omega_step = {step}
wavelength = 0.172979
distance = 150.0
centre = [125.2, 129.9]
jitter = 0.0
eta = [0.1, 0.6]
background = 6.0
threshold = 20.0
hot = 0.0
[scan.simulate.grains]
number = 3
mosaic = 0.8
box = [0.3, 0.3, 0.1]
tilts = [0.005, 0.01, -0.007]
"""


def made(folder: Path, frames: int, step: float) -> Path:
    """The folder of the stage "data" of a small scan."""
    (folder / "small.toml").write_text(SCENE.format(frames=frames, step=step))
    words = ["data", "--config", str(folder / "small.toml"), "--runs", str(folder / "runs"), "--workers", "1"]
    assert cli.main(words) == 0
    return folder / "runs/small/data"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Three grains in a full turn, simulated, located, merged and found by the commands."""
    folder = tmp_path_factory.mktemp("chain")
    data = made(folder, 360, 1.0)
    peaks, merged, grains = (folder / f"{name}.h5" for name in ("peaks", "reflections", "grains"))
    words = ["--threshold", "25", "--omega-start", "0", "--omega-step", "1", "--workers", "1", "-o", str(peaks)]
    assert cli.main(["locate", str(data / "scan.h5"), *words]) == 0
    assert cli.main(["merge", str(peaks), "-o", str(merged)]) == 0
    words = ["--instrument", str(data / "scan_instrument.toml"), "--lattice", "4.0782", "--centring", "F"]
    assert cli.main(["grains", str(merged), *words, "--median-size", "60", "-o", str(grains)]) == 0
    return {
        "data": data, "path": merged, "list": peak_file.load(merged, "reflections")[0],
        "found": grain_file.load(grains), "truth": grain_file.load(data / "scan_grains.h5"),
    }  # fmt: skip


def test_grains_are_found_again_within_theory(chain) -> None:
    found, truth = chain["found"].grains, chain["truth"].grains
    assert len(found) == len(truth) == 3
    lattice = lattice_of((4.0782,), "F")
    turns = grain_file.matrices(truth, "u")
    angle = np.array([lattice.misorientation(turns, turn) for turn in grain_file.matrices(found, "u")])
    of = angle.argmin(1)
    assert sorted(of.tolist()) == [0, 1, 2]
    assert angle.min(1).max() < 0.02
    # Errors of spots, from the list and the truth of the very reflections, and what theory makes of them.
    known = read_reflections(chain["data"] / "scan_truth.h5")
    spots, rows = chain["found"].spots, chain["list"]
    error = []
    for spot in spots:
        row, which = rows[spot["reflection"]], known["grain"] == of[spot["grain"]]
        for name in "hkl":
            which &= np.abs(known[name]) == np.abs(spot[name])
        far = np.hypot(known["row"] - row["row"], known["col"] - row["col"]) + np.abs(known["omega"] - row["omega"])
        best = np.flatnonzero(far == far.min())[0]
        error.append([row["row"] - known["row"][best], row["col"] - known["col"][best]])
    spread = np.sqrt(np.square(np.clip(error, -1, 1)).mean())
    away = np.linalg.norm(grain_file.positions(found) - grain_file.positions(truth)[of], axis=1)
    theory = 200.0 * spread * np.sqrt(5 / found["spots"].min())
    assert away.max() < 2 * theory
    assert theory < 10
    assert found["size"] == pytest.approx(truth["size"][of] * 60 / np.median(truth["size"]), rel=0.1)


def test_truth_of_a_scan_of_grains(chain) -> None:
    data = chain["data"]
    reflections, truth = read_reflections(data / "scan_truth.h5"), read_truth(data / "scan_truth.h5")
    assert set(reflections["grain"]) == {0, 1, 2}
    assert np.array_equal(truth["grain"], reflections["grain"][truth["reflection"]])
    np.testing.assert_allclose(truth["row"], reflections["row"][truth["reflection"]], atol=1e-12)  # no jitter
    spots = chain["truth"].spots
    assert np.array_equal(reflections["h"][spots["reflection"]], spots["h"])
    assert chain["truth"].grains["spots"].tolist() == np.bincount(spots["grain"]).tolist()
    assert not chain["truth"].grains["flags"].any()


def test_half_a_pixel_is_found_in_frames(chain, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A geometry that counts pixels from their corners."""
    text = (chain["data"] / "scan_instrument.toml").read_text()
    assert "y_center = 129.9\n" in text
    (tmp_path / "half.toml").write_text(text.replace("y_center = 129.9\n", "y_center = 130.4\n"))
    words = ["--instrument", str(tmp_path / "half.toml"), "--lattice", "4.0782", "--centring", "F"]
    assert cli.main(["grains", str(chain["path"]), *words, "-o", str(tmp_path / "grains.h5")]) == 0
    said = capsys.readouterr().out
    assert "half a pixel, as where its maker counts pixels from their corners" in said
    assert "y_center is 130.400, try 129.900" in said


def test_a_narrow_scan_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = made(tmp_path, 20, 1.0)
    assert "its 20 degrees are few" in capsys.readouterr().out
    rows = grain_file.load(data / "scan_grains.h5").grains
    assert (rows["flags"] & GrainFlag.NARROW).all()
    assert rows["spots"].max() < 40


def test_a_box_that_is_larger_than_the_sample_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "small.toml").write_text(SCENE.format(frames=360, step=1.0) + "[grains]\nsample = 0.2\n")
    words = ["grains", "--config", str(tmp_path / "small.toml"), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert cli.main(words) == 2
    assert "sample 0.2 mm, but the box of the simulated grains reaches 0.218 mm" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*/data"))


def test_a_drawn_scan_has_no_grains(tmp_path: Path) -> None:
    spec = SimulationSpec(rows=64, cols=64, frames=2, reflections=30, rings=(20.0,))
    simulate(spec, 1, tmp_path / "f.h5", tmp_path / "t.h5", workers=1)
    reflections = read_reflections(tmp_path / "t.h5")
    assert set(reflections["grain"]) == {-1} == set(read_truth(tmp_path / "t.h5")["grain"])
    assert (reflections["intensity"] > 0).all()


def test_configuration_of_grains_is_read(tmp_path: Path) -> None:
    cfg = config.load(Path("configs/grains.toml"), stages.tables())
    assert cfg["scan"][0].simulate.grains.number == 20

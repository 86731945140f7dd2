"""The simulator against what it claims: truth, statistics, detector effects, determinism, bad input."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from braggnn_edge.core.config import parse
from braggnn_edge.core.errors import UserError
from braggnn_edge.fit.pseudo_voigt import PARAMETERS
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.simulation.reflections import draw_reflections, share_of_frame
from braggnn_edge.simulation.simulate import (
    TRUTH_DTYPE,
    SimulationSpec,
    add_spots,
    expected_frame,
    make_panel,
    measure,
    read_truth,
    simulate,
)

SMALL = SimulationSpec(rows=192, cols=160, frames=6, reflections=120, rings=(40.0, 70.0), hot=2e-4, dead=2e-4)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _frame(spec: SimulationSpec, seed: int = 1, frame: int = 2) -> tuple[np.ndarray, np.ndarray]:
    return expected_frame(spec, draw_reflections(spec, seed), make_panel(spec, seed), seed, frame)


def test_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    seen: list[int] = []
    for workers in (1, 2):
        paths = tmp_path / f"{workers}.h5", tmp_path / f"{workers}_truth.h5"
        rows = simulate(SMALL, 5, *paths, workers=workers, progress=lambda done, total: seen.append(done))
    assert seen == 2 * [1, 2, 3, 4, 5, 6]
    for name in ("{}.h5", "{}_truth.h5"):
        assert (tmp_path / name.format(1)).read_bytes() == (tmp_path / name.format(2)).read_bytes()
    truth = read_truth(tmp_path / "1_truth.h5")
    assert (len(truth), truth.dtype) == (rows, TRUTH_DTYPE)
    assert rows > 50
    assert len(list(tmp_path.iterdir())) == 4  # nothing left aside
    scan = open_scan("braggnn", tmp_path / "1.h5")
    assert (scan.shape, scan.dtype) == ((6, 192, 160), np.uint16)
    # the hand-packed chunks are what HDF5's own filters would have written
    reflections, panel = draw_reflections(SMALL, 5), make_panel(SMALL, 5)
    for index, frame in scan.frames():
        expected, rows_of = expected_frame(SMALL, reflections, panel, 5, index)
        assert np.array_equal(frame, measure(SMALL, expected, panel, 5, index))
        assert np.array_equal(truth[truth["frame"] == index], rows_of)
    with h5py.File(tmp_path / "1.h5") as file:
        assert file["frames"].chunks == (1, 192, 160)
    simulate(SMALL, 6, tmp_path / "o.h5", tmp_path / "o_truth.h5", workers=1)
    assert not np.array_equal(open_scan("braggnn", tmp_path / "o.h5").frame(0), scan.frame(0))


def test_interruption_leaves_no_file(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(SMALL, 5, tmp_path / "f.h5", tmp_path / "t.h5", workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_reflections_lie_on_rings() -> None:
    spec = dataclasses.replace(SMALL, rows=512, cols=512, reflections=4000, rings=(), neighbours=0.0, ring_strain=0.0)
    spots = draw_reflections(spec, 3)
    radius = np.hypot(spots["row"] - 255.5, spots["col"] - 255.5)
    d = 3.905 / np.sqrt([1, 2, 3, 4, 5, 6, 8])  # h^2 + k^2 + l^2 of a cubic primitive cell; 7 does not occur
    rings = 560 / 0.2 * np.tan(2 * np.arcsin(0.1729 / (2 * d)))
    # radii in the table are rounded to 1e-6 px
    assert np.abs(radius[:, None] - rings).min(1).max() < 1e-5
    for centring, first in (("I", 2), ("F", 3)):
        radii, shares = dataclasses.replace(spec, centring=centring).ring_table()
        assert radii[0] == pytest.approx(560 / 0.2 * np.tan(2 * np.arcsin(0.1729 * np.sqrt(first) / 7.81)), abs=1e-5)
        assert shares.sum() == pytest.approx(1)


def test_drawn_values_are_in_their_ranges() -> None:
    spec = dataclasses.replace(SMALL, reflections=20_000, neighbours=0.3, streaks=0.1, fwhm_spread=0.6)
    spots = draw_reflections(spec, 2)
    own = spots[: spec.reflections]
    # Binomial(20,000, 0.3): 5 standard deviations are 324.
    assert abs(len(spots) - len(own) - 6000) < 324
    assert own["height"].min() >= 30
    assert own["height"].max() <= 50_000
    # log-uniform: half of the heights lie below the geometric mean (5 standard deviations of Binomial(20,000, 0.5))
    assert abs(int((own["height"] < np.sqrt(30 * 50_000)).sum()) - 10_000) < 354
    assert spots["fwhm_minor"].min() >= 1
    assert spots["fwhm_minor"].max() <= 4.5
    assert 0 <= spots["eta"].min() < 0.01
    assert 0.99 < spots["eta"].max() <= 1
    assert (spots["fwhm_major"] >= spots["fwhm_minor"]).all()
    assert 0 <= spots["tilt"].min() <= spots["tilt"].max() < np.pi


def test_companions_are_near_and_rock_together() -> None:
    spec = dataclasses.replace(SMALL, neighbours=1.0, neighbour_distance=(2.0, 5.0), neighbour_ratio=(0.2, 0.8))
    spots = draw_reflections(spec, 2)
    mother, companion = spots[: spec.reflections], spots[spec.reflections :]
    distance = np.hypot(companion["row"] - mother["row"], companion["col"] - mother["col"])
    assert 2 <= distance.min() <= distance.max() <= 5
    ratio = companion["height"] / mother["height"]
    assert 0.2 <= ratio.min() <= ratio.max() <= 0.8
    # the shift is normal with a quarter of the FWHM: 6 standard deviations
    assert (np.abs(companion["omega"] - mother["omega"]) / mother["rocking"]).max() < 1.5


def test_rocking_curve_is_integrated_over_the_frame() -> None:
    spec = dataclasses.replace(SMALL, frames=40, omega_step=0.1)
    spots = draw_reflections(spec, 2)
    spots["omega"], spots["rocking"] = 2.05, np.linspace(0.05, 0.8, len(spots))
    shares = np.array([share_of_frame(spec, spots, frame) for frame in range(40)])
    assert np.allclose(shares[20], 1.0, rtol=1e-12)  # centred on the reflection
    angle = np.linspace(2.1, 2.2, 2001)
    for width, share in zip(spots["rocking"], shares[21], strict=True):
        curve = np.exp(-4 * np.log(2) * ((angle - 2.05) / width) ** 2).mean()
        centred = np.exp(-4 * np.log(2) * ((angle - 2.15) / width) ** 2).mean()
        # trapezoid-like mean of 2,001 samples: relative error about 1e-3 where the curve is steep
        assert share == pytest.approx(curve / centred, rel=5e-3)


def _spots(**columns: float) -> np.ndarray:
    spots = np.zeros(1, draw_reflections(SMALL, 1).dtype)
    for name, value in columns.items():
        spots[name] = value
    return spots


@pytest.mark.parametrize(("major", "minor"), [(1.0, 1.0), (2.5, 1.5), (4.5, 2.0)])
def test_rendered_centroid_is_the_position(major: float, minor: float) -> None:
    spots = _spots(fwhm_major=major, fwhm_minor=minor, tilt=0.7)
    for row, col in ((40.0, 40.0), (40.3, 39.6), (40.49, 40.49)):
        image = np.zeros((81, 81))
        total = add_spots(image, spots, np.array([1000.0]), np.array([[row, col]]), 63)
        assert total[0] == pytest.approx(image.sum(), rel=1e-6)
        # the window holds a Gaussian to one count in 1,000; its volume is pi A F f / (4 ln 2)
        assert image.sum() == pytest.approx(np.pi * 1000 * major * minor / (4 * np.log(2)), rel=5e-3)
        steps = np.arange(81)
        centre = (image.sum(1) @ steps / image.sum(), image.sum(0) @ steps / image.sum())
        # A pixel-integrated profile keeps its centroid; what the window cuts off, below one count in 1,000 a few px
        # away, moves it by less than 0.01 px.
        assert centre == pytest.approx((row, col), abs=0.01)


@pytest.mark.parametrize("major", [3.0, 6.0])
def test_tail_by_pixel_centres_is_as_good_as_integration(major: float) -> None:
    """The two-zone rendering against brute force: 15 x 15 midpoints a pixel."""
    spots = _spots(fwhm_major=major, fwhm_minor=1.2, tilt=2.1, eta=0.8)
    image = np.zeros((63, 63))
    add_spots(image, spots, np.array([10_000.0]), np.array([[31.2, 30.7]]), 63, taper=False)
    sub = (np.arange(63 * 15) - 7) / 15
    dy, dx = sub[:, None] - 31.2, sub[None] - 30.7
    u, v = np.cos(2.1) * dx + np.sin(2.1) * dy, -np.sin(2.1) * dx + np.cos(2.1) * dy
    r2 = (u / major) ** 2 + (v / 1.2) ** 2
    profile = 10_000 * (0.8 / (1 + 4 * r2) + 0.2 * np.exp(-4 * np.log(2) * r2))
    exact = profile.reshape(63, 15, 63, 15).mean((1, 3))
    # midpoints: below (1/15)^2 / 24 of the second derivative, 8 ln 2 A / F^2 (7e-4 A); quadrature: 2e-4 A at 1 px;
    # beyond the core, 8 px away: 1 / (4 * 64) of a tail of 0.8 / (1 + 4 (8 / 3)^2) A, 1e-4 A
    assert np.abs(image - exact).max() < 1e-3 * 10_000


def test_truth_describes_the_frame() -> None:
    spec = dataclasses.replace(
        SMALL, reflections=40, neighbours=0.0, eta=(0.0, 0.0), background_slope=0.0, jitter=0.2, heights=(500.0, 5000.0)
    )
    image, truth = _frame(spec)
    clean = truth[(truth["neighbour"] > 25) & (truth["amplitude"] > 50)]
    clean = clean[(np.abs(clean["row"] - 95.5) < 85) & (np.abs(clean["col"] - 79.5) < 70)]
    assert len(clean) >= 3
    for spot in clean:
        r, c = round(spot["row"]), round(spot["col"])
        window = image[r - 9 : r + 10, c - 9 : c + 10] - spot["background"]
        steps = np.arange(-9, 10)
        assert window.sum() == pytest.approx(spot["total"], rel=0.02)
        # tails cut at one count: 1 / 50 of the height at most, of spots of 10 px2, at 5 px, to one side
        assert window.sum(1) @ steps / window.sum() + r == pytest.approx(spot["row"], abs=0.05)
        assert window.sum(0) @ steps / window.sum() + c == pytest.approx(spot["col"], abs=0.05)
    assert (truth["background"] == 20).all()
    # the jitter moves a reflection from frame to frame
    _, after = _frame(spec, frame=3)
    _, here, there = np.intersect1d(truth["reflection"], after["reflection"], return_indices=True)
    assert 0.05 < np.std(truth["row"][here] - after["row"][there]) < 1.0


def test_poisson_gain_and_read_noise() -> None:
    spec = dataclasses.replace(
        SMALL, rows=400, cols=400, gain=3.0, read_noise=5.0, background=300.0, background_slope=0.0, hot=0, dead=0
    )
    panel = make_panel(spec, 1)
    frame = measure(spec, panel.background, panel, 1, 0).astype(float)
    # Mean 300; variance gain * mean + read noise^2 + 1/12 of rounding = 925.08; n = 160,000, five standard errors.
    variance = 3 * 300 + 25 + 1 / 12
    assert frame.mean() == pytest.approx(300, abs=5 * np.sqrt(variance / frame.size))
    assert frame.var() == pytest.approx(variance, rel=5 * np.sqrt(2.1 / frame.size))
    assert not np.array_equal(frame, measure(spec, panel.background, panel, 1, 1))
    quiet = dataclasses.replace(spec, read_noise=0.0, background=0.0)
    assert not measure(quiet, make_panel(quiet, 1).background, panel, 1, 0).any()


def test_detector_effects() -> None:
    spec = dataclasses.replace(SMALL, threshold=150, saturation=15_800, read_noise=0.0, hot_level=3000.0)
    panel = make_panel(spec, 1)
    assert (len(panel.hot), len(panel.dead)) == (6, 6)
    expected, truth = _frame(dataclasses.replace(spec, heights=(20_000.0, 50_000.0)))
    frame = measure(spec, expected, panel, 1, 0)
    plain = measure(dataclasses.replace(spec, threshold=0.0), expected, panel, 1, 0)
    assert frame.max() == 15_800
    assert np.array_equal(frame, np.where(plain > 150, plain, 0))  # zero up to the threshold, unchanged above
    assert 0 < plain[plain > 0].min() <= 150
    hot, dead = np.setdiff1d(panel.hot, panel.dead), panel.dead
    assert (plain.ravel()[hot] >= 3000).all()
    assert not plain.ravel()[dead].any()
    row, col = np.rint([truth["row"], truth["col"]]).astype(int)
    assert np.array_equal(truth["saturated"], expected[row, col] >= 15_800)
    assert truth["saturated"].any()


def test_neighbour_distance_and_least_height() -> None:
    _, truth = _frame(SMALL)
    place = np.stack([truth["row"], truth["col"]], 1)
    distance = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    assert np.allclose(truth["neighbour"], distance.min(1), rtol=1e-6)
    assert truth["amplitude"].min() >= SMALL.least_height
    assert set(PARAMETERS) <= set(TRUTH_DTYPE.names or ())


def test_taper_leaves_no_edge() -> None:
    """The largest window ends without a step, and the profile near the spot is what it was."""
    spots = _spots(fwhm_major=6.0, fwhm_minor=3.0, tilt=0.6, eta=0.7)
    cut, image, place = np.zeros((120, 120)), np.zeros((120, 120)), np.array([[60.3, 59.8]])
    add_spots(cut, spots, np.array([20_000.0]), place, 63, taper=False)
    add_spots(image, spots, np.array([20_000.0]), place, 63)
    distance = np.hypot(np.arange(120)[:, None] - 60.3, np.arange(120) - 59.8)
    assert np.array_equal(image[distance < 21.7], cut[distance < 21.7])
    step = cut[60, 91]
    assert step > 50
    assert not cut[60, 92]
    assert np.abs(np.diff(image[60, 80:])).max() < step / 3
    assert image[60, 91] < step / 20


def test_spots_at_and_beyond_the_border() -> None:
    spots = np.concatenate([_spots(fwhm_major=2, fwhm_minor=2, eta=1.0)] * 4)
    image = np.zeros((30, 40))
    places = np.array([[0.0, 0.0], [29.4, 39.4], [-20.0, 10.0], [-500.0, 7.0]])
    add_spots(image, spots, np.full(4, 40_000.0), places, 63)
    whole = np.zeros((1, 1))
    add_spots(whole, spots[:1], np.array([40_000.0]), np.zeros((1, 2)), 63)
    assert image[0, 0] == pytest.approx(whole[0, 0], rel=0.02)
    assert image[0, 10] > 30  # the tail of the spot that lies 20 px outside: 40,000 / (1 + 4 * 100)
    assert np.isfinite(image).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "frames = 0; expected at least 1"),
        ({"gain": 0.0}, "gain = 0.0"),
        ({"read_noise": float("nan")}, "read_noise = nan"),
        ({"heights": (50.0, 30.0)}, "heights"),
        ({"eta": (0.0, 1.5)}, "eta"),
        ({"streaks": 1.5}, "streaks"),
        ({"fwhm_limits": (0.1, 2.0)}, "fwhm_limits"),
        ({"fwhm_median": 9.0}, "fwhm_median"),
        ({"centre": (1.0,)}, "centre"),
        ({"lattice": ()}, "lattice"),
        ({"centring": "X"}, "centring"),
        ({"saturation": 70_000}, "saturation"),
        ({"threshold": 65_535.0}, "threshold"),
        ({"window": 30}, "window"),
        ({"rings": (-1.0,)}, "rings"),
    ],
)
def test_bad_specification(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"simulation: {message}"):
        SimulationSpec(**change)


def test_rings_must_reach_the_panel(tmp_path: Path) -> None:
    for change in ({"rings": (900.0,)}, {"rings": (5.0,), "centre": (-100.0, 80.0)}, {"rings": (), "distance": 1.0}):
        spec = dataclasses.replace(SMALL, **change)
        if change.get("distance"):
            spec = dataclasses.replace(spec, distance=1e6)
        with pytest.raises(UserError, match="no ring reaches"):
            simulate(spec, 1, tmp_path / "f.h5", tmp_path / "t.h5")
    for key, value in (("workers", 0), ("seed", -1)):
        with pytest.raises(UserError, match=key):
            simulate(
                SMALL,
                **({"seed": 1, "workers": 1} | {key: value}),
                frames_path=tmp_path / "f",
                truth_path=tmp_path / "t",
            )
    assert list(tmp_path.iterdir()) == []


def test_configuration_table() -> None:
    spec = parse(SimulationSpec, {"rows": 64, "rings": [10, 20.5], "heights": [30, 500], "centre": [1, 2]}, "simulate")
    assert (spec.rows, spec.rings, spec.heights) == (64, (10.0, 20.5), (30.0, 500.0))
    with pytest.raises(UserError, match="unknown key 'colour'"):
        parse(SimulationSpec, {"colour": 1}, "simulate")

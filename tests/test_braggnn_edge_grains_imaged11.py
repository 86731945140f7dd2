"""ImageD11 beside the command `grains`: files that it reads, keys of its geometry, and its indexer."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggnn_edge import cli
from braggnn_edge.core.errors import UserError
from braggnn_edge.grains import grain_file, imaged11, instrument
from braggnn_edge.grains.crystal import Lattice
from braggnn_edge.grains.forward import spots_of
from braggnn_edge.grains.geometry import Instrument
from braggnn_edge.peaks import peak_file
from braggnn_edge.peaks.peak_file import About
from braggnn_edge.peaks.peak_list import REFLECTIONS

needs_imaged11 = pytest.mark.skipif(
    importlib.util.find_spec("ImageD11") is None, reason="ImageD11 is not installed (extra `imaged11`)"
)

GOLD, ROWS, STEP = Lattice((4.0782,) * 3 + (90.0,) * 3, "F"), 512, 0.25
KEYS = {"distance": 250e3, "y_center": 251.3, "z_center": 260.1, "y_size": 200.0, "z_size": 200.0, "tilt_x": 0.005,
        "tilt_y": 0.010, "tilt_z": -0.007, "o11": -1.0, "o22": -1.0, "wavelength": 0.172979, "wedge": 0.3, "chi": -0.2,
        "omegasign": -1.0}  # fmt: skip


# --- keys of its geometry


@pytest.mark.parametrize("flips", [(-1, 0, 0, -1), (1, 0, 0, -1), (0, 1, -1, 0), (0, 1, 1, 0)])
def test_keys_of_an_instrument_give_it_back(flips) -> None:
    keys = KEYS | dict(zip(("o11", "o12", "o21", "o22"), map(float, flips), strict=True))
    assert instrument.to_keys(instrument.from_keys(keys)) == pytest.approx(keys, rel=1e-9, abs=1e-9)


def test_keys_of_a_panel_of_hexrd(tmp_path: Path) -> None:
    text = """beam: {energy: 60.0, vector: {azimuth: 90.0, polar_angle: 90.0}}
oscillation_stage: {chi: 0.01, translation: [0, 0, 0.3]}
detectors:
  one:
    pixels: {rows: 20, columns: 30, size: [0.2, 0.15]}
    transform: {tilt: [0.1, -0.2, 0.05], translation: [20.0, 3.0, -400.0]}
"""
    (tmp_path / "instrument.yml").write_text(text)
    found = instrument.read(tmp_path / "instrument.yml")
    again = instrument.from_keys(instrument.to_keys(found))
    for name in ("origin", "fast", "slow"):
        np.testing.assert_allclose(getattr(again.panels[0], name), getattr(found.panels[0], name), atol=1e-9)
    np.testing.assert_allclose(again.stage, found.stage, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: {"panels": one.panels * 2}, "describe one panel, the instrument has 2"),
        (lambda one: {"beam": np.array([0.8, 0.6, 0.0])}, "have the beam along x"),
        (lambda one: {"stage": Rotation.from_rotvec([0, 0, 0.1]).as_matrix()}, "turns otherwise"),
        (lambda one: {"panels": (replace(one.panels[0], fast=np.array([0, 0.1, 0.1])),)}, "oblique"),
    ],
    ids=["panels", "beam", "stage", "pixels"],
)
def test_what_keys_cannot_describe_is_refused(change, said: str) -> None:
    found = instrument.from_keys(KEYS)
    with pytest.raises(UserError, match=said):
        instrument.to_keys(replace(found, **change(found)))


# --- files, and the indexer


def reflections(path: Path, geometry: Instrument, ubs: np.ndarray, positions: np.ndarray) -> None:
    """A list of the reflections of grains, with errors of 0.05 px and 0.01 degrees, and 100 spots of nothing."""
    rng = np.random.default_rng(2)
    hkl, parts = GOLD.reflections(1.2), []
    for ub, position in zip(ubs, positions, strict=True):
        seen = spots_of(geometry, ub, position, hkl)
        rows = np.zeros(len(seen.row), REFLECTIONS)
        rows["row"], rows["col"], rows["omega"] = seen.row, seen.col, np.degrees(seen.omega) % 360
        parts.append(rows)
    noise = np.zeros(100, REFLECTIONS)
    noise["row"], noise["col"], noise["omega"] = rng.uniform(0, [[ROWS - 1], [ROWS - 1], [360]], (3, 100))
    rows = np.concatenate([*parts, noise])
    for name, error in (("row", 0.05), ("col", 0.05), ("omega", 0.01)):
        rows[name] += error * rng.standard_normal(len(rows))
    rows["weighted_row"], rows["weighted_col"] = rows["row"], rows["col"]
    for name in ("sigma_row", "sigma_col", "weighted_sigma_row", "weighted_sigma_col"):
        rows[name] = 0.05
    rows["intensity"], rows["frames"] = 1000.0, 3
    start = STEP * np.arange(1440)
    peak_file.save(path, rows, About(("scan",), (1440, ROWS, ROWS), np.stack([start, start + STEP], 1)))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("imaged11")
    (folder / "gold.par").write_text("".join(f"{key} {value}\n" for key, value in KEYS.items()))
    geometry = instrument.read(folder / "gold.par")
    geometry = replace(geometry, panels=(replace(geometry.panels[0], rows=ROWS, cols=ROWS),))
    turns = Rotation.random(5, random_state=4).as_matrix()
    positions = np.random.default_rng(4).uniform(-0.1, 0.1, (5, 3))
    reflections(folder / "list.h5", geometry, turns @ GOLD.b_matrix, positions)
    words = [folder / "list.h5", "--instrument", folder / "gold.par", "--lattice", 4.0782, "--centring", "F",
             "--sample", 0.2]  # fmt: skip
    return {"folder": folder, "words": words, "turns": turns, "positions": positions}


def run(case: dict, *words: object) -> int:
    return cli.main(["grains", *map(str, (*case["words"], *words))])


@pytest.fixture(scope="module")
def own(case) -> grain_file.Result:
    names = [case["folder"] / f"own.{suffix}" for suffix in ("h5", "flt", "par", "map")]
    assert run(case, *(word for name in names for word in ("-o", name))) == 0
    return grain_file.load(names[0])


def test_the_parameters_are_the_instrument(case, own) -> None:
    again = instrument.read(case["folder"] / "own.par")
    assert instrument.to_keys(again) == pytest.approx(instrument.to_keys(instrument.from_keys(KEYS)), abs=1e-9)


def test_the_list_has_all_spots_and_their_grains(case, own) -> None:
    with (case["folder"] / "own.flt").open() as stream:
        names = stream.readline()[2:].split()
        table = dict(zip(names, np.loadtxt(stream).T, strict=True))
    rows, _ = peak_file.load(case["folder"] / "list.h5", "reflections")
    at = table["spot3d_id"].astype(int)
    np.testing.assert_allclose(table["sc"], rows["row"][at], atol=1e-6)
    assert len(at) == len(rows)
    labels = np.full(len(rows), -1)
    labels[own.spots["reflection"]] = own.spots["grain"]
    assert np.array_equal(table["labels"], labels[at])
    # Of a spot of a grain the vector is near that of its indices.
    hkl = np.stack([table[name] for name in "hkl"], 1)
    grain = table["labels"].astype(int)
    ub = grain_file.matrices(own.grains, "ub")[grain]
    vectors = np.stack([table[f"g{axis}"] for axis in "xyz"], 1)
    away = np.linalg.norm(vectors - np.einsum("nij,nj->ni", ub, hkl), axis=1)[grain >= 0]
    assert away.max() < 0.01


@needs_imaged11
def test_imaged11_reads_what_is_written_and_has_the_same_vectors(case, own) -> None:
    columnfile, grain, parameters = (
        importlib.import_module(f"ImageD11.{name}") for name in ("columnfile", "grain", "parameters")
    )
    spots, geometry = columnfile.columnfile(str(case["folder"] / "own.flt")), parameters.parameters()
    geometry.loadparameters(str(case["folder"] / "own.par"))
    ours = np.stack([spots.gx, spots.gy, spots.gz], 1)
    xyz = np.stack([spots.xl, spots.yl, spots.zl], 1)
    spots.updateGeometry(geometry)
    np.testing.assert_allclose(np.stack([spots.gx, spots.gy, spots.gz], 1), ours, atol=2e-8)
    np.testing.assert_allclose(np.stack([spots.xl, spots.yl, spots.zl], 1), xyz, atol=1e-3)
    read = grain.read_grain_file(str(case["folder"] / "own.map"))
    # With their positions, its vectors of their spots are their hkl.
    for number, one in enumerate(read):
        mine = spots.copyrows(spots.labels == number)
        mine.updateGeometry(geometry, translation=one.translation)
        hkl = one.ubi @ [mine.gx, mine.gy, mine.gz]
        np.testing.assert_allclose(hkl, [mine.h, mine.k, mine.l], atol=0.01)


@needs_imaged11
def test_its_indexer_finds_the_same_grains(case, own) -> None:
    assert run(case, "--indexer", "imaged11", "-o", case["folder"] / "theirs.h5") == 0
    theirs = grain_file.load(case["folder"] / "theirs.h5")
    assert theirs.settings["indexer"] == "imaged11"
    for rows in (own.grains, theirs.grains):
        turns = grain_file.matrices(rows, "u")
        angle = np.array([GOLD.misorientation(turns, turn) for turn in case["turns"]])
        assert angle.shape == (5, 5)
        assert angle.min(1).max() < 0.02
    place = [rows[np.lexsort(rows.T)] for rows in map(grain_file.positions, (own.grains, theirs.grains))]
    np.testing.assert_allclose(*place, atol=0.2)


def test_its_indexer_is_asked_for_where_it_is_not(case, capsys, monkeypatch) -> None:
    monkeypatch.setattr(imaged11.importlib.util, "find_spec", lambda name: None)
    assert run(case, "--indexer", "imaged11", "-o", case["folder"] / "none.h5") == 2
    said = capsys.readouterr().err
    assert "braggnn-edge[imaged11]" in said
    assert said.count("\n") == 1


def test_a_process_that_fails_is_one_message(case, capsys, monkeypatch) -> None:
    monkeypatch.setattr(imaged11.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(imaged11.sys, "executable", "false")
    assert run(case, "--indexer", "imaged11", "-o", case["folder"] / "none.h5") == 2
    assert "ImageD11 failed" in capsys.readouterr().err


def test_layouts_that_cannot_hold_two_panels(case, tmp_path: Path, capsys) -> None:
    text = "beam: {energy: 71.7, vector: {azimuth: 90, polar_angle: 90}}\ndetectors:\n"
    for name in ("a", "b"):
        text += f"  {name}: {{pixels: {{rows: {ROWS}, columns: {ROWS}, size: [0.2, 0.2]}},"
        text += " transform: {tilt: [0, 0, 0], translation: [0, 0, -250]}}\n"
    (tmp_path / "instrument.yml").write_text(text)
    words = ["grains", case["words"][0], "--instrument", tmp_path / "instrument.yml", "--lattice", 4.0782]
    assert cli.main([*map(str, words), "-o", str(tmp_path / "grains.flt")]) == 2
    assert "describe one panel, the instrument has 2" in capsys.readouterr().err


def test_a_file_that_is_read_is_not_overwritten(case, capsys) -> None:
    assert run(case, "-o", case["folder"] / "gold.par") == 2
    assert "is a file that is read" in capsys.readouterr().err

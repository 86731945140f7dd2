"""What ships in integers: every file is read, is what `[qat]` takes, knows its error, and beats the centroid."""

import json
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.cli import main
from braggnn_edge.evaluation.estimators import centre_of_mass_squared
from braggnn_edge.evaluation.metrics import distances
from braggnn_edge.locate.networks import open_network
from braggnn_edge.simulation import family
from braggnn_edge.simulation.family_spec import FamilySpec
from quant.contract import locator as locators
from quant.contract.locator import IntegerLocator
from quant.contract.network import Linear, as_document
from quant.exchange.from_qonnx import integer_network
from quant.shipped import path_of, shapes_of

FOLDER = path_of("shipped").parent
#: Of [qat] network, and its file.
NAMES = {"shipped": "universal_layers.json", "shipped_circuit": "universal_circuit.json"}


@pytest.fixture(scope="module", params=NAMES)
def judged(request: pytest.FixtureRequest) -> tuple[IntegerLocator, family.Patches]:
    """What ships, and 4,096 patches of the ranges it was trained on, of a seed that trained nothing."""
    made = locators.load(path_of(request.param))
    given = made.provenance["family"].items()
    ranges = FamilySpec(**{key: tuple(value) if isinstance(value, list) else value for key, value in given})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family, "SHARD", 4096)  # patches are drawn a quarter of a shard at a time
        return made, family.draw(ranges, 20_261_128, 4096)


def test_every_file_is_a_network() -> None:
    found = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".json", ".npz"))
    assert found == ["universal.npz", "universal_circuit.json", "universal_layers.json"]
    for name in found:
        network = open_network(FOLDER / name)
        assert network.size == 11
        patches = np.zeros((2, 11, 11), np.uint16)
        patches[:, 5, 6] = 900, 40_000
        offsets, sigma = network.locate_with_sigma(patches)
        assert np.abs(offsets - [0, 1]).max() < 0.5
        assert (sigma > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_files_say_where_they_come_from(name: str) -> None:
    made = locators.load(path_of(name))
    assert path_of(name).name == NAMES[name]
    assert {"made_by", "kind", "patches", "family", "training"} <= set(made.provenance)
    assert made.provenance["kind"] == ("circuit" if name == "shipped_circuit" else "layers")
    assert made.provenance["patches"]["size"] == made.size == FamilySpec().size


@pytest.mark.parametrize("name", NAMES)
def test_files_are_as_they_were_written(name: str, tmp_path: Path) -> None:
    """With the digest of their contents, so that damage is noticed."""
    locators.save(locators.load(path_of(name)), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path_of(name).read_bytes()


def test_layers_are_counted_in_the_file() -> None:
    network = locators.load(path_of("shipped")).network
    assert [kind for _, kind, _, _ in shapes_of("shipped")] == [
        layer.kind for layer in network.layers if layer.kind == "dense"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_qat_takes_the_file_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without data, labels or training."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(
        f'name = "tiny"\nseed = 3\n[[scan]]\nname = "scan"\n[scan.simulate]\nframes = 30\n[qat]\nnetwork = "{name}"\n'
    )
    assert main(["qat", "--config", "tiny.toml"]) == 0
    (path,) = Path("runs").rglob("locator.json")
    made, shipped = locators.load(path), locators.load(path_of(name))
    assert made.digest == shipped.digest
    assert made.provenance == shipped.provenance
    assert as_document(integer_network(path.with_name("model.onnx"))) == as_document(shipped.network)
    network = open_network(path)
    patches = np.random.default_rng(0).poisson(30, (5, 11, 11)).astype(np.uint16)
    offsets, sigma = network.locate_with_sigma(patches)
    for found, expected in zip((offsets, sigma), shipped.locate_with_sigma(patches), strict=True):
        assert np.array_equal(found, expected)


def test_sigma_holds(judged: tuple[IntegerLocator, family.Patches]) -> None:
    """The two intervals of the calibration: of one and of two standard deviations of a normal distribution."""
    made, drawn = judged
    codes = made.run(made.codes(drawn.counts))
    sigma, wide = made.intervals(codes)
    error = np.abs(made.positions(codes) - drawn.offsets)
    assert 0.64 <= (error <= sigma).mean() <= 0.72
    assert 0.935 <= (error <= wide).mean() <= 0.97


def test_it_is_ahead_of_the_squared_centroid(judged: tuple[IntegerLocator, family.Patches]) -> None:
    made, drawn = judged
    codes = made.codes(drawn.counts)
    assert made.centroid is not None
    centroid = made.output.values(made.centroid.codes(made.pixels(codes)))
    error, before = (distances(found, drawn.offsets) for found in (made.positions(made.run(codes)), centroid))
    exact = distances(centre_of_mass_squared(drawn.counts), drawn.offsets)
    for share in (50, 75, 95):
        assert np.percentile(error, share) < min(np.percentile(before, share), np.percentile(exact, share))


def test_the_least_sure_are_the_worst(judged: tuple[IntegerLocator, family.Patches]) -> None:
    """Without the twentieth of largest sigma p99.5 is lower by a quarter at least."""
    made, drawn = judged
    offsets, sigma = made.locate_with_sigma(drawn.counts)
    error, largest = distances(offsets, drawn.offsets), sigma.max(axis=1)
    sure = error[largest <= np.quantile(largest, 0.95)]
    assert np.percentile(sure, 99.5) < 0.75 * np.percentile(error, 99.5)


@pytest.mark.parametrize("name", NAMES)
def test_of_a_patch_without_counts_nothing_is_known(name: str) -> None:
    made = locators.load(path_of(name))
    _, sigma = made.locate_with_sigma(np.zeros((1, 11, 11), np.uint16))
    assert sigma.min() > 1


@pytest.mark.parametrize("name", NAMES)
def test_brighter_spots_are_surer(name: str) -> None:
    """The same patch, brighter: its exponent alone says so."""
    made = locators.load(path_of(name))
    grid = np.arange(11) - 5.2
    spot = np.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (2 * 1.2**2))
    sigma = [made.locate_with_sigma(np.round(height * spot)[None])[1].max() for height in (12, 200, 20_000)]
    assert sigma[0] > sigma[1] > sigma[2]


def test_patches_beyond_the_hardwares_counts_are_counted_as_outside() -> None:
    network = open_network(path_of("shipped"))
    assert network.trained_on is not None
    assert network.trained_on.counts == (5.0, 65535.0)
    patches = np.zeros((3, 11, 11), np.float32)
    patches[:, 5, 5] = 65535.0, 65536.0, 1e6
    found = network.locate(patches)
    assert network.outside == 2
    assert np.array_equal(found[0], found[2])  # saturated, as in the hardware


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_report_is_of_the_file_that_ships(name: str) -> None:
    """Products of every layer, so that a file is not shipped with the verification of another."""
    folder = "shipped_circuit" if name == "shipped_circuit" else "shipped_layers"
    report = json.loads((Path(__file__).parent.parent / "benchmarks" / folder / "report.json").read_text())
    layers = [layer for layer in locators.load(path_of(name)).network.layers if isinstance(layer, Linear)]
    assert [layer["macs"] for layer in report["layers"] if "macs" in layer] == [one.weight.size for one in layers]
    assert all(form["wrong"] == 0 and form["patches"] for form in report["bit_exact"].values())

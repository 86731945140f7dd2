"""Locators with the exponent as an input and ln sigma as outputs: contract, file, QONNX and int8 QDQ."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.locate.calibration import Calibration
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes, Format
from quant.contract.block_shift import BlockShift
from quant.contract.locator import IntegerLocator
from quant.contract.network import as_document
from quant.contract.normalize import Normalizer
from quant.contract.vectors import corner_case_inputs, random_inputs
from quant.exchange.circuit_qonnx import export_network
from quant.exchange.execute import run_qonnx
from quant.exchange.from_qonnx import integer_network
from quant.exchange.locators import integer_locator, load_integer_locator, qdq_locator
from quant.exchange.qdq import TARGETS, Target, export_qdq

Make = Callable[..., IntegerLocator]
Patches = Callable[..., Codes]
BOTH = {"exponent": True, "sigma": True}
KNOWS: dict[str, dict[str, bool]] = {"exponent": {"exponent": True}, "sigma": {"sigma": True}, "both": BOTH}


def test_inputs_are_the_pixels_and_then_the_exponent(random_circuit: Make, detector_patches: Patches) -> None:
    locator = random_circuit(5, BlockShift(4, 11, True), **BOTH)
    patches = detector_patches(locator, 90)
    inputs = locator.codes(patches)
    assert inputs.shape == (len(patches), 25 + 11) == (len(patches), *locator.network.shape)
    inner = patches[:, 1:-1, 1:-1]
    assert np.array_equal(inputs[:, :25].reshape(-1, 5, 5), locator.normalizer.codes(inner))
    assert np.array_equal(inputs[:, 25:], locator.normalizer.exponents(inner))
    assert np.array_equal(locator.pixels(inputs), locator.normalizer.codes(inner))
    assert np.array_equal(locator.inputs(locator.counts(patches)), inputs)
    lengths = (inputs[:, 25:] > 0).sum(axis=1)
    assert set(lengths.tolist()) == set(range(12))  # every size of an exponent is among the patches


def test_inputs_of_square_networks_are_the_pixels(random_circuit: Make, detector_patches: Patches) -> None:
    locator = random_circuit(3, sigma=True)
    inputs = locator.codes(detector_patches(locator, 9))
    assert inputs.shape[1:] == locator.network.shape == (3, 3)
    assert np.array_equal(locator.pixels(inputs), inputs)


def test_the_centroid_corrects_the_offset_and_sigma_leaves_as_it_is(
    random_circuit: Make, detector_patches: Patches
) -> None:
    locator = random_circuit(5, **BOTH)
    inputs = locator.codes(detector_patches(locator, 200))
    answers = emulate.run(locator.network, inputs).outputs
    found = locator.run(inputs)
    assert found.shape == (len(inputs), 4)
    assert np.array_equal(found[:, 2:], answers[:, 2:])
    assert locator.centroid is not None
    base = locator.centroid.codes(locator.normalizer.codes(detector_patches(locator, 200)[:, 1:-1, 1:-1]))
    assert np.array_equal(found[:, :2], np.clip(answers[:, :2] + base, locator.output.low, locator.output.high))
    assert len(np.unique(found[:, 2:], axis=0)) > 50


def test_sigma_is_what_the_calibration_makes_of_it(random_circuit: Make, detector_patches: Patches) -> None:
    locator = random_circuit(5, **BOTH)
    assert locator.calibration is not None
    patches = detector_patches(locator, 200)
    codes = locator.run(locator.codes(patches))
    offsets, sigma = locator.locate_with_sigma(patches)
    frac = locator.output.frac
    assert np.array_equal(sigma, locator.calibration.half_widths(codes[:, 2:] / 2.0**frac)[0])
    assert np.array_equal(offsets, codes[:, :2] / 2.0**frac)
    assert np.array_equal(locator.locate(patches), offsets)
    wide = locator.locate_with_intervals(patches)[2]
    assert np.array_equal(wide, locator.calibration.half_widths(codes[:, 2:] / 2.0**frac)[1])
    assert all(np.array_equal(*pair) for pair in zip(locator.intervals(codes), (sigma, wide), strict=True))
    assert len(np.unique(wide / sigma)) > 10  # it is no multiple
    form = integer_locator(locator)
    assert form.sigma
    given = form.locate_with_intervals(patches.astype(np.int32))
    assert all(np.array_equal(*pair) for pair in zip(given, (offsets, sigma, wide), strict=True))
    given = form.locate_with_sigma(patches.astype(np.int32))
    assert all(np.array_equal(*pair) for pair in zip(given, (offsets, sigma), strict=True))


def test_a_threshold_on_sigma_is_one_on_its_code(random_circuit: Make, detector_patches: Patches) -> None:
    locator = random_circuit(5, **BOTH)
    codes = locator.run(locator.codes(detector_patches(locator, 300)))
    sigma = locator.sigma(codes)
    for largest in (*np.quantile(sigma, (0.0, 0.2, 0.5, 0.95, 1.0)), 1e9):
        assert np.array_equal(codes[:, 2:] > locator.code_of_sigma(largest), sigma > largest)
    assert 0 < (sigma > np.quantile(sigma, 0.5)).mean() < 1
    for nonsense in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="expected a length in px"):
            locator.code_of_sigma(nonsense)
    with pytest.raises(UserError, match="knows no sigma"):
        random_circuit(5).code_of_sigma(0.1)


def test_without_sigma_none_is_given(random_circuit: Make, detector_patches: Patches) -> None:
    locator = random_circuit(5, exponent=True)
    patches = detector_patches(locator, 3)
    with pytest.raises(UserError, match="this locator knows no sigma; choose one that was trained with it"):
        locator.locate_with_sigma(patches)
    form = integer_locator(locator)
    assert not form.sigma
    for ask in (form.locate_with_sigma, form.locate_with_intervals):
        with pytest.raises(UserError, match="knows no sigma"):
            ask(patches.astype(np.int32))


@pytest.mark.parametrize("knows", [{}, *KNOWS.values()], ids=["neither", *KNOWS])
def test_no_patches_have_no_answers(knows: dict[str, bool], random_circuit: Make) -> None:
    locator = random_circuit(5, **knows)
    none = np.zeros((0, 7, 7), np.int32)
    assert locator.codes(none).shape == (0, *locator.network.shape)
    assert locator.run(locator.codes(none)).shape == (0, locator.outputs)
    assert locator.locate(none).shape == (0, 2)
    assert integer_locator(locator).locate(none).shape == (0, 2)
    if locator.calibration is not None:
        assert [found.shape for found in locator.locate_with_intervals(none)] == [(0, 2)] * 3
        assert [found.shape for found in integer_locator(locator).locate_with_intervals(none)] == [(0, 2)] * 3
    assert random_inputs(locator.network, 0, np.random.default_rng(0)).shape == (0, *locator.network.shape)


def test_bare_is_a_network_of_whole_patches_alone(random_circuit: Make) -> None:
    bare = replace(random_circuit(5, centroid=False), size=5)
    assert bare.is_bare
    assert not random_circuit(5, centroid=False).is_bare
    assert not replace(random_circuit(5), size=5).is_bare
    for knows in KNOWS.values():
        assert not replace(random_circuit(5, centroid=False, **knows), size=5).is_bare


@pytest.mark.parametrize("knows", KNOWS.values(), ids=KNOWS)
def test_file_round_trip(
    knows: dict[str, bool], random_circuit: Make, detector_patches: Patches, tmp_path: Path
) -> None:
    locator = replace(random_circuit(5, **knows), provenance={"seed": 4})
    path, again = tmp_path / "locator.json", tmp_path / "again.json"
    locators.save(locator, path)
    found = locators.load(path)
    assert (found.digest, found.provenance, found.calibration) == (locator.digest, {"seed": 4}, locator.calibration)
    assert as_document(found.network) == as_document(locator.network)
    patches = detector_patches(locator, 60)
    assert np.array_equal(found.run(found.codes(patches)), locator.run(locator.codes(patches)))
    locators.save(found, again)
    assert again.read_bytes() == path.read_bytes()
    assert json.loads(path.read_text())["version"] == 3
    opened = load_integer_locator(path)
    assert opened.sigma == ("sigma" in knows)
    assert np.array_equal(opened.locate(patches.astype(np.int32)), locator.locate(patches))


def test_digest_is_of_the_calibration_and_the_exponent(random_circuit: Make) -> None:
    locator = random_circuit(5, **BOTH)
    assert locator.calibration is not None
    digests = {locator.digest, random_circuit(5, exponent=True).digest, random_circuit(5, sigma=True).digest}
    for name in ("log_b", "sigma", "wide"):
        moved = replace(locator.calibration, **{name: tuple(v + 2.0**-20 for v in getattr(locator.calibration, name))})
        digests.add(replace(locator, calibration=moved).digest)
    # The same weights, told that the codes mean other counts.
    digests.add(replace(locator, normalizer=replace(locator.normalizer, subtract=True)).digest)
    assert len(digests) == 7


@pytest.mark.parametrize("version", [1, 2])
def test_earlier_versions_are_read_to_the_same_digest(version: int, random_circuit: Make, tmp_path: Path) -> None:
    """They know neither key, and their digests are those of today."""
    locator = random_circuit(5)
    locators.save(locator, tmp_path / "locator.json")
    document = json.loads((tmp_path / "locator.json").read_text())
    assert "calibration" not in document
    assert "exponent" not in document["network"]
    document["version"] = version
    if version == 1:
        del document["schema"], document["provenance"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    found = locators.load(tmp_path / "old.json")
    assert found.digest == locator.digest
    assert (found.outputs, found.network.exponent, found.calibration) == (2, 0, None)


def test_what_does_not_fit_is_refused(random_circuit: Make) -> None:
    both, plain = random_circuit(5, **BOTH), random_circuit(5)
    with pytest.raises(UserError, match="the network takes 9 codes of an exponent, its normalizer has 10; expected"):
        replace(both, normalizer=BlockShift(4, 10))
    square = random_circuit(5, Normalizer(4, 12), sigma=True)
    with pytest.raises(UserError, match="the network takes 12 codes of an exponent, its normalizer has 0; expected"):
        replace(square, network=replace(square.network, exponent=12))
    with pytest.raises(UserError, match="the network has 4 outputs, expected 2 without a calibration of sigma"):
        replace(both, calibration=None)
    with pytest.raises(UserError, match="the network has 2 outputs, expected 4 with a calibration of sigma"):
        replace(plain, calibration=Calibration())


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("calibration",), None, "4 outputs, expected 2 without a calibration"),
        (("calibration", "sigma"), [0.0], "calibration: 2 nodes; expected one or more"),
        (("calibration", "sigma"), ["a", "b"], "not a locator file"),
        (("calibration", "wide"), [0.0, float("nan")], "all finite"),
        (("calibration", "log_b"), [1.0, -2.0], "in ascending order"),
        (("calibration", "more"), [0.0, 0.0], "not a locator file"),
        (("network", "exponent"), 8, "takes 8 codes of an exponent, its normalizer has 9"),
        (("network", "exponent"), 9.0, "expected an integer, got 9.0"),
        (("network", "exponent"), -9, "takes -9 codes of an exponent"),
    ],
)
def test_damaged_documents_are_one_clear_error(
    keys: tuple[str, ...], value: object, message: str, random_circuit: Make, tmp_path: Path
) -> None:
    path = tmp_path / "locator.json"
    locators.save(random_circuit(5, **BOTH), path)
    document = json.loads(path.read_text())
    found = document
    for key in keys[:-1]:
        found = found[key]
    found[keys[-1]] = value
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=message) as refused:
        locators.load(path)
    assert str(refused.value).startswith(f"{path}: ")


def test_corner_case_and_random_inputs_have_exponents_of_every_size(random_circuit: Make) -> None:
    network = random_circuit(5, BlockShift(4, 16), **BOTH).network
    for inputs in (corner_case_inputs(network), random_inputs(network, 200, np.random.default_rng(0))):
        assert inputs.shape[1:] == network.shape
        lengths = (inputs[:, 25:] == 8).sum(axis=1)
        assert np.array_equal(inputs[:, 25:], np.where(np.arange(16) < lengths[:, None], 8, 0))
        assert set(lengths.tolist()) == set(range(17))
        assert len(np.unique(inputs[:, :25], axis=0)) > 50


@pytest.mark.parametrize("knows", KNOWS.values(), ids=KNOWS)
def test_qonnx_reads_back_and_executes_equal(knows: dict[str, bool], random_circuit: Make, tmp_path: Path) -> None:
    network = random_circuit(5, BlockShift(4, 13), hidden=(7, 5), **knows).network
    path = tmp_path / "model.onnx"
    export_network(network, path)
    found = integer_network(path)
    assert as_document(found) == as_document(network)
    assert (found.shape, found.outputs) == (network.shape, 4 if "sigma" in knows else 2)
    codes = np.concatenate([corner_case_inputs(network), random_inputs(network, 90, np.random.default_rng(1))])
    outputs = emulate.run(network, codes).outputs
    assert np.array_equal(run_qonnx(path, codes), outputs)
    assert len(np.unique(outputs, axis=0)) > 20
    export_network(network, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("size", ["", "0", "12", "-5", "five"])
def test_flat_qonnx_without_its_size_is_refused(size: str, random_circuit: Make, tmp_path: Path) -> None:
    """Of 25 pixels and 9 codes of an exponent, 34 inputs: what a side of 6 px or more would leave is no exponent."""
    path = tmp_path / "model.onnx"
    export_network(random_circuit(5, **BOTH).network, path)
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"braggnn_edge.size": size} if size else {})
    onnx.save(model, str(path))
    with pytest.raises(UserError, match=r"its input is flat, \(1, 34\), and its metadata has no size .* that fits"):
        integer_network(path)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["both", "sigma", "exponent"])
def test_int8_equals_the_emulator(target: Target, name: str, random_circuit: Make, detector_patches: Patches) -> None:
    """Positions and sigma, centroid included, on corner cases and on random counts of every brightness."""
    locator = random_circuit(5, BlockShift(8, 16), hidden=(12, 8), activation=8, output=12, **KNOWS[name])
    form = qdq_locator(locator, target)
    patches = np.clip(detector_patches(locator, 1000), 0, 70_000).astype(np.int32)
    found, sigma = (form.locate_with_intervals(patches), True) if form.sigma else ((form.locate(patches),), False)
    expected = locator.locate_with_intervals(patches) if sigma else (locator.locate(patches),)
    assert sigma == ("sigma" in KNOWS[name])
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)
        assert len(np.unique(one, axis=0)) > 50
    assert form.locate(patches[:0]).shape == (0, 2)


def test_int8_file_names_its_flat_input(random_circuit: Make, tmp_path: Path) -> None:
    """A reader of the file sees how many inputs and outputs there are."""
    for exponent, shape in ((True, ["n", 34]), (False, ["n", 1, 5, 5])):
        export_qdq(random_circuit(5, sigma=True, exponent=exponent).network, tmp_path / "int8.onnx")
        graph = onnx.load(str(tmp_path / "int8.onnx")).graph
        for value, expected in ((graph.input[0], shape), (graph.output[0], ["n", 4])):
            sides = value.type.tensor_type.shape.dim
            assert [side.dim_param or side.dim_value for side in sides] == expected


def test_wide_outputs_keep_their_format(random_circuit: Make) -> None:
    """ln sigma has the format of the offset: what a network may say is bounded by it."""
    locator = random_circuit(5, output=5, **BOTH)
    inputs = random_inputs(locator.network, 300, np.random.default_rng(0))
    found = locator.run(inputs)
    assert found.min() == Format(5, 7, True).low
    assert found.max() == Format(5, 7, True).high

"""A locator's contract: block shift, integer centroid, their sum with a network's answer, and the file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import block_shift_by_steps

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.estimators import centre_of_mass_squared
from quant.contract import emulate
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.layers import Flatten, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork, as_document
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators
from quant.contract.vectors import corner_case_codes, random_codes

FRAC = 9


def small_network(window: int, bits: int, seed: int = 0) -> IntegerNetwork:
    """Dense, 5 hidden units, small random weights."""
    rng = np.random.default_rng(seed)
    first, bias = rng.integers(-7, 8, (5, window**2)), rng.integers(-50, 50, 5)
    last = rng.integers(-7, 8, (2, 5))
    return size_accumulators(
        IntegerNetwork(
            window,
            Format(bits, bits, False),
            (
                Flatten("flatten"),
                Linear("dense.0", "dense", first, Format(4, 4, True), bias, Format(1, bits + 4, True)),
                Requantize("dense.0.act", "relu", Format(6, 5, False)),
                Linear("dense.1", "dense", last, Format(4, 6, True), rng.integers(-50, 50, 2), Format(1, 11, True)),
                Requantize("dense.1.act", "identity", Format(12, FRAC, True)),
            ),
        )
    )  # fmt: skip


def small_circuit(centroid: bool = True, subtract: bool = False) -> IntegerLocator:
    base = Centroid.of_power(7, 6, 2, 4, frac=FRAC) if centroid else None
    return IntegerLocator(11, 7, BlockShift(6, 16, subtract), small_network(7, 6), base, Format(13, FRAC, True))


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize("bits", [4, 6, 12])
def test_block_shift_equals_its_steps_in_plain_integers(bits, subtract):
    shift = BlockShift(bits, 12, subtract)
    rng = np.random.default_rng(bits)
    scale = 2.0 ** rng.uniform(-1, 13, (200, 1, 1))
    patches = rng.normal(0.5, 0.5, (200, 5, 5)) * scale
    expected = np.reshape([block_shift_by_steps(shift, patch) for patch in patches], patches.shape)
    assert np.array_equal(shift.codes(patches), expected)


def test_block_shift_bounds_and_scale():
    shift = BlockShift(6, 16)
    counts = np.random.default_rng(0).integers(0, 300, (500, 7, 7))
    codes = shift.codes(counts)
    top = codes.max(axis=(1, 2))
    assert top.min() >= 32
    assert top.max() <= 63
    assert np.array_equal(shift.codes(counts * 8), codes)
    assert not shift.codes(np.zeros((1, 7, 7), int)).any()


def test_block_shift_refuses_what_it_cannot_hold():
    with pytest.raises(UserError, match="bits 1 is out of range"):
        BlockShift(1)
    with pytest.raises(UserError, match="count_bits 5 is out of range; expected 6 to 32"):
        BlockShift(6, 5)
    with pytest.raises(UserError, match="patch 1 holds NaN"):
        BlockShift().codes(np.stack([np.zeros((3, 3)), np.full((3, 3), np.nan)]))


@pytest.mark.parametrize("widths", [{}, {"index_bits": 5, "reciprocal_bits": 8, "numerator_bits": 11, "frac": 8}])
@pytest.mark.parametrize("drop", [0, 4])
def test_centroid_is_within_its_bound_of_the_exact_quotient(drop, widths):
    base = Centroid.of_power(7, 6, 2, drop, **widths)
    codes = np.concatenate(
        [corner_case_codes(7, Format(6, 6, False)), random_codes(7, Format(6, 6, False), 500, np.random.default_rng(1))]
    )
    w = np.asarray(base.weights)[codes].astype(float)
    total = w.sum(axis=(1, 2))
    position = np.arange(7) - 3
    exact = np.stack([w.sum(axis=2) @ position, w.sum(axis=1) @ position], axis=1) / np.where(total, total, 1)[:, None]
    exact *= 2.0**base.frac
    relative = 2.0 ** -(base.index_bits + 1) + 2.0**-base.reciprocal_bits
    lowered = 1 + 2.0 ** (base.frac + base.reach_bits + 1 - base.numerator_bits) * (1 + 2.0**-base.reciprocal_bits)
    error = base.codes(codes) - exact
    assert (error <= relative * np.abs(exact) + 1e-9).all()
    assert (error >= -lowered - relative * np.abs(exact) - 1e-9).all()
    assert not base.codes(np.zeros((1, 7, 7), int)).any()


def test_centroid_of_squares_is_the_estimator_of_the_tables():
    rng = np.random.default_rng(2)
    codes = random_codes(7, Format(8, 8, False), 300, rng)
    codes[:, 0, 0] = 0  # the estimator subtracts the minimum
    base = Centroid.of_power(7, 8, 2, index_bits=12, reciprocal_bits=16, numerator_bits=24, frac=16)
    assert np.abs(base.codes(codes) / 2.0**16 - centre_of_mass_squared(codes)).max() < 3 * (2**-13 + 2**-16) + 2**-15


def test_centroid_refuses_widths_and_powers():
    with pytest.raises(UserError, match="power 3 is not offered"):
        Centroid.of_power(7, 6, 3)
    with pytest.raises(UserError, match="window 4 must be odd"):
        Centroid.of_power(4, 6, 2)
    with pytest.raises(UserError, match="frac 21 is out of range"):
        Centroid.of_power(7, 6, 2, frac=21)
    with pytest.raises(UserError, match="3 weights"):
        Centroid(7, (0, 1, 2))


def test_circuit_adds_the_correction_and_saturates():
    circuit = small_circuit()
    patches = np.random.default_rng(3).integers(0, 5000, (50, 11, 11))
    codes = circuit.codes(patches)
    assert np.array_equal(codes, BlockShift(6, 16).codes(patches[:, 2:9, 2:9]))
    alone = replace(circuit, centroid=None).run(codes)
    assert np.array_equal(circuit.run(codes), np.clip(alone + circuit.centroid.codes(codes), -(2**12), 2**12 - 1))
    narrow = replace(circuit, output=Format(8, FRAC, True))
    assert np.array_equal(narrow.run(codes), np.clip(alone + circuit.centroid.codes(codes), -128, 127))
    assert np.array_equal(circuit.locate(patches), circuit.run(codes) / 2.0**FRAC)


def layers_alone() -> IntegerLocator:
    """Layers that take whole patches, as they go to an HLS project."""
    return locators.of_layers(small_network(7, 6), Normalizer(6, 16), {"seed": 4, "scans": ["a"]})


LOCATORS = {
    "centroid": small_circuit(),
    "alone": small_circuit(False, True),
    "min-max": IntegerLocator(11, 7, Normalizer(6, 16), small_network(7, 6), None, Format(13, FRAC, True)),
    "layers": layers_alone(),
}


@pytest.mark.parametrize("locator", LOCATORS.values(), ids=LOCATORS)
def test_file_round_trip(locator: IntegerLocator, tmp_path: Path) -> None:
    path = tmp_path / "locator.json"
    locators.save(locator, path)
    found = locators.load(path)
    assert found.digest == locator.digest
    assert found.provenance == locator.provenance
    assert found.normalizer == locator.normalizer
    codes = random_codes(7, locator.network.input, 100, np.random.default_rng(0))
    assert np.array_equal(found.run(codes), locator.run(codes))
    locators.save(found, tmp_path / "again.json")
    assert path.read_bytes() == (tmp_path / "again.json").read_bytes()
    assert {entry.name for entry in tmp_path.iterdir()} == {"locator.json", "again.json"}


def test_layers_alone_are_the_network_on_whole_patches() -> None:
    locator = layers_alone()
    assert (locator.size, locator.window, locator.centroid) == (7, 7, None)
    assert locator.output == locator.network.output
    patches = np.random.default_rng(3).integers(0, 5000, (50, 7, 7))
    codes = Normalizer(6, 16).codes(patches)
    assert np.array_equal(locator.codes(patches), codes)
    expected = emulate.run(locator.network, codes).outputs
    assert np.array_equal(locator.run(codes), expected)
    assert len(np.unique(expected, axis=0)) > 10
    assert np.array_equal(locator.locate(patches), expected / 2.0**FRAC)


#: By the code that wrote ``circuit.json``: runs and fronts of that time hold them.
DIGESTS = {
    "centroid": "32908d86409dd2f17244b55d5cd8f5726f236e66312d8176fcabc42b3b89d3ea",
    "alone": "1c8ad8aa5d4759a63b19c0204e49fc3956b4a4f533c6decc061d4260620cb34c",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_circuit_json_of_version_1_is_read_to_its_digest(name: str, tmp_path: Path) -> None:
    locator = LOCATORS[name]
    assert locator.digest == DIGESTS[name]
    locators.save(locator, tmp_path / "locator.json")
    document = json.loads((tmp_path / "locator.json").read_text())
    del document["schema"], document["provenance"]
    (tmp_path / "circuit.json").write_text(json.dumps(document | {"version": 1}))
    found = locators.load(tmp_path / "circuit.json")
    assert found.digest == DIGESTS[name]
    assert found.provenance == {}


def test_integer_json_of_version_1_is_read_to_the_same_digest(tmp_path: Path) -> None:
    locator = layers_alone()
    document = {"version": 1, **as_document(locator.network), "normalizer": Normalizer(6, 16).document()}
    path = tmp_path / "integer.json"
    path.write_text(json.dumps(document))
    assert locators.load(path).digest == locator.digest
    del document["normalizer"]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"integer\.json: holds no normalizer; make it again with `make qat`"):
        locators.load(path)


def test_a_file_without_a_digest_is_read(tmp_path: Path) -> None:
    """Files of before have none."""
    locators.save(small_circuit(), tmp_path / "locator.json")
    document = json.loads((tmp_path / "locator.json").read_text())
    assert document.pop("digest") == small_circuit().digest
    (tmp_path / "locator.json").write_text(json.dumps(document))
    assert locators.load(tmp_path / "locator.json").digest == small_circuit().digest


def test_provenance_is_no_part_of_digest_or_equality(tmp_path: Path) -> None:
    locator = small_circuit()
    other = replace(locator, provenance={"seed": 7})
    assert other == locator
    assert other.digest == locator.digest
    for number, one in enumerate((locator, other)):
        locators.save(one, tmp_path / f"{number}.json")
    assert (tmp_path / "0.json").read_bytes() != (tmp_path / "1.json").read_bytes()
    assert replace(locator, output=Format(12, FRAC, True)).digest != locator.digest


def within(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one value in a document, ``path`` its keys; the value None takes the key away."""

    def change(document: dict[str, Any]) -> None:
        *above, last = (int(key) if key.isdigit() else key for key in path.split("/"))
        found: Any = document
        for key in above:
            found = found[key]
        if value is None:
            del found[last]
        else:
            found[last] = value

    return change


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "version": (within("version", 9), "locator version 9 of schema 'braggnn-edge locator', expected 3"),
    "schema": (within("schema", "another"), "of schema 'another', expected 3 of 'braggnn-edge locator'"),
    "no schema": (within("schema", None), "not a locator file"),
    "no version": (within("version", None), "not a locator file"),
    "normalizer of other bits": (within("normalizer/bits", 7), "unsigned codes of 7"),
    "normalizer that cannot be": (within("normalizer/bits", 99), "bits 99 is out of range"),
    "normalizer of no kind": (within("normalizer/kind", None), "not a locator file"),
    "unknown key": (within("normalizer/other", 1), "not a locator file"),
    "window": (within("window", 13), "expected odd, not larger"),
    "no network": (within("network", {}), "not a locator file"),
    "network a list": (within("network", [1]), "not a locator file"),
    "unknown layer": (within("network/layers/1/kind", "tanh"), "not a locator file"),
    "layer without weights": (within("network/layers/1/weight", None), "not a locator file"),
    "weights that are text": (within("network/layers/1/weight", ["a"]), "not a locator file"),
    "ragged weights": (within("network/layers/1/weight", [[1], [1, 2]]), "not a locator file"),
    "fractional weight": (within("network/layers/1/weight/0/0", 0.5), "expected integers"),
    "weight beyond its format": (within("network/layers/1/weight/0/0", 300), "weights span .* its format holds"),
    "bias too few": (within("network/layers/1/bias", [0]), "1 biases for"),
    "unit that nothing reads": (within("network/layers/3/weight", [[1], [1]]), "inputs come from the layer before"),
    "unknown rounding": (within("network/layers/2/rounding", "nearest"), "rounding 'nearest'; expected one of"),
    "fractional size": (within("size", 11.5), "expected an integer, got 11.5"),
    "weight of 100 bits": (within("network/layers/1/weight/0/0", 2**100), "not a locator file"),
    "centroid's table": (within("centroid/table/3", 12345), "reciprocals is not the one of its widths"),
    "output": (within("output/frac", 8), "fraction bits, the locator's 8"),
    "provenance": (within("provenance", 5), "not a locator file"),
    "bias beyond its accumulator": (
        within("network/layers/1/bias/0", 2**40),
        r"biases span -?\d+ to .*make it again with",
    ),
    "accumulator too narrow": (
        within("network/layers/1/accumulator/bits", 8),
        "holds -128 to 127, but its sums need .* bits, signed: the file was changed or is damaged; make it again with",
    ),
    "accumulator unsigned": (within("network/layers/3/accumulator/signed", False), "its sums need .* bits, signed"),
    "accumulator's fraction": (within("network/layers/1/accumulator/frac", 1), "has 1 fraction bits, its sums have"),
    "another weight": (within("network/layers/1/weight/0/0", 0), "its contents give the digest .*make it again with"),
    "fewer activation bits": (within("network/layers/2/output/bits", 3), "its contents give the digest"),
    "more activation bits": (within("network/layers/2/output/bits", 12), "its sums need .* bits"),
    "another digest": (within("digest", "0" * 64), "its contents give the digest .*, it names 000000000000: it was"),
    "digest that is none": (within("digest", 3), "its contents give the digest .*, it names 3: it was changed"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_document_is_one_clear_error(name: str, tmp_path: Path) -> None:
    change, message = DAMAGE[name]
    path = tmp_path / "locator.json"
    locators.save(small_circuit(), path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=message) as refused:
        locators.load(path)
    assert str(refused.value).startswith(f"{path}: ")


def test_what_is_no_document_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "locator.json"
    with pytest.raises(UserError, match=r"not a locator file .*make it with `make qat`"):
        locators.load(path)
    locators.save(small_circuit(), path)
    whole = path.read_bytes()
    for content in (b"", b"{", whole[:-40], b"[]", b"3", b"\xff" + whole, b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"not a locator file .*make it with `make qat`"):
            locators.load(path)


def test_circuit_refuses_parts_that_do_not_fit():
    circuit = small_circuit()
    with pytest.raises(UserError, match="expected odd, not larger"):
        replace(circuit, window=13)
    with pytest.raises(UserError, match="the centroid is for 7 px, codes of 5 bits"):
        replace(circuit, centroid=Centroid.of_power(7, 5, 2, frac=FRAC))
    with pytest.raises(UserError, match="fraction bits, the locator's 8"):
        replace(circuit, output=Format(12, 8, True))
    with pytest.raises(UserError, match="expected \\(n, 11, 11\\)"):
        circuit.locate(np.zeros((2, 9, 9)))

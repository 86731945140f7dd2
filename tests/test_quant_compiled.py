"""Locators' integers, compiled: the emulator's codes, all of them, from counts on, on every instruction set."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import bright_and_faint as counts
from builders import linear, with_every_layer

from braggnn_edge.core import compiler
from braggnn_edge.core.errors import UserError
from quant.compiled import kernel
from quant.compiled.kernel import CompiledIntegers
from quant.compiled.records import Attention, Layer, Sums
from quant.contract import locator as locators
from quant.contract.arithmetic import Codes, Format
from quant.contract.attention import NonLocal
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.layers import Flatten, Leaky, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators
from quant.exchange.compiled_locator import compiled_locator
from quant.shipped import path_of

GOLDEN = Path(__file__).parent / "golden"
#: Instruction sets by what g++ calls them, and the flag of a processor that has them. The last one is told of none: it
#: gets the spelling of processors that are not of Intel's kind.
SETS = {"x86-64-v2": "sse4_2", "x86-64-v3": "avx2", "x86-64-v4": "avx512vl", "x86-64 -U__SSE2__": "sse2"}
Patches = Callable[..., Codes]
#: Locators below whose codes may lie in fours, in some layer.
FOURS = {
    "shipped", "shipped circuit", "golden layered", "golden circuit", "floor", "half up", "narrow", "no requantization",
    "centroid of a table", "non-local", "non-local, pooled", "non-local, saturated", "non-local in fours",
    "shift to the left", "far shift",
}  # fmt: skip


def sized(size: int, layers: tuple, bits: int = 8, exponent: int = 0) -> IntegerNetwork:
    return size_accumulators(IntegerNetwork(size, Format(bits, bits, False), layers, exponent))


def layered(
    bits: int = 8, weight: int = 8, rounding: str = "floor", leaky: bool = True, seed: int = 0
) -> IntegerNetwork:
    """Two convolutions of odd numbers of channels, leaky and plain activations, dense layers: random."""
    rng = np.random.default_rng(seed)
    first, second = Format(bits, bits - 2, True), Format(bits, bits - 1, False)
    frac = bits + weight - 1
    act = Leaky("leaky", "leaky", first, rounding, 3, 7) if leaky else Requantize("plain", "identity", first, rounding)
    return sized(
        9,
        (
            linear(rng, "conv0", "conv2d", (5, 1, 3, 3), bits, weight, 1 << (frac - 4)),
            act,
            linear(rng, "conv1", "conv2d", (3, 5, 2, 2), first.frac, weight, 1 << (frac - 4)),
            Requantize("relu", "relu", second, rounding),
            Flatten("flat"),
            linear(rng, "dense0", "dense", (7, 108), second.frac, weight, 1 << (frac - 4)),
            Requantize("hidden", "relu", Format(bits, bits - 3, False), rounding),
            linear(rng, "dense1", "dense", (2, 7), bits - 3, weight, 1 << (frac - 6)),
            Requantize("output", "identity", Format(12, 7, True), rounding),
        ),
        bits,
    )


def without_requantization() -> IntegerNetwork:
    """A network that ends in a linear layer, with one in the middle that nothing follows."""
    rng = np.random.default_rng(4)
    layers = (
        linear(rng, "conv", "conv2d", (2, 1, 3, 3), 6),
        Flatten("flat"),
        Requantize("act", "relu", Format(6, 5, False)),
        linear(rng, "dense0", "dense", (3, 18), 5),
        linear(rng, "dense1", "dense", (2, 3), 9),
    )
    return sized(5, layers, 6)


def bare(network: IntegerNetwork, normalizer: Normalizer | BlockShift) -> IntegerLocator:
    return locators.of_layers(network, normalizer)


def wide_centroid() -> IntegerLocator:
    """Sums beyond 32 bits: codes of 14 bits, their squares."""
    rng = np.random.default_rng(6)
    layers = (
        Flatten("flat"),
        linear(rng, "dense", "dense", (2, 49), 14, 8),
        Requantize("o", "identity", Format(12, 9, True)),
    )
    base = Centroid.of_power(7, 14, 2)
    return IntegerLocator(9, 7, BlockShift(14, 20), sized(7, layers, 14), base, Format(13, 9, True))


def odd_weights() -> IntegerLocator:
    """A centroid whose weights are no power."""
    rng = np.random.default_rng(7)
    layers = (
        Flatten("flat"),
        linear(rng, "dense", "dense", (2, 25), 4),
        Requantize("o", "identity", Format(9, 7, True)),
    )
    weights = tuple(int(w) for w in rng.integers(0, 99, 16))
    base = Centroid(5, weights, index_bits=3, reciprocal_bits=7, numerator_bits=8, frac=7)
    return IntegerLocator(5, 5, BlockShift(4, 9, True), sized(5, layers, 4), base, Format(10, 7, True))


def shifted(frac: int) -> IntegerLocator:
    """Activations that are shifted to the left, and outputs of ``frac``: of -30 nothing is left but the sign."""
    rng = np.random.default_rng(8)
    layers = (
        Flatten("flat"),
        linear(rng, "dense0", "dense", (4, 25), 5),
        Requantize("up", "identity", Format(14, 12, True)),
        linear(rng, "dense1", "dense", (2, 4), 12),
        Requantize("far", "identity", Format(14, frac, True)),
    )
    return bare(sized(5, layers, 5), BlockShift(5, 12))


PAIRS, SINGLE, LONG = Sums.PAIRS, Sums.SINGLE, Sums.LONG
#: A locator by what is special about it, and the types of sums that it needs.
LOCATORS: dict[str, tuple[Callable[[], IntegerLocator], set[Sums]]] = {
    "shipped": (lambda: locators.load(path_of("shipped")), {PAIRS}),
    "shipped circuit": (lambda: locators.load(path_of("shipped_circuit")), {PAIRS}),
    "golden layered": (lambda: locators.load(GOLDEN / "layered.json"), {PAIRS}),
    "golden circuit": (lambda: locators.load(GOLDEN / "circuit.json"), {PAIRS}),
    "floor": (lambda: bare(layered(), Normalizer(8)), {PAIRS}),
    "half up": (lambda: bare(layered(rounding="half_up"), BlockShift(8, 16, True)), {PAIRS}),
    "narrow": (lambda: bare(layered(4, 3, "half_up", leaky=False), Normalizer(4, 20, 5)), {PAIRS}),
    "wide codes": (lambda: bare(layered(16, 4), Normalizer(16, 32, 12)), {PAIRS, SINGLE}),
    "wide weights": (lambda: bare(layered(10, 17, "half_up"), BlockShift(10, 32)), {LONG, SINGLE}),
    "wide all": (lambda: bare(layered(13, 20, "half_up"), Normalizer(13, 32, 12)), {LONG}),
    "no requantization": (lambda: bare(without_requantization(), BlockShift(6, 14)), {PAIRS}),
    "wide centroid": (wide_centroid, {PAIRS}),
    "centroid of a table": (odd_weights, {PAIRS}),
    "non-local": (lambda: with_every_layer(1, Normalizer(8), 1), {PAIRS, SINGLE}),
    "non-local, pooled": (lambda: with_every_layer(7, BlockShift(8, 16, True), 7), {PAIRS, SINGLE}),
    "non-local, saturated": (lambda: with_every_layer(3, Normalizer(8), 1, mixed=4), {PAIRS, SINGLE}),
    "non-local in fours": (lambda: with_every_layer(5, Normalizer(7), 7, signed=False), {PAIRS, SINGLE}),
    "shift to the left": (lambda: shifted(9), {PAIRS}),
    "far shift": (lambda: shifted(-30), {PAIRS}),
}


def given_for(locator: IntegerLocator, detector_patches: Patches) -> np.ndarray:
    """Patches that look for trouble: below and beyond the counts' range too."""
    most = np.iinfo(np.int32)
    return detector_patches(locator, 200).clip(most.min, most.max).astype(np.int32)


@pytest.mark.parametrize("name", LOCATORS)
def test_every_locator_has_the_emulators_codes(name: str, detector_patches: Patches) -> None:
    make, sums = LOCATORS[name]
    locator = make()
    patches = given_for(locator, detector_patches)
    expected = locator.run(locator.codes(patches))
    found = CompiledIntegers(locator, fours=False)
    assert set(found.plan.sums) >= sums
    assert len(np.unique(expected)) > (1 if name == "far shift" else 20)  # a constant would agree with anything
    assert np.array_equal(found(patches), expected)
    fours = CompiledIntegers(locator, fours=True)
    assert (Sums.QUADS in fours.plan.sums) == (name in FOURS)
    assert np.array_equal(fours(patches), expected)


@pytest.mark.parametrize("knows", [{}, {"exponent": True}, {"sigma": True}, {"exponent": True, "sigma": True}])
@pytest.mark.parametrize("window", [3, 5])
def test_random_circuits(
    knows: dict[str, bool], window: int, random_circuit: Callable[..., IntegerLocator], detector_patches: Patches
) -> None:
    for seed in range(4):
        dense = {"hidden": (5, 3)[: seed % 2 + 1], "seed": seed, "centroid": seed < 3}
        channels = {} if "exponent" in knows or seed != 2 else {"channels": 3}
        locator = random_circuit(window, BlockShift(4, 11, seed == 1), **dense, **channels, **knows)
        patches = given_for(locator, detector_patches)
        assert np.array_equal(CompiledIntegers(locator)(patches), locator.run(locator.codes(patches)))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "int32", "float32"])
@pytest.mark.parametrize("normalizer", [Normalizer(8), Normalizer(8, 32), BlockShift(8, 16), BlockShift(8, 32)])
def test_every_type_of_counts(kind: str, normalizer: Normalizer | BlockShift) -> None:
    locator = bare(layered(), normalizer)
    given = counts(9).astype(np.int64)
    if kind == "float32":
        patches = (given * 99_999 - 1e6 + np.linspace(0, 1, 9)).astype(np.float32)  # negative, fractions, beyond
        patches[5], patches[6, 0] = 3e38, -3e38
    else:
        patches = given.astype(kind)
    found = CompiledIntegers(locator)(patches)
    assert np.array_equal(found, locator.run(locator.codes(patches)))
    assert len(np.unique(found)) > 20


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that makes the kernel be compiled for an instruction set."""

    def choose(march: str) -> None:
        flags = [word for flag in kernel.FLAGS if flag != "-O3" for word in flag.replace("native", march).split()]
        monkeypatch.setattr(kernel, "FLAGS", ("-O1", *flags))  # compiles in a third of the time
        kernel.library.cache_clear()

    yield choose
    kernel.library.cache_clear()


@pytest.mark.parametrize("march", SETS)
def test_every_instruction_set_has_the_same_codes(
    march: str, processor: Callable[[str], None], detector_patches: Patches
) -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or SETS[march] not in cpuinfo.read_text(encoding="utf-8").split():
        pytest.skip(f"this processor has no {SETS[march]}")
    processor(march)
    for name in (
        "shipped circuit",
        "floor",
        "half up",
        "non-local in fours",
        "wide codes",
        "wide all",
        "wide centroid",
    ):
        locator = LOCATORS[name][0]()
        patches = given_for(locator, detector_patches)
        expected = locator.run(locator.codes(patches))
        for fours in (False, True):
            assert np.array_equal(CompiledIntegers(locator, fours=fours)(patches), expected), (name, fours)


def test_batches_order_and_threads_do_not_matter() -> None:
    locator = locators.load(path_of("shipped_circuit"))
    patches = counts(11, 301)
    expected = CompiledIntegers(locator)(patches)
    for threads in (2, 3, 64):
        assert np.array_equal(CompiledIntegers(locator, threads)(patches), expected)
    alone = CompiledIntegers(locator)
    order = np.random.default_rng(0).permutation(len(patches))
    assert np.array_equal(alone(patches[order]), expected[order])
    for count in (0, 1, 2, 31, 33):
        assert np.array_equal(alone(patches[:count]), expected[:count])
    assert np.array_equal(alone(patches[::3]), expected[::3])  # not contiguous


#: Fields of a layer whose change the patches above must show: locator, layer, field, what is added, None for 0 instead.
NOTICED = [
    ("floor", 0, "down", 1), ("floor", 0, "high", -1), ("floor", 0, "kind", -1), ("floor", 0, "slope", 1),
    ("floor", 0, "below_down", 1), ("floor", 1, "low", 1), ("narrow", 0, "low", 1), ("floor", 3, "down", -1),
    ("half up", 0, "half", None), ("half up", 0, "below_half", None), ("half up", 2, "half", -1),
    ("shift to the left", 0, "up", -1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "layer", "field", "change"), NOTICED, ids=[f"{n} {i} {f}" for n, i, f, _ in NOTICED])
def test_another_rounding_or_saturation_is_noticed(
    name: str, layer: int, field: str, change: int | None, detector_patches: Patches
) -> None:
    locator = LOCATORS[name][0]()
    patches = given_for(locator, detector_patches)
    found = CompiledIntegers(locator, fours=False)
    expected = found(patches)
    layers, column = found.plan.tables[0], Layer.names().index(field)
    layers[layer, column] = 0 if change is None else layers[layer, column] + change
    assert not np.array_equal(found(patches), expected)


#: Another value of a field of a non-local block: the keys are the values, tables begin an entry later.
ATTENTION = {"down": 9, "most": 1, "shift": 12, "low": 0, "high": 3, "key": 4, "exponentials": 2, "reciprocals": 258}


@pytest.mark.parametrize("field", ATTENTION)
def test_another_attention_is_noticed(field: str, detector_patches: Patches) -> None:
    locator = LOCATORS["non-local, saturated"][0]()
    patches = given_for(locator, detector_patches)
    found = CompiledIntegers(locator)
    expected = found(patches)
    blocks, column = found.plan.tables[8], Attention.names().index(field)
    assert blocks[0, column] != ATTENTION[field]
    blocks[0, column] = ATTENTION[field]
    assert not np.array_equal(found(patches), expected)


def dense(bits: int) -> Linear:
    return linear(np.random.default_rng(0), "d", "dense", (2, 25), 8, bits)


HUGE = Linear("d", "dense", np.full((2, 25), -1 << 40), Format(42, 0, True), np.zeros(2, np.int64), Format(1, 8, True))
REFUSED: dict[str, tuple[tuple, str]] = {
    "requantization first": (
        (Requantize("a", "relu", Format(5, 5, False)), dense(5)),
        "layer a .relu. has no compiled",
    ),
    "weights": ((HUGE,), "layer d: its numbers are too wide for a compiled form"),
    "outputs": ((dense(16), Requantize("o", "identity", Format(40, 30, True))), "layer d: its numbers are too wide"),
    "activations": (
        (dense(16), Requantize("o", "identity", Format(40, 50, True)), replace(dense(4), weight=np.ones((2, 2), int))),
        "layer d: its numbers are too wide for a compiled form",
    ),
}


def conv(outputs: int, inputs: int, rows: int, cols: int) -> Linear:
    return linear(np.random.default_rng(0), "c", "conv2d", (outputs, inputs, rows, cols), 8)


#: Layers that do not fit each other: the kernel would read beyond its arrays.
UNFIT: dict[str, tuple] = {
    "channels": (conv(2, 1, 3, 3), Requantize("a", "relu", Format(5, 5, False)), conv(2, 3, 3, 3)),
    "kernel": (conv(2, 1, 7, 7),),
    "not square": (conv(2, 1, 3, 2),),
    "inputs": (conv(2, 1, 3, 3), Requantize("a", "relu", Format(5, 5, False)), Flatten("f"), dense(5)),
    "first inputs": (linear(np.random.default_rng(0), "d", "dense", (2, 24), 8),),
}


@pytest.mark.parametrize("name", UNFIT)
def test_layers_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"layer .: its weights of shape \(2, .*\) do not fit what is before it"):
        CompiledIntegers(bare(sized(5, UNFIT[name]), BlockShift(8)))


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_compiled_form_is_refused(name: str) -> None:
    layers, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        CompiledIntegers(bare(sized(5, (Flatten("flat"), *layers)), BlockShift(8)))
    wide = replace(LOCATORS["golden circuit"][0](), output=Format(33, 9, True))
    with pytest.raises(UserError, match="outputs of 33 bits have no compiled form; at most 32 bits have"):
        CompiledIntegers(wide)


def test_a_non_local_block_that_is_too_wide_is_refused() -> None:
    locator = with_every_layer(1, Normalizer(8), 1)
    first, act, block, *others = locator.network.layers
    assert isinstance(block, NonLocal)
    wide = {
        "reciprocal": replace(block.reciprocal, bits=34),
        "query": replace(block.query, bits=18),
        "weighted": replace(block.weighted, bits=33),
    }
    for name, to in wide.items():
        network = replace(locator.network, layers=(first, act, replace(block, **{name: to}), *others))
        with pytest.raises(UserError, match=f"layer {block.name}: its numbers are too wide for a compiled form"):
            CompiledIntegers(replace(locator, network=network))
    for layers in ((first, block), (block,)):
        with pytest.raises(UserError, match=r"has no compiled form where it stands|do not fit what is before it"):
            CompiledIntegers(bare(replace(locator.network, layers=(*layers, act, *others)), Normalizer(8)))


def test_as_a_locator(random_circuit: Callable[..., IntegerLocator], detector_patches: Patches) -> None:
    locator = random_circuit(5, exponent=True, sigma=True)
    patches = given_for(locator, detector_patches)
    form = compiled_locator(locator)
    for found, expected in zip(
        form.locate_with_intervals(patches), locator.locate_with_intervals(patches), strict=True
    ):
        assert np.array_equal(found, expected)
    assert form.locate(patches[:0]).shape == (0, 2)
    assert np.array_equal(form.locate(patches.astype(np.float64)), locator.locate(patches))
    with pytest.raises(UserError, match="NaN"):
        form.locate(np.full((1, 7, 7), np.nan, np.float32))
    none = replace(locator, calibration=None, network=random_circuit(5, exponent=True).network)
    assert not compiled_locator(none).sigma


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, processor: Callable[[str], None]) -> None:
    processor("native")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"g\+\+ is not on the PATH"):
        compiled_locator(locators.load(path_of("shipped_circuit")))


def test_a_library_of_another_processor_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines of different kinds share a home: "native" means something else on each, and so does the file's name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" int f() { return 1; }')
    gxx = shutil.which("g++")
    folder = tmp_path / "bin"
    folder.mkdir()
    found = []
    for march in ("x86-64-v3", "x86-64-v2") if os.uname().machine == "x86_64" else ("armv8-a", "armv8.2-a"):
        script = folder / "g++"
        script.write_text(f'#!/bin/sh\nexec {gxx} $(echo "$@" | sed s/-march=native/-march={march}/)\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        found.append(compiler.shared_library(source, ("-march=native",)))
        found[0].write_bytes(b"instructions that this processor does not have")
    assert found[0] != found[1]
    assert compiler.loaded_library(source, ("-march=native",)).f() == 1


def test_a_change_of_a_header_makes_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source, header = tmp_path / "one.cpp", tmp_path / "number.h"
    source.write_text('#include "number.h"\nextern "C" int f() { return NUMBER; }')
    for number in (3, 4):
        header.write_text(f"#define NUMBER {number}")
        assert compiler.loaded_library(source, ()).f() == number


def test_a_library_that_does_not_load_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" int f() { return 2; }')
    compiler.shared_library(source, ()).write_bytes(b"cut off")
    assert compiler.loaded_library(source, ()).f() == 2
    source.write_text('extern "C" int nowhere(); extern "C" int f() { return nowhere(); }')
    with pytest.raises(UserError, match=r"cannot be loaded .* XDG_CACHE_HOME"):
        compiler.loaded_library(source, ("-Wl,-z,now",))


def test_a_cache_that_cannot_be_written_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processor: Callable[[str], None]
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    processor("native")
    locator = locators.load(GOLDEN / "circuit.json")
    patches = counts(11, 40)
    assert np.array_equal(CompiledIntegers(locator)(patches), locator.run(locator.codes(patches)))
    assert (tmp_path / "file").read_text() == "no folder"

"""C simulation of whole circuits: every part equal to the integer circuit, and a mutation named by its part."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.locate.calibration import Calibration
from firmware_sim.forms import csim, csim_circuit
from firmware_sim.forms.compare import Comparison
from firmware_sim.verification.vectors import corner_case_counts
from hls.project.circuit import write_circuit_project
from hls.project.layered import CXX_FLAGS
from hls.project.test_bench import golden_counts
from quant.contract import emulate
from quant.contract.arithmetic import Codes, Format
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.layers import Flatten, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork, Layer
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators
from quant.exchange.circuit_qonnx import export_network

FRAC = 6
OUTPUT = Format(8, FRAC, True)  # narrower than what is added up: it saturates on some patches
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def linear(rng: np.random.Generator, name: str, shape: tuple[int, ...], frac: int, before: int) -> Linear:
    kind = "conv2d" if len(shape) == 4 else "dense"
    bias = rng.integers(-20, 21, shape[0])
    return Linear(name, kind, rng.integers(-7, 8, shape), Format(4, frac, True), bias, Format(1, frac + before, True))


def network(
    window: int, hidden: tuple[int, ...], kernel: int = 0, exponent: int = 0, outputs: int = 2
) -> IntegerNetwork:
    """4-bit codes; a convolution of 2 channels if there is a kernel; dense layers."""
    rng = np.random.default_rng(window + kernel)
    layers: list[Layer] = []
    inputs, frac = window**2 + exponent, 4
    if kernel:
        layers = [
            linear(rng, "conv", (2, 1, kernel, kernel), 4, frac),
            Requantize("conv.act", "relu", Format(5, 4, False)),
        ]
        inputs = 2 * (window - kernel + 1) ** 2
    if not exponent:
        layers.append(Flatten("flatten"))
    for i, units in enumerate(hidden):
        layers += [
            linear(rng, f"dense.{i}", (units, inputs), 4, frac),
            Requantize(f"dense.{i}.act", "relu", Format(5, 4, False)),
        ]
        inputs = units
    last = linear(rng, "last", (outputs, inputs), 4, frac)
    layers += [last, Requantize("last.act", "identity", Format(9, FRAC, True))]
    return size_accumulators(IntegerNetwork(window, Format(4, 4, False), tuple(layers), exponent))


def centroid(window: int) -> Centroid:
    return Centroid.of_power(window, 4, 2, index_bits=4, reciprocal_bits=7, numerator_bits=9, frac=FRAC)


CIRCUITS = {
    "subtract-alone-stream": IntegerLocator(
        5, 3, BlockShift(4, 12, True), network(3, (4,)), None, Format(5, FRAC, True)
    ),
    "min-max-convolution": IntegerLocator(5, 5, Normalizer(4, 18), network(5, (4,), 3), centroid(5), OUTPUT),
    "sigma": IntegerLocator(
        7,
        5,
        BlockShift(4, 16),
        network(5, (6, 5), 0, 16, 4),
        centroid(5),
        OUTPUT,
        Calibration((-2.0, 1.0), (-1.5, 1.2), (0.0, 2.0)),
    ),
    "sigma-alone-stream": IntegerLocator(
        5, 3, BlockShift(4, 12, True), network(3, (5,), 0, 12, 4), None, Format(6, FRAC, True), Calibration()
    ),
    "exponent-stream": IntegerLocator(
        3, 3, BlockShift(4, 16), network(3, (5,), 0, 16), centroid(3), Format(6, FRAC, True)
    ),
}


class Case:
    """A circuit, its project, the compiled simulation, and counts that look for trouble."""

    def __init__(self, directory: Path, name: str) -> None:
        self.circuit = CIRCUITS[name]
        rng = np.random.default_rng(0)
        # All zero, saturated, single hot pixels, negative, beyond 16 bits and 18, fractional.
        self.patches = corner_case_counts(self.circuit.size, rng)
        self.counts = np.concatenate([self.circuit.counts(self.patches), golden_counts(self.circuit, self.patches[:0])])
        export_network(self.circuit.network, directory / "model.onnx")
        self.project = directory / "project"
        io_type = "io_stream" if "stream" in name else "io_parallel"
        write_circuit_project(
            directory / "model.onnx", self.circuit, self.project, patches=self.patches[::20], io_type=io_type
        )
        self.executable = csim.build(self.project, directory / "build", optimization="-O0")

    def simulate(self, executable: csim.Executable, out_dir: Path) -> tuple[Codes, Comparison]:
        return csim_circuit.simulate(executable, self.circuit, self.counts, workers=1, chunk=300, out_dir=out_dir)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Callable[[str], Case]:
    cases: dict[str, Case] = {}

    def build(name: str) -> Case:
        if name not in cases:
            cases[name] = Case(tmp_path_factory.mktemp(name), name)
        return cases[name]

    return build


@pytest.mark.parametrize("name", CIRCUITS)
def test_every_part_of_every_patch_agrees(built, name, tmp_path):
    case = built(name)
    circuit = case.circuit
    offsets, found = case.simulate(case.executable, tmp_path)
    found.require_exact(name)
    assert np.array_equal(offsets, circuit.run(circuit.inputs(case.counts)))
    size = len(case.patches)
    assert np.array_equal(circuit.positions(offsets[:size]), circuit.locate(case.patches))
    if circuit.calibration is not None:
        assert np.array_equal(circuit.sigma(offsets[:size]), circuit.locate_with_sigma(case.patches)[1])
        assert len(np.unique(offsets[:, 2:], axis=0)) > 20
    assert len(np.unique(offsets, axis=0)) > 20  # not the constant circuit
    names = [layer.name for layer in found.layers]
    layers = [layer.name for layer in circuit.network.layers if layer.kind != "flatten"]
    assert names == ["normalizer", *["centroid"] * (circuit.centroid is not None), *layers, "sum"]
    assert found.layers[-1].saturations > 0
    assert found.patches == len(case.counts)
    again = csim_circuit.run(case.executable, circuit, case.counts, workers=2, chunk=100, out_dir=tmp_path)
    assert np.array_equal(again, offsets)


def test_parts_of_the_chain(built):
    case = built("min-max-convolution")
    found = csim_circuit.steps(case.executable, case.circuit, case.counts)
    codes = case.circuit.normalizer.codes(case.counts)
    assert np.array_equal(found.inputs, codes)
    assert np.array_equal(found.base, case.circuit.centroid.codes(codes))
    outputs = emulate.run(case.circuit.network, codes).outputs
    assert np.array_equal(found.outputs, case.circuit.combined(codes, outputs))


@pytest.fixture(scope="module")
def relinked(built, tmp_path_factory) -> Callable[..., csim.Executable]:
    """Compiles the circuit of a copy in which one text was changed; the network's object code stays."""
    case = built("sigma")
    directory = tmp_path_factory.mktemp("mutants")
    flags = ["-O0", *CXX_FLAGS]
    network_object = str(directory / "network.o")
    network_sources = ["-include", "firmware/braggnn.cpp", "braggnn_bridge.cpp"]
    subprocess.run(["g++", *flags, "-c", *network_sources, "-o", network_object], cwd=case.project, check=True)

    def relink(name: str, pattern: str, change: str) -> csim.Executable:
        copy = directory / re.sub(r"\W", "_", name + change)
        shutil.copytree(case.project, copy)
        path = copy / "firmware" / name
        text, n = re.subn(pattern, change, path.read_text())
        assert n == 1
        path.write_text(text)
        driver = str(Path(csim_circuit.__file__).with_suffix(".cpp"))
        # One translation unit: parsing the types is most of the time.
        sources = ["-include", "firmware/braggnn_locator.cpp", driver, network_object]
        subprocess.run(["g++", *flags, "-I.", *sources, "-o", str(copy / "circuit")], cwd=copy, check=True)
        return replace(case.executable, circuit=copy / "circuit")

    return relink


@pytest.mark.parametrize(
    ("file", "pattern", "change", "part"),
    [
        ("normalize.h", r"zeros = COUNT_BITS - 1 - bit;", "zeros = COUNT_BITS - bit;", "normalizer"),
        ("normalize.h", r"\(together >> bit\) != 0", "(together >> bit) > 1", "normalizer"),
        (
            "braggnn_locator.cpp",
            r"inputs\[N \+ k\] = code_t\(exponent\[k\]\)(?=[\s\S]*#else)",
            "inputs[N + k] = code_t(0)",
            "sum",
        ),
        (
            "braggnn_locator.cpp",
            r"outputs\[k\] = correction\[k\];(?=[\s\S]*#else)",
            "outputs[k] = 0;",
            "sum",
        ),
        ("centroid_tables.h", r"(RECIPROCALS.*\n    )\d+", r"\g<1>100", "centroid"),
        ("centroid.h", r"result\[0\] = quotient\(row(.*\n.*)\(col", r"result[0] = quotient(col\1(row", "centroid"),
        ("braggnn_locator.h", r"AP_SAT", "AP_WRAP", "sum"),
    ],
    ids=["shift", "exponent", "exponent left out", "sigma left out", "table", "row and column", "saturation"],
)
def test_a_mutation_is_named_by_its_part(built, relinked, tmp_path, file, pattern, change, part):
    _, found = built("sigma").simulate(relinked(file, pattern, change), tmp_path)
    assert found.wrong > 0
    assert found.first is not None
    assert found.first.layer == part
    with pytest.raises(UserError, match=f"first at layer {part}, patch"):
        found.require_exact("csim")


def test_the_projects_own_test_bench_passes_and_fails(built, tmp_path):
    case = built("subtract-alone-stream")
    copy = tmp_path / "project"
    shutil.copytree(case.project, copy)
    make = ["make", "-s", "-C", str(copy), "test", "CXXFLAGS=-O0 -std=c++11 -w -Ifirmware/ap_types"]
    passed = subprocess.run(make, capture_output=True, text=True, check=False)
    assert passed.returncode == 0, passed.stderr
    patches = len(golden_counts(case.circuit, case.patches[::20]))
    assert f"PASS: normalizer on {patches} patches, locator on {patches} patches" in passed.stdout
    path = copy / "tb_data" / "counts_to_outputs.dat"
    lines = path.read_text().splitlines()
    head, last = lines[3].rsplit(" ", 1)
    path.write_text("\n".join([*lines[:3], f"{head} {int(last) + 1}", *lines[4:]]) + "\n")
    failed = subprocess.run([str(copy / "test_bench")], cwd=copy, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "locator: patch 3, output 1" in failed.stderr


def test_resumes_after_a_kill(built, tmp_path):
    case = built("sigma")

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        csim_circuit.simulate(
            case.executable, case.circuit, case.counts, workers=1, chunk=100, out_dir=tmp_path, progress=kill
        )
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert 2 <= len(before) < len(case.counts) // 100
    _, found = csim_circuit.simulate(case.executable, case.circuit, case.counts, workers=1, chunk=100, out_dir=tmp_path)
    assert found.exact
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before


def test_other_circuits_and_counts_are_refused(built, tmp_path):
    case = built("sigma")
    other = replace(case.circuit, output=Format(7, FRAC, True))

    def run(circuit: IntegerLocator, counts: np.ndarray) -> None:
        csim_circuit.run(case.executable, circuit, counts, workers=1, chunk=10, out_dir=tmp_path)

    with pytest.raises(UserError, match="not of this circuit"):
        run(other, case.counts)
    with pytest.raises(UserError, match=r"counts are float64 of shape \(1, 5, 5\)"):
        run(case.circuit, np.zeros((1, 5, 5)))
    with pytest.raises(UserError, match=r"expected integers \(n, 5, 5\)"):
        run(case.circuit, np.zeros((1, 7, 7), int))
    with pytest.raises(UserError, match="counts span 0 to 65536, expected 0 to 65535"):
        run(case.circuit, np.full((1, 5, 5), 65536) * np.eye(5, dtype=int))

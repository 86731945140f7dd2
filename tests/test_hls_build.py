"""The stage "hls": reuse factors and strategies, further boards, hls4ml's board flow; what is refused."""

import dataclasses
import functools
import json
import shutil
import subprocess
from pathlib import Path

import builders
import numpy as np
import onnx
import pytest

from braggnn_edge.core import stages
from braggnn_edge.core.config import load as config_of
from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import PEAK, PeakTable
from hls.project import build
from hls.project.accelerator import check_accelerator
from hls.project.build import differences
from hls.project.layered import CXX_FLAGS, load_project, write_project
from hls.project.reuse import check_reuse, spread
from hls.project.spec import ACCELERATOR, BoardSpec, HlsSpec
from hls.project.stage import _shapes
from hls.project.targets import target
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.attention import exp_table, reciprocal_table, size_block
from quant.contract.network import Flatten, IntegerNetwork, Linear, Requantize
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators
from quant.exchange.to_qonnx import qonnx_model
from quant.shipped import shapes_of

SIZE = 7
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or shutil.which("make") is None, reason="needs g++ and make"
)


linear = functools.partial(builders.linear, bits=4, bias=40)


def network() -> IntegerNetwork:
    """Convolutions 2 and 3 with a block between, dense 4 and 2: 9 x 2, 18 x 3, 27 x 4 and 4 x 2 weights."""
    rng = np.random.default_rng(5)
    x, mixed = Format(5, 3, True), Format(5, 3, True)
    parts = {role: linear(rng, role, "conv2d", (1, 2, 1, 1), x.frac) for role in ("theta", "phi", "g")}
    parts["out"] = linear(rng, "out", "conv2d", (2, 1, 1, 1), mixed.frac)
    formats = {
        "query": Format(5, 2, True), "key": Format(5, 2, True), "value": Format(5, 3, True),
        "difference": Format(5, 2, False), "exponential": Format(6, 6, False), "reciprocal": Format(7, 7, False),
        "mixed": mixed,
    }  # fmt: skip
    tables = exp_table(formats["difference"], formats["exponential"]), reciprocal_table(5, 7)
    found = IntegerNetwork(
        SIZE,
        Format(8, 8, False),
        (
            linear(rng, "conv0", "conv2d", (2, 1, 3, 3), 8),
            Requantize("x", "identity", x),
            size_block("nlb", 25, (x, x.low, x.high), parts, formats, tables),
            Requantize("act0", "relu", Format(5, 3, False)),
            linear(rng, "conv1", "conv2d", (3, 2, 3, 3), 3),
            Requantize("act1", "relu", Format(5, 3, False)),
            Flatten("flatten"),
            linear(rng, "dense0", "dense", (4, 27), 3),
            Requantize("act2", "relu", Format(5, 2, False)),
            linear(rng, "dense1", "dense", (2, 4), 2),
            Requantize("out", "identity", Format(10, 4, True)),
        ),
    )
    return size_accumulators(found)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, IntegerNetwork]:
    path = tmp_path_factory.mktemp("qat") / "model.onnx"
    found = network()
    onnx.save(qonnx_model(found), path)
    locators.save(locators.of_layers(found, Normalizer()), path.with_name("locator.json"))
    return path, found


def write(exported: tuple[Path, IntegerNetwork], directory: Path, **settings) -> None:
    counts = np.random.default_rng(1).poisson(300, (2, SIZE, SIZE))
    write_project(*exported, Normalizer(), directory, counts=counts, **settings)


def own_test(project: Path) -> str:
    """The project's own test bench, on its golden vectors, the corner cases among them."""
    flags = f"CXXFLAGS=-O0 {' '.join(CXX_FLAGS)}"
    made = subprocess.run(
        ["make", "-s", "-C", str(project), "test", flags], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr[-3000:]
    return made.stdout


#: io type, strategy and reuse factors: each layer its own; for Resource below and above the dense layers' fan-in.
CASES = {
    "latency": ("io_parallel", "Latency", (4, 7, 10, 3)),
    "resource-parallel": ("io_parallel", "Resource", (3, 9, 54, 8)),
    "resource-stream": ("io_stream", "Resource", (9, 54, 9, 2)),
}


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_codes_are_the_same_whatever_the_reuse(exported, name, tmp_path):
    io_type, strategy, reuse = CASES[name]
    write(exported, tmp_path / "p", io_type=io_type, strategy=strategy, reuse=reuse, keys_per_cycle=4)
    assert load_project(tmp_path / "p").reuse == reuse
    parameters = (tmp_path / "p" / "firmware" / "parameters.h").read_text()
    for factor in reuse:
        assert f"reuse_factor = {factor};" in parameters
    # Not PIPELINE, which would unroll every loop below the top function.
    assert "#pragma HLS DATAFLOW" in (tmp_path / "p" / "firmware" / "braggnn.cpp").read_text()
    assert ", ".join(map(str, reuse)) in (tmp_path / "p" / "README.txt").read_text()
    if strategy == "Resource":  # the board flow runs what Latency makes
        assert "PASS" in own_test(tmp_path / "p")


def test_dense_layers_alone_are_one_pipeline_as_slow_as_the_slowest(tmp_path):
    rng = np.random.default_rng(2)
    layers = (
        Flatten("flatten"),
        linear(rng, "dense0", "dense", (3, 9), 8),
        Requantize("act", "relu", Format(5, 2, False)),
        linear(rng, "dense1", "dense", (2, 3), 2),
        Requantize("out", "identity", Format(10, 4, True)),
    )
    found = size_accumulators(IntegerNetwork(3, Format(8, 8, False), layers))
    onnx.save(qonnx_model(found), tmp_path / "model.onnx")
    counts = rng.poisson(300, (2, 3, 3))
    write_project(tmp_path / "model.onnx", found, Normalizer(), tmp_path / "p", counts=counts, reuse=(5, 3))
    assert "#pragma HLS PIPELINE II=5\n" in (tmp_path / "p" / "firmware" / "braggnn.cpp").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reuse": (1, 2, 3)}, r"reuse has 3 entries.* 4 layers with weights \(conv0, conv1, dense0, dense1\)"),
        ({"reuse": (19, 1, 1, 1)}, "conv0: reuse factor 19 is more than its 18 products"),
        ({"reuse": (1, 1, 0, 1)}, "reuse factor 0"),
        ({"strategy": "Resource", "reuse": (1, 4, 1, 1)}, r"conv1: reuse factor 4 .*18 x 3 .* 1, 2, 3, 6, 9, 18$"),
        (
            {"strategy": "Resource", "reuse": (1, 1, 10, 1)},
            r"dense0: reuse factor 10 .*27 x 4 .* 1, 3, 9, 27, 54, 108$",
        ),
    ],
)
def test_factors_that_cannot_be_are_refused_before_files_are_written(exported, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        write(exported, tmp_path / "p", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_convolution_of_arrays_shares_at_most_its_fan_in(exported):
    check_reuse(exported[1], (1, 54, 1, 1), "Resource", "io_stream")
    with pytest.raises(UserError, match="conv1: reuse factor 54 "):
        check_reuse(exported[1], (1, 54, 1, 1), "Resource", "io_parallel")


def test_one_factor_is_for_all(exported):
    assert spread(4, exported[1]) == (4, 4, 4, 4)
    check_reuse(exported[1], spread(7, exported[1]), "Latency", "io_stream")


def peak_table() -> PeakTable:
    peaks = np.zeros(3, PEAK)
    peaks["split"] = TEST
    crops = np.random.default_rng(1).poisson(300, (3, SIZE, SIZE)).astype(np.float32)
    return PeakTable(peaks, crops, (), SIZE, 0)


#: The U280 takes the sources as they are, the U250 has its own plan.
SPEC = HlsSpec(
    io_types=("io_stream",), target="zcu102", reuse=(4, 7, 10, 3), keys_per_cycle=4, vectors=3,
    boards=(
        BoardSpec("u280", clock_mhz=250.0), BoardSpec("u250", reuse=2, keys_per_cycle=7),
        BoardSpec("u280", ACCELERATOR, strategy="Resource", reuse=(9, 6, 54, 4)),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def stage(exported, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("hls")
    build.run(SPEC, peak_table(), exported[0].parent, directory, lambda _: None)
    return directory


def test_one_project_a_board_and_only_the_first_is_simulated(stage):
    assert [path.parent.name for path in stage.glob("*/project.json")] == ["io_stream"]
    first, u280, u250 = (
        load_project(stage / name) for name in ("io_stream", "boards/u280/io_stream", "boards/u250/io_stream")
    )
    assert (first.target, first.clock_mhz, first.reuse, first.keys_per_cycle) == ("zcu102", 200.0, (4, 7, 10, 3), 4)
    assert (u280.part, u280.clock_mhz, u280.reuse) == ("xcu280-fsvh2892-2L-e", 250.0, first.reuse)
    assert (u250.target, u250.reuse, u250.keys_per_cycle) == ("u250", (2, 2, 2, 2), 7)
    flow = load_project(stage / "boards/u280/io_stream-vivadoaccelerator")
    assert (flow.backend, flow.strategy, flow.reuse) == (ACCELERATOR, "Resource", (9, 6, 54, 4))
    assert 'set part "xcu280-fsvh2892-2L-e"' in (stage / "boards/u280/io_stream/project.tcl").read_text()


def test_a_further_board_has_the_sources_that_were_simulated(stage):
    parts = ["README.txt", "project.json", "project.tcl"]
    assert differences(stage / "io_stream", stage / "boards/u280/io_stream") == parts
    other = [*parts[:1], "firmware/parameters.h", *parts[1:]]
    assert differences(stage / "io_stream", stage / "boards/u250/io_stream") == other
    listed = json.loads((stage / "boards/boards.json").read_text())
    assert [(found["directory"], found.get("same_firmware"), found.get("differs_in")) for found in listed] == [
        ("u280/io_stream", True, parts),
        ("u250/io_stream", False, other),
        ("u280/io_stream-vivadoaccelerator", None, None),
    ]


def test_a_further_board_with_other_sources_is_refused(stage, exported, tmp_path):
    for name in ("io_stream", "boards/u280/io_stream"):
        shutil.copytree(stage / name, tmp_path / name)
    path = tmp_path / "boards/u280/io_stream/firmware/parameters.h"
    path.write_text(path.read_text().replace("reuse_factor = 7;", "reuse_factor = 8;"))
    spec = dataclasses.replace(SPEC, boards=SPEC.boards[:1])
    with pytest.raises(UserError, match=r"boards/u280/io_stream and io_stream differ in .*parameters\.h"):
        build.run(spec, peak_table(), exported[0].parent, tmp_path, lambda _: None)


def test_all_boards_are_checked_before_the_first_file(exported, tmp_path):
    spec = dataclasses.replace(SPEC, boards=(BoardSpec("u280", reuse=(1, 1, 1, 9)),))
    with pytest.raises(UserError, match="dense1: reuse factor 9"):
        build.run(spec, peak_table(), exported[0].parent, tmp_path, lambda _: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_compiler
def test_board_flow_carries_every_code_through_its_axi_stream(stage, exported, tmp_path):
    shutil.copytree(stage / "boards/u280/io_stream-vivadoaccelerator", tmp_path / "io_stream")
    write(exported, tmp_path / "io_parallel", backend=ACCELERATOR, reuse=(4, 7, 10, 3), keys_per_cycle=4)
    for io_type, part in (("io_stream", "xcu280-fsvh2892-2L-e"), ("io_parallel", "xczu9eg-ffvb1156-2-e")):
        project = tmp_path / io_type
        assert f'set part "{part}"' in (project / "project.tcl").read_text()
        header = (project / "firmware/braggnn_axi.h").read_text()
        assert "typedef float T_in;" in header
        assert "typedef float T_out;" in header
        assert "set_top ${project_name}_axi" in (project / "build_prj.tcl").read_text()
        assert "PASS" in own_test(project)


def test_sources_of_an_alveo_kernel_bear_the_projects_name(stage):
    project = stage / "boards/u280/io_stream-vivadoaccelerator"
    assert "src/${project_name}_kernel.v" in (project / "design.tcl").read_text()
    assert (project / "src/braggnn_kernel.v").exists()
    assert "braggnn_axi_0" in (project / "src/krnl_rtl_int.sv").read_text()
    assert not [path for path in (project / "src").iterdir() if "myproject" in path.name + path.read_text()]


@pytest.mark.parametrize(
    ("target_name", "io_type", "strategy", "reuse", "change", "message"),
    [
        ("vcu118", "io_stream", "Latency", 1, {}, "vcu118: .*does not know it; expected one of zcu102, u280, u250"),
        ("u280", "io_stream", "Latency", 1, {"dense0": (200, 27)}, "dense0: .* 5400 products, only 4096.* 2 or more"),
        ("u280", "io_stream", "Resource", 1, {"dense0": (200, 27)}, "dense0: .* 5400 products"),
        ("u280", "io_parallel", "Latency", 1, {"conv0": (170, 1, 3, 3)}, "conv0: .* 4250 values .* use io_stream"),
        ("u280", "io_stream", "Latency", 1, {"output": 25}, "the output has 25 bits, .* exact up to 24"),
    ],
)  # fmt: skip
def test_what_the_board_flow_cannot_do_is_refused(exported, target_name, io_type, strategy, reuse, change, message):
    found = exported[1]
    layers = [
        dataclasses.replace(layer, weight=np.ones(change[layer.name], np.int64)) if layer.name in change else layer
        for layer in found.layers
    ]
    if "output" in change:
        layers[-1] = dataclasses.replace(layers[-1], output=Format(change["output"], 4, True))
    changed = dataclasses.replace(found, layers=tuple(layers))
    with pytest.raises(UserError, match=message):
        check_accelerator(changed, target(target_name), io_type, strategy, (reuse,) * 4)


def test_board_flow_takes_a_large_layer_that_is_shared(exported):
    layers = tuple(
        dataclasses.replace(layer, weight=np.ones((200, 27), np.int64)) if layer.name == "dense0" else layer
        for layer in exported[1].layers
    )
    changed = dataclasses.replace(exported[1], layers=layers)
    check_accelerator(changed, target("u280"), "io_stream", "Resource", (1, 1, 2, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boards": (BoardSpec("zcu102"),)}, "zcu102 beside target zcu102"),
        ({"boards": (BoardSpec("u280"), BoardSpec("u280"))}, "name each board and flow once"),
        ({"boards": (BoardSpec("u280", clock_mhz=-1.0),)}, "clock of -1.0 MHz"),
        ({"boards": (BoardSpec("u280", reuse=(1, -1)),)}, "reuse factor -1"),
        ({"boards": (BoardSpec("u280", strategy="Fast"),)}, "strategy 'Fast'"),
        (
            {"io_types": ("io_stream",), "boards": (BoardSpec("u280", io_types=("io_parallel",)),)},
            "io_types io_parallel",
        ),
        ({"backend": ACCELERATOR}, "is not offered; expected Vitis or Vivado; it is a flow of"),
        ({"reuse": ()}, "reuse is empty"),
        ({"reuse": (1, 0)}, "reuse factor 0"),
    ],
)
def test_a_table_that_cannot_be_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        HlsSpec(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "abacus"}, "abacus"),
        ({"target": "u280", "flow": "x"}, "flow 'x'"),
        ({"target": "u280", "keys_per_cycle": -1}, "-1"),
    ],
)
def test_a_board_that_cannot_be_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        BoardSpec(**settings)


@pytest.mark.parametrize(
    ("config", "file"),
    [
        ("configs/smoke.toml", "tests/golden/layered.json"),
        ("configs/smoke_circuit.toml", "tests/golden/circuit.json"),
    ],
)
def test_shapes_are_known_before_the_training(config, file):
    """What the configuration says of the layers is what the trained locator has."""
    root = Path(__file__).parents[1]
    layers = [layer for layer in locators.load(root / file).network.layers if isinstance(layer, Linear)]
    found = [shape[1:] for shape in _shapes(config_of(root / config, stages.tables()))]
    assert found == [(layer.kind, len(layer.weight), layer.weight[0].size) for layer in layers]


def test_shapes_of_what_ships_are_those_of_the_universal_network():
    """Its configuration, quantized anew, has the layers of what ships."""
    found = [shape[1:] for shape in shapes_of("shipped")]
    assert found == [("dense", 512, 137), ("dense", 256, 512), ("dense", 4, 256)]

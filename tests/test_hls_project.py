"""HLS projects: exact types, files, reproducibility, refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import NetworkSpec
from hls.project.check import check, precision
from hls.project.convert import channels_last, convert
from hls.project.layered import load_project, write_project
from hls.project.targets import TARGETS, target
from hls.project.test_bench import golden, render
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.network import IntegerNetwork, Linear
from quant.contract.normalize import Normalizer
from quant.contract.vectors import random_codes
from quant.training.export import export_qonnx
from quant.training.plan import BitPlan
from quant.training.qnet import QuantBraggNN, calibrate, fit_weight_scales

SIZE = 7
COUNTS = np.random.default_rng(1).poisson(300, (5, SIZE, SIZE))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, IntegerNetwork]:
    """A calibrated network of two convolutions with different channel counts: orders of axes must all be right."""
    path = tmp_path_factory.mktemp("qonnx") / "model.onnx"
    plan = BitPlan(weight_bits=(5, 6, 6, 4), activation_bits=(6, 7, 5))
    qnet = QuantBraggNN(NetworkSpec((2, 3), (4,), False, 0.0), SIZE, plan)
    rng = np.random.default_rng(0)
    for parameter in qnet.parameters():
        if parameter.ndim:
            parameter.data[...] = parameter.data.new_tensor(rng.normal(0, 0.3, tuple(parameter.shape)))
    fit_weight_scales(qnet)
    codes = random_codes(SIZE, plan.input, 60, rng)
    calibrate(qnet, plan.input.values(codes)[:, None].astype(np.float32))
    return path, export_qonnx(qnet, path)


@pytest.fixture(scope="module", params=["io_parallel", "io_stream"])
def project(request, exported, tmp_path_factory) -> Path:
    path, network = exported
    directory = tmp_path_factory.mktemp("hls") / "project"
    write_project(path, network, Normalizer(), directory, counts=COUNTS, io_type=request.param)
    return directory


def test_types_in_the_generated_cpp(project, exported):
    text = (project / "firmware" / "defines.h").read_text()
    network = exported[1]
    assert f"{network.input.ap_type[:-1]},AP_TRN,AP_SAT,0>" in text
    for layer in network.layers:
        if isinstance(layer, Linear):
            # weight, accumulator: plain types, wrapping, as narrow as the integer network says
            assert layer.weight_format.ap_type in text
            assert layer.accumulator.ap_type in text
        elif layer.kind != "flatten":
            assert f"{layer.output.ap_type[:-1]},AP_TRN,AP_SAT,0>" in text
    assert "AP_RND" not in text


def test_project_describes_itself(project, exported):
    network = exported[1]
    found = load_project(project)
    names = [layer.name for layer in network.layers if layer.kind != "flatten"]
    assert [layer.name for layer in found.layers] == names
    assert [layer.shape for layer in found.layers][:4] == [(5, 5, 2), (5, 5, 2), (3, 3, 3), (3, 3, 3)]
    assert (found.input, found.output, found.part) == (network.input, network.output, TARGETS["zcu102"].part)
    saved = locators.load(project / "locator.json")
    for layer, other in zip(network.layers, saved.network.layers, strict=True):
        if isinstance(layer, Linear):
            np.testing.assert_array_equal(layer.weight, other.weight)
    assert saved.normalizer == Normalizer()


def test_no_placeholder_and_no_path_is_left(project):
    for path in [*project.glob("*"), *project.glob("firmware/*.*")]:
        if path.is_file():
            text = path.read_text()
            assert not [w for w in ("@NAME@", "@N_IN@", "@CXX_FLAGS@", "@BITS@", "mystamp") if w in text], path
            assert str(project) not in text
            assert ".part" not in text


def test_golden_vectors_are_the_emulators(project, exported):
    network = exported[1]
    vectors = golden(network, Normalizer(), COUNTS, np.zeros((0, SIZE, SIZE), np.int64))
    rows = np.loadtxt(project / "tb_data" / "codes_to_outputs.dat", dtype=np.int64)
    np.testing.assert_array_equal(rows[:5, :-2], vectors.count_codes.reshape(5, -1))
    np.testing.assert_array_equal(rows[:5, -2:], vectors.outputs)
    rows = np.loadtxt(project / "tb_data" / "counts_to_codes.dat", dtype=np.int64)
    np.testing.assert_array_equal(rows, np.hstack([COUNTS.reshape(5, -1), vectors.count_codes.reshape(5, -1)]))


def test_same_arguments_same_bytes(exported, tmp_path):
    path, network = exported
    for name in ("a", "b"):
        write_project(path, network, Normalizer(), tmp_path / name, counts=COUNTS)
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")) for n in ("a", "b")]
    assert files[0] == files[1]
    for name in files[0]:
        if (tmp_path / "a" / name).is_file():
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def _changed(network: IntegerNetwork, index: int, **fields) -> IntegerNetwork:
    layers = list(network.layers)
    layers[index] = replace(layers[index], **fields)
    return replace(network, layers=tuple(layers))


@pytest.mark.parametrize(
    ("index", "what", "message"),
    [
        (0, "weight", "Conv_0: hls4ml's weights"),
        (2, "bias", "Conv_1: hls4ml's bias"),
        (5, "weight", "Gemm_0: hls4ml's weights"),
        (3, "output", "Relu_1: hls4ml gave the result type"),
        (8, "rounding", "result type"),
    ],
)
def test_a_network_that_is_not_the_qonnx_is_refused(exported, tmp_path, index, what, message):
    path, network = exported
    layer = network.layers[index]
    if what == "weight":
        weight = layer.weight.copy()
        weight.flat[0] ^= 1
        wrong = _changed(network, index, weight=weight)
    elif what == "bias":
        wrong = _changed(network, index, bias=layer.bias[::-1].copy())
    elif what == "output":
        wrong = _changed(network, index, output=Format(layer.output.bits, layer.output.frac - 1, False))
    else:
        wrong = _changed(network, index, rounding="half_up")
    with pytest.raises(UserError, match=message):
        write_project(path, wrong, Normalizer(), tmp_path / "p", counts=COUNTS)
    assert list(tmp_path.iterdir()) == []


def test_check_reads_types_back(exported, tmp_path):
    path, network = exported
    graph = convert(
        channels_last(path), network, tmp_path / "p", name="x", io_type="io_parallel", backend="Vitis",
        part="xczu9eg-ffvb1156-2-e", clock_ns=5.0, strategy="Latency", reuse=(1, 2, 1, 1),
    )  # fmt: skip
    assert len(check(graph, network, "Latency", (1, 2, 1, 1))) == 8
    with pytest.raises(UserError, match=r"Conv_1: hls4ml made it strategy latency with reuse factor 2, .* and 1"):
        check(graph, network, "Latency", (1, 1, 1, 1))
    node = next(n for n in graph.get_layers() if n.class_name == "Dense")
    node.types["accum_t"].precision.width -= 1
    with pytest.raises(UserError, match="layer Gemm_0: hls4ml gave the accumulator type"):
        check(graph, network, "Latency", (1, 2, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"io_type": "serial"}, "io type 'serial'"),
        ({"strategy": "Fast"}, "strategy 'Fast'"),
        ({"target_name": "abacus"}, "target 'abacus'.*zcu102"),
        ({"clock_mhz": 0.0}, "clock"),
        ({"reuse": 0}, "reuse"),
        ({"backend": "Abacus"}, "Abacus.*Vitis"),
    ],
)
def test_bad_arguments(exported, tmp_path, arguments, message):
    path, network = exported
    with pytest.raises(UserError, match=message):
        write_project(path, network, Normalizer(), tmp_path / "p", counts=COUNTS, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files(exported, tmp_path):
    path, network = exported
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"broken\.onnx"):
        write_project(broken, network, Normalizer(), tmp_path / "p", counts=COUNTS)
    with pytest.raises(UserError, match="make hls"):
        load_project(tmp_path)
    (tmp_path / "project.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(UserError, match="not an HLS project"):
        load_project(tmp_path)


def test_existing_directory_is_kept(exported, tmp_path):
    path, network = exported
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "mine").write_text("x")
    with pytest.raises(UserError, match="exists"):
        write_project(path, network, Normalizer(), tmp_path / "p", counts=COUNTS)
    assert (tmp_path / "p" / "mine").read_text() == "x"


def test_normalizer_of_other_width(exported, tmp_path):
    path, network = exported
    with pytest.raises(UserError, match="normalizer"):
        write_project(path, network, Normalizer(bits=7), tmp_path / "p", counts=COUNTS)


def test_precision_text():
    assert precision(Format(8, 8, False), saturate=True) == "ufixed<8,0,TRN,SAT,0>"
    assert precision(Format(16, 11, True), "half_up", saturate=True) == "fixed<16,5,RND,SAT,0>"
    assert precision(Format(15, 14, True)) == "fixed<15,1,TRN,WRAP,0>"


def test_targets_and_templates():
    assert target("u280").part == "xcu280-fsvh2892-2L-e"
    assert (target("u280").dsps, target("zcu102").dsps) == (9_024, 2_520)
    for backend, command in (("Vitis", "vitis-run"), ("Vivado", "vivado_hls"), ("VivadoAccelerator", "design.tcl")):
        assert command in render(f"README_{backend}.txt", {})
    assert "make test" in render("README.txt", {})
    assert shutil.which("make") is None or "test_bench" in render("Makefile", {"NAME": "x", "CXX_FLAGS": "-O2"})

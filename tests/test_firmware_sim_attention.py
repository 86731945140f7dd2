"""A small network with a non-local block through hls4ml and g++: every code of every layer and step, both io types."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import linear

from braggnn_edge.core.errors import UserError
from firmware_sim.forms import csim
from firmware_sim.forms.compare import Comparison, points, simulate
from firmware_sim.verification.vectors import corner_case_codes
from hls.project.attention import steps
from hls.project.layered import load_project, write_project
from quant.contract import emulate
from quant.contract.arithmetic import Format
from quant.contract.attention import NonLocal, exp_table, reciprocal_table, size_block
from quant.contract.network import Flatten, IntegerNetwork, Leaky, Requantize
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators
from quant.exchange.to_qonnx import qonnx_model

CHANNELS = (8, 4)
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def network(size: int, inner: int, pool: int) -> IntegerNetwork:
    """Convolutions 8 and 4 with a block between, one leaky activation, one dense layer; random weights."""
    rng = np.random.default_rng(7)
    one, two = CHANNELS
    side = size - 2
    x, mixed = Format(6, 4, True), Format(7, 4, True)
    parts = {role: linear(rng, role, "conv2d", (inner, one, 1, 1), x.frac) for role in ("theta", "phi", "g")}
    parts["out"] = linear(rng, "out", "conv2d", (one, inner, 1, 1), mixed.frac)
    formats = {
        "query": Format(6, 2, True), "key": Format(5, 1, True), "value": Format(6, 3, True),
        "difference": Format(6, 2, False), "exponential": Format(8, 8, False), "reciprocal": Format(9, 9, False),
        "mixed": mixed,
    }  # fmt: skip
    tables = exp_table(formats["difference"], formats["exponential"]), reciprocal_table(6, 9)
    dense = linear(rng, "dense", "dense", (2, two * (side - 2) ** 2), 3)
    found = IntegerNetwork(
        size,
        Format(8, 8, False),
        (
            linear(rng, "conv0", "conv2d", (one, 1, 3, 3), 8),
            Requantize("x", "identity", x),
            size_block("nlb", side**2, (x, x.low, x.high), parts, formats, tables, pool),
            Leaky("act0", "leaky", Format(6, 3, True), slope_code=164, slope_frac=14),
            linear(rng, "conv1", "conv2d", (two, one, 3, 3), 3),
            Requantize("act1", "relu", Format(5, 3, False)),
            Flatten("flatten"),
            dense,
            Requantize("out", "identity", Format(12, 5, True)),
        ),
    )
    return size_accumulators(found)


class Case:
    """The network, its project and the compiled simulation."""

    def __init__(self, directory: Path, io_type: str, keys_per_cycle: int, size: int, inner: int, pool: int) -> None:
        self.network = network(size, inner, pool)
        self.block = next(layer for layer in self.network.layers if isinstance(layer, NonLocal))
        self.qonnx, self.project = directory / "model.onnx", directory / "project"
        self.codes = corner_case_codes(size, self.network.input, np.random.default_rng(3), count=20)[-60:]
        onnx.save(qonnx_model(self.network), self.qonnx)
        self.write(self.network, self.project, io_type, keys_per_cycle)
        self.executable = csim.build(self.project, directory / "build", optimization="-O0")

    def write(self, found: IntegerNetwork, project: Path, io_type: str, keys_per_cycle: int) -> None:
        counts = np.random.default_rng(1).poisson(300, (2, found.size, found.size))
        write_project(
            self.qonnx, found, Normalizer(), project, counts=counts, io_type=io_type, keys_per_cycle=keys_per_cycle
        )

    def simulate(self, executable: csim.Executable, out: Path) -> Comparison:
        return simulate(executable, self.network, self.codes, workers=1, chunk=60, out_dir=out)[1]


@pytest.fixture(scope="module")
def parallel(tmp_path_factory) -> Case:
    """The block as published: half the channels, every position a key."""
    return Case(tmp_path_factory.mktemp("parallel"), "io_parallel", 32, size=9, inner=4, pool=1)


@pytest.fixture(scope="module")
def stream(tmp_path_factory) -> Case:
    """Fewer channels inside, 9 keys pooled from 81 positions, the last group of keys short."""
    return Case(tmp_path_factory.mktemp("stream"), "io_stream", 4, size=11, inner=3, pool=3)


@pytest.fixture(params=["parallel", "stream"])
def case(request) -> Case:
    return request.getfixturevalue(request.param)


@pytest.mark.slow
def test_every_code_of_every_layer_and_step_agrees(case, tmp_path):
    outputs, found = simulate(case.executable, case.network, case.codes, workers=1, chunk=60, out_dir=tmp_path)
    reference = emulate.run(case.network, case.codes)
    assert found.exact, str(found.first)
    np.testing.assert_array_equal(outputs, reference.outputs)
    names = [layer.name for layer in found.layers]
    assert names == [name for name, _ in points(case.network)]
    assert {f"nlb.{step.name}" for step in steps(case.block)} < set(names)
    counted = {layer.name: layer.saturations for layer in found.layers}
    assert counted["nlb"] == next(s.saturations for s in reference.layers if s.name == "nlb") > 0
    assert len(np.unique(outputs, axis=0)) > 20


def test_project_says_what_was_built(case):
    project = load_project(case.project)
    assert project.keys_per_cycle == {"io_parallel": 32, "io_stream": 4}[project.io_type]
    assert "#pragma HLS DATAFLOW" in (case.project / "firmware" / "braggnn.cpp").read_text()
    assert (case.project / "firmware" / "nnet_utils" / "nnet_nonlocal.h").exists()
    shapes = [layer.shape for layer in project.layers if layer.name in ("nlb.q", "nlb.k", "nlb.e", "nlb")]
    published, cheaper = [(49, 4), (49, 4), (49, 49), (7, 7, 8)], [(81, 3), (9, 3), (81, 9), (9, 9, 8)]
    assert shapes == {"io_parallel": published, "io_stream": cheaper}[project.io_type]


@pytest.mark.slow
def test_a_stale_table_is_caught_at_its_step(stream, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(stream.project, copy)
    path = next((copy / "firmware" / "weights").glob("exp_table*.h"))
    text = path.read_text()
    stale = re.sub(r"(= \{[^,]*, )([0-9.]+)", lambda match: f"{match[1]}{float(match[2]) / 2}", text)
    assert stale != text
    path.write_text(stale)
    found = stream.simulate(csim.build(copy, tmp_path / "build", optimization="-O0"), tmp_path / "out")
    assert found.first is not None
    assert found.first.layer == "nlb.e"


def _changed(found: IntegerNetwork, **fields) -> IntegerNetwork:
    layers = [replace(layer, **fields) if isinstance(layer, NonLocal) else layer for layer in found.layers]
    return replace(found, layers=tuple(layers))


def test_a_block_that_is_not_the_qonnx_files_is_refused(stream, tmp_path):
    table = stream.block.exp_table.copy()
    table[2] -= 1
    bias = replace(stream.block.theta, bias=stream.block.theta.bias[::-1].copy())
    for fields, message in (
        ({"exp_table": table}, "layer nlb: hls4ml's exp_table"),
        ({"theta": bias}, "layer nlb: hls4ml's theta_bias"),
        ({"query": Format(7, 2, True)}, "layer nlb: hls4ml gave the query type"),
        ({"pool": 9}, "layer nlb: hls4ml pools its keys by 3, the integer network by 9"),
    ):
        with pytest.raises(UserError, match=message):
            stream.write(_changed(stream.network, **fields), tmp_path / "p", "io_stream", 1)
    with pytest.raises(UserError, match="nlb: keys_per_cycle 10 is impossible; expected 1 to 9"):
        stream.write(stream.network, tmp_path / "p", "io_stream", 10)
    assert list(tmp_path.iterdir()) == []

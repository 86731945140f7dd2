"""Generated io_stream designs as processes and bounded FIFOs: no order of stalls deadlocks, drops or changes a code."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import linear

from braggnn_edge.core.errors import UserError
from firmware_sim.stream import simulate as stream
from firmware_sim.stream.result import STALLS, Channel, Outcome, Schedule, StreamResult
from firmware_sim.stream.source import dataflow
from hls.project.layered import write_project
from quant.contract import emulate
from quant.contract.arithmetic import Format
from quant.contract.attention import exp_table, reciprocal_table, size_block
from quant.contract.network import Flatten, IntegerNetwork, Layer, Requantize
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators
from quant.contract.vectors import random_codes
from quant.exchange.to_qonnx import qonnx_model

OPTIMIZATION = "-O0"
SIZE, CHANNELS, PARALLEL = 6, 4, 5
POSITIONS, GROUPS = 16, 4  # of the block: 4 x 4 positions, 5 keys at a time
KERNEL = Path(__file__).parents[1] / "hls" / "templates" / "nnet_nonlocal.h"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def block(rng: np.random.Generator, x: Format) -> Layer:
    mixed, inner = Format(7, 4, True), CHANNELS // 2
    parts = {role: linear(rng, role, "conv2d", (inner, CHANNELS, 1, 1), x.frac) for role in ("theta", "phi", "g")}
    parts["out"] = linear(rng, "out", "conv2d", (CHANNELS, inner, 1, 1), mixed.frac)
    formats = {
        "query": Format(6, 2, True), "key": Format(5, 1, True), "value": Format(6, 3, True),
        "difference": Format(6, 2, False), "exponential": Format(8, 8, False), "reciprocal": Format(9, 9, False),
        "mixed": mixed,
    }  # fmt: skip
    tables = exp_table(formats["difference"], formats["exponential"]), reciprocal_table(6, 9)
    return size_block("nlb", POSITIONS, (x, x.low, x.high), parts, formats, tables)


def network(attention: bool) -> IntegerNetwork:
    """A convolution, a non-local block or none, a convolution, a dense layer; random weights."""
    rng = np.random.default_rng(7)
    x = Format(6, 4, True)
    layers: tuple[Layer, ...] = (linear(rng, "conv0", "conv2d", (CHANNELS, 1, 3, 3), 8),)
    if attention:
        layers += (Requantize("x", "identity", x), block(rng, x))
    layers += (
        Requantize("act0", "relu", Format(6, 3, False)),
        linear(rng, "conv1", "conv2d", (2, CHANNELS, 3, 3), 3),
        Requantize("act1", "relu", Format(5, 3, False)),
        Flatten("flatten"),
        linear(rng, "dense", "dense", (2, 2 * (SIZE - 4) ** 2), 3),
        Requantize("out", "identity", Format(12, 5, True)),
    )
    return size_accumulators(IntegerNetwork(SIZE, Format(8, 8, False), layers))


class Case:
    """A network, its program, patches and what they must become."""

    def __init__(self, directory: Path, attention: bool) -> None:
        found = network(attention)
        onnx.save(qonnx_model(found), directory / "model.onnx")
        counts = np.random.default_rng(1).poisson(300, (2, SIZE, SIZE))
        write_project(
            directory / "model.onnx", found, Normalizer(), directory / "project", counts=counts, io_type="io_stream",
            keys_per_cycle=PARALLEL,
        )  # fmt: skip
        self.project, self.build_dir = directory / "project", directory / "build"
        self.program = stream.build(self.project, self.build_dir, optimization=OPTIMIZATION)
        self.codes = random_codes(SIZE, found.input, 4, np.random.default_rng(3))
        self.expected = emulate.run(found, self.codes).outputs
        assert len(np.unique(self.expected, axis=0)) == len(self.codes)
        names = [channel.name for channel in stream.run(self.program, self.codes[:1], [Schedule(0)]).channels.values()]
        self.block = next((name.partition(".")[0] for name in names if "." in name), "")

    def run(self, *schedules: Schedule) -> StreamResult:
        return stream.run(self.program, self.codes, schedules)

    def inner(self, **depths: int) -> dict[str, int]:
        """Depths of FIFOs of the block."""
        return {f"{self.block}.{name}": depth for name, depth in depths.items()}


@pytest.fixture(scope="module")
def attention(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("attention"), True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("plain"), False)


@pytest.fixture(params=["attention", "plain"])
def case(request) -> Case:
    return request.getfixturevalue(request.param)


def assert_all_passed(case: Case, found: StreamResult) -> None:
    """Every patch once, in order, with the emulator's codes; nothing is left in a FIFO."""
    assert found.deadlock is None, str(found.deadlock)
    for outputs in found.outputs:
        np.testing.assert_array_equal(outputs, case.expected)
    assert found.wrong(case.expected) == 0
    for channel in found.channels.values():
        assert channel.left == 0
        assert 1 <= channel.high <= channel.depth == channel.declared


@needs_compiler
def test_no_order_of_stalls_deadlocks_drops_or_changes_a_code(case):
    seeds = range(40 if case.block else 4)
    found = stream.simulate(case.project, case.codes, seeds=seeds, build_dir=case.build_dir, optimization=OPTIMIZATION)
    assert len(found.outcomes) == len(seeds) * len(STALLS)
    assert_all_passed(case, found)
    starved = case.run(*stream.starving(case.program, case.codes))
    assert_all_passed(case, starved)
    assert all(high <= starved.high_water[name] for name, high in found.high_water.items())


@needs_compiler
def test_patches_overlap_in_the_pipeline(attention):
    found = attention.run(*stream.starving(attention.program, attention.codes)).channels
    inner = {name: found[f"{attention.block}.{name}"].high for name in ("pixels", "queries", "keys", "values")}
    # While the sink stalls, project is a patch ahead of score, weigh and merge: it has filled both copies.
    assert inner == {"pixels": 2 * POSITIONS, "queries": 2 * POSITIONS, "keys": 2, "values": 2}


@needs_compiler
@pytest.mark.parametrize(
    ("name", "depth"), [("pixels", POSITIONS - 1), ("queries", POSITIONS - 1), ("scores", GROUPS - 1)]
)
def test_a_fifo_that_is_too_short_is_found_and_named(attention, name, depth):
    depths = attention.inner(**{name: depth})
    found = attention.run(*[Schedule(seed, stall, depths=depths) for seed in range(2) for stall in STALLS])
    assert all(outcome.deadlock for outcome in found.outcomes)
    assert f"{attention.block}.{name}" in found.deadlock.full
    assert f"waits for space in {attention.block}.{name} ({depth} of {depth})" in str(found.deadlock)
    one_more = attention.inner(**{name: depth + 1})
    assert attention.run(Schedule(0, depths=one_more)).deadlock is None


@needs_compiler
def test_least_depths(attention):
    least = stream.least_depths(attention.program, attention.codes[:3])
    needed = attention.inner(pixels=POSITIONS, queries=POSITIONS, scores=GROUPS)
    assert {name: depth for name, depth in least.items() if depth > 1} == needed
    assert attention.run(Schedule(0, depths=least)).wrong(attention.expected) == 0  # all at once, too


@needs_compiler
def test_pipelines_that_stall_as_a_whole_need_room_for_what_is_in_flight(attention):
    """``skew`` of the kernel, 24 cycles, is for 12 stages in the writer and 12 in the reader."""
    found = attention.run(*[Schedule(seed, in_flight=12) for seed in range(40)])
    assert_all_passed(attention, found)
    without = attention.inner(scores=2 * GROUPS, maxima=2, weighted=2, totals=2)
    stuck = attention.run(*[Schedule(seed, in_flight=12, depths=without) for seed in range(10)]).deadlock
    assert stuck is not None
    assert stuck.full
    assert attention.run(Schedule(0, depths=without)).deadlock is None


@needs_compiler
def test_bad_input_is_refused(plain, tmp_path):
    codes = plain.codes
    with pytest.raises(UserError, match="no FIFO is called nothing"):
        plain.run(Schedule(0, depths={"nothing": 3}))
    with pytest.raises(UserError, match=r"depths .* are impossible"):
        plain.run(Schedule(0, depths={"output": 0}))
    with pytest.raises(UserError, match="stalls 'often' are unknown"):
        plain.run(Schedule(0, "often"))
    with pytest.raises(UserError, match="expected integers"):
        stream.run(plain.program, codes[0], [Schedule(0)])
    with pytest.raises(UserError, match=r"codes span .* expected 0 to 255"):
        stream.run(plain.program, codes + 256, [Schedule(0)])
    assert plain.inner() == {}
    copy = tmp_path / "project"
    shutil.copytree(plain.project, copy)
    path = copy / "project.json"
    path.write_text(path.read_text().replace("io_stream", "io_parallel"))
    with pytest.raises(UserError, match="io_parallel has no streams"):
        stream.simulate(copy, codes, seeds=[0], build_dir=tmp_path / "build")


def test_what_hls_cannot_hand_over_is_refused():
    text = KERNEL.read_text()
    assert 'keys("keys", 2)' in dataflow(text, "nonlocal")
    call = "nonlocal_weigh<data_T, CONFIG_T>(scores, maxima, values,"
    assert text.count(call) == 1
    with pytest.raises(UserError, match="the array keys is used by 3 processes"):
        dataflow(text.replace(call, call.replace("values", "keys, values")), "nonlocal")
    pragma = "#pragma HLS STREAM variable=maxima "
    assert text.count(pragma) == 1
    with pytest.raises(UserError, match="a depth is given to minima, which is not declared"):
        dataflow(text.replace(pragma, pragma.replace("maxima", "minima")), "nonlocal")
    assert 'maxima("maxima", 2);' in dataflow(text.replace(pragma, "// "), "nonlocal")
    with pytest.raises(UserError, match="does not know the statement 'if"):
        dataflow(text.replace("    nonlocal_score<data_T", "    if (true) nonlocal_score<data_T"), "nonlocal")
    with pytest.raises(UserError, match="there is no function remote"):
        dataflow(text, "remote")


def test_result_over_schedules():
    channel = Channel("a", False, 3, 3, 1, 0, 5, "p", "q")
    outcomes = tuple(
        Outcome(Schedule(seed), np.zeros((2, 2), np.int64), (replace(channel, high=high, left=left),), None)
        for seed, high, left in ((0, 2, 1), (1, 3, 0))
    )
    found = StreamResult(outcomes)
    assert found.high_water == {"a": 3}
    assert (found.channels["a"].left, found.channels["a"].passed) == (1, 10)
    assert found.wrong(np.zeros((2, 2), np.int64)) == 0
    assert found.wrong(np.zeros((1, 2), np.int64)) == 2

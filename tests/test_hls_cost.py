"""The cycle and resource model against counts by hand, against the generated source, and against its own processes."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from braggnn_edge.core.errors import UserError
from hls.cost.cycles import Fifo, simulate
from hls.cost.hardware import hardware_rows
from hls.cost.locator import locator_cost
from hls.cost.network import NetworkCost, network_cost
from hls.cost.nonlocal_block import SKEW, nonlocal_cost
from hls.cost.parts import LayerCost, Multipliers
from hls.cost.plan import fastest, plan
from hls.project.circuit import stream_depths
from hls.project.layered import write_project
from quant.contract.arithmetic import Format
from quant.contract.attention import NonLocal, exp_table, reciprocal_table, size_block
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.locator import IntegerLocator, of_layers
from quant.contract.network import Flatten, IntegerNetwork, Layer, Leaky, Linear, Requantize
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators
from quant.exchange.to_qonnx import qonnx_model

U280 = "xcu280-fsvh2892-2L-e"


def linear(name: str, kind: str, shape: tuple[int, ...], frac: int, code: int = 3, bits: int = 5) -> Linear:
    """All weights 3, which is neither 0 nor a power of two, unless told otherwise."""
    weight = Format(bits, bits - 1, True)
    bias = np.arange(1, shape[0] + 1)
    return Linear(name, kind, np.full(shape, code), weight, bias, Format(1, frac + weight.frac, True))


def block(
    side: int, channels: int, inner: int, pool: int = 1, name: str = "nlb", code: int = 3, bits: int = 5
) -> NonLocal:
    """x 6 bits, queries 6, keys 5, values 6, 64 exponentials of 8 bits, 64 reciprocals of 9."""
    x, mixed = Format(6, 4, True), Format(7, 4, True)
    shape = (inner, channels, 1, 1)
    parts = {role: linear(role, "conv2d", shape, x.frac, code, bits) for role in ("theta", "phi", "g")}
    parts["out"] = linear("out", "conv2d", (channels, inner, 1, 1), mixed.frac, code, bits)
    formats = {
        "query": Format(6, 2, True), "key": Format(5, 1, True), "value": Format(6, 3, True),
        "difference": Format(6, 2, False), "exponential": Format(8, 8, False), "reciprocal": Format(9, 9, False),
        "mixed": mixed,
    }  # fmt: skip
    tables = exp_table(formats["difference"], formats["exponential"]), reciprocal_table(6, 9)
    return size_block(name, side**2, (x, x.low, x.high), parts, formats, tables, pool)


def small() -> IntegerNetwork:
    """5 x 5 input: convolution to 4 channels on 3 x 3, block, leaky activation, convolution to 2 on 1 x 1, dense 2."""
    layers: tuple[Layer, ...] = (
        linear("conv0", "conv2d", (4, 1, 3, 3), 8),
        Requantize("x", "identity", Format(6, 4, True)),
        block(3, 4, 2),
        Leaky("act0", "leaky", Format(6, 3, True), slope_code=164, slope_frac=14),
        linear("conv1", "conv2d", (2, 4, 3, 3), 3),
        Requantize("act1", "relu", Format(5, 3, False)),
        Flatten("flatten"),
        linear("dense", "dense", (2, 2), 3),
        Requantize("result", "identity", Format(12, 5, True)),
    )
    return size_accumulators(IntegerNetwork(5, Format(8, 8, False), layers))


def flat() -> IntegerNetwork:
    """5 x 5 input: convolution to 4 channels on 3 x 3, ReLU of 5 bits, dense 36 to 2."""
    layers = (
        linear("conv", "conv2d", (4, 1, 3, 3), 8), Requantize("relu", "relu", Format(5, 3, False)),
        Flatten("flatten"), linear("dense", "dense", (2, 36), 3),
        Requantize("result", "identity", Format(12, 5, True)),
    )  # fmt: skip
    return size_accumulators(IntegerNetwork(5, Format(8, 8, False), layers))


def published() -> IntegerNetwork:
    """The published shapes, no weight that saves a multiplier, the paper's slope: the most that can be needed."""

    def act(name: str) -> Leaky:
        return Leaky(name, "leaky", Format(8, 3, True), slope_code=164, slope_frac=14)

    layers: list[Layer] = [
        linear("conv0", "conv2d", (64, 1, 3, 3), 8, 77, 8), Requantize("x", "identity", Format(6, 4, True)),
        block(9, 64, 32, code=77, bits=8), act("act0"),
        linear("conv1", "conv2d", (32, 64, 3, 3), 3, 77, 8), act("act1"),
        linear("conv2", "conv2d", (8, 32, 3, 3), 3, 77, 8), act("act2"), Flatten("flatten"),
    ]  # fmt: skip
    widths = (200, 16, 8, 4, 2)
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        layers += [linear(f"dense{index}", "dense", (outputs, inputs), 3, 77, 8), act(f"act{index + 3}")]
    layers += [linear("dense4", "dense", (2, 2), 3, 77, 8), Requantize("result", "identity", Format(12, 5, True))]
    return size_accumulators(IntegerNetwork(11, Format(8, 8, False), tuple(layers)))


def rows(cost: NetworkCost) -> dict[str, LayerCost]:
    return {layer.name: layer for layer in cost.layers}


def test_convolution_counted_by_hand():
    # 3 x 3 kernel, 1 to 4 channels: 9 * 4 = 36 products, at reuse 3 on 36 / 3 = 12 multipliers.
    # Depth: product 3, tree of 9 products and a bias 4 levels (2**4 >= 10), cast 1 = 8.
    # io_stream takes 5 * 5 = 25 positions, 3 cycles each, and drains: 75 + 8 = 83.
    # io_parallel makes 3 * 3 = 9 positions: 27 + 8 = 35.
    network = flat()
    stream = rows(network_cost(network, io_type="io_stream", reuse=(3, 1)))["conv"]
    array = rows(network_cost(network, io_type="io_parallel", reuse=(3, 1)))["conv"]
    assert (stream.interval, array.interval) == (83, 35)
    assert stream.multipliers == array.multipliers == (Multipliers(12, (5, 9)),)  # an unsigned input takes a sign bit
    # Two lines of 5 pixels and a window of 9, 8 bits each: 80 + 72; an array needs the window alone.
    assert (stream.buffer_bits, array.buffer_bits) == (152, 72)
    # Sums: 9 * 3 * 255 + 4 = 6,889 < 2**13, nothing is negative: 13 bits, 4 channels, 9 positions.
    assert [(s.name, s.depth, s.token_bits) for s in stream.streams] == [("conv", 9, 52)]
    assert [(s.name, s.depth, s.token_bits) for s in array.streams] == [("conv", 2, 9 * 52)]
    assert stream.constant_bits == 36 * 5 + 4 * 13


def test_weights_of_zero_or_a_power_of_two_take_no_multiplier():
    network = flat()
    conv = network.layers[0]
    weight = conv.weight.copy()
    weight[0, 0] = [[0, 0, 1], [-2, 4, -8], [3, 5, -7]]  # 2 zeros, 4 powers of two: 30 of 36 are left
    network = replace(network, layers=(replace(conv, weight=weight), *network.layers[1:]))

    def count(reuse: int) -> int:
        cost = network_cost(network, io_type="io_stream", reuse=(reuse, 1))
        return rows(cost)["conv"].multiplier_count

    assert count(1) == 30  # hls4ml allows 36 - 2
    assert count(2) == 17  # ceil(36 / 2) - 2 // 2
    assert count(3) == 12  # ceil(36 / 3) - 2 // 3


def test_dense_layer_counted_by_hand():
    # 36 inputs arrive as 9 beats of 4 channels; 36 * 2 = 72 products at reuse 8: 9 multipliers, 8 cycles.
    # Depth: 3 + 6 levels (2**6 >= 37) + 1 = 10. io_stream: gather, then multiply: 9 + 8 + 10 = 27; io_parallel: 8 + 10.
    network = flat()
    stream = rows(network_cost(network, io_type="io_stream", reuse=(1, 8)))["dense"]
    array = rows(network_cost(network, io_type="io_parallel", reuse=(1, 8)))["dense"]
    assert (stream.interval, array.interval) == (27, 18)
    assert stream.multiplier_count == array.multiplier_count == 9
    assert (stream.buffer_bits, array.buffer_bits) == (36 * 5, 0)


def test_block_with_a_short_last_group_counted_by_hand():
    # 9 keys, 4 a cycle: G = 3, the last group has one key. C = 4, D = 2.
    cost = nonlocal_cost(block(3, 4, 2), 4, "io_stream", "in", "out")
    # project 3 * 4 * 2 / 3, score 4 * 2, weigh 4 * 2, merge ceil((4 + 1) * 2 / 3)
    assert [entry.count for entry in cost.multipliers] == [8, 8, 8, 4]
    # Widths of a * R: a = 9 * 255 * -32 takes 18 bits, an unsigned reciprocal of 9 bits 10.
    assert [entry.bits for entry in cost.multipliers] == [(5, 6), (6, 5), (9, 6), (18, 10)]
    # Depths: project 3 + 3 + 1, score 3 + 2 + 1, the maximum of 4 lanes 2 and the row's 1, weigh 1 + 1 + 3 + 3 + 1,
    # merge 1 + 1 + 3 + 1 and 3 + 2 + 1.
    assert [process.depth for process in cost.processes] == [7, 9, 9, 12]
    # N G = 27; a buffer of keys and values is held 27 + 7 + 3 + 9 + 27 + 9 = 82 cycles, there are two: 41 a patch.
    assert cost.interval == 41
    least = {stream.name: (stream.depth, stream.least) for stream in cost.streams}
    assert least == {
        "nlb.keys": (2, 1), "nlb.values": (2, 1), "nlb.pixels": (18, 9), "nlb.queries": (18, 9), "nlb.scores": (30, 3),
        "nlb.maxima": (26, 1), "nlb.weighted": (26, 1), "nlb.totals": (26, 1),
    }  # fmt: skip
    bits = {stream.name: stream.bits for stream in cost.streams}
    assert bits["nlb.keys"] == 2 * 3 * 4 * 2 * 5  # buffers, groups, lanes, D, key bits
    assert bits["nlb.pixels"] == 18 * 4 * 6
    assert cost.table_bits == 4 * 64 * 8 + 64 * 9


def test_pooled_keys_are_fewer_groups_and_a_row_of_open_windows():
    # 36 positions in windows of 2 x 2: 9 keys, 4 a cycle: 3 cycles a row, and 3 windows of D = 2 keys and values open.
    cost = nonlocal_cost(block(6, 4, 2, pool=2), 4, "io_stream", "in", "out")
    assert cost.interval == 36 * 3 + 14
    assert cost.buffer_bits == 3 * 2 * (5 + 6)
    assert {s.name: s.depth for s in cost.streams}["nlb.pixels"] == 72


def test_whole_network_counted_by_hand():
    cost = network_cost(small(), io_type="io_stream", reuse=(2, 1, 1), keys_per_cycle=4)
    # conv0: 25 * 2 + 8; x: 9 + 1; block: 41; act0: 9 + 4, a product a channel; conv1: 9 + (3 + 6 + 1); act1: 1 + 1;
    # dense: 1 + 1 + (3 + 2 + 1); result: 1 + 1
    expected = {"conv0": 58, "x": 10, "nlb": 41, "act0": 13, "conv1": 19, "act1": 2, "dense": 8, "result": 2}
    assert {layer.name: layer.interval for layer in cost.layers} == expected
    assert cost.interval_cycles == 58
    # conv0 36 / 2, block 8 + 8 + 8 + 4, act0 4 channels, conv1 9 * 4 * 2, dense 2 * 2
    assert cost.multipliers == 18 + 28 + 4 + 72 + 4
    # First to last: conv0's last row comes out at 54, 56 and 25 * 2 + 8 = 58, from x 1 + 1 later; project takes a
    # position in 3 cycles, so at 56, 59 and 62, and is over at 62 + 3 + 7 = 72; all rows score 27 + 9; of the last one
    # weigh 3 + 9 and merge 3 + 12; act0 1 + 4; conv1 1 + 10; act1 1 + 1; dense 1 + 1 + 6; result 1 + 1.
    assert cost.latency_cycles == 72 + 36 + 12 + 15 + 5 + 11 + 2 + 8 + 2


def test_arrays_are_passed_on_whole():
    cost = network_cost(small(), io_type="io_parallel", reuse=(2, 1, 1), keys_per_cycle=4)
    found = rows(cost)
    # conv0: 9 positions * 2 + 8; act0: all 36 values at once
    assert (found["conv0"].interval, found["act0"].multiplier_count) == (26, 36)
    # Layer after layer: 26, x 1 + 1, block 2 * 27 + 2 * 3 + (7 + 9 + 9 + 12), 1 + 4, 1 + 10, 1 + 1, 1 + 6, 1 + 1
    assert cost.latency_cycles == 26 + 2 + 97 + 5 + 11 + 2 + 7 + 2


@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
@pytest.mark.parametrize(("side", "pool", "keys_per_cycle"), [(3, 1, 1), (3, 1, 4), (3, 1, 9), (6, 2, 2), (4, 1, 6)])
def test_block_keeps_the_interval_and_the_latency_of_its_formula(io_type, side, pool, keys_per_cycle):
    """Its four processes with the FIFOs of the kernel, cycle by cycle over nine patches."""
    found = block(side, 4, 2, pool)
    cost = nonlocal_cost(found, keys_per_cycle, io_type, "in", "out")
    fifos = {name: fifo for stream in cost.streams for name, fifo in stream.fifos.items()}
    ends = simulate(cost.processes, fifos, 9)["nlb.merge"]
    groups = -(-found.keys // keys_per_cycle)
    # Keys first; then all rows; then the last row is weighed and merged.
    assert ends[0] == 2 * found.positions * groups + 2 * groups + cost.depth
    # Two buffers of keys and values: two intervals may differ, over four of them they may not.
    assert -(-(ends[8] - ends[4]) // 4) == cost.interval


@pytest.mark.parametrize("name", ["nlb.pixels", "nlb.queries", "nlb.scores"])
def test_streams_below_their_least_depth_deadlock(name):
    cost = nonlocal_cost(block(3, 4, 2), 4, "io_stream", "in", "out")
    fifos = {found: fifo for stream in cost.streams for found, fifo in stream.fifos.items()}
    least = {s.name: s.least for s in cost.streams}
    names = [stream.name for stream in cost.streams if stream.kind == "fifo"]
    enough = fifos | {found: replace(fifos[found], depth=least[found]) for found in names}
    simulate(cost.processes, enough, 3)
    with pytest.raises(UserError, match=r"deadlock: .*waits for"):
        simulate(cost.processes, enough | {name: replace(fifos[name], depth=least[name] - 1)}, 3)


@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
def test_network_keeps_its_interval(io_type):
    cost = network_cost(small(), io_type=io_type, reuse=(1, 2, 1), keys_per_cycle=4)
    ends = simulate(cost.processes, cost.fifos, 9)["result"]
    assert -(-(ends[8] - ends[4]) // 4) == cost.interval_cycles == 41


def test_published_network_below_two_microseconds_on_a_u280():
    """At 250 MHz: 500 cycles. Of 9,024 DSP slices, each of its multipliers taking one."""
    network = published()
    recommended = network_cost(network, io_type="io_stream", reuse=(3, 5, 8, 40, 16, 8, 4, 2), keys_per_cycle=17)
    found = rows(recommended)
    # conv0 121 * 3 + 8, conv1 81 * 5 + 14, conv2 49 * 8 + 13
    assert [found[name].interval for name in ("conv0", "conv1", "conv2")] == [371, 419, 405]
    # 81 rows of ceil(81 / 17) = 5 cycles, and half of 5 + (3 + 7 + 1) + (3 + 6 + 1 + 5 + 1) + (2 + 3 + 5 + 1) = 43
    assert found["nlb"].interval == recommended.interval_cycles == 405 + 22
    # 576 / 3; 18432 / 5; 2304 / 8; 3200 / 40; project 6144 / 5, 17 * 32 twice, merge 65 * 32 / 5; a product a channel
    block_multipliers = 1229 + 544 + 544 + 416
    slopes = 64 + 32 + 8 + 16 + 8 + 4 + 2
    assert recommended.multipliers == 192 + 3687 + 288 + 80 + 8 + 4 + 2 + 2 + block_multipliers + slopes == 7130
    assert recommended.dsps(U280) == recommended.multipliers < 9024
    assert recommended.interval_cycles / 250 < 2
    ends = simulate(recommended.processes, recommended.fifos, 5)["result"]
    assert (ends[4] - ends[2]) / 2 == 405 + 43 / 2

    cheapest = plan(network, 499, "io_stream")
    assert cheapest.cost.interval_cycles < 500
    assert cheapest.keys_per_cycle == 17
    assert cheapest.reuse[:3] == (4, 5, 9)  # 121 * 4 + 8, 81 * 5 + 14, 49 * 9 + 13
    assert cheapest.cost.multipliers < recommended.multipliers


def test_plan_is_the_cheapest_of_all():
    """Against every pair of reuse factors and parallelism of a small network."""
    network = flat()
    everything = [
        (cost.multipliers, cost.interval_cycles)
        for one in range(1, 37)
        for two in (*range(1, 25), 36, 72)
        for cost in [network_cost(network, io_type="io_stream", reuse=(one, two))]
    ]
    for interval in (33, 50, 60, 83, 200):
        found = plan(network, interval, "io_stream")
        assert found.cost.interval_cycles <= interval
        assert found.cost.multipliers == min(count for count, cycles in everything if cycles <= interval)
    quick = fastest(network, 40, "io_stream", U280)
    assert quick.cost.interval_cycles == min(cycles for count, cycles in everything if count <= 40)


def test_plan_says_what_cannot_be():
    with pytest.raises(UserError, match=r"layer conv takes 33 cycles a patch.* interval of 32 cycles is too short"):
        plan(flat(), 32, "io_stream")
    with pytest.raises(UserError, match="no reuse factors fit the network into 1 DSP slices"):
        fastest(flat(), 1, "io_stream", U280)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "Resource"}, "no cycle model for strategy 'Resource'"),
        ({"io_type": "io_serial"}, "no cycle model for io type 'io_serial'"),
        ({"reuse": (1, 2)}, "reuse has 2 entries, but the network has 3"),
        ({"reuse": 73}, "layer conv0: reuse factor 73 is more than its 36 products"),
        ({"keys_per_cycle": 10}, "layer nlb: keys_per_cycle 10 is impossible; expected 1 to 9"),
    ],
)
def test_what_is_not_described_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        network_cost(small(), **({"io_type": "io_stream", "keys_per_cycle": 4} | changes))


def test_wide_products_take_several_slices():
    assert Multipliers(10, (27, 18)).dsps((27, 18)) == Multipliers(10, (18, 27)).dsps((27, 18)) == 10
    assert Multipliers(10, (27, 18)).dsps((25, 18)) == 20  # 26 bits beyond the sign in pieces of 24
    assert Multipliers(10, (28, 28)).dsps((27, 18)) == 20 * 2
    assert Multipliers(0, (60, 60)).dsps((27, 18)) == 0


@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
def test_generated_source_is_what_was_counted(io_type, tmp_path):
    """Streams and arrays, reuse factors, limits of multipliers and loops in what hls4ml writes for a network."""
    network, reuse = small(), (2, 3, 1)
    onnx.save(qonnx_model(network), tmp_path / "model.onnx")
    counts = np.random.default_rng(1).poisson(300, (2, 5, 5))
    write_project(
        tmp_path / "model.onnx", network, Normalizer(), tmp_path / "project", counts=counts, io_type=io_type,
        reuse=reuse, keys_per_cycle=4,
    )  # fmt: skip
    cost = network_cost(network, io_type=io_type, reuse=reuse, keys_per_cycle=4)
    (row,) = hardware_rows(tmp_path, of_layers(network, Normalizer()), print)
    assert (row["source"], row["io"], row["interval_cycles"]) == ("analytic", io_type, cost.interval_cycles)
    firmware = tmp_path / "project" / "firmware"
    top = (firmware / "braggnn.cpp").read_text()
    assert top.count("#pragma HLS DATAFLOW") == 1
    outer = [stream for layer in cost.layers for stream in layer.streams[:1] if stream.name in rows(cost)]
    if io_type == "io_stream":
        assert [int(depth) for depth in re.findall(r"STREAM variable=layer\d+_out depth=(\d+)", top)] == [
            stream.depth for stream in outer
        ]
    else:
        assert len(re.findall(r"ARRAY_PARTITION variable=layer\d+_out complete", top)) - 1 == len(outer)
    parameters = (firmware / "parameters.h").read_text()
    wide = re.findall(r"struct config\d+(?:_mult)? : nnet::dense_config \{(.*?)\n\};", parameters, re.DOTALL)
    limits = []
    for body in wide:
        number = {key: int(value) for key, value in re.findall(r"unsigned (\w+) = (\d+);", body)}
        assert "multiplier_limit = DIV_ROUNDUP(n_in * n_out, reuse_factor) - n_zeros / reuse_factor;" in body
        factor = number["reuse_factor"]
        limits.append(-(-number["n_in"] * number["n_out"] // factor) - number["n_zeros"] // factor)
    assert limits == [rows(cost)[name].multiplier_count for name in ("conv0", "conv1", "dense")]
    if io_type == "io_parallel":
        assert re.findall(r"n_partitions = (\d+)", parameters) == ["9", "1"]
    loops = {
        "io_stream": {"nnet_conv2d_stream.h": 1, "nnet_dense_stream.h": 1},
        "io_parallel": {"nnet_conv2d_latency.h": 1, "nnet_dense_latency.h": 1},
    }
    for name, count in loops[io_type].items():
        text = (firmware / "nnet_utils" / name).read_text()
        assert len(re.findall(r"#pragma HLS PIPELINE II=CONFIG_T::reuse_factor", text)) == count
    kernel = (firmware / "nnet_utils" / "nnet_nonlocal.h").read_text()
    assert "waiting = 2 * CONFIG_T::positions;" in kernel
    assert f"skew = {SKEW};" in kernel
    assert "row_waiting = 2 + skew;" in kernel
    assert "score_waiting = 2 * groups + skew;" in kernel
    depths = dict(re.findall(r"#pragma HLS STREAM variable=(\w+) depth=([\w:]+)", kernel))
    assert depths == {
        "pixels": "shape::waiting", "queries": "shape::waiting", "scores": "shape::score_waiting",
        "maxima": "shape::row_waiting", "weighted": "shape::row_waiting", "totals": "shape::row_waiting",
    }  # fmt: skip
    assert sorted(re.findall(r"#pragma HLS PIPELINE II=(\S+)", kernel)) == ["1", "1", "shape::groups", "shape::groups"]


def test_cycles_of_two_processes_by_hand():
    """A producer of 2 cycles and a depth of 3, a consumer of 5, a FIFO of 2 places."""
    from hls.cost.cycles import Process, Step  # noqa: PLC0415  (names of this test alone)

    make = Process("make", (Step(2, (), ("fifo",)),) * 3, 3)
    use = Process("use", (Step(5, ("fifo",), ()),) * 3)
    # Tokens come out at 5, 7 and 9; they are taken at 5, 10 and 15; the third finds room since the first was taken.
    assert simulate((make, use), {"fifo": Fifo(2)}, 1) == {"make": [9], "use": [20]}
    # One place: the second comes out when the first is taken, at 7 as before; the third at 10, not 9.
    assert simulate((make, use), {"fifo": Fifo(1)}, 1) == {"make": [10], "use": [20]}


def test_own_file_names_no_tool_run():
    """What the model says of itself: a reader must not take it for a synthesis."""
    assert "nothing here is a synthesis result" in (Path(__file__).parents[1] / "hls/cost/network.py").read_text()


def whole(io_type: str, exponent: bool = False, normalizer: Normalizer | BlockShift | None = None) -> IntegerLocator:
    """A dense network of 9 inputs (and 16 of an exponent) that corrects a centroid of 3 x 3 px."""
    shift = normalizer or BlockShift(8, 16)
    inputs = 9 + 16 * exponent
    layers = (
        Flatten("flatten"), linear("dense", "dense", (4, inputs), 8), Requantize("relu", "relu", Format(5, 3, False)),
        linear("last", "dense", (2, 4), 3), Requantize("result", "identity", Format(12, 6, True)),
    )  # fmt: skip
    network = size_accumulators(IntegerNetwork(3, Format(8, 8, False), layers, exponent=16 * exponent))
    base = Centroid.of_power(3, 8, 2, index_bits=4, reciprocal_bits=7, numerator_bits=9, frac=6)
    return IntegerLocator(3, 3, shift, network, base, Format(12, 6, True))


@pytest.mark.parametrize("reuse", [1, 3])
def test_a_top_that_is_one_pipeline_has_its_interval(reuse):
    """Dense layers in io_parallel: PIPELINE II=1 in the source, and not the depth of a layer between two patches."""
    locator = whole("io_parallel")
    cost = locator_cost(locator, io_type="io_parallel", reuse=reuse)
    assert cost.interval_cycles == reuse
    assert network_cost(locator.network, io_type="io_parallel", reuse=reuse).interval_cycles == reuse
    assert {layer.interval for layer in cost.layers} == {reuse}
    # Normalizer 4 + 1 + 2 + 2, centroid 1 + 4 + 3 + 2 + 7, dense 3 + 4 + 1, relu 1, dense 3 + 3 + 1, result 1, sum 2.
    assert [layer.depth for layer in cost.layers] == [9, 17, 8, 1, 7, 1, 2]
    assert cost.latency_cycles == reuse + 9 + 17 + 8 + 1 + 7 + 1 + 2
    assert cost.fifos == {}


@pytest.mark.parametrize("exponent", [False, True])
def test_a_stream_of_counts_takes_a_cycle_a_count(exponent):
    """The slowest process decides; the first result comes when a patch has been received, encoded and computed."""
    locator = whole("io_stream", exponent)
    cost = locator_cost(locator, io_type="io_stream")
    by_name = rows(cost)
    assert [by_name[name].kind for name in ("receive", "encode", "estimate", "answer")] == [
        "counts", "normalizer", "centroid", "sum",
    ]  # fmt: skip
    assert by_name["receive"].interval == 9 + 4  # 9 counts, and what a process needs until it begins anew
    assert by_name["estimate"].interval == 9 + 12
    assert cost.interval_cycles == max(layer.interval for layer in cost.layers)
    ends = simulate(cost.processes, cost.fifos, 20)["answer"]
    assert cost.latency_cycles == ends[0]
    assert (ends[-1] - ends[-11]) / 10 == cost.interval_cycles  # steady state, with the depths as generated
    # Behind the last count: the scale, then all pixels once more, and what the network needs of them.
    assert ends[0] > 9 + 4 + 9


def test_streams_that_are_as_deep_as_generated_do_not_stop(tmp_path):
    """Depths in the source are those that are counted, and one place less for a waiting patch is a deadlock."""
    locator = whole("io_stream")
    cost = locator_cost(locator, io_type="io_stream")
    depths = stream_depths(locator)
    text = (Path(__file__).parents[1] / "hls/templates/locator_stream.cpp").read_text()
    assert re.findall(r"STREAM variable=(\w+) depth=(\S+)", text) == [
        ("pixels", "@PIXELS_DEPTH@"), ("scales", "2"), ("flags", "@AROUND@"), ("input", "@INPUT_DEPTH@"),
        ("result", "2"), ("codes", "@CODES_DEPTH@"), ("bases", "@AROUND@"),
    ]  # fmt: skip
    assert (depths.pixels, depths.codes, depths.input, depths.around) == (18, 9, 9, 8)
    fifos = dict(cost.fifos)
    assert {name: fifos[name].depth for name in ("pixels", "flags", "bases", "codes")} == {
        "pixels": 18, "flags": 8, "bases": 8, "codes": 9,
    }  # fmt: skip
    least = {stream.name: Fifo(stream.least) for layer in cost.layers for stream in layer.streams}
    simulate(cost.processes, least, 5)
    with pytest.raises(UserError, match=r"deadlock: .*room in pixels"):
        simulate(cost.processes, least | {"pixels": Fifo(8)}, 5)


def test_min_max_counts_its_multipliers():
    cost = rows(locator_cost(whole("", normalizer=Normalizer(8, 16, 5)), io_type="io_stream"))
    assert cost["encode"].multiplier_count == 1  # one count at a time
    flat_out = rows(locator_cost(whole("", normalizer=Normalizer(8, 16, 5)), io_type="io_parallel"))
    assert flat_out["encode"].multiplier_count == 9

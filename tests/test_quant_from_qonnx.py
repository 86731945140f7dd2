"""Graphs outside the contract are refused by name; graphs inside it, in other spellings, mean the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.helper import (
    make_attribute,
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_value_info,
)

from braggnn_edge.core.errors import UserError
from quant.contract.emulate import run
from quant.contract.network import Linear
from quant.exchange.from_qonnx import integer_network
from quant.exchange.to_qonnx import SIZE

DOMAIN = "qonnx.custom_op.general"
WEIGHT = np.arange(-9, 9, dtype=np.float32).reshape(2, 1, 3, 3) / 8
DENSE = np.arange(-9, 9, dtype=np.float32).reshape(2, 9) % 7 / 16


def model(matmul: bool = False, reshape: bool = False) -> onnx.ModelProto:
    """A 5 x 5 network: Quant, Conv (2 channels), Relu, Quant, Flatten, Gemm (18 to 2), Quant."""
    dense = np.concatenate([DENSE, DENSE[::-1]], axis=1)
    values = {
        "cw": WEIGHT, "cb": np.array([0.5, -0.25], np.float32), "dw": dense.T if matmul else dense,
        "db": np.array([-1.0, 0.5], np.float32), "zero": np.float32(0), "s8": np.float32(2**-8),
        "s3": np.float32(2**-3), "s4": np.float32(2**-4), "s5": np.float32(2**-5), "s11": np.float32(2**-11),
        "b8": np.float32(8), "b5": np.float32(5), "b16": np.float32(16), "b32": np.float32(32),
        "shape": np.array([1, -1], np.int64),
    }  # fmt: skip

    def quant(name: str, source: str, scale: str, bits: str, signed: int) -> onnx.NodeProto:
        rounding = "ROUND" if source in values else "FLOOR"
        attributes = {"signed": signed, "narrow": 0, "rounding_mode": rounding}
        return make_node("Quant", [source, scale, "zero", bits], [name + "_out"], name, domain=DOMAIN, **attributes)

    nodes = [
        quant("in_q", "x", "s8", "b8", 0),
        quant("cw_q", "cw", "s3", "b5", 1),
        quant("cb_q", "cb", "s11", "b32", 1),
        quant("dw_q", "dw", "s4", "b5", 1),
        make_node("Conv", ["in_q_out", "cw_q_out", "cb_q_out"], ["c"], "conv", kernel_shape=[3, 3]),
        make_node("Relu", ["c"], ["r"], "relu"),
        quant("act_q", "r", "s5", "b8", 0),
        make_node("Reshape", ["act_q_out", "shape"], ["f"], "reshape")
        if reshape
        else make_node("Flatten", ["act_q_out"], ["f"], "flatten", axis=1),
    ]
    if matmul:
        nodes += [
            make_node("MatMul", ["f", "dw_q_out"], ["m"], "dense"),
            make_node("Add", ["m", "db"], ["d"], "bias"),
        ]
    else:
        nodes += [make_node("Gemm", ["f", "dw_q_out", "db"], ["d"], "dense", transB=1)]
    nodes += [quant("out_q", "d", "s8", "b16", 1)]
    graph = make_graph(
        nodes,
        "net",
        [make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1, 5, 5])],
        [make_tensor_value_info("out_q_out", onnx.TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 20), make_opsetid(DOMAIN, 2)], ir_version=9)


def node(m: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in m.graph.node if n.name == name)


def set_value(m: onnx.ModelProto, name: str, value: np.ndarray | float) -> None:
    found = next(i for i in m.graph.initializer if i.name == name)
    found.CopyFrom(numpy_helper.from_array(np.asarray(value, numpy_helper.to_array(found).dtype), name))


def set_attribute(m: onnx.ModelProto, name: str, key: str, value: object) -> None:
    target = node(m, name)
    kept = [a for a in target.attribute if a.name != key]
    del target.attribute[:]
    target.attribute.extend([*kept, make_attribute(key, value)])


def saved(m: onnx.ModelProto, tmp_path: Path) -> Path:
    onnx.save(m, str(tmp_path / "m.onnx"))
    return tmp_path / "m.onnx"


def plain(codes: np.ndarray) -> np.ndarray:
    """The same network by its definition, in exact rationals scaled to integers."""
    conv = np.rint(WEIGHT * 8).astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(codes, (3, 3), axis=(1, 2))
    sums = np.einsum("nrckl,okl->norc", windows, conv[:, 0]) + np.array([1024, -512]).reshape(1, 2, 1, 1)
    act = np.minimum(np.maximum(sums, 0) >> 6, 255).reshape(len(codes), -1)
    dense = np.rint(np.concatenate([DENSE, DENSE[::-1]], axis=1) * 16).astype(int)
    total = act @ dense.T + np.array([-512, 256])
    return np.clip(total >> 1, -(2**15), 2**15 - 1)


@pytest.mark.parametrize("spelling", [{}, {"matmul": True}, {"reshape": True}])
def test_every_spelling_means_the_same(spelling: dict[str, bool], tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (50, 5, 5))
    # Dense accumulators have frac 5 + 4 = 9, the output 8: plain() spells out the shifts from these formats.
    m = model(**spelling)
    network = integer_network(saved(m, tmp_path))
    assert [layer.kind for layer in network.layers] == ["conv2d", "relu", "flatten", "dense", "identity"]
    assert (run(network, codes).outputs == plain(codes)).all()


def test_bounds_follow_the_range_after_relu(tmp_path: Path) -> None:
    """An activation format wider than what arrives does not widen the next accumulator."""
    m = model()
    narrow = integer_network(saved(m, tmp_path)).layers[3]
    set_value(m, "b8", 16.0)  # the input's bits too: restore those below
    node(m, "in_q").input[3] = "b8_in"
    m.graph.initializer.append(numpy_helper.from_array(np.float32(8), "b8_in"))
    wide = integer_network(saved(m, tmp_path)).layers[3]
    assert isinstance(narrow, Linear)
    assert isinstance(wide, Linear)
    # Conv: weights 0..8 of channel 1 sum to 36, 36 * 255 + 0 < 2**14; >> 6 is at most 143, below 255.
    assert wide.accumulator == narrow.accumulator


def test_weights_round_half_to_even_then_clip(tmp_path: Path) -> None:
    m = model()
    set_value(
        m,
        "cw",
        (np.array([0.5, 1.5, -0.5, -1.5, 2.5, 100, -100, 0.49, 0]) / 8).reshape(1, 1, 3, 3).repeat(2, 0),
    )
    conv = integer_network(saved(m, tmp_path)).layers[0]
    assert isinstance(conv, Linear)
    assert conv.weight[0].ravel().tolist() == [0, 2, 0, -2, 2, 15, -16, 0, 0]
    set_attribute(m, "cw_q", "narrow", 1)
    conv = integer_network(saved(m, tmp_path)).layers[0]
    assert isinstance(conv, Linear)
    assert conv.weight[0].ravel().tolist() == [0, 2, 0, -2, 2, 15, -15, 0, 0]


def _second_input(m: onnx.ModelProto) -> None:
    m.graph.input.append(make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1, 5, 5]))


def _own_input(m: onnx.ModelProto, name: str, position: int, value: np.ndarray | float) -> None:
    """Give one input of a node its own constant."""
    m.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), "own"))
    node(m, name).input[position] = "own"


def _drop(m: onnx.ModelProto, name: str) -> None:
    gone = node(m, name)
    for other in m.graph.node:
        for k, tensor in enumerate(other.input):
            if tensor == gone.output[0]:
                other.input[k] = gone.input[0]
    m.graph.node.remove(gone)


def _retype(m: onnx.ModelProto, name: str, op: str) -> None:
    node(m, name).op_type = op


REFUSALS: list[tuple[str, Callable[[onnx.ModelProto], None]]] = [
    (r"node act_q: zero point is 1.0, expected 0", lambda m: _own_input(m, "act_q", 2, 1.0)),
    (r"node cw_q: zero point is -2.0, expected 0", lambda m: _own_input(m, "cw_q", 2, -2.0)),
    (r"node act_q: scale 0.30\d* is not a power of two", lambda m: _own_input(m, "act_q", 1, 0.3)),
    (r"node dw_q: scale 0.30\d* is not a power of two", lambda m: _own_input(m, "dw_q", 1, 0.3)),
    (r"node act_q: scale 0.0 is not a power of two", lambda m: _own_input(m, "act_q", 1, 0.0)),
    (r"node act_q: scale -0.5 is not a power of two", lambda m: _own_input(m, "act_q", 1, -0.5)),
    (
        r"node cw_q: its scale has shape \(2, 1, 1, 1\)",
        lambda m: _own_input(m, "cw_q", 1, np.ones((2, 1, 1, 1))),
    ),
    (r"node act_q: bit width is 7.5", lambda m: _own_input(m, "act_q", 3, 7.5)),
    (r"node act_q: bit width is nan", lambda m: _own_input(m, "act_q", 3, np.nan)),
    (r"node act_q: 3 inputs, expected 4", lambda m: node(m, "act_q").input.pop()),
    (r"node act_q: bit width is 1.0", lambda m: _own_input(m, "act_q", 3, 1.0)),
    (r"node cw_q: its scale 'x' is computed", lambda m: node(m, "cw_q").input.__setitem__(1, "x")),
    (
        r"node act_q: rounding mode ROUND, expected FLOOR",
        lambda m: set_attribute(m, "act_q", "rounding_mode", "ROUND"),
    ),
    (
        r"node cw_q: rounding mode CEIL of a constant",
        lambda m: set_attribute(m, "cw_q", "rounding_mode", "CEIL"),
    ),
    (r"node act_q: narrow range", lambda m: set_attribute(m, "act_q", "narrow", 1)),
    (r"node out_q: narrow range", lambda m: set_attribute(m, "out_q", "narrow", 1)),
    (
        r"node conv: pads is \[1, 1, 1, 1\], expected \[0",
        lambda m: set_attribute(m, "conv", "pads", [1, 1, 1, 1]),
    ),
    (r"node conv: auto_pad", lambda m: set_attribute(m, "conv", "auto_pad", "SAME_UPPER")),
    (r"node conv: strides is \[2, 2\]", lambda m: set_attribute(m, "conv", "strides", [2, 2])),
    (r"node conv: dilations", lambda m: set_attribute(m, "conv", "dilations", [2, 2])),
    (r"node conv: group is 2", lambda m: set_attribute(m, "conv", "group", 2)),
    (r"node conv: kernel", lambda m: set_attribute(m, "conv", "kernel_shape", [5, 5])),
    (r"node dense: alpha is 2.0", lambda m: set_attribute(m, "dense", "alpha", 2.0)),
    (r"node dense: weight of shape \(18, 2\) does not fit", lambda m: set_attribute(m, "dense", "transB", 0)),
    (r"node flatten: axis is 2", lambda m: set_attribute(m, "flatten", "axis", 2)),
    (r"node relu: operator Sigmoid is not supported", lambda m: _retype(m, "relu", "Sigmoid")),
    (r"node flatten: follows Relu relu, expected a Quant", lambda m: _drop(m, "act_q")),
    (r"node conv: comes before the input's Quant", lambda m: _drop(m, "in_q")),
    (r"node conv: its weight 'cw' is not quantized", lambda m: _drop(m, "cw_q")),
    (
        r"node dense: weight of shape \(2, 18\) does not fit data of shape \(2, 3, 3\)",
        lambda m: _drop(m, "flatten"),
    ),
    (r"node dense, bias: values are not multiples of 2\*\*-9", lambda m: set_value(m, "db", [0.3, 0.0])),
    (r"node cw_q: its constant holds NaN", lambda m: set_value(m, "cw", WEIGHT * np.nan)),
    (r"node relu: reads \['x'\], expected 'c' alone", lambda m: node(m, "relu").input.__setitem__(0, "x")),
    (r"2 inputs \['x', 'y'\], expected one", _second_input),
    (r"outputs are \['d'\], expected one", lambda m: setattr(m.graph.output[0], "name", "d")),
]


@pytest.mark.parametrize(("message", "mutate"), REFUSALS, ids=[m for m, _ in REFUSALS])
def test_refused_by_name(message: str, mutate: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    m = model()
    integer_network(saved(m, tmp_path))  # accepted before the mutation
    mutate(m)
    with pytest.raises(UserError, match=message):
        integer_network(saved(m, tmp_path))


@pytest.mark.parametrize("shape", [[1, 2, 5, 5], [1, 1, 5, 4], [1, 5, 5]])
def test_input_shapes_are_refused(shape: list[int], tmp_path: Path) -> None:
    m = model()
    m.graph.input[0].CopyFrom(make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape))
    with pytest.raises(UserError, match=r"input x has shape .*, expected \(n, 1, size, size\)"):
        integer_network(saved(m, tmp_path))


@pytest.mark.parametrize("size", ["", "5", "-3", "a"])
def test_flat_input_without_a_size_that_fits_is_refused(size: str, tmp_path: Path) -> None:
    m = model()
    m.graph.input[0].CopyFrom(make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 25]))
    onnx.helper.set_model_props(m, {SIZE: size})
    with pytest.raises(UserError, match=r"its input is flat, .* and its metadata has no size of the patches that fits"):
        integer_network(saved(m, tmp_path))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    with pytest.raises(UserError, match=r"no\.onnx: not a readable QONNX file"):
        integer_network(path)
    for content in (b"", b"not a model", saved(model(), tmp_path).read_bytes()[:300]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"no\.onnx: "):
            integer_network(path)

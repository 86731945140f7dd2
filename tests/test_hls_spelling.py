"""ONNX spellings of one meaning are one network, in integers, executed by qonnx and converted by hls4ml."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_quant_from_qonnx import DOMAIN, model, node, plain, saved, set_attribute

from braggnn_edge.core.errors import UserError
from hls.project.check import check
from hls.project.convert import channels_last, convert
from quant.contract.emulate import run
from quant.contract.network import Linear
from quant.exchange.execute import run_qonnx
from quant.exchange.from_qonnx import integer_network
from quant.exchange.spelling import load

CODES = np.random.default_rng(3).integers(0, 256, (20, 5, 5))


def as_node(m: onnx.ModelProto, name: str, key: str) -> None:
    """An initializer becomes a Constant node that holds it by this attribute."""
    found = next(i for i in m.graph.initializer if i.name == name)
    values = numpy_helper.to_array(found)
    given = {"value": lambda: found, "value_float": lambda: float(values), "value_int": lambda: int(values)}.get(
        key, lambda: values.reshape(-1).tolist()
    )()
    m.graph.initializer.remove(found)
    m.graph.node.insert(0, helper.make_node("Constant", [], [name], **{key: given}))


def without(m: onnx.ModelProto, *names: str) -> None:
    """Attributes that have their default are left out."""
    for one in m.graph.node:
        kept = [found for found in one.attribute if found.name not in names]
        del one.attribute[:]
        one.attribute.extend(kept)


def reshaped(m: onnx.ModelProto, shape: tuple[int, ...], *names: str) -> None:
    for found in m.graph.initializer:
        if found.name in names:
            values = numpy_helper.to_array(found).reshape(shape if shape != (-2,) else (1, -1))
            found.CopyFrom(numpy_helper.from_array(values, found.name))


SCALARS = ("zero", "s8", "s3", "s4", "s5", "s11", "b8", "b5", "b16", "b32")


def constants_as_numbers(m: onnx.ModelProto) -> None:
    for name in SCALARS:
        as_node(m, name, "value_float")


def constants_as_lists(m: onnx.ModelProto) -> None:
    for name in (*SCALARS, "db", "cb"):
        as_node(m, name, "value_floats")


def constants_as_whole_numbers(m: onnx.ModelProto) -> None:
    for name in ("zero", "b8", "b5", "b16", "b32"):
        as_node(m, name, "value_int")


def constants_as_tensors(m: onnx.ModelProto) -> None:
    for name in ("cw", "dw", "db", "s8"):
        as_node(m, name, "value")


def attributes_left_out(m: onnx.ModelProto) -> None:
    without(m, "kernel_shape", "axis", "narrow")
    signed = [one for one in m.graph.node if one.op_type == "Quant" and one.name not in ("in_q", "act_q")]
    for one in signed:
        kept = [found for found in one.attribute if found.name not in ("signed", "rounding_mode")]
        if one.name != "out_q":
            del one.attribute[:]
            one.attribute.extend(kept)


def attributes_written_out(m: onnx.ModelProto) -> None:
    for key, value in (("pads", [0] * 4), ("strides", [1, 1]), ("dilations", [1, 1]), ("group", 1)):
        set_attribute(m, "conv", key, value)
    for key, number in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
        set_attribute(m, "dense", key, number)


def no_padding_by_name(m: onnx.ModelProto) -> None:
    set_attribute(m, "conv", "auto_pad", "VALID")


def flatten_from_behind(m: onnx.ModelProto) -> None:
    set_attribute(m, "flatten", "axis", -3)


def scalars_with_axes(m: onnx.ModelProto) -> None:
    reshaped(m, (1,), "s8", "b8", "zero")
    reshaped(m, (1, 1, 1, 1), "s3", "b5")


def scalars_of_other_types(m: onnx.ModelProto) -> None:
    for found in m.graph.initializer:
        if found.name in ("b8", "b5", "zero"):
            found.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(found).astype(np.int64), found.name))


def bias_of_one_row(m: onnx.ModelProto) -> None:
    reshaped(m, (-2,), "db")


def nodes_without_names(m: onnx.ModelProto) -> None:
    for one in m.graph.node:
        one.name = ""


def identities(m: onnx.ModelProto) -> None:
    m.graph.node.insert(6, helper.make_node("Identity", ["r"], ["same"], "same"))
    node(m, "act_q").input[0] = "same"
    m.graph.node.append(helper.make_node("Identity", ["out_q_out"], ["end"], "end"))
    m.graph.output[0].name = "end"


def any_batch(m: onnx.ModelProto) -> None:
    for value in (m.graph.input[0], m.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def initializers_as_inputs(m: onnx.ModelProto) -> None:
    for found in m.graph.initializer:
        m.graph.input.append(helper.make_tensor_value_info(found.name, found.data_type, list(found.dims)))


def other_quant_names(m: onnx.ModelProto) -> None:
    for one in m.graph.node:
        if one.op_type == "Quant":
            one.op_type, one.domain = "IntQuant", "onnx.brevitas"
    set_attribute(m, "act_q", "rounding_mode", "floor")
    set_attribute(m, "cw_q", "rounding_mode", "HALF_EVEN")
    del m.opset_import[:]
    m.opset_import.extend([helper.make_opsetid("", 20), helper.make_opsetid("onnx.brevitas", 1)])


SPELLINGS = [
    constants_as_numbers, constants_as_lists, constants_as_whole_numbers, constants_as_tensors, attributes_left_out,
    attributes_written_out, no_padding_by_name, flatten_from_behind, scalars_with_axes, scalars_of_other_types,
    bias_of_one_row, nodes_without_names, identities, any_batch, initializers_as_inputs, other_quant_names,
]  # fmt: skip


@pytest.mark.parametrize("spell", SPELLINGS)
def test_every_spelling_is_the_same_network(tmp_path: Path, spell: Callable[[onnx.ModelProto], None]) -> None:
    m = model()
    before = m.SerializeToString()
    spell(m)
    assert m.SerializeToString() != before or spell is no_padding_by_name
    path = saved(m, tmp_path)
    network = integer_network(path)
    assert (run(network, CODES).outputs == plain(CODES)).all()
    assert (run_qonnx(path, CODES, batch=8) == plain(CODES)).all()
    converted(path, network, tmp_path)


def converted(path: Path, network: object, folder: Path) -> None:
    """hls4ml takes it, and every type it gave is the network's."""
    graph = convert(
        channels_last(path), network, folder / "p", name="x", io_type="io_parallel", backend="Vitis",
        part="xczu9eg-ffvb1156-2-e", clock_ns=5.0, strategy="Latency", reuse=(1, 1),
    )  # fmt: skip
    assert len(check(graph, network, "Latency", (1, 1))) >= 4
    found = {weights.name: weights.data for layer in graph.get_layers() for weights in layer.get_weights()}
    dense = next(layer for layer in network.layers if isinstance(layer, Linear) and layer.kind == "dense")
    values = [value for value in found.values() if value.size == dense.weight.size and value.ndim == 2]
    assert any(np.array_equal(np.sort(v, axis=None), np.sort(dense.weight / 16, axis=None)) for v in values)


@pytest.mark.parametrize("shape", [(1, -1), (0, -1), (-1, 18), (1, 18)])
def test_reshapes_that_flatten(tmp_path: Path, shape: tuple[int, int]) -> None:
    m = model(reshape=True)
    found = next(i for i in m.graph.initializer if i.name == "shape")
    found.CopyFrom(numpy_helper.from_array(np.array(shape, np.int64), "shape"))
    if shape == (1, 18):
        as_node(m, "shape", "value_ints")
    path = saved(m, tmp_path)
    network = integer_network(path)
    assert (run(network, CODES).outputs == plain(CODES)).all()
    assert (run_qonnx(path, CODES, batch=8) == plain(CODES)).all()
    converted(path, network, tmp_path)


@pytest.mark.parametrize("swapped", [True, False])
def test_dense_layers_as_products_and_sums(tmp_path: Path, swapped: bool) -> None:
    m = model(matmul=True)
    as_node(m, "db", "value_floats")
    if swapped:
        node(m, "bias").input[:] = ["db", "m"]
    path = saved(m, tmp_path)
    network = integer_network(path)
    assert (run(network, CODES).outputs == plain(CODES)).all()
    assert (run_qonnx(path, CODES, batch=8) == plain(CODES)).all()
    converted(path, network, tmp_path)


def test_one_bias_for_all_outputs(tmp_path: Path) -> None:
    codes = []
    for shape, values in (((2,), [0.5, 0.5]), ((1,), [0.5]), ((), 0.5), ((1, 1), [[0.5]])):
        m = model()
        found = next(i for i in m.graph.initializer if i.name == "db")
        found.CopyFrom(numpy_helper.from_array(np.array(values, np.float32).reshape(shape), "db"))
        path = saved(m, tmp_path)
        codes.append(run(integer_network(path), CODES).outputs)
        assert (run_qonnx(path, CODES, batch=8) == codes[0]).all()
        converted(path, integer_network(path), tmp_path)
    assert all((one == codes[0]).all() for one in codes)


def _odd_constant(m: onnx.ModelProto) -> None:
    m.graph.node.insert(0, helper.make_node("Constant", [], ["text"], "odd", value_string="a"))


def _empty_constant(m: onnx.ModelProto) -> None:
    m.graph.node.insert(0, helper.make_node("Constant", [], ["text"], "odd"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_odd_constant, "node odd: a constant as value_string; expected value, value_float, "),
        (_empty_constant, "node odd: a constant as nothing; expected value, "),
        (lambda m: node(m, "conv").input.pop() and node(m, "conv").input.pop(), "node conv: has 1 inputs, expected 2"),
        (
            lambda m: without(m, "kernel_shape") or node(m, "conv").input.__delitem__(slice(1, None)),
            "node conv: has 1 inputs, expected 2",
        ),
        (lambda m: node(m, "dense").input.__delitem__(slice(1, None)), "node dense: has 1 inputs, expected 2"),
        (lambda m: set_attribute(m, "conv", "strides", [2]), r"node conv: strides is \[2\], expected \[1, 1\]"),
        (lambda m: set_attribute(m, "conv", "kernel_shape", [3]), r"node conv: kernel \(3,\) does not fit"),
        (lambda m: set_attribute(m, "conv", "auto_pad", "SAME_LOWER"), "node conv: auto_pad is"),
        (lambda m: set_attribute(m, "flatten", "axis", -2), "node flatten: axis is -2, expected 1"),
        (lambda m: reshaped(m, (2, 1), "db"), r"node dense: bias of shape \(2, 1\)"),
        (lambda m: reshaped(m, (1, 2), "cb"), r"node conv: bias of shape \(1, 2\)"),
    ],
)
@pytest.mark.parametrize("use", [integer_network, channels_last])
def test_what_has_another_meaning_is_one_error(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str, use: Callable[[Path], object]
) -> None:
    m = model()
    change(m)
    if use is channels_last and "constant as" not in message:
        return  # the integer network is read first, wherever a project is made
    with pytest.raises(UserError, match=message):
        use(saved(m, tmp_path))


def test_our_own_files_keep_their_names(tmp_path: Path) -> None:
    m = model()
    found = load(saved(m, tmp_path))
    assert [one.name for one in found.graph.node] == [one.name for one in m.graph.node]
    assert [one.domain for one in found.opset_import] == ["", DOMAIN]
    assert found.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT

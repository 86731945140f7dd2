"""QONNX to an hls4ml model whose every type is the one that the integer network prescribes."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.transformation.fold_constants import FoldConstants
from qonnx.transformation.gemm_to_matmul import GemmToMatMul
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.cleanup import cleanup_model

from braggnn_edge.core.errors import UserError
from hls.project.blocks import has_forks, prescribed_types, put_back, stand_in
from hls.project.extension import DENSE, NON_LOCAL, hls4ml
from hls.project.precision import bias_format, precision, slope_format
from quant.contract.arithmetic import Format
from quant.contract.attention import NonLocal
from quant.contract.network import IntegerNetwork, Leaky, Linear
from quant.exchange.from_qonnx import integer_network
from quant.exchange.spelling import load


def _fold_dense(model: ModelWrapper) -> ModelWrapper:
    """Replace every MatMul + Add of constants by one ``ExactDense`` node that holds them as attributes."""
    graph = model.graph
    for node in list(graph.node):
        if node.op_type != "MatMul":
            continue
        weight = model.get_initializer(node.input[1])
        successors = model.find_direct_successors(node) or []
        add = successors[0] if len(successors) == 1 and successors[0].op_type == "Add" else None
        if weight is None:
            raise UserError(f"{node.name}: a MatMul of two variables has no HLS form; give it constant weights")
        bias, output, removed = np.zeros(weight.shape[1], dtype=np.float32), node.output[0], [node]
        if add is not None:
            constant = next((c for c in (model.get_initializer(name) for name in add.input) if c is not None), None)
            if constant is not None:
                bias, output, removed = np.broadcast_to(constant, bias.shape), add.output[0], [node, add]
        dense = helper.make_node(
            DENSE,
            [node.input[0]],
            [output],
            name=node.name,
            domain="braggnn_edge",
            weight=numpy_helper.from_array(np.ascontiguousarray(weight, dtype=np.float64)),
            bias=numpy_helper.from_array(np.ascontiguousarray(bias, dtype=np.float64)),
        )
        index = list(graph.node).index(node)
        for old in removed:
            graph.node.remove(old)
        graph.node.insert(index, dense)
    used = {name for node in graph.node for name in node.input}
    for initializer in list(graph.initializer):
        if initializer.name not in used:
            graph.initializer.remove(initializer)
    return model


def channels_last(qonnx_path: Path) -> ModelWrapper:
    """Read a QONNX file (channels first) and return it channels last, its weights folded to constants.

    Non-local blocks are read from the file by :mod:`quant.exchange.from_qonnx` and become one node each. The
    transformations are qonnx's own; initializers are put in the order of use, because qonnx leaves them in the order of
    a set and hls4ml numbers its layers after them.
    """
    proto = load(qonnx_path)
    blocks: tuple[NonLocal, ...] = ()
    if has_forks(proto.graph):
        blocks = tuple(layer for layer in integer_network(qonnx_path).layers if isinstance(layer, NonLocal))
        proto = stand_in(proto, blocks)
    _floor_input(proto)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # GemmToMatMul knows version 9 of Gemm only; :func:`hls.project.check.check` knows all
        model = cleanup_model(ModelWrapper(proto))
        model = model.transform(ConvertToChannelsLastAndClean(make_input_channels_last=True))
        model = cleanup_model(model.transform(GemmToMatMul()))
        model = model.transform(FoldConstants(exclude_op_types=[]))
    model = _fold_dense(_without_idle_transposition(model))
    put_back(model.graph, blocks)
    order = {name: i for i, name in enumerate(name for node in model.graph.node for name in node.input)}
    initializers = sorted(model.graph.initializer, key=lambda tensor: order[tensor.name])
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    return model


def _floor_input(model: onnx.ModelProto) -> None:
    """Let the input's Quant round as the input's type does: values are codes already, so all modes are the same.

    hls4ml drops a Quant whose type is that of the tensor before it.
    """
    for node in model.graph.node:
        if node.op_type == "Quant" and node.input[0] == model.graph.input[0].name:
            for attribute in node.attribute:
                if attribute.name == "rounding_mode":
                    attribute.s = b"FLOOR"


def _without_idle_transposition(model: ModelWrapper) -> ModelWrapper:
    """Remove the transposition of the input before a Flatten: of one channel it moves no value.

    qonnx leaves it where no convolution comes first, and a stream would be gathered and reordered for it.
    """
    graph = model.graph
    entry = graph.input[0].name
    first = next(node for node in graph.node if entry in node.input)
    if first.op_type == "Transpose" and model.get_tensor_shape(entry)[-1] == 1:
        for node in model.find_consumers(first.output[0]):
            node.input[list(node.input).index(first.output[0])] = entry
        graph.node.remove(first)
        made = {output for node in [first, *graph.node] for output in node.output}
        kept = [info for info in graph.value_info if info.name not in made]
        del graph.value_info[:]  # the shapes of what follows, as far as the Flatten, are others now
        graph.value_info.extend(kept)
        model = model.transform(InferShapes())
    return model


def _paired(model: ModelWrapper, network: IntegerNetwork, operators: tuple[str, ...], kind: type) -> Any:
    """Nodes of ``operators`` and layers of class ``kind``, in order."""
    layers = [layer for layer in network.layers if isinstance(layer, kind)]
    nodes = [node for node in model.graph.node if node.op_type in operators]
    if len(nodes) != len(layers):
        raise UserError(
            f"the QONNX file has {len(nodes)} layers {' and '.join(operators)}, the integer network {len(layers)}; "
            "both must come from the same `make qat`"
        )
    return zip(nodes, layers, strict=True)


def _configuration(
    model: ModelWrapper, network: IntegerNetwork, strategy: str, reuse: tuple[int, ...], keys_per_cycle: int
) -> dict[str, Any]:
    """hls4ml's configuration by layer name: explicit types of inputs and linear layers, the rest from the QONNX."""
    layers: dict[str, Any] = {}
    for node in model.graph.node:
        layers[node.name] = {"Precision": {"result": "auto"}, "Trace": True}
    for node, leaky in _paired(model, network, ("LeakyRelu",), Leaky):
        layers[node.name]["Precision"]["param"] = precision(slope_format(leaky.slope_code, leaky.slope_frac))
    for node, _ in _paired(model, network, (NON_LOCAL,), NonLocal):
        layers[node.name] = {"Precision": prescribed_types(node), "Parallel": keys_per_cycle, "Trace": True}
    for (node, layer), factor in zip(_paired(model, network, ("Conv", DENSE), Linear), reuse, strict=True):
        accumulator = precision(layer.accumulator)
        layers[node.name] = {
            "Precision": {
                "weight": precision(layer.weight_format), "bias": precision(bias_format(layer)),
                "accum": accumulator, "result": accumulator,
            },
            "Strategy": strategy, "ReuseFactor": factor, "Trace": True,
        }  # fmt: skip
    entry = model.graph.input[0].name
    layers[entry] = {"Precision": {"result": precision(network.input, saturate=True)}}
    default = precision(Format(48, 24, True))
    return {
        # The model's own factor would be that of activations, which have no multiplier worth sharing.
        # PipelineInterval: of a network of dense layers alone, whose top function is one pipeline in io_parallel.
        "Model": {
            "Precision": {"default": default},
            "ReuseFactor": 1,
            "Strategy": strategy,
            "PipelineInterval": max(reuse),
        },
        "LayerName": layers,
    }


def convert(
    model: ModelWrapper, network: IntegerNetwork, directory: Path, *,
    name: str, io_type: str, backend: str, part: str, clock_ns: float, strategy: str, reuse: tuple[int, ...],
    keys_per_cycle: int = 1, board: str = "",
) -> Any:  # fmt: skip
    """An hls4ml ``ModelGraph`` of the channels-last ``model``; :func:`hls.project.check.check` it. Nothing is written.

    reuse: one factor for each convolution and dense layer, in order. keys_per_cycle: keys of a non-local block handled
    in a cycle. board: of the back end VivadoAccelerator, hls4ml's name.
    """
    converters = hls4ml().converters
    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = converters.convert_from_onnx_model(
                model, output_dir=str(directory), project_name=name, backend=backend, io_type=io_type, part=part,
                clock_period=clock_ns, hls_config=_configuration(model, network, strategy, reuse, keys_per_cycle),
                **({"board": board} if board else {"write_weights_txt": False}),
            )  # fmt: skip
    except Exception as error:
        last = (log.getvalue().strip().splitlines() or ["no output"])[-1]
        raise UserError(f"hls4ml's {backend} back end cannot convert the network: {error} (last: {last})") from error
    graph.config.config["WriterConfig"]["WriteWeightsTxt"] = False  # VivadoAccelerator has no option for it
    graph.config.trace_output = True  # as ModelGraph.trace() does; the tracing code is not synthesized
    return graph

"""The quantized network as a QONNX file, accepted only when it computes the same codes."""

import warnings
from pathlib import Path

import onnx
import torch
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.cleanup import cleanup_model

from braggnn_edge.core.files import written_aside
from quant.contract.network import IntegerNetwork
from quant.exchange.execute import quiet, require_equal
from quant.exchange.from_qonnx import integer_network
from quant.exchange.to_qonnx import qonnx_model
from quant.training.integers import integers
from quant.training.qnet import QuantBraggNN, apply_masks, eval_exact, exact_copy

with warnings.catch_warnings():
    # On import Brevitas warns of an optional package (fast Hadamard transforms) that nothing here needs.
    warnings.simplefilter("ignore")
    from brevitas.export import export_qonnx as brevitas_export


def export_qonnx(qnet: QuantBraggNN, path: Path) -> IntegerNetwork:
    """Write ``qnet`` to ``path`` as QONNX and return the integer network read back from it.

    The file is written only if onnx's checker accepts it, its graph is in the integer contract, and its execution by
    qonnx and by the emulator equals ``qnet`` in float64, code for code, on random inputs and corner cases; otherwise a
    UserError is raised and nothing left behind. The same weights give the same bytes.
    """
    with written_aside(path) as aside:
        onnx.save(_graph(qnet), str(aside))
        network = integer_network(aside)
        require_equal(aside, network, lambda codes: eval_exact(qnet, codes), path, "quantized network")
    return network


def _graph(qnet: QuantBraggNN) -> onnx.ModelProto:
    """The cleaned QONNX graph, batch 1, without doc strings and metadata: they hold paths of the exporting machine.

    Brevitas writes a chain of ReLU layers; a network with attention or LeakyReLU is written from its integers.
    """
    apply_masks(qnet)
    if qnet.nlb is not None or qnet.spec.slope:
        model = qonnx_model(integers(qnet))
        onnx.checker.check_model(model)
        return model
    with quiet():
        sample = torch.zeros(1, 1, qnet.size, qnet.size)
        raw = brevitas_export(exact_copy(qnet).float(), args=sample, dynamo=False)
        model = cleanup_model(ModelWrapper(raw)).model
    for item in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    model.ClearField("producer_version")
    kept = sorted(model.graph.initializer, key=lambda tensor: tensor.name)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    return model

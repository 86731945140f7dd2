"""The quantized network as a QONNX file, accepted only when it computes the same codes; and its execution."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.cleanup import cleanup_model

from braggnn_edge.errors import UserError
from braggnn_edge.rundir import written_aside
from quant.arithmetic import Codes, Format, exact_codes
from quant.emulate import checked_codes, run
from quant.from_qonnx import integer_network
from quant.integers import integers
from quant.network import IntegerNetwork, Linear, NonLocal
from quant.qnet import QuantBraggNN, apply_masks, eval_exact, exact_copy
from quant.to_qonnx import qonnx_model
from quant.vectors import hostile_codes, random_codes

with warnings.catch_warnings():
    # On import Brevitas warns of an optional package (fast Hadamard transforms) that nothing here needs.
    warnings.simplefilter("ignore")
    from brevitas.export import export_qonnx as brevitas_export

#: float32 holds every integer up to 2**24, so sums of codes below it are exact in any order.
_FLOAT32_LIMIT = 1 << 24
_CHECKED_PATCHES = 300


def export_qonnx(qnet: QuantBraggNN, path: Path) -> IntegerNetwork:
    """Write ``qnet`` to ``path`` as QONNX and return the integer network read back from it.

    The file is written only if onnx's checker accepts it, its graph is in the integer contract, and its execution by
    qonnx and by the emulator equals ``qnet`` in float64, code for code, on random and hostile inputs; otherwise a
    UserError is raised and nothing left behind. The same weights give the same bytes.
    """
    with written_aside(path) as aside:
        onnx.save(_graph(qnet), str(aside))
        network = integer_network(aside)
        require_equal(aside, network, lambda codes: eval_exact(qnet, codes), path, "quantized network")
    return network


def require_equal(
    aside: Path, network: IntegerNetwork, reference: Callable[[Codes], Codes], path: Path, name: str
) -> None:
    """Raise a UserError unless the file ``aside`` and ``network``, read from it, compute the reference's output codes.

    Compared on hostile and random input codes; ``reference`` takes them (n, size, size), ``name`` says what it is,
    ``path`` what the file would have been called.
    """
    codes = np.concatenate(
        [
            hostile_codes(network.size, network.input),
            random_codes(network.size, network.input, _CHECKED_PATCHES, np.random.default_rng(0)),
        ]
    )
    expected = reference(codes)
    for form, found in (("integer network", run(network, codes).outputs), ("QONNX file", run_qonnx(aside, codes))):
        wrong = int(np.count_nonzero((found != expected).any(axis=1)))
        if wrong:
            raise UserError(
                f"{path}: the {form} differs from the {name} on {wrong} of {len(codes)} "
                "patches; nothing was written. Check the versions of brevitas, qonnx, onnxruntime"
            )


def run_qonnx(path: Path, codes: NDArray[np.integer], batch: int = 2000) -> Codes:
    """Execute the file with qonnx: input codes (n, size, size) or (n, 1, size, size) to codes (n, 2).

    qonnx computes in float32. That is exact as long as all accumulators stay below 2**24, which is checked on
    the integer network; a wider network is refused.
    """
    network = integer_network(path)
    for name, sums in _sums(network):
        if max(sums.high, -sums.low) > _FLOAT32_LIMIT:
            raise UserError(
                f"layer {name}: its accumulator needs {sums.bits} bits, but float32, in "
                "which QONNX is executed, is exact up to 25 (sign included); use fewer bits"
            )
    values = network.input.values(checked_codes(codes, network.size, network.input)).astype(np.float32)
    if not len(values):
        return np.zeros((0, 2), np.int64)
    batch = min(batch, len(values))
    padded = np.concatenate([values, np.repeat(values[:1], -len(values) % batch, axis=0)])
    found = np.concatenate(_execute(path, padded.reshape(-1, batch, *values.shape[1:])))
    return exact_codes(found[: len(values)], network.output.frac, f"{path}: output")


def _sums(network: IntegerNetwork) -> Iterator[tuple[str, Format]]:
    """Everything that the QONNX graph adds in float32, by name."""
    for layer in network.layers:
        if isinstance(layer, Linear):
            yield layer.name, layer.accumulator
        elif isinstance(layer, NonLocal):
            difference = Format.holding(0, layer.score.high - layer.score.low, layer.score.frac)
            yield from ((part.name, part.accumulator) for part in (layer.theta, layer.phi, layer.g, layer.out))
            yield from ((f"{layer.name} (score)", layer.score), (f"{layer.name} (difference)", difference))
            yield from ((f"{layer.name} (weighted)", layer.weighted), (layer.name, layer.accumulator))


def _execute(path: Path, batches: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    with _quiet():
        model = ModelWrapper(str(path)).transform(ChangeBatchSize(batches.shape[1])).transform(InferShapes())
        (source,), (result,) = model.graph.input, model.graph.output
        return [execute_onnx(model, {source.name: values})[result.name] for values in batches]


def _graph(qnet: QuantBraggNN) -> onnx.ModelProto:
    """The cleaned QONNX graph, batch 1, without doc strings and metadata: they hold paths of the exporting machine.

    Brevitas writes a chain of ReLU layers; a network with attention or LeakyReLU is written from its integers.
    """
    apply_masks(qnet)
    if qnet.nlb is not None or qnet.spec.slope:
        model = qonnx_model(integers(qnet))
        onnx.checker.check_model(model)
        return model
    with _quiet():
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch warns of the exporter that Brevitas must use, and of casts in it; the result is checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

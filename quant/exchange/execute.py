"""QONNX files executed by qonnx, and the check that a file computes what it should before it is kept."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.transformation.infer_shapes import InferShapes

from braggnn_edge.core.errors import UserError
from quant.contract.arithmetic import Codes, Format, exact_codes
from quant.contract.emulate import checked_codes, run
from quant.contract.network import IntegerNetwork, Linear, NonLocal
from quant.contract.vectors import corner_case_inputs, random_inputs
from quant.exchange.from_qonnx import integer_network
from quant.exchange.spelling import load

#: float32 holds every integer up to 2**24, so sums of codes below it are exact in any order.
_FLOAT32_LIMIT = 1 << 24
_CHECKED_PATCHES = 300


def require_equal(
    aside: Path, network: IntegerNetwork, reference: Callable[[Codes], Codes], path: Path, name: str
) -> None:
    """Raise a UserError unless the file ``aside`` and ``network``, read from it, compute the reference's output codes.

    Compared on corner cases and random input codes; ``reference`` takes them (n, *network.shape), ``name`` says what it
    is, ``path`` what the file would have been called.
    """
    codes = np.concatenate(
        [
            corner_case_inputs(network),
            random_inputs(network, _CHECKED_PATCHES, np.random.default_rng(0)),
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
    """Execute the file with qonnx: input codes (n, *network.shape) to codes (n, 2 or 4).

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
    values = network.input.values(checked_codes(codes, network.shape, network.input)).astype(np.float32)
    if not len(values):
        return np.zeros((0, network.outputs), np.int64)
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
    with quiet():
        model = ModelWrapper(load(path)).transform(ChangeBatchSize(batches.shape[1])).transform(InferShapes())
        (source,), (result,) = model.graph.input, model.graph.output
        return [execute_onnx(model, {source.name: values})[result.name] for values in batches]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch warns of the exporter that Brevitas must use, and of casts in it; the result is checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

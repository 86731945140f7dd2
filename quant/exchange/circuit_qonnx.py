"""A circuit's network as a QONNX file, accepted only when the same network is read back and computes the same codes.

The network alone: the normalizer before it and the centroid beside it are steps of the integer contract
(docs/reference/numerics.md) that no QONNX operator stands for; ``locator.json`` holds them.
"""

from pathlib import Path

import onnx

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from quant.contract import emulate
from quant.contract.network import IntegerNetwork, as_document
from quant.exchange.execute import require_equal
from quant.exchange.from_qonnx import integer_network
from quant.exchange.to_qonnx import qonnx_model


def export_network(network: IntegerNetwork, path: Path) -> None:
    """Write ``network`` to ``path`` as QONNX; the same network gives the same bytes.

    The file is written only if onnx's checker accepts it, :func:`quant.exchange.from_qonnx.integer_network` reads an
    equal network from it, and its execution by qonnx gives the emulator's codes on corner cases and random inputs.
    Otherwise a UserError names the layer (one that cannot be written, or whose sums float32 does not hold) and nothing
    is left behind.
    """
    with written_aside(path) as aside:
        model = qonnx_model(network)
        onnx.checker.check_model(model)
        onnx.save(model, str(aside))
        found = integer_network(aside)
        require_same(network, found)
        require_equal(aside, found, lambda codes: emulate.run(network, codes).outputs, path, "emulated network")


def require_same(network: IntegerNetwork, found: IntegerNetwork) -> None:
    """Raise a UserError that names the first layer and field in which a network read back differs."""
    want, have = as_document(network), as_document(found)
    if want == have:
        return
    for expected, read in zip(want["layers"], have["layers"], strict=False):
        for key, value in expected.items():
            if read.get(key) != value:
                remedy = (
                    "size it with quant.contract.sizing.size_accumulators"
                    if key == "accumulator"
                    else "QONNX has no form for it"
                )
                raise UserError(f"layer {expected['name']}: its {key} is read back as {read.get(key)}; {remedy}")
    raise UserError(
        f"the network is read back with {len(have['layers'])} layers, input {have['input']} of {have['size']} px; "
        f"expected {len(want['layers'])}, {want['input']} and {want['size']}"
    )

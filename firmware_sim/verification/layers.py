"""The report's rows on the layers of a network: widths, sparsity, multiplications, saturations and overflows."""

from typing import Any

import numpy as np

from firmware_sim.forms.compare import Comparison
from quant.contract import emulate
from quant.contract.attention import NonLocal
from quant.contract.network import Flatten, IntegerNetwork, Linear, Requantize


def layer_rows(
    integer: IntegerNetwork, emulated: emulate.Result, compared: dict[str, Comparison]
) -> list[dict[str, Any]]:
    """The report's ``layers``: bit widths, sparsity, multiplications; saturations and overflows, most of any form."""
    rows = []
    side = integer.size
    for position, layer in enumerate(integer.layers):
        if isinstance(layer, Flatten):
            continue
        same = [c for comparison in compared.values() for c in comparison.layers if c.name == layer.name]
        own = emulated.layers[position]
        row: dict[str, Any] = {"name": layer.name, "kind": layer.kind}
        if isinstance(layer, Linear):
            positions = 1
            if layer.kind == "conv2d":
                side -= layer.weight.shape[2] - 1
                positions = side * side
            row |= {
                "weight_bits": layer.weight_format.bits,
                "accumulator_bits": layer.accumulator.bits,
                "sparsity": float(np.mean(layer.weight == 0)),
                "macs": positions * layer.weight.size,
            }
        elif isinstance(layer, NonLocal):
            parts = (layer.theta, layer.phi, layer.g, layer.out)
            pairs = layer.positions * layer.keys * len(layer.theta.weight)
            row |= {
                "weight_bits": max(part.weight_format.bits for part in parts),
                "accumulator_bits": layer.accumulator.bits,
                "sparsity": float(np.mean(np.concatenate([part.weight.ravel() for part in parts]) == 0)),
                "macs": layer.positions * sum(part.weight.size for part in parts) + 2 * pairs,  # scores, weighted sums
            }
        elif isinstance(layer, Requantize):
            row["activation_bits"] = layer.output.bits
        row["saturations"] = max([own.saturations, *(c.saturations for c in same)])
        row["overflows"] = max([own.overflows, *(c.overflows for c in same)])
        rows.append(row)
    return rows

"""The quantized network before its fine-tuning: weights, scales and biases from the float network."""

from collections.abc import Callable

import torch
from torch import Tensor

from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.upstream import to_offset
from quant.training.equalize import POWERS, equalized
from quant.training.qnet import QuantBraggNN, calibrate, load_float

#: Patches on which the candidates are compared, and how many at a time.
_COMPARED, _BATCH = 1024, 256


@torch.no_grad()
def initialize(qnet: QuantBraggNN, float_net: BraggNN, values: Tensor, say: Callable[[str], None]) -> None:
    """Load the float network, calibrated on input values (n, 1, size, size), in the form that loses least.

    The float network as it is and its rewritings (:mod:`quant.training.equalize`) are quantized in turn; the one whose
    answers on the calibration patches are closest to the float network's, by their mean squared distance, stays.
    """
    compared = values[:_COMPARED]
    forms = {"as trained": float_net} | {f"equalized {p:g}": equalized(float_net, values, p) for p in POWERS}
    wanted = torch.cat([to_offset(float_net.eval()(part), qnet.size) for part in compared.split(_BATCH)])
    errors = {}
    for name, form in forms.items():
        load_float(qnet, form)
        calibrate(qnet, values)
        qnet.eval()
        answers = torch.cat([qnet(part) for part in compared.split(_BATCH)])
        errors[name] = float((answers - wanted).square().sum(1).mean())
    best = min(errors, key=errors.__getitem__)
    say("  quantized, rms px to float: " + "  ".join(f"{name} {error**0.5:.4f}" for name, error in errors.items()))
    if best != name:
        load_float(qnet, forms[best])
        calibrate(qnet, values)

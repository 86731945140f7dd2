"""The quantized non-local block in Brevitas: trained through the tables and floors of the contract."""

from collections.abc import Iterator
from typing import Any

import brevitas.nn as qnn
import torch
from torch import Tensor, nn

from braggnn_edge.training.model import pooled
from quant.training.plan import AttentionPlan
from quant.training.quantizers import Signed, convolution, corrected, fit_signed

#: Patches whose scores are held at a time in calibration; 81 x 81 float64 numbers each.
_BATCH = 256


class QuantNonLocal(nn.Module):
    """The first convolution's values (n, C, R, R) to the block's (n, C, R, R), unquantized sums; exact in float64.

    theta, phi, g, out are the 1 x 1 convolutions to and from ``inner`` channels; input, query, key, value, mixed the
    signed quantizers; pool the side of the windows whose maxima are the keys and values. The tables are functions of
    the plan alone and no part of the state.
    """

    def __init__(self, channels: int, inner: int, pool: int, plan: AttentionPlan) -> None:
        super().__init__()
        bits = plan.weight_bits
        self.plan, self.pool = plan, pool
        self.theta, self.phi, self.g = (convolution(channels, inner, 1, bits) for _ in range(3))
        self.out = convolution(inner, channels, 1, bits)
        self.input = qnn.QuantIdentity(Signed, bit_width=plan.input_bits, return_quant_tensor=True)
        self.query = qnn.QuantIdentity(Signed, bit_width=plan.query_bits)
        self.key = qnn.QuantIdentity(Signed, bit_width=plan.key_bits)
        self.value = qnn.QuantIdentity(Signed, bit_width=plan.value_bits)
        self.mixed = qnn.QuantIdentity(Signed, bit_width=plan.mixed_bits, return_quant_tensor=True)
        for name, table in zip(("exp_table", "reciprocal_table"), plan.tables(), strict=True):
            self.register_buffer(name, torch.from_numpy(table).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        query, key, value = (
            act(part(x)) for part, act in ((self.theta, self.query), (self.phi, self.key), (self.g, self.value))
        )
        return self.out(self.mixed(self.attend(query, key, value))) + x.value  # type: ignore[attr-defined]

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Quantized queries, keys, values (n, D, R, R) to weighted means of the values (n, D, R, R), unquantized.

        Keys and values are pooled here: the maximum of codes is the code of the maximum, since floor and clipping
        change no order.
        """
        pools = (query, pooled(key, self.pool), pooled(value, self.pool))
        q, k, v = (tensor.flatten(2).transpose(1, 2) for tensor in pools)  # n, N, D; n, K, D twice
        scores = q @ k.transpose(1, 2)
        weights = _TableSoftmax.apply(scores, self.exp_table, self.reciprocal_table, 2.0**self.plan.difference.frac)
        return (weights @ v).transpose(1, 2).reshape(query.shape)

    def convolutions(self) -> Iterator[Any]:
        """theta, phi, g, out."""
        yield from (self.theta, self.phi, self.g, self.out)

    def quantizers(self) -> Iterator[Any]:
        """input, query, key, value, mixed."""
        yield from (self.input, self.query, self.key, self.value, self.mixed)


class _TableSoftmax(torch.autograd.Function):
    """Steps 3 to 7 of :mod:`quant.contract.attention` up to the last floor: scores (.., N) to weights that sum to about
    1.

    Forward is the tables' integers, exact in float64. Backward is the gradient of softmax.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, exponentials: Tensor, reciprocals: Tensor, steps: float) -> Tensor:
        difference = scores.amax(-1, keepdim=True) - scores
        index = torch.floor(difference * steps).clamp(max=len(exponentials) - 1)
        e = exponentials[index.long()]
        total = e.sum(-1, keepdim=True)
        mantissa, _ = torch.frexp(total)  # in [1/2, 1): the leading one and the bits below it
        size = len(reciprocals)
        entry = reciprocals[torch.floor(mantissa * (2 * size)).long() - size]
        top = 2.0 ** (int(reciprocals[0]).bit_length() - 1)
        # mantissa / total is 2**-bit_length(total), exactly.
        weights = e * (entry * (mantissa / total) / top)
        ctx.save_for_backward(torch.softmax(scores, -1) if scores.requires_grad else weights)
        return weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (weights,), (gradient,) = ctx.saved_tensors, gradients
        return weights * (gradient - (gradient * weights).sum(-1, keepdim=True)), None, None, None


@torch.no_grad()
def calibrate_block(exact: QuantNonLocal, original: QuantNonLocal, x: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Set the scales of both copies by least squared error, in order, and correct the four biases.

    x: the first convolution's values (n, C, R, R) in float64; exact: the copy of ``original`` in float64; wanted: the
    float network's values there. Returns the block's results, quantized and float.
    """

    def fitted(name: str, values: Tensor) -> Any:
        quantizer = getattr(exact, name)
        fit_signed((quantizer, getattr(original, name)), values, getattr(exact.plan, f"{name}_bits"))
        return quantizer(values)

    x = fitted("input", x)
    pairs = [
        corrected(part, other, x, wanted)
        for part, other in ((exact.theta, original.theta), (exact.phi, original.phi), (exact.g, original.g))
    ]
    query, key, value = (fitted(n, p[0]) for n, p in zip(("query", "key", "value"), pairs, strict=True))
    blocks = zip(*(tensor.split(_BATCH) for tensor in (query, key, value)), strict=True)
    mixed = torch.cat([exact.attend(*block) for block in blocks])
    blocks = zip(*(pair[1].split(_BATCH) for pair in pairs), strict=True)
    aim = torch.cat([_attended(q, k, v, exact.pool) for q, k, v in blocks])
    result, aim = corrected(exact.out, original.out, fitted("mixed", mixed), aim)
    return result + x.value, aim + wanted  # type: ignore[attr-defined]


def _attended(query: Tensor, key: Tensor, value: Tensor, pool: int) -> Tensor:
    """The float block's weighted means (n, D, R, R)."""
    q, k, v = (tensor.flatten(2).transpose(1, 2) for tensor in (query, pooled(key, pool), pooled(value, pool)))
    return (torch.softmax(q @ k.transpose(1, 2), -1) @ v).transpose(1, 2).reshape(query.shape)

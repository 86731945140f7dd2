"""The network for inference: the same function of a patch, with everything that is linear multiplied out.

Between the patch and the first activation the published network is linear but for one softmax: the first convolution,
theta, phi, g and the output projection of the non-local block (Wang et al., CVPR 2018) act on 64 and 32 channels, yet
all depend on the 9 pixels u_i under a 3 x 3 window alone. With x_i = u_i C + c,

    theta_i . phi_j = u_i T u_j' + t u_j' + (terms of i alone, which the softmax over j cancels)
    x_i + out(sum_j a_ij g_j) = u_i C + (sum_j a_ij u_j) G + c'          since the a_ij of one i sum to 1

so the block works on 9 channels. Multiplied out in float64, its 1.13 million multiplications become 0.22 million; the
whole network's 2.09 million become 1.18 million. A maximum is not linear: a block of pooled keys stays as it is.
"""

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from braggnn_edge.core.counts import widened
from braggnn_edge.core.errors import UserError
from braggnn_edge.training.dataset import min_max
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from braggnn_edge.training.upstream import fold_offset

PRECISIONS = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class FusedNetwork(nn.Module):
    """Patches (n, size, size) in counts to offsets (n, 2) (row, col) px from the centre pixel, of one trained network.

    precision: of the convolutions and, on a GPU, of the attention; the normalization, the softmax on a CPU and the
    dense layers, whose output needs more than bfloat16's 8 bits, stay in float32 (float64 for "float64").
    """

    query: Tensor
    shift: Tensor
    mixed: Tensor
    mixed_narrow: Tensor
    bias: Tensor

    def __init__(self, net: BraggNN, precision: str = "float32") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise UserError(f"precision {precision!r} is unknown; expected one of {', '.join(PRECISIONS)}")
        self.size, self.slope, self.attention = net.size, net.spec.slope, net.spec.attention
        self.narrow = PRECISIONS[precision]
        self.wide = torch.float64 if precision == "float64" else torch.float32
        convolutions = [m for m in net.cnn_layers if isinstance(m, nn.Conv2d)]
        dense = [m for m in net.dense_layers if isinstance(m, nn.Linear)]
        self.block: nn.Module | None = None
        if self.attention and net.spec.attention_pool > 1:
            self.block = copy.deepcopy(nn.Sequential(net.cnn_layers[0], net.nlb)).to(self.wide).requires_grad_(False)
            convolutions = convolutions[1:]
        elif self.attention:
            for name, value in zip(("query", "shift", "mixed", "bias"), multiplied_out(net), strict=True):
                self.register_buffer(name, value.to(self.wide).contiguous())
            halves = [functional.pad(half, (0, 7)) for half in self.mixed.split(9, 1)]
            self.register_buffer("mixed_narrow", torch.cat(halves, 1).to(self.narrow), persistent=False)
            convolutions = convolutions[1:]
        self.depth, self.layers = len(convolutions), len(dense)
        for i, layer in enumerate(convolutions):
            weight = layer.weight.detach().to(self.narrow).contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"conv{i}", weight)
            self.register_buffer(f"conv{i}_bias", _bias(layer).to(self.narrow))
        for i, fully in enumerate(dense):
            last = i == len(dense) - 1
            weight, bias = fold_offset(fully, net.size) if last else (fully.weight.detach(), _bias(fully))
            self.register_buffer(f"dense{i}", weight.to(self.wide).contiguous())
            self.register_buffer(f"dense{i}_bias", bias.to(self.wide))

    def forward(self, patches: Tensor) -> Tensor:
        x = min_max(widened(patches, self.wide))
        x = self._non_local(x) if self.attention else x[:, None].to(self.narrow)
        for i in range(self.depth):
            x = functional.conv2d(x, getattr(self, f"conv{i}"), getattr(self, f"conv{i}_bias"))
            x = functional.leaky_relu_(x, self.slope)
        x = x.flatten(1).to(self.wide)
        for i in range(self.layers):
            x = functional.linear(x, getattr(self, f"dense{i}"), getattr(self, f"dense{i}_bias"))
            if i < self.layers - 1:
                x = functional.leaky_relu_(x, self.slope)
        return x

    def _non_local(self, x: Tensor) -> Tensor:
        """First convolution, non-local block and activation: (n, size, size) to (n, channels, size - 2, size - 2)."""
        if self.block is not None:
            return functional.leaky_relu_(self.block(x[:, None]), self.slope).to(self.narrow)
        windows = x.unfold(1, 3, 1).unfold(2, 3, 1)  # (n, side, side, 3, 3)
        if x.is_cuda:
            y = functional.linear(self._fused(windows), self.mixed_narrow, self.bias.to(self.narrow))
        else:
            y = functional.linear(self._plain(windows), self.mixed, self.bias)
        y = functional.leaky_relu_(y, self.slope).to(self.narrow)
        side = self.size - 2
        return y.view(len(x), side, side, -1).permute(0, 3, 1, 2)  # channels last in memory

    def _plain(self, windows: Tensor) -> Tensor:
        """Windows (n, side, side, 3, 3) to (n, side^2, 18): each window's 9 pixels, and the attention's sum of windows.

        Two products and a softmax: on a CPU twice as fast as torch's fused kernel at 9 channels.
        """
        n, pixels = len(windows), windows.shape[1] * windows.shape[2]
        u = windows.permute(0, 3, 4, 1, 2).reshape(n, 9, pixels)
        query = torch.baddbmm(self.shift[None, :, None], self.query.expand(n, 9, 9), u)
        scores = torch.softmax(torch.bmm(query.transpose(1, 2), u), 2)
        mixed = torch.bmm(u, scores.transpose(1, 2))
        return torch.cat([u, mixed], 1).transpose(1, 2)

    def _fused(self, windows: Tensor) -> Tensor:
        """As :meth:`_plain` by one kernel, in the narrow precision: (n, side^2, 32), 9 + 7 zeros and again.

        The kernel wants a multiple of 8 channels: zeros change nothing. Memory is what limits a GPU here, so that what
        is written is narrow.
        """
        n, pixels = len(windows), windows.shape[1] * windows.shape[2]
        u = windows.reshape(n, 1, pixels, 9)
        query = functional.linear(u, self.query, self.shift)
        narrow = [functional.pad(a.to(self.narrow), (0, 7)) for a in (query, u)]
        mixed = functional.scaled_dot_product_attention(narrow[0], narrow[1], narrow[1], scale=1.0)
        return torch.cat([narrow[1][:, 0], mixed[:, 0]], -1)


def multiplied_out(net: BraggNN) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The block in float64 as (T' (9, 9), t (9,), [C; G]' (channels, 18), c' (channels,)), as in the module's text.

    Raises UserError for a block of pooled keys.
    """
    if net.spec.attention_pool > 1:
        raise UserError(
            f"attention_pool {net.spec.attention_pool}: maxima over windows cannot be multiplied out; choose the "
            "backend torch or eager"
        )
    first, block = net.cnn_layers[0], net.nlb

    def matrix(layer: Any) -> tuple[Tensor, Tensor]:
        weight, bias = (p.detach().double().cpu() for p in (layer.weight, layer.bias))
        return weight.flatten(1).T, bias

    c, c0 = matrix(first)
    theta, theta0 = matrix(block.theta_layer)
    phi, _ = matrix(block.phi_layer)
    g, g0 = matrix(block.g_layer)
    out, out0 = matrix(block.out_cnn)
    key = (c @ phi).T
    query, shift = c @ theta @ key, (c0 @ theta + theta0) @ key
    return query.T, shift, torch.cat([c, c @ g @ out]).T, c0 + (c0 @ g + g0) @ out + out0


def multiplications(spec: NetworkSpec, size: int, fused: bool) -> int:
    """Multiplications a patch, without normalization and softmax: layer by layer, or multiplied out (``fused``)."""
    side = size - 2
    channels, pixels = spec.conv[0], side * side
    count = pixels * 9 * channels
    if spec.attention and fused and spec.attention_pool == 1:
        count = pixels * 9 * 9 + 2 * pixels * pixels * 9 + pixels * 18 * channels
    elif spec.attention:
        count += 4 * pixels * channels * spec.inner + 2 * pixels * spec.keys(size) * spec.inner
    for inputs, outputs in itertools.pairwise(spec.conv):
        side -= 2
        count += side * side * 9 * inputs * outputs
    widths = (side * side * spec.conv[-1], *spec.dense, 2)
    return count + sum(inputs * outputs for inputs, outputs in itertools.pairwise(widths))


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    if layer.bias is None:
        raise UserError("a layer without a bias is no layer of a BraggNN; load it with upstream.load_checkpoint")
    return layer.bias.detach()

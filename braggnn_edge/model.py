"""The float networks: the published BraggNN and compact relatives, built from one description.

Source of the architecture: Liu et al., "BraggNN: fast X-ray Bragg peak analysis using deep learning",
IUCrJ 9 (2022) 104-113, and the layer names of its public implementation, so that checkpoints are interchangeable.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from braggnn_edge.errors import UserError

PATCH_SIZES = tuple(range(9, 25, 2))


@dataclass(frozen=True)
class NetworkSpec:
    """Description of a network.

    conv: output channels of the 3 x 3 valid convolutions; dense: widths of the hidden dense layers (a last
    layer of 2 outputs is always added); attention: non-local block after the first convolution; slope: negative
    slope of every activation (0.01 in the paper, 0.0 is a plain ReLU).
    """

    conv: tuple[int, ...] = (64, 32, 8)
    dense: tuple[int, ...] = (16, 8, 4, 2)
    attention: bool = True
    slope: float = 0.01

    def __post_init__(self) -> None:
        if not self.conv or min((*self.conv, *self.dense)) < 1:
            raise UserError(f"network: conv {self.conv} and dense {self.dense} need positive widths, at least one conv")
        if self.attention and self.conv[0] < 2:
            raise UserError("network: attention needs at least 2 channels in the first convolution")

    def check_patch_size(self, size: int) -> None:
        """Refuse a patch size that is even, or too small for the valid convolutions."""
        if size % 2 == 0 or size - 2 * len(self.conv) < 1:
            raise UserError(
                f"patch size {size} does not fit the network; expected an odd size of at least "
                f"{2 * len(self.conv) + 1} (the published sizes are {PATCH_SIZES[0]} to {PATCH_SIZES[-1]})"
            )


class NonLocalBlock(nn.Module):
    """Embedded-Gaussian self-attention over all pixels with a residual (Wang et al., CVPR 2018): shapes in = out.

    theta, phi, g project C channels to C // 2; softmax over keys of theta @ phi, unscaled; out projects back.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.theta_layer = nn.Conv2d(channels, inner, 1)
        self.phi_layer = nn.Conv2d(channels, inner, 1)
        self.g_layer = nn.Conv2d(channels, inner, 1)
        self.out_cnn = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        query = self.theta_layer(x).flatten(2).transpose(1, 2)  # (n, h*w, c/2)
        key = self.phi_layer(x).flatten(2).transpose(1, 2)
        value = self.g_layer(x).flatten(2).transpose(1, 2)
        # scale=1: the published block has no 1/sqrt(d); the fused kernel is half again as fast as softmax(q @ k) @ v.
        mixed = functional.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)
        return x + self.out_cnn(mixed[:, 0].transpose(1, 2).reshape(n, -1, h, w))


class BraggNN(nn.Module):
    """Patches (n, 1, size, size), min-max normalized to [0, 1], to (n, 2): (col, row) / size from the patch's corner.

    The output is the upstream project's; :mod:`braggnn_edge.upstream` turns it into offsets in pixels.
    """

    def __init__(self, spec: NetworkSpec, size: int) -> None:
        super().__init__()
        spec.check_patch_size(size)
        self.spec, self.size = spec, size
        cnn: list[nn.Module] = []
        for i, o in zip((1, *spec.conv), spec.conv, strict=False):
            cnn += [nn.Conv2d(i, o, 3), _activation(spec.slope)]
        self.cnn_layers = nn.Sequential(*cnn)
        if spec.attention:
            self.nlb = NonLocalBlock(spec.conv[0])
        side = size - 2 * len(spec.conv)
        dense: list[nn.Module] = []
        widths = (side * side * spec.conv[-1], *spec.dense)
        for i, o in zip(widths, spec.dense, strict=False):
            dense += [nn.Linear(i, o), _activation(spec.slope)]
        dense.append(nn.Linear(widths[-1], 2))
        self.dense_layers = nn.Sequential(*dense)
        self.apply(_initialize)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    def forward(self, x: Tensor) -> Tensor:
        x = self.cnn_layers[0](x)  # (n, conv[0], size-2, size-2)
        if self.spec.attention:
            x = self.nlb(x)  # before the activation, as published
        x = self.cnn_layers[1:](x)  # (n, conv[-1], side, side)
        # Positions need more than bfloat16's 8 bits: under autocast the dense layers stay in float32.
        with torch.autocast(x.device.type, enabled=False):
            return self.dense_layers(x.flatten(1).to(self.dtype))


def _activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def _initialize(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as upstream."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

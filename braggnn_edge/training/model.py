"""The float networks: the published BraggNN and compact relatives, built from one description.

Source of the architecture: Liu et al., "BraggNN: fast X-ray Bragg peak analysis using deep learning",
IUCrJ 9 (2022) 104-113, and the layer names of its public implementation, so that checkpoints are interchangeable.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from braggnn_edge.core.errors import UserError

PATCH_SIZES = tuple(range(9, 25, 2))


@dataclass(frozen=True)
class NetworkSpec:
    """Description of a network.

    conv: output channels of the 3 x 3 valid convolutions; dense: widths of the hidden dense layers (a last
    layer of 2 outputs is always added); attention: non-local block after the first convolution; slope: negative
    slope of every activation (0.01 in the paper, 0.0 is a plain ReLU). Two ways to make the block cheaper, reset where
    there is none: attention_channels: inside it (0: half of the first convolution's, as published); attention_pool:
    side of the square windows, side by side, whose maxima its keys and values are (1: every pixel, as published).
    """

    conv: tuple[int, ...] = (64, 32, 8)
    dense: tuple[int, ...] = (16, 8, 4, 2)
    attention: bool = True
    slope: float = 0.01
    attention_channels: int = 0
    attention_pool: int = 1

    def __post_init__(self) -> None:
        if not self.conv or min((*self.conv, *self.dense)) < 1:
            raise UserError(f"network: conv {self.conv} and dense {self.dense} need positive widths, at least one conv")
        if self.attention_channels < 0 or self.attention_pool < 1:
            raise UserError(
                f"network: attention_channels {self.attention_channels} and attention_pool {self.attention_pool} are "
                "out of range; expected at least 0 (half of the first convolution's) and at least 1 (every pixel)"
            )
        if self.attention and self.inner < 1:
            raise UserError(
                "network: attention needs at least 2 channels in the first convolution, or attention_channels"
            )
        # One network has one description.
        if not self.attention or self.attention_channels == self.conv[0] // 2:
            object.__setattr__(self, "attention_channels", 0)
        if not self.attention:
            object.__setattr__(self, "attention_pool", 1)

    @property
    def inner(self) -> int:
        """Channels inside the non-local block."""
        return self.attention_channels or self.conv[0] // 2

    def keys(self, size: int) -> int:
        """Keys of the non-local block for patches of a size that :meth:`check_patch_size` takes."""
        return ((size - 2) // self.attention_pool) ** 2

    def check_patch_size(self, size: int) -> None:
        """Refuse a size that is even, too small for the valid convolutions, or no multiple of the block's windows."""
        if size % 2 == 0 or size - 2 * len(self.conv) < 1:
            raise UserError(
                f"patch size {size} does not fit the network; expected an odd size of at least "
                f"{2 * len(self.conv) + 1} (the published sizes are {PATCH_SIZES[0]} to {PATCH_SIZES[-1]})"
            )
        side = size - 2
        if self.attention and side % self.attention_pool:
            fitting = ", ".join(str(pool) for pool in range(1, side + 1) if side % pool == 0)
            raise UserError(
                f"network: attention_pool {self.attention_pool} does not divide the {side} x {side} positions of a "
                f"patch of {size} px; expected one of {fitting}"
            )


class NonLocalBlock(nn.Module):
    """Embedded-Gaussian self-attention over all pixels with a residual (Wang et al., CVPR 2018): shapes in = out.

    theta, phi, g project to the inner channels; softmax over keys of theta @ phi, unscaled; out projects back. Keys and
    values are the maxima of phi and g over windows of pool x pool pixels (their "subsampling trick").
    """

    def __init__(self, channels: int, inner: int, pool: int = 1) -> None:
        super().__init__()
        self.pool = pool
        self.theta_layer = nn.Conv2d(channels, inner, 1)
        self.phi_layer = nn.Conv2d(channels, inner, 1)
        self.g_layer = nn.Conv2d(channels, inner, 1)
        self.out_cnn = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        query = self.theta_layer(x).flatten(2).transpose(1, 2)  # (n, h*w, inner)
        key, value = (
            pooled(layer(x), self.pool).flatten(2).transpose(1, 2)  # (n, keys, inner)
            for layer in (self.phi_layer, self.g_layer)
        )
        # scale=1: the published block has no 1/sqrt(d); the fused kernel is half again as fast as softmax(q @ k) @ v.
        mixed = functional.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)
        return x + self.out_cnn(mixed[:, 0].transpose(1, 2).reshape(n, -1, h, w))


class BraggNN(nn.Module):
    """Patches (n, 1, size, size), min-max normalized to [0, 1], to (n, 2): (col, row) / size from the patch's corner.

    The output is the upstream project's; :mod:`braggnn_edge.training.upstream` turns it into offsets in pixels.
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
            self.nlb = NonLocalBlock(spec.conv[0], spec.inner, spec.attention_pool)
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


def pooled(x: Tensor, pool: int) -> Tensor:
    """Maxima (n, c, h / pool, w / pool) over windows of pool x pool pixels; x itself for 1."""
    return functional.max_pool2d(x, pool) if pool > 1 else x


def _activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def _initialize(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as upstream."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

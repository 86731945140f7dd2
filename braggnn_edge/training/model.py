"""The float networks: the published BraggNN and compact relatives, built from one description.

Source of the architecture: Liu et al., "BraggNN: fast X-ray Bragg peak analysis using deep learning",
IUCrJ 9 (2022) 104-113, and the layer names of its public implementation, so that checkpoints are interchangeable.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from braggnn_edge.training.spec import NetworkSpec


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

    def features(self, x: Tensor) -> Tensor:
        """What the dense layers receive for patches (n, 1, size, size): (n, conv[-1] * side * side)."""
        x = self.cnn_layers[0](x)  # (n, conv[0], size-2, size-2)
        if self.spec.attention:
            x = self.nlb(x)  # before the activation, as published
        return self.cnn_layers[1:](x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        # Positions need more than bfloat16's 8 bits: under autocast the dense layers stay in float32.
        with torch.autocast(x.device.type, enabled=False):
            return self.dense_layers(x.to(self.dtype))


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

"""The squared centroid of a patch, which a float network may correct."""

import torch
from torch import Tensor


def squared_centroid(pixels: Tensor) -> Tensor:
    """Centroid (n, 2) (row, col) px of squared pixels (n, s, s) from the centre pixel; 0 where all are 0."""
    weights = pixels * pixels
    at = torch.arange(pixels.shape[1], dtype=pixels.dtype, device=pixels.device) - pixels.shape[1] // 2
    total = weights.sum((1, 2)).clamp(min=1e-12)
    return torch.stack([(weights.sum(2) * at).sum(1) / total, (weights.sum(1) * at).sum(1) / total], 1)

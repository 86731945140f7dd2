"""Detector counts in a tensor as numbers to compute with."""

import torch
from torch import Tensor


def widened(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Counts of any type as ``dtype``, on their device; unsigned 16-bit ones by way of their bits.

    torch offers such numbers for few operations, and not for the same ones on every device.
    """
    if counts.dtype == torch.uint16:
        counts = counts.view(torch.int16).to(torch.int32) & 0xFFFF
    return counts.to(dtype)

"""A calibration of sigma on a device: :meth:`Calibration.half_widths` in torch."""

import torch
from torch import Tensor, nn

from braggnn_edge.locate.calibration import Calibration


class CalibrationOnDevice(nn.Module):
    """ln b (n, k) to half-widths (n, 2 k) px: those that hold 68.27 % of the errors, then those that hold 95.45 %.

    Linear in ln b between the nodes and constant beyond them, as np.interp; in the type ``dtype``.
    """

    log_b: Tensor
    sigma: Tensor
    wide: Tensor

    def __init__(self, calibration: Calibration, dtype: torch.dtype) -> None:
        super().__init__()
        for name in ("log_b", "sigma", "wide"):
            self.register_buffer(name, torch.tensor(getattr(calibration, name), dtype=dtype))

    def forward(self, log_b: Tensor) -> Tensor:
        if len(self.log_b) == 1:
            return torch.exp(torch.cat([self.sigma.expand_as(log_b), self.wide.expand_as(log_b)], 1))
        right = torch.bucketize(log_b.contiguous(), self.log_b).clamp(1, len(self.log_b) - 1)
        low, high = self.log_b[right - 1], self.log_b[right]
        share = ((log_b - low) / (high - low).clamp(min=1e-12)).clamp(0.0, 1.0)
        both = [torch.lerp(nodes[right - 1], nodes[right], share) for nodes in (self.sigma, self.wide)]
        return torch.exp(torch.cat(both, 1))

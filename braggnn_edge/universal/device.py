"""The universal network for a GPU: counts on the device to positions and calibrated sigma on the device.

The same answers as :meth:`UniversalNetwork.answer` with its calibration, but for rounding. The eight symmetries of the
square are not eight looks at the patch: to mirror a patch is to reorder the columns of the first layer's weights, so
that all eight are one product; and the squared centroid, which turns with the patch, is computed once.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from braggnn_edge.core.counts import widened
from braggnn_edge.locate.calibration import Calibration
from braggnn_edge.locate.device_calibration import CalibrationOnDevice
from braggnn_edge.locate.fused import PRECISIONS
from braggnn_edge.training.centroid import squared_centroid
from braggnn_edge.universal.network import LIMITS, UniversalNetwork, scaled


class UniversalOnDevice(nn.Module):
    """Patches (n, size, size) of counts to (n, 6) float32 px: offset (row, col), its standard deviations,
    and the half-widths of the intervals that hold 95.45 % of the errors.

    precision: of the hidden layers, "float32", "bfloat16" or "float16"; the rest is float32.
    """

    weight: Tensor
    exponent: Tensor
    bias: Tensor
    symmetries: Tensor

    def __init__(self, network: UniversalNetwork, calibration: Calibration, precision: str = "float32") -> None:
        super().__init__()
        self.size, self.narrow = network.size, PRECISIONS[precision]
        layers = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
        pixels = torch.arange(self.size**2).view(1, self.size, self.size)
        orders, symmetries = [], []
        for rows in (False, True):
            for cols in (False, True):
                for transposed in (False, True):
                    axes = [axis for axis, flip in ((1, rows), (2, cols)) if flip]
                    seen = pixels.flip(axes) if axes else pixels
                    orders.append((seen.transpose(1, 2) if transposed else seen).flatten())
                    back = torch.diag(torch.tensor([-1.0 if rows else 1.0, -1.0 if cols else 1.0, 1.0, 1.0]))
                    symmetries.append(back[:, [1, 0, 3, 2]] if transposed else back)
        first = layers[0].weight.detach()
        moved = []
        for order in orders:  # pixel order[i] is the network's input i
            turned = torch.empty_like(first[:, :-1])
            turned[:, order] = first[:, :-1]
            moved.append(turned)
        self.register_buffer("weight", functional.pad(torch.cat(moved), (0, -(self.size**2) % 8)).to(self.narrow))
        self.register_buffer("exponent", first[:, -1].repeat(8))
        self.register_buffer("bias", layers[0].bias.detach().repeat(8))
        self.register_buffer("symmetries", torch.stack(symmetries))
        self.depth = len(layers) - 1
        for i, layer in enumerate(layers[1:]):
            dtype = torch.float32 if i == self.depth - 1 else self.narrow
            self.register_buffer(f"dense{i}", layer.weight.detach().to(dtype))
            self.register_buffer(f"dense{i}_bias", layer.bias.detach().to(dtype))
        self.calibration = CalibrationOnDevice(calibration, torch.float32)

    def forward(self, patches: Tensor) -> Tensor:
        counts = widened(patches, torch.float32)
        pixels, exponent = scaled(counts)
        flat = functional.pad(pixels.flatten(1), (0, -(self.size**2) % 8)).to(self.narrow)
        bright = torch.addcmul(self.bias, (exponent[:, None] - 8) / 4, self.exponent)
        x = functional.relu_(functional.linear(flat, self.weight).float().add_(bright)).view(len(flat), 8, -1)
        for i in range(self.depth):
            weight = getattr(self, f"dense{i}")
            x = functional.linear(x.to(weight.dtype), weight, getattr(self, f"dense{i}_bias"))
            x = functional.relu_(x) if i < self.depth - 1 else x
        # A scale is limited before the mean is taken, as the network does it.
        limited = torch.cat([x[..., :2], x[..., 2:].clamp(*LIMITS)], -1)
        found = torch.einsum("nks,kts->nt", limited, self.symmetries) / 8
        empty = counts.amax((1, 2)) <= 0
        log_b = found[:, 2:].masked_fill(empty[:, None], LIMITS[1])
        return torch.cat([squared_centroid(pixels) + found[:, :2], self.calibration(log_b)], 1)

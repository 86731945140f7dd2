"""The network in Triton's kernels, for GPUs: the function of :class:`FusedNetwork` with fewer passes over memory.

Not imported unless it is asked for: Triton comes with torch for GPUs, and is not there with the CPU's torch.
"""

import contextlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from braggnn_edge.core.errors import UserError
from braggnn_edge.locate.fused import PRECISIONS, FusedNetwork
from braggnn_edge.training.model import BraggNN

try:
    from triton.runtime.errors import OutOfResources

    from braggnn_edge.locate import triton_kernels as kernels
except ImportError as missing:
    raise UserError("there is no Triton here; install a CUDA build of torch, or choose the backend torch") from missing

#: The least side of a matrix that Triton multiplies: narrower layers get channels of zeros, which change nothing.
_LEAST = 16


@dataclass(frozen=True)
class Tiles:
    """How the kernels' work is cut: warps a program, and rows of a tile (positions of a layer, patches of the head)."""

    front_warps: int = 8
    rows: int = 128
    warps: int = 8
    patches: int = 64
    head_warps: int = 4


#: What :meth:`TritonNetwork.tuned` tries, one kernel after the other.
_TRIED: tuple[tuple[dict[str, int], ...], ...] = (
    ({"front_warps": 4}, {"front_warps": 8}),
    ({"rows": 128, "warps": 4}, {"rows": 128, "warps": 8}, {"rows": 256, "warps": 8}),
    ({"patches": 64, "head_warps": 4}, {"patches": 128, "head_warps": 4}, {"patches": 128, "head_warps": 8}),
)
#: Patches in a timing, and how often they are computed.
_TIMED, _ROUNDS = 16_384, 5


class TritonNetwork(nn.Module):
    """Patches (n, size, size) of counts to offsets (n, 2) float32 px, as :class:`FusedNetwork` of the same precision.

    precision: "float16" or "bfloat16", of all products but those of the dense layers. Raises UserError for another one,
    for a block of pooled keys, and for fewer than two convolutions.
    """

    shift: Tensor
    bias: Tensor
    dense: Tensor

    def __init__(self, net: BraggNN, precision: str = "float16") -> None:
        super().__init__()
        if precision not in ("float16", "bfloat16"):
            raise UserError(f"Triton's network has float16 and bfloat16, not {precision}; choose the backend torch")
        if net.spec.attention_pool > 1 or len(net.spec.conv) < 2:
            raise UserError(
                f"Triton's network needs two convolutions and keys that are not pooled, got {len(net.spec.conv)} and "
                f"attention_pool {net.spec.attention_pool}; choose the backend torch"
            )
        self.size, self.slope, self.attention = net.size, net.spec.slope, net.spec.attention
        self.narrow, self.tiles = PRECISIONS[precision], Tiles()
        fused = FusedNetwork(net, "float32")
        channels = [_wide(c) for c in net.spec.conv]
        if self.attention:  # (channels, 18): of the window's pixels, and of the attention's sums of windows
            centre, mixing = fused.mixed.split(9, 1)
            self._keep("query", _padded(fused.query.T / math.log(2), _LEAST, _LEAST))
            self.register_buffer("shift", functional.pad(fused.shift / math.log(2), (0, _LEAST - 9)))
            self._keep("mixing", _padded(mixing.T, _LEAST, channels[0]))
            first_bias, skipped = fused.bias, 0
        else:
            centre, skipped = fused.get_buffer("conv0").flatten(1), 1
            first_bias = fused.get_buffer("conv0_bias")
        self._keep("centre", _padded(centre.T, _LEAST, channels[0]))
        self.register_buffer("bias", functional.pad(first_bias, (0, channels[0] - len(first_bias))))
        self.channels = channels
        for i in range(1, len(channels)):
            weight = fused.get_buffer(f"conv{i - 1 + skipped}")  # (out, in, 3, 3)
            taps = weight.permute(2, 3, 1, 0).reshape(9, weight.shape[1], weight.shape[0])
            grown = (0, channels[i] - taps.shape[2], 0, channels[i - 1] - taps.shape[1])
            self._keep(f"conv{i}", functional.pad(taps, grown))
            bias = fused.get_buffer(f"conv{i - 1 + skipped}_bias")
            self.register_buffer(f"conv{i}_bias", functional.pad(bias, (0, channels[i] - len(bias))))
        side = net.size - 2 * len(channels)
        first = fused.get_buffer("dense0").view(-1, net.spec.conv[-1], side * side)  # (out, channel, place)
        self.width = len(first)
        grown = (0, _wide(self.width) - self.width, 0, channels[-1] - first.shape[1])
        self.register_buffer("dense", functional.pad(first.permute(2, 1, 0), grown).contiguous())
        self.layers = fused.layers
        for i in range(fused.layers):
            self.register_buffer(f"dense{i}", fused.get_buffer(f"dense{i}"))  # that of 0 is in ``dense``
            self.register_buffer(f"dense{i}_bias", fused.get_buffer(f"dense{i}_bias"))

    def _keep(self, name: str, weight: Tensor) -> None:
        self.register_buffer(name, weight.to(self.narrow).contiguous())

    def forward(self, patches: Tensor) -> Tensor:
        count, side, device = len(patches), self.size - 2, patches.device
        given, tiles = dict(self.named_buffers()), self.tiles
        x = torch.empty((count, side, side, self.channels[0]), dtype=self.narrow, device=device)
        if not count:
            return torch.zeros((0, 2), device=device)
        kernels.front[(count,)](
            patches.contiguous(), x, given.get("query"), given.get("shift"), given["centre"], given.get("mixing"),
            given["bias"], self.slope, self.size, _power(self.size**2), _power(side * side), self.channels[0],
            self.attention, num_warps=tiles.front_warps,
        )  # fmt: skip
        for i in range(1, len(self.channels) - 1):
            side -= 2
            y = torch.empty((count, side, side, self.channels[i]), dtype=self.narrow, device=device)
            rows = count * side * side
            kernels.convolution[(-(-rows // tiles.rows),)](
                x, given[f"conv{i}"], given[f"conv{i}_bias"], y, self.slope, rows, side, self.channels[i - 1],
                self.channels[i], tiles.rows, num_warps=tiles.warps,
            )  # fmt: skip
            x = y
        last = len(self.channels) - 1
        answer = torch.empty((count, self.dense.shape[2]), dtype=torch.float32, device=device)
        kernels.head[(-(-count // tiles.patches),)](
            x, given[f"conv{last}"], given[f"conv{last}_bias"], given["dense"], answer, self.slope, count, side - 2,
            self.channels[last - 1], self.channels[last], self.dense.shape[2], tiles.patches,
            num_warps=tiles.head_warps,
        )  # fmt: skip
        z = answer[:, : self.width] + given["dense0_bias"]
        for i in range(1, self.layers):
            z = functional.linear(functional.leaky_relu_(z, self.slope), given[f"dense{i}"], given[f"dense{i}_bias"])
        return z

    @torch.inference_mode()
    def tuned(self) -> "TritonNetwork":
        """Itself, with the tiles that are fastest on its GPU: some ten timings, a few seconds with compilation."""
        device = self.bias.device
        if device.type != "cuda":
            return self
        given = torch.randint(0, 1000, (_TIMED, self.size, self.size), dtype=torch.int16, device=device)
        for choices in _TRIED:
            before, times = self.tiles, {}
            for changes in choices:
                self.tiles = replace(before, **changes)
                with contextlib.suppress(OutOfResources):  # tiles that this GPU has no room for
                    times[self.tiles] = self._milliseconds(given)
            self.tiles = min(times, key=lambda tiles: times[tiles]) if times else before
        return self

    def _milliseconds(self, given: Tensor) -> float:
        self(given)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(_ROUNDS):
            self(given)
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / _ROUNDS


def _wide(channels: int) -> int:
    return max(_LEAST, _power(channels))


def _power(value: int) -> int:
    return 1 << (value - 1).bit_length()


def _padded(matrix: Tensor, rows: int, cols: int) -> Tensor:
    return functional.pad(matrix, (0, cols - matrix.shape[1], 0, rows - matrix.shape[0]))

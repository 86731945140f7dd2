"""A locator's integers on a device: counts in its memory to output codes in its memory, equal to the emulator's.

Shifts and tables are torch's 64-bit integers. Sums of products are matrix products in float32 or float64, as in
:mod:`quant.contract.emulate`: every partial sum, in any order, is an integer below 2**24 or 2**53, which is checked
when the network is read, so that they are exact whatever the order in which a GPU adds.
"""

import numpy as np
import torch
from torch import Tensor, nn

from braggnn_edge.core.counts import widened
from braggnn_edge.core.errors import UserError
from braggnn_edge.locate.device_calibration import CalibrationOnDevice
from quant.contract.arithmetic import Codes, Format
from quant.contract.attention import NonLocal
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.emulate import sum_types
from quant.contract.layers import Leaky, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.normalize import Normalizer


class IntegersOnDevice(nn.Module):
    """Patches (n, size, size) of counts to output codes (n, 2 or 4) int64, those of :meth:`IntegerLocator.run`.

    :meth:`values` goes on to px: offsets, and calibrated half-widths where the locator knows them. Counts are
    integers or finite floats, which are not looked at for NaN here. torch's float32 products have to be plain ones, as
    they are unless TF32 was allowed.
    """

    def __init__(self, locator: IntegerLocator) -> None:
        super().__init__()
        self.locator, self.size = locator, locator.size
        self.sums = [torch.float64 if kind is np.float64 else torch.float32 for kind in sum_types(locator.network)]
        for index, layer in enumerate(locator.network.layers):
            if isinstance(layer, Linear):
                self._linear(f"layer{index}", layer, self.sums[index])
            elif isinstance(layer, NonLocal):
                for role, part in (("theta", layer.theta), ("phi", layer.phi), ("g", layer.g), ("out", layer.out)):
                    self._linear(f"layer{index}_{role}", part, _exact_type(part.accumulator))
                self._table(f"layer{index}_exp", layer.exp_table)
                self._table(f"layer{index}_reciprocal", layer.reciprocal_table)
        if isinstance(locator.normalizer, Normalizer):
            self._table("reciprocals", locator.normalizer.table)
        if locator.centroid is not None:
            self._table("weights", np.asarray(locator.centroid.weights, np.int64))
            self._table("quotients", locator.centroid.table)
        calibration = locator.calibration
        self.calibration = None if calibration is None else CalibrationOnDevice(calibration, torch.float64)

    def _linear(self, name: str, layer: Linear, dtype: torch.dtype) -> None:
        weight = torch.from_numpy(layer.weight.reshape(len(layer.weight), -1).T.copy())
        self.register_buffer(name, weight.to(dtype))
        self.register_buffer(f"{name}_bias", torch.from_numpy(layer.bias.copy()).to(dtype))

    def _table(self, name: str, values: Codes) -> None:
        self.register_buffer(name, torch.from_numpy(values.copy()))

    @torch.inference_mode()
    def forward(self, patches: Tensor) -> Tensor:
        locator = self.locator
        edge = (locator.size - locator.window) // 2
        counts = widened(patches[:, edge : locator.size - edge, edge : locator.size - edge], torch.float64)
        counts = torch.floor(counts).clamp(*locator.normalizer.count_range).to(torch.int64)
        codes, exponents = self._normalized(counts)
        network = locator.network
        x = torch.cat([codes.flatten(1), exponents], 1) if network.exponent else codes[:, None]
        frac = network.input.frac
        for index, layer in enumerate(network.layers):
            name = f"layer{index}"
            if isinstance(layer, Linear):
                x, frac = self._sums(name, layer, x), layer.accumulator.frac
            elif isinstance(layer, Requantize):
                x, frac = _activated(layer, x, frac), layer.output.frac
            elif isinstance(layer, NonLocal):
                x, frac = self._non_local(name, layer, x), layer.accumulator.frac
            else:
                x = x.flatten(1)
        if locator.centroid is not None:
            x = torch.cat([x[:, :2] + self._centroid(locator.centroid, codes), x[:, 2:]], 1)
        return _requantized(x, locator.output.frac, locator.output)

    def values(self, patches: Tensor) -> Tensor:
        """Patches (n, size, size) to offsets (n, 2) px float64; with sigma to (n, 6), see :class:`Locator`."""
        found = self(patches).double() * 2.0**-self.locator.output.frac
        if self.calibration is None:
            return found
        return torch.cat([found[:, :2], self.calibration(found[:, 2:])], 1)

    def _normalized(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (n, s, s), and of a block shift the exponent's (n, count_bits); see the normalizers for the steps."""
        normalizer = self.locator.normalizer
        low, top = counts.amin((1, 2), keepdim=True), counts.amax((1, 2), keepdim=True)
        if isinstance(normalizer, BlockShift):
            if normalizer.subtract:
                counts, top = counts - low, top - low
            codes = (counts << (normalizer.count_bits - _bit_length(top))) >> (normalizer.count_bits - normalizer.bits)
            steps = torch.arange(normalizer.count_bits, device=counts.device)
            return codes, (top[:, :, 0] >> steps > 0).to(torch.int64) << (normalizer.bits - 1)
        zeros = normalizer.count_bits - _bit_length(top - low)
        aligned = (top - low) << zeros
        t = ((counts - low) << zeros) >> (normalizer.count_bits - normalizer.mantissa_bits)
        bits = normalizer.table_bits
        index = (aligned >> (normalizer.count_bits - 1 - bits)) & ((1 << bits) - 1)
        return (t * self.get_buffer("reciprocals")[index]) >> normalizer.shift, counts.new_zeros((len(counts), 0))

    def _sums(self, name: str, layer: Linear, x: Tensor) -> Tensor:
        weight, bias = self.get_buffer(name), self.get_buffer(f"{name}_bias")
        if layer.kind == "dense":
            return (x.to(weight.dtype) @ weight + bias).to(torch.int64)
        height, width = layer.weight.shape[2:]
        windows = x.to(weight.dtype).unfold(2, height, 1).unfold(3, width, 1)  # n, c, rows, cols, height, width
        n, _, rows, cols = windows.shape[:4]
        sums = windows.permute(0, 2, 3, 1, 4, 5).reshape(n * rows * cols, len(weight)) @ weight + bias
        return sums.to(torch.int64).view(n, rows, cols, -1).permute(0, 3, 1, 2)

    def _non_local(self, name: str, layer: NonLocal, x: Tensor) -> Tensor:
        """The steps of :mod:`quant.contract.attention`."""
        pixels = x.flatten(2).transpose(1, 2)  # n, positions, channels

        def projected(role: str, part: Linear, to: Format) -> Tensor:
            weight, bias = self.get_buffer(f"{name}_{role}"), self.get_buffer(f"{name}_{role}_bias")
            return _requantized((pixels.to(weight.dtype) @ weight + bias).to(torch.int64), part.accumulator.frac, to)

        q = projected("theta", layer.theta, layer.query)
        k, v = projected("phi", layer.phi, layer.key), projected("g", layer.g, layer.value)
        if layer.pool > 1:
            k, v = _pooled(layer, k), _pooled(layer, v)
        scores = _product(q, k.transpose(1, 2), layer.score)
        difference = scores.amax(2, keepdim=True) - scores
        e = self.get_buffer(f"{name}_exp")[_requantized(difference, layer.score.frac, layer.difference)]
        a, total = _product(e, v, layer.weighted), e.sum(2)
        length = _bit_length(total)
        # The bits below the leading one, with zeros where the sum has no more.
        index = ((total << layer.index_bits) >> (length - 1)) - (1 << layer.index_bits)
        r = self.get_buffer(f"{name}_reciprocal")[index]
        y = (a * r[:, :, None]) >> (layer.reciprocal_shift + length)[:, :, None]
        y = y.clamp(layer.mixed.low, layer.mixed.high)
        weight, bias = self.get_buffer(f"{name}_out"), self.get_buffer(f"{name}_out_bias")
        z = ((y.to(weight.dtype) @ weight + bias).to(torch.int64) << layer.out_shift) + (pixels << layer.residual_shift)
        return z.transpose(1, 2).reshape(x.shape)

    def _centroid(self, centroid: Centroid, codes: Tensor) -> Tensor:
        """The steps of :mod:`quant.contract.centroid`."""
        w = self.get_buffer("weights")[codes]
        position = torch.arange(centroid.window, device=w.device) - centroid.reach
        sums = w.sum((1, 2))
        moments = torch.stack([(w.sum(2) * position).sum(1), (w.sum(1) * position).sum(1)], 1)
        zeros = centroid.sum_bits - _bit_length(sums)
        t = _shifted(moments << zeros[:, None], centroid.numerator_shift)
        index = ((sums << zeros) >> (centroid.sum_bits - 1 - centroid.index_bits)) & ((1 << centroid.index_bits) - 1)
        return _shifted(t * self.get_buffer("quotients")[index][:, None], centroid.result_shift)


def _bit_length(values: Tensor) -> Tensor:
    """Bits of integers from 0 to below 2**53: the exponent of the same number in float64, which is exact."""
    return torch.frexp(values.double()).exponent.to(torch.int64)


def _shifted(codes: Tensor, shift: int, rounding: str = "floor") -> Tensor:
    if shift <= 0:
        return codes << -shift
    return (codes + (1 << (shift - 1)) if rounding == "half_up" else codes) >> shift


def _requantized(codes: Tensor, frac: int, to: Format, rounding: str = "floor") -> Tensor:
    return _shifted(codes, frac - to.frac, rounding).clamp(to.low, to.high)


def _activated(layer: Requantize, x: Tensor, frac: int) -> Tensor:
    if not isinstance(layer, Leaky):
        return _requantized(x.clamp(min=0) if layer.kind == "relu" else x, frac, layer.output, layer.rounding)
    shift = frac - layer.output.frac
    below = _shifted(x * layer.slope_code, shift + layer.slope_frac, layer.rounding)
    found = torch.where(x < 0, below, _shifted(x, shift, layer.rounding))
    return found.clamp(layer.output.low, layer.output.high)


def _exact_type(sums: Format) -> torch.dtype:
    """The floating type in which sums within a format are exact; UserError where there is none."""
    if sums.bits > 53:
        raise UserError(f"sums of {sums.bits} bits need more than 53; use narrower weights or activations")
    return torch.float32 if max(-sums.low, sums.high) <= 1 << 24 else torch.float64


def _product(one: Tensor, two: Tensor, bounds: Format) -> Tensor:
    dtype = _exact_type(bounds)
    return (one.to(dtype) @ two.to(dtype)).to(torch.int64)


def _pooled(layer: NonLocal, codes: Tensor) -> Tensor:
    count = layer.side // layer.pool
    windows = codes.view(len(codes), count, layer.pool, count, layer.pool, codes.shape[2])
    return windows.amax((2, 4)).reshape(len(codes), layer.keys, codes.shape[2])

"""Bounds and start values of the fit on a device: :mod:`braggnn_edge.fit.initial` in torch, equal but for rounding."""

import math

import torch
from torch import Tensor

from braggnn_edge.fit.initial import MIN_FWHM, REACH
from braggnn_edge.fit.pseudo_voigt import AMPLITUDE, BACKGROUND, COL, ETA, FWHM_MAJOR, FWHM_MINOR, ROW, TILT


def bounds(data: Tensor, keep: Tensor, gain: float, read_noise: float) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds (8, n) float64 of PARAMETERS for data (n, h, w), of which ``keep`` are measured."""
    count, height, width = data.shape
    scale = torch.where(keep, data, 0.0).amax((1, 2)).clamp(min=gain)
    low, high = data.new_zeros((8, count)), data.new_zeros((8, count))
    low[[ROW, COL]] = -0.5
    high[ROW], high[COL] = height - 0.5, width - 0.5
    low[AMPLITUDE], high[AMPLITUDE] = 1e-3 * gain, 100.0 * scale
    low[[FWHM_MAJOR, FWHM_MINOR]], high[[FWHM_MAJOR, FWHM_MINOR]] = MIN_FWHM, 2.0 * max(height, width)
    low[TILT], high[TILT] = -math.pi, math.pi
    high[ETA] = 1.0
    low[BACKGROUND], high[BACKGROUND] = 1e-3 * gain - 0.9 * read_noise**2 / gain, 2.0 * scale
    return low, high


def starts(
    data: Tensor, keep: Tensor, below: Tensor, zero_suppression: float | None, low: Tensor, high: Tensor
) -> Tensor:
    """Start values (8, n) float64 for data (n, h, w); arguments as in :func:`braggnn_edge.fit.initial.starts`."""
    height, width = data.shape[1:]
    border = torch.ones((height, width), dtype=torch.bool, device=data.device)
    border[1:-1, 1:-1] = False
    edge = torch.where(keep, data, math.inf)[:, border].sort(1).values
    number = torch.isfinite(edge).sum(1)
    middle = edge.gather(1, (number - 1).clamp(min=0)[:, None] // 2)[:, 0]
    background = torch.where(number > 0, middle, 0.0)
    if zero_suppression is not None:
        background = torch.full_like(background, 0.25 * zero_suppression)
    flat = data.flatten(1)
    brightest = flat.argmax(1)  # the first one among equals, which max does not promise
    top = flat.gather(1, brightest[:, None])[:, 0]
    height_above = torch.maximum(top - background, 1e-3 * top.abs().clamp(min=1.0))
    row0, col0 = brightest // width, brightest % width
    dr = (torch.arange(height, device=data.device) - row0[:, None])[:, :, None]
    dc = (torch.arange(width, device=data.device) - col0[:, None])[:, None, :]
    near = (dr.abs() <= REACH) & (dc.abs() <= REACH)
    relative = (data - background[:, None, None]) / height_above[:, None, None]
    weight = torch.where(near & ~below, (relative - 0.2).clamp(min=0.0), 0.0)
    total = weight.sum((1, 2)).clamp(min=1e-300)

    def moment(values: Tensor) -> Tensor:
        return (weight * values).sum((1, 2)) / total

    row, col = moment(dr), moment(dc)
    rr, cc = moment(dr * dr) - row * row, moment(dc * dc) - col * col
    rc = moment(dr * dc) - row * col
    area = (near & (relative > 0.5)).sum((1, 2)).clamp(min=1).to(data.dtype)
    size = torch.sqrt(area * (4.0 / math.pi))
    spread = torch.sqrt((0.5 * (cc - rr)) ** 2 + rc * rc)
    mean = (0.5 * (cc + rr)).clamp(min=0.05)
    ratio = torch.sqrt(((mean + spread) / torch.maximum(mean - spread, 0.05 * mean)).clamp(1.0, 16.0))
    stretch = torch.sqrt(torch.sqrt(ratio))
    out = torch.empty_like(low)
    out[ROW], out[COL] = row0 + row, col0 + col
    out[AMPLITUDE] = 1.2 * height_above
    out[FWHM_MAJOR], out[FWHM_MINOR] = size * stretch, size / stretch
    out[TILT] = 0.5 * torch.atan2(2.0 * rc, cc - rr)
    out[ETA] = 0.4
    out[BACKGROUND] = background
    return torch.maximum(torch.minimum(out, high), low)

"""Fits that stay on a device: counts in its memory to positions and covariances in its memory, the host not asked.

    found = fit_on_device(patches.to("cuda"))
    found.offset, found.sigma[:, :2]                   # px, tensors on the device

Model, statistics, bounds, start values and the rule of convergence are those of :mod:`braggnn_edge.fit.single`, whose
``fit`` works from host memory and has more options. Positions agree with its to 1e-3 of their standard deviation.
"""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit import device_kernel
from braggnn_edge.fit.cramer_rao import TILT_SIGMA, check_noise
from braggnn_edge.fit.initial_device import bounds, starts
from braggnn_edge.fit.levenberg_marquardt import Lanes, Noise, evaluate, propose
from braggnn_edge.fit.pseudo_voigt import COL, FWHM_MAJOR, FWHM_MINOR, ROW, TILT, quadrature
from braggnn_edge.fit.single import check_shapes

Engine = Literal["auto", "kernel", "torch"]


@dataclass(frozen=True)
class DeviceFits:
    """Fits of n patches, tensors on the device; meanings as in :class:`braggnn_edge.fit.single.FitResult`.

    parameters: (n, 8) float64; covariance: (n, 8, 8); offset: (n, 2) px from the centre pixel; chi2, dof, iterations,
    converged: (n,). engine: what fitted them.
    """

    parameters: Tensor
    offset: Tensor
    covariance: Tensor
    chi2: Tensor
    dof: Tensor
    iterations: Tensor
    converged: Tensor
    engine: str

    @property
    def sigma(self) -> Tensor:
        """(n, 8) standard deviations of the parameters; NaN where rounding has left a negative variance."""
        return torch.diagonal(self.covariance, dim1=1, dim2=2).sqrt()


@torch.inference_mode()
def fit_on_device(
    patches: Tensor,
    *,
    order: int = 3,
    gain: float = 1.0,
    read_noise: float = 0.0,
    saturation: float | None = None,
    zero_suppression: float | None = None,
    max_iterations: int = 100,
    engine: Engine = "auto",
    chunk: int = 1 << 18,
) -> DeviceFits:
    """Fit patches (n, h, w) of finite counts, of any type that a device can hold; arguments as in ``single.fit``.

    engine: "kernel" is device.cu, one peak a thread; "torch" needs no compiler and takes several times as long; "auto"
    takes the kernel where it compiles. chunk: peaks at a time, each of which takes some 20 kB of memory; results do not
    depend on it. Raises UserError for a wrong shape or option, or NaN.
    """
    check_noise(gain, read_noise)
    quadrature(order)
    if engine not in ("auto", "kernel", "torch"):
        raise UserError(f"engine {engine!r}: expected 'auto', 'kernel' or 'torch'")
    check_shapes(np.empty((0, *patches.shape[1:])), None, saturation, zero_suppression)
    if patches.is_floating_point() and not bool(torch.isfinite(patches).all()):
        raise UserError("patches hold NaN or infinity; mask their pixels and fit them with braggnn_edge.fit.single.fit")
    kernel = engine == "kernel"
    if engine == "auto":
        try:
            device_kernel.launch(patches.device.type, patches.device.index or 0, order)
            kernel = True
        except UserError:
            pass
    noise = Noise(gain, read_noise**2, zero_suppression)
    pieces = patches.split(chunk) if len(patches) else (patches,)
    return _joined([_fit(piece, noise, read_noise, saturation, order, max_iterations, kernel) for piece in pieces])


def _fit(
    patches: Tensor, noise: Noise, read_noise: float, saturation: float | None, order: int, max_iterations: int,
    kernel: bool,
) -> DeviceFits:  # fmt: skip
    data, zero_suppression = patches.to(torch.float64), noise.zero_suppression
    below = data < zero_suppression if zero_suppression is not None else torch.zeros_like(data, dtype=torch.bool)
    used = ~below if saturation is None else ~below & (data < saturation)
    low, high = bounds(data, used, noise.gain, read_noise)
    start = starts(data, used, below, zero_suppression, low, high)
    shape = (int(data.shape[1]), int(data.shape[2]))
    columns = [image.flatten(1).T for image in (data, used, below)]
    if kernel:
        kind = columns[1].to(torch.uint8) + 2 * columns[2].to(torch.uint8)
        found = device_kernel.solve(columns[0], kind, noise, shape, order, low, high, start, max_iterations)
    else:
        found = _descend(columns, noise, shape, order, low, high, start, max_iterations)
    parameters = found["state"].T.contiguous()
    centre = parameters.new_tensor([shape[0] // 2, shape[1] // 2])
    dof = (used | below).sum((1, 2)) - (~found["frozen"]).sum(0)
    return DeviceFits(
        parameters, parameters[:, [ROW, COL]] - centre, _covariance(found, parameters), found["sums"][0], dof,
        found["iterations"], found["converged"] & (dof >= 0), "kernel" if kernel else "torch",
    )  # fmt: skip


def _joined(parts: list[DeviceFits]) -> DeviceFits:
    if len(parts) == 1:
        return parts[0]
    tensors = {
        field.name: torch.cat([getattr(part, field.name) for part in parts])
        for field in fields(DeviceFits)
        if field.name != "engine"
    }
    return DeviceFits(**tensors, engine=parts[0].engine)


def _descend(
    columns: list[Tensor], noise: Noise, shape: tuple[int, int], order: int, low: Tensor, high: Tensor, start: Tensor,
    max_iterations: int,
) -> dict[str, Tensor]:  # fmt: skip
    """The two passes with all peaks side by side; those that have converged are left out when they are many."""
    count, device = start.shape[1], start.device
    found = {
        "state": start.clone(), "information": start.new_zeros((8, 8, count)), "sums": start.new_zeros((2, count)),
        "frozen": torch.zeros_like(start, dtype=torch.bool),
        "iterations": torch.zeros(count, dtype=torch.int32, device=device),
        "converged": torch.zeros(count, dtype=torch.bool, device=device),
    }  # fmt: skip
    for dtype, damping, limit in (
        (torch.float32, 1e-2, max_iterations * 2 // 5),
        (torch.float64, 1e-5, max_iterations),
    ):
        if limit < 1 or not count:
            continue
        lanes = _opened(columns, found["state"], low, high, dtype, damping)
        spent = found["iterations"].clone()
        waiting = torch.ones(count, dtype=torch.bool, device=device)
        while lanes.index.size:
            evaluate(lanes, noise, shape, order)
            frozen, done = propose(lanes)
            where = torch.from_numpy(lanes.index).to(device)
            over = (done | (lanes.count + spent[where] >= limit)) & waiting[where]
            at = where[over]
            found["state"][:, at] = lanes.state[:, over].double()
            found["information"][:, :, at] = lanes.curvature[:, :, over].double()
            found["sums"][:, at], found["frozen"][:, at] = lanes.sums[:, over].double(), frozen[:, over]
            found["iterations"][at] = spent[at] + lanes.count[over].int()
            found["converged"][at] = done[over]
            waiting[at] = False
            left = waiting[where]
            if int(left.sum()) <= len(where) // 2:
                lanes = lanes.columns(np.flatnonzero(left.cpu().numpy()))
        if dtype == torch.float32:  # rounding must not carry a parameter over its bound
            finite = torch.isfinite(found["state"]).all(0)
            found["state"] = torch.where(finite, torch.maximum(torch.minimum(found["state"], high), low), start)
    return found


def _opened(
    columns: list[Tensor], start: Tensor, low: Tensor, high: Tensor, dtype: torch.dtype, damping: float
) -> Lanes:
    count, device = start.shape[1], start.device
    data, used, below, lowest, highest, state = (a.to(dtype).contiguous() for a in (*columns, low, high, start))
    zeros = lambda *shape: torch.zeros((*shape, count), dtype=dtype, device=device)  # noqa: E731
    return Lanes(
        np.arange(count), data, used, below, lowest, highest, state, state.clone(), predicted=zeros(),
        cost=zeros() + torch.inf, slope=zeros(8), curvature=zeros(8, 8), sums=zeros(2), damping=zeros() + damping,
        count=zeros(),
    )  # fmt: skip


def _covariance(found: dict[str, Tensor], parameters: Tensor) -> Tensor:
    """(n, 8, 8) of PARAMETERS: as cramer_rao's ``public_covariance(inverse(information, frozen))``, on the device."""
    information, free = found["information"].permute(2, 0, 1), ~found["frozen"].T
    size = information.shape[1]
    diagonal = torch.where(free, torch.diagonal(information, dim1=1, dim2=2), 1.0)
    scale = torch.where(diagonal > 1e-300, diagonal, 1.0).rsqrt()
    both, scales = free[:, :, None] & free[:, None, :], scale[:, :, None] * scale[:, None, :]
    identity = torch.eye(size, dtype=information.dtype, device=information.device).expand_as(information)
    work = torch.cat((torch.where(both, information * scales, identity), identity), 2)
    for k in range(size):
        pivot = work[:, k, :] / work[:, k, k, None].clamp(min=1e-15)
        work = work - work[:, :, k, None] * pivot[:, None, :]
        work[:, k, :] = pivot
    inverse = (work[:, :, size:] * scales).clamp(-1e300, 1e300)
    local = torch.where(both, 0.5 * (inverse + inverse.transpose(1, 2)), 0.0)
    factor = torch.ones_like(parameters)
    factor[:, [FWHM_MAJOR, FWHM_MINOR]] = parameters[:, [FWHM_MAJOR, FWHM_MINOR]] / 2.0
    spread = 2.0 * torch.log(parameters[:, FWHM_MAJOR] / parameters[:, FWHM_MINOR])
    deviation = local[:, TILT, TILT].sqrt()
    factor[:, TILT] = 1.0 / torch.fmax(spread, (deviation / TILT_SIGMA).clamp(min=1e-150))
    return local * (factor[:, :, None] * factor[:, None, :])

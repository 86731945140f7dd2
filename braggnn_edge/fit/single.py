"""Pseudo-Voigt fits of many patches at once: the labels, and the reference on measured data.

Maximum likelihood by batched Levenberg-Marquardt. A pixel d with expectation m has variance v = gain * m +
read_noise^2. The fit minimizes the deviance of the shifted Poisson law,

    D = 2 / gain * sum(m' - d' + d' ln(d' / m')),  m' = m + read_noise^2 / gain, d' = d + read_noise^2 / gain,

whose gradient is that of chi-square with the variance taken from the model, sum (m - d) / v dm: unlike
weights taken from the data it has no bias at low counts, and unlike re-weighting it has one merit function
to descend (Laurence and Chromy, Nature Methods 7 (2010) 338). The Hessian is Fisher's, J^T diag(1 / v) J.
A pixel below ``zero_suppression`` was stored as zero: it contributes -2 ln Phi((z - m) / sigma) with z =
zero_suppression, the probability of being below (Tobin 1958). Saturated pixels are left out.

Each peak is fitted in float32 first, then in float64 from there, which alone decides what has converged.
Peaks stream through a fixed number of lanes: a finished peak makes room for the next one. No lane looks at
another, so results do not depend, to the last bit, on the batch, its order, or the number of lanes or
threads. On a CPU the work is done by a compiled kernel (kernel.cpp), on a GPU by the same steps in torch.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit import kernel as fit_kernel
from braggnn_edge.fit.cramer_rao import check_noise, deviations, inverse, public_covariance
from braggnn_edge.fit.initial import bounds, starts
from braggnn_edge.fit.lanes import LANE_STEP, Queue, Records
from braggnn_edge.fit.levenberg_marquardt import Noise, evaluate, propose
from braggnn_edge.fit.pseudo_voigt import AMPLITUDE, COL, ROW, TILT, quadrature

# Patches at a time: intermediate arrays are several times the patches. On a CPU they should stay in its caches.
_BLOCK, _LARGE_BLOCK = 1024, 131_072


@dataclass(frozen=True)
class FitResult:
    """Fits of n patches (h, w); every array has n in its first dimension.

    parameters: (n, 8) in the order of pseudo_voigt.PARAMETERS; pixels of the patch, tilt in (-pi/2, pi/2].
    offset: (n, 2) (row, col) in px from the centre pixel (h // 2, w // 2).
    covariance: (n, 8, 8) from Fisher's information at the solution; parameters at a bound or fixed count as known
        (zero rows). sigma: (n, 8), its square-rooted diagonal; that of the tilt is at most pi / sqrt(12).
    chi2: sum of (d - m)^2 / v over the pixels used, one below z = zero_suppression counting as d = min(m, z); dof:
    their
        number less the free parameters.
    residual: root of the mean of (d - m)^2 over the pixels used as data (those suppressed to zero are not), divided by
    the
        fitted amplitude. "Residual below 5 % of the peak" means residual < 0.05.
    iterations: model evaluations. converged: the last step was negligible and dof >= 0.
    at_bound: (n, 8), parameters that ended on a bound.
    """

    parameters: NDArray[np.float64]
    offset: NDArray[np.float64]
    covariance: NDArray[np.float64]
    sigma: NDArray[np.float64]
    chi2: NDArray[np.float64]
    dof: NDArray[np.int64]
    residual: NDArray[np.float64]
    iterations: NDArray[np.int64]
    converged: NDArray[np.bool_]
    at_bound: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.parameters)

    def select(self, index: NDArray) -> "FitResult":
        """The fits at ``index`` (integers or a mask)."""
        return FitResult(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def fit(
    patches: NDArray,
    *,
    order: int = 3,
    gain: float = 1.0,
    read_noise: float = 0.0,
    saturation: float | None = None,
    zero_suppression: float | None = None,
    valid: NDArray[np.bool_] | None = None,
    fixed: Mapping[str, float] | None = None,
    max_iterations: int = 100,
    device: str | torch.device = "cpu",
    engine: Literal["auto", "kernel", "torch"] = "auto",
    threads: int | None = None,
    chunk: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FitResult:
    """Fit a pseudo-Voigt peak and a constant background to every patch.

    Args:
        patches: (n, h, w) counts in ADU, any real dtype. The peak fitted is the brightest one.
        order: quadrature order a pixel (pseudo_voigt's table gives the error).
        gain: ADU per photon.
        read_noise: ADU rms.
        saturation: pixels at or above it are left out.
        zero_suppression: pixels below it were stored as zero, and count as "below"; None takes zeros as data.
        valid: (h, w) or (n, h, w), False for pixels to leave out (they may hold anything).
        fixed: amplitude, eta or background to hold at a value, by name, e.g. {"background": 0.0}.
        max_iterations: model evaluations a peak.
        device: torch device.
        engine: "kernel" is the compiled one, for CPUs; "torch" runs anywhere; "auto" takes the kernel on a CPU. Both
            descend to the same minimum, to about 1e-4 standard deviations; bits differ between them.
        threads: of the kernel engine, each on blocks of its own; by default as many as torch uses.
        chunk: peaks in work at a time with torch, rounded up to a multiple of 64; by default 128 on a CPU (its
            caches), 65,536 on a GPU; halved when the device runs out of memory. Results do not depend on it.
        progress: called with (peaks done, n).

    Bounds: row and col within the patch; amplitude > 0; widths from 0.5 px to twice the patch; eta 0 to 1;
    the background so high that the expected variance stays positive, which for negative backgrounds needs
    a read noise. Raises UserError for a wrong shape, NaN (naming the patch), or a bad option; for a missing g++.
    """
    target = torch.device(device)
    check_noise(gain, read_noise)
    quadrature(order)
    if engine == "kernel" and target.type != "cpu":
        raise UserError(f"engine 'kernel' on {target}: expected device 'cpu'; take engine 'torch' there")
    if engine not in ("auto", "kernel", "torch"):
        raise UserError(f"engine {engine!r}: expected 'auto', 'kernel' or 'torch'")
    compiled = engine == "kernel" or (engine == "auto" and target.type == "cpu")
    patches = np.asarray(patches)
    check_shapes(patches, valid, saturation, zero_suppression)
    noise = Noise(gain, read_noise**2, zero_suppression)
    lanes = chunk or (128 if target.type == "cpu" else 65_536)
    size = _BLOCK if compiled else _LARGE_BLOCK

    def one(first: int) -> FitResult:
        block = slice(first, first + size)
        mine = valid[block] if valid is not None and np.ndim(valid) == 3 else valid
        data, used, below = classified(patches[block], mine, saturation, zero_suppression, (first, len(patches)))
        low, high = bounds(data, used, gain, read_noise, fixed or {})
        start = starts(data, used, below, zero_suppression=zero_suppression, low=low, high=high)
        if compiled:
            records = fit_kernel.solve(
                data, used, below, noise=noise, order=order, low=low, high=high, start=start,
                max_iterations=max_iterations, threads=1,
            )  # fmt: skip
        else:
            arrays = tuple(image.reshape(len(data), -1) for image in (data, used, below))
            shape = data.shape[1:]
            records = _retried(
                lambda few: _descend(arrays, start, low, high, noise, shape, order, max_iterations, few, target), lanes
            )
        counts = used.sum(axis=(1, 2)), below.sum(axis=(1, 2))
        return _result(records, *counts, low=low, high=high, shape=data.shape[1:])

    results = []
    with ThreadPoolExecutor((threads or torch.get_num_threads()) if compiled else 1) as pool:
        for result in pool.map(one, range(0, max(len(patches), 1), size)):
            results.append(result)
            if progress is not None:
                progress(min(size * len(results), len(patches)), len(patches))
    return _joined(results)


def _retried(work: Callable[[int], Records], lanes: int) -> Records:
    """``work(lanes)``, with half the lanes whenever the device runs out of memory."""
    while True:
        try:
            return work(lanes)
        except torch.OutOfMemoryError as error:
            lanes //= 2
            if lanes < LANE_STEP:
                raise UserError(
                    f"too little memory on the device for {LANE_STEP} peaks at a time; free some, or fit on the CPU"
                ) from error


def _descend(
    arrays: tuple[NDArray, ...],
    start: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    noise: Noise,
    shape: tuple[int, ...],
    order: int,
    max_iterations: int,
    chunk: int,
    device: torch.device,
) -> Records:
    """The two passes in torch; ``arrays`` are data, used and below (n, p)."""
    count = len(start)
    spent = np.zeros(count, dtype=np.int64)
    for dtype, damping in ((torch.float32, 1e-2), (torch.float64, 1e-5)):
        last = dtype == torch.float64
        # The pass that decides keeps most evaluations: a flat valley that float32 cannot see the end of needs them.
        limit = max_iterations if last else max_iterations * 2 // 5
        if limit < 1:
            continue
        records = Records(count)
        queue = Queue(*arrays, start, low, high, damping=damping)
        lanes = queue.open(chunk, device, dtype)
        while (lanes.index >= 0).any():
            evaluate(lanes, noise, (shape[0], shape[1]), order)
            frozen, done = propose(lanes)
            busy = lanes.index >= 0
            used_up = lanes.count.cpu().numpy() + spent[lanes.index] >= limit
            over = (done.cpu().numpy() | used_up) & busy
            if over.any():
                records.store(lanes, frozen, done, over)
                lanes = queue.refill(lanes, over)
        if not last:
            finite = np.all(np.isfinite(records.parameters), axis=1)
            # Rounding to float32 must not carry a parameter over its bound.
            start = np.where(finite[:, None], np.clip(records.parameters, low, high), start)
            spent = records.iterations
    records.iterations += spent
    return records


def _joined(results: list[FitResult]) -> FitResult:
    if len(results) == 1:
        return results[0]
    names = [field.name for field in fields(FitResult)]
    return FitResult(**{name: np.concatenate([getattr(result, name) for result in results]) for name in names})


def check_shapes(
    patches: NDArray, valid: NDArray[np.bool_] | None, saturation: float | None, zero_suppression: float | None
) -> None:
    """UserError unless patches and valid have shapes, and levels of zero suppression and saturation, for a fit."""
    if patches.ndim != 3 or min(patches.shape[1:]) < 3:
        raise UserError(f"patches of shape {patches.shape}: expected (n, h, w) with h and w of 3 or more")
    if valid is not None and np.shape(valid) not in (patches.shape, patches.shape[1:]):
        raise UserError(f"valid of shape {np.shape(valid)}: expected {patches.shape} or {patches.shape[1:]}")
    if zero_suppression is not None and not zero_suppression > 0:
        raise UserError(
            f"zero_suppression {zero_suppression}: expected ADU above 0, the threshold of the detector; "
            "None takes zeros as data"
        )
    if saturation is not None and not saturation > (zero_suppression or 0.0):
        raise UserError(
            f"saturation {saturation}: expected ADU above zero_suppression ({zero_suppression}); "
            "None if nothing saturates"
        )


def classified(
    patches: NDArray,
    valid: NDArray[np.bool_] | None,
    saturation: float | None,
    zero_suppression: float | None,
    place: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Data (n, h, w), which pixels are used as data, and which are known to be below the zero-suppression level.

    place: number of the first patch, and of all, for the message.
    """
    data = np.array(patches, dtype=np.float64)
    keep = np.ones(data.shape, bool)
    if valid is not None:
        keep &= np.asarray(valid, bool)
    bad = np.any(keep & ~np.isfinite(data), axis=(1, 2))
    if bad.any():
        raise UserError(
            f"patch {place[0] + int(bad.argmax())} of {place[1]} holds NaN or infinity; mark its pixels with "
            "valid=False"
        )
    data[~keep] = 0.0
    below = keep & (data < zero_suppression) if zero_suppression is not None else np.zeros(data.shape, bool)
    used = keep & ~below
    if saturation is not None:
        used &= data < saturation
    return data, used, below


def _result(
    records: Records,
    used: NDArray[np.int64],
    below: NDArray[np.int64],
    *,
    low: NDArray,
    high: NDArray,
    shape: tuple[int, ...],
) -> FitResult:
    """Everything that follows from the solutions; ``used`` and ``below`` (n,) are numbers of pixels."""
    parameters = records.parameters
    covariance = public_covariance(inverse(records.information, records.frozen), parameters)
    sigma = deviations(covariance)
    dof = used + below - (~records.frozen).sum(axis=1)
    centre = np.array([shape[0] // 2, shape[1] // 2], dtype=np.float64)
    bounded = (parameters <= low) | (parameters >= high)
    bounded[:, TILT] = False
    return FitResult(
        parameters=parameters,
        offset=parameters[:, [ROW, COL]] - centre,
        covariance=covariance,
        sigma=sigma,
        chi2=records.sums[:, 0],
        dof=dof,
        residual=np.sqrt(records.sums[:, 1] / np.maximum(used, 1)) / parameters[:, AMPLITUDE],
        iterations=records.iterations,
        converged=records.converged & (dof >= 0),
        at_bound=bounded & (low < high),
    )

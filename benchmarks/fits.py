"""Pseudo-Voigt fits: rate against scipy and midas-peakfit, and accuracy of each, on the same simulated peaks.

    python benchmarks/fits.py --output benchmarks/fits.json          (needs the extra: pip install -e '.[benchmark]')

For a GPU see benchmarks/gpu.sh.

Isolated peaks of known truth, pixel-integrated at order 8, Poisson noise; every baseline has the same cores and the
same patches (a part of them, where it is slow), in one run, rounds interleaved. Baselines:

scipy, 7 parameters    scipy.optimize.least_squares, default Jacobian and options, an untilted profile sampled at pixel
                       centres, unweighted: the plain fit of a notebook, and the cheapest to evaluate
scipy, our model       the same solver with our tilted, pixel-integrated profile and weights from the data
midas lm_solve         midas-peakfit's own fit: its 9-parameter profile on (row, col), float64, analytic Jacobian
midas lm_solve_generic its generic solver with our profile, weights from the data and our analytic Jacobian
"""

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares

from braggnn_edge.core.machine import available_cores
from braggnn_edge.core.rundir import write_json
from braggnn_edge.fit.cramer_rao import position_bound
from braggnn_edge.fit.pseudo_voigt import PARAMETERS, pixel_means, quadrature, render
from braggnn_edge.fit.single import fit

SIZE = 11
Array = NDArray[np.float64]


def simulate(count: int, seed: int, low: float, high: float) -> tuple[Array, Array]:
    """Truth (n, 8) and patches (n, 11, 11): the brightest pixel is the centre, heights log-uniform in counts."""
    rng = np.random.default_rng(seed)
    widths = np.sort(rng.uniform(1.2, 4.0, (count, 2)), axis=1)
    height = np.exp(rng.uniform(math.log(low), math.log(high), count))
    truth = np.stack(
        [*rng.uniform(4.5, 5.5, (2, count)), height, widths[:, 1], widths[:, 0],
         rng.uniform(-math.pi / 2, math.pi / 2, count), rng.uniform(0, 1, count), rng.uniform(5, 30, count)], axis=1,
    )  # fmt: skip
    return truth, rng.poisson(render(torch.from_numpy(truth), SIZE, 8).numpy()).astype(np.float64)


ROW, COL = np.mgrid[:SIZE, :SIZE].astype(np.float64)


def seven(patch: Array) -> Array:
    """The plain fit: position (2,)."""
    base, top = np.median(patch), patch.max()
    row, col = np.unravel_index(patch.argmax(), patch.shape)

    def residuals(x: Array) -> Array:
        r2 = ((ROW - x[0]) / x[3]) ** 2 + ((COL - x[1]) / x[4]) ** 2
        profile = x[5] / (1 + 4 * r2) + (1 - x[5]) * np.exp(-4 * math.log(2) * r2)
        return (x[2] * profile + x[6] - patch).ravel()

    start = [row, col, top - base, 2.0, 2.0, 0.5, base]
    bounds = ([-0.5, -0.5, 0, 0.5, 0.5, 0, 0], [10.5, 10.5, 100 * top, 22, 22, 1, top + 1])
    return least_squares(residuals, np.clip(start, *bounds), bounds=bounds).x[:2]


NODES, WEIGHTS = quadrature(3)


def eight(patch: Array) -> Array:
    """Our profile, scipy's solver: position (2,)."""
    base, top = np.median(patch), patch.max()
    row, col = np.unravel_index(patch.argmax(), patch.shape)
    weight = 1.0 / np.sqrt(np.maximum(patch, 1.0))
    y = (ROW[0, 0] + np.arange(SIZE)[:, None] + NODES).reshape(SIZE, 1, 3, 1)
    x_ = (np.arange(SIZE)[:, None] + NODES).reshape(1, SIZE, 1, 3)
    quad = WEIGHTS[:, None] * WEIGHTS

    def residuals(p: Array) -> Array:
        dy, dx, c, s = y - p[0], x_ - p[1], math.cos(p[5]), math.sin(p[5])
        r2 = ((c * dx + s * dy) / p[3]) ** 2 + ((c * dy - s * dx) / p[4]) ** 2
        profile = p[6] / (1 + 4 * r2) + (1 - p[6]) * np.exp(-4 * math.log(2) * r2)
        return ((p[2] * (profile * quad).sum((2, 3)) + p[7] - patch) * weight).ravel()

    start = [row, col, top - base, 2.2, 2.0, 0.0, 0.5, base]
    bounds = ([-0.5, -0.5, 0, 0.5, 0.5, -10, 0, 0], [10.5, 10.5, 100 * top, 22, 22, 10, 1, top + 1])
    return least_squares(residuals, np.clip(start, *bounds), bounds=bounds).x[:2]


def ours(patches: Array, threads: int) -> Array:
    return fit(patches, threads=threads).parameters[:, :2]


def midas_native(patches: Array, batch: int = 512) -> Array:
    """midas-peakfit's lm_solve on its own model, pixels as coordinates."""
    from midas_peakfit import LMConfig, lm_solve  # noqa: PLC0415  # an optional baseline

    out = []
    rows, cols = (torch.from_numpy(a.ravel()) for a in (ROW, COL))
    for part in np.array_split(patches, max(1, len(patches) // batch)):
        n = len(part)
        flat = torch.from_numpy(part.reshape(n, -1))
        top, where = flat.max(1)
        base = flat.median(1).values
        width = torch.full((n,), 0.9, dtype=torch.float64)
        start = torch.stack([base, top - base, rows[where], cols[where], 0.5 + 0 * base, *[width] * 4], 1)
        low = torch.zeros_like(start)
        low[:, 2:4], low[:, 5:] = -0.5, 0.2
        high = torch.stack([top + 1, 100 * top, *[10.5 + 0 * top] * 2, 1 + 0 * top, *[10 + 0 * top] * 4], 1)
        mask = torch.ones_like(flat)
        x, *_ = lm_solve(
            start, low, high, flat, rows.expand_as(flat).contiguous(), cols.expand_as(flat).contiguous(), mask, 1,
            LMConfig(matmul_precision="fp64"),
        )  # fmt: skip
        out.append(x[:, 2:4].numpy())
    return np.concatenate(out)


def midas_generic(patches: Array, batch: int = 128) -> Array:
    """midas-peakfit's generic solver on our profile, weighted by the data."""
    from midas_peakfit import GenericLMConfig, lm_solve_generic, u_to_x  # noqa: PLC0415

    out = []
    for part in np.array_split(patches, max(1, len(patches) // batch)):
        n = len(part)
        flat = torch.from_numpy(part.reshape(n, -1))
        weight = flat.clamp_min(1.0).rsqrt()
        top, where = flat.max(1)
        base = flat.median(1).values
        one = torch.ones_like(base)
        start = torch.stack(
            [
                (where // SIZE).double(),
                (where % SIZE).double(),
                top - base,
                2.2 * one,
                2 * one,
                0 * one,
                0.5 * one,
                base,
            ],
            1,
        )
        low = torch.tensor([-0.5, -0.5, 0, 0.5, 0.5, -10, 0, 0], dtype=torch.float64).expand(n, 8).contiguous()
        high = torch.stack(
            [10.5 * one, 10.5 * one, 100 * top, 22 * one, 22 * one, 10 * one, one, top + 1], 1
        )  # fmt: skip

        def model(u: torch.Tensor, lo: torch.Tensor, hi: torch.Tensor, jacobian: bool):
            x = u_to_x(u, lo, hi)
            mean, local = pixel_means(x.T.contiguous(), SIZE, 3, jacobian=jacobian)
            return x, mean.T, local

        def residual(u, lo, hi, flat=flat, weight=weight):
            return (model(u, lo, hi, False)[1] - flat) * weight

        def both(u, lo, hi, flat=flat, weight=weight):
            x, mean, local = model(u, lo, hi, True)
            factor = torch.ones_like(x)
            factor[:, 3], factor[:, 4] = 2 / x[:, 3], 2 / x[:, 4]
            factor[:, 5] = 2 * torch.log(x[:, 3] / x[:, 4])
            slope = torch.sigmoid(u)
            factor = factor * (hi - lo) * slope * (1 - slope)
            return (mean - flat) * weight, local.permute(2, 1, 0) * factor[:, None] * weight[:, :, None]

        x, *_ = lm_solve_generic(start, low, high, residual, both, GenericLMConfig())
        out.append(x[:, :2].numpy())
    return np.concatenate(out)


def shared(function: Callable[[Array], Array], patches: Array, pool: ProcessPoolExecutor, processes: int) -> Array:
    """``function`` on as many processes of one thread as there are cores: faster than threads for every baseline."""
    return np.concatenate(list(pool.map(function, np.array_split(patches, processes))))


def all_seven(patches: Array) -> Array:
    return np.array([seven(patch) for patch in patches])


def all_eight(patches: Array) -> Array:
    return np.array([eight(patch) for patch in patches])


def errors(found: Array, truth: Array) -> dict[str, float]:
    distance = np.linalg.norm(found - truth[:, :2], axis=1)
    bound = position_bound(torch.from_numpy(truth), SIZE, gain=1.0, read_noise=0.0)
    rms = math.sqrt(np.mean(distance**2) / np.mean(np.trace(bound, axis1=1, axis2=2)))
    # The root mean square is at the mercy of one fit in another minimum: the median ratio is not.
    scaled = (found - truth[:, :2]) / np.sqrt(np.diagonal(bound, axis1=1, axis2=2))
    return {
        **{f"p{q}": round(float(np.percentile(distance, q)), 5) for q in (50, 75, 95)},
        "rms_over_bound": round(rms, 4),
        "median_over_bound": round(float(np.median(np.abs(scaled)) / 0.67449), 4),
    }


def compare(arguments: argparse.Namespace) -> dict[str, object]:
    threads, rounds = arguments.threads, arguments.rounds
    truth, patches = simulate(arguments.peaks, 1, 30.0, 50_000.0)
    few, some = arguments.peaks // 50, arguments.peaks // 20
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(threads, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        baselines: dict[str, tuple[Callable[[Array], Array], int]] = {
            "ours": (lambda p: ours(p, threads), len(patches)),
            "scipy, 7 parameters": (lambda p: shared(all_seven, p, pool, threads), few),
            "scipy, our model": (lambda p: shared(all_eight, p, pool, threads), few),
            "midas lm_solve": (lambda p: shared(midas_native, p, pool, threads), some),
            "midas lm_solve_generic": (lambda p: shared(midas_generic, p, pool, threads), some),
        }
        rates: dict[str, list[float]] = {name: [] for name in baselines}
        found: dict[str, Array] = {}
        for function, _ in baselines.values():
            function(patches[:64])  # processes started, libraries loaded, the kernel compiled
        for number in range(rounds):
            for name, (function, count) in baselines.items():
                began = time.perf_counter()
                found[name] = function(patches[:count])
                rates[name].append(count / (time.perf_counter() - began))
                print(f"round {number + 1}: {name:24s} {rates[name][-1]:10.0f} fits/s", flush=True)
    median = {name: float(np.median(rate)) for name, rate in rates.items()}
    return {
        name: {
            "fits_per_second": round(median[name], 1),
            "ours_is_faster_by": round(median["ours"] / median[name], 1),
            "peaks": baselines[name][1],
            # Everybody's error on the peaks that everybody fitted.
            "error_px": errors(found[name][:few], truth[:few]),
        }
        for name in baselines
    }


def accuracy(count: int, threads: int) -> dict[str, object]:
    """Efficiency, bias by sub-pixel phase and coverage for peaks of 1,000 counts and more."""
    truth, patches = simulate(count, 2, 1000.0, 50_000.0)
    result = fit(patches, threads=threads)
    use = result.converged
    delta = result.parameters[use, :2] - truth[use, :2]
    bias = []
    for axis in (0, 1):
        phase = np.floor((truth[use, axis] - 4.5) * 20).astype(int)
        bias += [delta[phase == k, axis].mean() for k in range(20)]
    inner = result.covariance[use, :2, :2]
    regular = np.linalg.det(inner) > 0
    distance = np.einsum("ni,nij,nj->n", delta[regular], np.linalg.inv(inner[regular]), delta[regular])
    return {
        "peaks": count,
        "converged": round(float(use.mean()), 5),
        **errors(result.parameters[use, :2], truth[use]),
        "largest_bias_px_of_40_phases": round(float(np.abs(bias).max()), 5),
        # 5.991: the 95 % point of chi-square with two degrees of freedom.
        "coverage_of_95_percent_ellipses": round(float((distance < 5.991).mean()), 4),
    }


def peak_memory() -> float:
    """Largest resident memory of this process, MiB. (getrusage starts a child at its parent's.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def scaling(largest: int, threads: int) -> list[dict[str, float]]:
    """Cost from 10^3 peaks up; beyond 10^6 in pieces of that, as the labelling stage streams."""
    rows = []
    _, block = simulate(min(largest, 100_000), 3, 30.0, 50_000.0)
    count = 1000
    while count <= largest:
        began = time.perf_counter()
        for first in range(0, count, len(block)):
            fit(block[: count - first], threads=threads)
        seconds = time.perf_counter() - began
        peak = peak_memory()
        rows.append({"peaks": count, "seconds": round(seconds, 3), "peak_memory_mib": round(peak)})
        print(f"{count:9d} peaks {seconds:9.3f} s {peak:7.0f} MiB", flush=True)
        count *= 10
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peaks", type=int, default=100_000)
    parser.add_argument("--largest", type=int, default=10_000_000, help="of the scaling table (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    document: dict[str, object] = {"cores": arguments.threads, "parameters": list(PARAMETERS)}
    document["rates"] = compare(arguments)
    document["accuracy_above_1000_counts"] = accuracy(2 * arguments.peaks, arguments.threads)
    # A process of its own, so that the peak of its memory is its own.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        document["scaling"] = pool.submit(scaling, arguments.largest, arguments.threads).result()
    write_json(arguments.output, document)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

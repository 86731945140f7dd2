"""Step (d): pseudo-Voigt fits with start values and covariance on the device, and how far the CPU's fits are."""

import sys
import time
from typing import Any

import common
import numpy as np
import torch

from braggnn_edge.core.errors import UserError
from braggnn_edge.fit.device import Engine, fit_on_device
from braggnn_edge.fit.single import fit


def main() -> int:
    step = common.Step(__doc__)
    count = step.pick(1 << 21, 256)
    given = common.spots(step.pick(1 << 18, 256), step.device)[0]
    many = given.view(torch.int16).repeat(count // len(given), 1, 1).view(torch.uint16)
    for engine, used in (("kernel", many), ("torch", given[: step.pick(1 << 17, 128)])):
        step.attempt(f"{engine}: on the device", lambda e=engine, u=used: rate(step, u, e))
    step.attempt("kernel: from host memory", lambda: from_host(step, many))
    step.attempt("against the CPU", lambda: against_the_cpu(step, given[: step.pick(20_000, 128)]))
    step.put("clocks_after", common.clocks())
    return 0


def rate(step: common.Step, given: torch.Tensor, engine: Engine) -> dict[str, Any]:
    """Fits a second of patches that lie on the device, its results there too."""

    def timed(chunk: int) -> dict[str, float]:
        return step.device_ms(lambda: fit_on_device(given, engine=engine, chunk=chunk), rounds=3, warm=1)

    found, chunk = common.halved(timed, step.pick(1 << 18, 64), 64)
    return {"fits": len(given), "chunk": chunk, **found, "fits_per_s": len(given) / (1e-3 * found["ms"])}


def from_host(step: common.Step, given: torch.Tensor) -> dict[str, Any]:
    """The same from pinned counts to offsets and their standard deviations on the host."""
    source = step.pinned(given.cpu().numpy())

    def call() -> None:
        found = fit_on_device(source.to(step.device, non_blocking=True))
        found.offset.cpu()
        found.sigma[:, :2].cpu()

    found = step.wall_ms(call, rounds=3, warm=1)
    return {"fits": len(given), **found, "fits_per_s": len(given) / (1e-3 * found["ms"])}


def against_the_cpu(step: common.Step, given: torch.Tensor) -> dict[str, Any]:
    """Positions against those of the CPU's fit, in units of their sigma; the CPU's rate beside it."""
    host = given.cpu().numpy()
    began = time.perf_counter()
    try:
        expected, engine = fit(host), "compiled"
    except UserError as error:  # no g++: torch's engine, of fewer
        host = host[: step.pick(4000, 64)]
        expected, engine = fit(host, engine="torch"), f"torch ({error})"
    seconds = time.perf_counter() - began
    found = fit_on_device(given[: len(host)])
    converged = expected.converged & found.converged.cpu().numpy()
    distance = (np.abs(found.offset.cpu().numpy() - expected.offset) / expected.sigma[:, :2])[converged]
    ratio = (found.sigma.cpu().numpy()[:, :2] / expected.sigma[:, :2])[converged]
    return {
        "fits": len(host), "cpu_engine": engine, "cpu_fits_per_s": len(host) / seconds, "device_engine": found.engine,
        "converged": {"cpu": float(expected.converged.mean()), "device": float(found.converged.double().mean())},
        "distance_in_sigma": {
            **{f"p{q}": float(np.percentile(distance, q)) for q in (50, 99, 99.9)}, "max": float(distance.max()),
        },
        "sigma_ratio": {"least": float(ratio.min()), "largest": float(ratio.max())},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

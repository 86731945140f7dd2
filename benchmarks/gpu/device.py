"""Step (a): the card and its limits, versions, and a smoke test of every path that the other steps take."""

import platform
import shutil
import sys
import time
from importlib import metadata
from typing import Any

import common
import numpy as np
import torch

from braggnn_edge.core.counts import widened
from braggnn_edge.fit import device_kernel
from braggnn_edge.fit.device import fit_on_device
from braggnn_edge.locate.device import DevicePipeline
from braggnn_edge.locate.fused import FusedNetwork
from braggnn_edge.peaks.device import find_on_device
from braggnn_edge.universal.device import UniversalOnDevice
from braggnn_edge.universal.network import SHIPPED, load
from quant.contract import locator as locators
from quant.exchange.device import IntegersOnDevice
from quant.shipped import path_of

PACKAGES = ("torch", "triton", "cupy-cuda13x", "numpy", "scipy", "h5py", "onnx", "onnxruntime")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "nvcc": shutil.which("nvcc") or "absent"}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def facts() -> dict[str, Any]:
    p = torch.cuda.get_device_properties(0)
    return {
        "name": p.name, "capability": f"{p.major}.{p.minor}", "memory_gib": round(p.total_memory / 2**30, 1),
        "multiprocessors": p.multi_processor_count, "l2_mib": round(getattr(p, "L2_cache_size", 0) / 2**20),
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "now": common.clocks(),
    }  # fmt: skip


def smoke(step: common.Step) -> None:
    """Each path once, small: the first call also compiles."""
    given = common.spots(step.pick(4096, 64), step.device)[0]
    on_host = step.pinned(given.cpu().numpy()).numpy()

    def counts() -> dict[str, Any]:
        every = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.uint16).to(step.device)
        return {"equal": bool((widened(every, torch.float32).cpu() == torch.arange(65536)).all())}

    def pipeline(graphs: bool) -> dict[str, Any]:
        module = FusedNetwork(common.network("published"), "float16" if step.cuda else "float32").to(step.device)
        run = DevicePipeline(module, step.device, step=len(given) // 4, graphs=graphs)
        return {"finite": bool(np.isfinite(run(on_host)).all()), "captured": run.captured, "problem": run.problem}

    def triton() -> dict[str, Any]:
        from braggnn_edge.locate.triton_network import TritonNetwork  # noqa: PLC0415  # may be missing

        few = given[:2] if not step.cuda else given  # the interpreter is slow
        module = TritonNetwork(common.network("published")).to(step.device)
        reference = FusedNetwork(common.network("published"), "float64")(few.cpu()).numpy()
        return common.errors(module(few).float().cpu().numpy(), reference)

    def universal() -> dict[str, Any]:
        net, calibration, _ = load(SHIPPED)
        found = UniversalOnDevice(net, calibration, "float16").to(step.device)(given)
        return {"finite": bool(torch.isfinite(found).all())}

    def integers() -> dict[str, Any]:
        locator = locators.load(path_of("shipped"))
        found = IntegersOnDevice(locator).to(step.device)(given)
        return {"wrong": int((found.cpu().numpy() != locator.run(locator.codes(given.cpu().numpy()))).sum())}

    def fit(how: str) -> dict[str, Any]:
        engine = "torch" if how == "torch" else "kernel"
        if how == "compiled by torch":
            device_kernel.launch.cache_clear()
            device_kernel.COMPILERS.reverse()
        try:
            return {"converged": float(fit_on_device(given, engine=engine).converged.double().mean())}
        finally:
            if how == "compiled by torch":
                device_kernel.launch.cache_clear()
                device_kernel.COMPILERS.reverse()

    def frames() -> dict[str, Any]:
        frame = torch.poisson(torch.full((1, 256, 256), 5.0, device=step.device)).to(torch.int16).view(torch.uint16)
        frame.view(torch.int16)[0, 100:111, 100:111] += given[0].view(torch.int16) // 2
        return {"peaks": len(find_on_device(frame, threshold=40.0)[0])}

    def onnxruntime() -> dict[str, Any]:
        import onnxruntime as ort  # noqa: PLC0415

        return {"providers": ort.get_available_providers()}

    paths: dict[str, Any] = {
        "counts": counts, "pipeline": lambda: pipeline(False), "pipeline with graphs": lambda: pipeline(True),
        "triton": triton, "universal": universal, "integers": integers, "fit kernel": lambda: fit("kernel"),
        "fit kernel compiled by torch": lambda: fit("compiled by torch"), "fit in torch": lambda: fit("torch"),
        "frames": frames, "onnxruntime": onnxruntime,
    }  # fmt: skip
    with torch.inference_mode():
        for name, path in paths.items():
            began = time.monotonic()
            found = step.attempt(f"smoke: {name}", path)
            if found is not None:
                step.put(f"smoke: {name}", {**found, "seconds": round(time.monotonic() - began, 2)})


def main() -> int:
    step = common.Step(__doc__)
    step.put("versions", versions())
    if step.cuda:
        began = time.monotonic()
        if not torch.cuda.is_available():
            step.put("no_device", f"torch {torch.__version__} sees no CUDA device")
            print(step.report["no_device"], flush=True)
            return 1
        torch.zeros(1, device=step.device)
        step.put("driver_started_s", round(time.monotonic() - began, 2))
        step.attempt("facts", facts)
    step.attempt("bus", lambda: common.bus(step))
    step.attempt("products", lambda: common.products(step))
    smoke(step)
    step.put("clocks_after", common.clocks())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The forms of a float network: one function opens any of them, or the fastest on this machine.

locator = float_locator(net)                       # the fastest form on this machine's CPU
offsets = locator.locate(patches)                  # (n, size, size) counts -> (n, 2) px
print(locator.remark)                              # which it is, and why
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.counts import widened
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import resolve
from braggnn_edge.locate import choice
from braggnn_edge.locate.compiled import CompiledNetwork
from braggnn_edge.locate.eager import EagerNetwork
from braggnn_edge.locate.fused import PRECISIONS, FusedNetwork
from braggnn_edge.locate.locator import Locator, Patches, check_device, on_device
from braggnn_edge.locate.onnx_session import onnx_network
from braggnn_edge.locate.stage import AUTO
from braggnn_edge.training.centroid import squared_centroid
from braggnn_edge.training.dataset import min_max
from braggnn_edge.training.model import BraggNN

#: Forms among which ``auto`` chooses, the preferred first: the compiled one depends on no batch and no threads.
CANDIDATES = ("compiled", "onnxruntime", "torch")
#: Largest distance of a candidate from the same network in float64, px: any two then agree within 1e-5 px.
NEAR = 5e-6


def float_locator(
    net: BraggNN,
    backend: str = AUTO,
    *,
    precision: str = "float32",
    device: str = "cpu",
    threads: int = 0,
    optimize: bool = False,
) -> Locator:
    """A trained float network as a locator.

    backend: "auto" (the fastest of compiled, onnxruntime and torch here, by a measurement that is remembered: CPU,
    float32), "compiled" (the C++ kernel: CPU, float32), "torch" (with all that is linear multiplied out),
    "onnxruntime", "eager" (torch, layer by layer as published: the baseline), or "triton" (kernels for GPUs).
    precision: float64, float32, bfloat16 or float16 for torch, float32 or float16 for onnxruntime, bfloat16 or float16
    for triton. device: "cpu", "cuda" or "cuda:1"; "tensorrt" besides for onnxruntime. threads: of the CPU (0: torch's
    number). optimize: torch.compile (torch alone; a minute).
    Raises UserError for a combination that there is not, naming those there are.
    """
    threads = threads or torch.get_num_threads()
    if backend not in (AUTO, *BACKENDS):
        raise UserError(f"backend {backend!r} is unknown; expected one of {', '.join((AUTO, *BACKENDS))}")
    if optimize and backend != "torch":
        raise UserError(f"backend {backend!r} has no torch.compile; leave out optimize, or choose torch")
    if backend == AUTO:
        if precision != "float32" or device != "cpu":
            raise UserError(
                f"backend {AUTO!r} chooses among float32 forms on the CPU, not {precision} on {device}; name one of "
                f"{', '.join(BACKENDS)}"
            )
        return _fastest(net, threads)
    locator = BACKENDS[backend](net, precision, device, threads, optimize)
    if net.spec.centroid and not (backend in ("torch", "triton") and device.startswith("cuda")):
        _correct_centroid(locator)
    locator.form = backend
    return locator


def _fastest(net: BraggNN, threads: int) -> Locator:
    return choice.fastest(
        {name: partial(_of_form, net, name) for name in CANDIDATES},
        digest(net), net.size, threads,
        lambda patches: float_locator(net, "torch", precision="float64").locate(patches), NEAR,
    )  # fmt: skip


def _of_form(net: BraggNN, name: str, threads: int) -> Locator:
    return float_locator(net, name, threads=threads)


def digest(net: BraggNN) -> str:
    """A hash of all that a network computes: its kind, its patches and its weights."""
    found = hashlib.sha256(repr((net.spec, net.size)).encode())
    for name, value in net.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.cpu().numpy().tobytes())
    return found.hexdigest()


def _centred(net: BraggNN, module: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a network on a GPU computes, with the centroid where it corrects that: on the GPU too."""
    if not net.spec.centroid:
        return module
    return lambda patches: module(patches) + squared_centroid(min_max(widened(patches, torch.float32)))


def _correct_centroid(locator: Locator) -> None:
    """Add the centroid, which the network corrects: on the CPU, in float64, whatever runs the layers."""
    layers = locator.run

    def run(block: Patches) -> NDArray[np.floating]:
        base = squared_centroid(min_max(torch.from_numpy(block.astype(np.float64)))).numpy()
        return layers(block) + base

    locator.run = run


def _compiled(net: BraggNN, precision: str, device: str, threads: int, _: bool) -> Locator:
    if precision != "float32" or device != "cpu":
        raise UserError(f"the compiled network is float32 on the CPU, not {precision} on {device}; choose torch")
    network = CompiledNetwork(net, threads)
    return Locator("compiled", net.size, lambda x: network(_as_float(x)), precision, "CPU", batch=8192)


def _torch(net: BraggNN, precision: str, device: str, _: int, optimize: bool) -> Locator:
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; expected one of {', '.join(PRECISIONS)}")
    check_device(device)
    module = FusedNetwork(net, precision).to(device).eval()
    called: Any = torch.compile(module, dynamic=False) if optimize else module
    if device.startswith("cuda"):
        name = "torch.compile" if optimize else "torch"
        return on_device(name, net.size, _centred(net, called), precision, device, graphs=not optimize)

    def run(block: Patches) -> NDArray[np.floating]:
        with torch.inference_mode():
            tensor = torch.from_numpy(block)
            if optimize and len(block) < locator.batch:  # one compiled shape
                tensor = torch.cat([tensor, tensor[-1:].expand(locator.batch - len(block), -1, -1)])
            return called(tensor)[: len(block)].numpy()

    # The activations of 64 patches stay in the processor's cache.
    locator = Locator("torch.compile" if optimize else "torch", net.size, run, precision, "CPU", batch=64)
    return locator


def _triton(net: BraggNN, precision: str, device: str, *_: Any) -> Locator:
    check_device(device)
    if not device.startswith("cuda"):
        raise UserError(f"Triton's kernels run on GPUs, not on {device}; choose the backend compiled or torch")
    network = resolve("braggnn_edge.locate.triton_network:TritonNetwork")  # imports Triton
    return on_device("triton", net.size, _centred(net, network(net, precision).to(device).tuned()), precision, device)


def _eager(net: BraggNN, precision: str, device: str, *_: Any) -> Locator:
    if precision != "float32" or device != "cpu":
        raise UserError(
            f"the eager network is the float32 baseline on the CPU, not {precision} on {device}; choose torch"
        )
    module = EagerNetwork(net).eval()

    def run(block: Patches) -> NDArray[np.floating]:
        with torch.inference_mode():
            return module(torch.from_numpy(_as_float(block))).numpy()

    return Locator("eager torch", net.size, run, precision, "CPU", batch=64)


def _onnxruntime(net: BraggNN, precision: str, device: str, threads: int, _: bool) -> Locator:
    run = onnx_network(net, precision, device, threads)
    words = {"cpu": "CPU", "tensorrt": "TensorRT"}.get(device, device.upper())
    batch = 128 if device == "cpu" else 65536
    return Locator("onnxruntime", net.size, lambda x: run(_as_float(x)), precision, words, batch)


def _as_float(block: Patches) -> NDArray[np.float32]:
    return block.astype(np.float32, copy=False)


#: Forms of a float network by name; each (net, precision, device, threads, optimize) to a locator.
BACKENDS: dict[str, Callable[[BraggNN, str, str, int, bool], Locator]] = {
    "compiled": _compiled,
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "eager": _eager,
    "triton": _triton,
}

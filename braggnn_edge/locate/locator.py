"""Reference inference: one :class:`Locator` over all forms of a network, patches in, positions out.

    locator = float_locator(net)                       # fastest form on this machine's CPU
    offsets = locator.locate(patches)                  # (n, size, size) counts -> (n, 2) px

Frames are for :mod:`braggnn_edge.locate.frames`. A locator works in batches, so memory is bounded whatever is asked of
it; a batch for which the device has no memory is tried again in halves, and what is finished is kept. The forms of a
quantized network are in :mod:`quant.exchange.locators`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from braggnn_edge.core.counts import widened
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import resolve
from braggnn_edge.evaluation.provenance import Ranges
from braggnn_edge.locate.compiled import CompiledNetwork
from braggnn_edge.locate.device import BATCH, DevicePipeline
from braggnn_edge.locate.eager import EagerNetwork
from braggnn_edge.locate.fused import PRECISIONS, FusedNetwork
from braggnn_edge.locate.onnx_session import onnx_network
from braggnn_edge.training.centroid import squared_centroid
from braggnn_edge.training.dataset import min_max
from braggnn_edge.training.model import BraggNN

Patches = NDArray[np.generic]
Offsets = NDArray[np.float64]

#: Types of counts that are handed on as they are; others become float32.
_PASSED = tuple(np.dtype(name) for name in ("uint8", "uint16", "int16", "int32", "float32"))


@dataclass
class Locator:
    """One form of a network on one device.

    run: a block (m, size, size) of counts, C order, uint8, uint16, int16, int32 or float32 and finite, to offsets
    (m, 2) px, or with ``sigma`` to (m, 6): these, the standard deviations of each, and the half-widths of the intervals
    that hold 95.45 % of the errors, px; to (m, 4) without the last. name: of the form; precision and device: in words;
    batch: patches in a block, halved for good when the device is out of memory, and never below ``least``.
    trained_on: the ranges of what the network was trained on, where they are known; outside: patches so far whose
    brightest pixel was fainter or brighter than these. photons: sigma supposes that a count is a photon, and the
    network may be given counts divided by the gain.
    """

    name: str
    size: int
    run: Callable[[Patches], NDArray[np.floating]]
    precision: str
    device: str
    batch: int = 4096
    least: int = 16
    sigma: bool = False
    trained_on: Ranges | None = None
    photons: bool = False
    retries: int = field(default=0, init=False)
    outside: int = field(default=0, init=False)

    def locate(self, patches: Patches) -> Offsets:
        """Offsets (n, 2) (row, col) px from the centre pixel of patches (n, size, size) in counts.

        A flat patch is answered like any other (its normalized pixels are 0). Raises UserError for another shape, a
        type that is no real number, NaN or infinity, and when the device has no memory for ``least`` patches.
        """
        return self._answers(patches)[:, :2]

    def locate_with_sigma(self, patches: Patches) -> tuple[Offsets, Offsets]:
        """:meth:`locate`, and the standard deviations (n, 2) px of the offsets as the network knows them.

        Raises UserError for a network that does not know them, and as :meth:`locate` does.
        """
        return self.locate_with_intervals(patches)[:2]

    def locate_with_intervals(self, patches: Patches) -> tuple[Offsets, Offsets, Offsets]:
        """:meth:`locate_with_sigma`, and the half-widths (n, 2) px of the intervals that hold 95.45 % of the errors.

        They are no multiple of sigma, since errors are not normally distributed; NaN from a form that has none. Raises
        UserError as :meth:`locate_with_sigma` does.
        """
        if not self.sigma:
            raise UserError(f"{self.name} knows no sigma; choose a network that does, such as the universal one")
        found = self._answers(patches)
        return found[:, :2], found[:, 2:4], found[:, 4:]

    def _answers(self, patches: Patches) -> Offsets:
        patches = np.asarray(patches)
        if patches.ndim != 3 or patches.shape[1:] != (self.size, self.size):
            raise UserError(
                f"patches have shape {patches.shape}; {self.name} expects (n, {self.size}, {self.size}): cut patches "
                "of that size, or choose the network trained for these"
            )
        if patches.dtype.kind not in "iuf":
            raise UserError(f"patches are {patches.dtype}; expected integers or floats in detector counts")
        offsets = np.full((len(patches), 6 if self.sigma else 2), np.nan)
        start = 0
        while start < len(patches):
            stop = min(start + self.batch, len(patches))
            block = _block(patches[start:stop], start)
            try:
                answered = self.run(block)
                offsets[start:stop, : answered.shape[1]] = answered
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                self._shrink(error)
                continue
            if self.trained_on is not None:
                self.outside += int((~self.trained_on.has_counts(block.max(axis=(1, 2)))).sum())
            start = stop
        return offsets

    def stream(self, batches: Iterable[Patches]) -> Iterator[Offsets]:
        """:meth:`locate` for one array of patches after the other; nothing is kept between them."""
        for patches in batches:
            yield self.locate(patches)

    def _shrink(self, error: Exception) -> None:
        if self.batch <= self.least:
            raise UserError(
                f"{self.device} has too little free memory for {self.batch} patches at a time in {self.name}; free "
                "some, or locate on the CPU"
            ) from error
        self.batch = max(self.batch // 2, self.least)
        self.retries += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _block(patches: Patches, start: int) -> Patches:
    """Contiguous counts of a type that locators take."""
    with np.errstate(over="ignore"):  # becomes infinity, which is refused
        block = np.ascontiguousarray(patches, None if patches.dtype in _PASSED else np.float32)
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        bad = start + int(np.argmin(np.isfinite(block).all(axis=(1, 2))))
        raise UserError(
            f"patch {bad} holds NaN, infinity or a value beyond float32; mask dead pixels before cutting patches"
        )
    return block


def _out_of_memory(error: Exception) -> bool:
    """Whether a library says that memory is short; onnxruntime has no type of its own for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in words or "failed to allocate memory" in words)


def float_locator(
    net: BraggNN,
    backend: str = "compiled",
    *,
    precision: str = "float32",
    device: str = "cpu",
    threads: int = 0,
    optimize: bool = False,
) -> Locator:
    """A trained float network as a locator.

    backend: "compiled" (the C++ kernel: CPU, float32), "torch" (with all that is linear multiplied out), "onnxruntime",
    "eager" (torch, layer by layer as published, float32: the baseline), or "triton" (kernels for GPUs). precision:
    float64, float32, bfloat16 or float16 for torch, float32 or float16 for onnxruntime, bfloat16 or float16 for triton.
    device: "cpu", "cuda" or "cuda:1"; "tensorrt" besides for onnxruntime. threads: of the CPU (0: torch's number).
    optimize: torch.compile (torch alone; a minute).
    Raises UserError for a combination that there is not, naming those there are.
    """
    threads = threads or torch.get_num_threads()
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r} is unknown; expected one of {', '.join(BACKENDS)}")
    if optimize and backend != "torch":
        raise UserError(f"backend {backend!r} has no torch.compile; leave out optimize, or choose torch")
    locator = BACKENDS[backend](net, precision, device, threads, optimize)
    if net.spec.centroid and not (backend in ("torch", "triton") and device.startswith("cuda")):
        _correct_centroid(locator)
    return locator


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


def check_device(device: str) -> None:
    """Raise UserError unless torch can compute on ``device``, "cpu", "cuda" or "cuda:1"."""
    if not device.startswith(("cpu", "cuda")):
        raise UserError(f"torch has no device {device!r} here; expected cpu or cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("torch sees no CUDA device; use device cpu, or install a CUDA build of torch")


def on_device(
    name: str,
    size: int,
    module: Callable[[torch.Tensor], torch.Tensor],
    precision: str,
    device: str,
    *,
    sigma: bool = False,
    trained_on: Ranges | None = None,
    graphs: bool = True,
) -> Locator:
    """A network whose steps are all on a GPU as a locator: counts (m, size, size) to (m, 2), with sigma (m, 6)."""
    pipeline = DevicePipeline(module, device, outputs=6 if sigma else 2, graphs=graphs)
    described = torch.cuda.get_device_name(device)
    locator = Locator(name, size, pipeline, precision, described, batch=BATCH, sigma=sigma, trained_on=trained_on)

    def run(block: Patches) -> NDArray[np.floating]:
        pipeline.fit_into(locator.batch)  # which was halved, when the device had no memory
        return pipeline(block)

    locator.run = run
    return locator


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

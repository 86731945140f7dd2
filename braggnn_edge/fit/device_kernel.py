"""The fit's kernel on a GPU: device.cu, compiled at run time, without nvcc; on a CPU the same file through g++."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from braggnn_edge.core.compiler import loaded_library
from braggnn_edge.core.errors import UserError
from braggnn_edge.fit.levenberg_marquardt import Noise
from braggnn_edge.fit.pseudo_voigt import quadrature

_SOURCE = Path(__file__).with_name("device.cu")
#: The kernel unrolls the quadrature; more points than these would not fit into registers.
MAX_ORDER = 6
_THREADS = 128
_FLAGS = ("-x", "c++", "-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-w")

#: A compiled kernel: called with the tensors of its arguments, and the number of peaks.
Launch = Callable[[tuple[Tensor, ...], int], None]


def solve(
    data: Tensor, kind: Tensor, noise: Noise, shape: tuple[int, int], order: int, low: Tensor, high: Tensor,
    start: Tensor, max_iterations: int,
) -> dict[str, Tensor]:  # fmt: skip
    """Fit n peaks: data (p, n) float64, kind (p, n) uint8 (0 unused, 1 data, 2 below the zero suppression).

    low, high, start: (8, n) float64. Returns state (8, n), information (8, 8, n), frozen (8, n), sums (2, n),
    iterations and converged (n,), on the device of ``data``. Raises UserError where the kernel cannot be compiled.
    """
    count, device = data.shape[1], data.device
    nodes, weights = quadrature(order)

    def sent(values: Any, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.as_tensor(values, dtype=dtype).to(device)

    found = {
        "state": torch.empty((8, count), dtype=torch.float64, device=device),
        "information": torch.empty((8, 8, count), dtype=torch.float64, device=device),
        "frozen": torch.empty((8, count), dtype=torch.bool, device=device),
        "sums": torch.empty((2, count), dtype=torch.float64, device=device),
        "iterations": torch.empty(count, dtype=torch.int32, device=device),
        "converged": torch.empty(count, dtype=torch.bool, device=device),
    }
    given = (
        data, kind, sent([count, *shape, max_iterations], torch.int64),
        sent([noise.gain, noise.variance, noise.zero_suppression or 0.0]), sent(nodes), sent(weights), low, high, start,
    )  # fmt: skip
    arguments = tuple(tensor.contiguous() for tensor in given)
    if count:
        launch(device.type, device.index or 0, order)((*arguments, *found.values()), count)
    return found


@functools.cache
def launch(kind: str, index: int, order: int) -> Launch:
    """The kernel for "cpu" or "cuda" device ``index``; UserError when there is no compiler for it."""
    if not 1 <= order <= MAX_ORDER:
        raise UserError(f"quadrature order {order}: the device's kernel has 1 to {MAX_ORDER}; take engine 'torch'")
    if kind == "cpu":
        return _by_gcc(order)
    problems = []
    for name, compiled in COMPILERS:
        try:
            return compiled(index, order)
        except Exception as error:  # a missing package, a driver that is too old, a compiler's message
            problems.append(f"{name}: {str(error).strip()[:300] or type(error).__name__}")
    raise UserError(f"the fit's kernel cannot be compiled here ({'; '.join(problems)}); take engine 'torch'")


def _by_gcc(order: int) -> Launch:
    function = loaded_library(_SOURCE, (*_FLAGS, f"-DORDER={order}")).braggnn_fit

    def call(arguments: tuple[Tensor, ...], _: int) -> None:
        function(*(ctypes.c_void_p(tensor.data_ptr()) for tensor in arguments))

    return call


def _by_cupy(index: int, order: int) -> Launch:
    import cupy  # noqa: PLC0415  # only where there is a GPU
    import numpy as np  # noqa: PLC0415

    with cupy.cuda.Device(index):
        module = cupy.RawModule(code=_SOURCE.read_text(), options=("-std=c++17", f"-DORDER={order}"))
        kernel = module.get_function("braggnn_fit")

    def call(arguments: tuple[Tensor, ...], count: int) -> None:
        stream = cupy.cuda.ExternalStream(torch.cuda.current_stream(index).cuda_stream)
        with cupy.cuda.Device(index), stream:
            pointers = tuple(np.uintp(tensor.data_ptr()) for tensor in arguments)
            kernel((-(-count // _THREADS),), (_THREADS,), pointers)

    return call


def _by_torch(index: int, order: int) -> Launch:
    with torch.cuda.device(index):
        source = f"#define ORDER {order}\n" + _SOURCE.read_text()
        kernel = torch.cuda._compile_kernel(source, "braggnn_fit")

    def call(arguments: tuple[Tensor, ...], count: int) -> None:
        with torch.cuda.device(index):
            kernel((-(-count // _THREADS), 1, 1), (_THREADS, 1, 1), arguments)

    return call


#: Who compiles for a GPU, in the order in which they are tried; both by NVRTC.
COMPILERS: list[tuple[str, Callable[[int, int], Launch]]] = [("cupy", _by_cupy), ("torch", _by_torch)]

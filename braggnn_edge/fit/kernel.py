"""The compiled fit on a CPU: kernel.cpp through ctypes, built by g++ at the first use (some ten seconds)."""

import ctypes
import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.compiler import loaded_library
from braggnn_edge.fit.lanes import Records
from braggnn_edge.fit.levenberg_marquardt import Noise
from braggnn_edge.fit.pseudo_voigt import quadrature

MAX_PEAKS = 6
_SOURCE = Path(__file__).with_name("kernel.cpp")
# Rounding is the contract of the tests: no -ffast-math. Neither errno nor traps are looked at.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-pthread")


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernel; UserError when there is no g++."""
    loaded = loaded_library(_SOURCE, FLAGS)
    n, x, i, p = ctypes.c_int64, ctypes.c_double, ctypes.c_int, ctypes.c_void_p
    loaded.braggnn_fit.argtypes = [p, p, n, i, i, i, x, x, x, i, p, p, p, p, p, i, i, p, p, p, p, p, p]
    loaded.braggnn_fit.restype = i
    loaded.braggnn_fit_function.argtypes = [i, i, n, p, p]
    loaded.braggnn_fit_function.restype = None
    return loaded


def solve(
    data: NDArray[np.float64],
    used: NDArray[np.bool_],
    below: NDArray[np.bool_],
    *,
    noise: Noise,
    order: int,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    start: NDArray[np.float64],
    max_iterations: int,
    threads: int,
) -> Records:
    """Fit K peaks and one background to each patch, K from 1 to MAX_PEAKS.

    Args:
        data, used, below: (n, h, w) counts, which pixels are data, which were suppressed to zero.
        noise: of the detector, in counts.
        order: quadrature order, 1 to 64.
        low, high, start: (n, 7 K + 1): row, col, amplitude, fwhm_major, fwhm_minor, tilt, eta of each peak, then the
            background they share.
        max_iterations: model evaluations a patch, over both passes (float32, then float64).
        threads: of this call. Results do not depend on it.

    Raises MemoryError when memory is short.
    """
    count, height, width = data.shape
    parameters = start.shape[1]
    records = Records(count, parameters)
    nodes, weights = quadrature(order)
    kind = used.astype(np.uint8) + 2 * below.astype(np.uint8)
    arrays = [np.ascontiguousarray(a, np.float64) for a in (data, nodes, weights, low, high, start)]
    data, nodes, weights, low, high, start = arrays
    outputs = (records.parameters, records.information, records.frozen, records.sums, records.iterations)
    failed = library().braggnn_fit(
        data.ctypes.data, kind.ctypes.data, count, height, width, (parameters - 1) // 7,
        noise.gain, noise.variance, noise.zero_suppression or 0.0, order, nodes.ctypes.data, weights.ctypes.data,
        low.ctypes.data, high.ctypes.data, start.ctypes.data, max_iterations, threads,
        *(array.ctypes.data for array in outputs), records.converged.ctypes.data,
    )  # fmt: skip
    if failed == 2:
        raise MemoryError(f"the compiled fit found no memory for patches of {height} x {width} px; use fewer --workers")
    if failed:
        raise ValueError(f"{parameters} parameters or order {order} are out of the kernel's range")
    records.finished = count
    return records


def function(name: str, x: NDArray[np.float64], wide: bool) -> NDArray[np.float64]:
    """exp, log1p or erfcx of ``x`` (n,) as the kernel has them, in float64 (``wide``) or float32; for the tests."""
    x = np.ascontiguousarray(x, np.float64)
    out = np.empty_like(x)
    which = ("exp", "log1p", "erfcx").index(name)
    library().braggnn_fit_function(which, int(wide), len(x), x.ctypes.data, out.ctypes.data)
    return out

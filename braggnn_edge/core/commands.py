"""Commands that need no scenario: what they declare, and the registry of all of them.

A stage (:mod:`braggnn_edge.core.stages`) works in a run directory and brings the stages before it up to date. A command
takes files and options on the command line, and writes the file that it is told. It is declared in a light module,
imported for ``--help``; what does the work is named by a dotted name and imported when it runs.

A command and a stage may share a name: with ``--config`` the name stands for the stage, without it for the command.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from braggnn_edge.core.stages import resolve

#: Where the commands are declared, in the order of ``--help``.
REGISTRY: tuple[str, ...] = (
    "braggnn_edge.inspection.command:INSPECT",
    "braggnn_edge.locate.command:LOCATE",
    "braggnn_edge.peaks.merge_command:MERGE",
    "braggnn_edge.grains.command:GRAINS",
)


@dataclass(frozen=True)
class Command:
    """The declaration of one command."""

    name: str
    help: str  # one line for ``--help`` and the docs
    writes: str  # its results, for the docs
    work: str  # dotted name of ``work(arguments, say)``: the parsed options, and what prints a line for the user
    # of the command line, as argparse has them, by name; two names of one option have a blank between them
    arguments: Mapping[str, Mapping[str, Any]]
    epilog: str = ""  # examples, shown at the end of its ``--help``


@cache
def commands() -> Mapping[str, Command]:
    """All commands by name, in the order of ``--help``."""
    found = [resolve(name) for name in REGISTRY]
    return MappingProxyType({command.name: command for command in found})

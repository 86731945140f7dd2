"""The chain of stages: what a stage declares, the registry of all of them, and what runs them in order.

A stage is declared in a light module of its own room (``<room>/stage.py``), which imports no more than the tables of
the configuration. What does the work is named by a dotted name, ``"package.module:function"``, and is imported when it
runs, so that help and a misspelt key are answered at once, and nothing but the stage that runs is loaded.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from braggnn_edge.core import rundir
from braggnn_edge.core.config import Config
from braggnn_edge.core.errors import UserError

#: Where the stages are declared, in the order of the chain.
REGISTRY = (
    "braggnn_edge.label.stage:DATA",
    "braggnn_edge.label.stage:LABEL",
    "braggnn_edge.training.stage:TRAIN",
    "braggnn_edge.training.stage:COMPACT",
    "braggnn_edge.universal.stage:UNIVERSAL",
    "braggnn_edge.universal.stage:TUNE",
    "braggnn_edge.locate.stage:EVALUATE",
    "braggnn_edge.grains.stage:GRAINS",
    "quant.training.stage:QAT",
    "hls.project.stage:HLS",
    "hls.rtl.stage:RTL",
    "firmware_sim.verification.stage:CSIM",
    "firmware_sim.verification.stage:REFERENCE",
    "firmware_sim.verification.stage:REPORT",
    "firmware_sim.search.stage:SEARCH",
    "firmware_sim.search.stage:PARETO",
    "braggnn_edge.ablation.stage:ABLATION",
)

#: Tables of before, and the one that now has their keys.
RENAMED_TABLES = MappingProxyType({"rtlsim": "csim"})


@dataclass(frozen=True)
class Context:
    """What every stage gets."""

    cfg: Config
    scenario: Path  # the configuration's file
    run: Path  # the run directory, which holds a folder for each stage
    workers: int  # parallel processes
    say: Callable[[str], None]  # prints a line for the user
    scheduler: str = ""  # of a Dask cluster that labels; empty: processes of this machine
    options: Mapping[str, Any] = field(default_factory=dict)  # of this command alone, by name


def _nothing(_: Any) -> tuple[str, ...]:
    return ()


def _accept(_: Context) -> None:
    return None


@dataclass(frozen=True)
class Stage:
    """The declaration of one stage. Functions are called with the configuration or the context, when they are needed.

    Dotted names are resolved by :func:`resolve`.
    """

    name: str  # of the command, and of the folder in the run directory
    help: str  # one line for ``--help``, the Makefile's list and the docs
    writes: str  # its main results, for the docs
    work: str  # dotted name of ``work(context, directory)``; of a command without a folder ``work(context)``
    tables: Mapping[str, Any] = field(default_factory=dict)  # tables of the configuration that are this stage's own
    reads: Callable[[Config], tuple[str, ...]] | None = None  # tables that its result depends on; by default its own
    needs: Callable[[Config], tuple[str, ...]] = _nothing  # stages whose results it reads
    files: str = ""  # dotted name of ``files(context)``: what it reads outside the run directory
    settings: str = ""  # dotted name of ``settings(context, values)``: what of the tables it depends on, and what else
    check: Callable[[Context], None] = _accept  # refuses tables that do not fit each other, before any work
    also: Callable[[Config], tuple[str, ...]] = _nothing  # further stages that the command makes
    editable: tuple[str, ...] = ()  # names of files in its folder that are the user's to change
    command: bool = True  # False: made by another stage's command
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of the command line, as argparse has them
    folder: bool = True  # False: has no folder; works when the run directory is free again, so that others may join


def resolve(name: str) -> Any:
    """What a dotted name ``"package.module:attribute"`` stands for."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


@cache
def stages() -> Mapping[str, Stage]:
    """All stages by name, in the order of the chain."""
    found = [resolve(name) for name in REGISTRY]
    return MappingProxyType({stage.name: stage for stage in found})


@cache
def tables() -> Mapping[str, Any]:
    """The tables that a configuration may have: name to a dataclass, or to ``tuple[dataclass, ...]``."""
    found: dict[str, Any] = {}
    for stage in stages().values():
        if twice := found.keys() & stage.tables.keys():
            raise ValueError(f"table {', '.join(twice)} is declared by stage {stage.name!r} and by one before it")
        found |= stage.tables
    return MappingProxyType(found)


def needed(names: Iterable[str], cfg: Config) -> tuple[Stage, ...]:
    """The stages called ``names`` and all that they need, each behind those that it needs itself."""
    found: dict[str, Stage] = {}

    def visit(name: str) -> None:
        if name in found:
            return
        for need in stages()[name].needs(cfg):
            visit(need)
        found[name] = stages()[name]

    for name in names:
        visit(name)
    return tuple(found.values())


def asked_for(command: str, cfg: Config) -> tuple[Stage, ...]:
    """The stages of a command, in the order in which they run."""
    return needed((command, *stages()[command].also(cfg)), cfg)


def check(command: str, context: Context) -> None:
    """Refuse a configuration that the command's stages cannot work with, before one of them has spent hours.

    Only what the command needs is looked at: labelling takes no networks. Raises UserError.
    """
    for stage in asked_for(command, context.cfg):
        stage.check(context)


def bring_up_to_date(command: str, context: Context) -> None:
    """Run the stages of a command, and every stage they need, whose result is missing or no longer fits its inputs."""
    for stage in asked_for(command, context.cfg):
        if stage.folder:
            rundir.execute(context.run, _bound(stage, context), context.say)


def _bound(stage: Stage, context: Context) -> rundir.Stage:
    """The stage for this configuration, as the run directory wants it."""
    cfg = context.cfg
    values = cfg.plain(stage.reads(cfg) if stage.reads else tuple(stage.tables))
    return rundir.Stage(
        stage.name,
        stage.needs(cfg),
        resolve(stage.settings)(context, values) if stage.settings else values,
        resolve(stage.files)(context) if stage.files else (),
        lambda directory: resolve(stage.work)(context, directory),
        stage.editable,
    )


def require_network(context: Context, command: str, kind: str, instead: str) -> None:
    """Refuse a command that is for another kind of network: ``kind`` is "circuit" or "layers"; ``instead`` a remedy."""
    made = context.cfg["qat"].network
    if context.cfg["qat"].is_circuit != (kind == "circuit"):
        raise UserError(f"{command}: the network of this configuration is {made!r} ([qat] network); {instead}")

"""The command line: every stage of the chain as one command, each bringing the stages before it up to date."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

import torch

from braggnn_edge.chain import SECTIONS, Context, float_spec, float_stages, search_circuits, stage
from braggnn_edge.core import config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import execute, locked
from braggnn_edge.label import acquisition
from braggnn_edge.training import train
from braggnn_edge.training.optimize import process_group
from firmware_sim.forms import csim
from quant.contract import normalize
from quant.training import qat

__all__ = ["COMMANDS", "SECTIONS", "check", "main"]

#: Commands, and the stages each one asks for.
COMMANDS: dict[str, tuple[str, ...]] = {
    "data": ("data",),
    "label": ("label",),
    "train": ("train", "compact"),
    "qat": ("qat",),
    "circuit": ("circuit",),
    "hls": ("hls",),
    "rtl": ("rtl",),
    "csim": ("csim",),
    "rtlsim": ("rtlsim",),
    "search": (),
    "pareto": ("pareto",),
    "reference": ("reference",),
    "report": ("report",),
    "ablation": ("ablation",),
}

#: Commands for networks of layers, and those for circuits in their place.
_FOR_NETWORKS = {"qat": "circuit", "csim": "rtlsim", "reference": "rtlsim"}
_FOR_CIRCUITS = {"circuit": "qat", "rtl": "hls", "rtlsim": "csim", "search": "qat", "pareto": "qat"}

_HELP = {
    "data": "simulate the simulated scans, check and describe the measured ones",
    "label": "find peaks, fit pseudo-Voigts, cut patches, split -> peaks.h5",
    "train": "train the full float BraggNN and the compact float network",
    "qat": "quantization-aware training; QONNX file and integer network",
    "circuit": "the smallest circuit: learned bit widths, pruning, a budget of look-up tables -> circuit.json",
    "hls": "hls4ml projects with exact types, test bench and golden vectors",
    "rtl": "RTL project of a circuit: pipelined core, stream interface, constraints, scripts, test bench",
    "rtlsim": "RTL cycle by cycle, mapped netlist, C simulation and the other forms of a circuit, code for code",
    "search": "trials of circuits in a storage that many processes and machines may share",
    "pareto": "the front of a search: picture, configuration and circuit of every point",
    "csim": "compile and run the C simulation; compare all forms code for code",
    "reference": "firmware against float networks, labels and truth; every form of inference against float64",
    "report": "report.json and report.html",
    "ablation": "the full network with and without attention and random shifts, over several seeds",
}


def check(command: str, cfg: config.Config) -> None:
    """Refuse tables that do not fit each other, before a stage has spent hours; each checked itself when it was read.

    Only what the command needs is looked at: labelling takes no networks.
    """
    made, other = cfg["qat"].network, _FOR_NETWORKS if cfg["qat"].network == "circuit" else _FOR_CIRCUITS
    if command in other:
        raise UserError(
            f"{command}: the network of this configuration is {made!r} ([qat] network); use `make {other[command]}`"
        )
    stages = tuple(COMMANDS)
    training = stages.index(command) >= stages.index("train")
    acquisition.check_scans(cfg["scan"], training)
    if not training:
        return
    peaks = cfg["peaks"]
    if command == "ablation":
        cfg["ablation"].check(peaks.size, peaks.shift)
        return
    networks = tuple(name for name, (made, _) in qat.FLOAT_NETWORKS.items() if made in float_stages(cfg))
    for name in networks:
        cfg[name].network.check_patch_size(peaks.size)
    last = "circuit" if cfg["qat"].network == "circuit" else "qat"
    trained = networks if command == "train" else (*networks, last)
    for name in trained:
        if not 0 <= cfg[name].shift <= peaks.shift:
            raise UserError(
                f"{name}: shift {cfg[name].shift} is out of range; expected 0 to {peaks.shift} px, the margin that "
                "shift in [peaks] keeps around the patches"
            )
    if "circuit" in trained:
        cfg["circuit"].check_patch_size(peaks.size)
    if "qat" in trained:
        cfg["quant"].check(cfg[cfg["qat"].network].network, peaks.size)
        normalize.Normalizer(bits=cfg["quant"].input_bits)


def bring_up_to_date(command: str, c: Context) -> None:
    """Run the stages of a command, and every stage they need, whose result is missing or no longer fits its inputs."""
    done: set[str] = set()

    def visit(name: str) -> None:
        if name in done:
            return
        done.add(name)
        wanted = stage(name, c)
        for need in wanted.needs:
            visit(need)
        execute(c.run, wanted, c.say)

    names = float_stages(c.cfg) if command == "train" else COMMANDS[command]
    if command == "search":
        names = stage("circuit", c).needs
    for name in names:
        visit(name)


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="braggnn-edge",
        description="Bragg peaks from detector frames to a bit-exact FPGA firmware project. Each command runs one "
        "stage, and those before it whose results are missing or out of date, in runs/<run>/.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    for name in COMMANDS:
        command = commands.add_parser(name, help=_HELP[name], description=_HELP[name])
        command.add_argument(
            "--config", type=Path, default=Path("configs/demo.toml"), help="scenario (default: %(default)s)"
        )
        command.add_argument("--run", default="", help="name of the run (default: the configuration's name)")
        command.add_argument(
            "--runs", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)"
        )
        command.add_argument(
            "--workers",
            type=int,
            default=os.cpu_count() or 1,
            help="parallel processes (default: one a core)",
        )
        command.add_argument(
            "--threads",
            type=int,
            default=0,
            help="threads of the numerical library (default: its own choice)",
        )
        command.add_argument(
            "--scheduler",
            default="",
            metavar="ADDRESS",
            help="tcp://host:port or scheduler file of a Dask cluster that labels (default: processes of this machine)",
        )
    return parser


def _run(arguments: argparse.Namespace) -> None:
    if arguments.workers < 1 or arguments.threads < 0:
        raise UserError(
            f"--workers {arguments.workers} must be at least 1 and --threads {arguments.threads} at least 0"
        )
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.command == "ablation" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("the ablation trains on one device; run it without torchrun")
    cfg = config.load(arguments.config, SECTIONS)
    check(arguments.command, cfg)
    name = arguments.run or cfg.name
    if name != Path(name).name or name.startswith("."):
        raise UserError(f"run name {name!r} is not a folder name; use letters, digits, '-' and '_'")
    run = arguments.runs / name
    rank = int(os.environ.get("RANK", "0"))
    if rank:  # under torchrun the first process keeps the run directory, the others only help it train
        specs = {name: (stage, float_spec(cfg, name)) for name, stage in (("full", "train"), ("compact", "compact"))}
        train.assist(run, specs, cfg.seed)
        return
    if arguments.command in ("csim", "rtlsim", "reference", "report") and not (run / "csim").exists():
        csim.require_compiler()  # now, not after hours of training
    c = Context(cfg, arguments.config, run, arguments.workers, _say, arguments.scheduler)
    with locked(run):
        bring_up_to_date(arguments.command, c)
    train.dismiss()
    final = run / arguments.command
    if arguments.command == "search":  # without the lock: others may join
        search_circuits(c)
        final = run / "search.db" if not cfg["search"].storage else run
    print(f"finished: {final}" + (f" - open {final / 'report.html'}" if arguments.command == "report" else ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``braggnn-edge``: 0 when done, 2 with one line on standard error for bad input."""
    arguments = _parser().parse_args(argv)
    try:
        with process_group(train.choose_device()):
            _run(arguments)
    except UserError as error:
        # Messages that quote a compiler or a library hold line breaks.
        print(f"braggnn-edge: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenExecutor:
        print(
            "braggnn-edge: error: a worker process was killed, most likely for lack of memory; what is finished is "
            "kept: run the same command again with fewer --workers",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            "braggnn-edge: error: the disk is full; what is finished is kept: make room and run the same command again",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("braggnn-edge: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

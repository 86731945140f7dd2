"""The command line: every stage of the chain as one command, each bringing the stages before it up to date."""

import argparse
import dataclasses
import errno
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from braggnn_edge import ablation, acquisition, config, label, label_part, report, split, train
from braggnn_edge.errors import UserError
from braggnn_edge.model import BraggNN
from braggnn_edge.optimize import process_group
from braggnn_edge.rundir import Stage, execute, locked
from braggnn_edge.table import PeakTable
from braggnn_edge.table import load as load_table
from firmware_sim import circuit_evidence, csim, evidence, pareto, reference, search, search_storage
from firmware_sim.search_space import SearchSpec
from hls import build, hardware, rtl_stage
from hls.synthesis import mapped_luts
from quant import circuit as circuits
from quant import compress, network, normalize, plan, qat

SECTIONS: dict[str, Any] = {
    "scan": tuple[acquisition.ScanSpec, ...],
    "peaks": label_part.PeakSpec,
    "split": split.SplitSpec,
    "full": train.TrainSpec,
    "compact": train.TrainSpec,
    "quant": plan.BitPlan,
    "qat": qat.QatSpec,
    "circuit": compress.CircuitSpec,
    "hls": build.HlsSpec,
    "rtl": rtl_stage.RtlSpec,
    "csim": evidence.CsimSpec,
    "rtlsim": circuit_evidence.RtlSimSpec,
    "search": SearchSpec,
    "report": report.ReportSpec,
    "ablation": ablation.AblationSpec,
}

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


@dataclass(frozen=True)
class Context:
    """What every stage gets: the configuration, the run directory, the number of processes, and a voice.

    scheduler: of the Dask cluster that labels; empty: processes of this machine; scenario: the configuration's file.
    """

    cfg: config.Config
    scenario: Path
    run: Path
    workers: int
    say: Callable[[str], None]
    scheduler: str = ""


def stage(name: str, c: Context) -> Stage:
    """One stage of the chain for this configuration."""
    cfg, run = c.cfg, c.run
    floats = float_stages(cfg)
    source = qat.FLOAT_NETWORKS.get(cfg["qat"].network, ("", ""))
    circuit = cfg["qat"].network == "circuit"
    files: dict[str, tuple[Path, ...]] = {
        "data": acquisition.external_files(cfg["scan"], cfg.folder),
        "label": acquisition.external_files(cfg["scan"], cfg.folder),  # it reads the measured frames again
        "train": _initial(cfg, "full"),
        "compact": _initial(cfg, "compact"),
        "report": hardware.vendor_files(run / "hls"),  # those of a synthesis after the simulation
    }
    needs: dict[str, tuple[str, ...]] = {
        "data": (),
        "label": ("data",),
        "train": ("label",),
        "compact": ("label",),
        "qat": ("label", *dict.fromkeys((source[0], "train"))) if cfg["qat"].teacher else ("label", source[0]),
        "circuit": ("label", "train") if cfg["circuit"].teacher else ("label",),
        "hls": ("label", "circuit" if circuit else "qat"),
        "rtl": ("label", "circuit"),
        "rtlsim": ("label", "train", "circuit", "hls", "rtl"),
        "pareto": ("label", "train"),
        "csim": ("label", *floats, "qat", "hls"),
        "reference": ("label", *floats, "qat", "csim"),
        "report": (
            ("data", "label", "train", "circuit", "hls", "rtl", "rtlsim")
            if circuit
            else ("data", "label", *floats, "qat", "hls", "csim", "reference")
        ),
        "ablation": ("label",),
    }
    sections: dict[str, tuple[str, ...]] = {
        "data": ("scan",),
        "label": ("scan", "peaks", "split"),
        "train": ("full",),
        "compact": ("compact",),
        "qat": ("quant", "qat"),
        "circuit": ("circuit",),
        "hls": ("hls",),
        "rtl": ("rtl",),
        "rtlsim": ("rtlsim",),
        "pareto": ("search", "circuit"),
        "csim": ("csim",),
        "reference": (),
        "report": ("report",),
        "ablation": ("ablation",),
    }
    work: dict[str, Callable[[Path], None]] = {
        "data": lambda out: acquisition.run(cfg["scan"], cfg.folder, cfg.seed, out, c.workers, c.say),
        "label": lambda out: label.run(
            cfg["scan"],
            cfg["peaks"],
            cfg["split"],
            cfg.seed,
            run / "data",
            cfg.folder,
            out,
            c.workers,
            c.say,
            c.scheduler,
        ),
        "train": lambda out: train.run(_peaks(run), "full", _float(cfg, "full"), cfg.seed, out, c.say),
        "compact": lambda out: train.run(_peaks(run), "compact", _float(cfg, "compact"), cfg.seed, out, c.say),
        "qat": lambda out: qat.run(
            _peaks(run),
            cfg["qat"],
            cfg["quant"],
            train.load_network(run / source[0], source[1]),
            train.load_network(run / "train", "full") if cfg["qat"].teacher else None,
            cfg.seed,
            out,
            c.say,
        ),
        "circuit": lambda out: compress.run(
            _peaks(run),
            cfg["circuit"],
            _teacher(c),
            cfg.seed,
            out,
            c.say,
        ),
        "hls": lambda out: (
            build.run_circuit(cfg["hls"], _peaks(run), run / "circuit", out, c.say)
            if circuit
            else build.run(cfg["hls"], _peaks(run), run / "qat", out, c.say)
        ),
        "rtl": lambda out: rtl_stage.run(cfg["rtl"], _peaks(run), run / "circuit", out, c.say),
        "rtlsim": lambda out: circuit_evidence.run(cfg["rtlsim"], cfg["circuit"], run, cfg.seed, out, c.workers, c.say),
        "csim": lambda out: evidence.run(cfg["csim"], cfg["quant"], source, run, cfg.seed, out, c.workers, c.say),
        "reference": lambda out: reference.run(run, floats, out, c.say),
        "report": lambda out: report.run(
            cfg["report"],
            cfg,
            run,
            needs["report"],
            hardware.hardware_rows(run / "hls", _integer(run, circuit), c.say),
            out,
            c.say,
        ),
        "pareto": lambda out: _pareto(c, out),
        "ablation": lambda out: ablation.run(_peaks(run), cfg["ablation"], cfg.seed, out, c.say),
    }
    settings = cfg.plain(sections[name])
    if name == "data":  # how peaks are found and used later is none of its business: no new simulation for a threshold
        settings["scan"] = [{key: scan[key] for key in acquisition.DATA_KEYS} for scan in settings["scan"]]
    if name == "pareto":
        settings["trials"] = pareto.fingerprint(cfg["search"], _storage(c))
    return Stage(name, needs[name], settings, files.get(name, ()), work[name])


def _teacher(c: Context) -> BraggNN | None:
    """The full float network, where the circuit learns from it."""
    return train.load_network(c.run / "train", "full") if c.cfg["circuit"].teacher else None


def _storage(c: Context) -> str:
    return search_storage.address(c.cfg["search"].storage, c.run, c.cfg.folder)


def _pareto(c: Context, out: Path) -> None:
    full = train.load_network(c.run / "train", "full")
    pareto.run(
        c.cfg["search"],
        c.cfg["circuit"],
        _peaks(c.run),
        _teacher(c),
        full,
        c.cfg.seed,
        _storage(c),
        c.scenario,
        c.run.name,
        out,
        c.say,
        lambda circuit: mapped_luts(circuit)["luts"],
    )


def float_stages(cfg: config.Config) -> tuple[str, ...]:
    """The stages that train float networks: the compact one is not trained when another goes to the firmware."""
    return ("train", "compact") if cfg["qat"].network == "compact" else ("train",)


def _integer(run: Path, circuit: bool) -> network.IntegerNetwork:
    """The integer network that the HLS projects of a run are of."""
    if circuit:
        return circuits.load(run / "circuit" / "circuit.json").network
    return network.load(run / "qat" / "integer.json")


def _initial(cfg: config.Config, name: str) -> tuple[Path, ...]:
    text = cfg[name].initial
    return (config.resolve_path(text, cfg.folder),) if text else ()


def _float(cfg: config.Config, name: str) -> train.TrainSpec:
    """The table of a float network, its initial checkpoint a path that can be opened."""
    return dataclasses.replace(cfg[name], initial="".join(map(str, _initial(cfg, name))))


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


def _peaks(run: Path) -> PeakTable:
    return load_table(run / "label" / "peaks.h5")


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
        specs = {name: (stage, _float(cfg, name)) for name, stage in (("full", "train"), ("compact", "compact"))}
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
        search.run(cfg["search"], cfg["circuit"], _peaks(run), _teacher(c), cfg.seed, _storage(c), _say, c.workers)
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

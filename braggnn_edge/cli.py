"""The command line: every stage of the chain as one command, each bringing the stages before it up to date.

Beside them stand the commands that take files instead of a scenario.

Nothing is imported here that is slow to load: help and a misspelt key are answered at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from braggnn_edge import __version__
from braggnn_edge.core import config, stages
from braggnn_edge.core.commands import commands as plain_commands
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.machine import available_cores
from braggnn_edge.core.outcome import exit_status
from braggnn_edge.core.rundir import locked
from braggnn_edge.core.stages import Context

__all__ = ["main"]

#: Commands of before, and the one that now does their work.
RENAMED_COMMANDS = {"circuit": "qat", "rtlsim": "csim"}


def _say(text: str) -> None:
    print(text, flush=True)


def _names_a_scenario(words: Sequence[str]) -> bool:
    """Whether the words hold ``--config``, which argparse lets a user shorten."""
    options = [word.partition("=")[0] for word in words]
    return any(len(option) > len("--co") and "--config".startswith(option) for option in options)


def _parser(scenario: bool) -> argparse.ArgumentParser:
    """scenario: of a stage and a command of one name, the name stands for the stage."""
    parser = argparse.ArgumentParser(
        prog="braggnn-edge",
        description="Bragg peaks from detector frames to a bit-exact FPGA firmware project. A command with --config "
        "runs one stage, and those before it whose results are missing or out of date, in runs/<run>/.",
    )
    both = stages.stages().keys() & plain_commands().keys()
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    for stage in stages.stages().values():
        if not stage.command or (stage.name in both and not scenario):
            continue
        command = commands.add_parser(stage.name, help=stage.help, description=f"{stage.help}.")
        command.add_argument(
            "--config", type=Path, default=Path("configs/demo.toml"), help="scenario (default: %(default)s)"
        )
        command.add_argument("--run", default="", help="name of the run (default: the configuration's name)")
        command.add_argument(
            "--runs", type=Path, default=Path("runs"), help="folder of all runs (default: %(default)s)"
        )
        command.add_argument(
            "--workers", type=int, default=available_cores(), help="parallel processes (default: one a core)"
        )
        command.add_argument(
            "--threads", type=int, default=0, help="threads of the numerical library (default: its own choice)"
        )
        command.add_argument(
            "--scheduler",
            default="",
            metavar="ADDRESS",
            help="tcp://host:port or scheduler file of a Dask cluster that labels (default: processes of this machine)",
        )
        for option, about in stage.options.items():
            command.add_argument(option, **about)
    for plain in plain_commands().values():
        if plain.name in both and scenario:
            continue
        other = f"; with --config: {stages.stages()[plain.name].help}" if plain.name in both else ""
        command = commands.add_parser(
            plain.name,
            help=f"{plain.help}{other}",
            description=f"{plain.help}.",
            epilog=plain.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for options, about in plain.arguments.items():
            command.add_argument(*options.split(), **about)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    if arguments.workers < 1 or arguments.threads < 0:
        raise UserError(
            f"--workers {arguments.workers} must be at least 1 and --threads {arguments.threads} at least 0"
        )
    cfg = config.load(arguments.config, stages.tables(), stages.RENAMED_TABLES)
    name = arguments.run or cfg.name
    if name != Path(name).name or name.startswith(".") or len(name.encode()) > config.LONGEST_NAME:
        raise UserError(
            f"run name {name!r} is not a folder name; use letters, digits, '-' and '_', at most {config.LONGEST_NAME}"
        )
    run = arguments.runs / name
    wanted = {option.lstrip("-").replace("-", "_") for option in stages.stages()[arguments.command].options}
    options = {name: getattr(arguments, name) for name in sorted(wanted)}
    context = Context(cfg, arguments.config, run, arguments.workers, _say, arguments.scheduler, options)
    stages.check(arguments.command, context)
    if arguments.threads:
        stages.resolve("torch:set_num_threads")(arguments.threads)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        stages.resolve("braggnn_edge.training.processes:run")(
            arguments.command, context, lambda: _work(context, arguments)
        )
        return
    _work(context, arguments)


def _work(context: Context, arguments: argparse.Namespace) -> None:
    """Bring the command's stages up to date, and say where the result is."""
    stage = stages.stages()[arguments.command]
    with locked(context.run):
        stages.bring_up_to_date(stage.name, context)
    if not stage.folder:  # without the lock: others may join
        stages.resolve(stage.work)(context)
        return
    final = context.run / stage.name
    page = final / f"{stage.name}.html"
    print(f"finished: {final}" + (f" - open {page}" if page.is_file() else ""))


def _refuse_files(others: Sequence[str]) -> None:
    """Several files were given in the place of one: most likely a pattern that the shell has written out."""
    raise UserError(
        f"{len(others) + 1} files are named, {others[-1]} the last, where one name is expected; put a pattern in "
        "quotes, such as 'scan_*.tif'"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``braggnn-edge``: 0 when done, 2 with one line on standard error for bad input."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in RENAMED_COMMANDS:
        new = RENAMED_COMMANDS[words[0]]
        print(f"braggnn-edge: error: {words[0]} is now part of {new}; use `braggnn-edge {new}`", file=sys.stderr)
        return 2
    scenario = _names_a_scenario(words)
    parser = _parser(scenario)
    arguments, others = parser.parse_known_args(words)
    if others and all(Path(word).exists() for word in others):
        return exit_status(lambda: _refuse_files(others), "braggnn-edge")
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    plain = plain_commands().get(arguments.command)
    if plain is not None and not (scenario and plain.name in stages.stages()):
        return exit_status(lambda: stages.resolve(plain.work)(arguments, _say), "braggnn-edge")
    return exit_status(lambda: _run(arguments), "braggnn-edge")


if __name__ == "__main__":
    sys.exit(main())

"""Command "inspect": a first look at a scan. What it does is in :mod:`braggnn_edge.inspection.work`."""

from pathlib import Path

from braggnn_edge.core.commands import Command
from braggnn_edge.frames.options import SCAN_OPTIONS

INSPECT = Command(
    name="inspect",
    help="take a first look at a scan: detector, spots, a threshold and why, a scenario ready to run",
    writes="`inspect.json`, `inspect.png`, `inspect.html` and `scenario.toml` in the folder named by `-o`",
    work="braggnn_edge.inspection.work:work",
    arguments={
        **SCAN_OPTIONS,
        "-o": {
            "dest": "output",
            "required": True,
            "type": Path,
            "metavar": "FOLDER",
            "help": "folder of the results, made where it does not exist",
        },
        "--simulated-frames": {
            "type": int,
            "default": 8,
            "metavar": "N",
            "help": "frames that are simulated with what was found, to be drawn over the measured ones; 0: none "
            "(default: %(default)s)",
        },
    },
    epilog="examples:\n"
    "  braggnn-edge inspect scan.h5 -o look/\n"
    "  braggnn-edge inspect 'frames/scan_*.cbf' --mask mask.npy -o look/\n"
    "  braggnn-edge label --config look/scenario.toml",
)

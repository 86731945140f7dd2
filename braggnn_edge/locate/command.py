"""Command "locate": any scan in, a list of peaks out. What it does is in :mod:`braggnn_edge.locate.locating`."""

from pathlib import Path

from braggnn_edge.core.commands import Command
from braggnn_edge.core.machine import available_cores
from braggnn_edge.frames.options import SCAN_OPTIONS
from braggnn_edge.locate.stage import AUTO, SHIPPED

LOCATE = Command(
    name="locate",
    help="find the peaks of a scan's frames and locate them with a network: a list of peaks",
    writes="the files named by `-o`: HDF5, CSV, and the layouts of ImageD11, MIDAS and BraggNN, the firmware's records",
    work="braggnn_edge.locate.locating:work",
    arguments={
        **SCAN_OPTIONS,
        "scan": {**SCAN_OPTIONS["scan"], "nargs": "?", "default": ""},
        "-o --output": {
            "action": "append",
            "required": True,
            "type": Path,
            "metavar": "FILE",
            "help": "the list; its suffix says how it is written: .h5, .csv, .flt (ImageD11), .midas.csv (MIDAS), "
            ".braggnn.h5 (BraggNN's peaks file); may be repeated",
        },
        "--records": {
            "type": Path,
            "metavar": "FILE",
            "help": "also the records that firmware sends of these frames, 32 bytes each, without a head; needs "
            "`--find window` and a network in integers",
        },
        "--network": {
            "default": SHIPPED,
            "metavar": "FILE",
            "help": "universal (the one that ships), universal_layers or universal_circuit (it as integers), a run's "
            "folder, or a file: locator.json, universal.npz, full.pt, "
            "compact.pt, an upstream checkpoint (default: %(default)s)",
        },
        "--backend": {
            "default": AUTO,
            "metavar": "FORM",
            "help": "form of the network: auto (the fastest here, by a measurement that is remembered); compiled, "
            "onnxruntime, torch; of integers compiled, onnxruntime, emulator (default: %(default)s)",
        },
        "--threshold": {
            "type": float,
            "metavar": "COUNTS",
            "help": "a pixel above it belongs to a peak; with --background-box above the local background",
        },
        "--sigma": {
            "type": float,
            "metavar": "N",
            "help": "the same in standard deviations of the local noise; needs --background-box",
        },
        "--background-box": {
            "type": int,
            "metavar": "PX",
            "help": "side of the boxes in which the local background is found (default: 0, none is)",
        },
        "--find": {
            "choices": ("component", "window"),
            "default": "component",
            "help": "rule that finds peaks: maxima of components, or the firmware's window (default: %(default)s)",
        },
        "--significance": {
            "type": float,
            "default": 0.0,
            "metavar": "N",
            "help": "leave out maxima that stand out from the ring around them by less than N standard deviations of "
            "the noise (--gain, --read-noise); 4, say, where the threshold is near the background (default: none)",
        },
        "--min-area": {"type": int, "metavar": "PX", "help": "pixels of the smallest peak (default: 4)"},
        "--gain": {"type": float, "metavar": "COUNTS", "help": "counts a photon (default: 1)"},
        "--read-noise": {"type": float, "metavar": "COUNTS", "help": "its standard deviation (default: 1)"},
        "--saturation": {
            "type": float,
            "metavar": "COUNTS",
            "help": "counts from which on a pixel is saturated (default: none is)",
        },
        "--frames": {"metavar": "START:STOP", "help": "frames START to STOP - 1 alone, counted from 0 (default: all)"},
        "--no-check": {
            "action": "store_true",
            "help": "go on where the first frames show noise, powder rings, spots larger than a patch, or nothing",
        },
        "--on-bad-frame": {"choices": ("stop", "skip"), "help": "at a frame that cannot be used (default: stop)"},
        "--do-not-trust-above": {
            "type": float,
            "metavar": "PX",
            "help": "flag peaks whose sigma is larger as NOT_TRUSTED",
        },
        "--beam-center": {
            "metavar": "ROW,COL",
            "help": "px; for Radius and Eta in the MIDAS layout (default: these are NaN)",
        },
        "--workers": {"type": int, "default": available_cores(), "help": "parallel processes (default: one a core)"},
        "--scheduler": {
            "default": "",
            "metavar": "ADDRESS",
            "help": "tcp://host:port or scheduler file of a Dask cluster that works (default: processes of this "
            "machine)",
        },
        "--config": {
            "type": Path,
            "metavar": "FILE.toml",
            "help": "scenario whose [[scan]] says what the command line does not",
        },
        "--scan": {"dest": "scan_name", "metavar": "NAME", "help": "of the [[scan]], where the scenario has several"},
    },
    epilog="""examples:
  braggnn-edge locate scan.h5 --threshold 150 -o peaks.h5
  braggnn-edge locate 'scan_*.cbf' --sigma 5 --background-box 32 --mask mask.h5 -o peaks.h5 -o peaks.flt
  braggnn-edge locate scan.h5 --config my_scan.toml --network runs/my_scan -o peaks.csv

An interrupted command goes on where it stopped when it is given again.
docs/reference/peak_lists.md describes the columns.""",
)

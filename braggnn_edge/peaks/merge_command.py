"""Command "merge": a list of peaks in, a list of reflections out (:mod:`braggnn_edge.peaks.merging` does the work)."""

from pathlib import Path

from braggnn_edge.core.commands import Command
from braggnn_edge.frames.options import SCAN_OPTIONS

MERGE = Command(
    name="merge",
    help="merge the peaks of one reflection in successive frames: a list of reflections",
    writes="the files named by `-o`: HDF5, CSV, and the layouts of ImageD11 and MIDAS",
    work="braggnn_edge.peaks.merging:work",
    arguments={
        "peaks": {"type": Path, "metavar": "peaks.h5", "help": "list of peaks that `locate` wrote"},
        "-o --output": {
            "action": "append",
            "required": True,
            "type": Path,
            "metavar": "FILE",
            "help": "the list; its suffix says how it is written: .h5, .csv, .flt (ImageD11), .midas.csv (MIDAS); may "
            "be repeated",
        },
        "--radius": {
            "type": float,
            "default": 2.0,
            "metavar": "PX",
            "help": "largest distance between the peaks of successive frames (default: %(default)s, about the width of "
            "a spot: it stays in place while it rocks, and others are farther away)",
        },
        "--gap": {
            "type": int,
            "default": 1,
            "metavar": "N",
            "help": "good frames in which a reflection may be missing between two that show it (default: %(default)s, "
            "for faint ones)",
        },
        "--valley": {
            "type": float,
            "default": 0.3,
            "metavar": "SHARE",
            "help": "two reflections follow each other where the height of the peaks falls below this share of the "
            "smaller of the two heights beside it (default: %(default)s; 0: never)",
        },
        "--same-frame": {"action": "store_true", "help": "merge peaks of one frame, too, that lie within the radius"},
        **{name: SCAN_OPTIONS[name] for name in ("--omega-start", "--omega-step")},
        "--beam-center": {
            "metavar": "ROW,COL",
            "help": "px; for Radius and Eta in the MIDAS layout (default: these are NaN)",
        },
    },
    epilog="""examples:
  braggnn-edge merge peaks.h5 -o reflections.h5
  braggnn-edge merge peaks.h5 --radius 3 --gap 0 -o reflections.h5 -o reflections.flt
  braggnn-edge merge peaks.h5 --omega-start -90 --omega-step 0.25 -o reflections.h5

docs/how_to/merge.md says how peaks are merged, and describes the columns.""",
)

"""The options of a command line that name a scan, and the scan that they name."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import resolve
from braggnn_edge.frames.formats import FORMATS
from braggnn_edge.frames.spec import Meaning

if TYPE_CHECKING:  # it takes long to import, and ``--help`` needs the options alone
    from braggnn_edge.frames.scan import Scan

#: What ``--format`` may be besides the name of a format.
GUESS = "guess"

#: As argparse has them. None stands for what is not said, so that a scenario can say it.
SCAN_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "scan": {"help": "the scan's file; of a series of images a pattern in quotes, such as 'scan_*.tif'"},
    "--format": {
        "choices": (GUESS, *sorted(FORMATS)),
        "help": "of the scan (default: guess, from the file's name and contents)",
    },
    "--dataset": {"help": "3-D data set inside an HDF5 file; may be left out when there is only one"},
    "--dark": {"metavar": "FILE", "help": "2-D image that is subtracted: npy, an image, file.h5 or file.h5:data/set"},
    "--mask": {"metavar": "FILE", "help": "2-D image, true or 1 where a pixel is bad"},
    "--negative": {
        "choices": get_args(Meaning),
        "help": "raw pixels below zero: bad, data, or what is usual for the format (default: auto)",
    },
    "--overflow-value": {
        "choices": get_args(Meaning),
        "help": "the same of the largest value of an unsigned type (default: auto)",
    },
    "--omega-start": {
        "type": float,
        "metavar": "DEG",
        "help": "rotation at the start of the first frame, in place of what the file says; with --omega-step",
    },
    "--omega-step": {"type": float, "metavar": "DEG", "help": "rotation of every frame"},
}


def guessed_format(path: Path) -> str:
    """The name of the format of a file, or of a pattern of image files, by its suffix and contents."""
    if path.suffix == ".npz":
        return "hexrd"
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(8) == b"\x89HDF\r\n\x1a\n":
                return resolve("braggnn_edge.frames.formats.imaged11:hdf5_kind")(path)
    return "images"


def named_scan(arguments: Namespace) -> "Scan":
    """The scan that options (:data:`SCAN_OPTIONS`) name, opened. Raises UserError for one that cannot be."""
    path = Path(arguments.scan)
    if not arguments.scan:
        raise UserError("the name of the scan is empty; expected a file, or a pattern of image files")
    format = guessed_format(path) if arguments.format in (None, GUESS) else arguments.format
    return resolve("braggnn_edge.frames.scan:open_scan")(
        format, path, dataset=arguments.dataset, dark=arguments.dark, mask=arguments.mask,
        negative=arguments.negative or "auto", overflow_value=arguments.overflow_value or "auto",
        omega_start=arguments.omega_start, omega_step=arguments.omega_step,
    )  # fmt: skip

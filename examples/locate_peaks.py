"""Positions from frames with a trained network, frame by frame, whatever the length of the scan.

    python examples/locate_peaks.py runs/demo/qat/integer.json runs/demo/data/scan.h5 --threshold 45

prints one line a peak: frame, row, col (px, the centre of pixel (0, 0) being (0.0, 0.0)). The network is an
integer.json or circuit.json, run by the emulator that equals the firmware, or full.pt or compact.pt of a stage, run in
float32.
"""

import argparse
from pathlib import Path

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.locate.locator import Locator, bright_spots, float_locator, locate_frames
from braggnn_edge.training.train import load_network
from quant.exchange.locators import load_integer_locator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="integer.json, circuit.json, full.pt or compact.pt of a stage")
    parser.add_argument("frames", type=Path, help="frames in the BraggNN layout")
    parser.add_argument("--threshold", type=float, required=True, help="counts above which a pixel belongs to a peak")
    parser.add_argument("--frames-used", type=int, default=3, help="how many frames (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        locate(arguments)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


def locate(arguments: argparse.Namespace) -> None:
    """Detect, crop and locate; the patches of a few frames are in memory at a time."""
    locator = _locator(arguments.network)
    scan = open_scan("braggnn", arguments.frames)
    find = bright_spots(arguments.threshold, locator.size)
    for found in locate_frames(locator, scan, find, stop=min(arguments.frames_used, scan.shape[0])):
        for frame, (row, col) in zip(found.frame, found.position, strict=True):
            print(f"{frame:5d} {row:10.3f} {col:10.3f}")


def _locator(path: Path) -> Locator:
    if path.suffix == ".pt":
        return float_locator(load_network(path.parent, path.stem))
    return load_integer_locator(path)


if __name__ == "__main__":
    main()

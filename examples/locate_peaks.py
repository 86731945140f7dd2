"""Positions from frames with a trained network, frame by frame, whatever the length of the scan.

    python examples/locate_peaks.py runs/demo/qat/locator.json runs/demo/data/scan.h5 --threshold 45

prints one line per peak: frame, row, col (px; the centre of pixel (0, 0) is (0.0, 0.0)). The network is the
locator.json of a run, computed in the integers that equal the firmware, or full.pt or compact.pt of a stage, computed
in float32.
"""

import argparse
from pathlib import Path

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.locate.locator import Locator, bright_spots, float_locator, locate_frames
from braggnn_edge.training.train import load_network
from quant.exchange.locators import load_integer_locator


# --8<-- [start:locate]
def open_locator(network: Path) -> Locator:
    """A trained network of a run as a locator: integers, or float32 for a .pt file."""
    if network.suffix == ".pt":
        return float_locator(load_network(network.parent, network.stem))
    return load_integer_locator(network)


def locate(network: Path, frames: Path, threshold: float, frames_used: int) -> None:
    """Find, cut and locate peaks; only the patches of a few frames are in memory at a time."""
    locator = open_locator(network)
    scan = open_scan("braggnn", frames)
    find = bright_spots(threshold, locator.size)
    for found in locate_frames(locator, scan, find, stop=min(frames_used, scan.shape[0])):
        for frame, (row, col) in zip(found.frame, found.position, strict=True):
            print(f"{frame:5d} {row:10.3f} {col:10.3f}")


# --8<-- [end:locate]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="locator.json, full.pt or compact.pt of a stage")
    parser.add_argument("frames", type=Path, help="frames in the BraggNN layout")
    parser.add_argument("--threshold", type=float, required=True, help="counts above which a pixel belongs to a peak")
    parser.add_argument("--frames-used", type=int, default=3, help="how many frames (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        locate(arguments.network, arguments.frames, arguments.threshold, arguments.frames_used)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()

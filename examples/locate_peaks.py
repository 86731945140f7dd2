"""Positions from frames with a trained network, frame by frame, whatever the length of the scan.

    python examples/locate_peaks.py runs/demo/qat/locator.json runs/demo/data/scan.h5 --threshold 45
    python examples/locate_peaks.py NETWORK scan_0042.h5 --format hdf5 --dataset entry/data/data --threshold 120

prints one line per peak: frame, row, col (px; the centre of pixel (0, 0) is (0.0, 0.0)), and the standard deviations of
both where the network knows them. On standard error it says how many peaks are fainter or brighter than those that the
network was trained on, where that is known. The network is "universal", which ships with the project and needs no
training; the locator.json of a run, computed in the integers that equal the firmware; or full.pt or compact.pt of a
run, computed in float32.
"""

import argparse
import os
import sys

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.formats import FORMATS
from braggnn_edge.frames.scan import Scan, open_scan
from braggnn_edge.locate.locator import Locator, bright_spots, locate_frames
from braggnn_edge.locate.networks import open_network


# --8<-- [start:locate]
def locate(locator: Locator, scan: Scan, threshold: float, frames: int | None = None) -> None:
    """Find, cut and locate the peaks of all frames, or of the first; a few frames' patches are in memory at a time."""
    find = bright_spots(threshold, locator.size)
    for found in locate_frames(locator, scan, find, stop=frames):
        sigma = [()] * len(found.frame) if found.sigma is None else found.sigma
        for frame, position, deviation in zip(found.frame, found.position, sigma, strict=True):
            print(f"{frame:5d}", *(f"{value:10.3f}" for value in (*position, *deviation)))
    if locator.trained_on is not None and locator.outside:
        low, high = locator.trained_on.counts
        print(
            f"peaks fainter or brighter than those that the network was trained on ({low:g} to {high:g} counts in the "
            f"brightest pixel): {locator.outside}",
            file=sys.stderr,
        )


# --8<-- [end:locate]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help='"universal", or a file: locator.json, full.pt or compact.pt of a run')
    parser.add_argument("scan", help="the scan's file; of images a pattern in quotes")
    parser.add_argument("--threshold", type=float, required=True, help="counts above which a pixel belongs to a peak")
    parser.add_argument("--format", choices=FORMATS, default="braggnn", help="default: %(default)s")
    parser.add_argument("--dataset", help="of the frames in an HDF5 file")
    parser.add_argument("--dark", help="image that is subtracted")
    parser.add_argument("--mask", help="image that is true where a pixel is bad")
    parser.add_argument("--frames", type=int, help="how many frames, from the first on (default: all)")
    arguments = parser.parse_args()
    try:
        locator = open_network(arguments.network)
        scan = open_scan(
            arguments.format, arguments.scan, dataset=arguments.dataset, dark=arguments.dark, mask=arguments.mask
        )
        locate(locator, scan, arguments.threshold, arguments.frames)
    except BrokenPipeError:  # the reader, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()

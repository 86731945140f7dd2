"""Positions from frames with a trained firmware network, by the integer emulator that equals the firmware.

    python examples/locate_peaks.py runs/demo/qat/integer.json runs/demo/data/scan.h5 --threshold 45

prints one line a peak: frame, row, col (px, the centre of pixel (0, 0) being (0.0, 0.0)).
"""

import argparse
from pathlib import Path

from braggnn_edge import peaks
from braggnn_edge.errors import UserError
from braggnn_edge.scan import open_scan
from quant import emulate, network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="integer.json of a qat stage")
    parser.add_argument("frames", type=Path, help="frames in the BraggNN layout")
    parser.add_argument("--threshold", type=float, required=True, help="counts above which a pixel belongs to a peak")
    parser.add_argument("--frames-used", type=int, default=3, help="how many frames (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        locate(arguments)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


def locate(arguments: argparse.Namespace) -> None:
    """Detect, crop, normalize to codes and run the integer network, frame by frame."""
    integer = network.load(arguments.network)
    normalizer = network.load_normalizer(arguments.network)
    scan = open_scan("braggnn", arguments.frames)
    for index, frame in scan.frames(0, min(arguments.frames_used, scan.shape[0])):
        found = peaks.detect(frame, threshold=arguments.threshold, size=integer.size)
        found = found[~found["edge"]]
        patches = peaks.crops(frame, found["row"], found["col"], integer.size)
        offsets = integer.output.values(emulate.run(integer, normalizer.codes(patches)).outputs)
        for peak, (row, col) in zip(found, offsets, strict=True):
            print(f"{index:5d} {peak['row'] + row:10.3f} {peak['col'] + col:10.3f}")


if __name__ == "__main__":
    main()

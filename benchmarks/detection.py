"""Detection against a plain loop over components with scipy.ndimage, on the same frames.

    python benchmarks/detection.py [--data FOLDER] [--write]

Both find, frame by frame, the components above the threshold, their brightest pixels, local maxima, edge and
lone-peak rules, and cut their crops; the loop does so one component after the other, as one writes it for an
experiment. It is spared the test of each maximum against the noise. The script stops unless components, brightest
pixels, areas, neighbours, edges and crops are equal. Frames: simulated, 2048 x 2048 with 10^2 to 10^4 spots; and of
the ruby scan (one panel of 3888 x 3072) where FOLDER holds it.

Times are processor seconds of one thread, so that other work on the machine counts little: the best of some
repetitions, the two in turn. Beside them: that of fitting the lone peaks of the frame. Prints; --write: detection.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from braggnn_edge.fit.single import fit
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.peaks import find as peaks
from braggnn_edge.simulation import simulate
from braggnn_edge.simulation.spec import SimulationSpec

SIZE, MIN_AREA = 11, 4
REPEAT = 5
RUBY = "chess_ruby/mruby-0129_000004_ff1_000012-cachefile.npz"
COLUMNS = ("row", "col", "area", "neighbours", "maximum", "edge")


def loop(frame: np.ndarray, threshold: int) -> tuple[np.ndarray, np.ndarray]:
    """Components (n,) in row-major order, with the columns above and their local maxima; crops where they fit."""
    labels, _ = ndimage.label(frame > threshold, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())
    half = SIZE // 2
    found, crops = [], []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        if areas[number] < MIN_AREA:
            continue
        inside = labels[place] == number
        values = np.where(inside, frame[place], 0)
        row, col = np.unravel_index(values.argmax(), values.shape)
        maximum = values[row, col]
        maxima = ndimage.label((ndimage.maximum_filter(values, 3) == values) & inside, np.ones((3, 3)))[1]
        row, col = row + place[0].start, col + place[1].start
        near = labels[max(row - half, 0) : row + half + 1, max(col - half, 0) : col + half + 1]
        others = np.unique(near)
        neighbours = ((areas[others] >= MIN_AREA) & (others != number) & (others != 0)).sum()
        edge = row < half or col < half or row >= frame.shape[0] - half or col >= frame.shape[1] - half
        found.append((row, col, areas[number], neighbours, maximum, edge, maxima))
        if not edge:
            crops.append(frame[row - half : row + half + 1, col - half : col + half + 1])
    table = np.array(found, np.dtype([(name, "f8") for name in (*COLUMNS, "maxima")]))
    order = np.lexsort((table["col"], table["row"]))
    kept = np.flatnonzero(table["edge"] == 0)
    rank = np.empty(len(table), int)
    rank[kept] = np.arange(len(kept))
    return table[order], np.array([crops[rank[i]] for i in order if not table["edge"][i]]).reshape(-1, SIZE, SIZE)


def arrays(frame: np.ndarray, threshold: int, options: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """The same with :func:`peaks.detect`, which also tests every maximum against the noise."""
    found = peaks.detect(frame, threshold=threshold, min_area=MIN_AREA, size=SIZE, **options).components
    inside = found[~found["edge"]]
    return found, peaks.crops(frame, inside["row"], inside["col"], SIZE)


def simulated(spots: int) -> np.ndarray:
    """A frame of 2048 x 2048 with about so many spots, on rings that fill it."""
    spec = SimulationSpec(
        rows=2048, cols=2048, frames=1, reflections=round(1.2 * spots), rings=tuple(np.linspace(40.0, 1400.0, 60)),
        heights=(100.0, 5000.0), rocking=(3.0, 4.0), eta=(0.0, 0.5), ring_strain=0.02, window=27,
    )  # fmt: skip
    reflections, panel = simulate.draw_reflections(spec, 1), simulate.make_panel(spec, 1)
    expected, _ = simulate.expected_frame(spec, reflections, panel, 1, 0)
    return simulate.measure(spec, expected, panel, 1, 0)


def seconds(work: Callable[[], Any], best: float = np.inf) -> float:
    start = time.process_time()
    work()
    return min(best, time.process_time() - start)


def compare(
    frames: list[np.ndarray], threshold: int, options: dict[str, float], zero_suppression: float | None
) -> dict:
    """Times a frame, and their ratio; stops when the two do not find the same."""
    ours = theirs = fits = np.inf
    components = lone = 0
    patches = []
    for frame in frames:
        (expected, cut), (found, crops) = loop(frame, threshold), arrays(frame, threshold, options)
        for name in COLUMNS:
            if not np.array_equal(found[name], expected[name]):
                raise SystemExit(f"column {name!r} differs: {len(found)} and {len(expected)} components")
        if not np.array_equal(crops, cut):
            raise SystemExit("crops differ")
        good = peaks.is_lone(found)
        components, lone = components + len(found), lone + int(good.sum())
        patches.append(peaks.crops(frame, found["row"][good], found["col"][good], SIZE))
    stack = np.concatenate(patches)
    for _ in range(REPEAT):
        ours = seconds(lambda: [arrays(frame, threshold, options) for frame in frames], ours)
        theirs = seconds(lambda: [loop(frame, threshold) for frame in frames], theirs)
        fits = seconds(lambda: fit(stack, read_noise=2.0, zero_suppression=zero_suppression, threads=1), fits)
    count = len(frames)
    return {
        "shape": list(frames[0].shape), "frames": count, "components_per_frame": round(components / count, 1),
        "lone_per_frame": round(lone / count, 1), "detect_ms": round(ours / count * 1e3, 2),
        "loop_ms": round(theirs / count * 1e3, 2), "ratio": round(theirs / ours, 1),
        "detect_frames_per_second": round(count / ours, 1), "fit_lone_ms": round(fits / count * 1e3, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the ruby scan")
    parser.add_argument("--write", action="store_true", help="write detection.json beside this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for spots in (100, 1000, 10_000):
        options = {"saturation": 65535.0, "read_noise": 2.0}
        results[f"simulated_{spots}"] = compare([simulated(spots)], 60, options, None)
        print(f"simulated, {spots} spots:", results[f"simulated_{spots}"], flush=True)
    if arguments.data:
        scan = open_scan("hexrd", arguments.data / RUBY)
        frames = [frame for _, frame in scan.frames(0, 8)]
        results["ruby"] = compare(frames, 150, {"saturation": 15800.0, "read_noise": 2.0}, 150.0)
        print("ruby:", results["ruby"], flush=True)
    if arguments.write:
        Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

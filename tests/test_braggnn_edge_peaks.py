"""Detection against a slow, obvious reference, its rules one by one, and crops."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from braggnn_edge.errors import UserError
from braggnn_edge.peaks import DETECTION_DTYPE, crops, detect, is_lone
from braggnn_edge.scan import open_scan


def _reference(frame: np.ndarray, threshold: float, min_area: int, size: int, margin: int) -> list[tuple]:
    """Loops: flood fill, row-major scans, plateaus by flood fill, neighbours by looking at every pixel."""
    rows, cols = frame.shape
    labels = np.zeros(frame.shape, int)
    components: list[list[tuple[int, int]]] = []

    def flood(start: tuple[int, int], inside: np.ndarray) -> list[tuple[int, int]]:
        seen, stack = {start}, [start]
        while stack:
            r, c = stack.pop()
            for place in ((r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
                if 0 <= place[0] < rows and 0 <= place[1] < cols and inside[place] and place not in seen:
                    seen.add(place)
                    stack.append(place)
        return sorted(seen)

    for place in zip(*np.nonzero(frame > threshold), strict=True):
        if not labels[place]:
            component = flood(place, frame > threshold)
            components.append(component)
            for pixel in component:
                labels[pixel] = len(components)
    result = []
    half, reach = size // 2, size // 2 + margin
    for number, component in enumerate(components, 1):
        if len(component) < min_area:
            continue
        best = max(component, key=lambda p: (frame[p], -p[0], -p[1]))
        maxima = set()
        for pixel in component:
            plateau = flood(pixel, frame == frame[pixel])
            around = [frame[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].max() for r, c in plateau]
            if max(around) == frame[pixel]:
                maxima.add(tuple(plateau))
        r, c = best
        patch = labels[max(0, r - half) : r + half + 1, max(0, c - half) : c + half + 1]
        others = {n for n in patch.ravel() if n and n != number and len(components[n - 1]) >= min_area}
        edge = r < reach or c < reach or r >= rows - reach or c >= cols - reach
        result.append((r, c, len(component), len(others), len(maxima), frame[best], edge))
    return sorted(result)


@pytest.mark.parametrize("seed", range(6))
def test_against_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blobs = rng.random((40, 57)) < 0.02
    frame = ndimage.gaussian_filter(blobs.astype(float), 1.2 if seed % 2 else 0.7) * 400
    # few levels make ties and plateaus common
    frame = np.round(frame + rng.random(frame.shape) * 4).astype((np.uint16, np.int32, np.float32)[seed % 3])
    found = detect(frame, threshold=6, min_area=3, size=7, margin=2, prominence=0)
    columns = [found[name] for name in ("row", "col", "area", "neighbours", "maxima", "maximum", "edge")]
    expected = _reference(frame, 6, 3, 7, 2)
    assert len(expected) >= 10
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


def test_ties_plateaus_saturation_and_threshold() -> None:
    frame = np.zeros((20, 30), np.uint16)
    frame[5:7, 5:8] = 100  # one plateau of equal pixels
    frame[12, 10:16] = [50, 80, 80, 60, 70, 50]  # plateau of two, then a second maximum
    frame[15, 25] = frame[16, 26] = 40  # touch at a corner
    found = detect(frame, threshold=40, min_area=2, size=5, saturation=100, prominence=0)
    assert found[["row", "col", "area", "maxima"]].tolist() == [(5, 5, 6, 1), (12, 11, 6, 2)]
    assert found["saturated"].tolist() == [True, False]
    # strictly above the threshold: 40 counts at 40 are no peak, and corners connect
    found = detect(frame, threshold=39, min_area=2, size=5)
    assert found[["row", "col", "area"]].tolist()[-1] == (15, 25, 2)


def test_prominence_tells_noise_from_a_second_peak() -> None:
    frame = np.zeros((15, 30))
    frame[7, 5:14] = [100, 400, 900, 400, 340, 400, 300, 200, 100]
    # The second maximum of 400 rises 60 above the valley of 340: 3 standard deviations of sqrt(400).
    for options, maxima in (
        ({"prominence": 2.9}, 2),
        ({"prominence": 3.1}, 1),
        ({"prominence": 2.9, "gain": 1.2}, 1),
        ({"prominence": 2.9, "read_noise": 6.0}, 1),
    ):
        assert detect(frame, threshold=50, size=5, **options)["maxima"].tolist() == [maxima], options


def test_neighbours_reach_into_the_patch() -> None:
    frame = np.zeros((40, 40))
    frame[10:12, 10:12] = 50
    frame[10:12, 15:18] = 40  # its nearest pixel is 5 columns from (10, 10): in an 11 px patch, not in a 9 px one
    frame[14, 10] = 60  # a single pixel is noise, not a neighbour
    # from (10, 15) the first component is 4 columns away
    for size, neighbours in ((7, [0, 0]), (9, [0, 1]), (11, [1, 1])):
        found = detect(frame, threshold=10, size=size)
        assert found["neighbours"].tolist() == neighbours
        assert is_lone(found).tolist() == [n == 0 for n in neighbours]


def test_patches_do_not_wrap_around_the_frame() -> None:
    frame = np.zeros((20, 20))
    frame[9:11, 0:2] = 50
    frame[9:11, 18:20] = 50
    frame[0:2, 9:11] = 50
    found = detect(frame, threshold=10, size=7)
    assert found["neighbours"].tolist() == [0, 0, 0]
    assert found["area"].tolist() == [4, 4, 4]
    assert found["edge"].all()


def test_edge_flag_is_that_of_the_crop() -> None:
    for row, col in np.ndindex(12, 14):
        frame = np.zeros((12, 14))
        frame[row, col] = 9
        found = detect(frame, threshold=1, min_area=1, size=5, margin=1)
        if found["edge"][0]:
            with pytest.raises(UserError, match="does not fit"):
                crops(frame, found["row"], found["col"], 7)
        else:
            assert crops(frame, found["row"], found["col"], 7)[0, 3, 3] == 9


def test_crops_keep_dtype_and_pixels() -> None:
    frame = np.arange(30 * 20, dtype=np.int32).reshape(30, 20)
    rows, cols = np.array([5, 24, 14]), np.array([5, 14, 7])
    found = crops(frame, rows, cols, 11)
    assert (found.shape, found.dtype) == ((3, 11, 11), np.int32)
    for patch, r, c in zip(found, rows, cols, strict=True):
        assert np.array_equal(patch, frame[r - 5 : r + 6, c - 5 : c + 6])
    assert crops(frame, rows[:0], cols[:0], 11).shape == (0, 11, 11)


def test_nothing_found() -> None:
    for frame in (np.zeros((20, 20), np.uint16), np.eye(20) * 0.5, np.diag([9.0] + [0.0] * 19)):
        found = detect(frame, threshold=1, min_area=2)
        assert (found.shape, found.dtype) == ((0,), DETECTION_DTYPE)
    everything = detect(np.ones((20, 20)), threshold=0.5)
    assert everything[["row", "col", "area", "maxima"]].tolist() == [(0, 0, 400, 1)]


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (np.zeros((20, 20)), {"size": 10}, "patch size 10: expected an odd number"),
        (np.zeros((20, 9)), {"size": 11}, "patch size 11 is larger than the frame of 20 x 9"),
        (np.zeros((20, 11)), {"size": 11, "margin": 1}, "13 is larger than the frame"),
        (np.zeros((20, 20)), {"min_area": 0}, "min_area 0"),
        (np.zeros((20, 20)), {"margin": -1}, "margin -1"),
        (np.zeros((20, 20)), {"threshold": float("nan")}, "threshold nan"),
        (np.full((20, 20), np.nan), {}, "holds 400 NaN pixels"),
        (np.zeros((2, 20, 20)), {}, r"expected real numbers \(rows, cols\)"),
        (np.zeros((20, 20), complex), {}, "expected real numbers"),
    ],
)
def test_hostile_input(frame: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        detect(frame, **({"threshold": 1} | options))


def test_ruby_counts() -> None:
    """Components of a part of panel ff1, against scipy's labelling of the image."""
    folder = os.environ.get("BRAGGNN_EDGE_DATA")
    if not folder:
        pytest.skip("BRAGGNN_EDGE_DATA does not name the folder of real data")
    scan = open_scan("hexrd", Path(folder) / "chess_ruby/mruby-0129_000004_ff1_000012-cachefile.npz")
    components = large = found = 0
    for _, whole in scan.frames(0, 16):
        frame = whole[1500:2300]
        labels, n = ndimage.label(frame > 150, np.ones((3, 3)))
        areas = np.bincount(labels.ravel())[1:]
        peaks = detect(frame, threshold=150, min_area=1)
        components, large = components + n, large + int((areas >= 4).sum())
        assert len(peaks) == n
        assert sorted(peaks["area"].tolist()) == sorted(areas.tolist())
        found += len(detect(frame, threshold=150, min_area=4))
    assert found == large > 2

"""Detection against a slow, obvious reference, its rules one by one, and crops."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.peaks import find as peaks
from braggnn_edge.peaks.find import MAXIMUM_DTYPE, crops, is_lone


def detect(frame: np.ndarray, **options) -> np.ndarray:
    """The components alone."""
    return peaks.detect(frame, **options).components


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
    # A plateau falls as a whole when one of its pixels does.
    frame[1, 20:26] = [50, 80, 80, 80, 90, 50]
    assert detect(frame, threshold=40, min_area=2, size=5, prominence=0)["maxima"].tolist() == [1, 1, 2]
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


def test_every_significant_maximum_is_listed() -> None:
    frame = np.zeros((20, 40))
    frame[5, 3:8] = [100, 900, 300, 800, 100]
    frame[12, 20:31] = [100, 600, 200, 900, 400, 470, 455, 470, 100, 700, 100]
    found = peaks.detect(frame, threshold=50, size=5, prominence=3)
    # 470 rises by 70 above 400, which is more than 3 * sqrt(470) = 65; its twin by 70 above the valley to the
    # brightest, but by 15 above that to the first, which counts before it.
    columns = [found.maxima[name].tolist() for name in ("row", "col", "maximum", "component", "maxima", "brightest")]
    assert list(zip(*columns, strict=True)) == [
        (5, 4, 900, 0, 2, True),
        (5, 6, 800, 0, 2, False),
        (12, 21, 600, 1, 4, False),
        (12, 23, 900, 1, 4, True),
        (12, 25, 470, 1, 4, False),
        (12, 29, 700, 1, 4, False),
    ]
    assert np.array_equal(found.pixels, np.flatnonzero(frame > 50))
    assert found.component.tolist() == [0] * 5 + [1] * 11
    # The patch of a maximum is its own: the pair's second is out of reach of a patch around the first.
    frame[5, 10:12] = frame[6, 10:12] = 60
    found = peaks.detect(frame, threshold=50, size=9, prominence=3)
    assert found.maxima["neighbours"].tolist()[:3] == [0, 1, 1]
    assert found.maxima["edge"].tolist()[:2] == [False, False]


def test_threshold_of_every_pixel() -> None:
    rng = np.random.default_rng(2)
    frame = rng.poisson(ndimage.gaussian_filter((rng.random((60, 70)) < 0.02) * 1.0, 1.0) * 300.0).astype(np.int32)
    same = detect(frame, threshold=np.full(frame.shape, 7.5), prominence=2)
    assert np.array_equal(same, detect(frame, threshold=7.5, prominence=2))
    # A ramp below frame and threshold alike changes what is found in nothing but the value of the maximum.
    ramp = np.add.outer(np.arange(60), 2 * np.arange(70))
    lifted = detect(frame * 200 + ramp, threshold=7.5 * 200 + ramp, prominence=0)
    plain = detect(frame * 200, threshold=7.5 * 200, prominence=0)
    assert lifted["area"].sum() == plain["area"].sum()
    assert len(lifted) == len(plain) > 10
    # A pixel below its own threshold is no part of a component, even beside and brighter than one that is.
    frame = np.zeros((20, 20))
    frame[8:10, 8:10], frame[8, 10] = 50, 90
    threshold = np.full(frame.shape, 40.0)
    threshold[8, 10] = 100
    found = detect(frame, threshold=threshold)
    assert found[["row", "col", "area", "maxima"]].tolist() == [(8, 8, 4, 1)]


@pytest.mark.parametrize("filler", [0, -2, 1e6, np.nan])
def test_bad_pixels_belong_to_no_peak(filler: float) -> None:
    frame = np.zeros((30, 40))
    frame[9:12, 9:12] = [[200, 500, 200], [400, 900, 420], [200, 500, 200]]
    frame[20:22, 30:32] = 80
    valid = np.ones(frame.shape, bool)
    valid[10, 10] = valid[6, 13] = valid[20, 30] = False
    frame[~valid] = filler
    found = detect(frame, threshold=50, min_area=3, size=9, valid=valid, prominence=1)
    # Around the bad pixel in its middle the first is a ring. The pixels on opposite sides are no two peaks, since
    # nothing between them is known to be darker.
    assert found[["row", "col", "area", "maxima"]].tolist() == [(9, 10, 8, 1), (20, 31, 3, 1)]
    assert found["masked"].tolist() == [2, 1]
    assert not is_lone(found).any()
    at_corner = np.zeros((9, 9))
    at_corner[:2, :2] = 10
    found = detect(at_corner, threshold=1, size=5, valid=np.arange(81).reshape(9, 9) != 80)
    assert found["masked"].tolist() == [0]


def test_a_frame_that_is_all_peak_is_done_in_seconds() -> None:
    frame = np.random.default_rng(1).poisson(200, (600, 600)).astype(np.uint16)
    start = time.process_time()
    found = detect(frame, threshold=20)
    assert time.process_time() - start < 5
    assert len(found) == 1
    assert found["maxima"][0] > 6


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
        assert (found.shape, found.dtype) == ((0,), MAXIMUM_DTYPE)
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
        (np.zeros((20, 20)), {"threshold": np.ones((20, 19))}, r"threshold of shape \(20, 19\): expected one number"),
        (np.zeros((20, 20)), {"threshold": np.full((20, 20), np.nan)}, "threshold holds NaN"),
        (np.zeros((20, 20)), {"valid": np.ones((20, 19), bool)}, "valid is bool"),
        (np.zeros((20, 20)), {"valid": np.ones((20, 20))}, "valid is float64"),
        (np.zeros((2, 20, 20)), {}, r"expected real numbers \(rows, cols\)"),
        (np.zeros((20, 20), complex), {}, "expected real numbers"),
    ],
)
def test_bad_input(frame: np.ndarray, options: dict, message: str) -> None:
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
        single = detect(frame, threshold=150, min_area=1)
        components, large = components + n, large + int((areas >= 4).sum())
        assert len(single) == n
        assert sorted(single["area"].tolist()) == sorted(areas.tolist())
        found += len(detect(frame, threshold=150, min_area=4))
    assert found == large > 2

"""The window rule against a plain reading of it, its theorem, and sparse frames against dense ones, for any frame."""

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import ndimage

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.find import detect
from braggnn_edge.peaks.peak_list import PeakFlag
from braggnn_edge.peaks.rules import component_rule, window_rule
from braggnn_edge.peaks.significance import Significance
from braggnn_edge.peaks.window import window_peaks

EIGHT = np.ones((3, 3), bool)


@st.composite
def frames(draw: st.DrawFn, most: int = 6, side: int = 12) -> np.ndarray:
    """Frames (rows, cols) of 0 to ``most``, at least 3 px a side, of which some share is 0."""
    rows, cols = draw(st.integers(3, side)), draw(st.integers(3, side))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frame = rng.integers(0, most + 1, (rows, cols)) * (rng.random((rows, cols)) < draw(st.floats(0.1, 1.0)))
    return frame.astype(draw(st.sampled_from([np.uint8, np.uint16, np.int32, np.float32])))


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray | None:
    """Good pixels of a frame; often all of them, as None."""
    if draw(st.booleans()):
        return None
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.random(shape) > draw(st.sampled_from([0.02, 0.2]))


def plain(
    frame: np.ndarray, threshold: np.ndarray, valid: np.ndarray, reach: int, min_area: int
) -> list[tuple[int, int]]:
    """The rule as it is written, pixel by pixel; the area by steps, as a stream would count it."""
    rows, cols = frame.shape
    above = {(r, c) for r in range(rows) for c in range(cols) if valid[r, c] and frame[r, c] > threshold[r, c]}
    peaks = []
    for r, c in sorted(above):
        brightest = all(
            frame[i, j] < frame[r, c] or (frame[i, j] == frame[r, c] and (i, j) > (r, c))
            for i, j in above
            if (i, j) != (r, c) and max(abs(i - r), abs(j - c)) <= reach
        )
        near = {(r, c)}
        for _ in range(min_area - 1):
            near |= {(i + di, j + dj) for i, j in near for di in (-1, 0, 1) for dj in (-1, 0, 1)} & above
        if brightest and len(near) >= min_area:
            peaks.append((r, c))
    return peaks


@given(frames(), st.integers(0, 4), st.integers(1, 6), st.integers(0, 3), st.booleans(), st.data())
def test_peaks_are_those_of_a_plain_reading(
    frame: np.ndarray, reach: int, min_area: int, level: int, local: bool, data: st.DataObject
) -> None:
    valid = data.draw(masks(frame.shape))
    threshold = np.full(frame.shape, float(level), np.float32)
    if local:  # a threshold of its own for every pixel, as a local background gives it
        threshold += np.random.default_rng(level).integers(0, 3, frame.shape)
    found = window_peaks(
        frame, threshold=threshold if local else level, valid=valid, reach=reach, min_area=min_area, size=3
    )
    good = np.ones(frame.shape, bool) if valid is None else valid
    expected = plain(frame, threshold, good, reach, min_area)
    assert list(zip(found.row.tolist(), found.col.tolist(), strict=True)) == expected
    labels = ndimage.label(good & (frame > threshold), EIGHT)[0]
    area = np.bincount(labels.ravel())
    for n, (r, c) in enumerate(expected):
        near = labels[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]
        assert found.area[n] == area[labels[r, c]]
        assert found.maximum[n] == frame[r, c]
        assert found.edge[n] == (r < 1 or c < 1 or r > frame.shape[0] - 2 or c > frame.shape[1] - 2)
        assert found.neighbours[n] == len({k for k in set(near.ravel()) - {0, labels[r, c]} if area[k] >= min_area})
        assert found.masked[n] == (~good[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]).sum()


@given(frames(side=16), st.integers(1, 4), st.integers(1, 5))
@example(np.eye(7, dtype=np.uint8), 3, 4)
def test_a_small_component_without_a_rival_gives_one_peak_at_its_brightest_pixel(
    frame: np.ndarray, reach: int, min_area: int
) -> None:
    found = window_peaks(frame, threshold=0, reach=reach, min_area=min_area, size=3)
    labels, count = ndimage.label(frame > 0, EIGHT)
    at = list(zip(found.row.tolist(), found.col.tolist(), strict=True))
    for number in range(1, count + 1):
        mine = labels == number
        if mine.sum() < min_area:
            continue
        # Of equal pixels the first in raster order.
        r, c = np.unravel_index(np.where(mine, frame.astype(int), -1).argmax(), frame.shape)
        rows, cols = np.nonzero(mine)
        others = (labels > 0) & ~mine
        rival = others[max(r - reach, 0) : r + reach + 1, max(c - reach, 0) : c + reach + 1].any()
        if np.maximum(abs(rows - r), abs(cols - c)).max() <= reach and not rival:
            assert [peak for peak in at if mine[peak]] == [(r, c)]


@given(frames(), st.integers(0, 3), st.sampled_from([component_rule, window_rule]), st.data())
def test_of_sparse_frames_the_same_is_found(frame: np.ndarray, level: int, rule, data: st.DataObject) -> None:
    valid = data.draw(masks(frame.shape))
    if valid is not None:
        frame = np.where(valid, frame, frame.dtype.type(0))
    stored = np.flatnonzero(frame)
    find = rule(float(level), min_area=2)
    whole, sparse = find(frame, valid, None, size=3), find(frame, valid, stored, size=3)
    for name in vars(whole):
        assert np.array_equal(getattr(whole, name), getattr(sparse, name)), name


@given(frames(), st.sampled_from([component_rule, window_rule]))
def test_every_pixel_of_a_component_belongs_to_the_nearest_of_its_peaks(frame: np.ndarray, rule) -> None:
    found = rule(0.0, min_area=1, gain=0.01, read_noise=0.0)(frame, size=3)
    assume(len(found.row))
    labels = ndimage.label(frame > 0, EIGHT)[0].ravel()
    peak = found.row * frame.shape[1] + found.col
    for pixel, owner in zip(found.pixels, found.owner, strict=True):
        own = np.flatnonzero(labels[peak] == labels[pixel])
        if not len(own):
            assert owner == -1
            continue
        row, col = np.divmod(pixel, frame.shape[1])
        distance = (found.row[own] - row) ** 2 + (found.col[own] - col) ** 2
        assert owner in own[distance == distance.min()]


def test_the_two_rules_agree_on_lone_peaks_and_not_on_near_ones() -> None:
    frame = np.zeros((30, 40), np.uint16)
    for row, col, top in ((8, 8, 90), (8, 20, 50), (8, 22, 40), (20, 30, 70)):
        frame[row - 1 : row + 2, col - 1 : col + 2] = np.maximum(frame[row - 1 : row + 2, col - 1 : col + 2], 20)
        frame[row, col] = top
    component = detect(frame, threshold=10, size=5, prominence=0).maxima
    window = window_peaks(frame, threshold=10, size=5)
    assert component["col"].tolist() == [8, 20, 22, 30]
    assert window.col.tolist() == [8, 20, 30]  # the one at 22 has a brighter pixel within three


def test_significance_takes_bad_pixels_for_nothing_whatever_they_hold() -> None:
    frame, valid = np.zeros((9, 9), np.uint16), np.ones((9, 9), bool)
    frame[3:6, 3:6], frame[4, 4], frame[1, 1] = 20, 30, 5000
    test = Significance.of(4.0)
    assert window_peaks(frame, threshold=10, size=3, significance=test).row.tolist() == []
    for rule in (component_rule, window_rule):
        assert rule(10, significance=4.0)(frame, size=3).row.tolist() == []
    valid[1, 1] = False
    assert window_peaks(frame, threshold=10, size=3, valid=valid, significance=test).row.tolist() == [4]
    for rule in (component_rule, window_rule):
        assert rule(10, significance=4.0)(frame, valid, size=3).row.tolist() == [4]


def test_bad_input_of_the_window_rule_is_refused() -> None:
    frame = np.zeros((20, 20), np.float32)
    with pytest.raises(UserError, match="threshold nan"):
        window_peaks(frame, threshold=np.nan)
    with pytest.raises(UserError, match="min_area 0"):
        window_peaks(frame, threshold=1.0, min_area=0)
    with pytest.raises(UserError, match="reach -1"):
        window_peaks(frame, threshold=1.0, reach=-1)
    frame[3, 3] = np.nan
    with pytest.raises(UserError, match="1 NaN pixels"):
        window_peaks(frame, threshold=1.0)


@given(
    frames(most=60), st.integers(0, 30), st.floats(0.3, 6.0), st.sampled_from([component_rule, window_rule]), st.data()
)
def test_significance_leaves_out_peaks_and_adds_none(
    frame: np.ndarray, level: int, deviations: float, rule, data: st.DataObject
) -> None:
    valid = data.draw(masks(frame.shape))
    options = {"min_area": 2, "gain": 0.5, "read_noise": 0.4}
    every = rule(float(level), **options)(frame, valid, size=3)
    found = rule(float(level), significance=deviations, **options)(frame, valid, size=3)
    kept = Significance.of(deviations, 0.5, 0.4).at(frame, valid, every.row, every.col)
    for name in ("row", "col", "maximum", "area"):
        assert np.array_equal(getattr(found, name), getattr(every, name)[kept])
    labels = ndimage.label(frame > level if valid is None else (frame > level) & valid, EIGHT)[0][found.row, found.col]
    double = np.bincount(labels, minlength=1)[labels] > 1 if len(labels) else np.zeros(0, bool)
    assert np.array_equal((found.flags & PeakFlag.DOUBLE) > 0, double)

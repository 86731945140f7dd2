"""Properties of peak finding, of the split and of the error figures, for generated inputs."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import ndimage

from braggnn_edge.evaluation.metrics import distances, summary, validation_figures
from braggnn_edge.label.spec import SplitSpec
from braggnn_edge.label.split import frame_splits
from braggnn_edge.peaks.components import Runs
from braggnn_edge.peaks.find import detect
from braggnn_edge.peaks.splits import EXCLUDED, SPLITS

EIGHT = np.ones((3, 3), bool)  # what touches at a corner belongs together


@st.composite
def images(draw: st.DrawFn, most: int) -> np.ndarray:
    """Images (rows, cols) of 0 to ``most``, of 1 to 9 px a side."""
    rows, cols = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    pixels = draw(st.lists(st.integers(0, most), min_size=rows * cols, max_size=rows * cols))
    return np.array(pixels, np.uint16).reshape(rows, cols)


def scipy_components(above: np.ndarray) -> np.ndarray:
    """(rows, cols) number of each pixel's component, from 1; 0 outside."""
    return ndimage.label(above, EIGHT)[0]


@given(images(1), st.integers(1, 6))
def test_runs_are_the_components_of_scipy(image: np.ndarray, min_area: int) -> None:
    above = image.astype(bool)
    expected = scipy_components(above)
    runs = Runs.of(above)
    flat, label = runs.pixels()
    assert np.array_equal(flat, np.flatnonzero(above))
    pairs = set(zip(label.tolist(), expected.ravel()[flat].tolist(), strict=True))
    assert len(pairs) == len({mine for mine, _ in pairs}) == len({other for _, other in pairs}) == expected.max()
    area = np.bincount(expected.ravel())
    kept = above & (area[expected] >= min_area)
    flat, label = runs.large(min_area).pixels()
    assert np.array_equal(flat, np.flatnonzero(kept))
    assert sorted(set(label.tolist())) == list(range(np.count_nonzero(area[1:] >= min_area)))


@given(images(1), st.integers(0, 3))
def test_others_are_the_components_in_the_patch(image: np.ndarray, half: int) -> None:
    above = image.astype(bool)
    assume(above.any())
    expected = scipy_components(above)
    runs = Runs.of(above)
    flat, label = runs.pixels()
    rows, cols = np.divmod(flat, image.shape[1])
    found = runs.others(rows, cols, label, half)
    for row, col, count in zip(rows.tolist(), cols.tolist(), found.tolist(), strict=True):
        patch = expected[max(0, row - half) : row + half + 1, max(0, col - half) : col + half + 1]
        assert count == len(set(patch.ravel().tolist()) - {0, int(expected[row, col])})


def plateaus(image: np.ndarray, above: np.ndarray) -> list[int]:
    """Flat index of the first pixel of every maximum: a plateau with no brighter pixel beside it, among those above."""
    found = []
    for value in np.unique(image[above]):
        label, count = ndimage.label(above & (image == value), EIGHT)
        for number in range(1, count + 1):
            beside = ndimage.binary_dilation(label == number, EIGHT) & above
            if image[beside].max() == value:
                found.append(int(np.flatnonzero(label == number)[0]))
    return sorted(found)


@given(images(5), st.integers(0, 3), st.booleans(), st.data())
def test_peaks_are_those_of_a_slow_search(image: np.ndarray, threshold: int, masked: bool, data: st.DataObject) -> None:
    valid = None
    if masked:
        bad = data.draw(st.sets(st.integers(0, image.size - 1), max_size=6))
        valid = ~np.isin(np.arange(image.size), list(bad)).reshape(image.shape)
    above = (image > threshold) & (True if valid is None else valid)
    label = scipy_components(above)
    maxima = plateaus(image, above)
    found = detect(image, threshold=threshold, valid=valid, min_area=1, size=1, margin=0, prominence=0)
    peaks = found.maxima
    flat = peaks["row"] * image.shape[1] + peaks["col"]
    assert flat.tolist() == maxima
    of = label.ravel()[flat]
    assert peaks["area"].tolist() == np.bincount(label.ravel())[of].tolist()
    assert peaks["maxima"].tolist() == np.bincount(of)[of].tolist()
    assert peaks["maximum"].tolist() == image.ravel()[flat].tolist()
    for number in range(1, label.max() + 1):
        inside = np.flatnonzero(label == number)
        brightest = int(inside[np.argmax(image.ravel()[inside])])  # the first of equals
        assert flat[peaks["brightest"] & (of == number)].tolist() == [brightest]


POSITIONS = st.lists(st.tuples(st.integers(-64, 64), st.integers(-64, 64)), min_size=1, max_size=30)


@given(POSITIONS)
def test_percentiles_are_interpolated_in_the_sorted_distances(eighths: list[tuple[int, int]]) -> None:
    estimate = np.array(eighths) / 8.0 + 3.0
    ordered = sorted(math.hypot(row / 8, col / 8) for row, col in eighths)
    entry = summary(estimate, np.full_like(estimate, 3.0), "truth")
    figures = validation_figures(distances(estimate, np.full_like(estimate, 3.0)))
    near = {"rel": 1e-12, "abs": 1e-12}  # a few roundings
    for key, percent in (("p50", 50), ("p75", 75), ("p95", 95), ("p99_5", 99.5)):
        place = percent / 100 * (len(ordered) - 1)
        low = min(int(place), len(ordered) - 1)
        high = min(low + 1, len(ordered) - 1)
        expected = ordered[low] + (place - low) * (ordered[high] - ordered[low])
        assert entry[key] == pytest.approx(expected, **near)
        assert figures.get(key, expected) == pytest.approx(expected, **near)
    assert set(figures) == {"score", "p50", "p75", "p95"}
    assert entry["mean"] == figures["score"] == pytest.approx(sum(ordered) / len(ordered), **near)
    bias = [sum(axis) / 8 / len(eighths) for axis in zip(*eighths, strict=True)]
    assert [entry["bias_row"], entry["bias_col"]] == pytest.approx(bias, **near)


@st.composite
def split_specs(draw: st.DrawFn) -> SplitSpec:
    guard = draw(st.integers(0, 4))
    block = draw(st.integers(2 * guard + 1, 2 * guard + 12))
    return SplitSpec(block, draw(st.sampled_from((0.05, 0.1, 0.3))), draw(st.sampled_from((0.0, 0.1, 0.3))), guard)


@given(
    split_specs(),
    st.integers(30, 400),
    st.sets(st.sampled_from(SPLITS[:3]), min_size=2).map(sorted).map(tuple),
    st.integers(0, 99),
)
def test_no_reflection_has_frames_in_two_splits(spec: SplitSpec, frames: int, use: tuple[str, ...], seed: int) -> None:
    blocks = -(-frames // spec.block)
    assume(blocks >= 2 + blocks * (spec.validation + spec.test))
    split = frame_splits(frames, spec, use, np.random.default_rng(seed))
    kept = np.flatnonzero(split != EXCLUDED)
    assert len(split) == frames
    assert set(split[kept].tolist()) <= {SPLITS.index(name) for name in use}
    change = np.flatnonzero(np.diff(split[kept].astype(int)))
    assert (kept[change + 1] - kept[change] > 2 * spec.guard).all()
    # What is left out lies at a border, or is a block of a split that is not in use.
    whole = frame_splits(frames, spec, SPLITS[:3], np.random.default_rng(seed))
    for begin in range(0, frames, spec.block):
        inner = whole[begin + spec.guard : min(begin + spec.block, frames) - spec.guard]
        assert len(set(inner.tolist())) <= 1
        assert EXCLUDED not in inner
    used = np.isin(whole, [SPLITS.index(name) for name in use])
    assert np.array_equal(split, np.where(used, whole, EXCLUDED))

"""Peaks to reflections: against plain loops, against simulated truth, over the end of a turn, in any order."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braggnn_edge import cli
from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks import peak_file
from braggnn_edge.peaks.merge import Merged, MergeSpec, merge
from braggnn_edge.peaks.peak_list import PEAKS, REFLECTIONS, PeakFlag
from braggnn_edge.peaks.rotation import Frames
from braggnn_edge.simulation.reflections import draw_reflections, share_of_frame
from braggnn_edge.simulation.spec import SimulationSpec

#: Never cut at valleys.
PLAIN = {"valley": 0.0}


def peaks_at(
    places: list[tuple[float, float, float]], step: float = 1.0, start: float = 0.0, intensity: object = 100.0
) -> np.ndarray:
    """Peaks at (frame, row, col); the scan begins at ``start`` degrees and turns by ``step`` a frame."""
    peaks = np.zeros(len(places), PEAKS)
    peaks["frame"], peaks["row"], peaks["col"] = np.reshape(places, (-1, 3)).T
    peaks["omega"] = start + (peaks["frame"] + 0.5) * step
    peaks["sigma_row"] = peaks["sigma_col"] = 0.1
    peaks["intensity"] = intensity
    peaks["area"], peaks["maximum"] = 5, 40.0
    return peaks


def partition(of: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(of == number).tolist()) for number in np.unique(of)}


def by_loops(places: list[tuple[int, float, float]], spec: MergeSpec, turn: int) -> set[frozenset[int]]:
    """The rule once more, in loops over all pairs and a plain union-find; of places in their canonical order."""
    parent = list(range(len(places)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    def candidates(later: int) -> list[tuple[float, int, int, bool]]:
        found = []
        for i, (f, row, col) in enumerate(places):
            for j, (g, other_row, other_col) in enumerate(places):
                distance = float(np.hypot(row - other_row, col - other_col))
                wrapped = turn > 0 and g < f and g + turn - f == later
                if i != j and distance <= spec.radius and (g - f == later or wrapped):
                    found.append((distance, i, j, wrapped))
        return sorted(found)

    if spec.same_frame:
        for later in range(spec.gap + 2):
            for _, i, j, _ in candidates(later):
                parent[root(i)] = root(j)
    else:
        has_next, has_last, over = set(), set(), []
        for later in range(1, spec.gap + 2):
            for _, i, j, wrapped in candidates(later):
                if i in has_next or j in has_last:
                    continue
                has_next.add(i)
                has_last.add(j)
                if wrapped:
                    over.append((i, j))
                else:
                    parent[root(i)] = root(j)
        chain = [root(i) for i in range(len(places))]
        frames = {c: [places[k][0] for k in range(len(places)) if chain[k] == c] for c in chain}
        heads, tails = {chain[i] for i, _ in over}, {chain[j] for _, j in over}
        for i, j in over:
            if min(frames[chain[i]]) > max(frames[chain[j]]) and chain[i] not in tails and chain[j] not in heads:
                parent[root(i)] = root(j)
    return partition(np.array([root(i) for i in range(len(places))]))


@given(
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 12), st.integers(0, 3)), min_size=2, max_size=40),
    st.sampled_from([0.25, 0.5, 0.75, 1.5, 4.0]),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from([0.25, 45.0, -45.0, 0.0]),
)
def test_is_the_same_as_loops_over_all_pairs(cells, radius, gap, same_frame, step) -> None:
    places = [(f, row / 4, col / 4) for f, row, col in sorted(cells)]
    spec = MergeSpec(radius, gap, same_frame=same_frame, **PLAIN)
    peaks = peaks_at(places, step)
    if step == 0:
        peaks["omega"] = np.nan
    frames = np.unique(peaks["frame"])
    turn = 8 if abs(step) == 45 and len(frames) > 1 else 0
    found = merge(peaks, spec)
    assert partition(found.of) == by_loops(places, spec, turn)
    if not same_frame:
        assert (found.reflections["peaks"] == found.reflections["frames"]).all()
    assert found.reflections["peaks"].sum() == len(peaks)


@given(st.permutations(range(30)), st.booleans())
def test_the_order_of_the_peaks_does_not_matter(order, same_frame) -> None:
    rng = np.random.default_rng(0)
    places = np.stack([rng.integers(0, 6, 30), rng.integers(0, 3, 30) + 0.1, rng.integers(0, 3, 30)], 1)
    peaks = peaks_at(places, intensity=rng.uniform(1, 100, 30))
    peaks["scan"] = rng.integers(0, 2, 30)
    spec = MergeSpec(1.5, same_frame=same_frame)
    first, second = merge(peaks, spec), merge(peaks[list(order)], spec)
    assert first.reflections.tobytes() == second.reflections.tobytes()
    assert np.array_equal(first.of[list(order)], second.of)


def simulated(seed: int, frames: int, jitter: float, sigma: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, dict]:
    """Peaks of a simulated scan with errors of known sigma, the reflection of each, and the reflections."""
    spec = SimulationSpec(
        rows=1500, cols=1500, frames=frames, reflections=600, neighbours=0.0, heights=(1e3, 1e5), omega_step=0.25
    )
    drawn, rng = draw_reflections(spec, seed), np.random.default_rng(seed)
    parts = []
    for frame in range(frames):
        share = share_of_frame(spec, drawn, frame)
        seen = np.flatnonzero(share * drawn["height"] > 50)
        peak, truth = np.zeros(len(seen), PEAKS), seen
        peak["frame"], peak["omega"] = frame, (frame + 0.5) * spec.omega_step
        peak["intensity"] = share[seen] * drawn["height"][seen]
        for axis in ("row", "col"):
            peak[f"sigma_{axis}"] = rng.uniform(*sigma, len(seen))
            spread = np.hypot(peak[f"sigma_{axis}"], jitter)
            peak[axis] = drawn[axis][seen] + spread * rng.standard_normal(len(seen))
        parts.append((peak, truth))
    return np.concatenate([p for p, _ in parts]), np.concatenate([t for _, t in parts]), drawn


def test_each_simulated_reflection_is_found_once_and_better_placed_than_in_its_frames() -> None:
    peaks, truth, drawn = simulated(3, 60, 0.0, (0.03, 0.3))
    found = merge(peaks)
    # Reflections that share a place and a time cannot be told apart by anybody.
    pairs = np.unique(np.stack([found.of, truth], 1), axis=0)
    once = (np.bincount(pairs[:, 1])[np.unique(truth)] == 1) & (
        np.bincount(pairs[:, 0])[found.of[np.unique(truth, return_index=True)[1]]] == 1
    )
    assert once.mean() > 0.98
    assert abs(len(found.reflections) - len(np.unique(truth))) <= 0.02 * len(np.unique(truth))
    good = np.isin(truth, np.unique(truth)[once])
    single = np.hypot(peaks["row"] - drawn["row"][truth], peaks["col"] - drawn["col"][truth])[good]
    number, first = np.unique(found.of[good], return_index=True)
    mine, true = found.reflections[number], drawn[truth[good][first]]
    several = mine["peaks"] > 1
    assert several.sum() > 300

    def typical(row: str, col: str) -> float:
        return float(
            np.sqrt(np.mean((mine[row] - true["row"])[several] ** 2 + (mine[col] - true["col"])[several] ** 2))
        )

    best, plain = typical("weighted_row", "weighted_col"), typical("row", "col")
    assert best < plain < np.sqrt(np.mean(single**2))
    for row, sigma in (("row", "sigma_row"), ("weighted_row", "weighted_sigma_row")):
        pull = (mine[row] - true["row"]) / mine[sigma]
        # Of some 500, shares of 68.3 and 95.4 % have standard deviations of 2.1 and 0.9 %.
        assert 0.62 < np.mean(np.abs(pull) < 1) < 0.74, row
        assert 0.925 < np.mean(np.abs(pull) < 2) < 0.98, row
    inside = (mine["flags"] & PeakFlag.CUT) == 0
    assert 0 < (~inside).sum() < inside.sum()
    error = np.abs(mine["omega"] - true["omega"])[inside]
    assert np.median(error) < 0.02  # of frames of 0.25 degrees; the intensities have no noise here
    assert np.median(np.abs(mine["omega"] - true["omega"])[~inside]) > np.median(error)


def test_a_reflection_at_the_end_of_a_full_turn_is_one() -> None:
    for step, start in ((1.0, 0.0), (-1.0, 0.0), (1.0, -180.0), (-1.0, 360.0)):
        places = [(f, 10.0, 10.0) for f in (358, 359, 0, 1)] + [(f, 30.0, 30.0) for f in (100, 101)]
        found = merge(peaks_at([*places, (2, 50, 50)], step, start, [30, 10, 10, 10, 5, 5, 5])).reflections
        assert found["peaks"].tolist() == [1, 2, 4]
        over = found[2]
        assert (over["first_frame"], over["last_frame"], over["frames"]) == (358, 1, 4)
        ends = start, start + 360 * step
        middle = start + step * (30 * -1.5 + 10 * -0.5 + 10 * 0.5 + 10 * 1.5) / 60  # from the start of the turn
        wanted = next(w for w in (middle, middle - 360, middle + 360) if min(ends) <= w < max(ends))
        assert over["omega"] == pytest.approx(wanted)
        assert over["spread_omega"] == pytest.approx(
            np.sqrt((30 * 2.25 + 10 * 0.25 + 10 * 0.25 + 10 * 2.25) / 60 - 0.25)
        )
        assert not found["flags"].any()  # a full turn has no ends
    # The same with omega counted from 0 to 360 in a scan that starts elsewhere.
    peaks = peaks_at(places, 1.0, 200.0)
    peaks["omega"] %= 360
    assert merge(peaks).reflections["omega"].tolist() == pytest.approx([301.0, 200.0])


def test_a_scan_of_half_a_turn_has_ends_and_one_of_two_turns_sees_a_reflection_twice() -> None:
    half = merge(
        peaks_at([(f, 10.0, 10.0) for f in (0, 1, 178, 179)], 1.0), frames={0: Frames(np.arange(180) + 0.5)}
    ).reflections
    assert half["omega"].tolist() == [1.0, 179.0]
    assert (half["flags"] == PeakFlag.CUT).all()
    twice = merge(peaks_at([(f, 10.0, 10.0) for f in (0, 1, 359, 360, 361, 719)], 1.0)).reflections
    assert twice["peaks"].tolist() == [2, 3, 1]
    assert twice["omega"].tolist() == [1.0, 360.5, 719.5]


def test_a_defect_in_every_frame_is_one_and_two_peaks_of_a_frame_are_never() -> None:
    found = merge(peaks_at([(f, 10.0, 10.0) for f in range(360)])).reflections
    assert found["peaks"].tolist() == [360]
    places = [(f, row, 10.0) for f in range(4) for row in (10.0, 11.0)]
    for gap in (0, 1, 2):
        found = merge(peaks_at(places), MergeSpec(gap=gap)).reflections
        assert found["row"].tolist() == [10.0, 11.0]
        assert found["frames"].tolist() == [4, 4]
    asked = merge(peaks_at(places), MergeSpec(same_frame=True)).reflections
    assert (asked["peaks"].tolist(), asked["frames"].tolist(), asked["row"].tolist()) == ([8], [4], [10.5])


def test_the_nearest_goes_first() -> None:
    found = merge(peaks_at([(0, 10.0, 10.0), (0, 11.4, 10.0), (1, 11.0, 10.0)]))
    assert found.of.tolist() == [0, 1, 1]
    found = merge(peaks_at([(0, 10.0, 10.0), (1, 11.0, 10.0), (1, 10.3, 10.0), (3, 10.2, 10.0)]), MergeSpec(gap=0))
    assert found.of.tolist() == [0, 1, 0, 2]
    # A frame is missing: the next one goes before the one after.
    found = merge(peaks_at([(0, 10.0, 10.0), (1, 11.0, 10.0), (2, 10.0, 10.0), (4, 10.2, 10.0)]))
    assert found.of.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("heights", "share", "wanted"),
    [
        ([1, 9, 2, 8, 1], 0.3, [3, 2]),  # the valley goes with the brighter side
        ([1, 8, 2, 9, 1], 0.3, [2, 3]),
        ([1, 9, 3, 8, 1], 0.3, [5]),
        ([1, 9, 3, 8, 1], 0.5, [3, 2]),
        ([10, 4, 6, 3, 20], 0.5, [3, 2]),
        ([1, 9, 2, 8, 2, 9], 0.3, [3, 1, 2]),
        ([9, 1, 1.1, 1, 0.5], 0.3, [5]),
        ([9, -1, 1, np.nan, 7], 0.3, [2, 1, 2]),
        ([1, 9, 0, 8, 1], 0.0, [5]),
        ([5, 5], 0.9, [2]),
    ],
)
def test_a_deep_valley_parts_two_reflections(heights, share, wanted) -> None:
    places = [(f, 10.0, 10.0) for f in range(len(heights))]
    peaks = peaks_at(places)
    peaks["maximum"] = heights
    found = merge(peaks, MergeSpec(valley=share)).reflections
    assert found["peaks"].tolist() == wanted
    mixed = peaks_at(places + [(f, 40.0, 40.0) for f in range(9)])  # beside a longer one
    mixed["maximum"] = [*heights, *range(1, 10)]
    found = merge(mixed, MergeSpec(valley=share)).reflections
    assert sorted(found["peaks"].tolist()) == sorted([*wanted, 9])
    along = merge(mixed, MergeSpec(valley=share, same_frame=True)).reflections
    assert along["peaks"].tolist() == found["peaks"].tolist()


def test_columns_of_a_reflection() -> None:
    peaks = peaks_at([(4, 10.0, 20.0), (5, 11.0, 20.5), (7, 10.5, 20.0)], 0.5, intensity=[100.0, 300.0, 0.0])
    peaks["sigma_row"], peaks["sigma_col"] = [0.1, 0.2, 0.4], [0.1, np.nan, 0.2]
    peaks["maximum"], peaks["area"], peaks["flags"] = [40, 90, np.nan], [4, 9, 5], [0, PeakFlag.EDGE, PeakFlag.DOUBLE]
    peaks["scan"] = 2
    (found,) = merge(peaks).reflections
    assert found["row"] == 10.75
    assert found["omega"] == pytest.approx((2.25 * 100 + 2.75 * 300) / 400)
    assert found["spread_row"] == pytest.approx(np.sqrt(3 / 16))
    assert found["sigma_row"] == pytest.approx(np.hypot(100 * 0.1, 300 * 0.2) / 400)
    assert np.isnan(found["sigma_col"])
    inverse = np.array([100.0, 25.0, 6.25])
    assert found["weighted_row"] == pytest.approx((inverse * [10, 11, 10.5]).sum() / inverse.sum())
    assert found["weighted_sigma_row"] == pytest.approx(1 / np.sqrt(inverse.sum()))
    assert found["weighted_col"] == pytest.approx(20.0)
    assert [found[name] for name in ("scan", "intensity", "maximum", "area")] == [2, 400, 90, 18]
    assert [found[name] for name in ("frames", "peaks", "first_frame", "last_frame")] == [3, 3, 4, 7]
    assert found["flags"] == PeakFlag.EDGE | PeakFlag.DOUBLE | PeakFlag.CUT
    peaks["intensity"][0] = np.nan  # then the maxima tell the shares
    (found,) = merge(peaks).reflections
    assert found["row"] == pytest.approx((40 * 10 + 90 * 11) / 130)
    assert np.isnan(found["intensity"])
    peaks["intensity"] = peaks["sigma_row"] = peaks["maximum"] = np.nan
    (found,) = merge(peaks).reflections
    assert found["row"] == 10.5  # without shares, the plain mean
    assert np.isnan(found["weighted_row"])
    assert np.isnan(found["weighted_sigma_row"])


def test_without_omega_frames_are_neighbours_by_number_and_it_is_said() -> None:
    peaks = peaks_at([(0, 10.0, 10.0), (1, 10.0, 10.0), (5, 10.0, 10.0)])
    peaks["omega"] = np.nan
    found = merge(peaks)
    assert found.reflections["peaks"].tolist() == [2, 1]
    assert np.isnan(found.reflections["omega"]).all()
    assert found.remarks == ("scan 0: omega is not known of every frame; neighbours are told by their frame numbers",)
    assert merge(peaks_at([(0, 1.0, 1.0)])).remarks == ()


def test_a_jump_of_omega_is_not_merged_across() -> None:
    peaks = peaks_at([(f, 10.0, 10.0) for f in range(8)])
    peaks["omega"][4:] += 30
    found = merge(peaks, MergeSpec(gap=3))
    assert found.reflections["peaks"].tolist() == [4, 4]
    assert (found.reflections["flags"] == PeakFlag.CUT).all()
    assert found.remarks == ("scan 0: omega jumps 1 times; no reflection is merged across a jump",)


def test_frames_that_are_known_say_where_the_scan_ends_and_what_is_missing() -> None:
    places = [(f, 10.0, 10.0) for f in (98, 102)]
    frames = Frames(np.arange(360) + 0.5, bad=(99, 100))
    assert merge(peaks_at(places), frames={0: frames}).reflections["peaks"].tolist() == [2]
    assert merge(peaks_at(places), MergeSpec(gap=0), {0: frames}).reflections["peaks"].tolist() == [1, 1]
    assert merge(peaks_at(places)).reflections["peaks"].tolist() == [1, 1]
    over = peaks_at([(f, 10.0, 10.0) for f in (356, 1)])
    bad_ends = Frames(np.arange(360) + 0.5, bad=(0, 357, 358, 359))
    (found,) = merge(over, MergeSpec(gap=0), {0: bad_ends}).reflections
    assert (found["first_frame"], found["last_frame"], found["omega"]) == (356, 1, 359.0)
    inside = merge(peaks_at([(5, 10.0, 10.0)]), frames={0: frames}).reflections
    assert not inside["flags"].any()
    with pytest.raises(UserError, match="a peak is in frame 102; the scan has 50 frames"):
        merge(peaks_at(places), frames={0: Frames(np.arange(50) + 0.5)})


def test_scans_are_merged_apart_and_nothing_is_merged_to_nothing() -> None:
    peaks = peaks_at([(0, 10.0, 10.0), (1, 10.0, 10.0)])
    peaks["scan"] = [0, 1]
    assert merge(peaks).reflections["scan"].tolist() == [0, 1]
    empty = merge(np.zeros(0, PEAKS))
    assert isinstance(empty, Merged)
    assert empty.reflections.dtype == REFLECTIONS
    assert (len(empty.reflections), len(empty.of), empty.remarks) == (0, 0, ())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"radius": 0.0}, "radius 0.0: expected a positive number"),
        ({"radius": float("nan")}, "radius nan"),
        ({"gap": -1}, "gap -1: expected 0 frames or more"),
        ({"valley": 1.0}, "valley 1.0: expected a share from 0"),
    ],
)
def test_senseless_settings_are_refused(spec, message) -> None:
    with pytest.raises(UserError, match=message):
        MergeSpec(**spec)


def test_senseless_peaks_are_refused() -> None:
    peaks = peaks_at([(0, 10.0, 10.0), (1, 10.0, np.nan)])
    with pytest.raises(UserError, match=r"peak 1 of 2 has no position"):
        merge(peaks)
    peaks = peaks_at([(0, 10.0, 10.0), (0, 20.0, 10.0)])
    peaks["omega"][1] = 7
    with pytest.raises(UserError, match=r"frame 0 has peaks at omega 0\.5 and 7"):
        merge(peaks)
    peaks = peaks_at([(0, 10.0, 10.0), (1, 20.0, 10.0)])
    peaks["omega"] = 5
    with pytest.raises(UserError, match="omega is the same in all frames"):
        merge(peaks)


def test_many_candidates_are_looked_at_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    places = sorted((f, *rng.uniform(0, 8, 2)) for f, _ in itertools.product(range(12), range(20)))
    monkeypatch.setattr("braggnn_edge.peaks.links._BLOCK", 100)
    assert partition(merge(peaks_at(places), MergeSpec(**PLAIN)).of) == by_loops(places, MergeSpec(), 0)


@pytest.fixture
def listed(tmp_path) -> Path:
    """A list as ``locate`` writes it: two reflections, one of them over the end of a full turn, and a hot pixel."""
    places = [(f, 10.0 + f / 100, 20.0) for f in (4, 5)] + [(f, 30.0, 30.0) for f in (71, 0)]
    places += [(f, 50.0, 50.0) for f in range(40)]
    peaks = peaks_at(places, 5.0, intensity=[30.0, 10.0, 10.0, 10.0, *range(100, 140)])
    peaks["background"], peaks["width_row"], peaks["width_col"] = 2.0, 0.9, 0.8
    omega = np.arange(72)[:, None] * 5.0 + [0.0, 5.0]
    peak_file.save(tmp_path / "peaks.h5", peaks, peak_file.About(("s",), (72, 64, 64), omega, (), {"threshold": 40}))
    return tmp_path / "peaks.h5"


def test_command_writes_every_layout(listed, capsys) -> None:
    folder = listed.parent
    outputs = [folder / f"r{suffix}" for suffix in (".h5", ".csv", ".flt", ".midas.csv")]
    named = [word for path in outputs for word in ("-o", str(path))]
    assert cli.main(["merge", str(listed), *named, "--beam-center", "0,0"]) == 0
    said = capsys.readouterr().out
    assert "44 peaks make 3 reflections, seen in 2 frames (median) and in 40 at most; 0% in one alone" in said
    assert "CUT" not in said
    assert "1 are seen in more than half of the frames, such as that at (50, 50): hot pixels" in said
    found, about = peak_file.load(outputs[0], "reflections")
    assert found["first_frame"].tolist() == [0, 4, 71]
    hot = np.average(np.arange(40) * 5.0 + 2.5, weights=np.arange(100, 140))
    assert found["omega"].tolist() == pytest.approx([hot, 23.75, 0.0])
    assert about.settings == {
        "threshold": 40,
        "merge": {"radius": 2.0, "gap": 1, "valley": 0.3, "same_frame": False},
    }
    assert (about.program, about.scans, about.shape) == ("braggnn-edge merge", ("s",), (72, 64, 64))
    text = np.genfromtxt(outputs[1], delimiter=",", names=True)
    for name in REFLECTIONS.names:
        assert np.array_equal(text[name], found[name].astype(float), equal_nan=True), name
    names = outputs[2].read_text().splitlines()[0].lstrip("# ").split()
    flt = dict(zip(names, np.loadtxt(outputs[2]).T, strict=True))
    assert np.allclose(flt["sc"], found["row"], atol=1e-5)
    assert np.allclose(flt["omega"], found["omega"], atol=1e-5)
    assert flt["Min_o"].tolist() == [2.5, 22.5, 357.5]
    assert flt["Max_o"].tolist() == [197.5, 27.5, 362.5]
    assert flt["sum_intensity"].tolist() == found["intensity"].tolist()
    midas = np.genfromtxt(outputs[3], names=True)
    assert np.allclose(midas["YCenpx"], found["col"], atol=1e-5)
    assert np.allclose(midas["Radiuspx"], np.hypot(found["row"], found["col"]), atol=1e-5)
    assert midas["MinOmedegrees"].tolist() == flt["Min_o"].tolist()


def test_command_takes_the_omega_that_the_frames_do_not_know(listed, capsys) -> None:
    """The same reflections as where the list knows it, the one over the end of the turn too."""
    folder = listed.parent
    known = merged(listed, "--omega-start", 0, "--omega-step", 5)
    peaks, about = peak_file.load(listed)
    peaks["omega"] = np.nan
    nowhere = replace(about, omega=np.full((72, 2), np.nan))
    peak_file.save(folder / "blind.h5", peaks, nowhere)
    capsys.readouterr()
    assert np.isnan(merged(folder / "blind.h5")[0]["omega"]).all()
    said = capsys.readouterr().out
    assert "`braggnn-edge grains` refuses such a list; where grains are wanted, merge again with --omega-start" in said
    for rows, frames in (known, merged(folder / "blind.h5", "--omega-start", 0, "--omega-step", 5)):
        np.testing.assert_allclose(rows["omega"], merged(listed)[0]["omega"])
        np.testing.assert_allclose(frames, about.omega)
    rows, frames = merged(listed, "--omega-start", 10, "--omega-step", -5)
    assert rows["omega"][0] == pytest.approx(10 - 23.75)
    np.testing.assert_allclose(frames[0], [10, 5])
    peaks["scan"][-1] = 1
    peak_file.save(folder / "two.h5", peaks, replace(nowhere, scans=("s", "t")))
    assert "NO GRAINS" not in capsys.readouterr().out
    merged(folder / "two.h5")
    assert "NO GRAINS: the list is of 2 scans" in capsys.readouterr().out
    for path, words, message in (
        (listed, ["--omega-start", "3"], "omega_start is given without omega_step"),
        (folder / "two.h5", ["--omega-start", "3", "--omega-step", "1"], "holds peaks of several scans"),
    ):
        assert cli.main(["merge", str(path), "-o", str(folder / "r.h5"), *words]) == 2
        assert message in capsys.readouterr().err


def merged(path: Path, *words: object) -> tuple[np.ndarray, np.ndarray]:
    """Reflections of rocking spots and the omega of the frames."""
    output = path.with_name("merged.h5")
    assert cli.main(["merge", str(path), "-o", str(output), *map(str, words)]) == 0
    rows, about = peak_file.load(output, "reflections")
    return rows[rows["first_frame"] > 0], about.omega


def test_flt_is_read_by_imaged11(listed) -> None:
    columnfile = pytest.importorskip("ImageD11.columnfile", reason="ImageD11 is not installed (extra `imaged11`)")
    assert cli.main(["merge", str(listed), "-o", str(listed.parent / "r.flt")]) == 0
    found = columnfile.columnfile(str(listed.parent / "r.flt"))
    assert found.nrows == 3
    assert found.Number_of_pixels.tolist() == [200, 10, 10]


def test_command_says_what_is_wrong(listed, capsys) -> None:
    folder = listed.parent
    for arguments, message in (
        ([str(listed), "-o", str(listed)], "is the list that is merged; give the result another name"),
        (
            [str(listed), "-o", str(folder / "r.xyz")],
            "its suffix stands for no layout; expected one of .midas.csv, .h5",
        ),
        ([str(listed), "-o", str(folder / "r.braggnn.txt")], "stands for no layout"),
        ([str(folder / "none.h5"), "-o", str(folder / "r.h5")], "no such file; make a list of peaks with"),
        ([str(listed), "-o", str(folder / "r.h5"), "--radius", "0"], "radius 0.0: expected a positive number"),
    ):
        assert cli.main(["merge", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    peak_file.save(
        folder / "empty.h5", np.zeros(0, PEAKS), peak_file.About(("s",), (3, 64, 64), np.full((3, 2), np.nan))
    )
    assert cli.main(["merge", str(folder / "empty.h5"), "-o", str(folder / "r.h5"), "-o", str(folder / "r.flt")]) == 0
    assert "no peaks, so no reflections; the list is empty" in capsys.readouterr().out
    assert len(peak_file.load(folder / "r.h5", "reflections")[0]) == 0

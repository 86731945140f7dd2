"""What a sigma is worth: figures of errors whose distribution is known, and the file of positions with sigma."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import spots

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.positions import load_positions, save_positions
from braggnn_edge.evaluation.sigma import ONE, WIDE, Intervals, flag_groups, sentences, sigma_figures, width
from braggnn_edge.peaks.table import PeakTable

N = 20_000
#: Half-widths over the scale of Laplace's distribution that hold the two shares.
ONE_B, WIDE_B = -np.log(1 - ONE), -np.log(1 - WIDE)


def table(n: int = N) -> PeakTable:
    """Peaks at the truth (0, 0), whose brightness and width grow with their number; the last tenth has no fit."""
    found = spots(n, 3)
    p = found.peaks
    p["row"] = p["col"] = p["truth_row"] = p["truth_col"] = 0
    p["maximum"] = 100.0 + np.arange(n)
    p["voigt_converged"] = np.arange(n) < 0.9 * n
    p["voigt_fwhm_minor"], p["voigt_fwhm_major"] = 1 + np.arange(n) / n, 4 * (1 + np.arange(n) / n)
    return found


def drawn(seed: int = 0) -> tuple[np.ndarray, Intervals]:
    """Errors of Laplace's distribution with the scales 0.01 px and, in every second peak, 0.1 px; right intervals."""
    scale = np.where(np.arange(N) % 2, 0.1, 0.01)[:, None] * np.ones(2)
    error = scale * np.random.default_rng(seed).laplace(size=scale.shape)
    return error, Intervals(scale * ONE_B, scale * WIDE_B)


def figures(error: np.ndarray, known: Intervals, largest: float = 0.0) -> dict[str, Any]:
    return sigma_figures({"net": error, "other": error}, {"net": known}, table(len(error)), "truth", 1, largest)["net"]


def test_right_intervals_hold_what_they_say() -> None:
    entry = figures(*drawn())
    assert (entry["reference"], entry["n"]) == ("truth", N)
    # Standard errors in 40,000 errors: 0.23 % at 68.27 %, 0.10 % at 95.45 %. Two sigma hold 1 - (1 - 0.6827)**2.
    assert entry["within_one"] == pytest.approx(ONE, abs=0.01)
    assert entry["within_wide"] == pytest.approx(WIDE, abs=0.005)
    assert entry["within_two"] == pytest.approx(1 - (1 - ONE) ** 2, abs=0.007)
    assert entry["quartiles_px"] == pytest.approx([0.01 * ONE_B, 0.1 * ONE_B])
    for key in ("by_brightness", "by_fwhm"):
        bins = entry[key]
        assert len(bins) == 6
        assert sum(part["n"] for part in bins) == N * (0.9 if key == "by_fwhm" else 1)
        assert all(abs(part["within_one"] - ONE) < 0.04 and abs(part["within_wide"] - WIDE) < 0.02 for part in bins)
        assert [part["from"] for part in bins[1:]] == [part["to"] for part in bins[:-1]]
    assert (entry["by_brightness"][0]["from"], entry["by_brightness"][-1]["to"]) == (100.0, 99.0 + N)
    assert entry["by_fwhm"][0]["from"] == pytest.approx(2.0)
    parts = entry["reliability"]
    assert [part["n"] for part in parts] == [2 * N // 10] * 10
    assert all(part["p68_px"] == pytest.approx(part["sigma_px"], rel=0.1) for part in parts)
    assert parts[0]["rms_px"] == pytest.approx(2**0.5 * 0.01, rel=0.1)


def test_a_bin_with_wrong_intervals_is_seen() -> None:
    error, known = drawn()
    known.sigma[: N // 6] *= 2
    entry = figures(error, known)
    shares = [part["within_one"] for part in entry["by_brightness"]]
    assert shares[0] == pytest.approx(1 - (1 - ONE) ** 2, abs=0.02)
    assert all(share == pytest.approx(ONE, abs=0.03) for share in shares[1:])


def test_gain_of_a_weighted_mean_is_that_of_the_variances() -> None:
    entry = figures(*drawn())["weighted_mean"]
    variances = np.array([0.01, 0.1]) ** 2
    expected = np.sqrt(variances.mean() * (1 / variances).mean())
    # 400 means of two axes, and what they share between deals: 200 independent means at least, so 5 % and more of luck.
    assert entry["gain"] == pytest.approx(expected, rel=0.2)
    assert entry["plain_px"] == pytest.approx(np.sqrt(2 * variances.mean() / 100), rel=0.15)
    assert entry["plain_px"] / entry["weighted_px"] == entry["gain"]
    equal = figures(drawn()[0], Intervals(np.ones((N, 2)), np.ones((N, 2))))["weighted_mean"]
    assert equal["gain"] == pytest.approx(1)


def test_flag_is_by_the_larger_sigma_of_both_axes() -> None:
    n = 1000
    error, sigma = np.full((n, 2), [0.3, 0.4]), np.full((n, 2), 0.1)
    error[:40], sigma[:40, 1] = [3.0, 4.0], 0.5
    error[40:60], sigma[40:60, 0] = [0.6, 0.8], 0.3
    known = Intervals(sigma, 2 * sigma)
    entry = figures(error, known, 0.4)["flag"]
    assert entry == {
        "sigma_px": 0.4, "chosen": "asked for", "flagged": 40, "p95": pytest.approx(1.0),
        "p95_without": pytest.approx(0.5), "p99_5": pytest.approx(5.0), "p99_5_without": pytest.approx(1.0),
    }  # fmt: skip
    entry = figures(error, known)["flag"]
    assert (entry["sigma_px"], entry["flagged"]) == (
        0.3,
        40,
    )  # 6 % are above 0.1 px: the next one is not exceeded by 5 %
    assert entry["chosen"] == "exceeded by 5 % of these peaks"
    everything = figures(error, known, 0.05)["flag"]
    assert everything["flagged"] == n
    assert "p99_5_without" not in everything


def test_the_flag_is_put_on_other_peaks_with_the_same_threshold() -> None:
    sigma = {"net": figures(*drawn(), 0.2), "silent": figures(*drawn(), 0.2)}
    n = 100
    offsets, reference = np.zeros((n, 2)), np.full((n, 2), [0.3, 0.4])
    reference[:30] = 3.0, 4.0
    known = Intervals(np.full((n, 2), 0.1), np.full((n, 2), 0.2))
    known.sigma[:30, 0] = 0.3
    groups = {"double": np.arange(n) < 60, "single": np.arange(n) >= 60, "few": np.arange(n) < 19}
    flag_groups(sigma, groups, {"net": offsets, "another": offsets}, {"net": known, "another": known}, reference)
    assert "groups" not in sigma["silent"]["flag"]
    found = sigma["net"]["flag"]["groups"]
    assert set(found) == {"double", "single"}
    assert (found["double"]["n"], found["double"]["flagged"], found["single"]["flagged"]) == (60, 30, 0)
    assert (found["double"]["p95"], found["double"]["p95_without"]) == pytest.approx((5.0, 0.5))
    assert "so have 30 of 60 peaks with double: p95 is 5.000 px, and 0.500 px without them" in sentences(sigma["net"])


def test_words_say_the_figures() -> None:
    said = sentences(figures(*drawn(), 0.05))
    assert said[0].startswith("68.")
    assert "of the errors are within one sigma, 95." in said[0]
    assert "means of 100 peaks weighted by sigma are" in said[1]
    assert said[2].startswith(f"{N // 2} peaks have a sigma above 0.050 px (asked for): p99.5 is ")


def test_what_is_not_known_is_left_out() -> None:
    error, known = (drawn()[0][:150], Intervals(drawn()[1].sigma[:150], np.full((150, 2), np.nan)))
    entry = figures(error, known)
    assert "within_wide" not in entry
    assert "weighted_mean" not in entry
    assert len(entry["by_brightness"]) == 6
    assert "within the 95 % interval" not in sentences(entry)[0]
    few = figures(error[:9], known.where(np.arange(150) < 9))
    assert (few["by_brightness"], few["by_fwhm"], few["reliability"]) == ([], [], [])
    nothing = sigma_figures({"net": error}, {}, table(150), "truth", 1)
    assert nothing == {}


def test_width_is_the_mean_of_both_axes_and_not_known_without_a_fit() -> None:
    found = width(table(10))
    assert found[0] == pytest.approx(2.0)
    assert np.isnan(found[-1])


def test_positions_and_intervals_are_read_as_they_were_written(tmp_path: Path) -> None:
    error, known = drawn()
    offsets = {"float": error + 1, "csim:io_parallel": error}
    for name in ("a.npz", "b.npz"):
        save_positions(offsets, {"csim:io_parallel": known}, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found, sure = load_positions(tmp_path / "a.npz")
    assert list(found) == list(offsets)
    assert all(np.array_equal(found[name], offsets[name]) for name in offsets)
    assert list(sure) == ["csim:io_parallel"]
    assert np.array_equal(sure["csim:io_parallel"].sigma, known.sigma)
    assert np.array_equal(sure["csim:io_parallel"].wide, known.wide)


def test_a_damaged_file_of_positions_is_one_clear_error(tmp_path: Path) -> None:
    save_positions({"float": drawn()[0]}, {}, tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    middle = len(whole) // 2
    for damaged in (b"", b"text", whole[:60], whole[:middle], whole[:middle] + b"\xff" * 9 + whole[middle + 9 :]):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(UserError, match=r"predictions of the csim stage cannot be read .*run `braggnn-edge csim`"):
            load_positions(tmp_path / "a.npz")

"""Pictures: drawn for the smallest data without a warning, honest grouping of estimators, same bytes."""

from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.evaluation import figures
from braggnn_edge.report import gallery
from braggnn_edge.report.distribution import error_distribution

PNG = b"\x89PNG\r\n\x1a\n"
ENTRY = {"iteration": 10, "loss": 0.1, "score": 0.3, "p50": 0.2, "p75": 0.3, "p95": 0.5}


@pytest.mark.parametrize(
    "histories",
    [
        {},
        {"full": []},
        {"full": [ENTRY]},
        {"full": [ENTRY | {"loss": 0.0, "score": 0.0}], "compact": []},
        {"full": [{"iteration": 1, "loss": 1.0, "score": 0.5}, {"iteration": 2, "loss": 0.5, "score": 0.4}]},
    ],
)
def test_learning_curves_of_any_length(tmp_path: Path, histories: dict[str, list[dict[str, float]]]) -> None:
    figures.learning_curves(histories, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    assert len(list(tmp_path.iterdir())) == 1


def test_same_data_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        figures.learning_curves({"full": [ENTRY, ENTRY | {"iteration": 20, "score": 0.2}]}, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    figures.learning_curves({"full": [ENTRY, ENTRY | {"iteration": 20, "score": 0.1}]}, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()


def test_failure_while_drawing_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        figures.learning_curves({"full": [{"iteration": 1, "loss": 1.0}]}, tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_only_equal_answers_share_a_name() -> None:
    one, other = np.array([1.0, np.nan]), np.array([1.0, 2.0])
    groups = figures.merged({"quantized": one, "float": other, "csim:io_stream": one.copy(), "csim:io_parallel": one})
    assert list(groups) == [("quantized", "csim:io_stream", "csim:io_parallel"), ("float",)]
    assert figures.label(("quantized", "csim:io_stream", "csim:io_parallel")) == "quantized = C simulation"
    assert figures.label(("csim:io_stream",)) == "C simulation, io_stream"


def test_choice_of_patches() -> None:
    errors = np.array([0.5, 0.1, 0.9, 0.3, 0.7])
    assert {k: v.tolist() for k, v in gallery.choose(errors, 1).items()} == {"best": [1], "median": [0], "worst": [2]}
    assert {k: v.tolist() for k, v in gallery.choose(errors, 3).items()} == {
        "best": [1, 3, 0],
        "median": [3, 0, 4],
        "worst": [0, 4, 2],
    }
    assert all(len(rows) == 5 for rows in gallery.choose(errors, 9).values())


def test_figures_of_one_peak_without_error(tmp_path: Path) -> None:
    errors = {"constant": np.zeros(1), "voigt": np.zeros(0), "csim": np.zeros(1)}
    error_distribution(errors, "the truth", tmp_path / "errors.png")
    by_height = {"constant": np.zeros(1), "voigt": np.full(1, np.nan), "csim": np.zeros(1)}
    figures.error_by_height(by_height, np.zeros(1), "the truth", tmp_path / "height.png")
    estimates = {"constant": np.zeros((1, 2)), "voigt": np.full((1, 2), np.nan), "csim": np.zeros((1, 2))}
    centres = gallery.Centres(np.zeros((1, 11, 11)), estimates, np.zeros((1, 2)), "the truth", "csim")
    gallery.gallery(centres, tmp_path / "gallery.png")
    gallery.summary_picture(centres, errors, "one", tmp_path / "summary.png")
    assert len(list(tmp_path.iterdir())) == 4


def test_bit_widths_with_gaps(tmp_path: Path) -> None:
    figures.bit_widths(
        [{"name": "a", "weight_bits": 4}, {"name": "b"}, {"name": "c", "accumulator_bits": 9}], tmp_path / "x.png"
    )
    figures.bit_widths([{"name": "flatten"}], tmp_path / "y.png")
    assert (tmp_path / "y.png").read_bytes().startswith(PNG)

"""Splits by blocks of frames: no reflection in two parts."""

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.label.spec import SplitSpec
from braggnn_edge.label.split import frame_splits
from braggnn_edge.peaks.splits import EXCLUDED, TEST, TRAIN, VALIDATION

ALL = ("train", "validation", "test")


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_apart_by_two_guards_and_have_their_shares(seed) -> None:
    spec = SplitSpec(block=20, validation=0.1, test=0.2, guard=3)
    parts = frame_splits(1000, spec, ALL, np.random.default_rng(seed))
    kept = np.flatnonzero(parts != EXCLUDED)
    changes = np.flatnonzero(np.diff(parts[kept]))
    assert (kept[changes + 1] - kept[changes] > 2 * spec.guard).all()
    assert (parts == TEST).sum() <= 200
    assert (parts == TEST).sum() >= 0.6 * 200
    assert (parts == VALIDATION).any()
    assert (parts == TRAIN).sum() > 500


def test_a_scan_for_one_part_gives_it_every_frame() -> None:
    assert (frame_splits(7, SplitSpec(), ("test",), np.random.default_rng(0)) == TEST).all()


def test_parts_not_in_use_are_excluded() -> None:
    spec = SplitSpec(block=10, guard=1)
    rng = np.random.default_rng
    used = frame_splits(500, spec, ("train", "validation"), rng(1))
    assert not (used == TEST).any()
    same = frame_splits(500, spec, ALL, rng(1))
    assert np.array_equal(used == TRAIN, same == TRAIN)


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(UserError, match="too few"):
        frame_splits(40, SplitSpec(block=20), ALL, np.random.default_rng(0))

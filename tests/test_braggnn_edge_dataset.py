"""Shifts, reflections and batches: the label must follow the pixels."""

import torch
from builders import spots

from braggnn_edge.training.dataset import Batches, Peaks, min_max


def centroid(patches: torch.Tensor) -> torch.Tensor:
    grid = torch.arange(patches.shape[1], dtype=patches.dtype) - patches.shape[1] // 2
    total = patches.sum((1, 2))
    return torch.stack([(patches.sum(2) @ grid) / total, (patches.sum(1) @ grid) / total], dim=1)


def test_label_follows_every_shift_and_reflection() -> None:
    peaks = Peaks.of(spots(200, 11, 2, variance=0.5, at=(50, 70)), "truth")
    for dihedral in (False, True):
        seen = set()
        for iteration in range(8):
            patches, offsets = Batches(peaks, 64, 2, seed=3, dihedral=dihedral)(iteration)
            assert patches.shape == (64, 11, 11)
            # The tail cut off at 3 px from the centre weighs exp(-9): its pull is below 5e-3 px.
            torch.testing.assert_close(centroid(patches), offsets, rtol=0, atol=5e-3)
            seen |= set(map(tuple, offsets.round().int().tolist()))
        assert {(-2, -2), (2, 2), (0, 0), (-2, 2)} <= seen


def test_batches_are_a_function_of_the_iteration_and_cover_an_epoch() -> None:
    peaks = Peaks.of(spots(40, 11, 2, variance=0.5, at=(50, 70)), "truth")
    batches = Batches(peaks, 10, 1, seed=1)
    again = Batches(peaks, 10, 1, seed=1)
    for iteration in (7, 0, 3):
        assert torch.equal(batches(iteration)[0], again(iteration)[0])
    assert not torch.equal(batches(0)[0], Batches(peaks, 10, 1, seed=2)(0)[0])
    unshifted = Batches(peaks, 10, 0, seed=1)
    epoch = torch.cat([unshifted(i)[1] for i in range(4)])
    assert sorted(map(tuple, epoch.tolist())) == sorted(map(tuple, peaks.offsets.tolist()))


def test_ranks_share_a_batch() -> None:
    batches = Batches(Peaks.of(spots(40, 11, 2, variance=0.5, at=(50, 70)), "truth"), 10, 1, seed=1)
    whole = batches(3)[0]
    parts = [batches(3, rank, 2)[0] for rank in range(2)]
    assert torch.equal(torch.cat(parts), torch.cat([whole[0::2], whole[1::2]]))


def test_min_max_of_flat_and_ordinary_patches() -> None:
    patches = torch.stack([torch.full((3, 3), 7.0), torch.arange(9.0).reshape(3, 3) - 4])
    normalized = min_max(patches)
    assert torch.equal(normalized[0], torch.zeros(3, 3))
    assert torch.equal(normalized[1], torch.arange(9.0).reshape(3, 3) / 8)

"""What runs on a GPU, here on the CPU: equal to the CPU's own code; and the pipeline around it, streams imitated."""

import contextlib
import importlib
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from braggnn_edge.core.counts import widened
from braggnn_edge.core.errors import UserError
from braggnn_edge.fit import device_kernel, initial, initial_device
from braggnn_edge.fit.device import Engine, fit_on_device
from braggnn_edge.fit.pseudo_voigt import render
from braggnn_edge.fit.single import fit
from braggnn_edge.locate.device import DevicePipeline
from braggnn_edge.locate.device_frames import FramePipeline
from braggnn_edge.peaks.device import crops_on_device, find_on_device
from braggnn_edge.peaks.find import crops, detect
from braggnn_edge.peaks.window import window_peaks
from braggnn_edge.universal.device import UniversalOnDevice
from braggnn_edge.universal.locator import SHIPPED, universal_locator
from braggnn_edge.universal.network import load

torch.set_num_threads(1)


def patches(count: int, seed: int = 0) -> np.ndarray:
    """Pseudo-Voigt spots with shot noise, (count, 11, 11) uint16: faint, bright, narrow and wide ones."""
    rng = np.random.default_rng(seed)
    tilt, eta, background = rng.uniform(-1.5, 1.5, count), rng.uniform(0, 1, count), rng.uniform(2, 40, count)
    height = 10 ** rng.uniform(1.5, 4.5, count)
    made = np.c_[
        rng.uniform(4, 6, (count, 2)),
        height,
        rng.uniform(1.5, 4, count),
        rng.uniform(1.2, 3, count),
        tilt,
        eta,
        background,
    ]
    return rng.poisson(render(torch.from_numpy(made), 11).numpy()).astype(np.uint16)


def test_counts_of_every_type_become_floats() -> None:
    every = np.array([0, 1, 255, 32767, 32768, 65535])
    for kind in ("uint16", "int32", "float32"):
        assert widened(torch.from_numpy(every.astype(kind)), torch.float64).tolist() == every.tolist()


class _Graph:
    """A captured computation that computes again what its slot computes."""

    pipeline: DevicePipeline
    replays = 0

    def replay(self) -> None:
        slot = next(s for slots in self.pipeline._slots.values() for s in slots if s.graph is self)
        slot.found.copy_(self.pipeline.module(slot.given))
        _Graph.replays += 1


@pytest.mark.parametrize("captures", [True, False])
def test_pieces_for_a_gpu_come_back_in_order(monkeypatch: pytest.MonkeyPatch, captures: bool) -> None:
    """The pipeline's bookkeeping, with streams and graphs that only imitate a GPU's."""

    class Stream(contextlib.nullcontext):
        def wait_stream(self, _: object) -> None: ...

    @contextlib.contextmanager
    def graph(_: object, stream: object):
        if not captures:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    pipeline = DevicePipeline(lambda given: widened(given[:, 0, :2], torch.float32), "cpu", step=13)
    _Graph.pipeline, _Graph.replays = pipeline, 0
    given = torch.from_numpy(patches(70))
    for source in (given, given.flip(0)):  # buffers of the first call hold other patches
        answers = torch.full((70, 2), torch.nan)
        pipeline._flow(source, answers)
        assert torch.equal(answers, widened(source[:, 0, :2], torch.float32))
    assert pipeline.captured == captures
    assert _Graph.replays == (10 if captures else 0)  # 2 calls of 5 full pieces; the rest is launched as it is
    assert ("not permitted" in pipeline.problem) == (not captures)
    pipeline.fit_into(104)
    assert pipeline.step == 13
    pipeline.fit_into(52)
    assert pipeline.step == 6
    assert not pipeline._slots
    assert np.array_equal(pipeline(given.numpy()), widened(given[:, 0, :2], torch.float32).numpy())
    assert pipeline(given[:0].numpy()).shape == (0, 2)


def test_universal_network_in_one_look_equals_eight() -> None:
    network, calibration, _ = load(SHIPPED)
    given = patches(200)
    given[3], given[4] = 0, 65535
    expected = np.concatenate(universal_locator().locate_with_intervals(given), axis=1)
    with torch.inference_mode():
        for precision, most in (("float32", 1e-5), ("float16", 1e-2), ("bfloat16", 8e-2)):
            found = UniversalOnDevice(network, calibration, precision)(torch.from_numpy(given)).numpy()
            assert np.abs(found - expected)[:, :2].max() < most, precision
            assert np.abs(found[:, 2:] / expected[:, 2:] - 1).max() < 3 * most, precision


@pytest.mark.parametrize("suppressed", [None, 12.0])
def test_initial_values_on_a_device_are_those_of_the_cpu(suppressed: float | None) -> None:
    data = patches(200, 8).astype(np.float64)
    data[0], data[1] = 0, 5000  # nothing, and all of it saturated
    data[2, 0, 0] = 1e5  # brightest in a corner
    below = data < (suppressed or -1)
    keep = ~below & (data < 4000)
    low, high = initial.bounds(data, keep, 1.5, 2.0, {})
    start = initial.starts(data, keep, below, zero_suppression=suppressed, low=low, high=high)
    given = [torch.from_numpy(array) for array in (data, keep, below)]
    found_low, found_high = initial_device.bounds(*given[:2], 1.5, 2.0)
    found = initial_device.starts(*given, suppressed, found_low, found_high)
    assert np.array_equal(found_low.T, low)
    assert np.array_equal(found_high.T, high)
    assert np.allclose(found.T, start, rtol=1e-9, atol=1e-9)


OPTIONS = ({}, {"zero_suppression": 12.0, "read_noise": 2.0, "saturation": 20000.0, "order": 4})


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("engine", ["kernel", "torch"])
def test_fits_on_a_device_are_those_of_the_cpu(engine: Engine, options: dict[str, float]) -> None:
    given = patches(200)
    expected = fit(given, **options, threads=1)
    found = fit_on_device(torch.from_numpy(given), **options, engine=engine, chunk=128)
    assert found.engine == engine
    both = expected.converged & found.converged.numpy()
    assert both.sum() >= 195
    assert (found.converged.numpy() == expected.converged).sum() >= 198  # one evaluation more or less decides
    distance = np.abs(found.offset.numpy() - expected.offset) / expected.sigma[:, :2]
    assert distance[both].max() < 1e-3
    assert np.abs(found.sigma.numpy()[both, :2] / expected.sigma[both, :2] - 1).max() < 1e-3
    assert np.abs(found.chi2.numpy()[both] / expected.chi2[both] - 1).max() < 1e-4
    # A parameter may sit on its bound for one and a rounding error beside it for the other.
    assert (found.dof.numpy() == expected.dof).sum() >= 198
    free = both & (found.dof.numpy() == expected.dof)
    expected_block, block = (given[free, :3, :3] for given in (expected.covariance, found.covariance.numpy()))
    norm = np.sqrt(np.einsum("nii,njj->nij", expected_block, expected_block))
    assert np.abs((block - expected_block) / norm).max() < 1e-3


def test_fits_on_a_device_refuse_and_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="hold NaN or infinity"):
        fit_on_device(torch.full((2, 11, 11), torch.nan))
    with pytest.raises(UserError, match="expected 'auto', 'kernel' or 'torch'"):
        fit_on_device(torch.zeros((2, 11, 11)), engine="numpy")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"expected \(n, h, w\)"):
        fit_on_device(torch.zeros((2, 11)))
    with pytest.raises(UserError, match="take engine 'torch'"):
        fit_on_device(torch.ones((2, 11, 11)), order=7, engine="kernel")
    assert len(fit_on_device(torch.zeros((0, 11, 11))).offset) == 0

    def no_compiler(*_: object) -> None:
        raise UserError("no compiler")

    monkeypatch.setattr(device_kernel, "launch", no_compiler)
    assert fit_on_device(torch.from_numpy(patches(20))).engine == "torch"


def test_peaks_of_frames_by_the_window_rule() -> None:
    rng = np.random.default_rng(4)
    frames = rng.poisson(12, (3, 40, 50)).astype(np.uint16)
    frames[1] = rng.integers(0, 4, (40, 50)) * 10  # plateaus and ties everywhere
    frames[2, 10:14, 10:20] = 60000
    valid = rng.random((40, 50)) > 0.02
    threshold = np.full((40, 50), 14.0)
    threshold[:, 25:] = 17
    number = 0
    for reach, least, size in ((3, 4, 11), (1, 1, 1), (2, 6, 9), (0, 2, 3)):
        expected = []
        for f in range(3):
            rule = window_peaks(frames[f], threshold=threshold, valid=valid, reach=reach, min_area=least, size=size)
            fits = ~rule.edge
            expected += [(f, r, c) for r, c in zip(rule.row[fits].tolist(), rule.col[fits].tolist(), strict=True)]
        frame, row, col = find_on_device(
            torch.from_numpy(frames), threshold=torch.from_numpy(threshold), valid=torch.from_numpy(valid), reach=reach,
            min_area=least, size=size,
        )  # fmt: skip
        assert list(zip(frame.tolist(), row.tolist(), col.tolist(), strict=True)) == expected
        number += len(expected)
        found = crops_on_device(torch.from_numpy(frames), frame, row, col, size).numpy()
        for i, (f, r, c) in enumerate(expected):
            assert np.array_equal(found[i], crops(frames[f], np.array([r]), np.array([c]), size)[0])
    assert number > 500
    nothing = find_on_device(torch.zeros((2, 40, 40)), threshold=1.0)
    assert len(nothing[0]) == 0
    assert crops_on_device(torch.zeros((2, 40, 40)), *nothing, 11).shape == (0, 11, 11)
    with pytest.raises(UserError, match="at least the 11 px"):
        find_on_device(torch.zeros((2, 9, 40)), threshold=1.0)
    with pytest.raises(UserError, match="expected 0 px or more"):
        find_on_device(torch.zeros((2, 40, 40)), threshold=1.0, min_area=0)


def test_lone_spots_are_those_that_detect_finds() -> None:
    rng = np.random.default_rng(2)
    frame = rng.poisson(5, (200, 200)).astype(np.uint16)
    row, col = (grid.ravel() + rng.integers(-3, 4, grid.size) for grid in np.mgrid[12:190:22, 12:190:22])
    for r, c, patch in zip(row, col, patches(len(row), 3), strict=True):
        frame[r - 5 : r + 6, c - 5 : c + 6] += patch.clip(max=60000)
    expected = detect(frame, threshold=60.0).components
    expected = expected[~expected["edge"]]
    _, found_row, found_col = find_on_device(torch.from_numpy(frame)[None], threshold=60.0)
    assert len(expected) > 40
    assert found_row.tolist() == expected["row"].tolist()
    assert found_col.tolist() == expected["col"].tolist()


def test_frames_to_positions_equal_finding_and_locating_on_the_cpu() -> None:
    rng = np.random.default_rng(6)
    frames = rng.poisson(8, (5, 60, 70)).astype(np.uint16)
    frames[1] = 0  # and so no peak in a block of its own
    for index in (0, 2, 3, 4):
        for (row, col), spot in zip(rng.integers(6, 54, (6, 2)), patches(6, index), strict=True):
            frames[index, row - 5 : row + 6, col - 5 : col + 6] += spot // 4
    locator = universal_locator()
    module = UniversalOnDevice(*load(SHIPPED)[:2])
    pipeline = FramePipeline(module, 11, "cpu", 40.0, batch=3, outputs=6)
    found = list(pipeline([frames[:1], frames[1:2], frames[2:]]))
    assert [len(block.frame) > 0 for block in found] == [True, False, True]
    assert found[1].answers.shape == (0, 6)
    for index, frame in enumerate(frames):
        rule = window_peaks(frame, threshold=40.0)
        row, col = rule.row[~rule.edge], rule.col[~rule.edge]
        offsets, sigma, wide = locator.locate_with_intervals(crops(frame, row, col, 11))
        block = found[min(index, 2)]
        mine = block.frame == index
        assert block.pixel[mine].tolist() == np.stack([row, col], 1).tolist()
        assert np.abs(block.position[mine] - np.stack([row, col], 1) - offsets).max(initial=0) < 1e-4
        assert np.allclose(block.answers[mine, 2:], np.concatenate([sigma, wide], 1), rtol=1e-3)


TRITON = """
import numpy as np, torch
from braggnn_edge.locate.fused import FusedNetwork
from braggnn_edge.locate.triton_network import TritonNetwork
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
torch.set_num_threads(1)
rng = np.random.default_rng(0)
given = torch.from_numpy(rng.poisson(200 * rng.random((5, 11, 11))).astype("u2"))
for spec in (NetworkSpec(), NetworkSpec((16, 8, 4), (32, 16), False, 0.0), NetworkSpec((8, 4), (7,))):
    torch.manual_seed(1)
    net = BraggNN(spec, 11).eval()
    with torch.no_grad():
        for values in net.parameters():
            if values.ndim == 1:
                values.normal_(0.05, 0.1)
    with torch.inference_mode():
        exact = FusedNetwork(net, "float64")(given)
        error = (TritonNetwork(net)(given) - exact).abs().max()
    assert error < 5e-3, (spec, error)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton comes with torch for GPUs")
def test_triton_kernels_by_their_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", TRITON], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(importlib.util.find_spec("triton") is not None, reason="Triton is there")
def test_without_triton_its_network_is_refused() -> None:
    with pytest.raises(UserError, match="there is no Triton here"):
        importlib.import_module("braggnn_edge.locate.triton_network")

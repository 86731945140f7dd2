"""The locators: every form against float64, corner-case patches, bad input, streaming, and memory that runs short."""

import copy
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.scan import open_scan
from braggnn_edge.locate import onnx_session as locate_onnx
from braggnn_edge.locate.compiled import CompiledNetwork
from braggnn_edge.locate.float_forms import float_locator
from braggnn_edge.locate.frames import locate_frames
from braggnn_edge.locate.fused import FusedNetwork, multiplications
from braggnn_edge.locate.locator import Locator
from braggnn_edge.peaks.rules import component_rule
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from braggnn_edge.training.train import located
from braggnn_edge.universal.locator import universal_locator as open_universal

PUBLISHED = NetworkSpec()
SMALL = NetworkSpec(conv=(7, 3), dense=(5,), attention=False, slope=0.0)
ODD = NetworkSpec(conv=(6, 13, 2), dense=(9, 3), attention=True)
CORRECTING = NetworkSpec(conv=(7, 3), dense=(5,), attention=False, slope=0.0, centroid=True)
POOLED = NetworkSpec(conv=(6, 3), dense=(5,), attention_channels=2, attention_pool=3)


def network(spec: NetworkSpec, size: int = 11) -> BraggNN:
    """Random weights, and biases that are not zero, as a trained network has them."""
    torch.manual_seed(3)
    net = BraggNN(spec, size).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0, 0.1)
    return net


def in_float64(net: BraggNN, patches: np.ndarray) -> np.ndarray:
    """The network as it is trained, in float64: offsets (n, 2) px."""
    with torch.inference_mode():
        return located(copy.deepcopy(net).double(), torch.from_numpy(patches.astype(np.float64))).numpy()


def spots(count: int, size: int = 11) -> np.ndarray:
    rng = np.random.default_rng(1)
    row, col = np.indices((size, size))
    centre = rng.uniform(size // 2 - 1, size // 2 + 1, (count, 2, 1, 1))
    spot = 800 * np.exp(-((row - centre[:, 0]) ** 2 + (col - centre[:, 1]) ** 2) / 4)
    return rng.poisson(spot + 20).astype(np.uint16)


def corner_cases(size: int = 11) -> np.ndarray:
    """Flat at 0, at 7 and at saturation; one hot pixel; negative; values to the limits of float32's precision."""
    row, col = np.indices((size, size))
    hot = np.where((row == 0) & (col == size - 1), 65535.0, 0.0)
    return np.stack(
        [
            np.zeros((size, size)),
            np.full((size, size), 7.0),
            np.full((size, size), 65535.0),
            hot,
            -hot,
            hot * 1e8,
            row - 1e6,
        ]
    )


@pytest.mark.parametrize(("spec", "size"), [(PUBLISHED, 11), (SMALL, 9), (ODD, 13), (CORRECTING, 11)])
@pytest.mark.parametrize(
    ("backend", "precision", "most"),
    [
        ("eager", "float32", 2e-5),
        ("compiled", "float32", 2e-5),
        ("torch", "float32", 2e-5),
        ("torch", "float16", 0.02),
        ("torch", "bfloat16", 0.15),
        ("onnxruntime", "float32", 2e-5),
        ("onnxruntime", "float16", 0.02),
    ],
)
def test_every_form_is_near_the_published_network_in_float64(spec, size, backend, precision, most) -> None:
    net = network(spec, size)
    locator = float_locator(net, backend, precision=precision)
    for patches in (spots(70, size), corner_cases(size)):
        wide = in_float64(net, patches)
        assert np.abs(float_locator(net, "torch", precision="float64").locate(patches) - wide).max() < 1e-11
        found = locator.locate(patches)
        assert found.dtype == np.float64
        assert np.abs(found - wide).max() < most
    # And not by answering the same everywhere.
    assert locator.locate(spots(70, size)).std(axis=0).min() > 1e-3


def test_multiplied_out_is_the_same_function() -> None:
    """In float64 only rounding is left: the factored form is no approximation. Attention matters in this network."""
    net, patches = network(PUBLISHED), spots(30)
    with torch.no_grad():
        net.nlb.out_cnn.weight *= 20
        net.nlb.theta_layer.weight *= 5
    with torch.inference_mode():
        fused = FusedNetwork(net, "float64")(torch.from_numpy(patches)).numpy()
    exact = in_float64(net, patches)
    assert np.abs(fused - exact).max() < 1e-11
    assert np.abs(CompiledNetwork(net)(patches.astype(np.float32)) - exact).max() < 5e-5
    with torch.no_grad():
        net.nlb.out_cnn.weight *= 0
    assert np.abs(in_float64(net, patches) - exact).max() > 1


def test_a_network_that_corrects_is_its_layers_and_the_centroid() -> None:
    """Its layers at zero, its answer is the centroid of the squared pixels above the minimum."""
    net, patches = network(CORRECTING), spots(30)
    with torch.no_grad():
        net.dense_layers[-1].weight *= 0
        net.dense_layers[-1].bias[:] = 0.5 / 11 + 5 / 11  # upstream's form of no correction
    above = (patches - patches.min(axis=(1, 2), keepdims=True).astype(float)) ** 2
    at = np.arange(11) - 5
    wanted = np.stack([above.sum(axis=2) @ at, above.sum(axis=1) @ at], axis=1) / above.sum(axis=(1, 2))[:, None]
    base = in_float64(net, patches) - wanted
    assert np.abs(base - base[0]).max() < 1e-9
    assert np.abs(float_locator(net, "compiled").locate(patches) - base[0] - wanted).max() < 2e-5


def test_pooled_keys_are_computed_or_refused_by_form() -> None:
    """A maximum cannot be multiplied out: torch keeps the block as it is, the forms that cannot say which can."""
    net, patches = network(POOLED), spots(30)
    exact = in_float64(net, patches)
    assert np.abs(float_locator(net, "torch", precision="float64").locate(patches) - exact).max() < 1e-11
    assert np.abs(float_locator(net, "torch").locate(patches) - exact).max() < 2e-5
    assert np.abs(float_locator(net, "torch", precision="float16").locate(patches) - exact).max() < 0.02
    assert np.abs(float_locator(net, "eager").locate(patches) - exact).max() < 2e-5
    for backend in ("compiled", "onnxruntime"):
        with pytest.raises(UserError, match=r"attention_pool 3: .* choose the backend torch or eager"):
            float_locator(net, backend)
    every = 81 * 9 * 6 + 4 * 81 * 6 * 2 + 2 * 81 * 9 * 2 + 49 * 9 * 18 + 147 * 5 + 10
    assert multiplications(POOLED, 11, fused=True) == multiplications(POOLED, 11, fused=False) == every


def test_attention_for_a_gpu_is_that_for_a_cpu() -> None:
    net = network(ODD)
    windows = torch.from_numpy(spots(20)).double().unfold(1, 3, 1).unfold(2, 3, 1) / 800
    for precision, most in (("float64", 1e-12), ("float32", 1e-5), ("float16", 5e-3), ("bfloat16", 3e-2)):
        fused = FusedNetwork(net, precision)
        given = windows.to(fused.wide)
        found = functional.linear(fused._fused(given), fused.mixed_narrow, fused.bias.to(fused.narrow))
        expected = functional.linear(fused._plain(given), fused.mixed, fused.bias)
        assert (found - expected).abs().max() < most * float(expected.abs().max())


def test_multiplications_are_those_of_the_layers() -> None:
    assert multiplications(PUBLISHED, 11, fused=False) == 2_094_252
    assert multiplications(PUBLISHED, 11, fused=True) == 1_182_111
    assert multiplications(SMALL, 9, fused=True) == 49 * 9 * 7 + 25 * 9 * 21 + 75 * 5 + 10


def test_compiled_does_not_depend_on_batch_order_or_threads() -> None:
    net, patches = network(ODD), spots(83).astype(np.float32)
    whole = CompiledNetwork(net, threads=1)(patches)
    assert np.array_equal(CompiledNetwork(net, threads=3)(patches), whole)
    alone = np.concatenate([CompiledNetwork(net)(patches[i : i + 1]) for i in range(20)])
    assert np.array_equal(alone, whole[:20])
    assert np.array_equal(CompiledNetwork(net)(np.ascontiguousarray(patches[::-1])), whole[::-1])


@pytest.mark.parametrize("backend", ["compiled", "torch", "onnxruntime", "eager"])
def test_types_empty_and_strided_input(backend: str) -> None:
    locator = float_locator(network(SMALL, 9), backend)
    assert locator.locate(np.zeros((0, 9, 9), np.uint16)).shape == (0, 2)
    counts = spots(20, 9)
    expected = locator.locate(counts)
    for kind in ("int16", "int32", "int64", "uint32", "float32", "float64", ">u2"):
        assert np.array_equal(locator.locate(counts.astype(kind)), expected), kind
    wide = np.zeros((20, 13, 13), np.uint16)
    wide[:, 2:-2, 2:-2] = counts
    assert np.array_equal(locator.locate(wide[:, 2:-2, 2:-2]), expected)
    streamed = np.concatenate(list(locator.stream([counts[:7], counts[7:7], counts[7:]])))
    # Libraries choose their order of summation by the size of the batch; the compiled kernel does not.
    assert np.abs(streamed - expected).max() <= (0 if backend == "compiled" else 2e-5)


def test_bad_patches_are_named() -> None:
    locator = float_locator(network(SMALL, 9), "compiled")
    with pytest.raises(UserError, match=r"\(5, 11, 11\); compiled expects \(n, 9, 9\)"):
        locator.locate(np.zeros((5, 11, 11)))
    with pytest.raises(UserError, match=r"shape \(9, 9\)"):
        locator.locate(np.zeros((9, 9)))
    with pytest.raises(UserError, match="complex128"):
        locator.locate(np.zeros((5, 9, 9), complex))
    locator.batch = 2
    for value in (np.nan, np.inf, 1e39):
        patches = np.zeros((5, 9, 9))
        patches[3, 0, 1] = value
        with pytest.raises(UserError, match="patch 3 holds NaN"):  # and no warning, which would be an error here
            locator.locate(patches)


def test_missing_forms_and_devices_name_what_there_is() -> None:
    net = network(SMALL, 9)
    with pytest.raises(UserError, match="'tensorflow' is unknown; expected one of auto, compiled, torch, onnxruntime"):
        float_locator(net, "tensorflow")
    with pytest.raises(UserError, match=r"onnxruntime has no TensorrtExecutionProvider; it has .*CPUExecutionProvider"):
        float_locator(net, "onnxruntime", device="tensorrt")
    with pytest.raises(UserError, match="expected one of cpu, cuda, tensorrt"):
        float_locator(net, "onnxruntime", device="tpu")
    with pytest.raises(UserError, match="float16 on cpu; choose torch"):
        float_locator(net, "compiled", precision="float16")
    with pytest.raises(UserError, match="'int4' is unknown; expected one of float64"):
        float_locator(net, "torch", precision="int4")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            float_locator(net, "torch", device="cuda")
        with pytest.raises(UserError, match="no CUDA device"):
            float_locator(net, "triton", precision="float16", device="cuda")
        with pytest.raises(UserError, match="no CUDA device"):
            open_universal(device="cuda")
    with pytest.raises(UserError, match="Triton's kernels run on GPUs, not on cpu"):
        float_locator(net, "triton", precision="float16")
    with pytest.raises(UserError, match="float32 on the CPU, not float16"):
        open_universal(precision="float16")


def test_a_provider_that_does_not_start_is_no_silent_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime falls back to the CPU by itself when CUDA's libraries are missing."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])

    class OnTheCpu:
        def __init__(self, *_, **__) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", OnTheCpu)
    with pytest.raises(UserError, match="could not start CUDAExecutionProvider"):
        locate_onnx.session(locate_onnx.float_model(network(SMALL, 9)), "cuda")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer"),
    ],
)
def test_short_memory_retries_in_halves_and_keeps_what_is_done(error: Exception) -> None:
    called: list[int] = []

    def run(block: np.ndarray) -> np.ndarray:
        called.append(len(block))
        if len(block) > 40 and len(called) > 1:  # the first batch fits, then another program takes the memory
            raise error
        return block[:, 0, :2].astype(float)

    locator = Locator("fake", 5, run, "float32", "a small card", batch=128)
    patches = np.arange(300 * 25, dtype=np.float32).reshape(300, 5, 5)
    assert np.array_equal(locator.locate(patches), patches[:, 0, :2])
    assert called == [128, 128, 64, 32, 32, 32, 32, 32, 12]  # the first 128 are not computed again
    assert (locator.batch, locator.retries) == (32, 2)


def test_memory_too_short_for_anything_and_other_errors() -> None:
    def full(_: np.ndarray) -> np.ndarray:
        raise torch.OutOfMemoryError("CUDA out of memory")

    locator = Locator("fake", 5, full, "float32", "a small card", batch=100)
    with pytest.raises(UserError, match="a small card has too little free memory for 16 patches"):
        locator.locate(np.zeros((50, 5, 5)))

    def broken(_: np.ndarray) -> np.ndarray:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        Locator("fake", 5, broken, "float32", "CPU").locate(np.zeros((50, 5, 5)))


def scan_file(path: Path, frames: int) -> None:
    """Frames of 64 x 64 with 4 spots each, all of another height, in the BraggNN layout."""
    rng = np.random.default_rng(2)
    row, col = np.indices((64, 64))
    images = rng.poisson(10, (frames, 64, 64)).astype(np.float64)
    for index in range(frames):
        for r, c in ((12, 14), (12, 45), (44, 14), (44, 45)):
            r0, c0 = r + rng.uniform(-0.5, 0.5), c + rng.uniform(-0.5, 0.5)
            images[index] += 3000 * np.exp(-((row - r0) ** 2 + (col - c0) ** 2) / 3)
    with h5py.File(path, "w") as file:
        file["frames"] = images.astype(np.uint16)


def test_frames_stream_in_order_and_pieces_change_nothing(tmp_path: Path) -> None:
    scan_file(tmp_path / "scan.h5", 12)
    scan = open_scan("braggnn", tmp_path / "scan.h5")
    locator = float_locator(network(SMALL, 9), "compiled")
    find = component_rule(100.0)
    (whole,) = locate_frames(locator, scan, find)
    assert np.array_equal(whole["frame"], np.repeat(np.arange(12), 4))
    pixel = np.stack([whole["pixel_row"], whole["pixel_col"]], axis=1)
    assert np.abs(pixel[:4] - [[12, 14], [12, 45], [44, 14], [44, 45]]).max() <= 1
    assert np.isnan(whole["omega"]).all()
    locator.batch = 16
    pieces = list(locate_frames(locator, scan, find))
    assert [len(piece) for piece in pieces] == [16, 16, 16]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
    (part,) = locate_frames(locator, scan, find, start=3, stop=5)
    assert part.tobytes() == whole[12:20].tobytes()
    assert list(locate_frames(locator, scan, component_rule(1e9))) == []
    assert np.isnan([whole["sigma_row"], whole["wide_row"]]).all()


@pytest.mark.parametrize("wide", [True, False])
def test_intervals_of_peaks_of_frames_are_those_of_their_patches(tmp_path: Path, wide: bool) -> None:
    """A form that gives sigma alone has no 95 % interval: NaN."""
    frames = np.zeros((2, 40, 40), np.uint16)
    frames[:, 10:12, 20:22] = [[900, 300], [250, 100]]
    frames[1] *= 2
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["frames"] = frames

    def run(block: np.ndarray) -> np.ndarray:
        brightest = block.max(axis=(1, 2))[:, None].astype(np.float64)
        columns = [0 * brightest, 0 * brightest, brightest, brightest / 2, brightest / 3, brightest / 4]
        return np.concatenate(columns[: 6 if wide else 4], axis=1)

    one = Locator("known", 9, run, "float64", "CPU", sigma=True)
    (found,) = locate_frames(one, open_scan("braggnn", tmp_path / "scan.h5"), component_rule(50.0))
    assert [found["sigma_row"].tolist(), found["sigma_col"].tolist()] == [[900, 1800], [450, 900]]
    expected = [[300, 600], [225, 450]] if wide else np.full((2, 2), np.nan)
    assert np.array_equal([found["wide_row"], found["wide_col"]], expected, equal_nan=True)


def test_memory_is_bounded_by_the_batch() -> None:
    """80 batches need no more than one: numpy reports its arrays to tracemalloc."""
    locator = float_locator(network(SMALL, 9), "compiled")
    locator.batch = 256
    counts = spots(256, 9)

    def peak(batches: int) -> int:
        tracemalloc.start()
        for _ in locator.stream(counts for _ in range(batches)):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(80) < 1.2 * peak(2)

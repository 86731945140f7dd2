"""The compiled fit: its functions against scipy, its minima against torch's, and bits that depend on nothing else."""

import re
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev
from scipy import special

from braggnn_edge.core import compiler
from braggnn_edge.core.errors import UserError
from braggnn_edge.fit import kernel as fit_kernel
from braggnn_edge.fit import single as fit_module
from braggnn_edge.fit.cramer_rao import deviations, inverse, public_covariance
from braggnn_edge.fit.pseudo_voigt import render
from braggnn_edge.fit.single import FitResult, fit

EPS = {True: 2.0**-52, False: 2.0**-23}


def scene(count: int, seed: int, low: float = 30.0, high: float = 20000.0) -> np.ndarray:
    """Noisy 11 x 11 patches with peaks of 1.2 to 4 px, from faint to bright."""
    rng = np.random.default_rng(seed)
    widths = np.sort(rng.uniform(1.2, 4.0, (count, 2)), axis=1)
    peaks = np.stack(
        [rng.uniform(4, 6, count), rng.uniform(4, 6, count), np.exp(rng.uniform(np.log(low), np.log(high), count)),
         widths[:, 1], widths[:, 0], rng.uniform(-1.5, 1.5, count), rng.uniform(0, 1, count),
         rng.uniform(1, 30, count)], axis=1,
    )  # fmt: skip
    return rng.poisson(render(torch.from_numpy(peaks), 11).numpy()).astype(np.float64)


@pytest.mark.parametrize("wide", [True, False])
def test_functions_against_scipy(wide: bool) -> None:
    def given(x: np.ndarray) -> np.ndarray:
        return x if wide else x.astype(np.float32).astype(np.float64)

    x = given(np.linspace(-80.0, 10.0, 20_001))
    got = fit_kernel.function("exp", x, wide)
    # Taylor's series ends below half a unit; the reduction of the argument loses a little of its last place.
    assert np.abs(got / np.exp(x) - 1).max() < 4 * EPS[wide]
    x = given(np.concatenate([np.linspace(-0.999, 5.0, 20_001), np.geomspace(1e-12, 1e6), -np.geomspace(1e-12, 0.9)]))
    x = x[x != 0]
    assert np.abs(fit_kernel.function("log1p", x, wide) / np.log1p(x) - 1).max() < 4 * EPS[wide]
    # From the smallest argument the fit makes, Phi(8), to pixels far above the zero-suppression level.
    x = given(np.concatenate([np.linspace(-8 / np.sqrt(2), 20, 20_001), np.geomspace(20, 1e4)]))
    assert np.abs(fit_kernel.function("erfcx", x, wide) / special.erfcx(x) - 1).max() < 40 * EPS[wide]


@pytest.mark.parametrize("terms", [25, 13])
def test_the_table_of_erfcx_is_the_one_that_its_comment_describes(terms: int) -> None:
    source = Path(fit_kernel.__file__).with_suffix(".cpp").read_text()
    body = re.search(rf"kErfcx{terms}\[{terms}\] = \{{(.*?)\}};", source, re.DOTALL)
    assert body is not None
    stored = [float(number) for number in body[1].replace("\n", " ").split(",") if number.strip()]

    def scaled(y: np.ndarray) -> np.ndarray:
        x = 3.0 * (1 + y) / (1 - np.minimum(y, 1 - 1e-12))
        return (1 + 2 * x) * special.erfcx(x)

    # Interpolation at 25 points adds rounding of a few units to coefficients of order one.
    np.testing.assert_allclose(stored, chebyshev.chebinterpolate(scaled, terms - 1), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("zero_suppression", "saturation"), [(None, None), (60.0, None), (None, 3000.0)])
def test_kernel_and_torch_end_in_the_same_minimum(zero_suppression: float | None, saturation: float | None) -> None:
    data = scene(300, 1, low=100.0)
    if zero_suppression:
        data[data < zero_suppression] = 0.0
    options = {"read_noise": 1.0, "zero_suppression": zero_suppression, "saturation": saturation}
    ours, theirs = fit(data, engine="kernel", **options), fit(data, engine="torch", **options)
    # Beside a zero-suppression level of 60 the faintest have fewer pixels than parameters.
    assert ours.converged.mean() > 0.97
    both = ours.converged & theirs.converged
    scale = np.maximum(ours.sigma[:, :2].max(axis=1), 1e-9)
    apart = np.abs(ours.parameters - theirs.parameters)[:, :2].max(axis=1) / scale
    # Each stops where its next step is below 1e-4 sigma, and the steps shrink tenfold or so.
    assert np.percentile(apart[both], 98) < 1e-3
    # A few peaks have two minima; there the engines may part, and no others may.
    assert (apart[both] > 1e-2).mean() < 0.01
    close = both & (apart < 1e-3)
    np.testing.assert_allclose(ours.chi2[close], theirs.chi2[close], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(ours.dof[close], theirs.dof[close])


def test_bits_do_not_depend_on_threads_or_company() -> None:
    data = scene(1500, 2)  # three blocks of the kernel, the last one short
    whole = fit(data, threads=1)
    for other in (fit(data, threads=3), fit(data[::-1], threads=2)):
        flipped = other if np.array_equal(other.chi2, whole.chi2) else other.select(np.arange(len(data))[::-1])
        for field in fields(FitResult):
            assert np.array_equal(getattr(whole, field.name), getattr(flipped, field.name)), field.name
    alone = fit(data[700:701])
    assert np.array_equal(alone.parameters[0], whole.parameters[700])


def test_torch_engine_does_not_depend_on_company() -> None:
    data = scene(130, 3)
    whole, half = fit(data, engine="torch", chunk=64), fit(data[60:], engine="torch")
    assert np.array_equal(whole.parameters[60:], half.parameters)


def test_the_limit_of_iterations_counts_both_passes() -> None:
    data = scene(40, 4)
    for engine in ("kernel", "torch"):
        for limit in (1, 2, 5):
            result = fit(data, max_iterations=limit, engine=engine)
            assert (result.iterations <= limit).all()
            assert not result.converged[result.iterations == 1].any()


def test_out_of_memory_retries_with_fewer_lanes(monkeypatch) -> None:
    data = scene(200, 5)
    asked: list[int] = []
    original = fit_module.Queue.open

    def scarce(queue, chunk, device, dtype):
        asked.append(chunk)
        if chunk > 70:
            raise torch.OutOfMemoryError("out of memory")
        return original(queue, chunk, device, dtype)

    whole = fit(data, engine="torch")
    monkeypatch.setattr(fit_module.Queue, "open", scarce)
    assert np.array_equal(fit(data, engine="torch", chunk=256).parameters, whole.parameters)
    assert asked == [256, 128, 64, 64]
    monkeypatch.setattr(fit_module.Queue, "open", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(UserError, match="too little memory on the device"):
        fit(data, engine="torch")


def test_wrong_engine() -> None:
    with pytest.raises(UserError, match="engine 'kernel' on meta"):
        fit(np.ones((1, 11, 11)), engine="kernel", device="meta")
    with pytest.raises(UserError, match="engine 'fast'"):
        fit(np.ones((1, 11, 11)), engine="fast")


def test_missing_compiler_is_named(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"g\+\+ is not on the PATH"):
        compiler.shared_library(Path(fit_kernel.__file__).with_suffix(".cpp"), fit_kernel.FLAGS)


def test_compiler_errors_are_shown_and_nothing_is_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "wrong.cpp"
    source.write_text("int f( {")
    with pytest.raises(UserError, match=r"g\+\+ failed .*wrong.cpp"):
        compiler.shared_library(source, ())
    assert not list((tmp_path / "braggnn-edge").iterdir())
    source.write_text("int f() { return 1; }")
    library = compiler.shared_library(source, ("-O1",))
    assert compiler.shared_library(source, ("-O1",)) == library
    assert compiler.shared_library(source, ("-O2",)) != library


def test_a_cache_that_cannot_be_written_is_replaced(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("no folder can be made in here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = compiler.cache_folder()
    assert found.is_dir()
    assert tmp_path not in found.parents
    assert compiler.cache_folder() == found  # one for a process, so that a library is not built at every use


_SHORT = """
import resource, sys
import numpy as np
from braggnn_edge.fit.kernel import library
from braggnn_edge.fit.levenberg_marquardt import Noise
from braggnn_edge.fit import kernel
library()
size, threads = int(sys.argv[1]), int(sys.argv[2])
data = np.full((2, size, size), 20.0)
used, below = np.ones(data.shape, bool), np.zeros(data.shape, bool)
start = np.tile([size / 2, size / 2, 5.0, 3.0, 2.0, 0.1, 0.5, 20.0], (2, 1))
low, high = start - 0.1, start + 0.1
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (48 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    kernel.solve(
        data, used, below, noise=Noise(1.0, 4.0, None), order=3, low=low, high=high, start=start, max_iterations=3,
        threads=threads,
    )
except MemoryError as error:
    print("MemoryError:", error)
else:
    print("done")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux: its address space is limited")
@pytest.mark.parametrize(
    ("size", "threads", "answer"),
    [(900, 1, "MemoryError: the compiled fit found no memory for patches of 900 x 900 px"), (11, 200, "done")],
)
def test_no_exception_leaves_the_kernel_when_memory_is_short(size: int, threads: int, answer: str) -> None:
    """std::bad_alloc of the vectors, and std::system_error of threads that cannot start; both ended the process."""
    fit_kernel.library()
    child = subprocess.run(
        [sys.executable, "-c", _SHORT, str(size), str(threads)], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith(answer)


def test_fits_of_noise_warn_of_nothing() -> None:
    """Components of a threshold just above the background: their covariance can be far from regular."""
    rng = np.random.default_rng(0)
    frame = rng.poisson(20, (256, 256)).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(frame, (11, 11))
    row, col = rng.integers(0, 246, (2, 4000))
    patches, usable = windows[row, col], rng.random((4000, 11, 11)) < rng.uniform(0.05, 1.0, (4000, 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit(patches, valid=usable, read_noise=2.0)
    assert not np.isinf(found.covariance).any()


def test_a_parameter_without_information_has_a_finite_variance() -> None:
    information = np.eye(8)[None] * np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1e-320, 1e-300, 1.0])
    parameters = np.array([[5.0, 5.0, 100.0, 3.0, 2.0, 0.1, 0.5, 20.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        covariance = public_covariance(inverse(information), parameters)
        indefinite = deviations(np.diag([4.0, -1.0])[None])
    assert np.isfinite(covariance).all()
    assert np.sqrt(covariance[0, 5, 5]) == pytest.approx(np.pi / np.sqrt(12))
    assert indefinite[0, 0] == 2
    assert np.isnan(indefinite[0, 1])

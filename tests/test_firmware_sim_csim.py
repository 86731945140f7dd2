"""C simulation against the integer network: exact as generated, and caught at the right layer once mutated."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.training.spec import NetworkSpec
from firmware_sim.forms import csim
from firmware_sim.forms.compare import Comparison, compare_normalizer, simulate
from firmware_sim.verification.vectors import corner_case_codes, corner_case_counts
from hls.project.layered import write_project
from quant.contract import emulate
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer
from quant.contract.vectors import random_codes
from quant.training.export import export_qonnx
from quant.training.plan import BitPlan
from quant.training.qnet import QuantBraggNN, calibrate, fit_weight_scales

SIZE = 5
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


class Case:
    """A network, its project and the compiled simulation."""

    def __init__(self, directory: Path, io_type: str) -> None:
        plan = BitPlan(weight_bits=5, activation_bits=5)
        qnet = QuantBraggNN(NetworkSpec((2,), (4,), False, 0.0), SIZE, plan)
        rng = np.random.default_rng(0)
        for parameter in qnet.parameters():
            if parameter.ndim:
                parameter.data[...] = parameter.data.new_tensor(rng.normal(0, 0.3, tuple(parameter.shape)))
        fit_weight_scales(qnet)
        codes = random_codes(SIZE, plan.input, 60, rng)
        calibrate(qnet, plan.input.values(codes)[:, None].astype(np.float32))
        self.directory = directory
        self.network: IntegerNetwork = export_qonnx(qnet, directory / "model.onnx")
        self.normalizer = Normalizer()
        self.project = directory / "project"
        self.counts = corner_case_counts(SIZE, rng)
        self.codes = corner_case_codes(SIZE, self.network.input, rng, count=200)
        write_project(
            directory / "model.onnx", self.network, self.normalizer, self.project, counts=self.counts, io_type=io_type
        )
        self.build = directory / "build"
        self.executable = csim.build(self.project, self.build, optimization="-O0")

    def simulate(self, executable: csim.Executable, out_dir: Path) -> Comparison:
        return simulate(executable, self.network, self.codes, workers=2, chunk=300, out_dir=out_dir)[1]

    def mutated(self, directory: Path, *changes: tuple[str, str, Callable[[re.Match], str]]) -> csim.Executable:
        """The simulation of a copy in which the first match of each (file, pattern) was changed."""
        copy = directory / "project"
        shutil.copytree(self.project, copy)
        for name, pattern, change in changes:
            text = (copy / name).read_text()
            changed, n = re.subn(pattern, change, text, count=1)
            assert n == 1
            assert changed != text
            (copy / name).write_text(changed)
        return csim.build(copy, directory / "build", optimization="-O0")


@pytest.fixture(scope="module")
def parallel(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("parallel"), "io_parallel")


@pytest.fixture(scope="module")
def stream(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("stream"), "io_stream")


@pytest.fixture(params=["parallel", "stream"])
def case(request) -> Case:
    return request.getfixturevalue(request.param)


def test_every_code_of_every_layer_agrees(case, tmp_path):
    outputs, found = simulate(case.executable, case.network, case.codes, workers=2, chunk=100, out_dir=tmp_path)
    reference = emulate.run(case.network, case.codes)
    assert found.exact
    found.require_exact("csim")
    np.testing.assert_array_equal(outputs, reference.outputs)
    assert len(np.unique(outputs, axis=0)) > 50  # not the constant network
    assert found.patches == len(case.codes)
    stats = {s.name: s for s in reference.layers}
    for layer in found.layers:
        assert (layer.elements, layer.saturations, layer.overflows) == (
            stats[layer.name].elements,
            stats[layer.name].saturations,
            0,
        )
    assert sum(layer.saturations for layer in found.layers) > 0
    assert Comparison.from_document(found.document()) == found


def test_normalizer_agrees(parallel):
    found = compare_normalizer(parallel.executable, parallel.normalizer, parallel.counts)
    assert found.exact
    assert found.patches == len(parallel.counts)


def test_test_bench_passes_and_fails(parallel, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(parallel.project, copy)
    flags = "-O0 -std=c++11 -w -Ifirmware/ap_types"  # the project's own, but quick to compile
    make = ["make", "-s", "-C", str(copy), "test", f"CXXFLAGS={flags}"]
    passed = subprocess.run(make, capture_output=True, text=True, check=False)
    assert passed.returncode == 0, passed.stderr
    assert f"PASS: normalizer on {len(parallel.counts)} patches" in passed.stdout
    for name, message in (
        ("counts_to_codes.dat", "normalizer: patch 3, pixel (4, 4)"),
        ("codes_to_outputs.dat", "network: patch 3, output 1"),
    ):
        path = copy / "tb_data" / name
        good = path.read_text()
        lines = good.splitlines()
        head, last = lines[3].rsplit(" ", 1)
        path.write_text("\n".join([*lines[:3], f"{head} {int(last) + 1}", *lines[4:]]) + "\n")
        failed = subprocess.run([str(copy / "test_bench")], cwd=copy, capture_output=True, text=True, check=False)
        assert failed.returncode == 1
        assert message in failed.stderr
        path.write_text("\n".join(lines[:-1]) + "\n")  # a truncated file is no pass either
        failed = subprocess.run([str(copy / "test_bench")], cwd=copy, capture_output=True, text=True, check=False)
        assert failed.returncode == 1
        path.write_text(good)


@pytest.fixture(scope="module")
def mutant(parallel, tmp_path_factory) -> csim.Executable:
    """One project with one weight bit flipped in the network and one table entry in the normalizer: two programs."""
    dense = next(layer for layer in parallel.network.layers if layer.kind == "dense")
    step = 2.0**-dense.weight_format.frac
    name = next(
        path.name
        for path in sorted((parallel.project / "firmware/weights").glob("w*.h"))
        if f"[{dense.weight.size}]" in path.read_text()
    )
    entry = parallel.normalizer.table[0]

    def flip(match: re.Match) -> str:
        code = round(float(match[2]) / step)
        return f"{match[1]}{(code ^ 1) * step:.17g}"

    return parallel.mutated(
        tmp_path_factory.mktemp("mutant"),
        (f"firmware/weights/{name}", r"(= \{)(-?[0-9.]+)", flip),
        ("firmware/normalize_table.h", rf"\n    {entry},", lambda _: f"\n    {entry ^ 256},"),
    )


def test_one_weight_bit(parallel, mutant, tmp_path):
    dense = next(layer for layer in parallel.network.layers if layer.kind == "dense")
    found = parallel.simulate(mutant, tmp_path)
    assert not found.exact
    assert found.first is not None
    assert found.first.layer == dense.name
    with pytest.raises(UserError, match=f"layer {dense.name}, patch"):
        found.require_exact("csim")


def test_one_table_entry(parallel, mutant):
    found = compare_normalizer(mutant, parallel.normalizer, parallel.counts)
    assert not found.exact
    assert found.first is not None
    assert found.first.layer == "normalizer"
    assert found.layers[0].wrong > 0


def test_one_rounding_mode(parallel, tmp_path):
    relu = next(layer for layer in parallel.network.layers if layer.kind == "relu")
    form = re.escape(relu.output.ap_type[:-1])
    executable = parallel.mutated(
        tmp_path, ("firmware/defines.h", f"({form},)AP_TRN", lambda match: f"{match[1]}AP_RND")
    )
    found = parallel.simulate(executable, tmp_path / "out")
    assert found.first is not None
    assert found.first.layer == relu.name


def test_overflows_are_counted(parallel, tmp_path):
    """With accumulators three bits short of the interval arithmetic's, sums wrap; the emulator's stay exact."""
    conv = parallel.network.layers[0]
    short = replace(conv.accumulator, bits=conv.accumulator.bits - 3)
    network = replace(parallel.network, layers=(replace(conv, accumulator=short), *parallel.network.layers[1:]))
    write_project(
        parallel.directory / "model.onnx", network, parallel.normalizer, tmp_path / "p", counts=parallel.counts
    )
    executable = csim.build(tmp_path / "p", tmp_path / "build", optimization="-O0")
    _, found = simulate(executable, network, parallel.codes, workers=2, chunk=300, out_dir=tmp_path / "out")
    expected = emulate.run(network, parallel.codes).layers[0].overflows
    assert expected > 0
    assert (found.layers[0].wrong, found.layers[0].overflows) == (expected, expected)
    assert found.first is not None
    assert found.first.layer == conv.name


def test_resumes_after_a_kill(parallel, tmp_path):
    whole = csim.run(parallel.executable, parallel.codes, workers=2, chunk=100, out_dir=tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise Killed

    out = tmp_path / "killed"
    with pytest.raises(Killed):
        csim.run(parallel.executable, parallel.codes, workers=1, chunk=100, out_dir=out, progress=kill)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.npz")}
    assert 2 <= len(before) < len(parallel.codes) // 100
    seen: list[tuple[int, int]] = []
    again = csim.run(
        parallel.executable, parallel.codes, workers=2, chunk=100, out_dir=out,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    np.testing.assert_array_equal(again, whole)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert seen[0][0] == len(before)
    assert seen[-1][0] == seen[-1][1]


def test_chunks_of_other_input_or_sources_are_not_reused(parallel, stream, tmp_path):
    codes = parallel.codes[:120]
    first = csim.run(parallel.executable, codes, workers=1, chunk=60, out_dir=tmp_path)
    other = csim.run(parallel.executable, codes[::-1], workers=1, chunk=60, out_dir=tmp_path)
    np.testing.assert_array_equal(other, first[::-1])
    assert parallel.executable.key != stream.executable.key
    files = set(tmp_path.iterdir())
    csim.run(stream.executable, codes, workers=1, chunk=60, out_dir=tmp_path)
    assert len(set(tmp_path.iterdir()) - files) == 2


def test_build_is_reused_until_a_source_changes(parallel, tmp_path):
    again = csim.build(parallel.project, parallel.build, optimization="-O0")
    assert again == parallel.executable


def test_missing_compiler(parallel, tmp_path):
    with pytest.raises(UserError, match="apt install g"):
        csim.build(parallel.project, tmp_path, compiler="no-such-compiler")


def test_compile_failure_names_the_log(parallel, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(parallel.project, copy)
    (copy / "firmware" / "defines.h").write_text("#error broken on purpose\n")
    with pytest.raises(UserError, match=r"(?s)compile\.log.*broken on purpose"):
        csim.build(copy, tmp_path / "build")
    assert "broken on purpose" in (tmp_path / "build" / "compile.log").read_text()
    assert not list((tmp_path / "build").glob("*/csim"))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((2, 3, 3), np.int64), "shape"),
        (np.zeros((2, SIZE, SIZE)), "float64"),
        (np.full((1, SIZE, SIZE), 256), "span 256"),
        (np.full((1, SIZE, SIZE), -1), "span -1"),
    ],
)
def test_bad_codes(parallel, tmp_path, codes, message):
    with pytest.raises(UserError, match=message):
        csim.run(parallel.executable, codes, workers=1, chunk=10, out_dir=tmp_path)


def test_no_patches(parallel, tmp_path):
    empty = np.zeros((0, SIZE, SIZE), np.int64)
    assert csim.run(parallel.executable, empty, workers=1, chunk=10, out_dir=tmp_path).shape == (0, 2)
    with pytest.raises(UserError, match="no patches"):
        simulate(parallel.executable, parallel.network, empty, workers=1, chunk=10, out_dir=tmp_path)

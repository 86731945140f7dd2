"""The HLS project of a circuit: its files, its headers at the ends of their widths, what is refused."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from hls.project.circuit import write_circuit_project
from hls.project.layered import load_project
from hls.project.test_bench import centroid_headers, golden_counts, normalizer_headers
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.block_shift import BlockShift
from quant.contract.centroid import Centroid
from quant.contract.layers import Flatten, Linear, Requantize
from quant.contract.locator import IntegerLocator
from quant.contract.network import IntegerNetwork
from quant.contract.normalize import Normalizer
from quant.contract.sizing import size_accumulators
from quant.exchange.circuit_qonnx import export_network

FRAC = 6
PATCHES = np.random.default_rng(1).poisson(300, (4, 5, 5))


def network(window: int = 3, seed: int = 0) -> IntegerNetwork:
    rng = np.random.default_rng(seed)
    return size_accumulators(
        IntegerNetwork(
            window,
            Format(4, 4, False),
            (
                Flatten("flatten"),
                Linear("dense.0", "dense", rng.integers(-7, 8, (4, window**2)), Format(4, 3, True),
                       rng.integers(-20, 21, 4), Format(1, 7, True)),
                Requantize("dense.0.act", "relu", Format(5, 3, False)),
                Linear("dense.1", "dense", rng.integers(-7, 8, (2, 4)), Format(4, 3, True),
                       rng.integers(-20, 21, 2), Format(1, 6, True)),
            ),
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def circuit() -> IntegerLocator:
    base = Centroid.of_power(3, 4, 2, index_bits=4, reciprocal_bits=7, numerator_bits=9, frac=FRAC)
    return IntegerLocator(5, 3, BlockShift(4, 16), network(), base, Format(8, FRAC, True))


@pytest.fixture(scope="module")
def qonnx(circuit, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("qonnx") / "model.onnx"
    export_network(circuit.network, path)
    return path


@pytest.fixture(scope="module")
def project(circuit, qonnx, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("hls") / "project"
    write_circuit_project(qonnx, circuit, directory, patches=PATCHES, target_name="u280", clock_mhz=250.0)
    return directory


def test_project_is_complete_and_describes_itself(project, circuit):
    found = load_project(project)
    assert (found.circuit, found.top, found.name) == (circuit.digest, "braggnn_locator", "braggnn")
    assert [layer.name for layer in found.layers] == ["dense.0", "dense.0.act", "dense.1"]
    assert locators.load(project / "locator.json").digest == circuit.digest
    assert {path.name for path in project.iterdir() if path.is_file()} == {
        "Makefile", "README.txt", "braggnn_bridge.cpp", "braggnn_locator_test.cpp", "build_lib.sh", "build_opt.tcl",
        "build_prj.tcl", "locator.json", "project.json", "project.tcl", "vivado_synth.tcl",
    }  # fmt: skip
    assert {path.name for path in (project / "firmware").glob("*.*")} >= {
        "braggnn.cpp", "braggnn_locator.cpp", "braggnn_locator.h", "normalize.h", "centroid.h", "centroid_tables.h"
    }  # fmt: skip
    assert 'set project_name "braggnn_locator"' in (project / "project.tcl").read_text()
    script = (project / "build_prj.tcl").read_text()
    assert "add_files firmware/braggnn.cpp" in script
    assert "add_files firmware/${project_name}.cpp" in script
    assert "PIPELINE II=1" in (project / "firmware" / "braggnn_locator.cpp").read_text()
    readme = (project / "README.txt").read_text()
    assert "ap_uint<16>" in readme
    assert "block-floating shift" in readme
    assert "4 ns clock" in readme


def test_no_placeholder_and_no_path_is_left(project):
    for path in [*project.glob("*"), *project.glob("firmware/*.*")]:
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"@[A-Z_]+@", text), path
            assert str(project) not in text
            assert ".part" not in text
            assert ".circuit" not in text.replace("project.circuit", "")
    assert [path.name for path in project.parent.iterdir()] == ["project"]


def test_golden_vectors_are_the_integer_circuits(project, circuit):
    counts = golden_counts(circuit, PATCHES)
    assert counts.max() == 65535
    assert np.array_equal(counts[:4], PATCHES[:, 1:4, 1:4])
    codes = circuit.normalizer.codes(counts)
    for name, expected in (("codes", codes), ("outputs", circuit.run(codes))):
        rows = np.loadtxt(project / "tb_data" / f"counts_to_{name}.dat", dtype=np.int64)
        assert np.array_equal(rows[:, :9], counts.reshape(-1, 9))
        assert np.array_equal(rows[:, 9:], expected.reshape(len(counts), -1))
    assert [path.name for path in (project / "tb_data").iterdir() if "codes_to" in path.name] == []


def test_same_arguments_same_bytes(project, circuit, qonnx, tmp_path):
    write_circuit_project(qonnx, circuit, tmp_path / "again", patches=PATCHES, target_name="u280", clock_mhz=250.0)
    files = [sorted(path.relative_to(root) for path in root.rglob("*")) for root in (project, tmp_path / "again")]
    assert files[0] == files[1]
    for name in files[0]:
        if (project / name).is_file():
            assert (project / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_what_cannot_be_is_refused_and_nothing_is_left(circuit, qonnx, tmp_path):
    other = replace(circuit, network=network(seed=1))
    for changed, options, message in (
        (circuit, {"backend": "VivadoAccelerator"}, "not offered for circuits; expected Vitis or Vivado"),
        (circuit, {"io_type": "parallel"}, "io type 'parallel' is unknown"),
        (other, {}, "layer dense.0: hls4ml"),
    ):
        with pytest.raises(UserError, match=message):
            write_circuit_project(qonnx, changed, tmp_path / "project", patches=PATCHES, **options)
        assert not list(tmp_path.iterdir())
    (tmp_path / "project").mkdir()
    with pytest.raises(UserError, match="exists; remove it"):
        write_circuit_project(qonnx, circuit, tmp_path / "project", patches=PATCHES)


_HARNESS = """
#include <cstdio>
#include "firmware/normalize.h"
#include "firmware/centroid.h"

int main() {
    for (;;) {
        normalize::count_t counts[normalize::N];
        normalize::code_t codes[normalize::N];
        centroid::code_t given[centroid::WINDOW * centroid::WINDOW];
        centroid::result_t base[2];
        for (int i = 0; i < normalize::N; i++) {
            long long value;
            if (std::scanf("%lld", &value) != 1)
                return 0;
            counts[i] = value;
        }
        normalize::counts_to_codes(counts, codes);
        for (int i = 0; i < normalize::N; i++)
            given[i] = codes[i];
        centroid::codes_to_offset(given, base);
        for (int i = 0; i < normalize::N; i++)
            std::printf("%d ", codes[i].to_int());
        for (int k = 0; k < 2; k++)
            std::printf("%.17g ", base[k].to_double());
        std::printf("\\n");
    }
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(
    ("normalizer", "base"),
    [
        # The widest counts, and numerators with bits below the moment's last one.
        (BlockShift(4, 32), Centroid.of_power(3, 4, 1, index_bits=1, reciprocal_bits=16, numerator_bits=24, frac=20)),
        # Codes as wide as they can be, squared; the narrowest division.
        (
            BlockShift(10, 10, True),
            Centroid.of_power(5, 10, 2, index_bits=3, reciprocal_bits=2, numerator_bits=4, frac=0),
        ),
        # The usual widths.
        (Normalizer(6, 18), Centroid.of_power(11, 6, 2, 4)),
    ],
    ids=["widest", "narrowest", "usual"],
)
def test_headers_are_exact_at_any_width_and_compile_without_warnings(project, normalizer, base, tmp_path):
    for name, text in {**normalizer_headers(normalizer, base.window), **centroid_headers(base)}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "harness.cpp").write_text(_HARNESS)
    # Pragmas and labels are for the HLS compiler.
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-label", "-I."]
    types = ["-isystem", str(project / "firmware" / "ap_types")]
    built = subprocess.run(
        ["g++", *flags, *types, "harness.cpp", "-o", "harness"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    low, high = normalizer.count_range
    rng = np.random.default_rng(0)
    shape = (200, base.window, base.window)
    counts = np.concatenate(
        [
            rng.integers(low, high, shape, endpoint=True) >> rng.integers(0, normalizer.count_bits, (200, 1, 1)),
            np.where(rng.random(shape) < 0.1, high, max(low, 0)),
            np.stack([np.full(shape[1:], value) for value in (low, high, 0)]),
            high * np.eye(base.window**2, dtype=np.int64).reshape(-1, *shape[1:]),
        ]
    )
    text = "\n".join(" ".join(map(str, row)) for row in counts.reshape(len(counts), -1).tolist())
    found = subprocess.run([str(tmp_path / "harness")], input=text, capture_output=True, text=True, check=True).stdout
    rows = np.array([line.split() for line in found.splitlines()], dtype=np.float64)
    codes = normalizer.codes(counts)
    assert np.array_equal(rows[:, :-2], codes.reshape(len(codes), -1))
    assert np.array_equal(rows[:, -2:] * 2.0**base.frac, base.codes(codes))


def test_project_json_of_a_network_names_no_circuit(project):
    document = json.loads((project / "project.json").read_text())
    del document["circuit"]
    (project / "project.json").with_name("old.json").write_text(json.dumps(document))
    old = project / "old"
    old.mkdir()
    (project / "old.json").rename(old / "project.json")
    assert load_project(old).top == "braggnn"
    shutil.rmtree(old)


def _reshapes(text: str, call: str) -> dict[str, str]:
    """How the arrays of a function are cut, by pragma: name to ARRAY_RESHAPE or ARRAY_PARTITION."""
    body = text[text.index(call) :]
    return {name: kind for kind, name in re.findall(r"#pragma HLS (ARRAY_\w+) variable=(\w+) complete", body)}


def test_an_array_is_cut_as_the_function_that_takes_it_says(project):
    """A partition on one side and a reshape on the other contradict each other: the tools would copy, or refuse."""
    firmware = project / "firmware"
    network_top = (firmware / "braggnn.cpp").read_text()
    first, last = re.search(r"void braggnn\(\s*input_t (\w+)\[.*?result_t (\w+)\[", network_top, re.S).groups()
    inside = _reshapes(network_top, "void braggnn(")
    ours = _reshapes((firmware / "braggnn_locator.cpp").read_text(), "static void locate(")
    assert (ours["input"], ours["correction"]) == (inside[first], inside[last]) == ("ARRAY_RESHAPE", "ARRAY_PARTITION")


_TREE = """
#include <algorithm>
#include <cstdio>
#include "tree.h"
struct Depth { int operator()(int a, int b) const { return std::max(a, b) + 1; } };
struct Count { int operator()(int a, int b) const { return a + b; } };
int main() {
    int zeros[121] = {0}, ones[121], words[121];
    for (int i = 0; i < 121; i++) { ones[i] = 1; words[i] = (i * 37) % 121 - 60; }
    std::printf("%d %d %d %d %d %d ", tree::Joined<0, 1>::of(zeros, Depth()), tree::Joined<0, 2>::of(zeros, Depth()),
        tree::Joined<0, 49>::of(zeros, Depth()), tree::Joined<0, 64>::of(zeros, Depth()),
        tree::Joined<0, 65>::of(zeros, Depth()), tree::Joined<0, 121>::of(zeros, Depth()));
    std::printf("%d %d %d\\n", tree::Joined<0, 121>::of(ones, Count()), tree::Joined<0, 121>::of(words, tree::Lower()),
        tree::Joined<0, 121>::of(words, tree::Higher()));
}
"""


def test_minima_are_a_tree(project, tmp_path):
    """As deep as the logarithm, every word once; the normalizers have no loop that keeps the lowest count so far."""
    (tmp_path / "tree.cpp").write_text(_TREE)
    program = tmp_path / "tree"
    subprocess.run(["g++", "-std=c++11", "-Wno-unknown-pragmas", "-I", str(project / "firmware"),
                    str(tmp_path / "tree.cpp"), "-o", str(program)], check=True)  # fmt: skip
    found = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["0", "1", "6", "6", "7", "7", "121", "-60", "60"]
    for normalizer in (BlockShift(4, 16, subtract=True), Normalizer(4, 10, 3)):
        header = normalizer_headers(normalizer, 7)["firmware/normalize.h"]
        assert "tree::Joined<0, N>::of(counts, tree::Lower())" in header
        assert not re.search(r"for [^\n]*\n(?:[^\n]*pragma[^\n]*\n)?\s*if \(counts\[i\] <", header)

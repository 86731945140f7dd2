"""The kernels on a processor of another kind: compiled for aarch64, whose vectors are NEON's, and run by qemu.

Debian and Ubuntu: ``apt install g++-aarch64-linux-gnu qemu-user``. Without the compiler these tests are skipped;
without qemu the kernels are compiled and not run.
"""

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from braggnn_edge.core import compiler
from braggnn_edge.fit import kernel as fit
from braggnn_edge.fit.single import fit as fit_peaks
from braggnn_edge.locate import compiled
from braggnn_edge.locate.choice import spots
from braggnn_edge.training.model import BraggNN
from braggnn_edge.training.spec import NetworkSpec
from quant.compiled import kernel as integers
from quant.contract.locator import IntegerLocator

COMPILER, QEMU = "aarch64-linux-gnu-g++", "qemu-aarch64"
pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"needs {COMPILER}")

#: What the fit writes: state, information, frozen, sums, iterations, converged.
RESULTS = ("double", "double", "std::uint8_t", "double", "std::int64_t", "std::uint8_t")
#: Blocks of bytes in, each behind its length; the bytes of the results out. CALL calls one kernel's function.
DRIVER = """
#include "{source}"
#include <cstdio>
#include <vector>
static std::vector<std::vector<char>> blocks;
template <class T> const T* at(std::size_t i) {{ return reinterpret_cast<const T*>(blocks[i].data()); }}
int main(int, char** names) {{
    FILE* in = std::fopen(names[1], "rb");
    for (std::int64_t size; std::fread(&size, 8, 1, in) == 1;) {{
        blocks.emplace_back(size);
        if (size && std::fread(blocks.back().data(), size, 1, in) != 1) return 3;
    }}
    const std::int64_t* n = at<std::int64_t>(0);
    std::vector<char> out(n[0]);
    if ([&]() -> int {{ {call} }}()) return 4;
    FILE* results = std::fopen(names[2], "wb");
    std::fwrite(out.data(), 1, out.size(), results);
    return std::fclose(results);
}}
"""


def on_aarch64(folder: Path, source: Path, flags: Sequence[str], call: str, out: int, *given: Any) -> bytes:
    """The ``out`` bytes that a call of a kernel leaves in ``out``; ``given``: numbers, then arrays."""
    (folder / "driver.cpp").write_text(DRIVER.format(source=source, call=call))
    portable = [flag for flag in flags if not flag.startswith(("-march", "-O"))]
    includes = [f"-I{folder}" for folder in (source.parent, Path(compiler.__file__).parent)]
    command = [
        COMPILER,
        *portable,
        "-O1",
        "-static",
        *includes,
        str(folder / "driver.cpp"),
        "-o",
        str(folder / "driver"),
    ]
    subprocess.run(command, check=True)
    if shutil.which(QEMU) is None:
        pytest.skip(f"compiled for aarch64 and not run: needs {QEMU}")
    numbers, *arrays = given
    with (folder / "given").open("wb") as stream:
        for block in (np.array([out, *numbers], np.int64), *arrays):
            stream.write(np.int64(block.nbytes).tobytes() + np.ascontiguousarray(block).tobytes())
    subprocess.run([QEMU, str(folder / "driver"), str(folder / "given"), str(folder / "out")], check=True)
    return (folder / "out").read_bytes()


def test_a_float_network_has_the_same_positions(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = BraggNN(NetworkSpec(conv=(6, 13, 2), dense=(9, 3), attention=True), 11).eval()
    here = compiled.CompiledNetwork(net)
    patches = spots(50, 11).astype(np.float32)
    numbers = (len(patches), here.size, int(here._attention), *here._depth)
    call = (
        "return braggnn_locate(at<float>(4), n[1], n[2], n[3], n[4], n[5], at<std::int32_t>(1), at<float>(2), "
        "*at<float>(3), 2, reinterpret_cast<float*>(out.data()));"
    )
    slope = np.array([here._slope], np.float32)
    given = (numbers, here._widths, here._weights, slope, patches)
    found = on_aarch64(tmp_path, compiled._SOURCE, compiled.FLAGS, call, 8 * len(patches), *given)
    assert np.abs(np.frombuffer(found, np.float32).reshape(-1, 2) - here(patches)).max() < 1e-5


def test_integers_have_the_same_codes(tmp_path: Path, random_circuit: Callable[..., IntegerLocator]) -> None:
    locator = random_circuit(7, channels=5, hidden=(6, 5), sigma=True)
    here = integers.CompiledIntegers(locator, fours=False)
    patches = spots(90, locator.size)
    numbers = (len(patches), len(here._tables))
    call = (
        "std::int32_t groups, block, quads; braggnn_integers_tile(&groups, &block, &quads); "
        "if (groups != n[3] || block != n[4]) return 1; std::vector<const void*> tables; "
        "for (std::int64_t i = 0; i < n[2]; ++i) tables.push_back(at<char>(3 + i)); "
        "return braggnn_integers(at<char>(2), 1, n[1], at<char>(1), tables.data(), 2, "
        "reinterpret_cast<std::int32_t*>(out.data()));"
    )
    given = ((*numbers, *tile()), here.plan.model, patches, *here._tables)
    found = on_aarch64(tmp_path, integers._SOURCE, integers.FLAGS, call, 4 * len(patches) * locator.outputs, *given)
    codes = locator.run(locator.codes(patches))
    assert np.array_equal(np.frombuffer(found, np.int32).reshape(codes.shape), codes)
    assert len(np.unique(codes)) > 20


def tile() -> tuple[int, int]:
    """Vectors and outputs that are computed together: a plan is laid out for them."""
    groups, block, quads = np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int32)
    integers.library().braggnn_integers_tile(*(one.ctypes.data for one in (groups, block, quads)))
    return int(groups[0]), int(block[0])


def test_fits_have_the_same_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patches = spots(60, 11)
    here = fit_peaks(patches, engine="kernel").parameters[:, :2]

    class Elsewhere:
        """The library's function, computed by qemu on the arrays whose addresses it is given."""

        @staticmethod
        def braggnn_fit(*given: Any) -> int:
            count, height, width, peaks, gain, variance, floor, order = given[2:10]
            most, inputs, outputs = given[15], (*given[:2], *given[10:15]), given[17:]
            parameters = 7 * peaks + 1
            each = [8 * count * size for size in (height * width, parameters)]
            sizes = [each[0], each[0] // 8, 8 * order, 8 * order, *(each[1],) * 3]
            results = [each[1], each[1] * parameters, each[1] // 8, 16 * count, 8 * count, count]
            arrays = [np.frombuffer(ctypes.string_at(*pair), np.uint8) for pair in zip(inputs, sizes, strict=True)]
            starts = np.cumsum([0, *results])
            pointers = ", ".join(
                f"reinterpret_cast<{kind}*>(out.data() + {start})"
                for kind, start in zip(RESULTS, starts[:-1].tolist(), strict=True)
            )
            call = (
                "return braggnn_fit(at<double>(2), at<std::uint8_t>(3), n[1], n[2], n[3], n[4], at<double>(1)[0], "
                "at<double>(1)[1], at<double>(1)[2], n[5], at<double>(4), at<double>(5), at<double>(6), at<double>(7), "
                f"at<double>(8), n[6], 2, {pointers});"
            )
            numbers = (count, height, width, peaks, order, most)
            noise = np.array([gain, variance, floor])
            found = on_aarch64(tmp_path, fit._SOURCE, fit.FLAGS, call, int(starts[-1]), numbers, noise, *arrays)
            for address, start, size in zip(outputs, starts[:-1].tolist(), results, strict=True):
                ctypes.memmove(address, found[start : start + size], size)
            return 0

    monkeypatch.setattr(fit, "library", Elsewhere)
    there = fit_peaks(patches, engine="kernel").parameters[:, :2]
    assert np.quantile(np.abs(there - here).max(axis=1), 0.99) < 1e-6

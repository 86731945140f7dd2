"""Arrays of weights in a form that g++ compiles quickly: the same values, for the vendor's tools and for g++."""

import shutil
import subprocess
from pathlib import Path

import pytest

from braggnn_edge.core.errors import UserError
from hls.project.weights import compile_quickly

HEADER = """\
//Numpy array shape [{count}]
//Min {low}
//Number of zeros 0

#ifndef {guard}_H_
#define {guard}_H_

{type} {name}[{count}] = {{{values}}};


#endif
"""

#: Stands for a vendor's fixed-point type: a constructor that rounds down to 1/64.
MAIN = """\
#include <cmath>
#include <cstdio>
struct weight_t {
    double value;
    weight_t() : value(-1000) {}
    weight_t(double x) : value(std::floor(x * 64) / 64) {}
};
#include "firmware/weights/w2.h"
#include "firmware/weights/w4.h"
#include "firmware/weights/b2.h"
int main() {
    for (int i = 0; i < 300; i++) std::printf("%.17g ", w2[i].value);
    for (int i = 0; i < 260; i++) std::printf("%.17g ", w4[i].value);
    for (int i = 0; i < 3; i++) std::printf("%.17g ", b2[i].value);
}
"""


def write(folder: Path, name: str, values: list[float], type_: str = "weight_t") -> Path:
    """A header as hls4ml writes it."""
    path = folder / "firmware" / "weights" / f"{name}.h"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ", ".join(f"{value:.7f}" for value in values)
    described = {"guard": name.upper(), "type": type_, "name": name, "count": len(values), "low": min(values)}
    path.write_text(HEADER.format(values=text, **described))
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """300 and 260 weights, some of them no multiple of the type's step, and 3 biases."""
    write(tmp_path, "w2", [(-1) ** k * k / 200 for k in range(300)])
    write(tmp_path, "w4", [1 - k / 77 for k in range(260)])
    write(tmp_path, "b2", [0.5, -0.25, 0.01])
    return tmp_path


def printed(project: Path, *flags: str) -> list[float]:
    (project / "main.cpp").write_text(MAIN)
    command = ["g++", "-std=c++11", "-Wall", "-Werror", *flags, "main.cpp", "-o", "main"]
    subprocess.run(command, cwd=project, check=True)
    found = subprocess.run([str(project / "main")], capture_output=True, text=True, check=True)
    return [float(value) for value in found.stdout.split()]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_both_forms_have_the_values_of_before(project: Path) -> None:
    before = printed(project)
    assert len(set(before)) > 50
    text = (project / "firmware/weights/w2.h").read_text()
    compile_quickly(project)
    assert (project / "firmware/weights/w2.h").read_text() != text
    assert printed(project) == before
    assert printed(project, "-D__SYNTHESIS__") == before


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_vendors_tools_see_an_initializer_and_compilers_numbers(project: Path) -> None:
    """The vendor's tools read a memory's contents from the initializer of the array itself."""
    compile_quickly(project)
    preprocess = ["g++", "-E", "-P", "firmware/weights/w2.h"]
    seen = {
        flags: subprocess.run([*preprocess, *flags], cwd=project, capture_output=True, text=True, check=True).stdout
        for flags in ((), ("-D__SYNTHESIS__",))
    }
    assert seen["-D__SYNTHESIS__",].startswith("weight_t w2[300] = {0.0000000, -0.0050000, ")
    assert seen["-D__SYNTHESIS__",].count("w2") == 1
    assert seen[()].startswith("static const double w2_values[300] = {0.0000000, ")
    assert "BRAGGNN_ARRAY" not in "".join(seen.values())


@pytest.mark.parametrize(("count", "changed"), [(1, False), (255, False), (256, True)])
def test_small_arrays_are_left_as_they_are(count: int, changed: bool, tmp_path: Path) -> None:
    path = write(tmp_path, "w3", [0.25] * count)
    before = path.read_bytes()
    compile_quickly(tmp_path)
    assert (path.read_bytes() != before) == changed


@pytest.mark.parametrize(
    ("text", "arrays"),
    [
        ("", 0),
        ("weight_t w2[3][2] = {{1, 2}, {3, 4}, {5, 6}};\n", 0),
        ("#ifndef __SYNTHESIS__\nweight_t w2[3];\n#endif\n", 0),
        ("weight_t w2[1] = {1};\nweight_t w3[1] = {2};\n", 2),
    ],
    ids=["empty", "two axes", "no values", "two arrays"],
)
def test_another_form_is_refused_by_the_name_of_its_file(text: str, arrays: int, project: Path) -> None:
    (project / "firmware/weights/w2.h").write_text(text)
    with pytest.raises(UserError, match=rf"w2\.h: hls4ml wrote {arrays} arrays, expected 1"):
        compile_quickly(project)


def test_rewriting_twice_is_refused(project: Path) -> None:
    compile_quickly(project)
    with pytest.raises(UserError, match=r"w2\.h: hls4ml wrote 0 arrays, expected 1"):
        compile_quickly(project)

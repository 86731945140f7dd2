"""The fixed-point types of a project: the same arithmetic with and without what made it slow."""

import shutil
import subprocess
from pathlib import Path

import pytest

from hls.project.extension import hls4ml
from hls.project.types import simulate_quickly

#: Sums, products, shifts and assignments at widths on both sides of 64 bits, rounded, saturated and wrapped.
MAIN = """
#include "ap_fixed.h"
#include <cstdio>
template <class T> void show(T x) { std::printf("%a\\n", x.to_double()); }
int main() {
    unsigned seed = 7;
    for (int i = 0; i < 300; i++) {
        seed = seed * 1664525u + 1013904223u;
        const double x = (int(seed >> 8) - (1 << 23)) / 65536.0, y = (int(seed & 0xffff) - 32768) / 4096.0;
        ap_fixed<20, 8> a = x;
        ap_ufixed<8, 2, AP_TRN, AP_SAT> b = y;
        ap_fixed<14, 4, AP_RND, AP_WRAP> c = a * b;
        ap_fixed<63, 31> d = a * c + b;
        ap_fixed<80, 40> e = d * a;
        ap_int<9> n = int(seed >> 16);
        ap_uint<70> w = n;
        c += a; d -= c; e += d; w = (w << 3) + n;
        show(a); show(b); show(c); show(d); show(e); show(n); show(w); show(ap_fixed<20, 8>(d >> 2));
        std::printf("%d\\n", int(a < c) + 2 * int(d == e));
    }
}
"""


def printed(folder: Path) -> str:
    (folder / "main.cpp").write_text(MAIN)
    command = ["g++", "-std=c++11", "-w", "-O1", "-Ifirmware/ap_types", "main.cpp", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True)
    return subprocess.run([str(folder / "main")], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_arithmetic_is_that_of_before(tmp_path: Path) -> None:
    types = Path(hls4ml().__file__).parent / "templates" / "vivado" / "ap_types"
    shutil.copytree(types, tmp_path / "firmware" / "ap_types")
    header = tmp_path / "firmware" / "ap_types" / "etc" / "ap_private.h"
    before = header.read_text()
    wanted = printed(tmp_path)
    assert len(set(wanted.splitlines())) > 1000
    simulate_quickly(tmp_path)
    assert before.count("clearUnusedBits(void) volatile") == 2
    assert header.read_text() == before.replace("clearUnusedBits(void) volatile", "clearUnusedBits(void)")
    assert printed(tmp_path) == wanted


def test_another_header_stays_as_it_is(tmp_path: Path) -> None:
    simulate_quickly(tmp_path)
    assert not list(tmp_path.iterdir())
    header = tmp_path / "firmware" / "ap_types" / "etc" / "ap_private.h"
    header.parent.mkdir(parents=True)
    header.write_text("void clearUnusedBits(void);")
    simulate_quickly(tmp_path)
    assert header.read_text() == "void clearUnusedBits(void);"

"""Adders of three operands: the best pairs, the rewritten text, and a proof that every form of the module adds."""

import itertools
import re

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from hls.rtl import ternary
from hls.rtl.cmvm import Effort
from hls.rtl.project import sources
from hls.rtl.synthesis import synthesize
from hls.rtl.ternary import Sum, Term, fused, pairs
from hls.rtl.variants import source
from hls.tools import programs as tools


def test_where_the_carry_chain_starts():
    assert Sum((Term(0, 0), Term(1, 3)), 9).start == 3  # below, the first passes
    assert Sum((Term(0, 0), Term(1, 3), Term(2, 5)), 9).start == 3
    assert Sum((Term(0, 0), Term(1, 2, negative=True)), 9).start == 2
    assert Sum((Term(0, 4), Term(1, 1, negative=True)), 9).start == 1  # what is subtracted is inverted
    assert Sum((Term(0, 0), Term(1, 9)), 4).bits == 0


def test_a_sum_put_in_for_a_term():
    inner = Sum((Term(0, 1), Term(1, 0, negative=True)), 7)
    outer = Sum((Term(2, 0), Term(3, 2, negative=True)), 9)
    both = outer.with_inner(3, inner)  # v2 - 4 (2 v0 - v1)
    assert both == Sum((Term(2, 0), Term(1, 2), Term(0, 3, negative=True)), 9, last=0)
    first = outer.with_inner(2, inner)  # 2 v0 - v1 - 4 v3
    assert first == Sum((Term(0, 1), Term(3, 2, negative=True), Term(1, 0, negative=True)), 9, last=1)


def _forest(rng, count):
    """Adders of two operands, the results of earlier ones or inputs (numbers below 0)."""
    sums = {}
    for number in range(count):
        picks = rng.integers(-3, number, 2) if number else (-1, -2)
        first, second = (int(value) for value in picks)
        if first != second:
            shift = int(rng.integers(0, 5))
            sums[number] = Sum(
                (Term(first, 0), Term(second, shift, bool(rng.random() < 0.3))), int(rng.integers(6, 14))
            )
    read = {number: sum(t.source == number for s in sums.values() for t in s.terms) for number in sums}
    return sums, read


def _bits(sums, chosen):
    bits = {number: total.bits for number, total in sums.items()}
    for parent, child in chosen.items():
        bits[parent], bits[child] = sums[parent].with_inner(child, sums[child]).bits, 0
    return sum(bits.values())


@pytest.mark.parametrize("seed", range(8))
def test_no_other_pairs_save_more(seed):
    rng = np.random.default_rng(seed)
    sums, read = _forest(rng, 12)
    found = pairs(sums, read)
    assert len({*found, *found.values()}) == 2 * len(found)
    possible = [(parent, term.source) for parent, s in sums.items() for term in s.terms if read.get(term.source) == 1]
    best = min(
        _bits(sums, dict(some))
        for size in range(len(possible) + 1)
        for some in itertools.combinations(possible, size)
        if len({place for pair in some for place in pair}) == 2 * size
    )
    assert _bits(sums, found) == best


STAGE = """module stage (input [15:0] model_inp, output [7:0] model_out);
    wire [3:0] v0; assign v0[3:0] = model_inp[3:0];
    wire [3:0] v1; assign v1[3:0] = model_inp[7:4];
    wire [4:0] v2; core_shift_adder #(4, 4, 0, 0, 5, 0, 0) op_2 (v0[3:0], v1[3:0], v2[4:0]);
    wire [6:0] v3; core_shift_adder #(5, 4, 0, 0, 7, 2, 1) op_3 (v2[4:0], v1[3:0], v3[6:0]);
    {more}
    assign model_out = {{1'b0, v3[6:0]}};
endmodule"""


def test_the_text_of_a_pair():
    text = STAGE.format(more="")
    assert fused(text, "core_add").count("shift_adder") == 0
    line = "wire [6:0] v3; core_add #(4, 0, 0, 4, 0, 0, 4, 0, 2, 7, 1, 0, 2) op_3 (v0[3:0], v1[3:0], v1[3:0], v3[6:0]);"
    assert line in fused(text, "core_add")


@pytest.mark.parametrize(
    "more",
    [
        "wire [0:0] v4; assign v4[0:0] = v2[4:4];",  # a bit of the inner one is read as well
        "wire [3:0] v0_; core_mux #(1) op_9 (v1[0:0], v0[3:0], v1[3:0], v0_[3:0]);",
    ],
)
def test_an_adder_that_is_read_elsewhere_stays(more):
    text = STAGE.format(more=more)
    assert ("core_add" in fused(text, "core_add")) == ("v2" not in more)


def test_a_choice_stays_in_the_table_of_its_adder():
    text = STAGE.format(more="").replace("assign v1[3:0] =", "core_mux #(1) op_1 (").replace("[7:4];", "[7:4]);")
    assert "core_mux" in text
    assert fused(text, "core_add") == text


def _instances(rng, module, variant, count):
    """Instances with any parameters, each proved against the same written with whole signed numbers."""
    lines, bad = [], []
    for index in range(count):
        widths, signs, shifts = (rng.integers(low, high, 3).tolist() for low, high in ((1, 7), (0, 2), (0, 5)))
        minus = int(rng.integers(0, 3))
        terms = tuple(Term(k, shifts[k], k >= 3 - minus) for k in range(3))
        top = int(rng.integers(1, 14))
        start = min(Sum(terms, top).start, top - 1)
        shape = ", ".join(f"{widths[k]}, {signs[k]}, {shifts[k]}" for k in range(3))
        for k in range(3):
            sign = f"i{index}_{k}[{widths[k] - 1}]" if signs[k] else "1'b0"
            lines.append(f"(* anyseq *) wire [{widths[k] - 1}:0] i{index}_{k};")
            lines.append(f"wire signed [31:0] w{index}_{k} = {{{{{32 - widths[k]}{{{sign}}}}}, i{index}_{k}}};")
        values = " ".join(f"{'-' if terms[k].negative else '+'} (w{index}_{k} <<< {shifts[k]})" for k in range(3))
        lines.append(f"wire [{top - 1}:0] o{index}; wire signed [31:0] e{index} = 0 {values};")
        ports = ", ".join(f"i{index}_{k}" for k in range(3))
        last = rng.integers(0, 3)
        lines.append(f"{module} #({shape}, {top}, {minus}, {start}, {last}) a{index} ({ports}, o{index});")
        bad.append(f"(o{index} != e{index}[{top - 1}:0])")
    return (
        source(module, variant)
        + f"module top (output bad); {' '.join(lines)} assign bad = {' | '.join(bad)}; endmodule"
    )


@pytest.mark.parametrize("variant", ["any", "ultrascale+", "ecp5"])
def test_every_form_of_the_module_adds(variant, tmp_path):
    text = _instances(np.random.default_rng(5), f"x_{ternary.NAME}", variant, 60)
    (tmp_path / "top.v").write_text(text)
    commands = "read_verilog +/xilinx/cells_sim.v; " if variant == "ultrascale+" else ""
    commands += "read_verilog -sv top.v; hierarchy -top top; proc; flatten; opt -full; sat -verify -prove bad 0"
    tools.call(tools.YOSYS, ["-q", "-p", commands], tmp_path, tmp_path / "log")
    wrong = (
        re.sub(r"64'h6996(\w)", r"64'h6997\1", text).replace("x0 + x1 - x2", "x0 - x1 + x2").replace("a - b", "b - a")
    )
    assert wrong != text
    (tmp_path / "top.v").write_text(wrong)
    with pytest.raises(UserError, match=r"ended with status"):
        tools.call(tools.YOSYS, ["-q", "-p", commands], tmp_path, tmp_path / "log")


def test_one_table_a_bit(tmp_path):
    text = (
        "module top (input [23:0] a, output [9:0] y); adder #(8, 0, 0, 8, 0, 0, 8, 0, 0, 10, 0, 0) s (a[7:0], a[15:8], "
    )
    text += "a[23:16], y); endmodule\n"
    name = f"x_{ternary.NAME}"
    files = {"top.v": text.replace("adder", name), f"{name}.v": source(name)}
    for family, tables in (("ultrascale+", 10), ("ecp5", 20)):
        found = synthesize(files, "top", tmp_path, family=family)
        assert tables - 2 <= found.luts <= tables + 2


def test_circuits_use_them(random_circuit):
    circuit = random_circuit(3, hidden=(6,))
    texts = sources(circuit, 6.0, Effort(trials=2))
    assert any("braggnn_rtl_core_ternary_adder #(" in text for text in texts.values())
    assert "braggnn_rtl_core_ternary_adder.v" in texts

"""The comparison that Yosys maps two bits a table: a proof of every form, its tables, and what names mean."""

import pytest

from braggnn_edge.core.errors import UserError
from hls.rtl import ternary, variants
from hls.rtl.synthesis import synthesize
from hls.tools import programs as tools

NAME = "x_less_than"
#: One pair of bits, a chain that is full, one bit and one pair more, the largest of the front end.
WIDTHS = (1, 2, 3, 7, 8, 9, 16, 17, 38)


def _proof(variant):
    lines = [
        f"(* anyseq *) wire [{width - 1}:0] a{width}, b{width}; wire o{width}; "
        f"{NAME} #({width}) c{width} (a{width}, b{width}, o{width}); wire e{width} = o{width} != (a{width} < b{width});"
        for width in WIDTHS
    ]
    bad = " | ".join(f"e{width}" for width in WIDTHS)
    return (
        f"{variants.source(NAME, variant)}module top (output bad);\n"
        + "\n".join(lines)
        + f"assign bad = {bad};\nendmodule\n"
    )


@pytest.mark.parametrize("variant", ["any", "ultrascale+"])
def test_every_form_compares(variant, tmp_path):
    text = _proof(variant)
    commands = "read_verilog +/xilinx/cells_sim.v; " if variant == "ultrascale+" else ""
    commands += "read_verilog -sv top.v; hierarchy -top top; proc; flatten; opt -full; sat -verify -prove bad 0"
    (tmp_path / "top.v").write_text(text)
    tools.call(tools.YOSYS, ["-q", "-p", commands], tmp_path, tmp_path / "log")
    wrong = text.replace("64'h8421842173107310", "64'h8421842172107210").replace("less = a < b", "less = a <= b")
    assert wrong != text
    (tmp_path / "top.v").write_text(wrong)
    with pytest.raises(UserError, match=r"ended with status"):
        tools.call(tools.YOSYS, ["-q", "-p", commands], tmp_path, tmp_path / "log")


def test_one_table_for_two_bits(tmp_path):
    text = f"module top (input [31:0] a, output y); {NAME} #(16) c (a[15:0], a[31:16], y); endmodule\n"
    found = synthesize({"top.v": text, f"{NAME}.v": variants.source(NAME)}, "top", tmp_path)
    assert (found.luts, found.carry) == (8, 2)  # Yosys makes 16 and 4 of the form for all tools


def test_what_has_forms_is_known_by_its_name():
    assert variants.source(NAME, "ecp5") == variants.source(NAME)
    assert variants.kind(f"braggnn_{ternary.NAME}") == ternary.NAME
    assert variants.kind("less_than") == "less_than"
    assert variants.kind("braggnn_fe_larger") is None
    with pytest.raises(ValueError, match="braggnn_fe_larger"):
        variants.source("braggnn_fe_larger")
    with pytest.raises(ValueError, match="quartus"):
        variants.source(NAME, "quartus")

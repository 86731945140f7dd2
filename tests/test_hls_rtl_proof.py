"""The credits and FIFOs of the RTL project's top, proved for all inputs by Yosys' SAT solver, by induction."""

from pathlib import Path

import pytest

from braggnn_edge.core.errors import UserError
from hls.project.test_bench import render
from hls.rtl.tag import tag_texts
from hls.tools import programs as tools

CHECKS = Path(__file__).with_name("hls_rtl_credits.sv").read_text()
CORE = "module top_core (input clk, input [{0}-1:0] model_inp, output [{0}-1:0] model_out); endmodule\n"


def _top(stages: int) -> tuple[str, str]:
    """The top as a project has it, of so many stages, and a name: its words are as wide as the checks need numbers."""
    width = stages.bit_length() + 2
    values = {
        "NAME": "top", "IN": width, "OUT": width, "CORE_OUT": width, "FOUND": "result", "STAGES": stages,
        "PLACES_LOG2": stages.bit_length(), "FLIGHT": "{flight[STAGES-2:0], accept}" if stages > 1 else "accept",
        "PIXELS": 1, "COUNT_BITS": width, "SIGN": "unsigned", "OUT_BITS": width, "FRAC": 0, "OUTPUTS": "", "SIGMA": "",
        **tag_texts(width, "verilog"),
    }  # fmt: skip
    text = render("rtl_top.v", values)
    checked = text.replace("endmodule\n", f"    localparam WIDTH = {width};\n{CHECKS}endmodule\n")
    return checked + CORE.format(width), f"{stages}.sv"


def _prove(directory: Path, tops: list[tuple[str, str]]) -> None:
    """One run of Yosys for all; UserError where something does not hold."""
    commands = []
    for text, name in tops:
        (directory / name).write_text(text)
        commands.append(
            f"read_verilog -formal -sv {name}; hierarchy -check -top top; setattr -mod -set blackbox 1 top_core; proc; "
            "flatten; opt_clean; memory -nomap; memory_map -formal; opt -full; chformal -lower; "
            "cutpoint -blackbox; setundef -anyseq; chformal -lower; opt_clean; "
            "sat -tempinduct -prove-asserts -set-assumes -seq 0 -maxsteps 3 -verify top; design -reset"
        )
    tools.call(tools.YOSYS, ["-Q", "-T", "-p", "; ".join(commands)], directory, directory / "yosys.log")


@pytest.mark.parametrize("depths", [(1, 2, 3), pytest.param((7,), marks=pytest.mark.slow)])
def test_no_result_is_lost_doubled_or_out_of_order(depths, tmp_path):
    _prove(tmp_path, [_top(stages) for stages in depths])
    assert (tmp_path / "yosys.log").read_text().count("Induction step proven: SUCCESS!") == len(depths)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("places = 1 << PLACES_LOG2;", "places = (1 << PLACES_LOG2) + 1;"),  # one place too many, from the start
        ("wire store = arrive & ~(move & empty);", "wire store = arrive & ~move;"),
        ("assign in_ready = places != 0 & ~rst;", "assign in_ready = places != 0;"),
        ("wire unload = take & ~empty;", "wire unload = take;"),
        ("tag_read_at <= tag_read_at + take;", "tag_read_at <= tag_read_at + unload;"),
        ("reg [PLACES_LOG2:0] write_at", "reg [PLACES_LOG2-1:0] write_at"),
    ],
)
def test_a_broken_top_is_not_proved(before, after, tmp_path):
    text, name = _top(2)
    assert before in text
    with pytest.raises(UserError, match="yosys"):
        _prove(tmp_path, [(text.replace(before, after, 1), name)])

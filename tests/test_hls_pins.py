"""The top with five pins around a front end: every port is connected, once, between registers."""

import re

import pytest

from braggnn_edge.core.errors import UserError
from hls.rtl.front_end.pins import NAME, with_pins
from hls.rtl.front_end.project import template
from hls.tools import programs as tools

LITTLE = """\
module little (
    input clk,
    input [12-1:0] a,
    input b,
    output ready,
    output reg [2:0] y
);
    assign ready = ~b;
    always @(posedge clk) y <= a[2:0] ^ a[5:3] ^ a[8:6] ^ a[11:9];
endmodule
"""


def test_all_ports_are_connected_and_their_widths_fit(tmp_path):
    text = with_pins(LITTLE, "little")
    assert re.findall(r"\.(\w+)\((\w+)\[(\d+) \+: (\d+)\]\)", text) == [
        ("a", "given", "0", "12"), ("b", "given", "12", "1"), ("ready", "found", "0", "1"), ("y", "found", "1", "3"),
    ]  # fmt: skip
    for name, source in (("little", LITTLE), (NAME, text)):
        (tmp_path / f"{name}.v").write_text(source)
    arguments = ["--lint-only", "-Wall", "--top-module", NAME, "little.v", f"{NAME}.v"]
    tools.call(tools.VERILATOR, arguments, tmp_path, tmp_path / "lint.log")


def test_the_ports_of_the_front_end():
    text = template("braggnn_front_end").replace("@DATA@", "64")
    names = re.findall(r"^ *(?:input|output) .*?(\w+),?$", text.split(");")[0], re.M)
    connected = re.findall(r"\.(\w+)\(", with_pins(text, "braggnn_front_end"))
    assert connected == names
    assert {"s_axis_tready", "m_axis_tdata", "s_axi_rready"} <= set(names)


@pytest.mark.parametrize("text", ["", LITTLE.replace("clk", "clock"), LITTLE.replace("[12-1:0] a", "[WIDTH-1:0] a")])
def test_what_is_no_list_of_ports_is_refused(text):
    with pytest.raises(UserError, match="little: expected a module with a port a line"):
        with_pins(text, "little")

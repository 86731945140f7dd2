"""A top with five pins around a front end, so that it can be placed: its ports are more than an FPGA has pins."""

import re

from braggnn_edge.core.errors import UserError

#: Name of the top module.
NAME = "braggnn_fe_pins"

_PORT = re.compile(r"^ *(input|output) (?:reg )?(?:signed )?(?:\[(\d+)(-1)?:0\] )?(\w+),?$", re.M)

_TOP = """\
// {of} with five pins: every input of it comes from a register, which `in` fills bit by bit, every output goes to
// one, from which it is shifted to `out` while `shift` is 1. So all of its paths lie between registers and are timed,
// those of the handshakes too. For placement alone.
module {name} (
    input clk,
    input in,
    input shift,
    output reg out
);
    reg [{inputs}-1:0] given;
    reg [{outputs}-1:0] shown;
    wire [{outputs}-1:0] found;
    reg shifting;
    always @(posedge clk) begin
        given <= {{given[{inputs}-2:0], in}};
        shifting <= shift;
        shown <= shifting ? {{1'b0, shown[{outputs}-1:1]}} : found;
        out <= shown[0];
    end
    {of} inner (
        .clk(clk),
{connections}
    );
endmodule
"""


def with_pins(text: str, of: str) -> str:
    """The Verilog of the module :data:`NAME` around the module ``of``, whose ``text`` names a port a line, the clock
    ``clk`` among them, with ranges that are numbers."""
    head = re.search(rf"^module {of} \((.*?)^\);", text, re.M | re.S)
    found = [] if head is None else _PORT.findall(head[1])
    if head is None or len(found) != head[1].count(",") + 1 or ("input", "", "", "clk") not in found:
        raise UserError(f"{of}: expected a module with a port a line, one of them `clk`, in its Verilog")
    width = {"input": 0, "output": 0}
    bus = {"input": "given", "output": "found"}
    connections = []
    for kind, high, less_one, name in found:
        if name != "clk":
            bits = int(high or 0) + (not less_one)
            connections.append(f"        .{name}({bus[kind]}[{width[kind]} +: {bits}])")
            width[kind] += bits
    return _TOP.format(
        name=NAME, of=of, inputs=width["input"], outputs=width["output"], connections=",\n".join(connections)
    )

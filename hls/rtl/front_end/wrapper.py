"""A front end and the HLS project of its locator in one module."""

from collections.abc import Sequence

from hls.rtl.front_end.scripts import Port

#: Name of the module.
WRAPPER = "braggnn_detector"

#: Name of the HLS project's top function, whose module the vendor's tool makes.
HLS_TOP = "braggnn_locator"

_TEXT = """\
// A front end with the locator that the HLS project in io_stream makes: pixels in, records out. Ports as {top}.
//
// The names of {hls}'s ports are those that Vitis HLS gives to AXI4-Stream arguments, clock and reset; no vendor's
// tool was there to check them. Both are reset together: a patch that only one of them has lost would leave them out of
// step.
module {wrapper} (
{ports}
);
    wire [{patch}:0] patch_data;
    wire [{position}:0] position_data;
    wire patch_last, patch_valid, patch_ready, position_user, position_valid, position_ready;
    reg resetn;
    always @(posedge clk) resetn <= ~rst;
    {top} front_end (
{connected},
        .m_patch_tdata(patch_data), .m_patch_tlast(patch_last), .m_patch_tvalid(patch_valid),
        .m_patch_tready(patch_ready), .s_position_tdata(position_data), .s_position_tuser(position_user),
        .s_position_tvalid(position_valid), .s_position_tready(position_ready)
    );
    {hls} locator (
        .ap_clk(clk), .ap_rst_n(resetn),
        .counts_TDATA(patch_data), .counts_TKEEP({{{keep}{{1'b1}}}}), .counts_TSTRB({{{keep}{{1'b1}}}}),
        .counts_TUSER(1'b0), .counts_TLAST(patch_last), .counts_TID(1'b0), .counts_TDEST(1'b0),
        .counts_TVALID(patch_valid), .counts_TREADY(patch_ready),
        .outputs_TDATA(position_data), .outputs_TKEEP(), .outputs_TSTRB(), .outputs_TUSER(position_user),
        .outputs_TLAST(), .outputs_TID(), .outputs_TDEST(), .outputs_TVALID(position_valid),
        .outputs_TREADY(position_ready)
    );
endmodule
"""


def wrapper(top: str, module: Sequence[Port]) -> str:
    """The Verilog of both in one module; module: ports of the front end."""
    own = [port for port in module if not port.name.startswith(("m_patch_", "s_position_"))]
    bits = {port.name: port.bits for port in module}
    declared = [
        f"    {port.direction}put {f'[{port.bits - 1}:0] ' if port.bits > 1 else ''}{port.name}" for port in own
    ]
    names = [f".{port.name}({port.name})" for port in own]
    connected = [", ".join(names[at : at + 4]) for at in range(0, len(names), 4)]
    return _TEXT.format(
        top=top, wrapper=WRAPPER, hls=HLS_TOP, ports=",\n".join(declared),
        connected=",\n".join(f"        {line}" for line in connected),
        patch=bits["m_patch_tdata"] - 1, position=bits["s_position_tdata"] - 1, keep=bits["m_patch_tdata"] // 8,
    )  # fmt: skip

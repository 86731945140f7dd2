// Stands for braggnn_fe_fifo in the proofs of what uses it: how many wait, what it may count on, and the rules that it
// must keep. hls_rtl_fe_fifo.sv is the proof that the memory is like this. What comes out may be anything here.
module braggnn_fe_fifo #(
    parameter BITS = 8,
    parameter LOG2 = 4
) (
    input clk,
    input rst,
    input put,
    input [BITS-1:0] in,
    output [BITS-1:0] out,
    output valid,
    input take,
    output empty,
    output reg [7:0] n,
    output reg fresh
);
    initial begin
        n = 0;
        fresh = 0;
    end
    assign valid = n != fresh;
    assign empty = n == 0;
    always @(posedge clk) begin
        fresh <= put & ~rst;
        n <= rst ? 0 : n + put - take;
    end
    always @(*) begin
        assert (!take || valid);
        assert (!put || take || n != 1 << LOG2);
        assert (n <= 1 << LOG2 && n >= fresh);
    end
endmodule

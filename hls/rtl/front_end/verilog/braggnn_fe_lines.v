// Line buffers: a word with those above it in the rows before, the oldest in the lowest bits. Two clocks.
//
// One memory of ROWS rows, all read at the word's address and written back one row further: a row must be at least three
// words long, or wait (PERIOD of the sequencer).
module braggnn_fe_lines #(
    parameter ROWS = 6,
    parameter BITS = 64,  // of a word
    parameter WORDS = 128,
    parameter WORD_BITS = 7,
    parameter TAG = 8
) (
    input clk,
    input rst,
    input in_valid,
    input [WORD_BITS-1:0] in_index,
    input [BITS-1:0] in_data,
    input [TAG-1:0] in_tag,
    output reg out_valid,
    output [WORD_BITS-1:0] out_index,
    output [TAG-1:0] out_tag,
    output [(ROWS+1)*BITS-1:0] out_column
);
    (* no_rw_check *) reg [ROWS*BITS-1:0] memory [0:WORDS-1];  // no word is read in the clock in which it is written
    reg [ROWS*BITS-1:0] read, read2;
    reg v1 = 1'b0;
    reg [WORD_BITS-1:0] index1, index2;
    reg [BITS-1:0] data1, data2;
    reg [TAG-1:0] tag1, tag2;
    initial out_valid = 1'b0;
    assign out_index = index2;
    assign out_tag = tag2;
    assign out_column = {data2, read2};

    always @(posedge clk) begin
        read <= memory[in_index];
        if (out_valid) memory[index2] <= out_column[(ROWS+1)*BITS-1:BITS];
        read2 <= read;
        v1 <= in_valid & ~rst;
        out_valid <= v1 & ~rst;
        index1 <= in_index;
        index2 <= index1;
        data1 <= in_data;
        data2 <= data1;
        tag1 <= in_tag;
        tag2 <= tag1;
    end
endmodule

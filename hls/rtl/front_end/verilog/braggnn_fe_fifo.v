// A queue in a memory with registered reads: one entry in and one out a clock, the first visible two clocks after it came.
//
// The writer counts the places: there is no "full".
module braggnn_fe_fifo #(
    parameter BITS = 8,
    parameter LOG2 = 4  // 2**LOG2 places
) (
    input clk,
    input rst,
    input put,
    input [BITS-1:0] in,
    output reg [BITS-1:0] out,
    output reg valid,
    input take,  // only while valid
    output empty  // nothing waits, visible or not
);
    (* no_rw_check *) reg [BITS-1:0] memory [0:(1 << LOG2)-1];  // no entry that is valid is read while it is written
    reg [LOG2:0] write_at = 0, read_at = 0;
    wire [LOG2:0] next = take ? read_at + 1'b1 : read_at;
    assign empty = write_at == read_at;

    initial valid = 1'b0;

    // What is written at an edge is seen from the next one on: a memory needs no bypass.
    always @(posedge clk) begin
        if (put) memory[write_at[LOG2-1:0]] <= in;
        out <= memory[next[LOG2-1:0]];
        if (rst) begin
            write_at <= 0;
            read_at <= 0;
            valid <= 1'b0;
        end else begin
            if (put) write_at <= write_at + 1'b1;
            read_at <= next;
            valid <= next != write_at;
        end
    end
endmodule

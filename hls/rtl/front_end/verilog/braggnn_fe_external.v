// A locator outside of the front end, behind two streams: windows leave by m_patch, a count a beat, and what it says of
// them comes back by s_position in the same order. It may take as long as it likes.
//
// Every maximum that has a place waits here in order, and so does each frame's end. A peak at a frame's edge has no window
// to send. Both memories have as many entries as there are places, so neither can be too full.
module braggnn_fe_external #(
    parameter W = 11,
    parameter COUNT = 16,  // bits of a count of the locator
    parameter PORT = 16,  // and of a beat of m_patch: whole bytes
    parameter CODE = 13,  // bits of a code of the locator
    parameter SLOT = 16,  // and of its place in s_position: whole bytes
    parameter CODES = 4,
    parameter ENTRY = 132,  // bits of what waits
    parameter PLACES_LOG2 = 9,
    parameter AHEAD = 5  // clocks from a window to whether it is kept
) (
    input clk,
    input rst,
    input [W*W*COUNT-1:0] counts,
    // AHEAD clocks later
    input keep,
    input edge_,
    input [ENTRY-1:0] entry,
    input end_in,  // a frame's end, never with `keep`
    input [ENTRY-1:0] end_entry,
    output [PORT-1:0] patch_data,
    output patch_last,
    output patch_valid,
    input patch_ready,
    input [CODES*SLOT-1:0] position_data,
    input position_user,  // the patch had another number of counts
    input position_valid,
    output position_ready,
    // in order
    output reg found,
    output reg found_end,
    output reg [ENTRY-1:0] found_entry,
    output reg [CODES*CODE-1:0] result,
    output reg wrong_length
);
    // Windows until it is known which are kept.
    reg [AHEAD*W*W*COUNT-1:0] counts_then;
    wire [(AHEAD+1)*W*W*COUNT-1:0] next_counts = {counts_then, counts};
    always @(posedge clk) counts_then <= next_counts[AHEAD*W*W*COUNT-1:0];

    wire [W*W*COUNT-1:0] window;
    wire window_valid, window_take, unused_empty;
    braggnn_fe_fifo #(.BITS(W * W * COUNT), .LOG2(PLACES_LOG2)) windows (
        .clk(clk), .rst(rst), .put(keep & ~edge_), .in(counts_then[AHEAD*W*W*COUNT-1 -: W*W*COUNT]), .out(window),
        .valid(window_valid), .take(window_take), .empty(unused_empty)
    );

    // A row at a time goes into `line`; with the last one the window leaves the memory, and the next is there in time.
    reg sending = 1'b0;
    reg [3:0] row = 0, col = 0;
    reg [W*COUNT-1:0] line, next_line;
    wire step = patch_valid & patch_ready;
    wire line_done = step & col == W - 1;
    wire last_row = row == W - 1;
    wire first = window_valid & (~sending | (line_done & last_row));
    assign window_take = line_done & row == W - 2;
    assign patch_valid = sending;
    assign patch_last = last_row & col == W - 1;
    generate
        if (PORT > COUNT) begin : padded
            assign patch_data = {{(PORT-COUNT){1'b0}}, line[0 +: COUNT]};
        end else begin : whole
            assign patch_data = line[0 +: COUNT];
        end
    endgenerate
    integer r;
    always @(*) begin
        next_line = window[0 +: W*COUNT];
        for (r = 1; r < W; r = r + 1) if (~first & row == r - 1) next_line = window[r*W*COUNT +: W*COUNT];
    end
    always @(posedge clk) begin
        if (first | line_done) line <= next_line;
        else if (step) line <= {{COUNT{1'b0}}, line[W*COUNT-1:COUNT]};
        if (rst) begin
            sending <= 1'b0;
            row <= 0;
            col <= 0;
        end else begin
            sending <= first | (sending & ~(line_done & last_row));
            if (step) begin
                col <= line_done ? 4'd0 : col + 4'd1;
                if (line_done) row <= last_row ? 4'd0 : row + 4'd1;
            end
        end
    end

    // What belongs to them.
    wire head_valid, head_end, head_edge, take, unused_too;
    wire [ENTRY-1:0] head;
    braggnn_fe_fifo #(.BITS(ENTRY + 2), .LOG2(PLACES_LOG2)) waiting (
        .clk(clk), .rst(rst), .put(keep | end_in), .in({end_in, edge_, end_in ? end_entry : entry}),
        .out({head_end, head_edge, head}), .valid(head_valid), .take(take), .empty(unused_too)
    );
    // Behind a frame's end, until its record is made, nothing goes on: the next frame's records have another number.
    reg [2:0] rest = 0;
    wire go = head_valid & rest == 0 & ~rst;
    wire asks = ~head_end & ~head_edge;
    assign position_ready = go & asks;
    assign take = go & (~asks | position_valid);
    initial begin
        found = 1'b0;
        found_end = 1'b0;
    end
    integer k;
    always @(posedge clk) begin
        found_entry <= head;
        for (k = 0; k < CODES; k = k + 1) result[k*CODE +: CODE] <= position_data[k*SLOT +: CODE];
        wrong_length <= position_user & asks;
        if (rst) begin
            found <= 1'b0;
            found_end <= 1'b0;
            rest <= 0;
        end else begin
            found <= take & ~head_end;
            found_end <= take & head_end;
            rest <= take & head_end ? 3'd7 : rest == 0 ? 3'd0 : rest - 3'd1;
        end
    end
endmodule

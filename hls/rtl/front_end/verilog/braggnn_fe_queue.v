// Maxima wait here, a word's together, and leave one a clock in raster order. What waits is where they are; their pixels
// are still in the history (braggnn_fe_readout), and `hold` stops the stream before these would be overwritten.
module braggnn_fe_queue #(
    parameter GROUPS = 1,
    parameter WORD_BITS = 7,
    parameter TIME_BITS = 6,  // 2**TIME_BITS words are in the history
    parameter MARGIN = 24  // words between asking the stream to wait and the loss of a pixel
) (
    input clk,
    input rst,
    input clear_high,  // a frame starts
    input [TIME_BITS-1:0] now,  // of the next word that is written to the history
    input in_valid,
    input [GROUPS-1:0] in_found,
    input [2*GROUPS-1:0] in_position,
    input [TIME_BITS-1:0] in_time,
    input [WORD_BITS-1:0] in_index,
    input [15:0] in_row,
    input in_below,  // its window ends below the frame
    output out_valid,
    output reg [2:0] out_group,
    output reg [1:0] out_position,
    output [TIME_BITS-1:0] out_time,
    output [WORD_BITS-1:0] out_index,
    output [15:0] out_row,
    output out_below,
    output reg hold,
    output idle,
    output reg [15:0] high  // most words that waited at a time
);
    localparam REST = 2 * GROUPS + TIME_BITS + WORD_BITS + 17;
    wire put = in_valid & |in_found;
    wire [GROUPS+REST-1:0] head;
    wire head_valid, empty, take;
    braggnn_fe_fifo #(.BITS(GROUPS + REST), .LOG2(TIME_BITS)) waiting (
        .clk(clk), .rst(rst), .put(put), .in({in_found, in_position, in_time, in_index, in_row, in_below}),
        .out(head), .valid(head_valid), .take(take), .empty(empty)
    );

    // The word whose maxima leave now, those that are left of it.
    reg [GROUPS-1:0] left = 0;
    reg [REST-1:0] rest;
    wire [2*GROUPS-1:0] positions;
    assign {positions, out_time, out_index, out_row, out_below} = rest;
    assign out_valid = left != 0;
    wire [GROUPS-1:0] after = left & (left - 1'b1);  // without the lowest
    assign take = head_valid & after == 0;
    assign idle = empty & ~out_valid & ~in_valid;

    integer i;
    always @(*) begin
        out_group = 0;
        out_position = 0;
        for (i = GROUPS - 1; i >= 0; i = i - 1)
            if (left[i]) begin
                out_group = i[2:0];
                out_position = positions[2*i +: 2];
            end
    end

    wire [TIME_BITS-1:0] oldest = out_valid ? out_time : head[WORD_BITS+17 +: TIME_BITS];
    reg [TIME_BITS-1:0] age = 0;
    reg waits = 1'b0;
    reg [15:0] fill = 0;
    initial begin
        hold = 1'b0;
        high = 0;
    end
    always @(posedge clk) begin
        age <= now - oldest;
        waits <= (out_valid | head_valid) & ~rst;
        hold <= waits & age >= (1 << TIME_BITS) - MARGIN & ~rst;
        if (take) rest <= head[REST-1:0];
        if (rst) begin
            left <= 0;
            fill <= 0;
            high <= 0;
        end else begin
            left <= take ? head[REST +: GROUPS] : after;
            fill <= fill + put - take;
            high <= clear_high ? 16'd0 : fill > high ? fill : high;
        end
    end
endmodule

// The pixels of the last words, a column of W rows for each, and the window around a maximum out of them: one a clock.
//
// The history lies in BANKS memories, each of a group of G pixels, group k of the stream in bank k modulo BANKS: whatever
// the window's first column, its groups are in different banks. So each pixel is read once and not with a whole word.
// Five clocks from a maximum to its window.
module braggnn_fe_readout #(
    parameter N = 4,
    parameter G = 4,
    parameter B = 16,
    parameter W = 7,
    parameter BANKS = 4,
    parameter BANKS_LOG2 = 2,
    parameter SLOTS = 3,  // groups that a window lies in
    parameter WORD_BITS = 7,
    parameter TIME_BITS = 6,
    parameter EXACT = 0  // 1: what is outside of the frame is 0 in the window, where the locator does not need it
) (
    input clk,
    input [WORD_BITS-1:0] last,
    // a word of W rows, {masked, saturated, above, count} a pixel
    input in_valid,
    input [TIME_BITS-1:0] in_time,
    input [W*N*(B+3)-1:0] in_column,
    // a maximum
    input [2:0] group,
    input [1:0] position,
    input [TIME_BITS-1:0] at_time,
    input [WORD_BITS-1:0] index,
    input [15:0] row,
    input below,
    // five clocks later
    output reg [W*W*B-1:0] window,
    output reg [48:0] above,  // of the 7 x 7 around the maximum, inside the frame
    output reg masked,  // a pixel of the window, inside the frame
    output reg saturated,  // a pixel of the 7 x 7
    output reg edge_,  // the window does not fit
    output reg [15:0] out_row,
    output reg [15:0] out_col
);
    localparam HALF = (W - 1) / 2;
    localparam P = B + 3;
    localparam CB = W * B + 9;  // of a column: counts, seven times above, saturated, masked
    localparam GPW = N / G;
    localparam [1:0] OFFSET_MASK = G == 4 ? 2'd3 : G == 2 ? 2'd1 : 2'd0;
    localparam RB = BANKS / GPW;  // words side by side in the banks
    localparam RB_LOG2 = RB == 1 ? 0 : RB == 2 ? 1 : RB == 4 ? 2 : RB == 8 ? 3 : 4;
    localparam DEPTH = (1 << TIME_BITS) / RB;
    localparam DEPTH_BITS = TIME_BITS - RB_LOG2 > 0 ? TIME_BITS - RB_LOG2 : 1;

    // Write.
    reg write = 1'b0;
    reg [TIME_BITS-1:0] write_time;
    reg [N*CB-1:0] columns;
    reg any_masked, any_full;
    integer x, y;  // of this block alone
    always @(posedge clk) begin
        write <= in_valid;
        write_time <= in_time;
        for (x = 0; x < N; x = x + 1) begin
            any_masked = 1'b0;
            any_full = 1'b0;
            for (y = 0; y < W; y = y + 1) begin
                columns[x*CB + y*B +: B] <= in_column[(y*N+x)*P +: B];
                any_masked = any_masked | in_column[(y*N+x)*P + B + 2];
            end
            for (y = 0; y < 7; y = y + 1) begin
                columns[x*CB + W*B + y] <= in_column[((y+HALF-3)*N+x)*P + B];
                any_full = any_full | in_column[((y+HALF-3)*N+x)*P + B + 1];
            end
            columns[x*CB + W*B + 7] <= any_full;
            columns[x*CB + W*B + 8] <= any_masked;
        end
    end

    // Where the window begins: pixel x0 of the stream, in group x0 / G.
    // Powers of two: fields side by side, which OR puts together without an adder.
    wire [31:0] in_word = {29'd0, group} * G | {30'd0, position};
    wire [31:0] x0 = (at_time * N | in_word) - HALF;
    wire [31:0] first_group = x0 / G;
    wire [31:0] col_now = index * N | in_word;
    wire [31:0] right_now = (last - index) * N | (N - 1 - in_word);
    reg [BANKS_LOG2-1:0] turn1, turn2;
    reg [1:0] offset1, offset2, offset3;
    // A copy for each column, so that none has more loads than a column has bits.
    (* keep *) reg [SLOTS*G*BANKS_LOG2-1:0] turn3;
    (* keep *) reg [2*W-1:0] offset4;
    reg [BANKS*G*CB-1:0] banks;
    genvar b;
    generate
        for (b = 0; b < BANKS; b = b + 1) begin : bank
            localparam SUB = b / GPW;
            localparam FROM = b % GPW;
            reg [G*CB-1:0] memory [0:DEPTH-1];
            reg [DEPTH_BITS-1:0] address;
            reg [G*CB-1:0] read;
            wire [31:0] here = first_group / BANKS + (first_group % BANKS > b ? 1 : 0);
            always @(posedge clk) begin
                if (write & write_time % RB == SUB) memory[write_time[RB_LOG2 +: DEPTH_BITS]] <= columns[FROM*G*CB +: G*CB];
                address <= here[DEPTH_BITS-1:0];
                read <= memory[address];
                banks[b*G*CB +: G*CB] <= read;
            end
        end
    endgenerate

    // Turned so that the window's first group is the first, then cut.
    reg [SLOTS*G*CB-1:0] slots;
    wire [(SLOTS*G+3)*CB-1:0] slots_on = {{3*CB{1'b0}}, slots};
    reg [W*CB-1:0] cut;
    integer s, t;
    always @(posedge clk) begin
        turn1 <= first_group[BANKS_LOG2-1:0];
        turn2 <= turn1;
        turn3 <= {SLOTS*G{turn2}};
        offset1 <= x0[1:0] & OFFSET_MASK;
        offset2 <= offset1;
        offset3 <= offset2;
        offset4 <= {W{offset3}};
        for (s = 0; s < SLOTS * G; s = s + 1)
            for (t = 0; t < BANKS; t = t + 1)
                if (turn3[s*BANKS_LOG2 +: BANKS_LOG2] == t)
                    slots[s*CB +: CB] <= banks[((s / G + t) % BANKS * G + s % G)*CB +: CB];
    end

    // The position, and which of the window's columns are inside the frame.
    reg [16:0] col1, right1;
    reg [15:0] row1, row2, row3, row4, col2, col3, col4;
    reg below1, edge2, edge3, edge4;
    reg [W-1:0] inside2, inside3, inside4;
    // Columns and rows beside it, 7 for all from there on, HALF being 5 at most; bit k: there are more than k.
    wire [2:0] left = |col1[16:3] ? 3'd7 : col1[2:0];
    wire [2:0] right = |right1[16:3] ? 3'd7 : right1[2:0];
    wire [2:0] up = |row1[15:3] ? 3'd7 : row1[2:0];
    wire [7:0] more_left = ~(8'hff << left), more_right = ~(8'hff << right), more_up = ~(8'hff << up);
    integer c;
    always @(posedge clk) begin
        col1 <= col_now[16:0];
        right1 <= right_now[16:0];  // columns right of it
        row1 <= row;
        below1 <= below;
        for (c = 0; c < W; c = c + 1) inside2[c] <= c < HALF ? more_left[HALF-1-c] : c > HALF ? more_right[c-HALF-1] : 1'b1;
        edge2 <= ~more_left[HALF-1] | ~more_right[HALF-1] | ~more_up[HALF-1] | below1;
        inside3 <= inside2;
        inside4 <= inside3;
        edge3 <= edge2;
        edge4 <= edge3;
        edge_ <= edge4;
        row2 <= row1;
        row3 <= row2;
        row4 <= row3;
        out_row <= row4;
        col2 <= col1[15:0];
        col3 <= col2;
        col4 <= col3;
        out_col <= col4;
    end

    integer d;
    always @(*)
        for (d = 0; d < W; d = d + 1)
            case (offset4[2*d +: 2])
                2'd0: cut[d*CB +: CB] = slots_on[d*CB +: CB];
                2'd1: cut[d*CB +: CB] = slots_on[(d+1)*CB +: CB];
                2'd2: cut[d*CB +: CB] = slots_on[(d+2)*CB +: CB];
                default: cut[d*CB +: CB] = slots_on[(d+3)*CB +: CB];
            endcase
    reg some_masked, some_full;
    integer u, v;
    always @(posedge clk) begin
        some_masked = 1'b0;
        some_full = 1'b0;
        for (u = 0; u < W; u = u + 1) begin
            for (v = 0; v < W; v = v + 1)
                window[(v*W+u)*B +: B] <= EXACT != 0 & ~inside4[u] ? {B{1'b0}} : cut[u*CB + v*B +: B];
            some_masked = some_masked | (cut[u*CB + W*B + 8] & inside4[u]);
        end
        for (u = 0; u < 7; u = u + 1) begin
            for (v = 0; v < 7; v = v + 1)
                above[v*7+u] <= cut[(u+HALF-3)*CB + W*B + v] & inside4[u+HALF-3];
            some_full = some_full | (cut[(u+HALF-3)*CB + W*B + 7] & inside4[u+HALF-3]);
        end
        masked <= some_masked;
        saturated <= some_full;
    end
endmodule

// Corrections and threshold of the N pixels of a word, three clocks.
//
// A pixel leaves as {masked, saturated, above, count}, the count in the lowest bits.
module braggnn_fe_pixels #(
    parameter N = 4,
    parameter B = 16,
    parameter WORD_BITS = 7,
    parameter DARK = 0,  // 1: `full` says which pixels are saturated
    parameter THRESHOLDS = 0  // 1: every pixel has a threshold of its own
) (
    input clk,
    input rst,
    input [B-1:0] threshold,
    input [B-1:0] saturation,  // the first saturated count; 0: the largest
    input [3:0] gain_shift,
    input [N*(B+1)-1:0] stored,  // {above, count} of the stored frame, of the word of now
    input in_valid,
    input [N*B-1:0] in_data,
    input [N-1:0] full,
    input [N*B-1:0] thresholds,
    input [1:0] in_kind,
    input [WORD_BITS-1:0] in_index,
    input [15:0] in_row,
    input in_live,
    input [N-1:0] bad,  // of the word of one clock ago
    output reg out_valid,
    output reg [N*(B+3)-1:0] out_data,
    output reg [WORD_BITS-1:0] out_index,
    output reg [15:0] out_row,
    output reg out_live,
    output reg out_outside,  // the row is outside of the frame
    output reg [5:0] out_above  // pixels above the threshold
);
    localparam P = B + 3;
    reg v1 = 1'b0, v2 = 1'b0;
    reg [N*(B+1)-1:0] stored1;
    reg [N*B-1:0] count1, thresholds1;
    reg [N-1:0] full1;
    reg [1:0] kind1, kind2;
    reg [WORD_BITS-1:0] index1, index2;
    reg [15:0] row1, row2;
    reg live1, live2;
    reg [N*P-1:0] data2;
    reg [B-1:0] first_full;
    reg [5:0] sum;
    // Shifted in two steps, each of which chooses one of four: a table a bit.
    reg [N*B-1:0] by_three, shifted;
    wire [N-1:0] not_full, over;
    genvar g;
    generate
        for (g = 0; g < N; g = g + 1) begin : pixel
            braggnn_fe_less_than #(.WIDTH(B)) with_full (.a(in_data[g*B +: B]), .b(first_full), .less(not_full[g]));
            braggnn_fe_less_than #(.WIDTH(B)) with_threshold (
                .a(THRESHOLDS != 0 ? thresholds1[g*B +: B] : threshold), .b(count1[g*B +: B]), .less(over[g])
            );
        end
    endgenerate
    integer i, k, m;
    always @(*)
        for (m = 0; m < N; m = m + 1) begin
            by_three[m*B +: B] = in_data[m*B +: B] >> gain_shift[1:0];
            shifted[m*B +: B] = by_three[m*B +: B] >> {gain_shift[3:2], 2'b00};
        end
    initial out_valid = 1'b0;

    always @(posedge clk) begin
        first_full <= saturation == 0 ? {B{1'b1}} : saturation;
        v1 <= in_valid & ~rst;
        v2 <= v1 & ~rst;
        out_valid <= v2 & ~rst;
        kind1 <= in_kind;
        kind2 <= kind1;
        index1 <= in_index;
        index2 <= index1;
        out_index <= index2;
        row1 <= in_row;
        row2 <= row1;
        out_row <= row2;
        live1 <= in_live;
        live2 <= live1;
        out_live <= live2;
        out_outside <= kind2 == 2'd2;
        stored1 <= stored;
        thresholds1 <= thresholds;
        count1 <= shifted;
        for (i = 0; i < N; i = i + 1) begin
            full1[i] <= DARK != 0 ? full[i] : ~not_full[i];
            data2[i*P +: P] <=
                kind1 == 2'd0 & ~bad[i] ? {
                    1'b0, full1[i], over[i], count1[i*B +: B]
                } :
                ~kind1[1] ? {1'b1, {(P-1){1'b0}}} :
                kind1 == 2'd3 ? {2'b00, stored1[i*(B+1) +: B+1]} : {P{1'b0}};
        end
        sum = 0;
        for (k = 0; k < N; k = k + 1) sum = sum + {5'd0, data2[k*P + B]};
        out_above <= sum;
        out_data <= data2;
    end
endmodule

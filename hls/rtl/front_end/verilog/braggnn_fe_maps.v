// What each pixel of a word has of its own: dark counts are subtracted, down to 0, and a threshold goes along. One clock.
//
// Whether a pixel is saturated is decided before its dark counts are subtracted.
module braggnn_fe_maps #(
    parameter N = 4,
    parameter B = 16,
    parameter WORD_BITS = 7,
    parameter DARK = 1,  // 1: dark counts come, in the lowest bits of `maps`
    parameter THRESHOLDS = 1,  // 1: thresholds come, behind them
    parameter MAP = 128  // bits of `maps`
) (
    input clk,
    input rst,
    input used,  // 0: dark counts are 0, and `threshold` is every pixel's
    input [B-1:0] threshold,
    input [B-1:0] saturation,  // the first saturated count; 0: the largest
    input in_valid,
    input [N*B-1:0] in_data,
    input [MAP-1:0] in_maps,
    input [1:0] in_kind,
    input [WORD_BITS-1:0] in_index,
    input [15:0] in_row,
    input in_live,
    output reg out_valid,
    output reg [N*B-1:0] out_data,
    output reg [N-1:0] out_full,  // saturated
    output reg [N*B-1:0] out_thresholds,
    output reg [1:0] out_kind,
    output reg [WORD_BITS-1:0] out_index,
    output reg [15:0] out_row,
    output reg out_live
);
    localparam AT = DARK != 0 ? N * B : 0;  // of the first threshold
    reg [B-1:0] first_full;
    reg [B-1:0] d, dark;
    integer i;
    initial out_valid = 1'b0;
    always @(posedge clk) begin
        first_full <= saturation == 0 ? {B{1'b1}} : saturation;
        out_valid <= in_valid & ~rst;
        out_kind <= in_kind;
        out_index <= in_index;
        out_row <= in_row;
        out_live <= in_live;
        for (i = 0; i < N; i = i + 1) begin
            d = in_data[i*B +: B];
            dark = DARK != 0 & used ? in_maps[i*B +: B] : {B{1'b0}};
            out_data[i*B +: B] <= d > dark ? d - dark : {B{1'b0}};
            out_full[i] <= d >= first_full;
            out_thresholds[i*B +: B] <= THRESHOLDS != 0 & used ? in_maps[AT + i*B +: B] : threshold;
        end
    end
endmodule

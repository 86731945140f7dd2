// Of one group of G pixels and the three on either side: the group's maximum, where it first is, and the maxima of those
// outside the group within three pixels of a position in it. The position is asked for in the clock after `first` came.
//
// Pixels: three before the group, the group, three after it; the first in the lowest bits. Three clocks to whole, left
// and right, two to first and its value.
module braggnn_fe_span #(
    parameter B = 16,
    parameter G = 4
) (
    input clk,
    input [(G+6)*B-1:0] px,
    input [1:0] position,
    output reg [B-1:0] whole,
    output reg [B-1:0] left,
    output reg [B-1:0] right,
    output reg [1:0] first
);
    function [B-1:0] larger(input [B-1:0] a, input [B-1:0] b);
        larger = a > b ? a : b;
    endfunction

    reg [B-1:0] l1, l12, l3, r1, r12, r3, m1, m12, m123, n1, n12, n123, top;
    wire [B-1:0] own;
    wire [1:0] at;
    always @(posedge clk) begin
        l1 <= px[2*B +: B];
        l12 <= larger(px[2*B +: B], px[1*B +: B]);
        l3 <= px[0 +: B];
        r1 <= px[(G+3)*B +: B];
        r12 <= larger(px[(G+3)*B +: B], px[(G+4)*B +: B]);
        r3 <= px[(G+5)*B +: B];
        m1 <= l1;
        m12 <= l12;
        m123 <= larger(l12, l3);
        n1 <= r1;
        n12 <= r12;
        n123 <= larger(r12, r3);
        top <= own;
        first <= at;
        whole <= top;
    end
    generate
        if (G == 4) begin : four
            reg [B-1:0] a, b;
            reg in_a, in_b;
            always @(posedge clk) begin
                a <= larger(px[3*B +: B], px[4*B +: B]);
                in_a <= px[4*B +: B] > px[3*B +: B];
                b <= larger(px[5*B +: B], px[6*B +: B]);
                in_b <= px[6*B +: B] > px[5*B +: B];
                left <= position == 2'd0 ? m123 : position == 2'd1 ? m12 : position == 2'd2 ? m1 : {B{1'b0}};
                right <= position == 2'd3 ? n123 : position == 2'd2 ? n12 : position == 2'd1 ? n1 : {B{1'b0}};
            end
            assign own = larger(a, b);
            assign at = b > a ? {1'b1, in_b} : {1'b0, in_a};
        end else if (G == 2) begin : two
            reg [B-1:0] a;
            reg in_a;
            always @(posedge clk) begin
                a <= larger(px[3*B +: B], px[4*B +: B]);
                in_a <= px[4*B +: B] > px[3*B +: B];
                left <= position == 2'd0 ? m123 : m12;
                right <= position == 2'd0 ? n12 : n123;
            end
            assign own = a;
            assign at = {1'b0, in_a};
        end else begin : one
            reg [B-1:0] a;
            always @(posedge clk) begin
                a <= px[3*B +: B];
                left <= m123;
                right <= n123;
            end
            assign own = a;
            assign at = 2'd0;
        end
    endgenerate
endmodule

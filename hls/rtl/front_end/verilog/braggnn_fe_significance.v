// Whether a maximum stands out from the pixels around it: eight clocks.
//
// With s the sum of the 3 x 3 pixels around it and r that of the 24 of the outermost ring of its 7 x 7, D = 8 s - 3 r must
// be positive and D * D > slope * r + offset. D of 2**19 and more always is: slope * r + offset has 38 bits at most.
module braggnn_fe_significance #(
    parameter B = 16,
    parameter W = 7
) (
    input clk,
    input asked,  // 0: every maximum is significant
    input [15:0] slope,
    input [31:0] offset,
    input [W*W*B-1:0] window,  // counts, 0 where there is none
    output reg significant
);
    localparam HALF = (W - 1) / 2;

    // The pixels, as they are added: nine around the maximum, and the ring.
    wire [9*B-1:0] core;
    wire [24*B-1:0] ring;
    genvar k;
    generate
        for (k = 0; k < 9; k = k + 1) begin : near
            assign core[k*B +: B] = window[((HALF-1+k/3)*W + HALF-1+k%3)*B +: B];
        end
        for (k = 0; k < 7; k = k + 1) begin : lines
            assign ring[k*B +: B] = window[((HALF-3)*W + HALF-3+k)*B +: B];
            assign ring[(7+k)*B +: B] = window[((HALF+3)*W + HALF-3+k)*B +: B];
        end
        for (k = 0; k < 5; k = k + 1) begin : sides
            assign ring[(14+k)*B +: B] = window[((HALF-2+k)*W + HALF-3)*B +: B];
            assign ring[(19+k)*B +: B] = window[((HALF-2+k)*W + HALF+3)*B +: B];
        end
    endgenerate

    // 1 to 3: their sums, of three at a time.
    wire [33*B-1:0] pixels = {ring, core};
    wire [11*(B+2)-1:0] threes;
    reg [11*(B+2)-1:0] sum1;
    wire [4*(B+4)-1:0] nines;
    reg [4*(B+4)-1:0] sum2;
    wire [12*(B+2)-1:0] padded = {{(B+2){1'b0}}, sum1};
    generate
        for (k = 0; k < 11; k = k + 1) begin : of_three
            braggnn_fe_ternary_adder #(B, 0, 0, B, 0, 0, B, 0, 0, B + 2, 0, 0, 0) sum (
                pixels[3*k*B +: B], pixels[(3*k+1)*B +: B], pixels[(3*k+2)*B +: B], threes[k*(B+2) +: B+2]
            );
        end
        for (k = 0; k < 4; k = k + 1) begin : of_nine
            braggnn_fe_ternary_adder #(B + 2, 0, 0, B + 2, 0, 0, B + 2, 0, 0, B + 4, 0, 0, 0) sum (
                padded[3*k*(B+2) +: B+2], padded[(3*k+1)*(B+2) +: B+2], padded[(3*k+2)*(B+2) +: B+2],
                nines[k*(B+4) +: B+4]
            );
        end
    endgenerate
    wire [B+4:0] around;
    reg [B+4:0] r3, r4;
    reg [B+3:0] s3;
    braggnn_fe_ternary_adder #(B + 4, 0, 0, B + 4, 0, 0, B + 4, 0, 0, B + 5, 0, 0, 0) whole_ring (
        sum2[B+4 +: B+4], sum2[2*(B+4) +: B+4], sum2[3*(B+4) +: B+4], around
    );

    // 4: D, and three times r, which is a digit of the product too.
    wire [B+6:0] three_times = {2'b00, r3} + {1'b0, r3, 1'b0};
    reg [B+6:0] triple4;
    reg [B+7:0] excess;
    wire [24:0] wide = {{(17-B){excess[B+7]}}, excess};

    // 5 and 6: slope * r, two bits of the slope at a time. 7: with the offset.
    wire [8*(B+7)-1:0] digits;
    wire [3*(B+11)-1:0] parts;
    reg [3*(B+11)-1:0] parts5;
    generate
        for (k = 0; k < 8; k = k + 1) begin : digit
            assign digits[k*(B+7) +: B+7] = slope[2*k+1] ? slope[2*k] ? triple4 : {1'b0, r4, 1'b0}
                : slope[2*k] ? {2'b00, r4} : {(B+7){1'b0}};
        end
        for (k = 0; k < 2; k = k + 1) begin : of_three_digits
            braggnn_fe_ternary_adder #(B + 7, 0, 0, B + 7, 0, 2, B + 7, 0, 4, B + 11, 0, 2, 0) sum (
                digits[3*k*(B+7) +: B+7], digits[(3*k+1)*(B+7) +: B+7], digits[(3*k+2)*(B+7) +: B+7],
                parts[k*(B+11) +: B+11]
            );
        end
    endgenerate
    assign parts[2*(B+11) +: B+11] = {4'd0, digits[6*(B+7) +: B+7]} + {2'd0, digits[7*(B+7) +: B+7], 2'd0};
    wire [B+20:0] product;
    reg [B+20:0] product6;
    braggnn_fe_ternary_adder #(B + 11, 0, 0, B + 11, 0, 6, B + 11, 0, 12, B + 21, 0, 6, 0) of_digits (
        parts5[0 +: B+11], parts5[B+11 +: B+11], parts5[2*(B+11) +: B+11], product
    );
    reg [37:0] bound7;

    // 5 to 7: D * D of its 19 lowest bits, which are three digits: their squares lie beside each other, and so do two of
    // their three products.
    wire [6:0] high = wide[18:12];
    wire [5:0] middle = wide[11:6], low = wide[5:0];
    reg [13:0] high_high;
    reg [11:0] middle_middle, low_low, middle_low;
    reg [12:0] high_middle, high_low, high_low6;
    reg [37:0] most6, square7;
    wire above_bound;
    braggnn_fe_less_than #(.WIDTH(38)) compared (.a(bound7), .b(square7), .less(above_bound));
    reg negative5, negative6, negative7, large5, large6, large7;

    initial significant = 1'b0;
    always @(posedge clk) begin
        sum1 <= threes;
        sum2 <= nines;
        s3 <= sum2[0 +: B+4];
        r3 <= around;
        excess <= {1'b0, s3, 3'b000} - {1'b0, three_times};
        triple4 <= three_times;
        r4 <= r3;
        parts5 <= parts;
        product6 <= product;
        bound7 <= {{(17-B){1'b0}}, product6} + {6'd0, offset};

        high_high <= high * high;
        middle_middle <= middle * middle;
        low_low <= low * low;
        high_middle <= high * middle;
        high_low <= high * low;
        middle_low <= middle * low;
        most6 <= {high_high, middle_middle, low_low} + {6'd0, high_middle, middle_low, 7'd0};
        high_low6 <= high_low;
        square7 <= most6 + {12'd0, high_low6, 13'd0};
        negative5 <= wide[24];
        negative6 <= negative5;
        negative7 <= negative6;
        large5 <= |wide[23:19];
        large6 <= large5;
        large7 <= large6;
        significant <= ~asked | (~negative7 & (large7 | above_bound));
    end
endmodule

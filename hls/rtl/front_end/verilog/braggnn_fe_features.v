// What a record says of the 7 x 7 pixels around a maximum: five clocks.
//
// A peak is a maximum with at least AREA pixels above the threshold within AREA - 1 steps to neighbours above it. Another
// maximum of its own 3 x 3, the first among equals, is significant from half the peak's height on; it can only lie two
// pixels away, since a direct neighbour sees the peak.
module braggnn_fe_features #(
    parameter B = 16,
    parameter W = 7,
    parameter AREA = 4  // 1 to 4
) (
    input clk,
    input [W*W*B-1:0] window,
    input [48:0] above,
    output reg is_peak,
    output reg second,
    output reg [B-1:0] brightest,
    output reg [31:0] total
);
    localparam HALF = (W - 1) / 2;

    // The 8-neighbours above the threshold of a set of pixels, with the set; a row is seven bits, its first the lowest.
    function [48:0] grown(input [48:0] from, input [48:0] allowed);
        integer i;
        reg [62:0] wide;  // a row of nothing before and after
        reg [6:0] rows;
        begin
            wide = 0;
            for (i = 0; i < 7; i = i + 1) begin
                rows = from[7*i +: 7];
                wide[7*(i+1) +: 7] = rows | {rows[5:0], 1'b0} | {1'b0, rows[6:1]};
            end
            for (i = 0; i < 7; i = i + 1)
                grown[7*i +: 7] = (wide[7*i +: 7] | wide[7*(i+1) +: 7] | wide[7*(i+2) +: 7]) & allowed[7*i +: 7];
        end
    endfunction
    function [5:0] ones(input [48:0] bits);
        integer i;
        begin
            ones = 0;
            for (i = 0; i < 49; i = i + 1) ones = ones + {5'd0, bits[i]};
        end
    endfunction

    reg [49*B-1:0] px;  // 0 where not above
    reg [48:0] is_above, near;
    reg [5:0] count3;
    reg further3, large4;
    wire [48:0] one = grown(49'd1 << 24, is_above);
    wire [48:0] two = grown(one, is_above);
    reg [48:0] above2;
    integer x, y;
    always @(posedge clk) begin
        for (y = 0; y < 7; y = y + 1)
            for (x = 0; x < 7; x = x + 1)
                px[(7*y+x)*B +: B] <= above[7*y+x] ? window[((y+HALF-3)*W+x+HALF-3)*B +: B] : {B{1'b0}};
        is_above <= above;
        above2 <= is_above;
        near <= AREA == 1 ? 49'd1 << 24 : AREA == 2 ? one : two;
        // Where three pixels are within two steps, a fourth is within three.
        count3 <= ones(near);
        further3 <= |(grown(near, above2) & ~near);
        large4 <= AREA < 4 ? count3 >= AREA : count3 >= 4 | (count3 == 3 & further3);
        is_peak <= large4;
    end

    // Sums of three, in four steps.
    wire [17*(B+2)-1:0] threes;
    reg [17*(B+2)-1:0] sum2;
    wire [6*(B+4)-1:0] nines;
    reg [6*(B+4)-1:0] sum3;
    wire [2*(B+6)-1:0] parts;
    reg [2*(B+6)-1:0] sum4;
    wire [51*B-1:0] padded = {{2*B{1'b0}}, px};
    wire [18*(B+2)-1:0] padded2 = {{(B+2){1'b0}}, sum2};
    genvar k;
    generate
        for (k = 0; k < 17; k = k + 1) begin : of_three
            braggnn_fe_ternary_adder #(B, 0, 0, B, 0, 0, B, 0, 0, B + 2, 0, 0, 0) sum (
                padded[3*k*B +: B], padded[(3*k+1)*B +: B], padded[(3*k+2)*B +: B], threes[k*(B+2) +: B+2]
            );
        end
        for (k = 0; k < 6; k = k + 1) begin : of_nine
            braggnn_fe_ternary_adder #(B + 2, 0, 0, B + 2, 0, 0, B + 2, 0, 0, B + 4, 0, 0, 0) sum (
                padded2[3*k*(B+2) +: B+2], padded2[(3*k+1)*(B+2) +: B+2], padded2[(3*k+2)*(B+2) +: B+2],
                nines[k*(B+4) +: B+4]
            );
        end
        for (k = 0; k < 2; k = k + 1) begin : of_half
            braggnn_fe_ternary_adder #(B + 4, 0, 0, B + 4, 0, 0, B + 4, 0, 0, B + 6, 0, 0, 0) sum (
                sum3[3*k*(B+4) +: B+4], sum3[(3*k+1)*(B+4) +: B+4], sum3[(3*k+2)*(B+4) +: B+4], parts[k*(B+6) +: B+6]
            );
        end
    endgenerate
    always @(posedge clk) begin
        sum2 <= threes;
        sum3 <= nines;
        sum4 <= parts;
        total <= {{(26-B){1'b0}}, sum4[0 +: B+6]} + {{(26-B){1'b0}}, sum4[B+6 +: B+6]};
    end

    // Each pixel against its four later neighbours: right, below left, below, below right. Those that the ring of 16 pixels
    // below does not ask for are not built.
    reg [4*49-1:0] beats;
    reg [48:0] half2;
    reg [15:0] significant;
    reg [B-1:0] peak2, peak3, peak4;
    wire [48:0] is_maximum;
    wire [15:0] ring;
    genvar gy, gx, gd;
    generate
        for (gy = 0; gy < 7; gy = gy + 1) begin : line
            for (gx = 0; gx < 7; gx = gx + 1) begin : pixel
                localparam AT = 7 * gy + gx;
                wire [B-1:0] me = px[AT*B +: B];
                wire [3:0] smaller;
                wire below_half;
                for (gd = 0; gd < 4; gd = gd + 1) begin : neighbour
                    localparam Y = gd == 0 ? gy : gy + 1;
                    localparam X = gd == 1 ? gx - 1 : gd == 2 ? gx : gx + 1;
                    if (X >= 0 && X < 7 && Y < 7) begin : in
                        braggnn_fe_less_than #(.WIDTH(B)) compared (.a(me), .b(px[(7*Y+X)*B +: B]), .less(smaller[gd]));
                    end else begin : beyond
                        assign smaller[gd] = 1'b0;
                    end
                end
                braggnn_fe_less_than #(.WIDTH(B + 1)) with_peak (
                    .a({me, 1'b0}), .b({1'b0, px[24*B +: B]}), .less(below_half)
                );
                always @(posedge clk) begin
                    beats[4*AT +: 4] <= ~smaller;
                    half2[AT] <= ~below_half;
                end
                if (gy > 0 && gx > 0 && gx < 6) begin : inner
                    assign is_maximum[AT] = above2[AT] & half2[AT] & &beats[4*AT +: 4] & ~beats[4*(AT-1)]
                        & ~beats[4*(AT-6)+1] & ~beats[4*(AT-7)+2] & ~beats[4*(AT-8)+3];
                end else begin : border
                    assign is_maximum[AT] = 1'b0;
                end
            end
        end
    endgenerate
    assign ring = {
        is_maximum[8], is_maximum[9], is_maximum[10], is_maximum[11], is_maximum[12], is_maximum[15], is_maximum[19],
        is_maximum[22], is_maximum[26], is_maximum[29], is_maximum[33], is_maximum[36], is_maximum[37], is_maximum[38],
        is_maximum[39], is_maximum[40]
    };
    reg second4;
    always @(posedge clk) begin
        significant <= ring;
        second4 <= |significant;
        second <= second4;
        peak2 <= px[24*B +: B];
        peak3 <= peak2;
        peak4 <= peak3;
        brightest <= peak4;
    end
endmodule

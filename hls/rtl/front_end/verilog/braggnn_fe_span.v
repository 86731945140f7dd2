// Of one row of a word's pixels: the maximum of every group of G, where it first is, and the maxima of those outside the
// group within three pixels of a position in it. The position is asked for in the clock after `first` came.
//
// Pixels: three before the word, the word, three after it; the first in the lowest bits. What is outside of the row
// counts as nothing. Three clocks to whole, left and right, two to first. What two groups ask for is computed once.
module braggnn_fe_span #(
    parameter N = 4,
    parameter G = 4,
    parameter B = 16
) (
    input clk,
    input [(N+6)*B-1:0] px,
    input [5:0] outside,  // those before and those after the word, the first the lowest
    input [2*(N/G)-1:0] position,
    output reg [(N/G)*B-1:0] whole,
    output reg [(N/G)*B-1:0] left,
    output reg [(N/G)*B-1:0] right,
    output reg [2*(N/G)-1:0] first
);
    localparam GROUPS = N / G;

    // The last one, two and three pixels of group k - 1 and the first ones of group k, in two clocks.
    wire [(GROUPS+1)*B-1:0] tail1, tail2, tail3, head1, head2, head3;

    // Beside the word. A pixel further away is in the row only if the nearer one is, and in its word from 2 pixels on.
    wire [B-1:0] before2, before3, after2, after3;
    wire unused0, unused1, unused2, unused3;
    reg [B-1:0] b1, b2, b3, a1, a2, a3, b1_2, b2_2, b3_2, a1_2, a2_2, a3_2;
    braggnn_fe_larger #(.B(B)) pair_before (
        .a(N == 1 & outside[1] ? {B{1'b0}} : px[B +: B]), .b(px[2*B +: B]), .larger(before2), .second(unused0)
    );
    braggnn_fe_larger #(.B(B)) three_before (.a(b2), .b(b3), .larger(before3), .second(unused1));
    braggnn_fe_larger #(.B(B)) pair_after (
        .a(px[(N+3)*B +: B]), .b(N == 1 & outside[4] ? {B{1'b0}} : px[(N+4)*B +: B]), .larger(after2), .second(unused2)
    );
    braggnn_fe_larger #(.B(B)) three_after (.a(a2), .b(a3), .larger(after3), .second(unused3));
    always @(posedge clk) begin
        b1 <= outside[2] ? {B{1'b0}} : px[2*B +: B];
        b2 <= outside[2] ? {B{1'b0}} : before2;
        b3 <= outside[0] ? {B{1'b0}} : px[0 +: B];
        a1 <= outside[3] ? {B{1'b0}} : px[(N+3)*B +: B];
        a2 <= outside[3] ? {B{1'b0}} : after2;
        a3 <= outside[5] ? {B{1'b0}} : px[(N+5)*B +: B];
        b1_2 <= b1;
        b2_2 <= b2;
        b3_2 <= before3;
        a1_2 <= a1;
        a2_2 <= a2;
        a3_2 <= after3;
    end
    assign {tail1[0 +: B], tail2[0 +: B], tail3[0 +: B]} = {b1_2, b2_2, b3_2};
    assign {head1[GROUPS*B +: B], head2[GROUPS*B +: B], head3[GROUPS*B +: B]} = {a1_2, a2_2, a3_2};

    genvar g;
    generate
        for (g = 0; g < GROUPS; g = g + 1) begin : group
            wire [G*B-1:0] own = px[(3+g*G)*B +: G*B];
            wire [1:0] at = position[2*g +: 2];
            reg [B-1:0] top;
            if (G == 4) begin : four
                wire [B-1:0] low_pair, high_pair, of_all, of_head, of_tail;
                wire low_second, high_second, high, unused_head, unused_tail;
                reg [B-1:0] p0, p1, p2, p3, low, upper, h1, h2, h3, t1, t2, t3;
                reg low_at, high_at;
                braggnn_fe_larger #(.B(B)) pair0 (.a(own[0 +: B]), .b(own[B +: B]), .larger(low_pair), .second(low_second));
                braggnn_fe_larger #(.B(B)) pair1 (
                    .a(own[2*B +: B]), .b(own[3*B +: B]), .larger(high_pair), .second(high_second)
                );
                braggnn_fe_larger #(.B(B)) all (.a(low), .b(upper), .larger(of_all), .second(high));
                braggnn_fe_larger #(.B(B)) three_first (.a(low), .b(p2), .larger(of_head), .second(unused_head));
                braggnn_fe_larger #(.B(B)) three_last (.a(p1), .b(upper), .larger(of_tail), .second(unused_tail));
                always @(posedge clk) begin
                    {p3, p2, p1, p0} <= own;
                    low <= low_pair;
                    upper <= high_pair;
                    low_at <= low_second;
                    high_at <= high_second;
                    top <= of_all;
                    first[2*g +: 2] <= high ? {1'b1, high_at} : {1'b0, low_at};
                    h1 <= p0;
                    h2 <= low;
                    h3 <= of_head;
                    t1 <= p3;
                    t2 <= upper;
                    t3 <= of_tail;
                    left[g*B +: B] <= at == 2'd0 ? tail3[g*B +: B] : at == 2'd1 ? tail2[g*B +: B]
                        : at == 2'd2 ? tail1[g*B +: B] : {B{1'b0}};
                    right[g*B +: B] <= at == 2'd3 ? head3[(g+1)*B +: B] : at == 2'd2 ? head2[(g+1)*B +: B]
                        : at == 2'd1 ? head1[(g+1)*B +: B] : {B{1'b0}};
                end
                assign {head1[g*B +: B], head2[g*B +: B], head3[g*B +: B]} = {h1, h2, h3};
                assign {tail1[(g+1)*B +: B], tail2[(g+1)*B +: B], tail3[(g+1)*B +: B]} = {t1, t2, t3};
            end else begin : alone  // the word's only group
                wire [B-1:0] of_all;
                wire high;
                reg [B-1:0] own1;
                reg high1;
                if (G == 2) begin : two
                    braggnn_fe_larger #(.B(B)) pair (.a(own[0 +: B]), .b(own[B +: B]), .larger(of_all), .second(high));
                end else begin : one
                    assign of_all = own;
                    assign high = 1'b0;
                end
                always @(posedge clk) begin
                    own1 <= of_all;
                    high1 <= high;
                    top <= own1;
                    first <= {1'b0, high1};
                    left <= at == 2'd0 ? tail3[0 +: B] : tail2[0 +: B];
                    right <= at == 2'd0 & G == 2 ? head2[B +: B] : head3[B +: B];
                end
                assign {head1[0 +: B], head2[0 +: B], head3[0 +: B]} = {3*B{1'b0}};
                assign {tail1[B +: B], tail2[B +: B], tail3[B +: B]} = {3*B{1'b0}};
            end
            always @(posedge clk) whole[g*B +: B] <= top;
        end
    endgenerate
endmodule

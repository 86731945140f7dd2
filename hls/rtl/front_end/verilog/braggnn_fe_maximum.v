// The two-dimensional maximum: which pixels of a row are above the threshold and larger than all others above it within
// three pixels, or as large as later ones. Two of them are more than three pixels apart, so that a group of up to four
// neighbours holds at most one: the first maximum of the group, compared with what lies around it.
//
// in_column: seven rows of a word, {above, count} a pixel, the oldest row lowest. Seven clocks behind the word that
// completes the context.
module braggnn_fe_maximum #(
    parameter N = 4,
    parameter G = 4,
    parameter B = 16,
    parameter THRESHOLDS = 0,  // 1: every pixel has a threshold of its own
    parameter CONTEXT = 1,
    parameter WORD_BITS = 7,
    parameter TAG = 8
) (
    input clk,
    input rst,
    input [WORD_BITS-1:0] last,
    input in_valid,
    input [7*N*(B+1)-1:0] in_column,
    input [WORD_BITS-1:0] in_index,
    input [TAG-1:0] in_tag,
    output reg out_valid,
    output [WORD_BITS-1:0] out_index,
    output [TAG-1:0] out_tag,
    output reg [N/G-1:0] out_found,  // groups with a maximum
    output [2*(N/G)-1:0] out_position  // where in its group
);
    localparam GROUPS = N / G;
    localparam P = B + 1;
    localparam REACH_WORDS = (3 + N - 1) / N;  // words that three pixels may lie in
    localparam CHAIN = 2 * CONTEXT + 1;

    // A pixel that is not above the threshold counts as nothing. With one threshold for all pixels, those around the centre
    // are smaller than any above it as they are.
    function [B-1:0] gated(input [P-1:0] px);
        gated = THRESHOLDS == 0 | px[B] ? px[B-1:0] : {B{1'b0}};
    endfunction

    // Over rows: three above, the centre's, three below. Two clocks.
    reg v1 = 1'b0, v2 = 1'b0, fire = 1'b0;
    reg [N*B-1:0] above1, above1b, centre1, below1, below1b, above, centre, below;
    wire [N*B-1:0] pair_above, pair_below, of_above, of_below;
    wire [4*N-1:0] unused_second;
    reg [WORD_BITS-1:0] index1, index2;
    reg [TAG-1:0] tag1, tag2;
    integer i;
    genvar j, k;
    generate
        for (j = 0; j < N; j = j + 1) begin : rows
            braggnn_fe_larger #(.B(B)) upper (
                .a(gated(in_column[(0*N+j)*P +: P])), .b(gated(in_column[(1*N+j)*P +: P])),
                .larger(pair_above[j*B +: B]), .second(unused_second[4*j])
            );
            braggnn_fe_larger #(.B(B)) lower (
                .a(gated(in_column[(4*N+j)*P +: P])), .b(gated(in_column[(5*N+j)*P +: P])),
                .larger(pair_below[j*B +: B]), .second(unused_second[4*j+1])
            );
            braggnn_fe_larger #(.B(B)) all_above (
                .a(above1[j*B +: B]), .b(above1b[j*B +: B]), .larger(of_above[j*B +: B]), .second(unused_second[4*j+2])
            );
            braggnn_fe_larger #(.B(B)) all_below (
                .a(below1[j*B +: B]), .b(below1b[j*B +: B]), .larger(of_below[j*B +: B]), .second(unused_second[4*j+3])
            );
        end
    endgenerate
    always @(posedge clk) begin
        v1 <= in_valid & ~rst;
        v2 <= v1 & ~rst;
        fire <= v2 & ~rst;
        index1 <= in_index;
        index2 <= index1;
        tag1 <= in_tag;
        tag2 <= tag1;
        for (i = 0; i < N; i = i + 1) begin
            above1b[i*B +: B] <= gated(in_column[(2*N+i)*P +: P]);
            centre1[i*B +: B] <= in_column[(3*N+i)*P + B] ? in_column[(3*N+i)*P +: B] : {B{1'b0}};
            below1b[i*B +: B] <= gated(in_column[(6*N+i)*P +: P]);
        end
        above1 <= pair_above;
        below1 <= pair_below;
        above <= of_above;
        below <= of_below;
        centre <= centre1;
    end

    // The words before and after, the oldest lowest; they move with words, so that gaps in the stream do not matter.
    reg [CHAIN*N*B-1:0] above_chain, centre_chain, below_chain;
    reg [(CONTEXT+1)*WORD_BITS-1:0] index_chain;
    reg [(CONTEXT+1)*TAG-1:0] tag_chain;
    initial tag_chain = 0;
    always @(posedge clk)
        if (rst) tag_chain <= 0;  // no word from before a reset is looked at
        else if (v2) begin
            above_chain <= {above, above_chain[CHAIN*N*B-1:N*B]};
            centre_chain <= {centre, centre_chain[CHAIN*N*B-1:N*B]};
            below_chain <= {below, below_chain[CHAIN*N*B-1:N*B]};
            index_chain <= {index2, index_chain[(CONTEXT+1)*WORD_BITS-1:WORD_BITS]};
            tag_chain <= {tag2, tag_chain[(CONTEXT+1)*TAG-1:TAG]};
        end
    wire [WORD_BITS-1:0] index = index_chain[WORD_BITS-1:0];
    // Which of the words around it are beyond the ends of its row, known as soon as it is; it is none of them itself.
    wire [WORD_BITS-1:0] following = index_chain[WORD_BITS +: WORD_BITS];
    reg [2*REACH_WORDS:0] beyond;
    integer w;
    always @(posedge clk)
        if (v2)
            for (w = 0; w <= 2 * REACH_WORDS; w = w + 1)
                beyond[w] <= w < REACH_WORDS ? following < REACH_WORDS - w
                    : w > REACH_WORDS & {1'b0, following} + w - REACH_WORDS > {1'b0, last};
    wire [TAG-1:0] tag = tag_chain[TAG-1:0];

    // Three pixels before the word, the word, three after it, in its row and in the maxima of those above and below.
    wire [3*(N+6)*B-1:0] around;
    wire [5:0] outside;
    wire [2*GROUPS-1:0] first, unused_a, unused_b;
    wire [GROUPS*B-1:0] top, whole_above, whole_below;
    wire [GROUPS*B-1:0] left_above, left_centre, left_below, right_above, right_centre, right_below;
    generate
        for (j = 0; j < N + 6; j = j + 1) begin : near
            // pixel j - 3 of the word, in the word REACH_WORDS further
            localparam WORD = (j - 3 + REACH_WORDS * N) / N - REACH_WORDS;
            localparam AT = (j - 3 + CONTEXT * N) * B;
            assign around[j*B +: B] = above_chain[AT +: B];
            assign around[(N+6+j)*B +: B] = centre_chain[AT +: B];
            assign around[(2*(N+6)+j)*B +: B] = below_chain[AT +: B];
            if (j < 3) begin : ahead
                assign outside[j] = beyond[WORD+REACH_WORDS];
            end else if (j >= N + 3) begin : behind
                assign outside[j-N] = beyond[WORD+REACH_WORDS];
            end
        end
    endgenerate
    braggnn_fe_span #(.N(N), .G(G), .B(B)) span_above (
        .clk(clk), .px(around[0 +: (N+6)*B]), .outside(outside), .position(first), .whole(whole_above),
        .left(left_above), .right(right_above), .first(unused_a)
    );
    braggnn_fe_span #(.N(N), .G(G), .B(B)) span_centre (
        .clk(clk), .px(around[(N+6)*B +: (N+6)*B]), .outside(outside), .position(first), .whole(top),
        .left(left_centre), .right(right_centre), .first(first)
    );
    braggnn_fe_span #(.N(N), .G(G), .B(B)) span_below (
        .clk(clk), .px(around[2*(N+6)*B +: (N+6)*B]), .outside(outside), .position(first), .whole(whole_below),
        .left(left_below), .right(right_below), .first(unused_b)
    );

    // A group's maximum is larger than those that come before, and as large as those that come after.
    generate
        for (k = 0; k < GROUPS; k = k + 1) begin : group
            wire [B-1:0] own = top[k*B +: B];
            wire [4*B-1:0] ahead = {
                left_centre[k*B +: B], right_above[k*B +: B], left_above[k*B +: B], whole_above[k*B +: B]
            };
            wire [4*B-1:0] behind = {
                right_centre[k*B +: B], right_below[k*B +: B], left_below[k*B +: B], whole_below[k*B +: B]
            };
            wire [3:0] beats, beaten;
            for (j = 0; j < 4; j = j + 1) begin : neighbours
                braggnn_fe_less_than #(.WIDTH(B)) larger (.a(ahead[j*B +: B]), .b(own), .less(beats[j]));
                braggnn_fe_less_than #(.WIDTH(B)) smaller (.a(own), .b(behind[j*B +: B]), .less(beaten[j]));
            end
            reg [1:0] position3, position4, position5;
            reg [4:0] earlier;
            reg [3:0] later;
            always @(posedge clk) begin
                position3 <= first[2*k +: 2];
                position4 <= position3;
                position5 <= position4;
                earlier <= {own != 0, beats[0], beats[1], beats[2], beats[3]};
                later <= ~{beaten[0], beaten[1], beaten[2], beaten[3]};
                out_found[k] <= &earlier & &later;
            end
            assign out_position[2*k +: 2] = position5;
        end
    endgenerate

    // The tag of the centre's word beside it: three clocks in the spans, two in the comparisons.
    reg [3:0] fires = 0;
    reg [5*WORD_BITS-1:0] indices;
    reg [5*TAG-1:0] tags;
    initial out_valid = 1'b0;
    assign out_index = indices[5*WORD_BITS-1 -: WORD_BITS];
    assign out_tag = tags[5*TAG-1 -: TAG];
    always @(posedge clk) begin
        fires <= rst ? 4'd0 : {fires[2:0], fire};
        out_valid <= fires[3] & ~rst;
        indices <= {indices[4*WORD_BITS-1:0], index};
        tags <= {tags[4*TAG-1:0], tag};
    end
endmodule

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

    function [B-1:0] larger(input [B-1:0] a, input [B-1:0] b);
        larger = a > b ? a : b;
    endfunction
    function [B-1:0] gated(input [P-1:0] px);
        gated = px[B] ? px[B-1:0] : {B{1'b0}};
    endfunction

    // Over rows: three above, the centre's, three below. Two clocks.
    reg v1 = 1'b0, v2 = 1'b0, fire = 1'b0;
    reg [N*B-1:0] above1, above1b, centre1, below1, below1b, above, centre, below;
    reg [WORD_BITS-1:0] index1, index2;
    reg [TAG-1:0] tag1, tag2;
    integer i;
    always @(posedge clk) begin
        v1 <= in_valid & ~rst;
        v2 <= v1 & ~rst;
        fire <= v2 & ~rst;
        index1 <= in_index;
        index2 <= index1;
        tag1 <= in_tag;
        tag2 <= tag1;
        for (i = 0; i < N; i = i + 1) begin
            above1[i*B +: B] <= larger(gated(in_column[(0*N+i)*P +: P]), gated(in_column[(1*N+i)*P +: P]));
            above1b[i*B +: B] <= gated(in_column[(2*N+i)*P +: P]);
            centre1[i*B +: B] <= gated(in_column[(3*N+i)*P +: P]);
            below1[i*B +: B] <= larger(gated(in_column[(4*N+i)*P +: P]), gated(in_column[(5*N+i)*P +: P]));
            below1b[i*B +: B] <= gated(in_column[(6*N+i)*P +: P]);
            above[i*B +: B] <= larger(above1[i*B +: B], above1b[i*B +: B]);
            below[i*B +: B] <= larger(below1[i*B +: B], below1b[i*B +: B]);
        end
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
    // Which of the words around it are in its row, known as soon as it is.
    wire [WORD_BITS-1:0] following = index_chain[WORD_BITS +: WORD_BITS];
    reg [2*REACH_WORDS:0] in_row;
    integer w;
    always @(posedge clk)
        if (v2)
            for (w = 0; w <= 2 * REACH_WORDS; w = w + 1)
                in_row[w] <= w < REACH_WORDS ? following >= REACH_WORDS - w
                    : {1'b0, following} + w - REACH_WORDS <= {1'b0, last};
    wire [TAG-1:0] tag = tag_chain[TAG-1:0];

    // Pixels beyond the row's ends count as nothing.
    wire [(N+6)*B-1:0] above_px, centre_px, below_px;
    genvar j, g;
    generate
        for (j = 0; j < N + 6; j = j + 1) begin : near
            // pixel j - 3 of the word, in the word REACH_WORDS further
            localparam WORD = (j - 3 + REACH_WORDS * N) / N - REACH_WORDS;
            localparam AT = (j - 3 + CONTEXT * N) * B;
            wire there = in_row[WORD+REACH_WORDS];
            assign above_px[j*B +: B] = there ? above_chain[AT +: B] : {B{1'b0}};
            assign centre_px[j*B +: B] = there ? centre_chain[AT +: B] : {B{1'b0}};
            assign below_px[j*B +: B] = there ? below_chain[AT +: B] : {B{1'b0}};
        end
        for (g = 0; g < GROUPS; g = g + 1) begin : group
            wire [1:0] first, unused_a, unused_b;
            wire [B-1:0] top, whole_above, whole_below;
            wire [B-1:0] left_above, left_centre, left_below, right_above, right_centre, right_below;
            braggnn_fe_span #(.B(B), .G(G)) span_above (
                .clk(clk), .px(above_px[g*G*B +: (G+6)*B]), .position(first), .whole(whole_above),
                .left(left_above), .right(right_above), .first(unused_a)
            );
            braggnn_fe_span #(.B(B), .G(G)) span_centre (
                .clk(clk), .px(centre_px[g*G*B +: (G+6)*B]), .position(first), .whole(top),
                .left(left_centre), .right(right_centre), .first(first)
            );
            braggnn_fe_span #(.B(B), .G(G)) span_below (
                .clk(clk), .px(below_px[g*G*B +: (G+6)*B]), .position(first), .whole(whole_below),
                .left(left_below), .right(right_below), .first(unused_b)
            );
            reg [1:0] position3, position4, position5;
            reg [4:0] earlier;  // larger than those that come before
            reg [3:0] later;  // as large as those that come after
            always @(posedge clk) begin
                position3 <= first;
                position4 <= position3;
                position5 <= position4;
                earlier <= {top != 0, top > whole_above, top > left_above, top > right_above, top > left_centre};
                later <= {top >= whole_below, top >= left_below, top >= right_below, top >= right_centre};
                out_found[g] <= &earlier & &later;
            end
            assign out_position[2*g +: 2] = position5;
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

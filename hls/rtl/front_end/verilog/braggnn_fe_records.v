// Peaks to records: what has no place is dropped here, whole and counted, before its record is begun. The frame's end
// follows its peaks on the same way; its place was kept when the frame started.
//
// A maximum and what it is known by come in together; `result` is the locator's for the same one, DELAY clocks later. Of a
// locator that is EXTERNAL it comes when it comes, and what it belongs to comes back with it (braggnn_fe_external).
module braggnn_fe_records #(
    parameter B = 16,
    parameter DELAY = 8,  // at least LATER + 1
    parameter LATER = 0,  // clocks from a maximum to whether it is significant
    parameter CODE = 13,  // bits of a code
    parameter FRAC = 9,
    parameter CODES = 4,  // 2, or 4 with ln sigma
    parameter PLACES_LOG2 = 6,
    parameter EXTERNAL = 0,
    parameter ENTRY = 1,  // bits of what waits for an external locator
    parameter STORED_RECORD = 224'd0  // what the stored frame's peak becomes, without its frame number
) (
    input clk,
    input rst,
    input start,  // a frame starts: its end record takes a place
    output place,  // there is one
    input [31:0] frame,
    input is_stored,
    input test_begins,
    input signed [15:0] sigma_limit,
    input in_valid,  // a maximum
    input in_end,  // or the frame's end
    input is_peak,
    input significant,  // LATER clocks behind it
    input second,
    input saturated,
    input masked,
    input edge_,
    input [B-1:0] brightest,
    input [31:0] total,
    input [15:0] row,
    input [15:0] col,
    input [CODES*CODE-1:0] result,
    // to an external locator: a peak that has a place, or a frame's end; and what comes back in order
    output keep,
    output keep_edge,
    output [ENTRY-1:0] entry,
    output end_taken,
    output [ENTRY-1:0] end_entry,
    input back,
    input back_end,
    input [ENTRY-1:0] back_entry,
    input back_wrong,
    // of the frame, steady when its end comes
    input [15:0] waiting_high,
    input [15:0] end_rows,
    input [15:0] end_cols,
    input [31:0] end_above,
    input [3:0] end_flags,
    output reg end_done,
    output reg stored_passed,
    output reg sent,  // a peak's record was made
    output reg dropped,  // a peak had no place
    output [255:0] out_data,
    output out_last,
    output out_valid,
    input out_ready
);
    // Places of records, those that the pipeline will fill included.
    localparam PLACES = 1 << PLACES_LOG2;
    reg [PLACES_LOG2:0] places = PLACES;
    reg [PLACES_LOG2:0] fewest = PLACES;
    wire peak;
    generate
        if (LATER == 0) begin : at_once
            assign peak = in_valid & is_peak;
        end else begin : after_the_test
            reg [LATER-1:0] peaks_then = 0;
            wire [LATER:0] next_peaks = {peaks_then, in_valid & is_peak};
            always @(posedge clk) peaks_then <= rst ? {LATER{1'b0}} : next_peaks[LATER-1:0];
            assign peak = peaks_then[LATER-1] & (significant | is_stored);
        end
    endgenerate
    assign keep = peak & (is_stored | places != 0);
    wire leave = out_valid & out_ready;
    assign place = places != 0;
    reg [31:0] drops = 0;

    localparam TAG = 4 + B + 64;
    localparam END = 132;
    wire [TAG-1:0] new_tag = {edge_, second, saturated, masked, brightest, total, row, col};
    wire [31:0] in_use = PLACES - {{(31-PLACES_LOG2){1'b0}}, fewest};
    // What the end record says that the records before it do not, and the limit of sigma.
    wire [END-1:0] new_end = {end_flags, end_above, end_cols, end_rows, in_use[15:0], waiting_high, drops[31:0]};
    wire [TAG-1:0] tag;
    wire [END-1:0] end_tag;
    wire signed [15:0] limit;
    wire next_peak, next_end;
    reg [DELAY-LATER-1:0] kept = 0;
    reg [DELAY-1:0] ends = 0;
    wire [DELAY-LATER:0] next_kept = {kept, keep};
    wire [DELAY:0] next_ends = {ends, in_end};
    generate
        if (EXTERNAL) begin : comes_back
            // Tags are needed when it is known which maxima are kept; an end, when all of its frame's are counted.
            wire [TAG-1:0] tag_now;
            if (LATER == 0) begin : now
                assign tag_now = new_tag;
            end else begin : then
                reg [LATER*TAG-1:0] tags;
                wire [(LATER+1)*TAG-1:0] next_tags = {tags, new_tag};
                always @(posedge clk) tags <= next_tags[LATER*TAG-1:0];
                assign tag_now = tags[LATER*TAG-1 -: TAG];
            end
            reg [END-1:0] last_end = 0;
            always @(posedge clk) if (next_end) last_end <= back_entry[END-1:0];
            assign keep_edge = tag_now[TAG-1];
            assign entry = {{(ENTRY-TAG-16){1'b0}}, sigma_limit, tag_now};
            assign end_taken = ends[DELAY-1];
            assign end_entry = new_end;
            assign next_peak = back;
            assign next_end = back_end;
            assign {limit, tag} = back_entry[TAG+15:0];
            assign end_tag = last_end;
        end else begin : delayed
            reg [DELAY*TAG-1:0] tags;
            wire [(DELAY+1)*TAG-1:0] next_tags = {tags, new_tag};
            always @(posedge clk) tags <= next_tags[DELAY*TAG-1:0];
            assign keep_edge = 1'b0;
            assign entry = {ENTRY{1'b0}};
            assign end_taken = 1'b0;
            assign end_entry = {ENTRY{1'b0}};
            assign next_peak = kept[DELAY-LATER-1];
            assign next_end = ends[DELAY-1];
            assign tag = tags[DELAY*TAG-1 -: TAG];
            assign end_tag = new_end;
            assign limit = sigma_limit;
        end
    endgenerate
    wire t_edge, t_second, t_saturated, t_masked;
    wire [B-1:0] t_brightest;
    wire [31:0] t_total;
    wire [15:0] t_row, t_col;
    assign {t_edge, t_second, t_saturated, t_masked, t_brightest, t_total, t_row, t_col} = tag;
    wire [31:0] e_above, e_drops;
    wire [15:0] e_cols, e_rows, e_in_use, e_waiting;
    wire [3:0] e_flags;
    assign {e_flags, e_above, e_cols, e_rows, e_in_use, e_waiting, e_drops} = end_tag;

    function signed [31:0] code(input [CODE-1:0] bits);
        code = {{(32-CODE){bits[CODE-1]}}, bits};
    endfunction
    wire signed [31:0] code_row = t_edge ? 32'sd0 : code(result[0 +: CODE]);
    wire signed [31:0] code_col = t_edge ? 32'sd0 : code(result[CODE +: CODE]);
    wire signed [31:0] sigma_row, sigma_col;
    generate
        if (CODES == 4) begin : with_sigma
            assign sigma_row = t_edge ? 32'sd0 : code(result[2*CODE +: CODE]);
            assign sigma_col = t_edge ? 32'sd0 : code(result[3*CODE +: CODE]);
        end else begin : without_sigma
            assign sigma_row = 32'sd0;
            assign sigma_col = 32'sd0;
        end
    endgenerate

    // 1: positions. 2: the record. 3, 4: the sum of its words. 5: into the queue, or the end record in its place.
    reg v1 = 1'b0, v2 = 1'b0, v3 = 1'b0, v4 = 1'b0, e1 = 1'b0, e2 = 1'b0, e3 = 1'b0, e4 = 1'b0;
    reg put = 1'b0;
    reg [31:0] row1, col1, total1;
    reg [15:0] sigma_row1, sigma_col1, at_row1, at_col1;
    reg [B-1:0] brightest1;
    reg [3:0] flags1;
    reg doubt1;
    reg [255:0] record2, record3, record4, out5;
    reg [31:0] sum3a, sum3b, sum3c, sum3d, sum4;
    reg [31:0] checksum = 0, peaks = 0;
    reg end_put = 1'b0;
    wire [31:0] brightest_word = {{(32-B){1'b0}}, brightest1};
    initial begin
        end_done = 1'b0;
        sent = 1'b0;
        dropped = 1'b0;
        stored_passed = 1'b0;
    end

    always @(posedge clk) begin
        row1 <= ({16'd0, t_row} << FRAC) + code_row;
        col1 <= ({16'd0, t_col} << FRAC) + code_col;
        sigma_row1 <= sigma_row[15:0];
        sigma_col1 <= sigma_col[15:0];
        doubt1 <= t_edge | (~is_stored & (back_wrong | sigma_row > limit | sigma_col > limit));
        flags1 <= {t_masked, t_saturated, t_second, t_edge};
        at_row1 <= t_row;
        at_col1 <= t_col;
        brightest1 <= t_brightest;
        total1 <= t_total;
        record2 <= {
            8'd1, 8'd0, 11'd0, doubt1, flags1, at_col1, at_row1, total1, brightest_word, sigma_col1, sigma_row1, col1, row1,
            frame
        };
        sum3a <= record2[0 +: 32] + record2[32 +: 32];
        sum3b <= record2[64 +: 32] + record2[96 +: 32];
        sum3c <= record2[128 +: 32] + record2[160 +: 32];
        sum3d <= record2[192 +: 32] + record2[224 +: 32];
        sum4 <= (sum3a + sum3b) + (sum3c + sum3d);
        record3 <= record2;
        record4 <= record3;
        out5 <= e4 ? {
            8'd1, 8'd1, 12'd0, e_flags, e_above, e_cols, e_rows, checksum, e_in_use, e_waiting, e_drops, peaks, frame
        } : record4;
        end_put <= e4;
        if (rst) begin
            places <= PLACES;
            fewest <= PLACES;
            kept <= 0;
            ends <= 0;
            {v1, v2, v3, v4, e1, e2, e3, e4} <= 8'd0;
            put <= 1'b0;
            end_done <= 1'b0;
            sent <= 1'b0;
            dropped <= 1'b0;
            drops <= 0;
            peaks <= 0;
            checksum <= 0;
            stored_passed <= 1'b0;
        end else begin
            places <= places - (keep & ~is_stored) - start + leave;
            fewest <= start ? places : places < fewest ? places : fewest;
            kept <= next_kept[DELAY-LATER-1:0];
            ends <= next_ends[DELAY-1:0];
            v1 <= next_peak;
            v2 <= v1;
            v3 <= v2;
            v4 <= v3;
            e1 <= next_end;
            e2 <= e1;
            e3 <= e2;
            e4 <= e3;
            put <= (v4 | e4) & ~is_stored;
            end_done <= e4;
            sent <= v4 & ~is_stored;
            dropped <= peak & ~keep;
            if (start) drops <= 0;
            else if (peak & ~keep) drops <= drops + 32'd1;
            // The next frame may have begun while an external locator still has peaks of this one.
            if (e4) begin
                peaks <= 0;
                checksum <= 0;
            end else if (v4) begin
                checksum <= checksum + sum4;
                peaks <= peaks + 32'd1;
            end
            if (test_begins) stored_passed <= 1'b0;
            if (v4 & is_stored) stored_passed <= record4[255:32] == STORED_RECORD;
        end
    end

    wire unused_empty;
    braggnn_fe_fifo #(.BITS(257), .LOG2(PLACES_LOG2)) waiting (
        .clk(clk), .rst(rst), .put(put), .in({end_put, out5}), .out({out_last, out_data}), .valid(out_valid),
        .take(leave), .empty(unused_empty)
    );
endmodule

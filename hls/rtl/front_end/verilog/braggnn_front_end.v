// A detector's pixels in, records of Bragg peaks out: @N@ pixels of @B@ bits a clock, frames of up to @MAX_COLS@ columns,
// windows of @W@ x @W@ pixels. What leaves is a record of 32 bytes a beat (README.txt has the layout), and one a frame
// at its end, with tlast. Of locator @DIGEST@.
//
// s_axis: pixels, the first in the lowest bits; tuser with a frame's first beat, tlast with a row's last.
// s_axi: registers (AXI4-Lite). rst is synchronous; nothing is ready while it is 1, and none is needed after power-up.
module braggnn_front_end (
    input clk,
    input rst,
    input [@DATA@-1:0] s_axis_tdata,
    input s_axis_tuser,
    input s_axis_tlast,
    input s_axis_tvalid,
    output s_axis_tready,
@MAP_PORTS@
@EXTERNAL_PORTS@
    output [255:0] m_axis_tdata,
    output m_axis_tlast,
    output m_axis_tvalid,
    input m_axis_tready,
    input [7:0] s_axi_awaddr,
    input s_axi_awvalid,
    output s_axi_awready,
    input [31:0] s_axi_wdata,
    input [3:0] s_axi_wstrb,
    input s_axi_wvalid,
    output s_axi_wready,
    output [1:0] s_axi_bresp,
    output s_axi_bvalid,
    input s_axi_bready,
    input [7:0] s_axi_araddr,
    input s_axi_arvalid,
    output s_axi_arready,
    output [31:0] s_axi_rdata,
    output [1:0] s_axi_rresp,
    output s_axi_rvalid,
    input s_axi_rready
);
    localparam N = @N@, B = @B@, W = @W@, G = @G@, AREA = @AREA@;
    localparam P = B + 3, HALF = (W - 1) / 2, CONTEXT = @CONTEXT@;
    localparam WORDS = @WORDS@, WORD_BITS = @WORD_BITS@, TIME_BITS = @TIME_BITS@, N_LOG2 = @N_LOG2@;
    localparam BANKS = @BANKS@, BANKS_LOG2 = @BANKS_LOG2@, SLOTS = @SLOTS@;
    localparam PLACES_LOG2 = @PLACES_LOG2@;
    localparam STAGES = @STAGES@, CODE = @CODE@, CODES = @CODES@, FRAC = @FRAC@;
    localparam BAD_LOG2 = @BAD_LOG2@, SIGNIFICANCE = @SIGNIFICANCE@;
    localparam EXTERNAL = @EXTERNAL@, ENTRY = EXTERNAL ? 132 : 1;
    localparam DARK = @DARK@, THRESHOLDS = @THRESHOLDS@, MAPS = DARK | THRESHOLDS, MAP = @MAP@;
    localparam LATER = SIGNIFICANCE ? 3 : 0;  // clocks from the features to the test of significance
    // Features take five clocks, the locator STAGES; of an external one the frame's end alone waits, for its last peaks.
    localparam DELAY = EXTERNAL ? LATER + 3 : STAGES > LATER + 6 ? STAGES - 5 : LATER + 1;

    // Registers, and those of them that a frame takes at its start.
    wire enable, test, abort, bad_fits, bad_columns_fit, bad_empty;
    wire [31:0] written;
    wire [15:0] rows, cols, threshold, saturation, sigma_limit;
    wire [3:0] gain_shift;
@OPTION_WIRES@
    reg [31:0] frames = 0, peaks = 0, dropped = 0, frame = 0;
    reg test_waits = 1'b0, test_done = 1'b0;
    wire busy, is_stored, start, test_taken, test_passed, end_done, sent, drop;
    wire under_way;  // an external locator has peaks of a frame that has passed
    wire in_hand = busy | under_way;
    wire [3:0] status = {test_passed & test_done, test_done, test_waits | is_stored, in_hand};
    braggnn_fe_registers registers (
        .clk(clk), .rst(rst),
        .awaddr(s_axi_awaddr), .awvalid(s_axi_awvalid), .awready(s_axi_awready),
        .wdata(s_axi_wdata), .wstrb(s_axi_wstrb), .wvalid(s_axi_wvalid), .wready(s_axi_wready),
        .bresp(s_axi_bresp), .bvalid(s_axi_bvalid), .bready(s_axi_bready),
        .araddr(s_axi_araddr), .arvalid(s_axi_arvalid), .arready(s_axi_arready),
        .rdata(s_axi_rdata), .rresp(s_axi_rresp), .rvalid(s_axi_rvalid), .rready(s_axi_rready),
        .enable(enable), .rows(rows), .cols(cols), .threshold(threshold), .saturation(saturation),
        .gain_shift(gain_shift), .sigma_limit(sigma_limit), .status(status), .frames(frames), .peaks(peaks),
        .dropped(dropped),
@OPTION_PORTS@
        .test(test), .abort(abort), .written(written)
    );
    wire [15:0] cols_less_one = cols - 16'd1;
    reg [15:0] cols_last = 16'd@MAX_COLS@ - 16'd1;
    always @(posedge clk) cols_last <= cols_less_one;
    reg [B-1:0] threshold_now, saturation_now;
    reg [3:0] gain_shift_now;
    reg signed [15:0] sigma_limit_now;
    reg significance_now;
    reg [15:0] slope_now;
    reg [31:0] offset_now;
    reg was_enabled = 1'b0;
    reg restart = 1'b0;  // enabled: counts begin at 0 as soon as no frame is in hand
    always @(posedge clk) begin
        if (start) begin
            threshold_now <= threshold[B-1:0];
            saturation_now <= saturation[B-1:0];
            gain_shift_now <= gain_shift;
            sigma_limit_now <= sigma_limit;
            significance_now <= significance;
            slope_now <= significance_slope;
            offset_now <= significance_offset;
        end
        if (rst) begin
            was_enabled <= 1'b0;
            restart <= 1'b0;
            frames <= 0;
            frame <= 0;
            peaks <= 0;
            dropped <= 0;
            test_waits <= 1'b0;
            test_done <= 1'b0;
        end else begin
            was_enabled <= enable;
            test_waits <= test | (test_waits & ~test_taken);
            test_done <= ~test & (test_done | (end_done & is_stored));
            restart <= ((enable & ~was_enabled) | restart) & in_hand;
            if (((enable & ~was_enabled) | restart) & ~in_hand) begin
                frames <= 0;
                frame <= 0;
                peaks <= 0;
                dropped <= 0;
            end else begin
                if (end_done & ~is_stored) begin
                    frames <= frames + 32'd1;
                    frame <= frame + 32'd1;
                end
                peaks <= peaks + {31'd0, sent};
                dropped <= dropped + {31'd0, drop};
            end
        end
    end

    // Frames whose end an external locator's peaks still hold up. The next one starts meanwhile, unless the stored frame
    // or counts that begin anew wait for all of them.
    wire stay, frame_done;
    generate
        if (EXTERNAL) begin : frames_under_way
            reg [PLACES_LOG2:0] ends_waiting = 0;
            always @(posedge clk)
                if (rst) ends_waiting <= 0;
                else ends_waiting <= ends_waiting + {{PLACES_LOG2{1'b0}}, end_taken} - {{PLACES_LOG2{1'b0}}, end_done};
            assign under_way = ends_waiting != 0;
            assign stay = under_way & (test_waits | restart | (enable & ~was_enabled));
            assign frame_done = is_stored ? end_done : end_taken;
        end else begin : one_at_a_time
            assign under_way = 1'b0;
            assign stay = 1'b0;
            assign frame_done = end_done;
        end
    endgenerate

    // Beats to words.
@MAP_WIRES@
    wire [MAP-1:0] word_maps;
    wire hold, place, idle, word_valid, word_live, end_valid;
    wire [WORD_BITS-1:0] last, word_index;
    wire [@DATA@-1:0] word_data;
    wire [1:0] word_kind;
    wire [15:0] word_row, end_rows;
    wire [3:0] end_flags;
    braggnn_fe_sequencer #(
        .DATA(@DATA@), .MAPS(MAPS), .MAP(MAP), .WORD_BITS(WORD_BITS), .HALF(HALF), .CONTEXT(CONTEXT),
        .PIPE(24 + MAPS + CONTEXT), .STORED_ROWS(W), .STORED_WORDS(@STORED_WORDS@)
    ) sequencer (
        .clk(clk), .rst(rst), .in_data(s_axis_tdata), .in_user(s_axis_tuser), .in_last(s_axis_tlast),
        .in_valid(s_axis_tvalid), .in_ready(s_axis_tready), .map_data(s_map_tdata), .map_user(s_map_tuser),
        .map_last(s_map_tlast), .map_valid(s_map_tvalid), .map_ready(s_map_tready), .cfg_maps(maps), .enable(enable),
        .abort(abort), .cfg_rows(rows),
        .cfg_last(cols_last[N_LOG2 +: WORD_BITS]), .test(test_waits & ~under_way), .test_taken(test_taken), .hold(hold), .place(place & ~stay),
        .idle(idle), .start(start), .busy(busy), .last(last), .word_valid(word_valid), .word_data(word_data),
        .word_maps(word_maps),
        .word_kind(word_kind), .word_index(word_index), .word_row(word_row), .word_live(word_live), .is_stored(is_stored),
        .end_valid(end_valid), .end_rows(end_rows), .end_flags(end_flags), .end_done(frame_done)
    );

    // Words to pixels.
    wire [N*(B+1)-1:0] stored;
    wire px_valid, px_live, px_outside;
    wire [N*P-1:0] px_data;
    wire [WORD_BITS-1:0] px_index;
    wire [15:0] px_row;
    wire [5:0] px_above;
    reg [31:0] above_count = 0;
    wire [N-1:0] bad;

    // The maps' own step, where there are any.
    wire mapped_valid, mapped_live;
    wire [N*B-1:0] mapped_data, mapped_thresholds;
    wire [N-1:0] mapped_full;
    wire [1:0] mapped_kind;
    wire [WORD_BITS-1:0] mapped_index;
    wire [15:0] mapped_row;
    generate
        if (MAPS) begin : maps_step
            reg maps_now = 1'b0;
            always @(posedge clk) if (start) maps_now <= maps;
            braggnn_fe_maps #(
                .N(N), .B(B), .WORD_BITS(WORD_BITS), .DARK(DARK), .THRESHOLDS(THRESHOLDS), .MAP(MAP)
            ) maps_used (
                .clk(clk), .rst(rst), .used(maps_now), .threshold(threshold_now), .saturation(saturation_now),
                .in_valid(word_valid), .in_data(word_data[N*B-1:0]), .in_maps(word_maps), .in_kind(word_kind),
                .in_index(word_index), .in_row(word_row), .in_live(word_live), .out_valid(mapped_valid),
                .out_data(mapped_data), .out_full(mapped_full), .out_thresholds(mapped_thresholds),
                .out_kind(mapped_kind), .out_index(mapped_index), .out_row(mapped_row), .out_live(mapped_live)
            );
        end else begin : no_maps
            assign mapped_valid = word_valid;
            assign mapped_data = word_data[N*B-1:0];
            assign mapped_full = {N{1'b0}};
            assign mapped_thresholds = {N*B{1'b0}};
            assign mapped_kind = word_kind;
            assign mapped_index = word_index;
            assign mapped_row = word_row;
            assign mapped_live = word_live;
        end
    endgenerate
    generate
        if (BAD_LOG2 != 0) begin : bad_pixels_known
            braggnn_fe_bad #(.N(N), .WORDS(WORDS), .WORD_BITS(WORD_BITS), .LOG2(BAD_LOG2)) bad_list (
                .clk(clk), .rst(rst), .clear(bad_clear), .put(bad_pixels), .put_columns(bad_columns), .row(bad_row),
                .span(bad_span), .pixels(written[N-1:0]), .cfg_last(cols_less_one[N_LOG2 +: WORD_BITS]), .fits(bad_fits),
                .columns_fit(bad_columns_fit), .empty(bad_empty), .loaded(bad_loaded), .rewind(end_valid),
                .in_valid(mapped_valid), .in_inside(~mapped_kind[1]), .in_index(mapped_index), .in_row(mapped_row), .bad(bad)
            );
        end else begin : no_bad_pixels
            assign bad = {N{1'b0}};
            assign bad_fits = 1'b0;
            assign bad_columns_fit = 1'b0;
            assign bad_empty = 1'b1;
            assign bad_loaded = 32'd0;
        end
    endgenerate
    braggnn_fe_stored stored_frame (.row(mapped_row[3:0]), .index(mapped_index), .pixels(stored));
    braggnn_fe_pixels #(.N(N), .B(B), .WORD_BITS(WORD_BITS), .DARK(DARK), .THRESHOLDS(THRESHOLDS)) pixels (
        .clk(clk), .rst(rst), .threshold(threshold_now), .saturation(saturation_now), .gain_shift(gain_shift_now),
        .stored(stored), .in_valid(mapped_valid), .in_data(mapped_data), .full(mapped_full),
        .thresholds(mapped_thresholds), .in_kind(mapped_kind), .in_index(mapped_index),
        .in_row(mapped_row), .in_live(mapped_live), .bad(bad), .out_valid(px_valid), .out_data(px_data), .out_index(px_index),
        .out_row(px_row), .out_live(px_live), .out_outside(px_outside), .out_above(px_above)
    );
    always @(posedge clk)
        if (start) above_count <= 0;
        else if (px_valid) above_count <= above_count + {26'd0, px_above};

    // Rows above.
    wire column_valid, column_live, column_outside;
    wire [W*N*P-1:0] column;
    wire [WORD_BITS-1:0] column_index;
    wire [15:0] column_row;
    reg [TIME_BITS-1:0] now = 0;
    braggnn_fe_lines #(.ROWS(W-1), .BITS(N*P), .WORDS(WORDS), .WORD_BITS(WORD_BITS), .TAG(18)) lines (
        .clk(clk), .rst(rst), .in_valid(px_valid), .in_index(px_index), .in_data(px_data),
        .in_tag({px_row, px_live, px_outside}), .out_valid(column_valid), .out_index(column_index),
        .out_tag({column_row, column_live, column_outside}), .out_column(column)
    );
    always @(posedge clk) if (column_valid) now <= now + 1'b1;

    // Maxima.
    wire [7*N*(B+1)-1:0] seven;
    genvar i;
    generate
        for (i = 0; i < 7 * N; i = i + 1) begin : middle
            assign seven[i*(B+1) +: B+1] = column[((HALF-3)*N+i)*P +: B+1];
        end
    endgenerate
    wire found_valid, found_live, found_below;
    wire [N/G-1:0] found;
    wire [2*(N/G)-1:0] found_position;
    wire [WORD_BITS-1:0] found_index;
    wire [15:0] found_row;
    wire [TIME_BITS-1:0] found_time;
    braggnn_fe_maximum #(
        .N(N), .G(G), .B(B), .THRESHOLDS(THRESHOLDS), .CONTEXT(CONTEXT), .WORD_BITS(WORD_BITS), .TAG(18 + TIME_BITS)
    ) maximum (
        .clk(clk), .rst(rst), .last(last), .in_valid(column_valid), .in_column(seven), .in_index(column_index),
        .in_tag({now, column_row - HALF[15:0], column_live, column_outside}), .out_valid(found_valid),
        .out_index(found_index), .out_tag({found_time, found_row, found_live, found_below}), .out_found(found),
        .out_position(found_position)
    );

    // One after another.
    wire one_valid, one_below;
    wire [2:0] one_group;
    wire [1:0] one_position;
    wire [TIME_BITS-1:0] one_time;
    wire [WORD_BITS-1:0] one_index;
    wire [15:0] one_row, waiting_high;
    braggnn_fe_queue #(
        .GROUPS(N / G), .WORD_BITS(WORD_BITS), .TIME_BITS(TIME_BITS), .MARGIN(21 + MAPS + 2 * CONTEXT)
    ) queue (
        .clk(clk), .rst(rst), .clear_high(start), .now(now), .in_valid(found_valid & found_live), .in_found(found),
        .in_position(found_position), .in_time(found_time), .in_index(found_index), .in_row(found_row),
        .in_below(found_below), .out_valid(one_valid), .out_group(one_group), .out_position(one_position),
        .out_time(one_time), .out_index(one_index), .out_row(one_row), .out_below(one_below), .hold(hold), .idle(idle),
        .high(waiting_high)
    );

    // Their windows: five clocks.
    wire [W*W*B-1:0] window;
    wire [48:0] window_above;
    wire window_masked, window_saturated, window_edge;
    wire [15:0] window_row, window_col;
    braggnn_fe_readout #(
        .N(N), .G(G), .B(B), .W(W), .BANKS(BANKS), .BANKS_LOG2(BANKS_LOG2), .SLOTS(SLOTS), .WORD_BITS(WORD_BITS),
        .TIME_BITS(TIME_BITS), .EXACT(SIGNIFICANCE)
    ) readout (
        .clk(clk), .last(last), .in_valid(column_valid), .in_time(now), .in_column(column), .group(one_group),
        .position(one_position), .at_time(one_time), .index(one_index), .row(one_row), .below(one_below), .window(window),
        .above(window_above), .masked(window_masked), .saturated(window_saturated), .edge_(window_edge),
        .out_row(window_row), .out_col(window_col)
    );

    // The locator, and beside it what else a record says: five clocks, and DELAY more.
    wire [@IN@-1:0] counts;
    generate
        for (i = 0; i < W * W; i = i + 1) begin : input_count
            @COUNT@
        end
    endgenerate
    wire [CODES*CODE-1:0] codes_late;
    wire keep, keep_edge, end_taken, back, back_end, back_wrong;
    wire [ENTRY-1:0] entry, end_entry, back_entry;
@LOCATOR@
    wire is_peak, second;
    wire [B-1:0] brightest;
    wire [31:0] total;
    braggnn_fe_features #(.B(B), .W(W), .AREA(AREA)) features (
        .clk(clk), .window(window), .above(window_above), .is_peak(is_peak), .second(second), .brightest(brightest), .total(total)
    );
    wire significant;
    generate
        if (SIGNIFICANCE) begin : tested
            braggnn_fe_significance #(.B(B), .W(W)) significance_test (
                .clk(clk), .asked(significance_now), .slope(slope_now), .offset(offset_now), .window(window),
                .significant(significant)
            );
        end else begin : untested
            assign significant = 1'b1;
        end
    endgenerate
    reg [9:0] valid_then = 0, end_then = 0;
    reg [5*35-1:0] tag_then;
    always @(posedge clk) begin
        valid_then <= rst ? 10'd0 : {valid_then[8:0], one_valid};
        end_then <= rst ? 10'd0 : {end_then[8:0], end_valid};
        tag_then <= {tag_then[4*35-1:0], window_masked, window_saturated, window_edge, window_row, window_col};
    end
    wire [34:0] tag = tag_then[5*35-1 -: 35];

    wire [15:0] end_cols = {{(16-WORD_BITS){1'b0}}, last} * N + N;
    braggnn_fe_records #(
        .B(B), .DELAY(DELAY), .LATER(LATER), .CODE(CODE), .FRAC(FRAC), .CODES(CODES), .PLACES_LOG2(PLACES_LOG2),
        .EXTERNAL(EXTERNAL), .ENTRY(ENTRY), .STORED_RECORD(224'h@STORED_RECORD@)
    ) records (
        .clk(clk), .rst(rst), .start(start), .place(place), .frame(frame), .is_stored(is_stored), .test_begins(test_taken),
        .sigma_limit(sigma_limit_now), .in_valid(valid_then[9]), .in_end(end_then[9]), .is_peak(is_peak),
        .significant(significant), .second(second), .saturated(tag[33]), .masked(tag[34]), .edge_(tag[32]), .brightest(brightest), .total(total),
        .row(tag[31:16]),
        .col(tag[15:0]), .result(codes_late), .waiting_high(waiting_high), .end_rows(end_rows), .end_cols(end_cols),
        .end_above(above_count), .end_flags(end_flags), .keep(keep), .keep_edge(keep_edge), .entry(entry),
        .end_taken(end_taken), .end_entry(end_entry), .back(back), .back_end(back_end), .back_entry(back_entry),
        .back_wrong(back_wrong), .end_done(end_done), .stored_passed(test_passed), .sent(sent),
        .dropped(drop), .out_data(m_axis_tdata), .out_last(m_axis_tlast), .out_valid(m_axis_tvalid),
        .out_ready(m_axis_tready)
    );
endmodule

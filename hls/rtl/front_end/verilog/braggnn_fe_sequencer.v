// Beats of a detector's stream to the words of whole frames: every row as long as the register says, followed by the rows
// and words outside the frame that its last windows need.
//
// kind of a word: 0 pixels, 1 masked (the rest of a row that was too short), 2 outside the frame, 3 of the stored frame
// that tests the firmware. A frame starts only when nothing of the one before is under way, so that the registers are
// taken at its start and hold for all of its pixels.
module braggnn_fe_sequencer #(
    parameter DATA = 64,  // bits of a beat
    parameter MAPS = 0,  // 1: with a beat of maps for each word of a frame
    parameter MAP = 1,  // bits of such a beat
    parameter WORD_BITS = 7,  // of the index of a word in its row
    parameter HALF = 3,  // rows that a window has below its centre
    parameter CONTEXT = 1,  // words that a window has right of its centre's
    parameter PERIOD = 3,  // clocks from a word to the one below it, at least: the line buffers need them
    parameter PIPE = 24,  // clocks from a word to its entry in the queue, at least
    parameter STORED_ROWS = 7,
    parameter STORED_WORDS = 1
) (
    input clk,
    input rst,
    input [DATA-1:0] in_data,
    input in_user,  // first beat of a frame
    input in_last,  // last beat of a row
    input in_valid,
    output in_ready,
    input [MAP-1:0] map_data,
    input map_user,  // first beat of the maps of a frame
    input map_last,  // last beat of a row
    input map_valid,
    output map_ready,
    input cfg_maps,  // maps are used
    input enable,
    input abort,  // ends the frame in hand as the next start would; in between, throws away the beat that waits
    input [15:0] cfg_rows,
    input [WORD_BITS-1:0] cfg_last,  // index of a row's last word
    input test,  // run the stored frame when nothing else is under way
    output test_taken,
    input hold,  // no word now: the queue is nearly full
    input place,  // an end record has a place
    input idle,  // the queue is empty
    output start,  // a frame starts: the registers are taken
    output reg busy,  // a frame is in hand
    output reg [WORD_BITS-1:0] last,  // the index in force
    output reg word_valid,
    output reg [DATA-1:0] word_data,
    output reg [MAP-1:0] word_maps,
    output reg [1:0] word_kind,
    output reg [WORD_BITS-1:0] word_index,
    output reg [15:0] word_row,  // of the newest row; the centre's is HALF less
    output reg word_live,  // its window's centre may be a peak
    output reg is_stored,
    output reg end_valid,  // all of a frame has entered the queue and left it
    output reg [15:0] end_rows,
    output [3:0] end_flags,
    input end_done  // its record is on its way
);
    localparam IDLE = 3'd0, FRAME = 3'd1, FILL = 3'd2, SKIP = 3'd3, FLUSH = 3'd4, STORED = 3'd5, DRAIN = 3'd6, ENDED = 3'd7;
    reg [2:0] state = IDLE;
    reg up = 1'b0;  // out of reset

    // One beat waits in a register; the next is taken when it goes.
    reg beat = 1'b0;
    reg [DATA-1:0] beat_data;
    reg beat_user, beat_last;
    wire consume;
    assign in_ready = up & ~rst & (~beat | consume);

    reg [WORD_BITS-1:0] index = 0;
    reg [15:0] row = 0, rows = 0;
    reg first = 1'b0;  // no beat of the frame was used yet
    reg closing = 1'b0;  // the next frame's start has come, or the frame is aborted
    reg aborting = 1'b0;
    reg live = 1'b0;  // a frame is in hand, and not the rows that clear the memories
    reg clear = 1'b0;  // the memories hold rows outside of a frame, of the width in force
    reg thrown = 1'b0, resynchronized = 1'b0, short = 1'b0, row_length = 1'b0;
    reg [3:0] flush_row = 0, flush_word = 0;
    reg [7:0] waited = 0;
    reg [2:0] since = PERIOD;
    reg long_rows = 1'b0;  // of at least PERIOD words
    reg maps_lost = 1'b0;  // the rest of the frame is masked
    assign end_flags = {maps_lost, row_length, short, resynchronized};

    // Rows of fewer words go slowly.
    wire fed;
    wire go = ~hold & (long_rows | since == PERIOD) & fed;
    wire early = (aborting | (beat & beat_user)) & ~first;
    wire pixels = state == FRAME & beat & ~early;
    wire emit = go & (pixels | state == FILL | state == FLUSH | state == STORED);
    wire at_end = index == last;
    wire [15:0] row_next = row + 16'd1;
    wire complete = row_next == rows;
    wire taking = ~busy | state == FRAME | state == FILL | state == SKIP;  // a frame's end is under way in the others
    wire ready = state == IDLE & ~aborting & ~test & enable & clear & last == cfg_last;
    assign start = ready & beat & beat_user & place;

    // A word of a frame enters with its maps. They have the frame's shape, or the rest of the frame is masked. What is left
    // of maps when a frame has ended goes, up to the first beat of the next ones.
    reg maps_now = 1'b0;
    reg map_beat = 1'b0;
    reg [MAP-1:0] map_held;
    reg map_held_user, map_held_last;
    wire at_first = row == 0 & index == 0;
    wire map_used = maps_now & ~maps_lost & (state == FRAME | (state == FILL & ~closing));
    wire in_step = map_held_user == at_first & map_held_last == at_end;
    wire map_waits = maps_now & ~maps_lost & state == SKIP;
    wire map_consume = map_used ? (at_first & ~map_held_user) | (emit & (at_first | ~map_held_user))
        : ~map_held_user & ~map_waits;
    wire map_step = emit & map_used;
    assign fed = ~map_used | (map_beat & (map_held_user | ~at_first));
    assign map_ready = MAPS != 0 & up & ~rst & (~map_beat | map_consume);
    always @(posedge clk) begin
        if (map_ready) begin
            map_held <= map_data;
            map_held_user <= map_user;
            map_held_last <= map_last;
        end
        word_maps <= map_held;
        if (start) maps_now <= MAPS != 0 & cfg_maps;
        if (rst) begin
            map_beat <= 1'b0;
            maps_lost <= 1'b0;
        end else begin
            map_beat <= map_ready ? map_valid : map_beat & ~map_consume;
            // Maps that do not come hold no abort up.
            maps_lost <= ~start & (maps_lost | (map_step & ~in_step) | (aborting & first & map_used & ~fed));
        end
    end

    assign consume = (pixels & go) | (state == SKIP & beat & ~beat_user) | (ready & beat & ~beat_user)
        | (state == IDLE & aborting & beat);
    assign test_taken = state == IDLE & test;

    initial begin
        word_valid = 1'b0;
        end_valid = 1'b0;
        busy = 1'b0;
        last = 0;
        is_stored = 1'b0;
    end

    always @(posedge clk) begin
        up <= ~rst;
        if (in_ready) begin
            beat_data <= in_data;
            beat_user <= in_user;
            beat_last <= in_last;
        end
        word_data <= beat_data;
        word_kind <= state == FRAME ? {1'b0, maps_lost | (map_step & ~in_step)}
            : state == FILL ? 2'd1 : state == STORED ? 2'd3 : 2'd2;
        word_index <= index;
        word_row <= row;
        word_live <= live & row >= HALF;
        if (rst) begin
            state <= IDLE;
            beat <= 1'b0;
            word_valid <= 1'b0;
            end_valid <= 1'b0;
            busy <= 1'b0;
            clear <= 1'b0;
            live <= 1'b0;
            aborting <= 1'b0;
            thrown <= 1'b0;
            is_stored <= 1'b0;
            index <= 0;
            flush_row <= 0;
            flush_word <= 0;
            since <= PERIOD;
        end else begin
            beat <= in_ready ? in_valid : beat & ~consume;
            word_valid <= emit;
            end_valid <= 1'b0;
            since <= emit ? 3'd1 : since == PERIOD ? since : since + 3'd1;
            if (emit) begin
                index <= at_end ? {WORD_BITS{1'b0}} : index + 1'b1;
                if (at_end) row <= row_next;
            end
            if (ready & beat & ~beat_user) thrown <= 1'b1;
            aborting <= taking & (abort | (aborting & state != IDLE));
            case (state)
                IDLE: begin
                    index <= 0;
                    row <= 0;
                    live <= 1'b0;
                    closing <= 1'b0;
                    if (test) begin
                        is_stored <= 1'b1;
                        last <= STORED_WORDS - 1;
                        long_rows <= STORED_WORDS >= PERIOD;
                        rows <= STORED_ROWS;
                        clear <= 1'b0;
                        state <= FLUSH;
                    end else if (enable & ~(clear & last == cfg_last)) begin
                        last <= cfg_last;
                        long_rows <= cfg_last >= PERIOD - 1;
                        clear <= 1'b1;
                        state <= FLUSH;
                    end else if (start) begin
                        rows <= cfg_rows;
                        first <= 1'b1;
                        live <= 1'b1;
                        busy <= 1'b1;
                        resynchronized <= thrown;
                        thrown <= 1'b0;
                        short <= 1'b0;
                        row_length <= 1'b0;
                        state <= FRAME;
                    end
                end
                FRAME:
                    if (early) begin
                        resynchronized <= 1'b1;
                        closing <= 1'b1;
                        if (index == 0) begin
                            short <= 1'b1;
                            end_rows <= row;
                            state <= FLUSH;
                        end else begin
                            row_length <= 1'b1;
                            state <= FILL;
                        end
                    end else if (pixels & go) begin
                        first <= 1'b0;
                        if (at_end) begin
                            end_rows <= row_next;
                            row_length <= row_length | ~beat_last;
                            if (~beat_last) state <= SKIP;
                            else if (complete) state <= FLUSH;
                        end else if (beat_last) begin
                            row_length <= 1'b1;
                            state <= FILL;
                        end
                    end
                FILL:
                    if (go & at_end) begin
                        end_rows <= row_next;
                        short <= closing & ~complete;
                        state <= closing | complete ? FLUSH : FRAME;
                    end
                SKIP:
                    if (aborting | (beat & beat_user)) begin
                        resynchronized <= resynchronized | row != rows;
                        short <= row != rows;
                        state <= FLUSH;
                    end else if (beat & beat_last) state <= row == rows ? FLUSH : FRAME;
                STORED:
                    if (go & at_end & complete) state <= FLUSH;
                FLUSH:
                    if (go) begin
                        if (flush_row != HALF) begin
                            if (at_end) flush_row <= flush_row + 4'd1;
                        end else flush_word <= flush_word + 4'd1;
                        if (flush_row == HALF & flush_word == CONTEXT - 1) begin
                            index <= 0;
                            flush_row <= 0;
                            flush_word <= 0;
                            waited <= 0;
                            if (live) state <= DRAIN;
                            else begin
                                row <= 0;
                                live <= is_stored;
                                state <= is_stored ? STORED : IDLE;
                            end
                        end
                    end
                DRAIN: begin
                    if (waited != PIPE) waited <= waited + 8'd1;
                    else if (idle) begin
                        end_valid <= 1'b1;
                        state <= ENDED;
                    end
                end
                ENDED:
                    if (end_done) begin
                        is_stored <= 1'b0;
                        busy <= 1'b0;
                        state <= IDLE;
                    end
            endcase
        end
    end
endmodule

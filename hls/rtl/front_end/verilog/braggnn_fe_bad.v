// Which pixels are bad: a list of words with bad pixels, in raster order, and one pattern of columns for all rows.
//
// An entry of the list is a row, the first and last of neighbouring words in it, and the pixels that are bad in each of
// these words. The entries lie behind each other (`fits` is 0 for one that does not), inside of the row's words, and a
// frame brings every word of a row: so the entry at the head is the only one that a word may belong to, and it goes when
// its last word has come. Columns that were not loaded have no bad pixel.
module braggnn_fe_bad #(
    parameter N = 4,
    parameter WORDS = 128,
    parameter WORD_BITS = 7,
    parameter LOG2 = 9  // 2**LOG2 entries
) (
    input clk,
    input rst,
    // loaded while no frame is in hand
    input clear,
    input put,  // an entry
    input put_columns,  // the pattern of the next word
    input [15:0] row,
    input [31:0] span,  // first word; last word << 16
    input [N-1:0] pixels,
    input [WORD_BITS-1:0] cfg_last,  // index of a row's last word
    output reg fits,  // row and span may be put
    output columns_fit,
    output empty,
    output [31:0] loaded,  // entries; words of columns << 16
    // a frame
    input rewind,  // it has ended
    input in_valid,
    input in_inside,  // a word of the frame
    input [WORD_BITS-1:0] in_index,
    input [15:0] in_row,
    output [N-1:0] bad  // one clock later
);
    localparam BITS = 16 + 2 * WORD_BITS + N;
    reg [BITS-1:0] list [0:(1<<LOG2)-1];
    reg [N-1:0] columns [0:WORDS-1];

    // Load.
    reg [LOG2:0] count = 0;
    reg [WORD_BITS:0] columns_count = 0;
    reg [15:0] before_row;  // of the newest entry
    reg [WORD_BITS-1:0] before_last;
    wire [15:0] first = span[15:0], last = span[31:16];
    wire behind = row > before_row | (row == before_row & first > {{(16-WORD_BITS){1'b0}}, before_last});
    assign columns_fit = columns_count <= {1'b0, cfg_last};
    assign empty = count == 0 & columns_count == 0;
    assign loaded = {{(15-WORD_BITS){1'b0}}, columns_count, {(15-LOG2){1'b0}}, count};
    initial fits = 1'b0;
    always @(posedge clk) begin
        fits <= ~put & ~count[LOG2] & (count == 0 | behind) & first <= last & last <= {{(16-WORD_BITS){1'b0}}, cfg_last};
        if (put) begin
            list[count[LOG2-1:0]] <= {row, first[WORD_BITS-1:0], last[WORD_BITS-1:0], pixels};
            before_row <= row;
            before_last <= last[WORD_BITS-1:0];
        end
        if (put_columns) columns[columns_count[WORD_BITS-1:0]] <= pixels;
        if (rst | clear) begin
            count <= 0;
            columns_count <= 0;
        end else begin
            count <= count + put;
            columns_count <= columns_count + put_columns;
        end
    end

    // The entry at the head, and the one behind it at the memory's output.
    reg [LOG2:0] at = 0;
    reg [BITS-1:0] next, head;
    reg next_valid = 1'b0, head_valid = 1'b0;
    wire [15:0] head_row;
    wire [WORD_BITS-1:0] head_first, head_last;
    wire [N-1:0] head_pixels;
    assign {head_row, head_first, head_last, head_pixels} = head;
    wire here = in_valid & in_inside & head_valid & in_row == head_row;
    wire done = here & in_index == head_last;
    wire move = next_valid & (~head_valid | done);
    wire more = at != count;

    reg [N-1:0] of_list, of_columns;
    reg columns_there = 1'b0;
    assign bad = of_list | (of_columns & {N{columns_there}});
    always @(posedge clk) begin
        of_list <= here & in_index >= head_first ? head_pixels : {N{1'b0}};
        of_columns <= columns[in_index];
        columns_there <= {1'b0, in_index} < columns_count;
        if (~next_valid | move) next <= list[at[LOG2-1:0]];
        if (move) head <= next;
        if (rst | clear | put | rewind) begin
            at <= 0;
            next_valid <= 1'b0;
            head_valid <= 1'b0;
        end else begin
            if (~next_valid | move) begin
                next_valid <= more;
                at <= at + more;
            end
            head_valid <= move | (head_valid & ~done);
        end
    end
endmodule

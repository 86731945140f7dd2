"""The mutations of the front end, each one place of its sources that is wrong."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """In a module's source, ``right`` behind ``before``, which occurs once, becomes ``wrong``."""

    text: str
    module: str
    before: str
    right: str
    wrong: str


def _m(text: str, module: str, before: str, right: str, wrong: str) -> Mutation:
    return Mutation(text, f"braggnn_{module}.v", before, right, wrong)


MUTATIONS = (
    _m("saturated from one count later", "fe_maps", "out_full[i] <= ", "d >= first_full", "d > first_full"),
    _m(
        "above from the threshold on",
        "fe_pixels",
        "full1[i], ",
        "count1[i*B +: B] > (THRESHOLDS != 0 ? thresholds1[i*B +: B] : threshold)",
        "count1[i*B +: B] >= (THRESHOLDS != 0 ? thresholds1[i*B +: B] : threshold)",
    ),
    _m("the rest of a short row is not masked", "fe_pixels", "~kind1[1] ? ", "{1'b1, {(P-1){1'b0}}}", "{P{1'b0}}"),
    _m("the gain shift is one more", "fe_pixels", "in_data[i*B +: B] >> ", "gain_shift", "(gain_shift + 4'd1)"),
    _m("the first row is not looked at", "fe_sequencer", "word_live <= ", "live & row >= HALF", "live & row > HALF"),
    _m(
        "short rows do not go slowly",
        "fe_sequencer",
        "wire go = ",
        "~hold & (long_rows | since == PERIOD)",
        "~hold",
    ),
    _m("beats thrown away are not flagged", "fe_sequencer", "resynchronized <= ", "thrown;", "1'b0"),
    _m("a long row is not flagged", "fe_sequencer", "row_length <= ", "row_length | ~beat_last", "row_length"),
    _m("a frame closed in its last row is short", "fe_sequencer", "short <= ", "closing & ~complete", "closing"),
    _m(
        "the end does not wait for the queue",
        "fe_sequencer",
        "waited <= waited + 8'd1;\n                    else if (",
        "idle",
        "1'b1",
    ),
    _m(
        "a start in mid-frame is a beat",
        "fe_sequencer",
        "wire early = ",
        "(aborting | (beat & beat_user)) & ~first",
        "aborting & ~first",
    ),
    _m(
        "something is ready during reset",
        "fe_sequencer",
        "assign in_ready = ",
        "up & ~rst & (~beat | consume)",
        "~beat | consume",
    ),
    _m("rows move one word to the side", "fe_lines", "read <= memory[", "in_index", "in_index ^ 1'b1"),
    _m(
        "rows do not move on",
        "fe_lines",
        "memory[index2] <= ",
        "out_column[(ROWS+1)*BITS-1:BITS]",
        "out_column[ROWS*BITS-1:0]",
    ),
    _m(
        "a tie with the left is a maximum",
        "fe_maximum",
        "top > right_above, ",
        "top > left_centre",
        "top >= left_centre",
    ),
    _m(
        "a tie with the right is none",
        "fe_maximum",
        "top >= right_below, ",
        "top >= right_centre",
        "top > right_centre",
    ),
    _m(
        "a tie with the group above is a maximum", "fe_maximum", "top != 0, ", "top > whole_above", "top >= whole_above"
    ),
    _m("a tie with the group below is none", "fe_maximum", "later <= {", "top >= whole_below", "top > whole_below"),
    _m(
        "the next row's pixels are beside the row's end",
        "fe_maximum",
        "wire there = ",
        "in_row[WORD+REACH_WORDS]",
        "1'b1",
    ),
    _m("the last of equals in a group", "fe_span", "assign at = ", "b > a ?", "b >= a ?"),
    _m("one pixel right of a group is not seen", "fe_span", "n12 : position == 2'd1 ? ", "n1", "{B{1'b0}}"),
    _m("the position of another group", "fe_queue", "out_position = ", "positions[2*i +: 2]", "positions[1:0]"),
    _m("the higher group first", "fe_queue", "if (", "left[i]", "left[GROUPS-1-i]"),
    _m("entries are seen twice", "fe_fifo", "valid <= ", "next != write_at;", "read_at != write_at"),
    _m(
        "a bank is read one word late",
        "fe_readout",
        "first_group / BANKS + (",
        "first_group % BANKS > b",
        "first_group % BANKS >= b",
    ),
    _m("the right edge is one column wider", "fe_readout", "col1 < HALF | ", "right1 < HALF", "right1 <= HALF"),
    _m("the upper edge is one row narrower", "fe_readout", "", "row1 < HALF", "row1 < HALF - 1"),
    _m(
        "bad pixels beyond the row's end count",
        "fe_readout",
        "some_masked = some_masked | (",
        "cut[u*CB + W*B + 8] & inside4[u]",
        "cut[u*CB + W*B + 8]",
    ),
    _m(
        "a second maximum must be larger than its right neighbour",
        "fe_features",
        "assign right = ",
        "me >= px[(AT+1)*B +: B]",
        "me > px[(AT+1)*B +: B]",
    ),
    _m(
        "half of the peak is not enough",
        "fe_features",
        "half2[AT] <= ",
        "{me, 1'b0} >= {1'b0, px[24*B +: B]}",
        "{me, 1'b0} > {1'b0, px[24*B +: B]}",
    ),
    _m(
        "the third step is not taken",
        "fe_features",
        "count3 >= 4 | (",
        "count3 == 3 & further3",
        "1'b0",
    ),
    _m(
        "the total lacks its last rows",
        "fe_features",
        "total <= ",
        "{{(26-B){1'b0}}, sum4[0 +: B+6]} + {{(26-B){1'b0}}, sum4[B+6 +: B+6]}",
        "{{(26-B){1'b0}}, sum4[0 +: B+6]}",
    ),
    _m("a queue of records one place short", "fe_records", "is_stored | ", "places != 0", "1'b1"),
    _m("no place is kept for the end", "fe_records", "(keep & ~is_stored) - ", "start", "1'b0"),
    _m("the checksum lacks a word", "fe_records", "(sum3a + sum3b) + (", "sum3c + sum3d", "sum3c"),
    _m(
        "not trusted at the limit",
        "fe_records",
        "(back_wrong | ",
        "sigma_row > limit",
        "sigma_row >= limit",
    ),
    _m("an edge peak has an offset", "fe_records", "code_row = ", "t_edge ? 32'sd0 :", "1'b0 ? 32'sd0 :"),
    _m("row and column swapped", "fe_records", "flags1, ", "at_col1, at_row1", "at_row1, at_col1"),
    _m("two flags swapped", "fe_records", "flags1 <= {", "t_masked, t_saturated", "t_saturated, t_masked"),
    _m("a peak one row late", "front_end", ".row(", "tag[31:16]", "tag[31:16] + 16'd1"),
    _m(
        "the threshold changes in mid-frame",
        "front_end",
        "        if (",
        "start) begin\n            threshold_now",
        "1'b1",
    ),
    _m("an abort is forgotten", "fe_sequencer", "aborting <= taking & (abort | ", "(aborting & state != IDLE)", "1'b0"),
    _m(
        "a row that is too long is not aborted",
        "fe_sequencer",
        "if (",
        "aborting | (beat & beat_user)",
        "beat & beat_user",
    ),
    _m("an abort keeps the beat inside", "fe_sequencer", "(state == IDLE & ", "aborting & beat", "1'b0"),
    _m("an abort behind a frame takes the next one's start", "fe_sequencer", "aborting <= ", "taking", "1'b1"),
    _m("dark counts wrap around", "fe_maps", "out_data[i*B +: B] <= ", "d > dark ? d - dark : {B{1'b0}}", "d - dark"),
    _m(
        "the first pixel's threshold for all of a word",
        "fe_maps",
        "& used ? ",
        "in_maps[AT + i*B +: B]",
        "in_maps[AT +: B]",
    ),
    _m("dark counts for who did not ask", "fe_maps", "DARK != 0 & ", "used", "1'b1"),
    _m("ends of maps' rows are not looked at", "fe_sequencer", "== at_first & ", "map_held_last == at_end", "1'b1"),
    _m("a fault of maps masks one word", "fe_sequencer", "maps_lost <= ~start & (", "maps_lost", "1'b0"),
    _m(
        "the word of a fault of maps is not masked",
        "fe_sequencer",
        "? {1'b0, maps_lost | (",
        "map_step & ~in_step",
        "1'b0",
    ),
    _m("maps go on in the rest of a long row", "fe_sequencer", "~map_held_user & ", "~map_waits", "1'b1"),
    _m(
        "a frame does not wait for its maps' start", "fe_sequencer", "map_beat & (", "map_held_user | ~at_first", "1'b1"
    ),
    _m(
        "maps that do not come hold an abort up",
        "fe_sequencer",
        "(map_step & ~in_step) | (",
        "aborting & first & map_used & ~fed",
        "1'b0",
    ),
    _m(
        "a row that is aborted waits for maps",
        "fe_sequencer",
        "state == FRAME | (",
        "state == FILL & ~closing",
        "state == FILL",
    ),
    _m("a bad pixel is a good one", "fe_pixels", "kind1 == 2'd0 & ", "~bad[i]", "1'b1"),
    _m(
        "bad words begin one word late",
        "fe_bad",
        "of_list <= here & ",
        "in_index >= head_first",
        "in_index > head_first",
    ),
    _m(
        "an entry ends with its first word",
        "fe_bad",
        "wire done = here & ",
        "in_index == head_last",
        "in_index == head_first",
    ),
    _m("rows outside of the frame are looked up", "fe_bad", "wire here = in_valid & ", "in_inside", "1'b1"),
    _m("the list does not begin again", "fe_bad", "rst | clear | put | ", "rewind", "1'b0"),
    _m(
        "an entry fits where the one before ends",
        "fe_bad",
        "(row == before_row & ",
        "first > {{(16-WORD_BITS){1'b0}}, before_last}",
        "first >= {{(16-WORD_BITS){1'b0}}, before_last}",
    ),
    _m("an entry may come twice at once", "fe_bad", "fits <= ", "~put", "1'b1"),
    _m("the list takes one entry more", "fe_bad", "", "~count[LOG2]", "1'b1"),
    _m(
        "columns that were not loaded are bad",
        "fe_bad",
        "columns_there <= ",
        "{1'b0, in_index} < columns_count",
        "{1'b0, in_index} <= columns_count",
    ),
    _m("entries are taken with a frame in hand", "fe_registers", "bad_fits && ~enable && ", "~status[0]", "1'b1"),
    _m("columns change under a mask", "fe_registers", "== 0 && (", "bad_empty || value == cols", "1'b1"),
    _m(
        "significant at the bound",
        "fe_significance",
        "(large7 | ",
        "square7 > bound7",
        "square7 >= bound7",
    ),
    _m("a large excess loses its upper bits", "fe_significance", "(~negative7 & (", "large7", "1'b0"),
    _m("an excess below the ring is one", "fe_significance", "~asked | (", "~negative7", "1'b1"),
    _m("the ring counts twice", "fe_significance", "3'b000} - ", "{1'b0, three_times}", "{2'b00, r3, 1'b0}"),
    _m("the offset is left out", "fe_significance", "product6} + ", "{6'd0, offset}", "38'd0"),
    _m(
        "a square lacks a product of its digits",
        "fe_significance",
        "low_low} + ",
        "{6'd0, high_middle, middle_low, 7'd0}",
        "{6'd0, high_middle, 12'd0, 7'd0}",
    ),
    _m("the slope lacks a digit", "fe_significance", "slope[2*k+1] ? ", "slope[2*k] ? triple4 :", "1'b0 ? triple4 :"),
    _m("the ring goes on beyond the frame", "fe_readout", "EXACT != 0 & ", "~inside4[u]", "1'b0"),
    _m("what is not significant is a peak", "fe_records", "[LATER-1] & (", "significant", "1'b1"),
    _m(
        "the test of another maximum",
        "fe_records",
        "assign peak = ",
        "peaks_then[LATER-1]",
        "peaks_then[LATER-2]",
    ),
)

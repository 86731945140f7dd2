// Bragg peak locator: a patch of @PIXELS@ counts in, its position out, a new patch every clock.
//
// in_data    @PIXELS@ counts of @COUNT_BITS@ bits (@SIGN@), row after row, the first in the lowest bits
// out_data   @OUTPUTS@; @OUT_BITS@ bit signed each, the first in the lowest bits, code / 2**@FRAC@: px, and ln(px) before calibration@TAG_MEANING@
//
// A transfer happens at a rising edge with valid and ready both 1. The pipeline itself never stops: a patch is only taken
// while a place for its result is free, so that back-pressure needs no enable on any of its registers.
module @NAME@ (
    input clk,
    input rst,  // synchronous; drops what is under way. A design that has just been configured needs none
    input [@IN@-1:0] in_data,
@TAG_IN_PORT@    input in_valid,
    output in_ready,
    output reg [@OUT@-1:0] out_data,
@TAG_OUT_PORT@    output reg out_valid,
    input out_ready
);
    localparam STAGES = @STAGES@;
    localparam PLACES_LOG2 = @PLACES_LOG2@;

    wire accept = in_valid & in_ready;
    wire [@CORE_OUT@-1:0] result;
    wire [@OUT@-1:0] found = @FOUND@;
    @NAME@_core core (.clk(clk), .model_inp(in_data), .model_out(result));

    // Which stages hold a patch.
    reg [STAGES-1:0] flight;
    wire arrive = flight[STAGES-1];

    // Results that wait. A place is free again when its result moves on to the output register.
    reg [@OUT@-1:0] waiting [0:(1 << PLACES_LOG2)-1];
    reg [PLACES_LOG2:0] write_at, read_at, places;
    wire empty = write_at == read_at;
    wire move = ~out_valid | out_ready;
    wire take = move & (arrive | ~empty);
    wire store = arrive & ~(move & empty);
    wire unload = take & ~empty;
    assign in_ready = places != 0 & ~rst;

    initial begin
        flight = 0;
        write_at = 0;
        read_at = 0;
        places = 1 << PLACES_LOG2;
        out_valid = 1'b0;
    end

    always @(posedge clk) begin
        if (store) waiting[write_at[PLACES_LOG2-1:0]] <= found;
        if (move) out_data <= empty ? found : waiting[read_at[PLACES_LOG2-1:0]];
        if (rst) begin
            flight <= 0;
            write_at <= 0;
            read_at <= 0;
            places <= 1 << PLACES_LOG2;
            out_valid <= 1'b0;
        end else begin
            flight <= @FLIGHT@;
            write_at <= write_at + store;
            read_at <= read_at + unload;
            places <= places - accept + take;
            out_valid <= take | (out_valid & ~out_ready);
        end
    end
@TAG_MEMORY@endmodule

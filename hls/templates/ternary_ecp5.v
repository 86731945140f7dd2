// in0 + in1 + in2, the last NEGATIVE of them subtracted, each shifted left by its SHIFT: two adders,
// an early pair before what comes late.
module ternary_adder #(
    parameter WIDTH0 = 8, SIGNED0 = 0, SHIFT0 = 0,
    parameter WIDTH1 = 8, SIGNED1 = 0, SHIFT1 = 0,
    parameter WIDTH2 = 8, SIGNED2 = 0, SHIFT2 = 0,
    parameter WIDTH = 8, NEGATIVE = 0, START = 0, LAST = 0
) (
    input [WIDTH0-1:0] in0,
    input [WIDTH1-1:0] in1,
    input [WIDTH2-1:0] in2,
    output [WIDTH-1:0] out
);
    // verilator lint_off UNUSEDSIGNAL
    wire [WIDTH+WIDTH0+SHIFT0-1:0] wide0 = {{{WIDTH{SIGNED0[0] & in0[WIDTH0-1]}}, in0}} << SHIFT0;
    wire [WIDTH+WIDTH1+SHIFT1-1:0] wide1 = {{{WIDTH{SIGNED1[0] & in1[WIDTH1-1]}}, in1}} << SHIFT1;
    wire [WIDTH+WIDTH2+SHIFT2-1:0] wide2 = {{{WIDTH{SIGNED2[0] & in2[WIDTH2-1]}}, in2}} << SHIFT2;
    // verilator lint_on UNUSEDSIGNAL
    wire [WIDTH-1:0] x0 = wide0[WIDTH-1:0], x1 = wide1[WIDTH-1:0], x2 = wide2[WIDTH-1:0];
    // p + q - r where q and r, or q alone, may be subtracted: p and q first, r is what comes LAST.
    localparam P = LAST == 0 ? 1 : 0, Q = LAST == 2 ? 1 : 2;
    localparam P_MINUS = P >= 3 - NEGATIVE, Q_MINUS = Q >= 3 - NEGATIVE, LAST_MINUS = LAST >= 3 - NEGATIVE;
    wire [WIDTH-1:0] p = P == 0 ? x0 : x1, q = Q == 1 ? x1 : x2, r = LAST == 0 ? x0 : LAST == 1 ? x1 : x2, pair;
    ternary_adder_step #(WIDTH, Q_MINUS && !P_MINUS) first (p, q, pair);
    generate
        if (P_MINUS) begin : both
            ternary_adder_step #(WIDTH, 1) second (r, pair, out);
        end else begin : other
            ternary_adder_step #(WIDTH, LAST_MINUS) second (pair, r, out);
        end
    endgenerate
endmodule

// One of the two, in a module of its own: Yosys would make a tree of compressors of both.
module ternary_adder_step #(parameter WIDTH = 8, MINUS = 0) (
    input [WIDTH-1:0] a, b,
    output [WIDTH-1:0] out
);
    generate
        if (MINUS != 0) begin : less
            assign out = a - b;
        end else begin : sum
            assign out = a + b;
        end
    endgenerate
endmodule

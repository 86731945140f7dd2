    // Two adders, an early pair before what comes late.
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

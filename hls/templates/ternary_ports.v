// in0 + in1 + in2, the last NEGATIVE of them subtracted, each shifted left by its SHIFT.
module ternary_adder #(
    parameter WIDTH0 = 8, SIGNED0 = 0, SHIFT0 = 0,
    parameter WIDTH1 = 8, SIGNED1 = 0, SHIFT1 = 0,
    parameter WIDTH2 = 8, SIGNED2 = 0, SHIFT2 = 0,
    // START and LAST are for the forms of this module that are made for one device.
    // verilator lint_off UNUSEDPARAM
    parameter WIDTH = 8, NEGATIVE = 0, START = 0, LAST = 0
    // verilator lint_on UNUSEDPARAM
) (
    input [WIDTH0-1:0] in0,
    input [WIDTH1-1:0] in1,
    input [WIDTH2-1:0] in2,
    output [WIDTH-1:0] out
);
    // verilator lint_off UNUSEDSIGNAL
    wire [WIDTH+WIDTH0+SHIFT0-1:0] wide0 = {{WIDTH{SIGNED0[0] & in0[WIDTH0-1]}}, in0, {SHIFT0{1'b0}}};
    wire [WIDTH+WIDTH1+SHIFT1-1:0] wide1 = {{WIDTH{SIGNED1[0] & in1[WIDTH1-1]}}, in1, {SHIFT1{1'b0}}};
    wire [WIDTH+WIDTH2+SHIFT2-1:0] wide2 = {{WIDTH{SIGNED2[0] & in2[WIDTH2-1]}}, in2, {SHIFT2{1'b0}}};
    // verilator lint_on UNUSEDSIGNAL
    wire [WIDTH-1:0] x0 = wide0[WIDTH-1:0], x1 = wide1[WIDTH-1:0], x2 = wide2[WIDTH-1:0];

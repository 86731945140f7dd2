// in0 + in1 + in2, the last NEGATIVE of them subtracted, each shifted left by its SHIFT: one table a bit from START on.
// O6 adds the three bits and the majority of the three bits below, which is their O5.
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
    localparam BITS = WIDTH - START, CARRIES = (BITS + 3) / 4;
    localparam [63:0] INIT = NEGATIVE == 0 ? 64'h69966996E8E8E8E8 : NEGATIVE == 1 ? 64'h966996698E8E8E8E : 64'h699669962B2B2B2B;
    wire [CARRIES*4-1:0] sum, result, carry;
    wire [CARRIES*4:0] majority;
    assign majority[0] = NEGATIVE == 2;
    genvar i;
    generate
        if (START > 0) begin : below
            assign out[START-1:0] = x0[START-1:0] | x1[START-1:0] | x2[START-1:0];
        end
        for (i = 0; i < CARRIES * 4; i = i + 1) begin : bits
            if (i < BITS) begin : used
                LUT6_2 #(.INIT(INIT)) table_ (
                    .O6(sum[i]), .O5(majority[i+1]), .I0(x0[START+i]), .I1(x1[START+i]), .I2(x2[START+i]),
                    .I3(majority[i]), .I4(1'b1), .I5(1'b1)
                );
                assign out[START+i] = result[i];
            end else begin : unused
                assign sum[i] = 1'b0;
                assign majority[i+1] = 1'b0;
            end
        end
        for (i = 0; i < CARRIES; i = i + 1) begin : chain
            CARRY4 cell_ (
                .S(sum[4*i+:4]), .DI(majority[4*i+:4]), .O(result[4*i+:4]), .CO(carry[4*i+:4]),
                .CI(i == 0 ? 1'b0 : carry[i == 0 ? 0 : 4*i-1]), .CYINIT(i == 0 ? NEGATIVE != 0 : 1'b0)
            );
        end
    endgenerate
endmodule

    // One table for two bits: O6 says that they are equal, so that what the bits below say is carried on, O5 that they are
    // less.
    localparam PAIRS = (WIDTH + 1) / 2, CARRIES = (PAIRS + 3) / 4;
    localparam [63:0] INIT = 64'h8421842173107310;
    wire [2*PAIRS-1:0] x, y;
    assign x = a;
    assign y = b;
    wire [CARRIES*4-1:0] equal, below, carry;
    genvar i;
    generate
        for (i = 0; i < CARRIES * 4; i = i + 1) begin : pairs
            if (i < PAIRS) begin : used
                LUT6_2 #(.INIT(INIT)) table_ (
                    .O6(equal[i]), .O5(below[i]), .I0(x[2*i]), .I1(x[2*i+1]), .I2(y[2*i]), .I3(y[2*i+1]), .I4(1'b1), .I5(1'b1)
                );
            end else begin : unused
                assign equal[i] = 1'b1;
                assign below[i] = 1'b0;
            end
        end
        for (i = 0; i < CARRIES; i = i + 1) begin : chain
            CARRY4 cell_ (
                .S(equal[4*i+:4]), .DI(below[4*i+:4]), .O(), .CO(carry[4*i+:4]),
                .CI(i == 0 ? 1'b0 : carry[i == 0 ? 0 : 4*i-1]), .CYINIT(1'b0)
            );
        end
    endgenerate
    assign less = carry[CARRIES*4-1];
endmodule

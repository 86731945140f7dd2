    // One table a bit from START on: O6 adds the three bits and the majority of the three bits below, which is their O5.
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

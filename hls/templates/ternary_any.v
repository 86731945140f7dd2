    generate
        if (NEGATIVE == 0) begin : sum
            assign out = x0 + x1 + x2;
        end else if (NEGATIVE == 1) begin : less
            assign out = x0 + x1 - x2;
        end else begin : less_both
            assign out = x0 - x1 - x2;
        end
    endgenerate
endmodule

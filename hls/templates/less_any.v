    assign less = a < b;
endmodule

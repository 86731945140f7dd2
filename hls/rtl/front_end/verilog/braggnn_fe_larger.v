// The larger of two counts, and whether it is the second.
module braggnn_fe_larger #(
    parameter B = 16
) (
    input [B-1:0] a,
    input [B-1:0] b,
    output [B-1:0] larger,
    output second  // b is larger than a
);
    braggnn_fe_less_than #(.WIDTH(B)) compared (.a(a), .b(b), .less(second));
    assign larger = second ? b : a;
endmodule

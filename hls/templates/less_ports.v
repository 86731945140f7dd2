// Whether a is less than b, both without a sign.
module less_than #(
    parameter WIDTH = 8
) (
    input [WIDTH-1:0] a,
    input [WIDTH-1:0] b,
    output less
);

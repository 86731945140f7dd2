// Feeds the @VECTORS@ golden patches to @NAME@ with gaps and back-pressure, and compares every result.
// Ends with "PASS" and the measured latency, or with $fatal at the first result that is not the golden one.
// A test bench has no reset of its own.
// verilator lint_off PROCASSINIT
`timescale 1 ns / 1 ps
module test_bench;
    localparam VECTORS = @VECTORS@;
    localparam LIMIT = 64 * VECTORS + 1000;  // clocks; a design that is stuck is stopped here

    reg clk = 1'b0;
    reg rst = 1'b1;
    reg [@IN@-1:0] counts [0:VECTORS-1];
    reg [@OUT@-1:0] expected [0:VECTORS-1];
    reg [@IN@-1:0] in_data = 0;
    reg in_valid = 1'b0;
    wire in_ready;
    wire [@OUT@-1:0] out_data;
    wire out_valid;
    reg out_ready = 1'b0;
@TAG_BENCH_SIGNALS@    reg [31:0] gaps = 32'h1badcafe, stalls = 32'h600dbeef;  // shift registers of random bits
    integer sent = 0, received = 0, cycle = 0, first_in = 0, latency = 0, quiet = 0;

    @NAME@ dut (
        .clk(clk), .rst(rst), .in_data(in_data), .in_valid(in_valid), .in_ready(in_ready),
        .out_data(out_data), .out_valid(out_valid), .out_ready(out_ready)@TAG_CONNECTION@
    );

    always #@HALF@ clk = ~clk;

    initial begin
        $readmemh("counts.hex", counts);
        $readmemh("expected.hex", expected);
    end

    always @(posedge clk) begin
        cycle <= cycle + 1;
        rst <= cycle < 4;
        gaps <= {gaps[30:0], gaps[31] ^ gaps[21] ^ gaps[1] ^ gaps[0]};
        stalls <= {stalls[30:0], stalls[31] ^ stalls[21] ^ stalls[1] ^ stalls[0]};
        // The first patch alone, unhindered, for the latency; then gaps and stalls of changing density.
        out_ready <= received == 0 || (received[5] ? stalls[0] & stalls[7] : stalls[0] | stalls[7]);
        if (rst && in_ready) begin
            $display("FAIL: in_ready is 1 during reset");
            $fatal(1);
        end
        if (cycle > 8) begin
            if (in_valid && in_ready && sent == 1) first_in <= cycle;
            if (!in_valid || in_ready) begin
                if (sent < VECTORS && (sent == 0 || (received > 0 && (sent[6] ? gaps[0] : gaps[0] | gaps[9])))) begin
                    in_data <= counts[sent];
@TAG_SENT@                    in_valid <= 1'b1;
                    sent <= sent + 1;
                end else in_valid <= 1'b0;
            end
            if (out_valid && out_ready) begin
                if (received == 0) latency <= cycle - first_in;
                if (received == VECTORS || out_data !== expected[received]) begin
                    $display("FAIL: result %0d is %h, expected %h", received, out_data, expected[received]);
                    $fatal(1);
                end
@TAG_CHECKED@                received <= received + 1;
            end
            if (received == VECTORS) quiet <= quiet + 1;  // a result too many would come in this time
            if (quiet == 100) begin
                $display("PASS: %0d patches, latency %0d clocks", received, latency);
                $finish;
            end
            if (cycle > LIMIT) begin
                $display("FAIL: %0d of %0d results after %0d clocks", received, VECTORS, cycle);
                $fatal(1);
            end
        end
    end
endmodule

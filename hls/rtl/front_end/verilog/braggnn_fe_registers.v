// Registers over AXI4-Lite, one access at a time. Written by hls/rtl/front_end/registers.py.
module braggnn_fe_registers (
    input clk,
    input rst,
    input [7:0] awaddr,
    input awvalid,
    output awready,
    input [31:0] wdata,
    input [3:0] wstrb,
    input wvalid,
    output wready,
    output [1:0] bresp,
    output reg bvalid,
    input bready,
    input [7:0] araddr,
    input arvalid,
    output arready,
    output reg [31:0] rdata,
    output reg [1:0] rresp,
    output reg rvalid,
    input rready,
@OUTPUTS@
@INPUTS@
    output reg [31:0] written  // what was written last
);
    reg up = 1'b0;
    reg fault = 1'b0;  // nothing was written
    wire write = up & ~rst & awvalid & wvalid & ~bvalid;
    wire read = up & ~rst & arvalid & ~rvalid;
    wire [31:0] value = wdata;
    assign awready = write;
    assign wready = write;
    assign arready = read;
    assign bresp = {fault, 1'b0};

    initial begin
        bvalid = 1'b0;
        rvalid = 1'b0;
        rresp = 2'b00;
        rdata = 0;
        written = 0;
@INITIAL@
    end

    always @(posedge clk) begin
        up <= ~rst;
@PULSES@
        if (write) begin
            fault <= 1'b1;
            written <= value;
            if (&wstrb)
                case (awaddr)
@WRITES@
                    default: fault <= 1'b1;
                endcase
        end
        if (read) begin
            rdata <= 0;
            rresp <= 2'b10;
            case (araddr)
@READS@
                default: rresp <= 2'b10;
            endcase
        end
        bvalid <= write | (bvalid & ~bready);
        rvalid <= read | (rvalid & ~rready);
        if (rst) begin
            bvalid <= 1'b0;
            rvalid <= 1'b0;
@RESET@
        end
    end
endmodule

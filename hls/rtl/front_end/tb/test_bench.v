// Sends the streams of ../vectors to @NAME@, without and with gaps and stalls, and compares every record.
// Ends with "PASS", or with $fatal at the first record that is not the contract's. Signals change at the falling edge.
// It plays the source of maps and the external locator, where the front end has such ports; else these are idle.
// A test bench sets what has an initial value, counts in one clock, and reads no register.
// verilator lint_off PROCASSINIT
// verilator lint_off BLKSEQ
// verilator lint_off UNUSEDSIGNAL
// verilator lint_off UNDRIVEN
// verilator lint_off PINCONNECTEMPTY
`timescale 1 ns / 1 ps
module test_bench;
    localparam DATA = @DATA@;
    // Clocks that a stream or a beat may take: rows of another length clear the memories, and rows follow a frame.
    localparam LIMIT = 20000 + 8 * @MOST_BEATS@;
    localparam [255:0] MARKS = 256'hFFFFFFFF << 96;  // high-water marks of an end record: of the hardware alone

    reg clk = 1'b0, rst = 1'b1;
    reg [39:0] registers [0:@MOST_REGISTERS@-1];  // offset, value
    reg [DATA+1:0] beats [0:@MOST_BEATS@-1];  // tlast, tuser, tdata
    reg [255:0] records [0:@MOST_RECORDS@-1];
    localparam MAP = @MAP@, COUNT = @COUNT@, POSITION = @POSITION@, PIXELS = @PIXELS@;
    reg [MAP+1:0] maps [0:@MOST_MAPS@-1];  // tlast, tuser, tdata
    reg [PIXELS*COUNT-1:0] patches [0:@MOST_PATCHES@-1];
    reg [POSITION-1:0] positions [0:@MOST_POSITIONS@-1];

    reg [DATA-1:0] s_axis_tdata = 0;
    reg s_axis_tuser = 1'b0, s_axis_tlast = 1'b0, s_axis_tvalid = 1'b0, m_axis_tready = 1'b0;
    wire s_axis_tready, m_axis_tlast, m_axis_tvalid;
    wire [255:0] m_axis_tdata;
    reg [7:0] s_axi_awaddr = 0, s_axi_araddr = 0;
    reg [31:0] s_axi_wdata = 0;
    reg s_axi_awvalid = 1'b0, s_axi_arvalid = 1'b0;
    wire s_axi_awready, s_axi_wready, s_axi_bvalid, s_axi_arready, s_axi_rvalid;
    wire [1:0] s_axi_bresp, s_axi_rresp;
    wire [31:0] s_axi_rdata;
    reg [MAP-1:0] s_map_tdata = 0;
    reg s_map_tuser = 1'b0, s_map_tlast = 1'b0, s_map_tvalid = 1'b0, map_taken = 1'b0;
    wire s_map_tready;
    wire [COUNT-1:0] m_patch_tdata;
    wire m_patch_tlast, m_patch_tvalid, s_position_tready;
    reg [POSITION-1:0] s_position_tdata = 0;
    reg s_position_tuser = 1'b0, s_position_tvalid = 1'b0, position_taken = 1'b0, m_patch_tready = 1'b0;
    integer map_count = 0, map_at = 0, patch = 0, pixel = 0, position = 0;
    integer received = 0, all_records = 0, gaps = 0, stalls = 0, waited = 0, i = 0, pace = 0;

    @NAME@ dut (
        .clk(clk), .rst(rst), .s_axis_tdata(s_axis_tdata), .s_axis_tuser(s_axis_tuser), .s_axis_tlast(s_axis_tlast),
        .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(s_axis_tready), .m_axis_tdata(m_axis_tdata),
        .m_axis_tlast(m_axis_tlast), .m_axis_tvalid(m_axis_tvalid), .m_axis_tready(m_axis_tready),
        .s_axi_awaddr(s_axi_awaddr), .s_axi_awvalid(s_axi_awvalid), .s_axi_awready(s_axi_awready),
        .s_axi_wdata(s_axi_wdata), .s_axi_wstrb(4'hF), .s_axi_wvalid(s_axi_awvalid), .s_axi_wready(s_axi_wready),
        .s_axi_bresp(s_axi_bresp), .s_axi_bvalid(s_axi_bvalid), .s_axi_bready(1'b1), .s_axi_araddr(s_axi_araddr),
        .s_axi_arvalid(s_axi_arvalid), .s_axi_arready(s_axi_arready), .s_axi_rdata(s_axi_rdata),
        .s_axi_rresp(s_axi_rresp), .s_axi_rvalid(s_axi_rvalid), .s_axi_rready(1'b1)@MORE@
    );

    always #@HALF@ clk = ~clk;

    always @(negedge clk) m_axis_tready <= ($random & 255) >= stalls;

    // Maps of a frame, over and over.
    always @(posedge clk) map_taken <= s_map_tvalid & s_map_tready;
    always @(negedge clk) begin
        if (map_taken) map_at = map_at + 1 < map_count ? map_at + 1 : 0;
        if (rst) begin
            map_at = 0;
            s_map_tvalid <= 1'b0;
        end else if (map_taken || !s_map_tvalid) begin
            s_map_tvalid <= map_count > 0 && ($random & 255) >= gaps;
            {s_map_tlast, s_map_tuser, s_map_tdata} <= maps[map_at];
        end
    end

    // The external locator: each count is compared, and patches are answered in order, some time later.
    always @(posedge clk) begin
        position_taken <= s_position_tvalid & s_position_tready;
        if (rst) begin
            patch = 0;
            pixel = 0;
        end else if (m_patch_tvalid === 1'b1 && m_patch_tready) begin
            if (m_patch_tdata !== patches[patch][pixel*COUNT +: COUNT] || m_patch_tlast !== (pixel == PIXELS - 1)) begin
                $display("FAIL: count %0d of patch %0d is %h, tlast %b, expected %h", pixel, patch, m_patch_tdata,
                    m_patch_tlast, patches[patch][pixel*COUNT +: COUNT]);
                $fatal(1);
            end
            pixel = m_patch_tlast ? 0 : pixel + 1;
            if (m_patch_tlast) patch = patch + 1;
        end
    end
    always @(negedge clk) begin
        m_patch_tready <= ($random & 255) >= gaps;
        if (position_taken) position = position + 1;
        if (rst) begin
            position = 0;
            s_position_tvalid <= 1'b0;
        end else if (position_taken || !s_position_tvalid) begin
            s_position_tvalid <= position < patch && ($random & 255) >= 200;
            s_position_tdata <= positions[position];
        end
    end

    wire is_end = m_axis_tdata[247:240] == 8'd1;
    wire [255:0] compared = is_end ? m_axis_tdata & ~MARKS : m_axis_tdata;
    always @(posedge clk)
        if (m_axis_tvalid && m_axis_tready && !rst) begin
            if (compared !== records[received] || m_axis_tlast !== is_end) begin
                $display("FAIL: record %0d is %h, tlast %b, expected %h", received, compared, m_axis_tlast,
                    records[received]);
                $fatal(1);
            end
            received = received + 1;
        end

    task write(input [39:0] entry);
        begin
            s_axi_awaddr = entry[39:32];
            s_axi_wdata = entry[31:0];
            s_axi_awvalid = 1'b1;
            #0.1;
            while (!(s_axi_awready && s_axi_wready)) begin @(negedge clk); #0.1; end
            @(negedge clk);
            s_axi_awvalid = 1'b0;
            while (!s_axi_bvalid) @(negedge clk);
            if (s_axi_bresp != 2'b00) begin
                $display("FAIL: the write of %0d to register %h was refused", entry[31:0], entry[39:32]);
                $fatal(1);
            end
            @(negedge clk);
        end
    endtask

    task send(input integer count);
        for (i = 0; i < count; i = i + 1) begin
            while (($random & 255) < gaps) @(negedge clk);
            {s_axis_tlast, s_axis_tuser, s_axis_tdata} = beats[i];
            s_axis_tvalid = 1'b1;
            waited = 0;
            #0.1;
            while (!s_axis_tready) begin
                @(negedge clk);
                #0.1;
                waited = waited + 1;
                if (waited > LIMIT) begin
                    $display("FAIL: beat %0d is never taken", i);
                    $fatal(1);
                end
            end
            @(negedge clk);
            s_axis_tvalid = 1'b0;
        end
    endtask

    task reset;
        begin
            rst = 1'b1;
            repeat (4) begin
                @(negedge clk);
                if (s_axis_tready || s_axi_awready || s_axi_wready || s_axi_arready) begin
                    $display("FAIL: something is ready during reset");
                    $fatal(1);
                end
            end
            rst = 1'b0;
            @(negedge clk);
        end
    endtask

    // Everything of a vector at one pace; before it, if asked for, some beats and a reset between two of them.
    task play(input integer writes, input integer count, input integer expected, input integer cut);
        begin
            received = 0;
            patch = 0;
            position = 0;
            if (cut > 0) begin
                for (i = 0; i < writes; i = i + 1) write(registers[i]);
                send(cut);
                reset;
                received = 0;
            end
            for (i = 0; i < writes; i = i + 1) write(registers[i]);
            send(count);
            waited = 0;
            while (received < expected && waited < LIMIT) begin @(negedge clk); waited = waited + 1; end
            repeat (200) @(negedge clk);
            if (received != expected) begin
                $display("FAIL: %0d records, expected %0d", received, expected);
                $fatal(1);
            end
            all_records = all_records + received;
        end
    endtask

    initial begin
        @(negedge clk);
        reset;
        for (pace = 0; pace < 3; pace = pace + 1) begin
            gaps = pace == 0 ? 0 : pace == 1 ? 60 : 20;
            stalls = pace == 2 ? 128 : 0;
@PLAYS@
        end
        $display("PASS: %0d records", all_records);
        $finish;
    end
endmodule

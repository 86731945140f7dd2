    // What holds of the RTL project's top in every state that it can reach, whatever in_valid, out_ready and rst do.
    // tests/test_hls_rtl_proof.py puts this text into the module, and Yosys proves it by induction. Patch k carries the
    // number k as data and as tag; the core is any module that gives back after STAGES clocks what it was given.
    localparam TOTAL = 1 << PLACES_LOG2;
    reg [WIDTH-1:0] sent, got, was;  // patches taken, results taken, modulo 2**WIDTH
    reg stalled;
    reg [WIDTH-1:0] pipe [0:STAGES-1];
    integer i;

    wire [PLACES_LOG2:0] waits = write_at - read_at;
    reg [PLACES_LOG2+1:0] flying;  // of the stages behind stage i, and of all at the end
    wire [PLACES_LOG2+1:0] behind = waits + flying;  // results that are not at the output yet
    always @(*) begin
        flying = 0;
        for (i = 0; i < STAGES; i = i + 1) flying = flying + flight[i];
    end

    initial begin
        sent = 0;
        got = 0;
        stalled = 0;
    end

    always @(posedge clk) begin
        sent <= rst ? 0 : sent + accept;
        got <= rst ? 0 : got + (out_valid & out_ready);
        stalled <= out_valid & ~out_ready & ~rst;
        was <= out_data;
        pipe[0] <= in_data;
        for (i = 1; i < STAGES; i = i + 1) pipe[i] <= pipe[i-1];
    end

    reg [WIDTH-1:0] expected;
    always @(*) begin
        assume (in_data == sent);
        assume (in_tag == sent);
        assume (result == pipe[STAGES-1]);
        // Credits: a place for every patch under way, and none beyond.
        assert (places + flying + waits == TOTAL);
        assert (waits <= TOTAL);
        assert (!(store && waits == TOTAL));
        assert (!(rst && in_ready));
        assert (rst || in_ready == (behind < TOTAL));
        // Nothing is lost and nothing made: what was taken is under way, and in its order.
        assert (sent - got == behind + out_valid);
        assert (!out_valid || (out_data == got && out_tag == got));
        assert (!stalled || (out_valid && out_data == was));
        for (i = 0; i < TOTAL; i = i + 1) begin
            expected = got + out_valid + i;
            if (i < waits) assert (waiting[(read_at + i) % TOTAL] == expected);
            if (i < behind) assert (tags[(tag_read_at + i) % TOTAL] == expected);
        end
        assert ((tag_write_at - tag_read_at) % TOTAL == behind % TOTAL);
        expected = got + out_valid + waits;
        for (i = STAGES - 1; i >= 0; i = i - 1) if (flight[i]) begin
            assert (pipe[i] == expected);
            expected = expected + 1;
        end
        // No result waits while the output is free.
        assert (waits == 0 || out_valid);
    end

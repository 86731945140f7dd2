    // What holds of the front end's queue in a memory, whatever put, take and rst do by its rules: it is a row of entries,
    // q[0] the oldest, which shows its head one clock later where nothing stood before. tests/test_hls_rtl_front_end_proof.py
    // puts this text into the module, and Yosys proves it by induction.
    localparam P = 1 << LOG2;
    reg [BITS-1:0] q [0:P-1];
    reg [LOG2:0] n = 0;
    reg fresh = 1'b0;  // one came in the clock before
    integer i;
    always @(posedge clk) begin
        fresh <= put & ~rst;
        n <= rst ? 0 : n + put - take;
        for (i = 0; i < P; i = i + 1)
            if (put & i == n - take) q[i] <= in;
            else if (take & i + 1 < P) q[i] <= q[i+1];
    end

    always @(*) begin
        // The rules, which those that use it are proved to keep.
        assume (!take || valid);
        assume (!put || take || n != P);
        // What they may count on.
        assert (valid == (n != fresh));
        assert (!valid || out == q[0]);
        assert (empty == (n == 0));
        // Why.
        assert (n <= P && n >= fresh);
        assert (n == (write_at - read_at) % (2 * P));
        for (i = 0; i < P; i = i + 1) if (i < n) assert (memory[(read_at + i) % P] == q[i]);
    end

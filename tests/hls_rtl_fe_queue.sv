    // What holds of the queue of maxima, whatever comes in. tests/test_hls_rtl_front_end_proof.py puts this text into the
    // module, and Yosys proves it by induction. The memory inside is hls_rtl_fe_fifo_use.sv.
    //
    // A word takes LATENCY clocks from the sequencer to the history, and none starts while `hold` is 1. Its maxima enter
    // the queue when at most LATE words more are in the history. With EXCLUDED maxima are 4 x 4 pixels apart, in rows of
    // ROW words: then the stream never waits. Ages are in words of the history.
    //
    // `hold` is BEHIND clocks behind the age that it is decided by, in which the oldest word ages by as many words: with
    // two groups by one word fewer, since the word that leaves gives way to a younger one after two clocks.
    localparam P = 1 << TIME_BITS, LATENCY = `LATENCY, LATE = `LATE, CONTEXT = 1, READ = 3;
    localparam THRESHOLD = P - MARGIN, BEHIND = 2;
    // More maxima than MOST never wait where they are EXCLUDED, so no more words.
    localparam ROOM = (GROUPS - 1) * `ROW, MOST = ROOM + 2 * GROUPS + 1;
`ifdef EXCLUDED
    localparam Q = MOST < P ? MOST : P;
`else
    localparam Q = P;
`endif
    localparam SKIP = WORD_BITS + 17, KEPT = 3 * GROUPS + TIME_BITS, FOUND_AT = KEPT - GROUPS;
    reg [KEPT-1:0] q [0:Q-1];  // {found, position, time} of those that wait; the rest goes with them
    wire [7:0] n;
    wire fresh;
    integer i, j;
    always @(posedge clk)
        for (i = 0; i < Q; i = i + 1)
            if (put & i == n - take) q[i] <= {in_found, in_position, in_time};
            else if (take & i + 1 < Q) q[i] <= q[i+1];

    // The stream in front.
    wire want;
    reg [LATENCY-1:0] flight = 0;
    wire step = flight[LATENCY-1];
    reg [TIME_BITS-1:0] counted = 0;  // words in the history
    reg [TIME_BITS+1:0] flying;
    always @(*) begin
        flying = 0;
        for (i = 0; i < LATENCY; i = i + 1) flying = flying + flight[i];
    end
    always @(posedge clk) begin
        flight <= rst ? 0 : {flight[LATENCY-2:0], want & ~hold};
        counted <= counted + step;
    end

    // Ages of the word that leaves, of those that wait, and of the newest that came.
    localparam AGE = TIME_BITS + 2, OLD = (1 << AGE) - 1;
    wire [AGE-1:0] put_age;
    reg [AGE-1:0] leaving, ages [0:Q-1], newest = OLD;
    always @(posedge clk) begin
        newest <= rst ? OLD : put ? put_age + step : newest == OLD ? OLD : newest + step;
        leaving <= (take ? ages[0] : leaving) + step;
        for (i = 0; i < Q; i = i + 1)
            if (put & i == n - take) ages[i] <= put_age + step;
            else if (take & i + 1 < Q) ages[i] <= ages[i+1] + step;
            else ages[i] <= ages[i] + step;
    end
    wire some = out_valid | n != 0;
    wire [AGE-1:0] oldest_age = out_valid ? leaving : ages[0];

    // What `hold` is decided by: the age of one clock ago, and of two.
    wire seen = out_valid | head_valid;
    reg was_seen = 1'b0, had_seen = 1'b0;
    reg [AGE-1:0] was_age, had_age;
    always @(posedge clk) begin
        was_seen <= seen & ~rst;
        had_seen <= was_seen & ~rst;
        was_age <= oldest_age;
        had_age <= was_age;
    end

    // Groups of the word in hand that have left: those below `next`.
    reg [GROUPS-1:0] whole = 0;
    reg [3:0] next = 0;
    always @(posedge clk) begin
        whole <= rst ? 0 : take ? head[REST +: GROUPS] : whole;
        next <= rst | take ? 0 : out_valid ? out_group + 1 : next;
    end

    function [7:0] ones(input [GROUPS-1:0] bits);
        integer k;
        begin
            ones = 0;
            for (k = 0; k < GROUPS; k = k + 1) ones = ones + bits[k];
        end
    endfunction

`ifdef EXCLUDED
    // With maxima 4 x 4 pixels apart: rows of each group until it may have one again, those of the word that comes next
    // first.
    reg [1:0] rest_of [0:`ROW*GROUPS-1];
    wire word;
    initial for (i = 0; i < `ROW * GROUPS; i = i + 1) rest_of[i] = 0;
    always @(posedge clk)
        for (i = 0; i < `ROW; i = i + 1)
            for (j = 0; j < GROUPS; j = j + 1)
                if (rst) rest_of[i*GROUPS+j] <= 0;
                else if (word & i + 1 < `ROW) rest_of[i*GROUPS+j] <= rest_of[(i+1)*GROUPS+j];
                else if (word) rest_of[i*GROUPS+j] <= put & in_found[j] ? 3 : rest_of[j] == 0 ? 0 : rest_of[j] - 1;
    // How much more than one a clock may come from now on: as early as they can, over the next words.
    reg [7:0] coming, most;
    always @(*) begin
        most = 0;
        coming = 0;
        for (i = 0; i < 4 * `ROW; i = i + 1) begin
            for (j = 0; j < GROUPS; j = j + 1) coming = coming + (rest_of[i%`ROW*GROUPS+j] == i / `ROW);
            if (coming > most + i + 1) most = coming - i - 1;
        end
    end
    // Maxima that wait, and of each word those that leave up to its last: what is added to one word by the next is known
    // beside it, so that no sum over all of them has to be compared with another.
    reg [7:0] waiting_now = 0, until [0:Q-1];
    wire [7:0] waiting_next = waiting_now + (put ? ones(in_found) : 0) - out_valid;
    always @(posedge clk) begin
        waiting_now <= rst ? 0 : waiting_next;
        for (i = 0; i < Q; i = i + 1)
            if (put & i == n - take) until[i] <= waiting_next;
            else if (take & i + 1 < Q) until[i] <= until[i+1] - out_valid;
            else until[i] <= until[i] - out_valid;
    end
`endif

    always @(*) begin
        assume (!head_valid || head[SKIP +: KEPT] == q[0]);
        assume (now == counted);
        assume (!put || (put_age <= LATE && put_age < newest && in_time == counted - put_age[TIME_BITS-1:0]));
        // Raster order: words as they came, and of a word the lowest group first, each once, with its own position.
        assert (left == ((whole >> next) << next));
        assert (!take || (left & (left - 1'b1)) == 0);  // the next word only behind the last of this one
        assert (!out_valid || (left[out_group] && out_group >= next && out_position == positions[2*out_group +: 2]));
        assert (idle == (!some && !in_valid));
        for (i = 0; i < Q; i = i + 1) begin
            if (i < n) assert (q[i][TIME_BITS-1:0] == counted - ages[i][TIME_BITS-1:0]);
            if (i < n) assert (q[i][FOUND_AT +: GROUPS] != 0);
            if (i + 1 < Q && i + 1 < n) assert (ages[i] > ages[i+1]);
            if (i + 1 == n) assert (ages[i] == newest);
            // So there are no more of them than clocks since the oldest came.
            if (i < n) assert (ages[i] + i + 1 >= newest + n);
        end
        if (out_valid) assert (out_time == counted - leaving[TIME_BITS-1:0]);
        if (out_valid && n != 0) assert (leaving > ages[0]);
        if (out_valid && n == 0) assert (leaving == newest);
        // The history still has the window of what leaves when it is read.
        if (some) assert (oldest_age + flying <= THRESHOLD + LATENCY + BEHIND);
        if (some && !hold) assert (oldest_age < THRESHOLD + BEHIND);
        assert (waits == was_seen);
        if (was_seen) assert (age == was_age[TIME_BITS-1:0] && was_age < P);
        assert (hold == (had_seen && had_age >= THRESHOLD));
        if (seen) assert (oldest_age <= (was_seen ? was_age + 1 : LATE + 3));
        if (was_seen) assert (was_age <= (had_seen ? had_age + 1 : LATE + 3));
        assert (!out_valid || leaving + CONTEXT + READ < P);
        if (!out_valid) assert (n <= 1 + fresh);
        if (!out_valid && n != 0) assert (ages[0] <= LATE + 2 + (n != fresh));
        if (fresh) assert (newest <= LATE + 1);
`ifdef EXCLUDED
        assume (in_valid == word || !in_valid);
        for (j = 0; j < GROUPS; j = j + 1) if (put) assume (!in_found[j] || rest_of[j] == 0);
        assert (n <= Q);
        assert (most <= ROOM);
        assert (waiting_now + most <= MOST);
        if (!out_valid) assert (waiting_now <= 2 * GROUPS);
        if (n == 0) assert (waiting_now == ones(left));
        // An entry leaves after what is ahead of it, one a clock.
        if (out_valid) assert (leaving + ones(left) <= LATE + MOST + 1);
        for (i = 0; i < Q; i = i + 1) if (i < n) begin
            assert (until[i] == (i == 0 ? ones(left) : until[i == 0 ? 0 : i-1]) + ones(q[i][FOUND_AT +: GROUPS]));
            assert (ages[i] + until[i] <= LATE + MOST + 1);
            if (i + 1 == n) assert (until[i] == waiting_now);
            assert (until[i] + n <= waiting_now + i + 1);
        end
        if (was_seen) assert (was_age <= LATE + MOST);
        if (had_seen) assert (had_age <= LATE + MOST);
        assert (!hold);
`endif
    end

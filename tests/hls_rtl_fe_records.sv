    // What holds of the places of records. tests/test_hls_rtl_front_end_proof.py puts this text into the module, and Yosys
    // proves it by induction. The memory inside is hls_rtl_fe_fifo_use.sv, and frames follow each
    // other as the sequencer's do: one starts where there is a place, its maxima come, then its end; the next starts when
    // the end's record is on its way. The stored frame takes no place and sends nothing.
    localparam ON_WAY = DELAY + 4;
    wire [7:0] n;
    wire fresh;
    integer i;

    // The frame: 0 none, 1 maxima may come, 2 its end has come.
    reg [1:0] frame_is = 0;
    reg stored_frame = 1'b0;
    always @(posedge clk) begin
        if (rst) frame_is <= 0;
        else if (start | test_begins) frame_is <= 1;
        else if (in_end) frame_is <= 2;
        else if (end_done) frame_is <= 0;
        if (rst | end_done) stored_frame <= 0;
        else if (test_begins) stored_frame <= 1;
    end
    reg [31:0] all_peaks = 0;  // of the frame
    always @(posedge clk) all_peaks <= rst | start | test_begins ? 0 : all_peaks + peak;

    wire [ON_WAY-1:0] peaks_on_way = {v4, v3, v2, v1, kept}, ends_on_way = {e4, e3, e2, e1, ends};
    reg [PLACES_LOG2+3:0] taken;
    reg [7:0] moving;
    always @(*) begin
        assume (is_stored == stored_frame);
        assume (!(start && (frame_is != 0 || !place || rst)));
        assume (!(test_begins && (frame_is != 0 || start)));
        assume (!in_valid || frame_is == 1);
        assume (!in_end || (frame_is == 1 && !in_valid));
        // A place is free, of a record on its way or in the memory, or kept for the frame's end; none is taken twice.
        moving = 0;
        for (i = 0; i < ON_WAY; i = i + 1) moving = moving + peaks_on_way[i];
        taken = (stored_frame ? 0 : moving) + n + put;
        if (frame_is == 1 && !stored_frame) taken = taken + 1;
        for (i = 0; i < ON_WAY; i = i + 1) taken = taken + (ends_on_way[i] & ~stored_frame);
        assert (places + taken == PLACES);
        assert (places <= PLACES);
        assert (frame_is != 3);
        // The end behind its peaks: while it is on its way no other is, and no peak is behind it.
        assert (frame_is != 0 || (peaks_on_way == 0 && ends_on_way == 0));
        assert (frame_is != 1 || ends_on_way == 0);
        assert ((ends_on_way & (ends_on_way - 1)) == 0);
        assert ((ends_on_way & peaks_on_way) == 0);
        assert (frame_is != 2 || end_done || ends_on_way != 0);
        for (i = 0; i < ON_WAY; i = i + 1) if (ends_on_way[i]) assert ((peaks_on_way & ((1 << i) - 1)) == 0);
        assert (!end_done || (frame_is == 2 && ends_on_way == 0 && peaks_on_way == 0));
        assert (frame_is != 0 || !stored_frame);
        assert (!stored_frame || frame_is != 0);
        // Each peak is sent or counted as dropped, and dropped only where no place is left.
        assert (frame_is == 0 || stored_frame || end_done || all_peaks == peaks + moving + drops);
        assert (!end_done || peaks == 0);
        assert (frame_is != 0 || peaks == 0);
        assert (!(peak & ~keep) || (places == 0 && !stored_frame));
        assert (!(put && !end_put) || !stored_frame);
    end

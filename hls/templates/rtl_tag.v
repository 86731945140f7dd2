
    // Tags of the patches under way, in their order: each patch has a place from when it is taken until its result moves on.
    reg [@TAG@-1:0] tags [0:(1 << PLACES_LOG2)-1];
    reg [PLACES_LOG2-1:0] tag_write_at, tag_read_at;

    initial begin
        tag_write_at = 0;
        tag_read_at = 0;
    end

    always @(posedge clk) begin
        if (accept) tags[tag_write_at] <= in_tag;
        if (move) out_tag <= tags[tag_read_at];
        if (rst) begin
            tag_write_at <= 0;
            tag_read_at <= 0;
        end else begin
            tag_write_at <= tag_write_at + accept;
            tag_read_at <= tag_read_at + take;
        end
    end

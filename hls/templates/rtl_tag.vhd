
    process(clk) begin
        if rising_edge(clk) then
            if accept = '1' then
                tags(to_integer(tag_write_at)) <= in_tag;
            end if;
            if move = '1' then
                out_tag <= tags(to_integer(tag_read_at));
            end if;
            if rst = '1' then
                tag_write_at <= (others => '0');
                tag_read_at <= (others => '0');
            else
                if accept = '1' then
                    tag_write_at <= tag_write_at + 1;
                end if;
                if take = '1' then
                    tag_read_at <= tag_read_at + 1;
                end if;
            end if;
        end if;
    end process;

-- Feeds the @VECTORS@ golden patches to @NAME@ with gaps and back-pressure, and compares every result.
-- Ends with "PASS" and the measured latency, or with a failure at the first result that is not the golden one.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use ieee.std_logic_textio.all;
use std.textio.all;
use std.env.all;

entity test_bench is
end entity test_bench;

architecture simulation of test_bench is
    constant VECTORS : positive := @VECTORS@;
    constant LIMIT : positive := 64 * VECTORS + 1000;  -- clocks; a design that is stuck is stopped here
    constant IN_HEX : positive := (@IN@ + 3) / 4 * 4;
    constant OUT_HEX : positive := (@OUT@ + 3) / 4 * 4;
    signal clk : std_logic := '0';
    signal rst : std_logic := '1';
    signal in_data : std_logic_vector(@IN@ - 1 downto 0) := (others => '0');
    signal out_data : std_logic_vector(@OUT@ - 1 downto 0);
    signal in_valid, out_ready : std_logic := '0';
    signal in_ready, out_valid : std_logic;
@TAG_BENCH_SIGNALS@begin
    dut : entity work.@NAME@ port map(
        clk => clk, rst => rst, in_data => in_data, in_valid => in_valid, in_ready => in_ready,
        out_data => out_data, out_valid => out_valid, out_ready => out_ready@TAG_CONNECTION@);

    clk <= not clk after @HALF@ ns;

    process
        file counts : text open read_mode is "counts.hex";
        file golden : text open read_mode is "expected.hex";
        variable row : line;
        variable in_word : std_logic_vector(IN_HEX - 1 downto 0);
        variable out_word : std_logic_vector(OUT_HEX - 1 downto 0);
        -- Shift registers of random bits: gaps, stalls.
        variable gaps : std_logic_vector(31 downto 0) := x"1badcafe";
        variable stalls : std_logic_vector(31 downto 0) := x"600dbeef";
        variable sent, received, cycle, first_in, latency, quiet : natural := 0;
    begin
        for k in 1 to 4 loop
            wait until rising_edge(clk);
            assert in_ready = '0' report "FAIL: in_ready is 1 during reset" severity failure;
        end loop;
        rst <= '0';
        while quiet < 100 loop
            wait until rising_edge(clk);
            cycle := cycle + 1;
            gaps := gaps(30 downto 0) & (gaps(31) xor gaps(21) xor gaps(1) xor gaps(0));
            stalls := stalls(30 downto 0) & (stalls(31) xor stalls(21) xor stalls(1) xor stalls(0));
            if out_valid = '1' and out_ready = '1' then
                if received = 0 then
                    latency := cycle - first_in;
                end if;
                assert received < VECTORS report "FAIL: a result too many" severity failure;
                readline(golden, row);
                hread(row, out_word);
                assert out_data = out_word(@OUT@ - 1 downto 0)
                    report "FAIL: result " & integer'image(received) & " is " & to_hstring(out_data) severity failure;
@TAG_CHECKED@                received := received + 1;
            end if;
            if in_valid = '1' and in_ready = '1' and sent = 1 then
                first_in := cycle;
            end if;
            if in_valid = '0' or in_ready = '1' then
                -- The first patch alone, unhindered, for the latency; then gaps and stalls.
                if sent < VECTORS and (sent = 0 or (received > 0 and (gaps(0) or gaps(9)) = '1')) then
                    readline(counts, row);
                    hread(row, in_word);
                    in_data <= in_word(@IN@ - 1 downto 0);
@TAG_SENT@                    in_valid <= '1';
                    sent := sent + 1;
                else
                    in_valid <= '0';
                end if;
            end if;
            if received = 0 then
                out_ready <= '1';
            else
                out_ready <= stalls(0) or stalls(7);
            end if;
            if received = VECTORS then
                quiet := quiet + 1;
            end if;
            assert cycle < LIMIT report "FAIL: " & integer'image(received) & " results" severity failure;
        end loop;
        report "PASS: " & integer'image(received) & " patches, latency " & integer'image(latency) & " clocks";
        finish;
    end process;
end architecture simulation;

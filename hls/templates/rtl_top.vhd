-- Bragg peak locator: a patch of @PIXELS@ counts in, its position out, a new patch every clock.
--
-- in_data    @PIXELS@ counts of @COUNT_BITS@ bits (@SIGN@), row after row, the first in the lowest bits
-- out_data   @OUTPUTS@; @OUT_BITS@ bit signed each, the first in the lowest bits, code / 2**@FRAC@: px, and ln(px) before calibration@TAG_MEANING@
--
-- A transfer happens at a rising edge with valid and ready both 1. The pipeline itself never stops: a patch is only taken
-- while a place for its result is free, so that back-pressure needs no enable on any of its registers.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;

entity @NAME@ is port(
    clk : in std_logic;
    rst : in std_logic;  -- synchronous; drops what is under way. A design that has just been configured needs none
    in_data : in std_logic_vector(@IN@ - 1 downto 0);
@TAG_IN_PORT@    in_valid : in std_logic;
    in_ready : out std_logic;
    out_data : out std_logic_vector(@OUT@ - 1 downto 0);
@TAG_OUT_PORT@    out_valid : out std_logic;
    out_ready : in std_logic);
end entity @NAME@;

architecture rtl of @NAME@ is
    constant STAGES : positive := @STAGES@;
    constant PLACES_LOG2 : positive := @PLACES_LOG2@;
    type memory_t is array (0 to 2 ** PLACES_LOG2 - 1) of std_logic_vector(@OUT@ - 1 downto 0);
    signal waiting : memory_t;  -- results that wait
    signal result : std_logic_vector(@CORE_OUT@ - 1 downto 0);
    signal found : std_logic_vector(@OUT@ - 1 downto 0);
    signal flight : std_logic_vector(STAGES - 1 downto 0) := (others => '0');  -- which stages hold a patch
    signal write_at, read_at : unsigned(PLACES_LOG2 downto 0) := (others => '0');
    signal places : unsigned(PLACES_LOG2 downto 0) := to_unsigned(2 ** PLACES_LOG2, PLACES_LOG2 + 1);
    signal valid : std_logic := '0';
    signal accept, arrive, empty, move, take, store, ready : std_logic;
@TAG_SIGNALS@begin
    core : entity work.@NAME@_core port map(clk => clk, model_inp => in_data, model_out => result);
    found <= @FOUND@;

    ready <= '0' when places = 0 or rst = '1' else '1';
    in_ready <= ready;
    out_valid <= valid;
    accept <= in_valid and ready;
    arrive <= flight(STAGES - 1);
    empty <= '1' when write_at = read_at else '0';
    move <= out_ready or not valid;
    take <= move and (arrive or not empty);
    store <= arrive and not (move and empty);

    process(clk) begin
        if rising_edge(clk) then
            if store = '1' then
                waiting(to_integer(write_at(PLACES_LOG2 - 1 downto 0))) <= found;
            end if;
            if move = '1' and empty = '1' then
                out_data <= found;
            elsif move = '1' then
                out_data <= waiting(to_integer(read_at(PLACES_LOG2 - 1 downto 0)));
            end if;
            if rst = '1' then
                flight <= (others => '0');
                write_at <= (others => '0');
                read_at <= (others => '0');
                places <= to_unsigned(2 ** PLACES_LOG2, PLACES_LOG2 + 1);
                valid <= '0';
            else
                flight(0) <= accept;
                for stage in 1 to STAGES - 1 loop
                    flight(stage) <= flight(stage - 1);
                end loop;
                if store = '1' then
                    write_at <= write_at + 1;
                end if;
                if take = '1' and empty = '0' then
                    read_at <= read_at + 1;
                end if;
                if accept = '1' and take = '0' then
                    places <= places - 1;
                elsif accept = '0' and take = '1' then
                    places <= places + 1;
                end if;
                valid <= take or (valid and not out_ready);
            end if;
        end if;
    end process;
@TAG_MEMORY@end architecture rtl;

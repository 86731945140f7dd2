    -- Tags of the patches under way, in their order: each patch has a place from when it is taken until its result moves on.
    type tags_t is array (0 to 2 ** PLACES_LOG2 - 1) of std_logic_vector(@TAG@ - 1 downto 0);
    signal tags : tags_t;
    signal tag_write_at, tag_read_at : unsigned(PLACES_LOG2 - 1 downto 0) := (others => '0');

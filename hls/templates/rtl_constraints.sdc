create_clock -name clk -period @PERIOD@ [get_ports clk]
derive_clock_uncertainty

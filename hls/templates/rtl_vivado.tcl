# vivado -mode batch -source vivado.tcl: synthesis, placement and routing out of context, reports in vivado/.
# The exit status is 0 only if the routed design meets the clock of constraints/.
# Out of context, because the design has more ports than a device has pins: it is a block of a larger one.
set here [file normalize [file dirname [info script]]]
set reports $here/vivado
file mkdir $reports
@READ@
read_xdc -mode out_of_context $here/constraints/@NAME@.xdc
synth_design -top @NAME@ -part @PART@ -mode out_of_context -flatten_hierarchy full -max_dsp 0@NO_MEMORY@
report_utilization -file $reports/synthesis_utilization.rpt
report_timing_summary -file $reports/synthesis_timing.rpt
opt_design
place_design
phys_opt_design
route_design
report_utilization -file $reports/utilization.rpt
report_timing_summary -file $reports/timing.rpt
write_checkpoint -force $reports/@NAME@.dcp
foreach kind {setup hold} {
    set slack [get_property SLACK [get_timing_paths -$kind -max_paths 1]]
    if {![string is double -strict $slack] || $slack < 0} {
        puts "ERROR: @NAME@ does not meet @MHZ@ MHz: $kind slack '$slack' ns; see $reports/timing.rpt"
        exit 1
    }
    puts "@NAME@ at @MHZ@ MHz: $kind slack $slack ns"
}

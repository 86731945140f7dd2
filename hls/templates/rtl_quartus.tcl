# quartus_sh -t quartus.tcl [family [device]]: a compilation with virtual pins in quartus/. Without arguments for the
# family below, whose device Quartus chooses; a device must be of the family that stands before it.
# The exit status is 0 only if the clock of constraints/ is met in every corner.
package require ::quartus::flow
set here [file normalize [file dirname [info script]]]
set arguments [expr {[info exists quartus(args)] ? $quartus(args) : $argv}]
set family [expr {[llength $arguments] > 0 ? [lindex $arguments 0] : "Arria 10"}]
set device [expr {[llength $arguments] > 1 ? [lindex $arguments 1] : "AUTO"}]
file mkdir $here/quartus
cd $here/quartus
project_new @NAME@ -overwrite
set_global_assignment -name FAMILY $family
set_global_assignment -name DEVICE $device
set_global_assignment -name PROJECT_OUTPUT_DIRECTORY .
set_global_assignment -name TOP_LEVEL_ENTITY @NAME@
foreach source [lsort [glob $here/src/*@SUFFIX@]] {
    set_global_assignment -name @FILE_TYPE@ $source
}
@VERSION@
set_global_assignment -name SDC_FILE $here/constraints/@NAME@.sdc
# The design has more ports than a device has pins: all but the clock are virtual.
foreach port {@PORTS@} {
    set_instance_assignment -name VIRTUAL_PIN ON -to $port
    set_instance_assignment -name VIRTUAL_PIN ON -to ${port}\[*\]
}
set_global_assignment -name AUTO_DSP_RECOGNITION OFF
execute_flow -compile
project_close
set summary $here/quartus/@NAME@.sta.summary
set file [open $summary]
set slacks [regexp -all -inline {Slack\s*:\s*(-?[0-9.]+)} [read $file]]
close $file
if {![llength $slacks]} {
    puts "ERROR: @NAME@: no slack in $summary"
    exit 1
}
foreach {text slack} $slacks {
    if {$slack < 0} {
        puts "ERROR: @NAME@ does not meet @MHZ@ MHz: slack $slack ns; see $summary"
        exit 1
    }
}
puts "@NAME@ meets @MHZ@ MHz"

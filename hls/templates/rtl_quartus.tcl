# quartus_sh -t quartus.tcl [device]: a compilation with virtual pins in quartus/ (default device: automatic).
package require ::quartus::flow
set here [file normalize [file dirname [info script]]]
file mkdir $here/quartus
cd $here/quartus
project_new @NAME@ -overwrite
set_global_assignment -name DEVICE [expr {$argc > 0 ? [lindex $argv 0] : "AUTO"}]
set_global_assignment -name TOP_LEVEL_ENTITY @NAME@
foreach source [lsort [glob $here/src/*@SUFFIX@]] {
    set_global_assignment -name @FILE_TYPE@ $source
}
@VERSION@
set_global_assignment -name SDC_FILE $here/constraints/@NAME@.sdc
# A patch is wider than a device has pins: all but the clock are virtual.
foreach port {rst in_data in_valid in_ready out_data out_valid out_ready} {
    set_instance_assignment -name VIRTUAL_PIN ON -to $port
    set_instance_assignment -name VIRTUAL_PIN ON -to ${port}\[*\]
}
set_global_assignment -name AUTO_DSP_RECOGNITION OFF
execute_flow -compile
project_close

"""The RTL of a circuit, cycle by cycle, and the netlist that Yosys maps of it."""

from collections.abc import Iterator

import numpy as np

from braggnn_edge.core.errors import UserError
from firmware_sim.forms import rtlsim
from firmware_sim.forms.form import Answer, Setting, spread
from hls.rtl.project import load_rtl
from hls.rtl.synthesis import synthesize_project

_PROJECT = "verilog"


def answers(setting: Setting) -> Iterator[Answer]:
    """The Verilog with random gaps and back-pressure, and at one patch a clock."""
    project, counts = setting.run / "rtl" / _PROJECT, setting.counts
    if load_rtl(project).digest != setting.locator.digest:
        raise UserError(f"{project} is not of this circuit; run `braggnn-edge rtl`")
    simulator = rtlsim.build(project, setting.scratch / "build" / "rtl")
    setting.say("  rtl: compiled")
    for name, stalls, seed in (("rtl:stalls", True, 1), ("rtl:every clock", False, 2)):
        found = rtlsim.run(simulator, counts, seed=seed, stalls=stalls)
        setting.say(
            f"  {name}: {found.cycles} clocks, latency {found.latency}, {found.interval:.3f} clocks a patch; patches "
            f"waited in {found.waited}, results in {found.stalled}"
        )
        row = {
            "form": "rtl", "project": _PROJECT, "part": "UltraScale+ cells", "io": "valid/ready, a patch a beat",
            "latency_cycles": found.latency, "interval_cycles": round(found.interval),
        }  # fmt: skip
        rows = np.arange(len(counts))
        yield (
            Answer(name, rows, found.outputs)
            if stalls
            else Answer(name, rows, found.outputs, hardware=row, shown="rtl")
        )


def netlist(setting: Setting) -> Iterator[Answer]:
    """What Yosys maps for UltraScale+, on some of the patches."""
    if not setting.netlist:
        return
    project = setting.run / "rtl" / _PROJECT
    mapped, files = synthesize_project(project, setting.scratch / "build" / "netlist")
    setting.say(f"  netlist: {mapped.luts} LUTs, {mapped.flip_flops} FF, {mapped.dsps} DSP, {mapped.brams} block RAM")
    rows = spread(len(setting.counts), setting.netlist)
    simulator = rtlsim.build(project, setting.scratch / "build" / "rtl", files)
    found = rtlsim.run(simulator, setting.counts[rows], seed=3)
    row = {
        "form": "rtl", "project": _PROJECT, "lut": mapped.luts, "ff": mapped.flip_flops, "dsp": mapped.dsps,
        "bram": mapped.brams, "source": "synthesis", "tool": "Yosys",
    }  # fmt: skip
    yield Answer("netlist", rows, found.outputs, hardware=row)

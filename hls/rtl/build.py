"""Stage "rtl": the RTL project of a circuit, in each language asked for, and a front end."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from braggnn_edge.core.stages import Context
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from hls.rtl.cmvm import Effort
from hls.rtl.front_end.project import write_front_end
from hls.rtl.project import load_rtl, write_rtl
from hls.rtl.spec import RtlSpec
from quant.contract import locator as locators


def work(context: Context, directory: Path) -> None:
    """The stage: :func:`run` on the circuit and the test peaks of the run directory."""
    table = load_table(context.run / "label" / "peaks.h5")
    unrolled = context.cfg["qat"].is_circuit
    run(context.cfg["rtl"], table, context.run / "qat", directory, context.say, unrolled=unrolled)


def run(
    spec: RtlSpec, table: PeakTable, source: Path, directory: Path, say: Callable[[str], None], *, unrolled: bool = True
) -> None:
    """The stage: write ``verilog/`` and ``vhdl/``, those asked for, and ``front_end/``; source: of the qat stage.

    unrolled: the locator is a circuit; layers have a front end alone.
    """
    circuit = locators.load(source / "locator.json")
    patches = table.of(TEST).patches()
    chosen = np.unique(np.linspace(0, len(patches) - 1, min(spec.vectors, len(patches))).astype(int))
    for language in spec.languages if unrolled else ():
        if not (directory / language).exists():
            write_rtl(
                circuit, directory / language, counts=patches[chosen], language=language,
                logic_levels=spec.logic_levels,
                clock_mhz=spec.clock_mhz, target_name=spec.target, limit=spec.limit,
                effort=Effort(shallow=spec.shallow), tag_bits=spec.tag_bits,
                register_selects=spec.register_selects,
            )  # fmt: skip
        made = load_rtl(directory / language)
        say(
            f"  {language}: {made.stages} stages, a patch every clock, {made.latency_cycles} clocks from patch to "
            f"position; the constraints ask for {made.clock_mhz:g} MHz, which only place and route can confirm"
        )
    front = spec.front_end
    if front.pixels:
        if not (directory / "front_end").exists():
            write_front_end(
                circuit, front.geometry(circuit.window), directory / "front_end", logic_levels=spec.logic_levels,
                effort=Effort(shallow=spec.shallow), limit=spec.limit, register_selects=spec.register_selects,
                clock_mhz=spec.clock_mhz, target_name=spec.target,
            )  # fmt: skip
        say(
            f"  front_end: {front.pixels} pixels of {front.bits} bits a clock in, records out; frames of up to "
            f"{front.max_cols} columns" + "; the locator is outside, behind m_patch and s_position" * front.external
        )

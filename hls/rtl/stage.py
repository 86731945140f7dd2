"""Stage "rtl": the RTL project of a circuit, in each language asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.table import TEST, PeakTable
from hls.project.targets import target
from hls.rtl.cmvm import Effort
from hls.rtl.core import LANGUAGES
from hls.rtl.project import DEFAULT_LEVELS, load_rtl, write_rtl
from hls.rtl.trace import LIMIT
from quant.contract import circuit as circuits


@dataclass(frozen=True)
class RtlSpec:
    """The RTL project.

    languages: of "verilog" and "vhdl", the first of which is simulated ("verilog" it must be then); levels: adders or
    levels of look-up tables between two registers, the depth of the pipeline; shallow: whether sums take the fewest
    levels of adders, for some per cent more look-up tables; clock_mhz: the clock that the constraints
    ask for; target: a board of hls.project.targets; limit: look-up tables, estimated, above which nothing is unrolled;
    vectors: test peaks that become golden vectors of the test bench.
    """

    languages: tuple[str, ...] = ("verilog",)
    levels: float = DEFAULT_LEVELS
    shallow: bool = False
    clock_mhz: float = 400.0
    target: str = "u280"
    limit: int = LIMIT
    vectors: int = 200

    def __post_init__(self) -> None:
        if not self.languages or self.languages[0] != "verilog" or not set(self.languages) <= set(LANGUAGES):
            raise UserError(
                f"rtl: languages {', '.join(self.languages) or 'none'}; expected verilog, which is simulated, and then "
                f"any of {', '.join(LANGUAGES)}"
            )
        if len(set(self.languages)) != len(self.languages):
            raise UserError("rtl: languages must name each language once")
        if not self.levels >= 1 or not self.clock_mhz > 0 or min(self.limit, self.vectors) < 1:
            raise UserError("rtl: levels, limit and vectors must be at least 1, clock_mhz positive")
        target(self.target)


def run(spec: RtlSpec, table: PeakTable, source: Path, directory: Path, say: Callable[[str], None]) -> None:
    """The stage: write ``verilog/`` and ``vhdl/``, those asked for. source: directory of the circuit stage."""
    circuit = circuits.load(source / "circuit.json")
    patches = table.of(TEST).patches()
    chosen = np.unique(np.linspace(0, len(patches) - 1, min(spec.vectors, len(patches))).astype(int))
    for language in spec.languages:
        if not (directory / language).exists():
            write_rtl(
                circuit, directory / language, counts=patches[chosen], language=language, levels=spec.levels,
                clock_mhz=spec.clock_mhz, target_name=spec.target, limit=spec.limit,
                effort=Effort(shallow=spec.shallow),
            )  # fmt: skip
        made = load_rtl(directory / language)
        say(
            f"  {language}: {made.stages} stages, a patch every clock, {made.latency_cycles} clocks from patch to "
            f"position, {made.latency_cycles / made.clock_mhz * 1e3:.0f} ns at the {made.clock_mhz:g} MHz asked for"
        )

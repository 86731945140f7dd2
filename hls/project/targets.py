"""The devices that projects are generated for: one line a board."""

from dataclasses import dataclass

from braggnn_edge.core.errors import UserError


@dataclass(frozen=True)
class Target:
    """A board, the full part number that the vendor's tools expect (package and speed grade included), what is in it.

    luts: look-up tables of six inputs; dsps: DSP48 slices; brams: block RAMs of 36 Kbit; urams: UltraRAMs of 288 Kbit.
    All of the part: what the shell of an Alveo card takes is not subtracted. Sources: docs/reference/hls_backends.md.
    accelerator: the board's name in hls4ml's back end VivadoAccelerator, empty if it has none.
    """

    name: str
    part: str
    board: str
    luts: int
    dsps: int
    brams: int
    urams: int
    accelerator: str = ""


_ALL = (
    Target("zcu102", "xczu9eg-ffvb1156-2-e", "AMD ZCU102 (Zynq UltraScale+ XCZU9EG)", 274_080, 2_520, 912, 0, "zcu102"),
    Target("zcu104", "xczu7ev-ffvc1156-2-e", "AMD ZCU104 (Zynq UltraScale+ XCZU7EV)", 230_400, 1_728, 312, 96),
    Target("u280", "xcu280-fsvh2892-2L-e", "AMD Alveo U280", 1_303_680, 9_024, 2_016, 960, "alveo-u280"),
    Target("u250", "xcu250-figd2104-2L-e", "AMD Alveo U250", 1_728_000, 12_288, 2_688, 1_280, "alveo-u250"),
    Target("vcu118", "xcvu9p-flga2104-2L-e", "AMD VCU118 (Virtex UltraScale+ XCVU9P)", 1_182_240, 6_840, 2_160, 960),
    Target("pynq-z2", "xc7z020clg400-1", "TUL PYNQ-Z2 (Zynq XC7Z020)", 53_200, 220, 140, 0, "pynq-z2"),
)

#: Targets by name.
TARGETS = {target.name: target for target in _ALL}
DEFAULT_TARGET = "zcu102"


def target(name: str) -> Target:
    """The target called ``name``; another name is refused with the list of those known."""
    if name not in TARGETS:
        raise UserError(f"target {name!r} is unknown; expected one of {', '.join(TARGETS)}")
    return TARGETS[name]

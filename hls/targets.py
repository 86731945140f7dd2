"""The devices that projects are generated for: one line a board."""

from dataclasses import dataclass

from braggnn_edge.errors import UserError


@dataclass(frozen=True)
class Target:
    """A board and the full part number, package and speed grade included, that the vendor's tools expect.

    luts: the part's look-up tables of six inputs, from the vendor's product tables.
    """

    name: str
    part: str
    board: str
    luts: int


_ALL = (
    Target("zcu102", "xczu9eg-ffvb1156-2-e", "AMD ZCU102 (Zynq UltraScale+ XCZU9EG)", 274_080),
    Target("zcu104", "xczu7ev-ffvc1156-2-e", "AMD ZCU104 (Zynq UltraScale+ XCZU7EV)", 230_400),
    Target("u280", "xcu280-fsvh2892-2L-e", "AMD Alveo U280", 1_303_680),
    Target("u250", "xcu250-figd2104-2L-e", "AMD Alveo U250", 1_728_000),
    Target("vcu118", "xcvu9p-flga2104-2L-e", "AMD VCU118 (Virtex UltraScale+ XCVU9P)", 1_182_240),
    Target("pynq-z2", "xc7z020clg400-1", "TUL PYNQ-Z2 (Zynq XC7Z020)", 53_200),
)

#: Targets by name.
TARGETS = {target.name: target for target in _ALL}
DEFAULT_TARGET = "zcu102"


def target(name: str) -> Target:
    """The target called ``name``; another name is refused with the list of those known."""
    if name not in TARGETS:
        raise UserError(f"target {name!r} is unknown; expected one of {', '.join(TARGETS)}")
    return TARGETS[name]

"""The table ``[rtl]``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from braggnn_edge.core.errors import UserError
from hls.project.targets import target
from hls.rtl.front_end.spec import FrontEndSpec

LANGUAGES = {"verilog": ".v", "vhdl": ".vhd"}

#: Adders or levels of look-up tables between two registers, unless asked otherwise.
DEFAULT_LEVELS = 3.0

#: Circuits above this many look-up tables, by :func:`estimate`, are not traced.
LIMIT = 200_000

#: The widest tag: what the simulation's driver holds in one word.
WIDEST_TAG = 64


def check_tag(bits: int) -> None:
    """Refuse a tag of an impossible width."""
    if not 0 <= bits <= WIDEST_TAG:
        raise UserError(f"rtl: tag_bits {bits} is impossible; expected 1 to {WIDEST_TAG}, or 0 for no tag")


@dataclass(frozen=True)
class RtlSpec:
    """The RTL projects of a circuit."""

    RENAMED: ClassVar[Mapping[str, str]] = {"levels": "logic_levels"}

    languages: tuple[str, ...] = ("verilog",)  # `"verilog"`, and `"vhdl"` after it if wanted
    # adders or levels of look-up tables between two registers: the depth of the pipeline
    logic_levels: float = DEFAULT_LEVELS
    shallow: bool = False  # sums take the fewest levels of adders: less latency, some per cent more look-up tables
    # a register behind the normalizer's leading zeros, whose copies then select the shift of each pixel: no select has
    # more than 64 loads, for some more registers ([measured](rtl.md#selects-of-the-shift)); on an ECP5 no faster
    register_selects: bool = False
    clock_mhz: float = 400.0  # what the constraints ask for
    target: str = "u280"  # board, as in `[hls]`
    limit: int = LIMIT  # look-up tables, estimated, above which nothing is unrolled
    vectors: int = 200  # test peaks among the golden vectors
    tag_bits: int = 0  # bits that travel beside each patch, for example its number and place; 0: no such ports
    front_end: FrontEndSpec = field(default_factory=FrontEndSpec)  # table below

    def __post_init__(self) -> None:
        if not self.languages or self.languages[0] != "verilog" or not set(self.languages) <= set(LANGUAGES):
            raise UserError(
                f"rtl: languages {', '.join(self.languages) or 'none'}; expected verilog, which is simulated, and then "
                f"any of {', '.join(LANGUAGES)}"
            )
        if len(set(self.languages)) != len(self.languages):
            raise UserError("rtl: languages must name each language once")
        if not self.logic_levels >= 1 or not self.clock_mhz > 0 or min(self.limit, self.vectors) < 1:
            raise UserError("rtl: logic_levels, limit and vectors must be at least 1, clock_mhz positive")
        check_tag(self.tag_bits)
        target(self.target)

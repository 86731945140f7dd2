"""Place and route with nextpnr: the clock that a circuit reaches on an ECP5, by the tool's own report."""

import json
from dataclasses import dataclass
from pathlib import Path

from braggnn_edge.core.errors import UserError
from hls.tools import programs as tools

#: The device: LFE5U-85F in its package with the most pins.
_DEVICE = ("--85k", "--package", "CABGA756")

#: Speed grades of ECP5, the slowest first.
SPEEDS = (6, 7, 8)


@dataclass(frozen=True)
class Placed:
    """fmax_mhz: of the routed design; asked_mhz: the clock that was asked for; used: cells by type, of how many."""

    fmax_mhz: float
    asked_mhz: float
    used: dict[str, int]
    available: dict[str, int]

    @property
    def met(self) -> bool:
        """Whether the timing is met."""
        return self.fmax_mhz >= self.asked_mhz


def place(directory: Path, clock_mhz: float, seed: int = 1, speed: int = SPEEDS[0]) -> Placed:
    """Place and route ``netlist.json`` in ``directory`` (:func:`hls.rtl.synthesis.synthesize` for ECP5), out of
    context.

    Out of context: without pins, of which a patch has more than the device; paths from and to the ports are not
    timed, but all inputs and outputs are registered. A clock that is not reached is no error. The log and the report
    are ``nextpnr.log`` and ``nextpnr.json``.
    """
    if speed not in SPEEDS:
        raise UserError(f"speed grade {speed} is unknown; expected one of {', '.join(map(str, SPEEDS))}")
    report = directory / "nextpnr.json"
    report.unlink(missing_ok=True)
    arguments = [
        *_DEVICE, "--speed", str(speed), "--out-of-context", "--json", "netlist.json", "--freq", f"{clock_mhz:g}",
        "--seed", str(seed), "--timing-allow-fail", "--report", report.name,
    ]  # fmt: skip
    tools.call(tools.NEXTPNR_ECP5, arguments, directory, directory / "nextpnr.log")
    return read_report(report)


def read_report(path: Path) -> Placed:
    """Read what nextpnr's ``--report`` wrote of a design with one clock."""
    try:
        document = json.loads(path.read_text())
        (clock,) = document["fmax"].values()
        cells = {name: entry for name, entry in document["utilization"].items() if entry["used"]}
        return Placed(
            float(clock["achieved"]),
            float(clock["constraint"]),
            {name: int(entry["used"]) for name, entry in cells.items()},
            {name: int(entry["available"]) for name, entry in cells.items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a report of nextpnr on one clock ({error!r}); place the design again") from error

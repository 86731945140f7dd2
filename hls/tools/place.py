"""Place and route with nextpnr: the clock that a circuit reaches on an ECP5, by the tool's own report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braggnn_edge.core.errors import UserError
from hls.tools import programs as tools

#: The device: LFE5U-85F in its package with the most pins.
DEVICE = ("--85k", "--package", "CABGA756")

#: Speed grades of ECP5, the slowest first.
SPEEDS = (6, 7, 8)


@dataclass(frozen=True)
class Critical:
    """The slowest path from register to register: its cells' names, and how much of it, in ns, is logic and wire."""

    begin: str
    end: str
    logic_ns: float
    wire_ns: float


@dataclass(frozen=True)
class Placed:
    """fmax_mhz: of the routed design; asked_mhz: the clock that was asked for; used: cells by type, of how many;
    critical: the slowest path between registers.
    """

    fmax_mhz: float
    asked_mhz: float
    used: dict[str, int]
    available: dict[str, int]
    critical: Critical

    @property
    def met(self) -> bool:
        """Whether the timing is met."""
        return self.fmax_mhz >= self.asked_mhz


def place(
    directory: Path, clock_mhz: float, seed: int = 1, speed: int = SPEEDS[0], *, pins: bool = False
) -> Placed:  # fmt: skip
    """Place and route ``netlist.json`` in ``directory`` (:func:`hls.rtl.synthesis.synthesize` for ECP5).

    pins: whether the design's ports are pins of the device, which nextpnr chooses. Otherwise it is placed out of
    context: without pins, of which a patch has more than the device. Paths from and to the ports are not timed. A clock
    that is not reached is no error. The log and the report are ``nextpnr.log`` and ``nextpnr.json``.
    """
    if speed not in SPEEDS:
        raise UserError(f"speed grade {speed} is unknown; expected one of {', '.join(map(str, SPEEDS))}")
    report = directory / "nextpnr.json"
    report.unlink(missing_ok=True)
    arguments = [
        *DEVICE, "--speed", str(speed), *(() if pins else ("--out-of-context",)), "--json", "netlist.json", "--freq",
        f"{clock_mhz:g}", "--seed", str(seed), "--timing-allow-fail", "--report", report.name,
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
            _critical(document["critical_paths"]),
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a report of nextpnr on one clock ({error!r}); place the design again") from error


def _critical(paths: list[dict[str, Any]]) -> Critical:
    """The path of the report that begins and ends at the clock."""
    (steps,) = (one["path"] for one in paths if "edge" in one["from"] and one["from"] == one["to"])
    wire = sum(step["delay"] for step in steps if step["type"] == "routing")
    rest = sum(step["delay"] for step in steps if step["type"] != "routing")
    return Critical(steps[0]["from"]["cell"], steps[-1]["to"]["cell"], round(rest, 3), round(wire, 3))

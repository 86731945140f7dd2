"""Reports that the vendor's tools left in a project: C synthesis (``csynth.xml``), Vivado's utilization and timing.

Figures are taken over as written and never completed: what a report does not say is absent. A report that is damaged,
or of another design or part, raises a UserError that says so; :func:`read_reports` leaves it out and hands on why.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from braggnn_edge.core.errors import UserError

#: A report of a network of ours has some hundred lines; this is far beyond, and still read in no time.
_MOST_BYTES = 64 * 2**20

#: What the tools write where they know no number.
_UNKNOWN = ("", "-", "?", "undef", "na", "n/a", "inf")

#: Rows of Vivado's utilization tables, in the words of UltraScale and 7-series parts. A block RAM tile has 36 Kbit.
_SITES = {
    "CLB LUTs": "lut", "Slice LUTs": "lut", "CLB Registers": "ff", "Slice Registers": "ff", "Block RAM Tile": "bram",
    "URAM": "uram", "DSPs": "dsp",
}  # fmt: skip

_STATES = {"synthesized": "synthesis", "routed": "place_and_route", "physopt postroute": "place_and_route"}


def report_files(project: Path, name: str) -> tuple[Path, ...]:
    """Every report in a project's directory, sorted: C synthesis of the top function ``name``, and Vivado's."""
    # hls4ml's build_prj.tcl: <name>_prj/solution1/syn/report/, and vivado_synth.rpt beside build_prj.tcl.
    top = {f"{name}_csynth.xml", f"{name}_axi_csynth.xml"}
    found = [path for path in project.glob("*_prj/*/syn/report/*_csynth.xml") if path.name in top]
    found += [path for path in project.rglob("*.rpt") if re.search("utilization|vivado_synth|timing", path.name)]
    return tuple(sorted(path for path in found if path.is_file()))


def read_reports(project: Path, name: str, part: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of figures, one a report, and why others were left out. name, part: the project's top function and part.

    A timing report adds its slack to the rows of the same state of the design.
    """
    rows: list[dict[str, Any]] = []
    slacks: dict[str, float] = {}
    left_out = []
    for path in report_files(project, name):
        try:
            if path.suffix == ".xml":
                rows.append(read_csynth(path, name, part))
            elif "timing" in path.name:
                state, slack = read_timing(path, name, part)
                slacks[state] = min(slack, slacks.get(state, slack))
            else:
                rows.append(read_utilization(path, name, part))
        except UserError as error:
            left_out.append(str(error))
    for row in rows:
        _put(row, "slack_ns", slacks.get(row["source"]))
    return rows, left_out


def read_csynth(path: Path, name: str, part: str) -> dict[str, Any]:
    """Estimates of C synthesis: worst case of latency and interval in cycles, resources, target clock in MHz.

    bram counts blocks of 18 Kbit.
    """
    text = _text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UserError(f"{path.name}: declares a document type, which no report of C synthesis does")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{path.name}: not a whole report of C synthesis ({error}); synthesize again") from error
    if root.tag != "profile" or root.find("AreaEstimates/Resources") is None:
        raise UserError(f"{path.name}: not a report of C synthesis; expected <profile> with <AreaEstimates>")
    assigned = root.find("UserAssignments")
    said = {child.tag: (child.text or "").strip() for child in (() if assigned is None else assigned)}
    _same_design(path, said.get("TopModelName", ""), said.get("Part", ""), name, part)
    row: dict[str, Any] = {"source": "vendor_report", "report": path.name, "part": part}
    if said.get("unit", "ns") == "ns" and (period := _number(path, "TargetClockPeriod", said.get("TargetClockPeriod"))):
        row["clock_mhz"] = round(1000 / period, 3)
    estimated = root.findtext("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")
    if period := _number(path, "EstimatedClockPeriod", estimated):
        row["estimated_clock_mhz"] = round(1000 / period, 3)
    overall = "PerformanceEstimates/SummaryOfOverallLatency"
    for key, tag in (("latency_cycles", "Worst-caseLatency"), ("interval_cycles", "Interval-max")):
        _put(row, key, _count(path, tag, root.findtext(f"{overall}/{tag}")))
    resources = {child.tag: child.text for child in root.iterfind("AreaEstimates/Resources/*")}
    resources.setdefault("DSP", resources.get("DSP48E"))  # Vitis HLS; Vivado HLS
    for key, tag in (("lut", "LUT"), ("ff", "FF"), ("dsp", "DSP"), ("bram", "BRAM_18K"), ("uram", "URAM")):
        _put(row, key, _count(path, tag, resources.get(tag)))
    return row


def read_utilization(path: Path, name: str, part: str) -> dict[str, Any]:
    """Vivado's ``report_utilization`` after synthesis or routing: look-up tables, registers, DSPs, memories."""
    text = _text(path)
    row: dict[str, Any] = {"source": _state(path, text, name, part), "report": path.name, "part": part}
    for site, used in _used(text):
        key = _SITES.get(site)
        if key is None or key in row:
            continue
        value = _number(path, site, used)
        if value is not None and key == "bram":
            value *= 2  # blocks of 18 Kbit, as C synthesis counts them
        if value is not None and value != int(value):
            raise UserError(f"{path.name}: {site} {used} is not a number of blocks")
        _put(row, key, None if value is None else int(value))
    if not {"lut", "ff", "dsp", "bram"} & set(row):
        raise UserError(f"{path.name}: no table of used sites; expected the output of report_utilization")
    return row


def read_timing(path: Path, name: str, part: str) -> tuple[str, float]:
    """Vivado's ``report_timing_summary``: the source that its state stands for, and the worst setup slack in ns."""
    text = _text(path)
    state = _state(path, text, name, part)
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if line.split()[:2] == ["WNS(ns)", "TNS(ns)"]]
    try:
        return state, float(lines[heads[0] + 2].split()[0])
    except (IndexError, ValueError) as error:
        raise UserError(
            f"{path.name}: no worst negative slack; expected the output of report_timing_summary"
        ) from error


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path.name}: {path.stat().st_size} bytes, far more than a report has")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name}: cannot be read as a report ({error})") from error


def _state(path: Path, text: str, name: str, part: str) -> str:
    """The source that the head's design state stands for; another design or part is refused."""
    head = dict(re.findall(r"^\| (Design|Device|Design State)\s*: (.*?)\s*\|?$", text, re.MULTILINE))
    _same_design(path, head.get("Design", ""), head.get("Device", ""), name, part)
    state = head.get("Design State", "").lower()
    if state not in _STATES:
        raise UserError(
            f"{path.name}: design state {state!r}; expected that of a synthesized or routed design, since figures in "
            "between are neither"
        )
    return _STATES[state]


def _same_design(path: Path, found: str, device: str, name: str, part: str) -> None:
    if found not in (name, f"{name}_axi"):
        raise UserError(f"{path.name}: is about {found or 'no design'}, the project's top function is {name}")
    ours, theirs = _bare(part), _bare(device)
    # Vivado leaves out the temperature grade, and hyphens and the "xc" of old parts.
    if not theirs or not (ours.startswith(theirs) and len(ours) - len(theirs) <= 1):
        raise UserError(f"{path.name}: is for part {device or 'unknown'}, the project is for {part}")


def _bare(part: str) -> str:
    return re.sub("[^a-z0-9]", "", part.lower()).removeprefix("xc")


def _used(text: str) -> Iterator[tuple[str, str]]:
    """(site, used) of every row of the tables that have both columns."""
    column = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]] if line.startswith("|") else []
        if "Site Type" in cells and "Used" in cells:
            column = cells.index("Used")
        elif not line.startswith(("|", "+")):
            column = None
        elif column is not None and len(cells) > column:
            yield cells[0].rstrip("*").strip(), cells[column]


def _number(path: Path, what: str, text: str | None) -> float | None:
    """A number of at least 0; None where the tool knew none."""
    if text is None or text.strip().lower() in _UNKNOWN:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15:
        raise UserError(f"{path.name}: {what} {text.strip()[:40]!r} is not a number of at least 0")
    return value


def _count(path: Path, what: str, text: str | None) -> int | None:
    value = _number(path, what, text)
    if value is not None and value != int(value):
        raise UserError(f"{path.name}: {what} {text!r} is not a whole number")
    return None if value is None else int(value)


def _put(row: dict[str, Any], key: str, value: Any) -> None:
    if value is not None:
        row[key] = value

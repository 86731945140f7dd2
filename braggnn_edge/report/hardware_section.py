"""The report's section on hardware: figures of every project by their source, and the layers of the counted ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from braggnn_edge.report.elements import section

_SOURCES = {
    "synthesis": "synthesis", "place_and_route": "place and route", "vendor_report": "vendor report (C synthesis)",
    "analytic": "our cost model: an estimate, not a synthesis result",
}  # fmt: skip
_FIGURES = {
    "source": "source of the figures", "project": "project", "part": "FPGA part", "io": "interface",
    "keys_per_cycle": "keys per cycle", "clock_mhz": "clock asked for (MHz)", "counted": "counted",
    "estimated_clock_mhz": "clock that C synthesis expects (MHz)", "slack_ns": "slack (ns)",
    "latency_cycles": "latency (cycles)", "interval_cycles": "initiation interval (cycles)",
    "interval_us": "initiation interval at the clock asked for (us)",
    "lut": "LUT", "ff": "FF", "dsp": "DSP", "bram": "BRAM (18 Kbit)",
    "uram": "URAM", "memory_bits": "memory (bits)",
}  # fmt: skip
#: Rows of the table that are always drawn.
_ALWAYS = ("source", "part", "io", "clock_mhz", "latency_cycles", "interval_cycles", "lut", "ff", "dsp", "bram")
_ESTIMATES = ("latency_cycles", "interval_cycles", "interval_us", "lut", "ff", "dsp", "bram", "memory_bits")


def hardware_section(hardware: Sequence[Mapping[str, Any]]) -> str:
    """The table, one column a project and source; flags; the layers of every project that was counted."""
    entries = [_described(entry) for entry in hardware]
    counted = [entry for entry in entries if entry["estimated"]]
    figures = {k: text for k, text in _FIGURES.items() if k in _ALWAYS or any(e.get(k) is not None for e in entries)}
    flags = [text for text in map(too_large, counted) if text]
    return section("hardware.html", entries=entries, figures=figures, counted=counted, flags=flags)


def too_large(entry: Mapping[str, Any]) -> str:
    """What there is to say of a counted project whose multipliers could exceed its part's DSP slices, else nothing."""
    needed, there = entry.get("dsp"), entry.get("dsp_available")
    if needed is None or there is None or needed <= there:
        return ""
    return (
        f"{_title(entry)}: up to {needed:,} DSP slices, the FPGA has {there:,}. It fits only if the tool builds at "
        f"least {needed - there:,} of them from look-up tables, or with larger reuse factors or fewer keys per cycle."
    )


def _described(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with a title, its source in words, the keys that are estimates and, where known, us between patches."""
    found = {key: value for key, value in entry.items() if value is not None}
    found |= {"title": _title(entry), "estimated": []}
    if "interval_cycles" in found and found.get("clock_mhz"):
        found["interval_us"] = round(found["interval_cycles"] / found["clock_mhz"], 3)
    if "source" in found:
        if found["source"] == "analytic":
            found["estimated"] = [key for key in _ESTIMATES if key in found]
        tool = f" ({found['tool']})" if "tool" in found else ""
        found["source"] = _SOURCES.get(found["source"], found["source"]) + tool
    return found


def _title(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('project', entry.get('io', ''))} ({entry.get('part', 'part unknown')})"

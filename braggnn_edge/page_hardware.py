"""The report's section on hardware: figures of every project by their source, and the bill of the counted ones."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from braggnn_edge.page_elements import NOT_MEASURED, number, table

_SOURCES = {
    "synthesis": "synthesis", "place_and_route": "place and route", "vendor_report": "vendor report (C synthesis)",
    "analytic": "analytic <b>estimate</b>, not a synthesis result",
}  # fmt: skip
_FIGURES = {
    "source": "source of the figures", "project": "project", "part": "part", "io": "io", "parallel": "keys a cycle",
    "clock_mhz": "clock (MHz)", "estimated_clock_mhz": "clock that C synthesis expects (MHz)", "slack_ns": "slack (ns)",
    "latency_cycles": "latency (cycles)", "interval_cycles": "interval (cycles)", "interval_us": "interval (us)",
    "lut": "LUT", "ff": "FF", "dsp": "DSP", "bram": "BRAM (18 Kbit)", "uram": "URAM", "memory_bits": "memory (bits)",
}  # fmt: skip
#: Rows of the table that are always drawn.
_ALWAYS = ("source", "part", "io", "clock_mhz", "latency_cycles", "interval_cycles", "lut", "ff", "dsp", "bram")
_ESTIMATES = ("latency_cycles", "interval_cycles", "interval_us", "lut", "ff", "dsp", "bram", "memory_bits")


def hardware_section(hardware: Sequence[Mapping[str, Any]]) -> str:
    """The table, one column a project and source; flags; the layers of every project that was counted."""
    if not hardware:
        return f"<h2>Hardware</h2><p>{NOT_MEASURED}: no synthesis or vendor report is at hand.</p>"
    entries = [_with_time(entry) for entry in hardware]
    rows = []
    for key, text in _FIGURES.items():
        if key in _ALWAYS or any(entry.get(key) is not None for entry in entries):
            rows.append([text, *(_cell(entry, key) for entry in entries)])
    head = ["", *(escape(str(entry.get("form", ""))) for entry in entries)]
    counted = [entry for entry in entries if entry.get("source") == "analytic"]
    flags = "".join(f'<p class="note">{escape(text)}</p>' for text in map(too_large, counted) if text)
    bills = "".join(_bill(entry) for entry in counted if entry.get("layers"))
    said = (
        '<p class="soft">~: counted in the generated source, analytic, not synthesized. DSP is then the number of '
        "slices if no multiplier is built from look-up tables or shared: an upper bound.</p>"
        if counted
        else ""
    )
    return "<h2>Hardware</h2>" + table(head, rows, kind="narrow") + said + flags + bills


def too_large(entry: Mapping[str, Any]) -> str:
    """What there is to say of a counted project whose multipliers could exceed its part's DSP slices, else nothing."""
    needed, there = entry.get("dsp"), entry.get("dsp_available")
    if needed is None or there is None or needed <= there:
        return ""
    return (
        f"{_title(entry)}: up to {needed:,} DSP slices, the part has {there:,}. It fits only if the tool builds at "
        f"least {needed - there:,} of them from look-up tables, or with larger reuse factors or fewer keys a cycle."
    )


def _with_time(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    cycles, clock = entry.get("interval_cycles"), entry.get("clock_mhz")
    return {**entry, "interval_us": round(cycles / clock, 3)} if cycles is not None and clock else entry


def _title(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('project', entry.get('io', ''))} ({entry.get('part', 'part unknown')})"


def _cell(entry: Mapping[str, Any], key: str) -> str:
    value, source = entry.get(key), entry.get("source")
    if key == "source":
        return _SOURCES.get(str(source), escape(str(source))) if source else NOT_MEASURED
    estimated = source == "analytic" and key in _ESTIMATES and value is not None
    return ("~ " if estimated else "") + number(value)


def _bill(entry: Mapping[str, Any]) -> str:
    """Layer by layer: cycles, multipliers, memories, FIFOs."""
    keys = ("reuse", "interval_cycles", "depth_cycles", "multipliers", "constant_bits", "table_bits", "buffer_bits",
            "stream_bits")  # fmt: skip
    rows = []
    for layer in entry["layers"]:
        cells = [escape(str(layer["name"])), escape(str(layer["kind"]))]
        cells += ["" if layer.get(key) is None else number(layer[key]) for key in keys]
        streams = layer.get("streams", [])
        cells.append(", ".join(escape(f"{s['name']} {s['depth']} ({s['least']})") for s in streams))
        rows.append(cells)
    head = ["layer", "kind", "reuse", "interval", "depth", "multipliers", "constants (bits)", "tables (bits)",
            "buffers (bits)", "streams (bits)", "depth of streams (least)"]  # fmt: skip
    return (
        f"<h3>Bill of {escape(_title(entry))}: analytic, not synthesized</h3>"
        + table(head, rows, text=2)
        + '<p class="soft">Cycles a patch; the depths of pipelines are assumed. Constants are weights and biases, '
        "which become logic. Below the least depth of a stream the design stops for good.</p>"
    )

"""The report's section on hardware: what is counted is called so, and stands beside what was synthesized."""

from typing import Any

from braggnn_edge.report.hardware_section import hardware_section, too_large

LAYER: dict[str, Any] = {
    "name": "nlb", "kind": "nonlocal", "interval_cycles": 427, "depth_cycles": 55, "multipliers": 2733,
    "constant_bits": 1, "table_bits": 2, "buffer_bits": 3, "stream_bits": 4,
    "streams": [{"name": "nlb.pixels", "kind": "fifo", "depth": 162, "least": 81, "token_bits": 512}],
}  # fmt: skip
COUNTED: dict[str, Any] = {
    "form": "hls4ml", "project": "boards/<u280>", "part": "xcu280", "io": "io_stream", "clock_mhz": 250.0,
    "source": "analytic", "interval_cycles": 427, "latency_cycles": 1250, "dsp": 7130, "dsp_available": 9024,
    "memory_bits": 600_000, "keys_per_cycle": 17, "layers": [LAYER],
}  # fmt: skip
REPORTED = {"form": "hls4ml", "project": "boards/<u280>", "source": "vendor_report", "dsp": 5000, "clock_mhz": 250.0,
            "interval_cycles": 440}  # fmt: skip


def test_counted_figures_are_marked_and_others_are_not():
    html = hardware_section([COUNTED, REPORTED])
    assert "<td>~ 427</td><td>440</td>" in html
    assert "<td>~ 1.708</td><td>1.76</td>" in html  # us, at 250 MHz
    assert "<td>~ 7,130</td><td>5,000</td>" in html
    assert "our cost model: an estimate, not a synthesis result" in html
    assert "vendor report (C synthesis)" in html
    assert "predicts one patch every 1.708 us for boards/&lt;u280&gt; (xcu280)" in html
    assert "<u280>" not in html
    assert "cost model" not in hardware_section([REPORTED])


def test_bill_names_layers_and_streams():
    html = hardware_section([COUNTED])
    assert "Layers of boards/&lt;u280&gt; (xcu280)" in html
    assert "nlb.pixels 162 (81)" in html
    assert "Layers" not in hardware_section([REPORTED])


def test_project_beyond_its_part_is_flagged_in_words():
    beyond = COUNTED | {"dsp": 9100}
    assert "up to 9,100 DSP slices, the FPGA has 9,024" in too_large(beyond)
    assert "at least 76 of them from look-up tables" in hardware_section([beyond])
    assert too_large(COUNTED | {"dsp": 9024}) == too_large({"dsp": 9100}) == too_large({"dsp_available": 1}) == ""


def test_nothing_at_hand_is_said():
    assert "no synthesis or vendor report is at hand" in hardware_section([])

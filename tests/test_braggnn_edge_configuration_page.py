"""docs/reference/configuration.md names every key of every table with its default."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from braggnn_edge.core.config import parse
from braggnn_edge.label.spec import DetectorSpec, PeakSpec, ScanSpec, SplitSpec
from braggnn_edge.report.spec import ReportSpec
from braggnn_edge.simulation.spec import SimulationSpec
from braggnn_edge.training.spec import LoopSpec, NetworkSpec, TrainSpec
from firmware_sim.search.spec import SearchSpec
from firmware_sim.verification.spec import CsimSpec
from hls.project.spec import HlsSpec
from hls.rtl.spec import RtlSpec
from quant.training.circuit_spec import CircuitNetworkSpec, CircuitSpec, FrontSpec
from quant.training.plan import AttentionPlan, BitPlan
from quant.training.spec import QatSpec

#: In the order of the page.
TABLES = (
    ScanSpec, DetectorSpec, SimulationSpec, PeakSpec, SplitSpec, TrainSpec, NetworkSpec, LoopSpec, BitPlan,
    AttentionPlan, QatSpec, CircuitSpec, FrontSpec, CircuitNetworkSpec, HlsSpec, CsimSpec, RtlSpec,
    SearchSpec, ReportSpec,
)  # fmt: skip
PAGE = (Path(__file__).parents[1] / "docs/reference/configuration.md").read_text(encoding="utf-8")
WRITTEN = [re.findall(r"^\| `(\w+)` \| (.*?) \|", part, flags=re.M) for part in PAGE.split("| key | default |")[1:]]


def test_every_table_has_its_page() -> None:
    assert len(WRITTEN) == len(TABLES)


@pytest.mark.parametrize(("table", "rows"), list(zip(TABLES, WRITTEN, strict=False)), ids=lambda item: str(item)[:40])
def test_keys_and_defaults_are_those_of_the_code(table: type, rows: list[tuple[str, str]]) -> None:
    fields = dataclasses.fields(table)
    assert [name for name, _ in rows] == [field.name for field in fields]
    for field, (name, written) in zip(fields, rows, strict=True):
        if dataclasses.MISSING is field.default is field.default_factory:
            assert written == "required", name
        elif written:  # empty for a nested table
            value = tomllib.loads(f"value = {written.strip('`')}")["value"]
            kind = type(field.default)
            expected = list(field.default) if isinstance(field.default, tuple) else field.default
            assert (parse(float, value, name) if kind is float else value) == expected, name
        else:
            assert field.default is dataclasses.MISSING, name


def test_loop_of_the_fine_tuning_is_as_written() -> None:
    section = PAGE[PAGE.index("Its `loop` defaults to") :].split("\n\n")[0]
    written = dict(re.findall(r"`(\w+) = ([^`]+)`", section))
    values = {name: tomllib.loads(f"value = {text}")["value"] for name, text in written.items()}
    assert LoopSpec(**values) == QatSpec().loop


def test_loops_of_the_circuit_are_as_written() -> None:
    section = PAGE[PAGE.index("## `[circuit]`") : PAGE.index("### `[circuit.front]`")]
    rows = dict(re.findall(r"^\| `(float_loop|loop)` \|  \| (.*?) \|", section, flags=re.M))
    written = dict(re.findall(r"`(\w+) = ([^`]+)`", rows["float_loop"]))
    values = {name: tomllib.loads(f"value = {text}")["value"] for name, text in written.items()}
    assert LoopSpec(**values) == CircuitSpec().float_loop
    changed = dict(re.findall(r"`(\w+) = ([^`]+)`", rows["loop"]))
    values |= {name: tomllib.loads(f"value = {text}")["value"] for name, text in changed.items()}
    assert LoopSpec(**values) == CircuitSpec().loop


def test_loops_of_the_search_are_as_written() -> None:
    for name in ("float_loop", "loop"):
        (line,) = re.findall(rf"^`{name}`: (.*)\.$", PAGE, flags=re.M)
        written = dict(re.findall(r"`(\w+) = ([^`]+)`", line))
        values = {key: tomllib.loads(f"value = {text}")["value"] for key, text in written.items()}
        assert LoopSpec(**values) == getattr(SearchSpec(), name)

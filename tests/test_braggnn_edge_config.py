"""TOML to typed sections: corner-case files end in one message that names the key, never in a traceback."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from braggnn_edge.core import config
from braggnn_edge.core.errors import UserError
from braggnn_edge.label.spec import DetectorSpec, ScanSpec
from braggnn_edge.simulation.spec import SimulationSpec
from firmware_sim.search.spec import SearchSpec
from hls.project.spec import BoardSpec, HlsSpec
from hls.rtl.spec import RtlSpec
from quant.training.circuit_spec import CircuitSpec, FrontEndSpec


@dataclass(frozen=True)
class Inner:
    depth: int = 1
    mode: Literal["slow", "fast"] = "slow"


@dataclass(frozen=True)
class Section:
    rate: float
    widths: tuple[int, ...] = (4, 2)
    pair: tuple[float, str] = (1.0, "a")
    bits: int | tuple[int, ...] = 6
    limit: float | None = None
    on: bool = False
    label: str = ""
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise UserError(f"rate {self.rate} must be positive")


@dataclass(frozen=True)
class Item:
    name: str
    inner: Inner = field(default_factory=Inner)


SECTIONS: dict[str, Any] = {"main": Section, "item": tuple[Item, ...]}


def load(tmp_path: Path, text: str | bytes) -> config.Config:
    path = tmp_path / "case.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return config.load(path, SECTIONS)


@dataclass(frozen=True)
class Deep:
    a: int = 0
    b: int = 0


@dataclass(frozen=True)
class Extended:
    x: float = 0.0
    y: float = 0.0
    deep: Deep = field(default_factory=Deep)


def test_full_file(tmp_path: Path) -> None:
    cfg = load(
        tmp_path,
        """
        name = "run-1"
        seed = 7
        [main]
        rate = 2
        widths = [8, 4, 2]
        pair = [3, "b"]
        bits = [5, 6]
        limit = 0.5
        on = true
        inner = { depth = 3, mode = "fast" }
        [[item]]
        name = "first"
        [[item]]
        name = "second"
        [item.inner]
        depth = 9
        """,
    )
    expected = Section(2.0, (8, 4, 2), (3.0, "b"), (5, 6), 0.5, True, "", Inner(3, "fast"))
    assert (cfg.name, cfg.seed, cfg.folder) == ("run-1", 7, tmp_path)
    assert cfg["main"] == expected
    assert type(cfg["main"].rate) is float
    assert cfg["item"] == (Item("first"), Item("second", Inner(9)))


def test_defaults_come_from_the_dataclass_and_the_file_name(tmp_path: Path) -> None:
    cfg = load(tmp_path, "[main]\nrate = 1.0\n")
    assert (cfg.name, cfg.seed) == ("case", 1)
    assert cfg["main"] == Section(1.0)
    assert cfg["item"] == ()


def test_plain_is_what_a_manifest_needs(tmp_path: Path) -> None:
    cfg = load(tmp_path, '[main]\nrate = 1.0\n[[item]]\nname = "x"\n')
    assert cfg.plain(("item",)) == {"seed": 1, "item": [{"name": "x", "inner": {"depth": 1, "mode": "slow"}}]}
    assert cfg.plain(("main",))["main"]["widths"] == [4, 2]


def test_sections_cannot_be_changed(tmp_path: Path) -> None:
    cfg = load(tmp_path, "[main]\nrate = 1.0\n")
    with pytest.raises(TypeError):
        cfg.sections["main"] = None  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[mian]\nrate = 1", ["unknown key 'mian'", "name, seed, extends, folder, main, item"]),
        ("[main]\nrate = 1\nrat = 2", ["main: unknown key 'rat'", "rate, widths"]),
        ("[main]\nrate = 1\ninner = { dept = 1 }", ["main.inner: unknown key 'dept'", "depth, mode"]),
        ('[main]\nrate = 1\n[[item]]\nname = "a"\n[[item]]\nnam = "b"', ["item[1]: unknown key 'nam'", "name, inner"]),
        ("[main]\nlabel = 'x'", ["main: the key 'rate' is missing"]),
        ("", ["main: the key 'rate' is missing"]),
        ("[main]\nrate = 'fast'", ["main.rate: expected number, got 'fast'"]),
        ("[main]\nrate = true", ["main.rate: expected number, got True"]),
        ("[main]\nrate = nan", ["main.rate: expected a finite number, got nan"]),
        ("[main]\nrate = inf", ["main.rate: expected a finite number"]),
        ("[main]\nrate = 1" + "0" * 400, ["main.rate: expected a finite number"]),
        ("[main]\nrate = -1", ["main: rate -1.0 must be positive"]),
        ("[main]\nrate = 1\non = 1", ["main.on: expected true or false, got 1"]),
        ("[main]\nrate = 1\nlabel = 1979-05-27", ["main.label: expected text"]),
        ("[main]\nrate = 1\nwidths = 3", ["main.widths: expected a list, got 3"]),
        ("[main]\nrate = 1\nwidths = [3, 4.0]", ["main.widths[1]: expected integer, got 4.0"]),
        ("[main]\nrate = 1\nwidths = [3, true]", ["main.widths[1]: expected integer, got True"]),
        ("[main]\nrate = 1\npair = [1.0]", ["main.pair: expected 2 values, got 1"]),
        ("[main]\nrate = 1\nbits = 'many'", ["main.bits: expected integer or list of integer, got 'many'"]),
        ("[main]\nrate = 1\nbits = true", ["main.bits: expected integer or list of integer, got True"]),
        ("[main]\nrate = 1\nlimit = 'low'", ["main.limit: expected number, got 'low'"]),
        ("[main]\nrate = 1\ninner = { mode = 'medium' }", ["main.inner.mode: 'medium' is not one of 'slow', 'fast'"]),
        ("[main]\nrate = 1\ninner = 4", ["main.inner: expected a table, got 4"]),
        ("[[main]]\nrate = 1", ["main: expected a table, got [{"]),
        ("main = 3", ["main: expected a table, got 3"]),
        ("[main]\nrate = 1\n[item]\nname = 'x'", ["item: expected a list, got {"]),
        ("seed = -1\n[main]\nrate = 1", ["seed -1 is out of range"]),
        ("seed = 99999999999999999999999\n[main]\nrate = 1", ["is out of range"]),
        ("seed = 1.0\n[main]\nrate = 1", ["seed: expected integer, got 1.0"]),
        ("name = '../up'\n[main]\nrate = 1", ["name '../up' is not a folder name"]),
        ("name = '..'\n[main]\nrate = 1", ["name '..' is not a folder name"]),
        ("name = ''\n[main]\nrate = 1", ["name '' is not a folder name"]),
        ("name = 3\n[main]\nrate = 1", ["name: expected text, got 3"]),
        ("[main\nrate = 1", ["cannot be read as TOML"]),
        ("[main]\nrate = 1\nrate = 2", ["cannot be read as TOML"]),
        (b"[main]\nlabel = '\xff\xfe'", ["cannot be read as TOML"]),
        ("a = " + "[" * 100_000, ["cannot be read as TOML"]),
    ],
)
def test_bad_files(tmp_path: Path, text: str | bytes, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "case.toml" in message
    for part in parts:
        assert part in message


def test_a_file_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        'name = "base"\nseed = 5\n[one]\nx = 1.0\ny = 2.0\n[one.deep]\na = 1\nb = 2\n[[s]]\n[[s]]\n'
    )
    (tmp_path / "top.toml").write_text('extends = "base.toml"\n[one]\ny = 3.0\ndeep = { b = 4 }\n[[s]]\n')
    (tmp_path / "higher.toml").write_text('extends = "top.toml"\nseed = 6\n[one]\nx = 0.5\n')
    kinds: dict[str, Any] = {"one": Extended, "s": tuple[Deep, ...]}
    found = config.load(tmp_path / "top.toml", kinds)
    assert (found.name, found.seed, found["one"]) == ("top", 5, Extended(1.0, 3.0, Deep(1, 4)))
    assert len(found["s"]) == 1
    found = config.load(tmp_path / "higher.toml", kinds)
    assert (found.name, found.seed, found["one"]) == ("higher", 6, Extended(0.5, 3.0, Deep(1, 4)))
    (tmp_path / "base.toml").write_text('extends = "higher.toml"\n')
    with pytest.raises(UserError, match=r"extends 'higher.toml', which extends it in turn"):
        config.load(tmp_path / "higher.toml", kinds)
    (tmp_path / "base.toml").write_text('extends = "none.toml"\n')
    with pytest.raises(UserError, match=r"none.toml does not exist"):
        config.load(tmp_path / "higher.toml", kinds)
    (tmp_path / "base.toml").write_text("extends = 3\n")
    with pytest.raises(UserError, match=r"base.toml: extends: expected text, got 3"):
        config.load(tmp_path / "base.toml", kinds)


def test_relative_paths_start_from_the_folder_that_a_file_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "base.toml").write_text('folder = "data"\n')
    (tmp_path / "top.toml").write_text('extends = "base.toml"\n')
    assert config.load(tmp_path / "base.toml", {}).folder == tmp_path / "data"
    assert config.load(tmp_path / "top.toml", {}).folder == tmp_path == config.folder_of(tmp_path / "top.toml")
    (tmp_path / "base.toml").write_text('folder = "none"\n')
    with pytest.raises(UserError, match=r"base.toml: folder 'none' is not a folder"):
        config.load(tmp_path / "base.toml", {})


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml does not exist; the ones provided are in configs/"):
        config.load(tmp_path / "none.toml", SECTIONS)
    with pytest.raises(UserError, match="cannot be read as TOML"):
        config.load(tmp_path, SECTIONS)


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    assert load(tmp_path, "[main]\nrate = 1\nlabel = 'Cramér'")["main"].label == "Cramér"


def test_numbers_stay_finite_and_exact() -> None:
    assert config.parse(float, 2**53 + 1, "x") == 2.0**53
    assert config.parse(float, -0.0, "x") == 0.0
    assert math.copysign(1, config.parse(float, -0.0, "x")) == -1
    assert config.parse(int, 2**70, "x") == 2**70


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAGG_DATA", "/data")
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("BRAGG_NONE", raising=False)
    assert config.resolve_path("a/b.h5", tmp_path) == tmp_path / "a/b.h5"
    assert config.resolve_path("$BRAGG_DATA/b.h5", tmp_path) == Path("/data/b.h5")
    assert config.resolve_path("${BRAGG_DATA}/b.h5", tmp_path) == Path("/data/b.h5")
    assert config.resolve_path("~/b.h5", tmp_path) == Path("/home/someone/b.h5")
    with pytest.raises(UserError, match=r"'\$BRAGG_NONE/b.h5' uses an environment variable that is not set"):
        config.resolve_path("$BRAGG_NONE/b.h5", tmp_path)


#: Tables that kept their names while keys of theirs got new ones.
RENAMED = [
    (ScanSpec, "type_maximum", "overflow_value"), (DetectorSpec, "floor", "zero_suppression"),
    (SimulationSpec, "floor", "least_height"), (FrontEndSpec, "drop", "discarded_bits"),
    (CircuitSpec, "front", "front_end"), (CircuitSpec, "pressure", "lut_penalty"),
    (HlsSpec, "parallel", "keys_per_cycle"), (BoardSpec, "parallel", "keys_per_cycle"),
    (RtlSpec, "levels", "logic_levels"), (SearchSpec, "pressed", "budgeted"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "old", "new"), RENAMED)
def test_a_key_of_old_is_refused_with_its_new_name(table: type, old: str, new: str) -> None:
    with pytest.raises(UserError, match=f"table: the key '{old}' is now called '{new}'"):
        config.parse(table, {old: 1}, "table")
    assert new in {field.name for field in dataclasses.fields(table)}
    assert set(table.RENAMED.items()) == {(a, b) for kind, a, b in RENAMED if kind is table}


def test_only_what_was_written_is_expanded_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/cost $ONE")
    monkeypatch.setenv("ONE", "/data/$TWO")
    monkeypatch.setenv("TWO", "wrong")
    assert config.resolve_path("~/b.h5", tmp_path) == Path("/home/cost $ONE/b.h5")
    assert config.resolve_path("$ONE/b.h5", tmp_path) == Path("/data/$TWO/b.h5")
    assert config.resolve_path("price $/b.h5", tmp_path) == tmp_path / "price $/b.h5"
    folder = tmp_path / "run$TWO"
    assert config.resolve_path("b.h5", folder) == folder / "b.h5"

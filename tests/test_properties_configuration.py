"""Properties of configurations and of what they identify: written and read again, and every key told apart."""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_braggnn_edge_config import SECTIONS, Item, Section

from braggnn_edge.core import config, rundir
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import tables

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))
RATES = st.floats(0, exclude_min=True, allow_infinity=False)
PATHS = st.builds("/{}/{}".format, st.sampled_from("ab"), st.sampled_from("xy"))
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | PATHS


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of the type of a key, as a dataclass holds them."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([st.none() if one is type(None) else values(one) for one in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is typing.Annotated:
        return values(arguments[0])
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{f.name: values(hints[f.name]) for f in dataclasses.fields(kind) if f.init})
    scalars = {bool: st.booleans(), int: st.integers(-(2**40), 2**40), str: TEXT}
    return scalars.get(kind, st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 64).map(float))


def toml(value: Any) -> str:
    """A value in TOML; a key that is None is left out."""
    if dataclasses.is_dataclass(value):
        given_ = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return "{" + ", ".join(f"{name} = {toml(one)}" for name, one in given_.items() if one is not None) + "}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    text = json.dumps(value, ensure_ascii=False)  # TOML's basic strings are JSON's, but for the delete character
    return text.replace("\x7f", "\\u007f")


@st.composite
def sections(draw: st.DrawFn) -> Section:
    hints = typing.get_type_hints(Section)
    rest = {name: draw(values(hint)) for name, hint in hints.items() if name != "rate"}
    return Section(draw(RATES), **rest)


@given(sections(), st.lists(values(Item), max_size=2), st.integers(0, 2**32 - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_again(tmp_path: Path, main: Section, items: list[Item], seed: int) -> None:
    path = tmp_path / "case.toml"
    path.write_text(f"seed = {seed}\nmain = {toml(main)}\nitem = {toml(tuple(items))}\n", encoding="utf-8")
    read = config.load(path, SECTIONS)
    assert read.seed == seed
    assert read["main"] == main
    assert read["item"] == tuple(items)
    plain = read.plain(("main", "item"))
    assert json.loads(json.dumps(plain)) == plain


def leaves(table: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key of a table and of the tables in it, with its type; lists of tables left out."""
    hints = typing.get_type_hints(type(table), include_extras=True)
    for field in dataclasses.fields(table):
        inner = getattr(table, field.name)
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, (*where, field.name))
        elif field.init and not any(map(dataclasses.is_dataclass, typing.get_args(hints[field.name]))):
            yield (*where, field.name), hints[field.name]


def changed(table: Any, where: tuple[str, ...], value: Any) -> Any:
    inner = value if len(where) == 1 else changed(getattr(table, where[0]), where[1:], value)
    return dataclasses.replace(table, **{where[0]: inner})


def shown(table: Any, where: tuple[str, ...], kind: Any) -> Any:
    """A key's value, as far as it is a part of a result: of an absolute path its last part."""
    for name in where:
        table = getattr(table, name)
    return config.shortened(table) if kind == config.FilePath else table


@functools.cache
def loaded(path: Path) -> config.Config:
    return config.load(path, tables())


@pytest.mark.parametrize("name", sorted(tables()))
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_tables_that_differ_are_told_apart(name: str, data: st.DataObject) -> None:
    """A key of a table is set to two values: the identities differ as these do."""
    cfg = loaded(data.draw(st.sampled_from([path for path in CONFIGS if loaded(path)[name] != ()])))
    table = cfg[name][0] if isinstance(cfg[name], tuple) else cfg[name]
    key = data.draw(st.sampled_from(list(leaves(table))))
    check_told_apart(cfg, name, *key, data.draw(st.tuples(values(key[1]), values(key[1]))))


@pytest.mark.parametrize("name", sorted(tables()))
def test_folders_are_told_apart_wherever_they_are_no_files(name: str) -> None:
    for cfg in [loaded(path) for path in CONFIGS if loaded(path)[name] != ()]:
        table = cfg[name][0] if isinstance(cfg[name], tuple) else cfg[name]
        for where, kind in leaves(table):
            if kind in (str, config.FilePath):
                check_told_apart(cfg, name, where, kind, ("/a/frames", "/b/frames"))


def check_told_apart(cfg: config.Config, name: str, where: tuple[str, ...], kind: Any, pair: tuple[Any, Any]) -> None:
    """Configurations with these two values of a key have two identities where the key's part in a result differs."""
    table = cfg[name][0] if isinstance(cfg[name], tuple) else cfg[name]
    parts, plain = [], []
    for value in pair:
        try:
            other = changed(table, where, value)
        except UserError:  # refused: no stage sees it
            return
        parts.append(shown(other, where, kind))
        section = (other, *cfg[name][1:]) if isinstance(cfg[name], tuple) else other
        found = dataclasses.replace(cfg, sections={**cfg.sections, name: section}).plain((name,))
        plain.append(json.loads(json.dumps(found)))
    assert (plain[0] == plain[1]) == (parts[0] == parts[1]), where


@given(settings_=st.dictionaries(TEXT, st.integers() | TEXT, max_size=3), content=st.binary(max_size=9), data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_stage_runs_again_for_another_input_and_for_no_other_reason(
    tmp_path_factory: pytest.TempPathFactory, settings_: dict[str, Any], content: bytes, data: st.DataObject
) -> None:
    run, folder = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("input")
    source = folder / "input"
    source.write_bytes(content)

    def up_to_date(values_: dict[str, Any]) -> bool:
        stage = rundir.Stage("made", (), values_, (source,), lambda partial: (partial / "out").write_bytes(content))
        return not rundir.execute(run, stage, lambda _: None)

    assert not up_to_date(settings_)
    assert up_to_date(dict(reversed(settings_.items())))  # the order of keys is nothing
    other = data.draw(st.dictionaries(TEXT, st.integers() | TEXT, max_size=3))
    assert up_to_date(other) == (other == settings_)
    another = data.draw(st.binary(max_size=9))
    source.write_bytes(another)
    assert up_to_date(other) == (another == content)

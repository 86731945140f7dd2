"""The reference of the configuration, written from the tables' dataclasses: types, defaults, and the fields' comments.

A field's comment is what stands behind it on its line, or the comment lines above it.
"""

import ast
import dataclasses
import inspect
import json
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

from braggnn_edge.core.config import type_words
from braggnn_edge.core.stages import tables

_HEAD = "| key | type | default | meaning |\n|---|---|---|---|\n"


@cache
def comments(kind: type) -> dict[str, str]:
    """The comment of every field that a dataclass defines itself."""
    source = inspect.getsource(kind)
    lines = source.splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    (node,) = ast.parse("\n".join(line[indent:] for line in lines)).body
    found = {}
    for statement in typing.cast(ast.ClassDef, node).body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        last = lines[typing.cast(int, statement.end_lineno) - 1][typing.cast(int, statement.end_col_offset) + indent :]
        above = []
        for line in reversed(lines[: statement.lineno - 1]):
            if not line.strip().startswith("#"):
                break
            above.append(line.strip().lstrip("#: "))
        beside = last.strip().lstrip("# ").removeprefix("fmt: skip")
        found[statement.target.id] = beside or " ".join(reversed(above))
    return found


def shown(value: Any) -> str:
    """A default as TOML; of a table what differs from the table's own defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        changed = [f"{field.name} = {_toml(one)}" for field, one in pairs if one != _default(field)]
        return f"`{{ {', '.join(changed)} }}`" if changed else ""
    return "" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _inner(kind: Any) -> type | None:
    """The dataclass that a field's type is or holds, if any."""
    if dataclasses.is_dataclass(kind):
        return typing.cast(type, kind)
    return next(filter(None, map(_inner, typing.get_args(kind))), None)


def _words(kind: Any) -> str:
    words = type_words(kind)
    return ", ".join(f"`{word}`" for word in words.split(", ")) if words.startswith('"') else words


def _rows(kind: type) -> Iterator[str]:
    hints, said = typing.get_type_hints(kind), comments(kind)
    for field in dataclasses.fields(kind):
        default = _default(field)
        written = "required" if default is dataclasses.MISSING else shown(default)
        meaning = said[field.name].replace("|", "\\|")
        yield f"| `{field.name}` | {_words(hints[field.name])} | {written} | {meaning} |\n"


def _described(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "")


def page() -> str:
    """All tables in the order of the chain; a table that several hold is described where it comes first."""
    places: dict[type, list[str]] = {}

    def visit(kind: type, where: str) -> None:
        places.setdefault(kind, []).append(where)
        if len(places[kind]) > 1:
            return
        for name, hint in typing.get_type_hints(kind).items():
            if (inner := _inner(hint)) is not None:
                visit(inner, f"{where}.{name}")

    several = set()
    for name, kind in tables().items():
        table = typing.cast(type, _inner(kind))
        visit(table, name)
        if typing.get_origin(kind) is tuple:
            several.add(table)
    text = ""
    for kind, where in places.items():
        mark = "###" if "." in where[0] else "##"
        brackets = "[[{}]]" if kind in several or kind.__name__ == "BoardSpec" else "[{}]"
        names = ", ".join(f"`{brackets.format(name)}`" for name in where)
        text += f"{mark} {names}\n\n{_described(kind)}\n\n{_HEAD}{''.join(_rows(kind))}\n"
    return text

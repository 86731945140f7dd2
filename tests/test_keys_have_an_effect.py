"""Every key of every table has an effect, or is refused where it has none."""

import ast
import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from braggnn_edge.core.stages import tables

ROOT = Path(__file__).parents[1]


def dataclasses_of(kind: Any, where: str) -> Iterator[tuple[str, type]]:
    """A table and the tables in it, by their names in a configuration."""
    if typing.get_origin(kind) in (tuple, typing.Union, types.UnionType):
        for inner in typing.get_args(kind):
            yield from dataclasses_of(inner, where)
    elif dataclasses.is_dataclass(kind):
        yield where, typing.cast(type, kind)
        for name, inner in typing.get_type_hints(kind).items():
            yield from dataclasses_of(inner, f"{where}.{name}")


def names_read() -> set[str]:
    """Every attribute that the packages read outside the checks of a table on itself."""
    found: set[str] = set()

    class Reader(ast.NodeVisitor):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            if node.name != "__post_init__":
                self.generic_visit(node)

        def visit_Attribute(self, node: ast.Attribute) -> None:
            found.add(node.attr)
            self.generic_visit(node)

    for package in ("braggnn_edge", "quant", "hls", "firmware_sim"):
        for path in (ROOT / package).rglob("*.py"):
            Reader().visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def test_every_key_is_read_somewhere() -> None:
    read = names_read()
    known = [pair for name, kind in tables().items() for pair in dataclasses_of(kind, name)]
    assert len(known) > 20
    for where, kind in known:
        for field in dataclasses.fields(kind):
            assert field.name in read, f"[{where}] {field.name} is read nowhere"

"""Every key of every table has an effect, or is refused where it has none."""

import ast
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import tables
from braggnn_edge.label.spec import ScanSpec
from braggnn_edge.simulation.spec import SimulationSpec
from quant.training.circuit_spec import CircuitNetworkSpec, FrontEndSpec

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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FrontEndSpec(centroid="intensity", discarded_bits=6),
            "discarded_bits = 6 has no effect with centroid",
        ),
        (lambda: FrontEndSpec(centroid="none", index_bits=5), "index_bits = 5 has no effect with centroid = 'none'"),
        (lambda: CircuitNetworkSpec(kernel=5), "kernel = 5 has no effect without convolutions"),
        (lambda: ScanSpec("s", dark="dark.npy"), "dark = dark.npy has no effect on a simulated scan"),
        (lambda: ScanSpec("s", on_bad_frame="skip"), "on_bad_frame = skip has no effect on a simulated scan"),
        (lambda: ScanSpec("s", "hdf5", "s.h5", simulate=SimulationSpec(rows=64)), "has no effect on a measured scan"),
        (
            lambda: ScanSpec("s", "hdf5", "s.h5", threshold=20.0, sigma=5.0, background_box=32),
            "threshold = 20.0 has no effect beside sigma",
        ),
    ],
)
def test_keys_that_would_have_none_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        make()

"""The reference of the configuration says of every key what it is, and is that of the code."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from braggnn_edge import configuration_page as written
from braggnn_edge import listing
from braggnn_edge.core import config
from braggnn_edge.core.stages import tables

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Inner:
    """Another table."""

    width: int = 3  # of it, px


@dataclass(frozen=True)
class Table:
    """A table."""

    plain: int = 1  # behind | the field
    # above the field,
    # on two lines
    longer: tuple[float, ...] = (1.0, 2.0)
    inner: Inner = field(default_factory=lambda: Inner(4))  # changed in one key
    # above it, whatever the formatter is told behind it
    formatted: int = 2  # fmt: skip
    bare: str = ""


def test_comments_stand_beside_or_above_a_field() -> None:
    assert written.comments(Table) == {
        "plain": "behind | the field",
        "longer": "above the field, on two lines",
        "inner": "changed in one key",
        "formatted": "above it, whatever the formatter is told behind it",
        "bare": "",
    }
    rows = list(written._rows(Table))
    assert rows[0] == "| `plain` | integer | `1` | behind \\| the field |\n"
    assert rows[1] == "| `longer` | list of number | `[1.0, 2.0]` | above the field, on two lines |\n"
    assert rows[2] == "| `inner` | table | `{ width = 4 }` | changed in one key |\n"


def test_every_key_has_a_comment() -> None:
    rows = [line for line in written.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert not [row for row in rows if row.endswith("|  |")]


def test_every_table_is_on_the_page() -> None:
    page = written.page()
    for name in ("[[scan]]", "[scan.detector]", "[scan.simulate]", "[full]", "[quant.attention]", "[[hls.boards]]"):
        assert f"`{name}`" in page
    assert all(f"`{key.name}`" in page for key in dataclasses.fields(written.tables()["search"]))


def test_committed_page_is_up_to_date() -> None:
    path = "docs/reference/configuration.md"
    text = (ROOT / path).read_text(encoding="utf-8")
    assert listing.written(path, text) == text, "run `python -m braggnn_edge.listing`"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_that_ships_can_be_read(path: Path) -> None:
    assert config.load(path, tables())["scan"] or path.stem == "universal"  # which draws its own patches

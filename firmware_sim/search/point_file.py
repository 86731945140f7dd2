"""A point of the front as a configuration: a TOML file that extends the scenario it was found with."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from braggnn_edge.core import config
from braggnn_edge.core.files import written_aside
from quant.training.circuit_spec import CircuitSpec


def write(path: Path, scenario: Path, name: str, seed: int, circuit: CircuitSpec, lines: tuple[str, ...] = ()) -> None:
    """Write the configuration of one circuit, every key of ``[circuit]`` named.

    scenario: the file it extends, whose relative paths stay what they are; name: of the run that it asks for; lines:
    of the comment that opens it.
    """
    here = path.parent.resolve()
    named = {
        "extends": os.path.relpath(scenario.resolve(), here),
        "folder": os.path.relpath(config.folder_of(scenario), here),
        "name": name,
        "seed": seed,
    }
    parts = [*(f"# {line}" for line in lines), *(f"{key} = {_value(value)}" for key, value in named.items())]
    with written_aside(path) as aside:
        aside.write_text("\n".join(parts) + "\n" + table("circuit", circuit), encoding="utf-8")


def table(name: str, section: Any) -> str:
    """A dataclass as a TOML table with its own tables after it."""
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    plain = [f"{key} = {_value(value)}" for key, value in values.items() if not dataclasses.is_dataclass(value)]
    nested = [table(f"{name}.{key}", value) for key, value in values.items() if dataclasses.is_dataclass(value)]
    return "\n".join(["", f"[{name}]", *plain, ""]) + "".join(nested)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    # TOML's strings, numbers and booleans are JSON's, but for what is no number.
    return json.dumps(value, allow_nan=False, ensure_ascii=False)

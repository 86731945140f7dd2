"""What `benchmarks/gpu.sh` measured, card by card, for the page and for the stage "reference"; nothing is invented.

`benchmarks/gpu.json` holds the runs that count, one a card. Where it is missing, or lacks a figure, that figure is
"not measured".
"""

import json
from pathlib import Path
from typing import Any

from braggnn_edge.core.errors import UserError

#: Beside the packages in a checkout; not part of an installed package.
PATH = Path(__file__).parents[2] / "benchmarks/gpu.json"
NOT_MEASURED = "not measured"
SCHEMA, VERSION = "braggnn-edge gpu cards", 1

#: Figure, how it is shown, and where a run holds it: step and keys.
FIGURES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("published, ms", ".1f", ("inference", "published: best", "ms")),
    ("of its limit", ".2f", ("inference", "published: best", "of_the_limit")),
    ("compact, ms", ".1f", ("inference", "compact: best", "ms")),
    ("universal, ms", ".1f", ("inference", "universal: best", "ms")),
    ("fits/s", ",.0f", ("fits", "kernel: on the device", "fits_per_s")),
    ("fits: largest distance, sigma", ".1e", ("fits", "against the CPU", "distance_in_sigma", "max")),
    ("integers: wrong", "d", ("precision", "integers: shipped", "wrong")),
    ("frames/s", ",.0f", ("frames", "universal: torch float16", "frames_per_s")),
    ("training, iterations/s", ",.0f", ("training", "as used: float32", "iterations_per_s")),
    ("the same under torchrun", ",.0f", ("torchrun", "training", "iterations_per_s")),
)


def runs(path: Path = PATH) -> list[dict[str, Any]]:
    """The runs of a file, none where there is no file; UserError for a damaged one."""
    if not path.is_file():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if (document["schema"], document["version"]) != (SCHEMA, VERSION):
            raise ValueError(f"schema {document['schema']!r}, version {document['version']}")
        return list(document["runs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); make it again with benchmarks/gpu_table.py") from error


def card(run: dict[str, Any]) -> str:
    """The name of the card of a run."""
    return str(run["steps"]["device"]["facts"]["name"])


def figures(path: Path = PATH) -> dict[str, dict[str, str]]:
    """Card to figure to what is shown, "not measured" where the run has none; empty without a run."""
    found = {}
    for run in runs(path):
        found[card(run)] = {name: _shown(run["steps"], kind, keys) for name, kind, keys in FIGURES}
    return found


def table(path: Path = PATH) -> str:
    """A Markdown table with a row a card."""
    names = [name for name, _, _ in FIGURES]
    rows = figures(path) or {"no card": dict.fromkeys(names, NOT_MEASURED)}
    lines = ["| card | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += ["| " + " | ".join([name, *values.values()]) + " |" for name, values in rows.items()]
    return "\n".join(lines) + "\n"


def _shown(steps: dict[str, Any], kind: str, keys: tuple[str, ...]) -> str:
    value: Any = steps
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return NOT_MEASURED if value is None else format(value, kind)

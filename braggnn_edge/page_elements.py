"""What pages are made of: the templates and the filters that they share."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined

from braggnn_edge.figures import look

#: The folder ``templates`` of this package. All values are escaped; a name that a page is not given is an error.
TEMPLATES = Environment(
    loader=PackageLoader(__name__.rpartition(".")[0]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def section(template: str, **shown: Any) -> str:
    """HTML of a template filled with ``shown``; raises jinja2.UndefinedError for a name that it lacks."""
    return TEMPLATES.get_template(template).render(shown)


def _number(value: Any, digits: str = ",") -> str:
    """A number in a format specification; words stay as they are, and what is not there raises UndefinedError."""
    return str(value) if isinstance(value, str | Undefined) else format(value, digits)


def _listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _embedded(path: Path) -> str:
    """A PNG file as the address of a picture inside the page."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


TEMPLATES.filters |= {
    "number": _number,
    "listed": _listed,
    "embedded": _embedded,
    "label": lambda name: look(name).label,
    "color": lambda name: look(name).color,
}

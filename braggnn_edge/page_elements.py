"""What pages are made of: tables, pictures, numbers."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

NOT_MEASURED = '<span class="none">not measured</span>'


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    text: int = 1,
    classes: Sequence[str] = (),
    kind: str = "",
) -> str:
    """A table of ready HTML cells, the first ``text`` columns set left; a cell may bring its own <td>."""
    marks = [' class="text"' if i < text else "" for i in range(len(head))]
    lines = ["<tr>" + "".join(f"<th{m}>{h}</th>" for m, h in zip(marks, head, strict=True)) + "</tr>"]
    for index, row in enumerate(rows):
        cells = "".join(c if c.startswith("<td") else f"<td{m}>{c}</td>" for m, c in zip(marks, row, strict=True))
        name = f' class="{classes[index]}"' if classes and classes[index] else ""
        lines.append(f"<tr{name}>{cells}</tr>")
    return f'<div class="scroll"><table class="{kind}">' + "\n".join(lines) + "</table></div>"


def picture(path: Path, text: str, caption: str) -> str:
    if not path.exists():
        return ""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def number(value: Any, digits: str = ",") -> str:
    return NOT_MEASURED if value is None else escape(format(value, digits) if not isinstance(value, str) else value)

"""What docs and Makefile list, from the code: stages, reference of the configuration, firmware's records and rates.

``python -m braggnn_edge.listing`` brings them up to date in the current folder; a test fails while they are not.
"""

import sys
from pathlib import Path

from braggnn_edge.configuration_page import page
from braggnn_edge.core.commands import commands
from braggnn_edge.core.stages import Stage, resolve, stages

#: Files with a list: what stands before it and after it.
LISTS = {
    "Makefile": ("# stages: written by `python -m braggnn_edge.listing`\n", "# end of stages\n"),
    "docs/how_to/detector_link.md": (
        "<!-- rates: written by `python -m braggnn_edge.listing` -->\n",
        "<!-- end of rates -->\n",
    ),
    "docs/reference/configuration.md": (
        "<!-- tables: written by `python -m braggnn_edge.listing` -->\n",
        "<!-- end of tables -->\n",
    ),
    "docs/reference/numerics.md": (
        "<!-- records: written by `python -m braggnn_edge.listing` -->\n",
        "<!-- end of records -->\n",
    ),
    "docs/reference/stages.md": (
        "<!-- stages: written by `python -m braggnn_edge.listing` -->\n",
        "<!-- end of stages -->\n",
    ),
}


def makefile(found: list[Stage]) -> str:
    """One target a command, and the text that ``make`` shows of it."""
    names = [stage.name for stage in found if stage.command]
    shown = "".join(f"define_{stage.name} = {stage.help}\n" for stage in found if stage.command)
    return f"STAGES := {' '.join(names)}\n{shown}"


def table(found: list[Stage]) -> str:
    """A table in Markdown: command, what it does, what it writes."""
    rows = ["| stage | what it does | result in `runs/<run>/<stage>/` |", "|---|---|---|"]
    for stage in found:
        name = f"`{stage.name}`" if stage.command else f"`{stage.name}` (made by `make train`)"
        rows.append(f"| {name} | {stage.help} | {stage.writes} |")
    if plain := commands().values():
        rows += ["", "Commands that take files instead of a scenario:", ""]
        rows += ["| command | what it does | writes |", "|---|---|---|"]
        rows += [f"| `{command.name}` | {command.help} | {command.writes} |" for command in plain]
    return "\n" + "\n".join(rows) + "\n\n"


def written(name: str, text: str) -> str:
    """``text`` of the file ``name`` with its list brought up to date."""
    before, after = LISTS[name]
    start, end = text.index(before) + len(before), text.index(after)
    found = list(stages().values())
    if name.endswith("configuration.md"):
        return text[:start] + f"\n{page()}" + text[end:]
    if name.endswith("numerics.md"):  # from a package above this one, as the next
        return text[:start] + resolve("quant.front_end.records:tables")() + text[end:]
    if name.endswith("detector_link.md"):
        return text[:start] + f"\n{resolve('hls.rtl.front_end.rates:table')()}\n" + text[end:]
    return text[:start] + (makefile(found) if name == "Makefile" else table(found)) + text[end:]


def main() -> int:
    """Write all lists."""
    for name in LISTS:
        path = Path(name)
        path.write_text(written(name, path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

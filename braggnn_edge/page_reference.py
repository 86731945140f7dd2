"""The report's section on reference inference: the firmware beside the float networks, and every form's error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braggnn_edge.figures_reference import NAMES
from braggnn_edge.page_elements import section


def reference_section(reference: Mapping[str, Any] | None, figures: Path) -> str:
    """HTML of ``reference.json``, nothing without one; figures: folder of ``reference.png``, left out if missing."""
    if reference is None:
        return ""
    reasons: dict[str, list[str]] = {}
    for entry in reference["absent"]:
        form = f"{entry['backend']} {entry['precision']} on {entry['device']}"
        reasons.setdefault(entry["reason"], []).append(form)
    return section("inference.html", reference=reference, names=NAMES, reasons=reasons, figures=figures)

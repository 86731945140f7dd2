"""The report's section on reference inference: the firmware beside the float networks, and every form's error."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from braggnn_edge.figures_reference import NAMES
from braggnn_edge.page_elements import picture, table


def reference_section(reference: Mapping[str, Any] | None, figures: Path) -> str:
    """HTML of ``reference.json``, nothing without one; figures: folder of ``reference.png``, left out if missing."""
    if reference is None:
        return ""
    device, patches = escape(reference["float_device"]), reference["patches"]
    parts = [
        "<h2>Reference inference</h2>",
        f"<p>The firmware's positions of {patches:,} test peaks beside those of the float networks (on {device}), the "
        "pseudo-Voigt labels and the truth. Distances in px.</p>",
        table(
            ("firmware", "distance to", "n", "mean", "p50", "p75", "p95", "max"),
            (
                (escape(form), escape(NAMES.get(name, name)), f"{entry['n']:,}", *_px(entry))
                for form, against in reference["firmware"].items()
                for name, entry in against.items()
            ),
            text=2,
        ),
        picture(
            figures / "reference.png",
            "distances between the firmware and each reference",
            "The firmware's distance from each reference, over the peaks that have it.",
        ),
        "<h3>Every form of inference against its reference</h3>",
        "<p>The float networks against the same network in float64, the int8 files against the integer network; from "
        "detector counts to px. The rate is of this run on these patches, and its ratio to the published network in "
        "eager torch (float32) in the same run; benchmarks/inference.py measures it with care.</p>",
        table(
            ("network", "form", "precision", "device", "n", "p50", "p75", "p95", "max", "wrong codes", "rate / eager"),
            (_form(row) for row in reference["backends"]),
            text=4,
        ),
    ]
    if reference["absent"]:
        reasons: dict[str, list[str]] = {}
        for entry in reference["absent"]:
            form = f"{entry['backend']} {entry['precision']} on {entry['device']}"
            reasons.setdefault(entry["reason"], []).append(form)
        items = "".join(f"<li>{escape(', '.join(forms))}: {escape(why)}</li>" for why, forms in reasons.items())
        parts.append(f'<p class="soft">Not measured here:</p><ul class="soft">{items}</ul>')
    return "".join(parts)


def _form(row: Mapping[str, Any]) -> tuple[str, ...]:
    error = row["error_px"]
    names = tuple(escape(row[key]) for key in ("network", "backend", "precision", "device"))
    figures = tuple(f"{error[key]:.2g}" for key in ("p50", "p75", "p95", "max"))
    wrong = f"{row['wrong']:,}" if "wrong" in row else ""
    return (*names, f"{error['n']:,}", *figures, wrong, f"{row['ratio_to_eager']:.1f}")


def _px(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{entry[key]:.4f}" for key in ("mean", "p50", "p75", "p95", "max"))

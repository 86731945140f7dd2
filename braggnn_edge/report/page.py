"""``report.html``: the report for a person, in one file without scripts or links, that also prints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braggnn_edge.evaluation.figures import look
from braggnn_edge.report.elements import section
from braggnn_edge.report.error_section import REFERENCES, compared, error_section
from braggnn_edge.report.grains_section import grains_section
from braggnn_edge.report.hardware_section import hardware_section
from braggnn_edge.report.inference_section import reference_section
from braggnn_edge.report.sigma_section import sigma_section

#: Forms that are compared with the integer network, in words, and whether a report without one says so.
_FORMS = {
    "quantized": ("quantized network in PyTorch", True),
    "qonnx": ("QONNX model", True),
    "csim": ("C simulation", True),
    "normalizer": ("counts to input codes in the C simulation", False),
    "rtl": ("RTL simulation", True),
    "netlist": ("simulation of the mapped netlist", True),
}


def verdict(bit_exact: Mapping[str, Mapping[str, int]]) -> str:
    """PASS when every comparison made had no wrong code, FAIL when one had, else "not measured"."""
    if not bit_exact or not all(entry.get("patches", 0) for entry in bit_exact.values()):
        return "not measured" if not any(entry.get("wrong", 0) for entry in bit_exact.values()) else "FAIL"
    return "FAIL" if any(entry["wrong"] for entry in bit_exact.values()) else "PASS"


def headline(document: Mapping[str, Any], subject: str) -> str:
    """One line for the summary picture: the run, its bit-exactness and the subject's error."""
    entry = document["errors_px"][subject]
    patches, wrong = _totals(document)
    exact = f"{wrong:,} wrong codes in {patches:,} comparisons" if patches else "bit-exactness not measured"
    figures = " / ".join(f"{entry[key]:.3f}" for key in ("p50", "p75", "p95"))
    return f"{document['name']}: {exact}. {look(subject).label} p50 / p75 / p95: {figures} px"


def render(document: Mapping[str, Any], subject: str, figures: Path) -> str:
    """The page. subject: the estimator in the head and the gallery; figures: folder of the pictures."""
    errors = document["errors_px"]
    groups = compared(errors)
    patches, wrong = _totals(document)
    shown = ("float", subject, "centre_of_mass_squared")
    return section(
        "report.html",
        document=document,
        subject=subject,
        reference=REFERENCES[document["reference"]["kind"]],
        references=REFERENCES,
        verdict=verdict(document["bit_exact"]),
        patches=patches,
        wrong=wrong,
        cards={name: errors[name] for name in shown if name in errors},
        networks=groups["networks"],
        trivial=groups["trivial"],
        baseline=min(groups["trivial"], key=lambda row: row.entry["p50"]),
        behind=list(dict.fromkeys(look(r.name.partition(":")[0]).label for r in groups["networks"] if r.behind)),
        forms=_forms(document["bit_exact"]),
        configuration=json.dumps(document["configuration"], indent=1),
        sections={
            "errors": error_section(document, figures),
            "sigma": sigma_section(document, figures),
            "grains": grains_section(document.get("grains"), figures),
            "inference": reference_section(document.get("reference_inference"), figures),
            "hardware": hardware_section(document["hardware"]),
        },
        figures=figures,
    )


def _totals(document: Mapping[str, Any]) -> tuple[int, int]:
    """Patches of all comparisons with the integer network, and how many of them differ."""
    patches, wrong = (sum(c.get(key, 0) for c in document["bit_exact"].values()) for key in ("patches", "wrong"))
    return patches, wrong


def _forms(bit_exact: Mapping[str, Mapping[str, int]]) -> list[tuple[str, Mapping[str, int]]]:
    """Every comparison in words, and after them the forms that were not compared."""
    found = []
    for name, entry in bit_exact.items():
        form, _, variant = name.removesuffix("/integer").partition(":")
        words = _FORMS[form][0] if form in _FORMS else form
        found.append((f"{words}, {variant}" if variant else words, entry))
    there = {name.removesuffix("/integer").partition(":")[0] for name in bit_exact}
    return found + [(words, {}) for form, (words, expected) in _FORMS.items() if expected and form not in there]

"""The report's section on sigma: whether a network's intervals hold what they say, and what they help with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braggnn_edge.evaluation.sigma import ONE, WIDE
from braggnn_edge.report.elements import section
from braggnn_edge.report.error_section import REFERENCES

#: A share that is farther from what it is to be is marked.
_OFF = 0.05


def alike(sigma: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """Entries of ``sigma`` by the networks that they are of: forms that answer alike have the same figures."""
    found: dict[str, list[str]] = {}
    for name, entry in sigma.items():
        found.setdefault(json.dumps(entry), []).append(name)
    return {tuple(names): json.loads(entry) for entry, names in found.items()}


def sigma_section(document: Mapping[str, Any], figures: Path) -> str:
    """HTML of ``sigma`` of a report, nothing where no network knows it; figures: folder of ``sigma.png``."""
    if not document["sigma"]:
        return ""
    kind = document["reference"]["kind"]
    return section(
        "sigma.html",
        networks=(networks := alike(document["sigma"])),
        groups=any(entry["flag"].get("groups") for entry in networks.values()),
        truth=kind == "truth",
        reference=REFERENCES[kind],
        wanted={"within_one": ONE, "within_wide": WIDE},
        off=_OFF,
        figures=figures,
    )

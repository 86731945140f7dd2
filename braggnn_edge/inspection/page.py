"""``inspect.html``: the first look for a person, in the style of the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from braggnn_edge.inspection.facts import Fact, Look
from braggnn_edge.inspection.words import rule_of
from braggnn_edge.report.elements import section


def page(found: Look, sections: Mapping[str, Sequence[str]], picture: Path, scenario: str, simulated: bool) -> str:
    """The page, in one file."""
    return section(
        "inspect.html", found=found, sections=sections, picture_path=picture, scenario=scenario, simulated=simulated,
        cards=_cards(found),
    )  # fmt: skip


def _cards(found: Look) -> list[tuple[str, str]]:
    detector = found.detector
    spots = found.spots
    return [
        (_figure(detector.gain, "counts a photon"), "gain"),
        (_figure(detector.read_noise, "counts"), "read noise"),
        (_figure(detector.saturation, "counts", ",.0f"), "saturation"),
        (_figure(found.pixels.background, "counts"), "background"),
        ("no spots" if spots is None else rule_of(spots), "threshold"),
        ("none" if spots is None else f"{len(spots.spots.spots) / max(spots.spots.searched, 1):,.1f}", "spots a frame"),
    ]


def _figure(fact: Fact, unit: str, digits: str = ".4g") -> Any:
    return "not found" if fact.value is None else f"{fact.value:{digits}} {unit}"

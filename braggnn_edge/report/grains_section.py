"""The report's section on grains: what positions of every estimator make of them, beside the truth and the fit's."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import fits
from braggnn_edge.grains.compare import biased_axes, um
from braggnn_edge.grains.screen import weighted
from braggnn_edge.grains.spec import KINDS
from braggnn_edge.report.elements import section

PICTURES = ("balls", "histograms", "theory", "mean_vector")


def results(run: Path) -> Path | None:
    """The folder of the finished stage "grains", None where it has not run on the peaks that are labelled now."""
    return run / "grains" if fits(run, "grains", "label") else None


def taken_over(run: Path, figures: Path) -> dict[str, Any] | None:
    """The document of the stage "grains", whose pictures are copied to ``figures``; None where there is none.

    Raises UserError for a document that cannot be read.
    """
    if (folder := results(run)) is None:
        return None
    try:
        document: dict[str, Any] = json.loads((folder / "grains.json").read_text(encoding="utf-8"))
        figures.mkdir(parents=True, exist_ok=True)
        for name in PICTURES:
            shutil.copyfile(folder / "figures" / f"{name}.png", figures / f"grains_{name}.png")
    except (OSError, ValueError) as error:
        raise UserError(f"results of the grains stage cannot be read ({error}); run `make grains`") from error
    return document


def _rows(document: Mapping[str, Any], to: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Estimator, kind in words, and entry, of all grains that are compared with ``to``."""
    for kind, words in KINDS.items():
        for name, entry in document["estimators"].items():
            if "position_um" in entry.get(kind, {}).get(to, {}):
                yield name, words, entry[kind]


def grains_page(document: Mapping[str, Any], name: str, figures: Path, missing: Sequence[str]) -> str:
    """A page of the grains alone; figures: folder of the stage's pictures; missing: stages that a report would run."""
    return section("grains_page.html", name=name, grains=grains_section(document, figures, prefix=""), missing=missing)


def grains_section(document: Mapping[str, Any] | None, figures: Path, prefix: str = "grains_") -> str:
    """HTML of ``grains`` of a report, nothing without one; figures: folder of ``<prefix>*.png``."""
    if document is None:
        return ""
    return section(
        "grains.html",
        grains=document,
        um=um,
        weighted=weighted,
        truth=document.get("truth"),
        tables={to: list(_rows(document, to)) for to in ("to_truth", "to_fit")},
        biased={name: biased_axes(entry.get("bias", {})) for name, entry in document["estimators"].items()},
        reference="the truth" if document.get("truth") else "the fit",
        pictures={name: figures / f"{prefix}{name}.png" for name in PICTURES},
    )

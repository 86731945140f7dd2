"""The report's section of position errors: how far every estimator is from the reference, and who is behind."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braggnn_edge.evaluation.estimators import ESTIMATORS
from braggnn_edge.evaluation.evaluate import CLEAN_AREA, CLEAN_RESIDUAL
from braggnn_edge.evaluation.figures import look
from braggnn_edge.evaluation.groups import MOST
from braggnn_edge.evaluation.metrics import PERCENTILES
from braggnn_edge.evaluation.provenance import sentence
from braggnn_edge.report.elements import section

REFERENCES = {"truth": "the known truth", "voigt": "the pseudo-Voigt fit"}
_WHAT = {
    "constant": "always the patch's centre, where the crop has its brightest pixel",
    "maximum": "the brightest pixel of the patch",
    "centre_of_mass": "centroid of the counts above the patch's minimum",
    "centre_of_mass_squared": "centroid of the squares of these counts",
    "voigt": "maximum-likelihood fit of the model that made the peaks",
    "cramer_rao_bound": "random draws from the bound: no unbiased estimator does better",
    "universal": "the float network that ships, trained on simulated patches of many detectors and not on this scan",
    "float": "the full network, float32",
    "float_compact": "the firmware network before quantization, float32",
    "quantized": "the firmware network, quantized, in PyTorch",
    "csim": "the generated C++ firmware, compiled",
    "rtl": "the generated hardware description, simulated",
}


@dataclass(frozen=True)
class Behind:
    """A percentile at which a network's error is larger than that of ``best``, the best trivial estimator there."""

    percentile: str
    px: float
    best: str
    best_px: float


@dataclass(frozen=True)
class Row:
    """An estimator of the error table.

    entry: of ``errors_px``; share: length of the bar of its median error, 0 to 1; behind: of networks alone.
    """

    name: str
    what: str
    entry: Mapping[str, Any]
    share: float
    behind: tuple[Behind, ...]


def compared(errors: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Row]]:
    """The rows of an error table: "trivial" estimators, "bounds" of what is possible, and "networks"."""
    groups: dict[str, list[Row]] = {"trivial": [], "bounds": [], "networks": []}
    trivial = [name for name in errors if name in ESTIMATORS]
    best = {key: min(trivial, key=lambda name: errors[name][key]) for key in PERCENTILES}
    scale = max(entry["p50"] for name, entry in errors.items() if name not in ("constant", "maximum")) or 1.0
    for name, entry in errors.items():
        group = "trivial" if name in trivial else "bounds" if name in ("voigt", "cramer_rao_bound") else "networks"
        behind = tuple(
            Behind(key, entry[key], baseline, errors[baseline][key])
            for key, baseline in best.items()
            if group == "networks" and entry[key] > errors[baseline][key]
        )
        what = _WHAT.get(name.partition(":")[0], "")
        groups[group].append(Row(name, what, entry, min(1.0, entry["p50"] / scale), behind))
    return groups


def _alike(networks: list[Row]) -> dict[tuple[Behind, ...], list[str]]:
    """The networks that are behind a trivial estimator; those with the same figures together."""
    found: dict[tuple[Behind, ...], list[str]] = {}
    for row in networks:
        if row.behind:
            found.setdefault(row.behind, []).append(row.name)
    return found


def _sentences(provenance: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What networks were trained on and the peaks, those of which the same is true in one sentence each."""
    alike: dict[str, list[str]] = {}
    for name, entry in provenance.items():
        alike.setdefault(json.dumps(entry), []).append(look(name).label)
    said = [sentence(names, json.loads(entry)) for entry, names in alike.items()]
    return [f"{one[:1].upper()}{one[1:]}." for one in said]


def error_section(document: Mapping[str, Any], figures: Path) -> str:
    """figures: folder of ``errors.png`` and ``height.png``, each left out if missing."""
    tables = {}
    for key in ("errors_px", "errors_px_clean"):
        if document.get(key):
            groups = compared(document[key])
            tables[key] = {"groups": groups, "behind": _alike(groups["networks"])}
    return section(
        "errors.html",
        document=document,
        most=MOST,
        provenance=_sentences(document["provenance"]),
        reference=REFERENCES[document["reference"]["kind"]],
        tables=tables,
        clean_area=CLEAN_AREA,
        clean_residual=CLEAN_RESIDUAL,
        figures=figures,
    )

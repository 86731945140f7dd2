"""``report.html``: the report for a person, in one file without scripts or links, that also prints."""

import json
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from braggnn_edge.figures import look
from braggnn_edge.page_elements import NOT_MEASURED, number, picture, table
from braggnn_edge.page_errors import error_section
from braggnn_edge.page_hardware import hardware_section
from braggnn_edge.page_reference import reference_section

REFERENCES = {"truth": "the known truth", "voigt": "the pseudo-Voigt fit"}

_FORMS = ("quantized/integer", "qonnx/integer", "csim/integer", "rtl/integer", "netlist/integer")
_CSS = resources.files("braggnn_edge").joinpath("page.css").read_text(encoding="utf-8")


def verdict(bit_exact: Mapping[str, Mapping[str, int]]) -> str:
    """PASS when every comparison made had no wrong code, FAIL when one had, else "not measured"."""
    if not bit_exact or not all(entry.get("patches", 0) for entry in bit_exact.values()):
        return "not measured" if not any(entry.get("wrong", 0) for entry in bit_exact.values()) else "FAIL"
    return "FAIL" if any(entry["wrong"] for entry in bit_exact.values()) else "PASS"


def headline(document: Mapping[str, Any], subject: str) -> str:
    """One line for the summary picture: the run, its bit-exactness and the subject's error."""
    entry = document["errors_px"][subject]
    comparisons = document["bit_exact"].values()
    patches, wrong = (sum(c.get(key, 0) for c in comparisons) for key in ("patches", "wrong"))
    exact = f"{wrong:,} wrong codes in {patches:,} comparisons" if patches else "bit-exactness not measured"
    figures = " / ".join(f"{entry[key]:.3f}" for key in ("p50", "p75", "p95"))
    return f"{document['name']}: {exact}. {look(subject).label} p50 / p75 / p95: {figures} px"


def render(document: Mapping[str, Any], subject: str, figures: Path) -> str:
    """The page. subject: the estimator in the head and the gallery; figures: folder of the pictures."""
    body = "".join(
        (
            _head(document, subject),
            error_section(document, figures),
            _gallery_section(subject, figures),
            _exact_section(document),
            reference_section(document.get("reference_inference"), figures),
            _layer_section(document, figures),
            hardware_section(document["hardware"]),
            _training_section(document, figures),
            _provenance_section(document),
        )
    )
    title = escape(f"{document['name']} - BraggNN Edge report")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_CSS}</style></head><body><main>{body}</main></body></html>\n"
    )


def _head(document: Mapping[str, Any], subject: str) -> str:
    errors, exact = document["errors_px"], document["bit_exact"]
    result = verdict(exact)
    patches = sum(entry.get("patches", 0) for entry in exact.values())
    wrong = sum(entry.get("wrong", 0) for entry in exact.values())
    style = {"PASS": " pass", "FAIL": " fail"}.get(result, "")
    detail = f"{wrong:,} wrong in {patches:,} patch comparisons" if exact else "no comparison was made"
    cards = [f'<div class="card verdict{style}"><span>bit-exactness</span><b>{result}</b><span>{detail}</span></div>']
    shown = [n for n in ("float", subject, "centre_of_mass_squared") if n in errors]
    for name in dict.fromkeys(shown):
        figures = " / ".join(f"{errors[name][key]:.3f}" for key in ("p50", "p75", "p95"))
        cards.append(
            f'<div class="card"><span>{escape(look(name).label)}</span><b>{figures}</b>'
            "<span>p50 / p75 / p95 of the error, px</span></div>"
        )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in document["notes"])
    return (
        f"<h1>{escape(str(document['name']))}</h1>"
        f'<p class="soft">BraggNN Edge report: from detector frames to bit-exact firmware. '
        f"Data: {escape(document['dataset']['source'])}.</p>"
        f'<div class="cards">{"".join(cards)}</div>{notes}'
    )


def _gallery_section(subject: str, figures: Path) -> str:
    caption = (
        "Upper lines: whole patches, with the error of that estimator and the smallest and largest count, "
        "which are white and grey. Lower lines: the same, magnified around the reference; the bar is the "
        "scale. Centres outside the window are not drawn there."
    )
    shown = picture(figures / "gallery.png", "patches with the centres of all estimators", caption)
    return f"<h2>Best, median and worst patches of the {escape(look(subject).label)}</h2>{shown}"


def _exact_section(document: Mapping[str, Any]) -> str:
    exact = document["bit_exact"]
    missing = [form for form in _FORMS if not any(_pair(name) == form for name in exact)]
    rows = []
    for name, entry in exact.items():
        if not entry.get("patches"):
            cell = NOT_MEASURED
        else:
            cell = '<span class="bad">FAIL</span>' if entry["wrong"] else '<span class="good">equal</span>'
        rows.append(
            [
                escape(name.replace("/", " against ")),
                cell,
                number(entry.get("patches")),
                number(entry.get("wrong")),
            ]
        )
    rows += [[escape(name.replace("/", " against ")), NOT_MEASURED, "", ""] for name in missing]
    parts = [
        "<h2>Bit-exactness</h2><p>Every form must give the integer codes of the integer network on every "
        "patch; one code that differs by one fails the build.</p>",
        table(["form", "result", "patches", "wrong"], rows, text=2),
    ]
    if document.get("hostile"):
        cells = [[escape(key), number(value)] for key, value in _flat(document["hostile"])]
        parts += ["<h3>Hostile patches among them</h3>", table(["kind", "value"], cells, kind="narrow")]
    return "".join(parts)


def _pair(name: str) -> str:
    form, _, other = name.partition("/")
    return f"{form.partition(':')[0]}/{other}"


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [
            pair for key, item in value.items() for pair in _flat(item, f"{prefix} / {key}" if prefix else str(key))
        ]
    return [(prefix, ", ".join(map(str, value)) if isinstance(value, list) else value)]


def _layer_section(document: Mapping[str, Any], figures: Path) -> str:
    layers = document["layers"]
    if not layers:
        return f"<h2>Layers</h2><p>{NOT_MEASURED}</p>"
    keys = (
        "weight_bits",
        "activation_bits",
        "accumulator_bits",
        "sparsity",
        "macs",
        "saturations",
        "overflows",
    )
    rows = []
    for layer in layers:
        cells = [escape(str(layer["name"])), escape(str(layer.get("kind", "")))]
        for key in keys:
            value = layer.get(key)
            counted = key in ("saturations", "overflows")  # of every layer; the others depend on its kind
            form = ".1%" if key == "sparsity" else ","
            shown = number(value, form) if counted or value is not None else ""
            cells.append(f'<td class="lost">{shown}</td>' if key == "overflows" and value else shown)
        rows.append(cells)
    head = [
        "layer",
        "kind",
        "weight bits",
        "activation bits",
        "accumulator bits",
        "sparsity",
        "MACs",
        "saturations",
        "overflows",
    ]
    total = sum(layer.get("macs", 0) for layer in layers)
    return (
        "<h2>Bit widths and layers</h2>"
        + picture(figures / "bits.png", "bits of every layer", "")
        + table(head, rows, text=2)
        + f'<p class="soft">{total:,} multiply-accumulates a patch. Accumulators are sized from the weights '
        "by interval arithmetic, so that an overflow is a defect; a saturation is part of the arithmetic.</p>"
    )


def _training_section(document: Mapping[str, Any], figures: Path) -> str:
    labels = document["dataset"]["labels"]
    used = [f"{labels[key]:,} by {text}" for key, text in REFERENCES.items() if labels[key]]
    return f"<h2>Training</h2><p>Training labels: {' and '.join(used) or 'none'}.</p>" + picture(
        figures / "curves.png", "learning curves", "The black dot is the lowest mean error."
    )


def _provenance_section(document: Mapping[str, Any]) -> str:
    dataset = document["dataset"]
    items = [
        ("data", dataset["source"]),
        (
            "peaks",
            f"{dataset['train']:,} train, {dataset['validation']:,} validation, {dataset['test']:,} test",
        ),
        ("split by", dataset.get("split_by")),
        ("seed", document["seed"]),
        ("commit", document.get("git_commit")),
        ("versions", ", ".join(f"{name} {version}" for name, version in document["versions"].items())),
    ]
    described = "".join(
        f"<dt>{key}</dt><dd>{NOT_MEASURED if value is None else escape(str(value))}</dd>" for key, value in items
    )
    rows = [[escape(stage), f"{wall:,.1f}"] for stage, wall in document["seconds"].items()]
    rows.append(["<b>all</b>", f"<b>{sum(document['seconds'].values()):,.1f}</b>"])
    plan = escape(json.dumps(document["configuration"], indent=1))
    return (
        f"<h2>Provenance</h2><dl>{described}</dl><h3>Wall time of the stages</h3>"
        + table(["stage", "seconds"], rows, kind="narrow")
        + f"<details><summary>Configuration</summary><pre>{plan}</pre></details>"
    )

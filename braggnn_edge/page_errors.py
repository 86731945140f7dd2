"""The report's section of position errors: how far every estimator is from the reference, and where networks lose."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from braggnn_edge.evaluate import CLEAN_AREA, CLEAN_RESIDUAL
from braggnn_edge.figures import look
from braggnn_edge.metrics import PERCENTILES
from braggnn_edge.page_elements import picture, table

_WHAT = {
    "constant": "the patch's centre, where the crop has its brightest pixel",
    "maximum": "the brightest pixel of the patch",
    "centre_of_mass": "centroid of the counts above the patch's minimum",
    "centre_of_mass_squared": "centroid of their squares",
    "voigt": "maximum-likelihood fit of the model that made the peaks",
    "cramer_rao_bound": "Gaussian draws: no unbiased estimator does better",
    "float": "the published network, float32",
    "float_compact": "the firmware network before quantization, float32",
    "quantized": "the firmware network, quantized, in PyTorch",
    "csim": "the generated C++ firmware, compiled",
    "rtl": "the generated hardware description, simulated",
}


def _error_table(errors: Mapping[str, Any], lost: Sequence[Mapping[str, Any]]) -> str:
    marked = {(entry["estimator"], entry["percentile"]) for entry in lost}
    rows, classes = [], []
    for name, entry in errors.items():
        kind = look(name)
        what = escape(_WHAT.get(name.partition(":")[0], ""))
        cells = [
            f'<span class="dot" style="background:{kind.color}"></span>{escape(kind.label)}<small>{what}</small>',
            f"{entry['n']:,}",
            f"{entry['mean']:.4f}",
        ]
        for key in PERCENTILES:
            value = f"{entry[key]:.4f}"
            cells.append(f'<td class="lost">▲ {value}</td>' if (name, key) in marked else value)
        rows.append([*cells, f"{entry['bias_row']:+.4f}", f"{entry['bias_col']:+.4f}"])
        classes.append(
            "network" if name.partition(":")[0] in ("float", "float_compact", "quantized", "csim", "rtl") else ""
        )
    head = ["estimator", "n", "mean", "p50", "p75", "p95", "p99.5", "bias row", "bias col"]
    return table(head, rows, classes=classes)


def _loss_words(lost: Sequence[Mapping[str, Any]]) -> str:
    """In words, where networks lose; those with the same figures share a sentence."""
    if not lost:
        return '<p class="wins">No network loses to a centroid at any of these percentiles.</p>'
    where: dict[tuple[str, str], list[str]] = {}
    for entry in lost:
        percentile = entry["percentile"].replace("_", ".")
        text = f"{percentile} ({entry['px']:.4f} px against {entry['centroid_px']:.4f} px)"
        where.setdefault((entry["estimator"], entry["centroid"]), []).append(text)
    sentences: dict[tuple[str, str], list[str]] = {}
    for (name, rival), texts in where.items():
        sentences.setdefault((rival, ", ".join(texts)), []).append(f"<b>{escape(look(name).label)}</b>")
    items = "".join(
        f"<li>{' and '.join(names)} {'loses' if len(names) == 1 else 'lose'} to the "
        f"{escape(look(rival).label)} at {texts}.</li>"
        for (rival, texts), names in sentences.items()
    )
    return f'<div class="loses"><b>▲ A network loses to a centroid:</b><ul>{items}</ul></div>'


def error_section(document: Mapping[str, Any], figures: Path) -> str:
    reference, dataset = document["reference"], document["dataset"]
    patch = dataset["patch"]
    if reference["kind"] == "truth":
        words = "Errors are distances from <b>the known truth</b> of simulated spots."
        words += _left_out(reference["left_out"], "that no simulated spot explains")
        missing = reference["voigt_not_converged"]
        if missing:
            words += f" The fit did not converge on {missing:,} peaks, which its own row alone leaves out."
    else:
        words = "Errors are distances from <b>the pseudo-Voigt fit</b>: the truth is not known."
        words += _left_out(reference["left_out"], "whose fit did not converge")
    chosen = "; ".join(_selection(scan) for scan in dataset.get("test_scans", []))
    parts = [
        "<h2>Position errors</h2>",
        f"<p>{words} In pixels; p50 is the median, 95 % of the peaks are closer than p95. Test patches are "
        f"{patch['size']} x {patch['size']} px, centred on the {escape(patch['centred_on'])} as in use, "
        f"without further shift (in training they are shifted by up to {patch['training_shift']} px).</p>",
        f"<p>Test peaks: {chosen}.</p>" if chosen else "",
        _error_table(document["errors_px"], document["loses_to_centroid"]),
        _loss_words(document["loses_to_centroid"]),
    ]
    if document.get("errors_px_clean"):
        parts += [
            f"<h3>Clean peaks only</h3><p>Test peaks that are unsaturated, have {CLEAN_AREA} or more pixels and a "
            f"residual of the fit (rms over the patch) below {CLEAN_RESIDUAL:.0%} of its amplitude.</p>",
            _error_table(document["errors_px_clean"], document["loses_to_centroid_clean"]),
            _loss_words(document["loses_to_centroid_clean"]),
        ]
    parts += [
        picture(
            figures / "errors.png",
            "cumulative error distributions",
            "Estimators that answer alike share a curve.",
        ),
        picture(
            figures / "height.png",
            "error against peak height",
            "Every point is an equal share of the test peaks; those with fewer than 5 answers are left out.",
        ),
    ]
    return "".join(parts)


def _left_out(count: int, which: str) -> str:
    return f" {count:,} test peaks {which} are left out." if count else " No test peak is left out."


def _selection(scan: Mapping[str, Any]) -> str:
    words = [f"<b>{scan['peaks']:,}</b> of scan {escape(scan['name'])}"]
    if "threshold" in scan:
        words.append(f"8-connected pixels above {scan['threshold']:g} counts, at least {scan['min_area']} of them")
    if scan.get("lone"):
        words.append("one maximum and no neighbour in the patch")
    if scan.get("unsaturated"):
        words.append("unsaturated")
    if scan.get("max_residual"):
        words.append(f"residual of the fit below {100 * scan['max_residual']:g} % of its amplitude")
    return ", ".join(words)

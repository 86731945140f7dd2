"""Stage "report": ``report.json``, ``report.html`` and ``report.png`` from the results of all stages.

The documents' keys are described in docs/reference/artifacts.md; what was not measured is absent, never invented.
"""

import json
import math
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.config import Config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.files import written_aside
from braggnn_edge.core.rundir import manifest_of, versions, write_json
from braggnn_edge.evaluation import figures
from braggnn_edge.evaluation.evaluate import errors_of, estimates_without_network, is_clean, losses, reference_of
from braggnn_edge.evaluation.groups import errors_by_group, part
from braggnn_edge.evaluation.metrics import distances
from braggnn_edge.evaluation.positions import load_positions, save_positions
from braggnn_edge.evaluation.provenance import described, groups_outside, outside
from braggnn_edge.evaluation.sigma import Intervals, sigma_figures
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.networks import patches_for
from braggnn_edge.locate.stage import SHIPPED
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.peaks.table import load as load_table
from braggnn_edge.report import page
from braggnn_edge.report.dataset import dataset_entry
from braggnn_edge.report.distribution import error_distribution
from braggnn_edge.report.gallery import Centres, gallery, summary_picture
from braggnn_edge.report.grains_section import taken_over
from braggnn_edge.report.networks import errors_of_crowds, left_out, networks_of, trained_on
from braggnn_edge.report.sigma_figure import reliability
from braggnn_edge.report.sigma_section import alike
from braggnn_edge.report.spec import ReportSpec

Offsets = NDArray[np.float64]

#: What the report takes over from the results, and what stands for a missing one (None: nothing).
_COPIED: tuple[tuple[str, Any], ...] = (
    ("bit_exact", {}),
    ("layers", []),
    ("hardware", []),
    ("corner_cases", None),
    ("front_end", None),
    ("reference_inference", None),
    ("grains", None),
)
#: Learning curves by the name of their file, where they are called otherwise.
_CURVES = {"qat": "quantized", "circuit_training": "circuit"}
_DEFAULT = ReportSpec()
_NETWORKS = (SHIPPED, "float", "float_compact", "quantized")


def run(
    spec: ReportSpec,
    cfg: Config,
    run: Path,
    stages: tuple[str, ...],
    hardware: list[dict[str, Any]],
    directory: Path,
    say: Callable[[str], None],
) -> None:
    """The stage: collect what ``stages`` of ``run`` left and :func:`build` the report in ``directory``.

    hardware: the report's rows of that name, before those that the comparison itself made.
    """
    table = load_table(run / "label/peaks.h5")
    try:
        results = json.loads((run / "csim" / "results.json").read_text())
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"results of the csim stage cannot be read ({error}); run `braggnn-edge csim`") from error
    predictions, intervals = load_positions(run / "csim" / "predictions.npz")
    networks = networks_of(run, table.size)
    if SHIPPED in networks:
        patches = patches_for(networks[SHIPPED], table.of(TEST))
        predictions[SHIPPED], *known = networks[SHIPPED].locate_with_intervals(patches)
        intervals[SHIPPED] = Intervals(*known)
    results["hardware"] = hardware + results.get("hardware", [])
    if "reference" in stages:
        try:
            results["reference_inference"] = json.loads((run / "reference/reference.json").read_text())
            (directory / "figures").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / "reference/reference.png", directory / "figures/reference.png")
        except (OSError, ValueError) as error:
            raise UserError(
                f"results of the reference stage cannot be read ({error}); run `braggnn-edge reference`"
            ) from error
    results["grains"] = taken_over(run, directory / "figures")
    manifests = {name: manifest_of(run, name) for name in stages}
    last = manifests["csim"]
    config = cfg.plain(tuple(cfg.sections))
    config.get("search", {}).pop("storage", None)  # no part of the result, and may hold a password
    info = {
        "name": run.name,
        "seed": cfg.seed,
        "config": config,
        "notes": (*spec.notes, *left_out(networks, table.size)),
        "versions": {"python": last["python"], **last["packages"]},
        "git_commit": last["git_commit"],
    }
    seconds = {name: manifest["wall_seconds"] for name, manifest in manifests.items()}
    document = build(
        table,
        predictions,
        results,
        _histories(run, stages),
        seconds,
        info,
        directory,
        spec,
        networks,
        intervals,
    )
    save_positions(predictions, intervals, directory / "positions.npz")
    for name, entry in document["errors_px"].items():
        say(f"  {name:24s} p50 {entry['p50']:.4f}  p75 {entry['p75']:.4f}  p95 {entry['p95']:.4f} px")
    say(f"  bit-exactness: {page.verdict(document['bit_exact'])}")


def _histories(run: Path, stages: tuple[str, ...]) -> dict[str, list[dict[str, float]]]:
    """The learning curves that the training stages wrote, by network."""
    found = {}
    trained = [stage for stage in ("train", "compact", "qat") if stage in stages]
    for path in (p for stage in trained for p in sorted((run / stage).glob("*.json"))):
        content = json.loads(path.read_text())
        if path.name != "manifest.json" and isinstance(content, dict) and "history" in content:
            found[_CURVES.get(path.stem, path.stem)] = content["history"]
    order = ("full", "compact", *_CURVES.values())
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


@dataclass(frozen=True)
class Evaluation:
    """The JSON document, and what its pictures need: the compared peaks, all estimates and the reference (n, 2) px."""

    document: dict[str, Any]
    used: PeakTable
    estimates: dict[str, Offsets]
    reference: Offsets


def build(
    table: PeakTable,
    predictions: Mapping[str, NDArray[np.floating]],
    results: Mapping[str, Any],
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    seconds: Mapping[str, float],
    info: Mapping[str, Any],
    directory: Path,
    spec: ReportSpec = _DEFAULT,
    networks: Mapping[str, Locator] = MappingProxyType({}),
    intervals: Mapping[str, Intervals] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write ``report.json``, ``report.html``, ``report.png`` and ``figures/*.png``; return the JSON document.

    histories: as in :func:`figures.learning_curves`; the rest as in :func:`evaluate_run`. Nothing is written when
    that raises UserError, or when ``float_beats_centroid`` is asked for and is not so.
    """
    evaluation = evaluate_run(table, predictions, results, seconds, info, networks, intervals, spec.largest_sigma)
    if spec.float_beats_centroid:
        _require_float(evaluation.document["errors_px"])
    _write(evaluation, histories, directory)
    return evaluation.document


def evaluate_run(
    table: PeakTable,
    predictions: Mapping[str, NDArray[np.floating]],
    results: Mapping[str, Any],
    seconds: Mapping[str, float],
    info: Mapping[str, Any],
    networks: Mapping[str, Locator] = MappingProxyType({}),
    intervals: Mapping[str, Intervals] = MappingProxyType({}),
    largest_sigma: float = 0.0,
) -> Evaluation:
    """The content of ``report.json``.

    table: the full peak table; predictions: form to offsets (n, 2) px for the rows of ``table.of(TEST)``; results: of
    the csim stage (``bit_exact``, ``layers``, ``hardware``, and perhaps ``notes``, ``corner_cases``, ``front_end``),
    perhaps with the documents of the stages "reference" as ``reference_inference`` and "grains" as ``grains``; seconds:
    wall time of each stage; info: ``name``, ``seed``, ``config`` (plain), and where known ``split_by``, ``notes``,
    ``versions``, ``git_commit``; networks: those that can be asked of peaks with company, which are no test peaks; of
    the one that ships, what it was trained on; intervals: of the predictions that have some; largest_sigma: as in
    ``[report]``. Raises UserError when there is nothing to test on, or predictions do not fit the table.
    """
    test = table.of(TEST)
    kind = reference_of(test)
    rows = test.has(kind)
    used = test.where(rows)
    if len(used.peaks) == 0:
        raise UserError("no test peak has a known position; label/summary.json says why peaks are excluded")
    reference = used.offsets(kind)
    estimates = estimates_without_network(used, kind, reference, int(info["seed"]))
    for name in _ordered(predictions):
        estimates[name] = _checked(name, predictions[name], len(test.peaks))[rows]
    known = trained_on(table, _ordered(predictions), networks, info["config"])
    beyond = {name: outside(ranges, used) for name, ranges in known.items()}
    errors = errors_of(estimates, reference, kind, beyond)
    sure = {
        name: _checked_intervals(name, intervals[name], len(test.peaks)).where(rows) for name in _ordered(intervals)
    }
    sigma = sigma_figures(estimates, sure, used, kind, int(info["seed"]), largest_sigma)
    document: dict[str, Any] = {
        "name": info["name"],
        "seed": info["seed"],
        "notes": [*_lines(info.get("notes")), *_lines(results.get("notes"))],
        "dataset": dataset_entry(table, info),
        "reference": {"kind": kind, "left_out": int((~rows).sum())},
        "errors_px": errors,
        "loses_to_centroid": losses(errors),
        "sigma": sigma,
        "provenance": {name: described(ranges, used) for name, ranges in known.items()},
        "groups": errors_of_crowds(table, kind, networks, known, int(info["seed"]), sigma)
        | errors_by_group(groups_outside(known, used), estimates, reference, kind, beyond),
    }
    if kind == "truth":
        document["reference"]["voigt_not_converged"] = int((~used.has("voigt")).sum())
    else:
        clean = is_clean(used)
        selected = part(estimates, clean)
        document["errors_px_clean"] = errors_of(selected, reference[clean], kind, part(beyond, clean))
        document["loses_to_centroid_clean"] = losses(document["errors_px_clean"])
    for key, empty in _COPIED:
        if results.get(key, empty) is not None:
            document[key] = _known(results.get(key, empty))
    document["seconds"] = dict(seconds)
    document["versions"] = info.get("versions") or {"python": platform.python_version(), **versions()}
    if info.get("git_commit"):
        document["git_commit"] = info["git_commit"]
    document["configuration"] = info["config"]
    return Evaluation(document, used, estimates, reference)


def _ordered(predictions: Mapping[str, Any]) -> list[str]:
    return [n for n in _NETWORKS if n in predictions] + [n for n in predictions if n not in _NETWORKS]


def _checked(name: str, given: NDArray[np.floating], count: int) -> Offsets:
    offsets: Offsets = np.asarray(given, np.float64)
    if offsets.shape != (count, 2):
        raise UserError(
            f"predictions of {name!r} have shape {offsets.shape}, the test split needs {(count, 2)}; "
            "run `braggnn-edge csim`"
        )
    if not np.isfinite(offsets).all():
        bad = int((~np.isfinite(offsets).all(axis=1)).sum())
        raise UserError(f"predictions of {name!r} are not finite on {bad} of {count} patches; train it again")
    return offsets


def _checked_intervals(name: str, given: Intervals, count: int) -> Intervals:
    for values in (given.sigma, given.wide):
        if values.shape != (count, 2) or not (values > 0).all():
            raise UserError(
                f"intervals of {name!r} have shape {values.shape}, expected {(count, 2)} and widths above 0; run "
                "`braggnn-edge csim`"
            )
    return given


def _require_float(errors: Mapping[str, Mapping[str, Any]]) -> None:
    got, baseline = errors.get("float", {}).get("p95", math.inf), errors["centre_of_mass"]["p95"]
    if not got < baseline:
        raise UserError(
            f"the float BraggNN's p95 of {got:.3f} px is not below the centre of mass ({baseline:.3f} px): "
            "train it longer ([full.loop] max_iterations), or set float_beats_centroid = false in [report]"
        )


def _lines(notes: Any) -> list[str]:
    return [notes] if isinstance(notes, str) else [str(line) for line in notes or ()]


def _known(value: Any) -> Any:
    """Drop what is unknown (None, NaN) from nested JSON values."""
    if isinstance(value, Mapping):
        kept = {str(key): _known(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None}
    if isinstance(value, list | tuple):
        return [item for item in map(_known, value) if item is not None]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(evaluation: Evaluation, histories: Mapping[str, Sequence[Mapping[str, float]]], directory: Path) -> None:
    """Draw the pictures and write all documents."""
    document, used, reference = evaluation.document, evaluation.used, evaluation.reference
    described = page.REFERENCES[document["reference"]["kind"]]
    errors = {name: distances(offsets, reference) for name, offsets in evaluation.estimates.items()}
    answered = {name: values[np.isfinite(values)] for name, values in errors.items()}
    folder = directory / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    error_distribution(answered, described, folder / "errors.png")
    figures.error_by_height(errors, used.peaks["maximum"], described, folder / "height.png")
    if document["sigma"]:
        reliability(alike(document["sigma"]), folder / "sigma.png")
    marks = {name: offsets for name, offsets in evaluation.estimates.items() if name != "cramer_rao_bound"}
    subject = next((n for n in marks if n.startswith(("rtl", "csim"))), list(marks)[-1])
    centres = Centres(used.patches(), marks, reference, described, subject)
    gallery(centres, folder / "gallery.png")
    summary_picture(centres, answered, page.headline(document, subject), directory / "report.png")
    if any(histories.values()):
        figures.learning_curves(histories, folder / "curves.png")
    if document["layers"]:
        figures.bit_widths(document["layers"], folder / "bits.png")
    write_json(directory / "report.json", document)
    with written_aside(directory / "report.html") as aside:
        aside.write_text(page.render(document, subject, folder), encoding="utf-8")

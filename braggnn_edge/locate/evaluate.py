"""Command "evaluate": networks and the trivial estimators on the peaks of a labelled scan, in seconds.

No firmware is made. The peaks are the test peaks of the label stage; errors are distances from the truth on simulated
scans, and from the fit on measured ones.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.core.stages import Context
from braggnn_edge.evaluation.evaluate import errors_of, estimates_without_network, is_clean, reference_of
from braggnn_edge.evaluation.figures import error_by_height
from braggnn_edge.evaluation.groups import DOUBLE, FEWEST, NEIGHBOURS, crowded, crowds, errors_by_group, part
from braggnn_edge.evaluation.metrics import PERCENTILES, distances
from braggnn_edge.evaluation.provenance import OUTSIDE, described, groups_outside, outside, sentence
from braggnn_edge.evaluation.sigma import Intervals, flag_groups, sentences, sigma_figures, width
from braggnn_edge.locate.locator import Locator
from braggnn_edge.locate.networks import margin, open_network, patches_for
from braggnn_edge.locate.stage import SHIPPED
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import Flag, PeakTable
from braggnn_edge.peaks.table import load as load_table

Offsets = NDArray[np.float64]

#: Edges of the bins of the fitted FWHM (geometric mean of the axes), px.
_WIDTHS = (0.0, 1.5, 2.0, 3.0, 4.0, 6.0, np.inf)
#: Bins of brightness, of equal numbers of peaks.
_BRIGHTNESS = 4


def evaluate(
    table: PeakTable, networks: Mapping[str, Locator], seed: int = 1, largest_sigma: float = 0.0
) -> dict[str, Any]:
    """Errors in px of networks and trivial estimators on a peak table.

        table = load(Path("runs/demo/label/peaks.h5"))
        found = evaluate(table, {"universal": open_network("universal")})
        print(found["errors_px"]["universal"]["p50"])

    ``errors_px`` is as in report.json, over test peaks with a reference; ``errors_px_clean`` the same over clean
    measured peaks. ``groups`` is the same over parts of the test peaks (by brightness, by width, fits on a bound), and
    over peaks with company: "double maxima" and "neighbours within N px" (see :mod:`braggnn_edge.evaluation.groups`).
    ``forms`` says which form of each network answered (:func:`braggnn_edge.locate.networks.open_network`).
    ``sigma`` says what the networks' own intervals are worth (:mod:`braggnn_edge.evaluation.sigma`); with
    ``largest_sigma`` px as the threshold above which a peak is not to be trusted. ``provenance`` says, by network, how
    many test peaks are outside what it was trained on, and why; an entry of errors counts its own as ``outside``, and
    the errors over all of them are a group.
    Raises UserError when there is no test peak with a reference, and for a network of larger patches.
    """
    test = table.of(TEST)
    if not len(test.peaks):
        raise UserError('no test peaks to evaluate on: use = ["test"] in a [[scan]] makes all its peaks test peaks')
    kind = reference_of(test)
    used = test.where(test.has(kind))
    if not len(used.peaks):
        raise UserError(f"no test peak has a reference ({kind}); the fits' flags say why none converged")
    estimates, intervals = _estimates(used, kind, networks, seed)
    reference = used.offsets(kind)
    document: dict[str, Any] = {"reference": kind, "peaks": len(used.peaks)}
    known = {name: network.trained_on for name, network in networks.items()}
    beyond = {name: outside(ranges, used) for name, ranges in known.items()}
    document["errors_px"] = errors_of(estimates, reference, kind, beyond)
    if kind == "voigt":
        clean = is_clean(used)
        document["errors_px_clean"] = errors_of(part(estimates, clean), reference[clean], kind, part(beyond, clean))
    document["forms"] = {name: network.form for name, network in networks.items()}
    document["provenance"] = {name: described(ranges, used) for name, ranges in known.items()}
    groups = _groups(used) | groups_outside(known, used)
    document["groups"] = errors_by_group(groups, estimates, reference, kind, beyond)
    document["sigma"] = sigma_figures(estimates, intervals, used, kind, seed, largest_sigma)
    near = crowded(table, kind)
    if len(near.peaks) >= FEWEST:
        others, intervals = _estimates(near, kind, networks, seed)
        flag_groups(document["sigma"], crowds(near), others, intervals, near.offsets(kind))
        beyond = {name: outside(ranges, near) for name, ranges in known.items()}
        document["groups"] |= errors_by_group(crowds(near), others, near.offsets(kind), kind, beyond)
    return document


def _estimates(
    used: PeakTable, kind: str, networks: Mapping[str, Locator], seed: int
) -> tuple[dict[str, Offsets], dict[str, Intervals]]:
    """Offsets (n, 2) px by estimator, and the intervals of the networks that know theirs."""
    estimates = estimates_without_network(used, kind, used.offsets(kind), seed)
    intervals: dict[str, Intervals] = {}
    for name, network in networks.items():
        _check_size(name, network, used.size)
        cut = patches_for(network, used)
        if network.sigma:
            estimates[name], *known = network.locate_with_intervals(cut)
            intervals[name] = Intervals(*known)
        else:
            estimates[name] = network.locate(cut)
    return estimates, intervals


def _groups(used: PeakTable) -> dict[str, NDArray[np.bool_]]:
    """Parts of the peaks by name: of equal brightness, of equal width, and those whose fit ended on a bound."""
    p = used.peaks
    height = p["maximum"].astype(np.float64)
    edges = np.quantile(height, np.linspace(0, 1, _BRIGHTNESS + 1))
    edges[-1] = np.inf
    groups = {}
    for low, high in pairwise(edges):
        name = f"{low:.0f} to {high:.0f} counts" if np.isfinite(high) else f"{low:.0f} counts and more"
        groups[name] = (height >= low) & (height < high)
    broad, fitted = width(used), p["voigt_converged"]
    for low, high in pairwise(_WIDTHS):
        name = f"FWHM {low:g} to {high:g} px" if np.isfinite(high) else f"FWHM {low:g} px and more"
        groups[name] = (broad >= low) & (broad < high)
    groups["fit on a bound"] = fitted & ((p["flags"] & Flag.AT_BOUND) != 0)
    return groups


def named(networks: Sequence[str]) -> dict[str, Locator]:
    """Networks by a short name each: the file's, with its folder's where two would be alike."""
    found: dict[str, Locator] = {}
    for text in networks:
        path = Path(text)
        name = path.stem if path.stem not in ("locator", *found) else f"{path.parent.name}/{path.stem}"
        if name in found:
            name = text
        found[name] = open_network(text)
    return found


def table_lines(document: Mapping[str, Any]) -> list[str]:
    """The errors as lines of text, the best median first."""
    errors, groups = document["errors_px"], document["groups"]
    to = {"truth": "truth", "voigt": "pseudo-Voigt fit"}[document["reference"]]
    lines = [f"{document['peaks']} test peaks, errors in px to the {to}:", *_rows(errors)]
    bound = groups.get("fit on a bound", {}).get("constant", {}).get("n", 0)
    if document["reference"] == "voigt" and bound:
        lines.append(f"  {bound} of the fits ended on a bound, so their positions are soft")
    lines += [f"  {sentence([name], entry)}" for name, entry in document["provenance"].items()]
    for name, entry in document["sigma"].items():
        lines += [f"  {name}: {said}" for said in sentences(entry)]
    for name in groups:
        if name.startswith((OUTSIDE, DOUBLE, NEIGHBOURS)):
            lines += [f"{groups[name]['constant']['n']} peaks, {name}:", *_rows(groups[name])]
    return lines


def _rows(errors: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = []
    for name in sorted(errors, key=lambda one: errors[one]["p50"]):
        figures = "  ".join(f"{key.replace('_', '.')} {errors[name][key]:.3f}" for key in PERCENTILES)
        beyond = errors[name].get("outside")
        rows.append(f"  {name:26s} {figures}" + (f"  ({beyond} outside its provenance)" if beyond else ""))
    return rows


def check(context: Context) -> None:
    """Refuse networks that cannot be read, or are of larger patches: now, not after labelling."""
    size = context.cfg["peaks"].size
    for name, network in named(context.options["network"] or [SHIPPED]).items():
        _check_size(name, network, size)


def _check_size(name: str, network: Locator, size: int) -> None:
    """Refuse a network that needs larger patches than those of ``size`` px."""
    if margin(network, size) is None:
        raise UserError(
            f"network {name} takes patches of {network.size} px, those of this scan have {size} px; set size in "
            f"[peaks] to {network.size}, or choose a network of smaller patches"
        )


def work(context: Context) -> None:
    """The command: ``evaluate.json`` and ``evaluate.png`` in the run directory, and the table on the screen."""
    networks = named(context.options["network"] or [SHIPPED])
    table = load_table(context.run / "label" / "peaks.h5")
    document = evaluate(table, networks, context.cfg.seed, context.options["largest_sigma"] or 0.0)
    for name, network in networks.items():
        if network.remark:
            context.say(f"{name}: {network.remark}")
    for line in table_lines(document):
        context.say(line)
    target = context.options["json"] or context.run / "evaluate.json"
    write_json(target, document)
    _draw(table, networks, document["reference"], context.cfg.seed, target.with_suffix(".png"), context.say)
    context.say(f"written: {target}")


def _draw(
    table: PeakTable, networks: Mapping[str, Locator], kind: str, seed: int, path: Path, say: Callable[[str], None]
) -> None:
    test = table.of(TEST)
    used = test.where(test.has(kind))
    estimates, _ = _estimates(used, kind, networks, seed)
    errors = {name: distances(offsets, used.offsets(kind)) for name, offsets in estimates.items()}
    to = {"truth": "truth", "voigt": "pseudo-Voigt fit"}[kind]
    error_by_height(errors, used.peaks["maximum"].astype(np.float64), to, path)
    say(f"written: {path}")

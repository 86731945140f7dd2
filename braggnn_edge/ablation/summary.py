"""The ablation as a page to read: effects with their intervals, and the errors of every network."""

from collections.abc import Mapping
from typing import Any

_KEYS = ("p50", "p75", "p95", "mean")


def summary_page(document: Mapping[str, Any]) -> str:
    """Markdown of an ``ablation.json`` document."""
    loop, peaks, paper = document["ablation"]["loop"], document["peaks"], document["paper"]
    lines = [
        "# Ablation: results",
        "",
        f"{peaks['train']} training, {peaks['validation']} validation, {peaks['test']} test peaks; "
        f"{loop['max_iterations']} iterations of {loop['batch']} patches, {loop['schedule']} schedule, learning rate "
        f"{loop['learning_rate']:g}. The paper's recipe is longer: up to 80,000 of 512 (configs/simulated.toml).",
        f"Intervals: {document['interval']}.",
    ]
    if document["collapsed"]:
        lines += ["", f"Not learned, and so in no effect: {', '.join(document['collapsed'])}."]
    lines += ["", "## Effects: error with over error without, minus 1", ""]
    lines += _table(("factor", "networks", "test crops, m", "seeds", *_KEYS), _effect_rows(document["effects"]))
    reference = document["errors_px"][0]["reference"]
    lines += ["", f"## Errors: distance from the {reference}, px", ""]
    rows = [
        (row["variant"], row["seed"], row["crop"], *(f"{row[key]:.4f}" for key in _KEYS))
        for row in sorted(document["errors_px"], key=lambda row: (row["crop"], row["variant"], row["seed"]))
    ]
    rows += [
        (row["estimator"], "", row["crop"], *(f"{row[key]:.4f}" for key in _KEYS)) for row in document["trivial_px"]
    ]
    lines += _table(("network", "seed", "test crops, m", *_KEYS), rows)
    lines += [
        "",
        f"For comparison, of other data and another reference: the paper's BraggNN is within {paper['p75']} px of its "
        f"pseudo-Voigt fit for 75 % and {paper['p95']} px for 95 % of its test peaks ({paper['source']}); p50 and the "
        "percentiles in its figures 4, 7, 8 and 9 are not quoted.",
        "",
    ]
    return "\n".join(lines)


def _effect_rows(effects: list[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for effect in effects:
        about = (effect["factor"], f"{effect['with']} / {effect['without']}", effect["crop"], len(effect["seeds"]))
        rows.setdefault(about, {})[effect["percentile"]] = percent(effect)
    return [(*about, *(cells[key] for key in _KEYS)) for about, cells in rows.items()]


def percent(effect: Mapping[str, Any]) -> str:
    """``-12.3 % [-20.1, -3.8]``; without brackets where one seed gives no interval."""
    text = f"{100 * effect['change']:+.1f} %"
    return text if effect["low"] is None else f"{text} [{100 * effect['low']:+.1f}, {100 * effect['high']:+.1f}]"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ("---",) * len(head), *rows)]

"""What the stage "grains" says at its end: tables for the screen, with what their columns mean, and the warnings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from braggnn_edge.evaluation.figures import look
from braggnn_edge.grains.compare import um
from braggnn_edge.grains.kept import file_name
from braggnn_edge.grains.outcome import WORSE
from braggnn_edge.grains.spec import FIT, KINDS

#: Headings of the columns of differences: their group, and each with its unit.
_HEADS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("position, um", ("p50", "p95"), 8), ("mean vector, um", ("x", "y", "z"), 7), ("turn, deg", ("p50",), 11),
    ("strain", ("p50",), 10), ("size, um", ("p50",), 10),
)  # fmt: skip


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The tables, of grains beside the true ones and beside those of the fit, what sigma is worth, and warnings."""
    true, entries = document["truth"], document["estimators"]
    if true:
        yield (
            f"The scan has {true['grains']} true grains, {true['above_least_size']} of them above "
            f'{true["least_size_um"]:g} um. "found" are true grains that a refined grain has the orientation of, to '
            '0.25 degrees; "false" are refined grains that are none of them.'
        )
    for to, words in (("to_truth", "the true grains"), ("to_fit", "the grains of the pseudo-Voigt fit")):
        rows = [
            (kind, entry["label"], entry[kind])
            for kind in KINDS
            for entry in entries.values()
            if "position_um" in entry.get(kind, {}).get(to, {})
        ]
        if rows:
            yield from _table(words, to, rows)
    for name, gain in document["weighting"].items():
        yield f"Weighting by sigma, {entries[name]['label']}: {weighted(name, gain)}"
    for remark in document["remarks"]:
        yield f"from the grains of the {look(FIT).label}: {remark}"
    for warning in document["warnings"]:
        yield f"WARNING: {warning}"


def weighted(name: str, gain: Mapping[str, Any]) -> str:
    """A sentence on what weighting by the sigma of an estimator did to its grains, and what to do where it is worse."""
    said = (
        f"p50 of the distance to the truth {um(gain['plain_um'])} -> {um(gain['weighted_um'])} um, nearer to it in "
        f"{gain['nearer']} of {gain['grains']} grains: "
    )
    if gain["verdict"] != WORSE:
        return said + gain["verdict"]
    return (
        f"{said}WORSE, its sigma does not say how far off its positions are on this scan; take its grains found anew "
        f"without sigma ({file_name(name)}_plain.h5), and on lists of your own `braggnn-edge grains --equal-weights`"
    )


def _table(words: str, to: str, rows: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Iterator[str]:
    """One table; rows: kind, label of the estimator, and entry."""
    count = ("found", "false") if to == "to_truth" else ("paired",)
    wide = max(len(label) for _, label, _ in rows) + 2
    yield ""
    yield f"Differences to {words}:"
    group, head = " " * (wide + 7 * len(count)), f"{'estimator':<{wide}}" + "".join(f"{name:>7}" for name in count)
    for title, names, width in _HEADS:
        group += f"{title:>{max(width * len(names), len(title) + 2)}}"
        below = "".join(f"{name:>{width}}" for name in names)
        head += f"{below:>{max(width * len(names), len(title) + 2)}}"
    yield group
    yield head
    last = ""
    for kind, label, entry in rows:
        if kind != last:
            yield f"-- {KINDS[kind]}"
            last = kind
        near = entry[to]
        numbers = [entry["found"], entry["false"]] if to == "to_truth" else [near["grains"]]
        at = near["position_um"]
        cells = [
            f"{um(at['p50']):>8}{um(at['p95']):>8}", "".join(f"{value:+7.2f}" for value in near["mean_vector_um"]),
            f"{near['degrees']['p50']:11.4f}", f"{near['strain']['p50']:10.1e}",
            f"{um(near['size_um']['p50']):>10}" if "size_um" in near else f"{'not known':>10}",
        ]  # fmt: skip
        line = f"{label:<{wide}}" + "".join(f"{number:7d}" for number in numbers)
        for (title, names, width), cell in zip(_HEADS, cells, strict=True):
            line += f"{cell:>{max(width * len(names), len(title) + 2)}}"
        yield line

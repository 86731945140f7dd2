"""The softmax's tables against the functions they stand for: in their own terms, and in px.

    python benchmarks/attention_tables.py --run 8=runs/full_w8 --run 6=runs/full_w6 --run 4=runs/full_w4 \\
        --output benchmarks/attention_tables.json

Tables alone. Exponential: the entry found for a difference d of scores, over the largest entry, less exp(-d), for d
from 0 to twice the reach of the table. Reciprocal: R * S * 2**-(M + L - 1) - 1 for every sum S of 81 exponentials.

In px, for each run, on simulated test peaks (measured ones where the run has no others). Everything is the quantized
network in float64 but for the softmax, whose exact scores s come from the quantized queries and keys:

    tables              the network as it is; checked here to be its codes
    exact exponential   e = (2**E - 1) * exp(-d), real, without an end; the reciprocal is read for the real sum
    exact reciprocal    the table's exponentials, a / S in place of a * R
    both exact          softmax in float64
    mean entries        entries but 0 and the last are the mean of the exponential over their bucket; else tables
    half step           d + half a bucket is floored, the entries as they are; else tables

The floors before and after (mixed, out, all later layers) stay. The networks were trained through "tables", no other.
``widths``: one table of b bits (exponential: b of index and entry; reciprocal: T = b, M = b + 4), the other exact.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attention_forms import Forms, load_forms, spread
from attention_matrix import ROOT, _named, commit, versions
from numpy.typing import NDArray
from torch import Tensor

from braggnn_edge.core.errors import UserError
from braggnn_edge.core.rundir import write_json
from braggnn_edge.evaluation.figures import BLUE, GREEN, INK, ORANGE, RED, drawn, log_ticks
from braggnn_edge.evaluation.metrics import distances
from braggnn_edge.peaks.splits import TEST
from braggnn_edge.peaks.table import PeakTable
from braggnn_edge.training.model import pooled
from quant.contract.arithmetic import Codes, Format
from quant.contract.tables import difference_frac, exp_table, leading_bits, reciprocal_table
from quant.training.plan import AttentionPlan
from quant.training.qnet import eval_exact, exact_copy

WIDTHS = (4, 6, 8, 10)
KEYS = 81
QUANTILES = (50, 75, 90, 95, 99, 100)
#: Patches evaluated at a time, and those whose weights are looked at.
BATCH, LOOKED_AT = 50, 100
COLORS = dict(zip(WIDTHS, (RED, ORANGE, GREEN, BLUE), strict=True))

Softmax = Callable[[Tensor], Tensor]
Function = Callable[[Tensor], Tensor]


def formats(index_bits: int, entry_bits: int) -> tuple[Format, Format]:
    """Of the exponential's index and entries, as :class:`quant.training.plan.AttentionPlan` chooses them."""
    entry = Format(entry_bits, entry_bits, signed=False)
    return Format(index_bits, difference_frac(index_bits, entry), signed=False), entry


def mean_entries(index: Format, entry: Format) -> Codes:
    """The mean of the exponential over each bucket; entry 0, which the maximum takes, and the last stay as they are."""
    width = 2.0**-index.frac
    start = np.arange(1 << index.bits) * width
    table = np.rint(entry.high * np.exp(-start) * -np.expm1(-width) / width).astype(np.int64)
    table[0], table[-1] = entry.high, 0
    return table


def tabulated(index: Format, table: Codes, offset: float = 0.0) -> Function:
    """Differences of scores to entries; ``offset`` in buckets is added before the floor."""
    entries = torch.from_numpy(table).double()
    return lambda d: entries[(d * 2.0**index.frac + offset).floor().clamp(max=len(table) - 1).long()]


def exponentials(index_bits: int, entry_bits: int) -> dict[str, Function]:
    """The exponential in its variants; all at the scale where exp(0) is the largest entry."""
    index, entry = formats(index_bits, entry_bits)
    table = exp_table(index, entry)
    return {
        "table": tabulated(index, table),
        "mean entries": tabulated(index, mean_entries(index, entry)),
        "half step": tabulated(index, table, 0.5),
        "exact": lambda d: entry.high * torch.exp(-d),
    }


def reciprocal(index_bits: int, bits: int) -> Function:
    """Sums, whole or real, to the table's 1 / S."""
    table = torch.from_numpy(reciprocal_table(index_bits, bits)).double()

    def found(total: Tensor) -> Tensor:
        mantissa, length = torch.frexp(total)
        entry = table[(mantissa * (2 << index_bits)).floor().long() - (1 << index_bits)]
        return torch.ldexp(entry, -(bits - 1 + length))

    return found


def softmax(exponential: Function, inverse: Function = torch.reciprocal) -> Softmax:
    """Scores (.., keys) to weights."""

    def weights(scores: Tensor) -> Tensor:
        e = exponential(scores.amax(-1, keepdim=True) - scores)
        return e * inverse(e.sum(-1, keepdim=True))

    return weights


def exponential_errors(index_bits: int, entry_bits: int) -> dict[str, Any]:
    """Worst, mean and signed mean error, relative to the largest entry, of each variant."""
    index, entry = formats(index_bits, entry_bits)
    reach = (1 << index_bits) * 2.0**-index.frac
    grid = torch.linspace(0, 2 * reach, 200_001, dtype=torch.float64)
    halves = torch.arange(1, 2 << index_bits, dtype=torch.float64) * 2.0 ** -(index.frac + 1)
    ends = torch.cat([grid, halves * (1 - 1e-12)])  # the worst is at the end of a bucket, or of one moved by half
    document: dict[str, Any] = {"index_bits": index_bits, "entry_bits": entry_bits, "frac": index.frac, "reach": reach}
    for name, function in exponentials(index_bits, entry_bits).items():
        if name != "exact":
            error, worst = ((function(d) / entry.high - torch.exp(-d)) for d in (grid, ends))
            document[name] = {
                "worst": float(worst.abs().max()), "mean": float(error.abs().mean()), "bias": float(error.mean()),
            }  # fmt: skip
    return document


def reciprocal_errors(index_bits: int, bits: int, entry_bits: int) -> dict[str, Any]:
    """Worst, mean and signed mean relative error of the quotient over all sums of 81 exponentials."""
    high = (1 << entry_bits) - 1
    sums = np.arange(high, KEYS * high + 1)
    entry, length = leading_bits(sums, index_bits)
    error = reciprocal_table(index_bits, bits)[entry] * np.ldexp(sums, -(bits - 1 + length)) - 1
    return {
        "index_bits": index_bits, "bits": bits, "exponential_bits": entry_bits, "worst": float(np.abs(error).max()),
        "mean": float(np.abs(error).mean()), "bias": float(error.mean()),
    }  # fmt: skip


def offsets(forms: Forms, codes: Codes, weights: Softmax) -> NDArray[np.float64]:
    """Input codes (n, size, size) to offsets (n, 2) px of the quantized network with another softmax."""
    exact = exact_copy(forms.quantized)
    block = exact.nlb
    if block is None:
        raise UserError(f"{forms.name} has no attention; name a run of a network that has it")

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = (query, pooled(key, block.pool), pooled(value, block.pool))
        q, k, v = (part.flatten(2).transpose(1, 2) for part in parts)
        return (weights(q @ k.transpose(1, 2)) @ v).transpose(1, 2).reshape(query.shape)

    block.attend = attend  # type: ignore[method-assign]
    found = []
    with torch.no_grad():
        for start in range(0, len(codes), BATCH):
            values = forms.plan.input.values(codes[start : start + BATCH])[:, None]
            found.append(exact(torch.from_numpy(values)).numpy())
    return np.concatenate(found)


def variants(plan: AttentionPlan) -> dict[str, Softmax]:
    """The softmax by the names of the module's text."""
    e = exponentials(plan.difference_bits, plan.exponential_bits)
    table = reciprocal(plan.reciprocal_index_bits, plan.reciprocal_bits)
    return {
        "tables": softmax(e["table"], table),
        "exact exponential": softmax(e["exact"], table),
        "exact reciprocal": softmax(e["table"]),
        "both exact": softmax(e["exact"]),
        "mean entries": softmax(e["mean entries"], table),
        "half step": softmax(e["half step"], table),
    }


def narrowed() -> dict[str, dict[int, Softmax]]:
    """One table of each width, the other function exact."""
    return {
        "exponential": {b: softmax(exponentials(b, b)["table"]) for b in WIDTHS},
        "reciprocal": {b: softmax(exponentials(b, b)["exact"], reciprocal(b, b + 4)) for b in WIDTHS},
    }


def distribution(one: NDArray[np.float64], two: NDArray[np.float64]) -> dict[str, float]:
    """Of the distance between two sets of positions, in px."""
    distance = distances(one, two)
    found = {f"p{q}" if q < 100 else "max": float(np.percentile(distance, q)) for q in QUANTILES}
    return found | {"mean": float(distance.mean()), "unchanged": float((distance == 0).mean())}


def weight_errors(forms: Forms, codes: Codes) -> dict[str, Any]:
    """What each exponential does to the weights of a row: the largest one's mean error, and half the sum of all."""
    kept: list[Tensor] = []
    plan = forms.plan.attention
    functions = exponentials(plan.difference_bits, plan.exponential_bits)

    def keep(scores: Tensor) -> Tensor:
        kept.append(scores)
        return softmax(functions["exact"])(scores)

    offsets(forms, codes[:LOOKED_AT], keep)
    scores = torch.cat(kept)
    exact = softmax(functions["exact"])(scores)
    top = exact.argmax(-1, keepdim=True)
    document: dict[str, Any] = {"largest_weight_median": float(exact.gather(-1, top).median())}
    for name in ("table", "mean entries", "half step"):
        difference = softmax(functions[name])(scores) - exact
        document[name] = {
            "largest_bias": float(difference.gather(-1, top).mean()),
            "moved": float(difference.abs().sum(-1).mean() / 2),
        }
    return document


def position(forms: Forms, peaks: PeakTable, reference: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Errors to the reference, and distances from the network as it is and from exact tables, of every variant."""
    codes, truth = forms.normalizer.codes(peaks.patches()), peaks.offsets(reference)
    found = {}
    for name, weights in variants(forms.plan.attention).items():
        found[name] = offsets(forms, codes, weights)
        say(name)
    own = forms.plan.output.values(eval_exact(forms.quantized, codes))
    if not np.array_equal(found["tables"], own):
        raise UserError(f"{forms.name}: the softmax of this benchmark is not the network's; bring it up to date")
    exact = found["both exact"]
    widths: dict[str, dict[str, Any]] = {}
    for table, by_width in narrowed().items():
        widths[table] = {}
        for bits, weights in by_width.items():
            widths[table][str(bits)] = distribution(offsets(forms, codes, weights), exact)
            say(f"{table} of {bits} bits")
    errors = {name: distances(value, truth) for name, value in found.items()}
    return {
        "reference": reference,
        "n": len(codes),
        "errors_px": {
            name: {f"p{q}": float(np.percentile(error, q)) for q in (50, 75, 95)} | {"mean": float(error.mean())}
            for name, error in errors.items()
        },
        "from_tables_px": {name: distribution(value, own) for name, value in found.items() if name != "tables"},
        "from_exact_px": {name: distribution(value, exact) for name, value in found.items() if name != "both exact"},
        "widths_from_exact_px": widths,
        "weights": weight_errors(forms, codes),
    }


def chosen_peaks(forms: Forms, wanted: int) -> tuple[PeakTable, str]:
    """Test peaks, evenly spread: those with truth, else those with a converged fit; and the reference."""
    test = forms.peaks.of(TEST)
    reference = "truth" if test.has("truth").any() else "voigt"
    test = test.where(test.has(reference))
    mask = np.zeros(len(test.peaks), bool)
    mask[spread(len(mask), wanted)] = True
    return test.where(mask), reference


def plan_errors(plan: AttentionPlan) -> dict[str, Any]:
    """Both tables of a plan."""
    return {
        "exponential": exponential_errors(plan.difference_bits, plan.exponential_bits),
        "reciprocal": reciprocal_errors(plan.reciprocal_index_bits, plan.reciprocal_bits, plan.exponential_bits),
    }


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Errors of both tables over their argument, and the effect in px of each width in every run."""
    runs = {name: run["position"] for name, run in document["runs"].items()}
    with drawn(path, 12.0, 3.9) as figure:
        left, middle, right = figure.subplots(1, 3)
        for bits in WIDTHS:
            high = formats(bits, bits)[1].high
            d = torch.linspace(0, 8, 4001, dtype=torch.float64)
            error = exponentials(bits, bits)["table"](d) / high - torch.exp(-d)
            left.plot(d.numpy(), error.numpy(), color=COLORS[bits], linewidth=1.0, label=f"{bits} bits")
            sums = np.arange(255, KEYS * 255 + 1)
            at, length = leading_bits(sums, bits)
            off = reciprocal_table(bits, bits + 4)[at] * np.ldexp(sums, -(bits + 3 + length)) - 1
            middle.plot(sums, off, color=COLORS[bits], linewidth=0.8)
        left.set(title="Exponential", xlabel="difference of scores", ylabel="error over the largest entry")
        left.legend(fontsize=9)
        middle.set(title="Reciprocal", xlabel="sum of exponentials", ylabel="relative error", xscale="log")
        step = 2.0**-12  # half a step of the output, to stand for 0
        for (name, found), line in zip(runs.items(), ("-", "--", ":", "-."), strict=False):
            for table, color in (("exponential", BLUE), ("reciprocal", RED)):
                p95 = [max(found["widths_from_exact_px"][table][str(b)]["p95"], step) for b in WIDTHS]
                right.plot(WIDTHS, p95, color=color, linestyle=line, marker="o", markersize=4, label=f"{table}, {name}")
        right.axhline(0.01, color=INK, linewidth=0.8, linestyle=":")
        right.set(title="Position moved, p95", xlabel="bits of the table", ylabel="px", yscale="log")
        right.set_xticks(WIDTHS)
        log_ticks(right.yaxis)
        if runs:
            right.legend(fontsize=8)


def markdown(document: Mapping[str, Any]) -> str:
    """The tables of docs/explanation/attention_accuracy.md."""
    lines = ["| bits | exponential, worst | mean | reciprocal, worst | mean |", "|---|---|---|---|---|"]
    alone = [(bits, document["exponential"][bits], document["reciprocal"][bits]) for bits in document["exponential"]]
    plans = [(name, run["plan"]["exponential"], run["plan"]["reciprocal"]) for name, run in document["runs"].items()]
    for name, e, r in alone + plans:
        figures = (e["table"]["worst"], e["table"]["mean"], r["worst"], r["mean"])
        lines.append(f"| {name} | " + " | ".join(f"{figure:.4f}" for figure in figures) + " |")
    lines += ["", "| run | softmax | p50 | p75 | p95 | moved, p50 | p95 | max |", "|---|---|---|---|---|---|---|---|"]
    for name, run in document["runs"].items():
        found = run["position"]
        for variant, error in found["errors_px"].items():
            moved = found["from_tables_px"].get(variant, dict.fromkeys(("p50", "p95", "max"), 0.0))
            figures = (*(error[q] for q in ("p50", "p75", "p95")), *(moved[q] for q in ("p50", "p95", "max")))
            lines.append(f"| {name} | {variant} | " + " | ".join(f"{figure:.4f}" for figure in figures) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=_named, action="append", default=[], metavar="BITS=DIRECTORY")
    parser.add_argument("--patches", type=int, default=1000, help="test peaks a run")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "attention_tables.json")
    arguments = parser.parse_args()
    path: Path = arguments.output
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    document |= {"versions": versions()} | {
        "exponential": {str(b): exponential_errors(b, b) for b in WIDTHS},
        "reciprocal": {str(b): reciprocal_errors(b, b + 4, 8) for b in WIDTHS},
    }
    try:
        for _, directory in arguments.run:
            forms = load_forms(directory)
            peaks, reference = chosen_peaks(forms, arguments.patches)
            identity = hashlib.sha256(forms.digest.encode() + peaks.patches().tobytes()).hexdigest()[:16]
            if document["runs"].get(forms.name, {}).get("identity") == identity:
                print(f"{forms.name}: done before", flush=True)
                continue
            found = position(forms, peaks, reference, lambda text, n=forms.name: print(f"{n}: {text}", flush=True))
            document["runs"][forms.name] = {
                "identity": identity, "git_commit": commit(), "plan": plan_errors(forms.plan.attention),
                "position": found,
            }  # fmt: skip
            write_json(path, document)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    write_json(path, document)
    draw(document, path.with_suffix(".png"))
    print(markdown(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())

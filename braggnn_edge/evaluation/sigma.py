"""What a network's sigma is worth: do its intervals hold what they say, how narrow are they, what does sigma help with.

The errors of rows and columns are counted one by one, since each has an interval of its own. Their reference is the
truth of simulated peaks; the fit of measured ones has errors of its own, so shares there are of agreement with the fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.evaluation.groups import FEWEST
from braggnn_edge.evaluation.metrics import PERCENTILES
from braggnn_edge.peaks.table import PeakTable

Pixels = NDArray[np.float64]

#: Shares of the errors that the two intervals of a network are to hold: one and two standard deviations of a normal
#: distribution.
ONE, WIDE = 0.6827, 0.9545
#: Bins of brightness, of width, and of sigma itself, of equal numbers of peaks; fewer where these would be too few.
_BINS, _RELIABILITY_BINS = 6, 10
#: Peaks of a mean, and how often they are dealt into means anew.
_MEAN_OF, _DEALS = 100, 20
#: Share of the peaks that is flagged where no threshold is asked for.
FLAGGED = 0.05


@dataclass(frozen=True)
class Intervals:
    """Standard deviations (n, 2) px of offsets, and half-widths (n, 2) px of the intervals that hold 95.45 %.

    wide: NaN where a network does not know them.
    """

    sigma: Pixels
    wide: Pixels

    def where(self, chosen: NDArray[np.bool_]) -> "Intervals":
        """Those of the chosen peaks (n,)."""
        return Intervals(self.sigma[chosen], self.wide[chosen])


def sigma_figures(
    estimates: Mapping[str, Pixels],
    intervals: Mapping[str, Intervals],
    used: PeakTable,
    kind: str,
    seed: int,
    largest: float = 0.0,
) -> dict[str, Any]:
    """``sigma`` in JSON: by network, what its intervals are worth on the peaks ``used`` that have a reference ``kind``.

    estimates: offsets (n, 2) px. largest: threshold in px; a peak is flagged as not to be trusted where its sigma of
    either axis is larger; 0: the threshold that 5 % of these peaks exceed.
    """
    reference = used.offsets(kind)
    found = {}
    for name, known in intervals.items():
        entry: dict[str, Any] = {"reference": kind, "n": len(reference)}
        error = estimates[name] - reference
        entry |= held(error, known)
        entry["quartiles_px"] = [float(v) for v in np.quantile(known.sigma, (0.25, 0.75))]
        entry["by_brightness"] = binned(error, known, used.peaks["maximum"].astype(np.float64))
        entry["by_fwhm"] = binned(error, known, width(used))
        entry["reliability"] = _reliability(error, known.sigma)
        entry |= _means(error, known.sigma, seed)
        entry["flag"] = _flag(error, known.sigma, largest)
        found[name] = entry
    return found


def sentences(entry: Mapping[str, Any]) -> list[str]:
    """An entry of :func:`sigma_figures` in words, without the name of its network."""
    wide = f", {entry['within_wide']:.1%} within the 95 % interval" if "within_wide" in entry else ""
    said = [f"{entry['within_one']:.1%} of the errors are within one sigma{wide}; half of the sigmas are below "]
    said[0] += f"{entry['median_px']:.3f} px"
    mean, flag = entry.get("weighted_mean", {}), entry["flag"]
    if "gain" in mean:
        said.append(f"means of {mean['peaks']} peaks weighted by sigma are {mean['gain']:.1f} times as precise")
    if "p99_5_without" in flag:
        said.append(
            f"{flag['flagged']} peaks have a sigma above {flag['sigma_px']:.3f} px ({flag['chosen']}): p99.5 is "
            f"{flag['p99_5']:.3f} px, and {flag['p99_5_without']:.3f} px without them"
        )
    for group, tail in flag.get("groups", {}).items():
        if "p95_without" in tail:
            said.append(
                f"so have {tail['flagged']} of {tail['n']} peaks with {group}: p95 is {tail['p95']:.3f} px, and "
                f"{tail['p95_without']:.3f} px without them"
            )
    return said


def width(table: PeakTable) -> Pixels:
    """(n,) fitted FWHM, geometric mean of both axes, px; NaN where the fit did not converge."""
    p = table.peaks
    fitted = p["voigt_converged"]
    area = np.where(fitted, p["voigt_fwhm_major"], np.nan) * np.where(fitted, p["voigt_fwhm_minor"], np.nan)
    return np.sqrt(area)


def held(error: Pixels, known: Intervals) -> dict[str, float]:
    """Shares of errors (n, 2) px within the intervals, and the median sigma."""
    off = np.abs(error)
    found = {
        "within_one": float((off <= known.sigma).mean()),
        "within_two": float((off <= 2 * known.sigma).mean()),
    }
    if np.isfinite(known.wide).all():
        found["within_wide"] = float((off <= known.wide).mean())
    return found | {"median_px": float(np.median(known.sigma))}


def binned(error: Pixels, known: Intervals, by: Pixels) -> list[dict[str, Any]]:
    """:func:`held` over bins of ``by`` (n,), of about equal numbers of peaks; NaN are left out."""
    some = np.isfinite(by)
    count = min(_BINS, int(some.sum()) // FEWEST)
    if not count:
        return []
    edges = np.quantile(by[some], np.linspace(0, 1, count + 1))
    which = np.where(some, np.clip(np.searchsorted(edges, by, side="right") - 1, 0, count - 1), -1)
    found = []
    for k in range(count):
        chosen = which == k
        if chosen.sum() >= FEWEST:  # equal values are of one bin
            entry = {"from": float(edges[k]), "to": float(edges[k + 1]), "n": int(chosen.sum())}
            found.append(entry | held(error[chosen], known.where(chosen)))
    return found


def _reliability(error: Pixels, sigma: Pixels) -> list[dict[str, Any]]:
    """In bins of the predicted sigma, of equal numbers of errors: what was predicted, and what came."""
    off, said = np.abs(error).ravel(), sigma.ravel()
    count = min(_RELIABILITY_BINS, len(said) // FEWEST)
    parts = np.array_split(np.argsort(said, kind="stable"), count) if count else []
    return [
        {
            "n": len(some),
            "sigma_px": float(np.median(said[some])),
            "p68_px": float(np.quantile(off[some], ONE)),
            "rms_px": float(np.sqrt((off[some] ** 2).mean())),
        }
        for some in parts
    ]


def _means(error: Pixels, sigma: Pixels, seed: int) -> dict[str, Any]:
    """``weighted_mean``: rms errors of means of peaks dealt at random, plain and weighted with 1 / sigma**2.

    Nothing where there are too few peaks for two means.
    """
    if len(error) < 2 * _MEAN_OF:
        return {}
    rng = np.random.default_rng((seed, 13))
    plain, weighted = [], []
    for _ in range(_DEALS):
        dealt = rng.permutation(len(error))[: len(error) // _MEAN_OF * _MEAN_OF].reshape(-1, _MEAN_OF)
        weights = sigma[dealt] ** -2
        plain.append(error[dealt].mean(axis=1))
        weighted.append((error[dealt] * weights).sum(axis=1) / weights.sum(axis=1))
    before, after = (float(np.sqrt((np.concatenate(some) ** 2).mean())) for some in (plain, weighted))
    entry: dict[str, Any] = {"peaks": _MEAN_OF, "plain_px": before, "weighted_px": after}
    return {"weighted_mean": entry | ({"gain": before / after} if after else {})}


def _flag(error: Pixels, sigma: Pixels, largest: float) -> dict[str, Any]:
    """What the flag "do not trust" does to the tail of the distances."""
    threshold = largest or float(np.quantile(sigma.max(axis=1), 1 - FLAGGED))
    chosen = "asked for" if largest else f"exceeded by {100 * FLAGGED:g} % of these peaks"
    return {"sigma_px": threshold, "chosen": chosen} | _tail(error, sigma, threshold)


def _tail(error: Pixels, sigma: Pixels, threshold: float) -> dict[str, Any]:
    """How many peaks have a sigma above a threshold, px, and the tail of the distances with and without them."""
    distance, flagged = np.linalg.norm(error, axis=1), sigma.max(axis=1) > threshold
    found: dict[str, Any] = {"flagged": int(flagged.sum())}
    for key in ("p95", "p99_5"):
        found[key] = float(np.percentile(distance, PERCENTILES[key]))
        if not flagged.all():
            found[f"{key}_without"] = float(np.percentile(distance[~flagged], PERCENTILES[key]))
    return found


def flag_groups(
    sigma: Mapping[str, Any],
    groups: Mapping[str, NDArray[np.bool_]],
    estimates: Mapping[str, Pixels],
    intervals: Mapping[str, Intervals],
    reference: Pixels,
) -> None:
    """Add ``groups`` to ``flag`` of the entries of :func:`sigma_figures`: what the same threshold does to other peaks.

    groups: masks (n,) by name; estimates, reference: offsets (n, 2) px. A group has at least 20 peaks.
    """
    for name in [name for name in sigma if name in intervals]:
        error, known, flag = estimates[name] - reference, intervals[name].sigma, sigma[name]["flag"]
        flag["groups"] = {
            group: {"n": int(chosen.sum())} | _tail(error[chosen], known[chosen], flag["sigma_px"])
            for group, chosen in groups.items()
            if chosen.sum() >= FEWEST
        }
